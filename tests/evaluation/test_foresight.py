"""Notes before training: a world that needs no planning, and a budget that is too small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation import foresight as module
from recsys_rl.evaluation.foresight import Foresight, Priced, about_foresight, foresight
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from recsys_rl.rivals.references import Myopic
from recsys_rl.settings.config import Config
from recsys_rl.types import World
from tests.doors import assert_names, without_kernels_note
from tests.small_runs import CPU, settings, world

SMALL = {"num_items": 30, "embedding_dim": 4, "max_episode_steps": 8}
PATIENT = {"catchiness_gain": 0.0, "satiation_strength": 0.0, "patience_cost": 0.0}
"""Users of `satiation` for whom nothing that was shown changes what comes later."""


def small(folder: Path, sizes: Mapping[str, float] | None = None, env: str = "satiation") -> Config:
    data = {"num_users": 60, "cache_dir": str(folder)}
    return settings("ppo", env, env_config={**SMALL, **(sizes or {})}, data_config=data)


def test_a_world_without_consequences_needs_no_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(tmp_path, PATIENT)
    found = foresight(config, world(config), CPU)
    assert found is not None and abs(found.gain) < 0.02
    note = about_foresight(config, world(config), CPU)
    assert "hardly needs planning" in note and f"earn {found.myopic:.2f} a session" in note

    def never(*_: object) -> None:
        raise AssertionError("the result is in the cache")

    monkeypatch.setattr(module, "_play", never)
    assert foresight(config, world(config), CPU) == found
    with pytest.raises(AssertionError, match="in the cache"):  # another world
        foresight(small(tmp_path, PATIENT | {"noise": 0.2}), world(config), CPU)


def test_a_world_with_catchy_items_needs_planning_and_the_planner_is_not_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Planner", None)
    config = small(tmp_path)
    found = foresight(config, world(config), CPU)
    assert found is not None and found.gain > 0.1
    assert about_foresight(config, world(config), CPU) == ""


def test_platforms_without_a_planner_get_no_note(tmp_path: Path) -> None:
    config = small(tmp_path, env="drift")
    assert foresight(config, world(config), CPU) is None
    assert about_foresight(config, world(config), CPU) == ""


@pytest.mark.parametrize("env", ["satiation", "short-video", "long-video"])
def test_base_policy_without_prices_is_myopic(tmp_path: Path, env: str) -> None:
    sizes = {"num_items": 60, "suggestions": 3, "max_episode_steps": 12} if env == "long-video" else {}
    config, returns = small(tmp_path, sizes, env), []
    for make in (Myopic, lambda env: Priced(env, torch.zeros(6, 2))):
        made = make_env(config, world(config), 6, torch.Generator().manual_seed(0))
        assert isinstance(made, RecEnv)
        returns.append(play(made, make(made), torch.arange(6)).returns)
    assert torch.allclose(returns[0], returns[1], rtol=1e-4)


def test_gain_is_relative_to_the_myopic_return() -> None:
    assert Foresight(10.0, 10.1).gain == pytest.approx(0.01)
    assert Foresight(-10.0, -9.0).gain == pytest.approx(0.1)


def test_commands_print_one_note_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recsys_rl.workflows.about_run.ENOUGH", 3e-5)  # of 1,800,000 steps: 54
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | PATIENT).items()]
    rollout = ["--num-envs", "2", "--n-steps", "16", "--batch-size", "16", "--eval-interval", "0"]
    train = ["train", "--env", "satiation", "--data", "synthetic", "--num-users", "60", *sizes, *rollout]
    train += ["--cache-dir", "cache"]
    assert main([*train, "--total-timesteps", "64"]) == 0
    (note,) = (line for line in without_kernels_note(capsys.readouterr().err) if "note:" in line)
    assert note.startswith("note: this world hardly needs planning")
    assert main([*train, "--total-timesteps", "32"]) == 0
    (note,) = (line for line in without_kernels_note(capsys.readouterr().err) if "note:" in line)
    assert_names(note, "--total-timesteps 32", "0.0018 %", "1,800,000", "ppo on satiation")


def test_population_of_one_training_user_is_enough(tmp_path: Path) -> None:
    config = small(tmp_path, PATIENT)
    made = world(config)
    one = replace(made.population, train=made.population.train[:1])
    found = foresight(config, World(made.catalogue, one), CPU)
    assert found is not None and found.myopic > 0

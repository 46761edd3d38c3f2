"""A checkpoint in another world than that of its training: `evaluate --world`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.cli import main
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import PLATFORM, Satiation, SatiationConfig
from recsys_rl.env.short_video import ShortVideo, ShortVideoConfig
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.make import make_env
from recsys_rl.records import Platform
from recsys_rl.settings.config import Config, overlay
from recsys_rl.training.worlds import played_in
from recsys_rl.types import Catalogue, ItemFeature, UserError, World
from tests.doors import CARTPOLE, DRIFT, SATIATION, VIDEOS, steps, train_in

SIBLING = Platform(SatiationConfig, users=Satiation, presets={"*": PLATFORM.presets["*"]})
"""Users of the same form under another name; as other platforms do, it has no patience to start with."""
QUIET = Platform(
    SatiationConfig,
    users=Satiation,
    presets={"*": overlay(PLATFORM.presets["*"], {"env_config": {"patience_cost": 2.0, "noise": 0.0}})},
)
VIDEO_SIBLING = Platform(ShortVideoConfig, users=ShortVideo)
THIS = "tests.training.test_worlds"
LEARNED = ("ppo", "ppo-greedy", "untrained", "expected")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    options = {
        "satiation": SATIATION,
        "sibling": [*DRIFT, "--env", f"{THIS}:SIBLING", "--patience-start", "0.9"],
        "drift": DRIFT,
        "gym": CARTPOLE,
    }
    return {name: train_in(folder / name, *x, *steps(3)) for name, x in options.items()}


def table(tmp_path: Path, *options: object) -> dict[str, Any]:
    file = tmp_path / "table.json"
    assert main(["evaluate", *map(str, options), "--json", str(file), "--no-planner"]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def with_config(checkpoint: Checkpoint, **settings: Any) -> Checkpoint:
    return dataclasses.replace(checkpoint, config=Config(**{**vars(checkpoint.config), **settings}))


def test_another_platform_has_the_settings_of_its_preset(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy of `satiation` in a quiet sibling: as a checkpoint with these settings of its own plays.

    Rows that are found by trials are found in the world of the training, as the policy was.
    """
    path, other = trained["satiation"], tmp_path / "other.pt"
    save(other, with_config(load(path), patience_cost=2.0, noise=0.0))
    expected = table(tmp_path, other)
    capsys.readouterr()
    found = table(tmp_path, path, "--world", f"{THIS}:QUIET")
    out, err = capsys.readouterr()
    assert err.startswith(f"policies trained in satiation play in {THIS}:QUIET\n")
    assert "searching `static-list` on training users\nplaying static-list " in err
    assert (found.pop("world"), found.pop("trained_on")) == (f"{THIS}:QUIET", ["satiation"])
    theirs, ours = ({row["policy"]: row for row in x["rows"]} for x in (expected, found))
    assert ours.keys() == theirs.keys()
    same = [*LEARNED, "random", "popularity", "myopic"]
    assert [ours[name] for name in same] == [theirs[name] for name in same]
    home = "found in the world of the training (satiation)"
    assert found["notes"]["static-list"] == home and found["notes"]["rule"].endswith(f"; {home}")
    assert not any(home in found["notes"].get(name, "") for name in same)
    assert out.startswith(f"{THIS}:QUIET, ppo after 72 steps on satiation; synthetic\n")
    own = {row["policy"]: row["return_mean"] for row in table(tmp_path, path)["rows"]}
    there = {row["policy"]: row["return_mean"] for row in found["rows"]}
    assert own.keys() == there.keys() and own != there


def test_a_users_own_policy_is_tuned_in_the_world_of_the_training(trained: dict[str, Path]) -> None:
    costs: list[float] = []

    def make(catalogue: Catalogue, trainees: Trainees, steps: int) -> Rule:
        env = trainees.make_env(trainees.population, 1, trainees.generator)
        assert isinstance(env, RecEnv) and isinstance(env.user_model, Satiation) and steps == 72
        costs.append(env.user_model.config.patience_cost)
        return Rule(catalogue, RuleWeights.zeros(), trainees.slate)

    for world in (None, f"{THIS}:QUIET"):
        evaluate(trained["satiation"], planner=False, world=world, policies={"mine": make})
    assert costs == [0.5, 0.5]


def test_the_platform_of_the_training_keeps_its_settings(trained: dict[str, Path]) -> None:
    env = f"{THIS}:SIBLING"
    sibling = load(trained["sibling"], env)
    assert played_in("a", sibling, env).config.env_config == sibling.config.env_config
    moved = played_in("a", sibling, "satiation").config.env_config
    assert (sibling.config.env_config.patience_start, moved.patience_start) == (0.9, 0.5)
    assert moved.num_items == sibling.config.env_config.num_items == 24


def test_rows_by_trials_are_left_out_if_the_world_of_the_training_is_gone(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained["sibling"]

    def fails_at_home(config: Config, *rest: Any, **more: Any) -> Any:
        if config.env != "satiation":
            raise UserError("users.pt is missing: give its path.")
        return make_env(config, *rest, **more)

    monkeypatch.setattr("recsys_rl.evaluation.players.make_env", fails_at_home)
    found = evaluate(path, env=f"{THIS}:SIBLING", world="satiation", planner=False)
    assert [row["policy"] for row in found["rows"]] == [*LEARNED, "random", "popularity", "myopic"]
    assert "found in the world of the training, and it can't be made. users.pt is" in capsys.readouterr().err


def test_policies_of_two_trainings_share_a_table_in_one_world(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    files = [trained["satiation"], trained["sibling"]]
    copy = tmp_path / "sibling.pt"  # its name may be in a file, as no module is in it
    save(copy, with_config(load(files[1], f"{THIS}:SIBLING"), env="satiation"))
    files[1] = copy
    with pytest.raises(UserError):
        evaluate(files, planner=False)
    found = evaluate(files, planner=False, world=f"{THIS}:SIBLING")
    assert found["world"] == f"{THIS}:SIBLING" and found["trained_on"] == ["satiation"]
    alone = table(tmp_path, files[0])["rows"]
    ours = next(row for row in found["rows"] if row["policy"] == "ppo (ppo)")
    assert ours["return_mean"] == pytest.approx(alone[0]["return_mean"])


def test_report_names_both_worlds_and_leaves_that_of_the_run(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    path, own = trained["sibling"], trained["sibling"].parent / "report.html"
    own.write_text("of the run")
    env = f"{THIS}:SIBLING"
    evaluate(path, env=env, world="satiation", planner=False, report=True)
    assert own.read_text() == "of the run"
    page = (path.parent / "report-satiation.html").read_text()
    assert "<title>ppo on satiation: recsys_rl report</title>" in page
    assert f"trained for 72 steps on <b>{env}</b>, played in <b>satiation</b>, earns" in page
    assert "are of another world than this curve" in page
    assert '<th scope="row">patience_start</th><td>0.9</td>' in page  # the settings are those of the run


def test_worlds_that_do_not_fit(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    satiation, gym = trained["satiation"], trained["gym"]
    for path, options in (
        (satiation, ["--world", "drift"]),  # another interface
        (gym, ["--world", "satiation"]),
        (satiation, ["--world", "satation"]),
        (satiation, ["--world", "gym:CartPole-v1"]),
        (satiation, ["--env", "drift", "--world", "satiation"]),  # --env keeps its meaning
    ):
        assert main(["evaluate", str(path), *options]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("error: "), options


def test_attributes_that_the_world_needs_are_those_of_its_own_training(tmp_path: Path) -> None:
    """Attributes drawn from the seed, whatever the training had of them; features of items must agree."""
    path = train_in(tmp_path / "videos", *VIDEOS, "--env", "short-video", *steps(1))
    whole = load(path)
    catalogue, population = whole.world
    assert catalogue.attributes and population.attributes
    known = {x.name: catalogue.attributes[x.name] for x in catalogue.features}  # genres and year
    bare = World(
        dataclasses.replace(catalogue, attributes=known, drawn=()),
        dataclasses.replace(population, attributes={}),
    )
    stripped = with_config(dataclasses.replace(whole, world=bare), env=f"{THIS}:VIDEO_SIBLING")
    moved = played_in(path, stripped, "short-video")
    for mine, theirs in (
        (catalogue.attributes, moved.catalogue.attributes),
        (population.attributes, moved.population.attributes),
    ):
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            torch.testing.assert_close(values, theirs[name], rtol=0, atol=0, equal_nan=True)
    seen = dataclasses.replace(catalogue, features=(ItemFeature("duration", "log"),))
    other = dataclasses.replace(stripped, world=World(seen, population))
    moved = played_in(path, other, "short-video")  # its own features stay
    assert moved.catalogue.features == seen.features
    with pytest.raises(UserError):
        played_in(path, stripped, "social-feed")

"""The filter of the mood that `benchmarks.mood` trains beside the encoders, and the benchmark's table."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from benchmarks import mood
from benchmarks.mood import FilteredState, summary
from recsys_rl.agents.ppo import PPO
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import UserError
from recsys_rl.workflows.train import updates


def make(env: str, **sizes: Any) -> RecEnv:
    config = from_dict(
        Config,
        {
            "env": env,
            "env_config": {"num_items": 200, "embedding_dim": 4, "max_episode_steps": 80, **sizes},
            "data_config": {"data": "synthetic", "num_users": 500},
        },
    )
    made = make_env(config, make_world(config), 256, torch.Generator().manual_seed(0))
    assert isinstance(made, RecEnv)
    return made


def test_mood_is_shown_behind_the_usual_context() -> None:
    env, plain = make("benchmarks.mood:SHOWN"), make("short-video")
    env.reset(), plain.reset()
    for number in range(3):
        seen = env.step(torch.full((256, 1), number)).obs.context
        usual = plain.step(torch.full((256, 1), number)).obs.context
    assert_close(seen[:, :-2], usual)
    assert torch.equal(seen[:, -2:], env.user_state.mood) and env.user_state.mood.any()


def test_filter_follows_mood_ease_and_habit_and_knows_its_error() -> None:
    """Users who seldom leave are shown the best-liked videos. Taste has no effect, as the filter lacks it."""
    env = make("benchmarks.mood:FILTERED", patience_drain=0.0, taste_gain=0.0, mood_deviation=1.0)
    env.reset()
    best = env.catalogue.popularity.argsort(descending=True)
    for number in range(60):
        env.step(best[number].expand(256, 1))
    state = env.user_state
    assert isinstance(state, FilteredState) and bool((env.session.steps == 60).double().mean() > 0.9)
    truth = torch.cat([state.mood, state.ease.unsqueeze(1), state.habit.unsqueeze(1)], 1)  # (N, 4)
    error = (state.mean - truth).square().mean(0)
    believed = state.covariance.diagonal(dim1=1, dim2=2).mean(0)
    prior = torch.tensor([1.0, 1.0, 0.65**2, 0.25**2])
    assert bool((error < 0.75 * prior).all()), error / prior
    assert_close(error / believed, torch.ones(4), atol=0.5, rtol=0)
    assert torch.equal(env.observe().context[:, -2:], state.mean[:, :2])


def test_shares_of_the_gap_by_hand() -> None:
    """Shown stands 4 above the sums; an encoder that stands 1 above them closes a quarter."""
    sums = torch.tensor([10.0, 12.0, 14.0], dtype=torch.float64)
    rows = summary({"sums": sums, "shown": sums + 4, "transformer": sums + torch.tensor([0.0, 1.0, 2.0])})
    assert rows[0]["return"] == 12 and "share" not in rows[0]
    assert rows[1]["share"] == pytest.approx(1) and rows[2]["more"] == pytest.approx(1)
    assert rows[2]["share"] == pytest.approx(0.25) and rows[2]["share_low"] < 0.25 < rows[2]["share_high"]
    assert "share" not in summary({"sums": sums, "shown": sums - 1})[1]  # no gap to close


SMALL = Namespace(smoke=True, set=[], num_items=20, first_steps=128, steps=128, lr=1e-3)


@pytest.mark.parametrize("name", ["sums", "shown", "transformer"])
def test_all_runs_begin_as_the_policy_of_the_first_training(name: str, tmp_path: Path) -> None:
    first = mood.trained(mood.settings(SMALL, "sums", 0, first=True))
    update = next(updates(mood.settings(SMALL, name, 0), folder=tmp_path / "run"))
    mood._begin_with(update, mood.network(first).state_dict())
    env = update.run.env
    env.reset()
    for number in range(3):
        obs = env.step(torch.full((8, 1), number)).obs
    size = first.run.env.interface.context_size
    usual = replace(obs, context=obs.context[:, :size])
    assert isinstance(update.agent, PPO) and isinstance(first.agent, PPO)
    wanted = first.agent.item_probabilities(usual, 20)
    assert_close(update.agent.item_probabilities(obs, 20), wanted, atol=1e-6, rtol=0)
    assert (obs.context.shape[1] > size) == (name == "shown")


def test_settings_of_the_platform_are_names_and_numbers() -> None:
    assert mood.numbers(["mood_deviation=1.5", "ratio_base=-0.2"]) == {
        "mood_deviation": 1.5,
        "ratio_base": -0.2,
    }
    for wrong in ("mood_deviation", "mood_deviation=much", "a=1=2"):
        with pytest.raises(UserError, match="NAME=NUMBER"):
            mood.numbers([wrong])


def test_smoke_reads_what_a_folder_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first-0.safetensors").touch()  # not read, as no run is trained
    for place, name in enumerate(mood.RUNS):
        (tmp_path / f"{name}-0.json").write_text(f"[{place}, {place + 2}]")
    monkeypatch.setattr("sys.argv", ["mood", "--smoke", "--threads", "1", "--keep", str(tmp_path)])
    mood.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run=")]
    assert [line.split("by_seed=")[1].split()[0] for line in lines] == ["1.0", "2.0", "3.0", "4.0"]


def test_smoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["mood", "--smoke", "--threads", "1"])
    mood.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run=")]
    assert [line.split()[0].removeprefix("run=") for line in lines] == list(mood.RUNS)

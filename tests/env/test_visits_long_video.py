"""Lives on the platform of long videos: feelings and the next visit by hand, the batteries, and a command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.env.long_video import LongVideo
from recsys_rl.evaluation.columns import active_days
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.experience.rollout import play
from recsys_rl.protocols import ReturningUsers
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import UserError
from tests.env.test_long_video import NEVER, SURE, TINY, begin, numbers, small_env, step, tiny
from tests.env.test_long_video import hand as hand

ALWAYS: dict[str, Any] = {"habit_base": 50.0, "habit_deviation": 0.0, "habit_fade": 0.0, "visit_gain": 0.0}


def lasting() -> LongVideo:
    """The tiny world with lives; its user has the standard normal number 0.5 for a habit."""
    model = tiny()
    users = replace(model.population, attributes={"habit": torch.tensor([0.5])})
    config = replace(TINY, visits=35, habit_base=0.4, habit_deviation=1.2, overnight=0.4, first_usual=-0.3)
    return replace(model, population=users, config=config)


def test_feelings_of_a_visit_by_hand() -> None:
    """One request at home without a pick, then east is picked and left after a quarter: -0.5 and -0.25."""
    model = lasting()
    state = begin(model, pick=SURE)
    assert state.life["habit"].item() == pytest.approx(1.0)  # 0.4 + 1.2 * 0.5
    assert state.life["usual"].item() == pytest.approx(-0.3) and "opened" not in state.life
    state, *_ = step(model, state)
    assert (state.life["felt"].item(), state.life["items"].item()) == (-0.5, 1.0)
    state, *_ = step(model, numbers(state, NEVER, NEVER))
    assert state.current.item() == 0
    assert (state.life["felt"].item(), state.life["items"].item()) == (-0.5, 1.0)  # a pick is not a feeling
    state, *_ = step(model, numbers(state, SURE, NEVER))
    assert state.quarters.item() == 1 and state.life["items"].item() == 1
    state, *_ = step(model, numbers(state, SURE, SURE))
    assert state.current.item() == -1
    assert (state.life["felt"].item(), state.life["items"].item()) == (-0.75, 2.0)


def test_state_at_the_next_visit_by_hand() -> None:
    model = lasting()
    state, *_ = step(model, begin(model, pick=NEVER))  # east plays
    state = replace(state, trust=torch.tensor([0.9]), subscribed=state.subscribed + 2, idle=state.idle + 1)
    life = {**state.life, "felt": torch.tensor([-0.2]), "items": torch.tensor([2.0])}
    later, gap = model.come_back(replace(state, life=life), torch.tensor([0.5]))
    # z = 1 + 5 (-0.1 + 0.3) = 2: the first day has sigmoid(2) = 0.88, so a chance of 0.5 is day 1
    assert gap.item() == 1
    assert model.come_back(replace(state, life=life), torch.tensor([0.1]))[1].item() == 2  # 0.12 stay away
    assert later.life["usual"].item() == pytest.approx(-0.28)  # a tenth of the way to -0.1
    assert later.life["felt"].item() == later.life["items"].item() == 0
    assert_close(later.wear, 0.4 * state.wear)
    assert state.wear.any() and later.trust.item() == pytest.approx(0.9)
    assert torch.equal(later.subscribed, state.subscribed)
    assert later.current.item() == -1 and not later.watched.any()
    for name in ("quarters", "clicked", "ad_clicked", "num_watched", "idle"):
        assert getattr(later, name).item() == 0, name


def test_one_visit_is_as_before() -> None:
    """Worlds of earlier versions have no habit. They serve single visits, and lives name what is missing."""
    assert tiny().sample(torch.tensor([0])).life == {}
    with pytest.raises(UserError):
        tiny(replace(TINY, visits=2))
    env = small_env()
    env.reset()
    assert not [name for name in env.state_dict() if "life" in name or "visit" in name or "day" in name]


def test_next_visit_begins_at_home_with_all_items() -> None:
    env = small_env(6, visits=3, idle_limit=1, **ALWAYS)  # users come back on each day
    env.reset()
    ends, remembered = [], False
    for number in range(40):
        step = env.step(torch.arange(6).expand(6, 6) + 6 * (number % 8))
        assert step.day is not None and step.obs.exclude is not None and step.obs.history is not None
        fresh = env.session.steps == 0
        remembered |= bool((step.obs.history[fresh] >= 0).any())  # what was watched in earlier visits
        assert bool((env.user_state.current[fresh] == -1).all())
        assert bool((step.obs.exclude[fresh] == -1).all())
        ends += step.truncated.nonzero().flatten().tolist()
        assert not step.terminated.any()
    assert len(ends) > 6 and remembered  # lives of three visits


def test_batteries_cover_lives_of_long_videos() -> None:
    env = small_env(8, visits=4)
    assert isinstance(env.user_model, ReturningUsers) and env.interface.visits == 4
    check_user_model(env.user_model, env.catalogue, env.users[:8], num_steps=8)
    check_env(lambda seed: small_env(8, seed, visits=4, habit_base=2.0), max_episode_steps=8)
    assert env.user_model.assumptions.endswith(
        "; habits of users and the days on which they return are assumed"
    )


def test_better_videos_bring_users_back() -> None:
    """All are drawn with the same noise: a larger first_usual makes the same visits worse than usual."""
    days = []
    for usual in (-0.9, 0.3):
        env = small_env(64, visits=35, visit_gain=10.0, habit_deviation=0.0, first_usual=usual)
        sessions = play(env, RandomPolicy((120,), torch.Generator().manual_seed(0), 6))
        assert sessions.days is not None and sessions.days.max() <= 34
        days.append(active_days(sessions.days).double().mean().item())
    assert days[0] > days[1] + 5


@pytest.mark.proof
def test_command_trains_and_evaluates_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = "--data synthetic --num-items 60 --num-users 30 --embedding-dim 4 --max-episode-steps 3"
    small = "--suggestions 3 --n-steps 6 --num-envs 4 --batch-size 12 --hidden-dims 6 --total-timesteps 96"
    lives = ["--visits", "35", "--name", "whole", "--cache-dir", str(tmp_path)]
    assert main(["train", "--env", "long-video", *world.split(), *small.split(), *lives]) == 0
    assert load(Path("runs/whole/ppo.pt")).interface.visits == 35
    assert main(["evaluate", "--checkpoint", "runs/whole/ppo.pt", "--json", "t.json"]) == 0
    for row in json.loads(Path("t.json").read_text())["rows"]:
        assert 1 <= row["active_days"] <= 35 and 0 <= row["d7"] <= 1 and not math.isnan(row["churn"])

"""The table of other people's environments: the games' rules, exact references, the cache, the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from benchmarks import foreign, foreign_envs
from benchmarks.foreign import OURS, PEER
from recsys_rl.experience.rollout import play
from recsys_rl.foreign.gym import GymEnv
from recsys_rl.types import Action, Obs
from tests.doors import benchmark_here

# Three users and twelve items. Users 0 and 1 like items 0 to 10 and 0 to 3; user 2 likes item 11 alone.
RATINGS = np.full((3, 12), 3.4)
RATINGS[0, :11], RATINGS[1, :4], RATINGS[2, 11] = 3.6, 5, 4


def test_references_of_a_small_matrix() -> None:
    """Items 0 to 3 are liked by two of three, the others by one: (4 x 2 + 6 x 1) / 3. All: 10, 4 and 1."""
    found = foreign_envs.references(foreign_envs.liked(RATINGS))
    assert found == {"static-list": pytest.approx(14 / 3), "oracle": pytest.approx(5)}


class Script:
    """Shows the same items in every session, in this order."""

    def __init__(self, items: list[int]) -> None:
        self.items, self.turn = items, 0

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items = torch.full((obs.num_rows, 1), self.items[self.turn % len(self.items)])
        self.turn += 1
        return Action(items, torch.zeros(obs.num_rows))


def small_game() -> str:
    """A registered game of those three users."""
    if "tests/SmallMatrix-v0" not in gymnasium.registry:
        settings = {"ratings": RATINGS}
        gymnasium.register("tests/SmallMatrix-v0", "benchmarks.foreign_envs:RatingMatrix", kwargs=settings)
    return "gym:tests/SmallMatrix-v0"


def test_the_static_list_earns_what_was_computed() -> None:
    users = torch.arange(600)
    sessions = play(GymEnv(small_game(), 600, 0), Script(list(range(10))), users)
    assert sessions.lengths.tolist() == [10] * 600
    assert sorted(set(sessions.returns.tolist())) == [0, 4, 10]  # of the users 2, 1 and 0
    assert sessions.returns.mean().item() == pytest.approx(14 / 3, abs=0.5)  # deviation 4.1 / 600**0.5 = 0.17


def test_a_repeat_earns_nothing() -> None:
    sessions = play(GymEnv(small_game(), 60, 0), Script([0, 1]), torch.arange(60))
    assert set(sessions.returns.tolist()) == {0, 2}


def test_the_observation_is_a_window_of_items_and_clicks() -> None:
    game = foreign_envs.RatingMatrix(RATINGS)
    while True:
        obs, _ = game.reset(seed=None if hasattr(game, "user") else 0)
        assert not obs.any()
        if game.user == 1:
            break
    shown = [0, 7, 1, 0, 8, 9, 10]
    for item in shown:
        obs, *_ = game.step(np.int64(item))
    places = np.flatnonzero(obs).tolist()  # of 1, 0, 8, 9 and 10: the window is five turns
    assert places == [0, 1, 8, 9, 10, 12 + 1]  # 0 was a repeat, which is not a click
    assert game.observation_space.contains(obs)


def test_rules_find_the_best_candidate() -> None:
    """Two users and three candidates: the highest feature, and the best match of interests and topics."""
    rules = {name: env.rule for name, env in foreign.ENVIRONMENTS.items() if env.rule is not None}
    rest = torch.zeros(2, 25)  # two responses (4), interests (20), the clock
    rest[0, 4], rest[1, 5] = 1, -1
    docs = torch.zeros(2, 3, 20)
    docs[:, 0, 0], docs[:, 1, 1], docs[:, 2, :2] = 0.5, 1, 0.7
    assert rules["interest-evolution-slates"](rest, docs).argmax(1).tolist() == [2, 0]
    assert rules["long-term-satisfaction"](rest, docs).argmax(1).tolist() == [2, 2]


@pytest.mark.parametrize("name", [name for name, env in foreign.ENVIRONMENTS.items() if env.rule])
def test_a_rule_plays_slates_of_candidates(name: str) -> None:
    env = foreign.ENVIRONMENTS[name]
    if env.missing() is not None:
        pytest.skip(str(env.missing()))
    agent, game = foreign.one_line(env.id, 0, foreign.SMOKE)
    sessions = play(game, agent, greedy=True)
    assert sessions.items.shape[2] == game.interface.slate_size == 2
    assert "features stand in the part 'doc'" in game.note


def stand_in(value: Mapping[str, float]) -> Any:
    """A system that earns ``value`` of each environment, whatever the seed; counts its runs."""
    runs: list[tuple[str, int]] = []

    def measure(train: Any, env_id: str, seed: int, sizes: foreign.Sizes) -> dict[str, float]:
        runs.append((env_id, seed))
        mean = value[env_id] + 0.01 * seed
        return {"return_mean": mean, "sampled_mean": mean, "length_mean": 1.0, "seconds": 0.0}

    return measure, runs


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr("sys.argv", ["foreign", *options])
    foreign.main()


@pytest.mark.parametrize(
    ("mine", "theirs", "wide", "holds"),
    [
        ([9.6, 9.6, 9.6], [10.0, 10.0, 10.0], False, True),  # a tenth of the way from 0 to 10 is 1
        ([9.6, 9.6, 9.6], [10.0, 10.0, 10.0], True, False),  # on wide ones it must lie above
        ([10.1, 10.1, 10.1], [10.0, 10.0, 10.0], True, True),
        ([8.9, 8.9, 8.9], [10.0, 10.0, 10.0], False, False),
        ([9.0, 11.0, 10.0], [10.0, 10.0, 10.0], False, False),  # 0 +- 2.5 excludes nothing
    ],
)
def test_the_verdict(mine: list[float], theirs: list[float], wide: bool, holds: bool) -> None:
    found = foreign.compare(torch.tensor(mine), torch.tensor(theirs), 0.0, wide)
    assert found["holds"] is holds
    assert found["minus_sb3"] == pytest.approx(sum(mine) / 3 - sum(theirs) / 3, abs=1e-5)


def test_one_seed_has_no_interval() -> None:
    found = foreign.compare(torch.tensor([5.0]), torch.tensor([4.0]), 0.0, True)
    assert math.isnan(found["minus_low"]) and found["holds"] is None


@pytest.mark.proof
def test_smoke_without_peers(tmp_path: Path) -> None:
    """It runs with our package alone, and says of each environment that it can't play why."""
    modules = ["stable_baselines3", "recsim", "sardine", "Box2D"]
    benchmark_here(foreign.main, tmp_path, "--smoke", "--json", "table.json", without=modules)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    notes = {row["env"]: row["note"] for row in rows if "note" in row}
    assert {name: notes[name] for name in ("lunarlander", "interest-evolution", "sardine")} == {
        "lunarlander": "Box2D is not installed",
        "interest-evolution": "recsim is not installed",
        "sardine": "sardine is not installed",
    }
    assert PEER not in {row.get("system") for row in rows}
    played = {row["env"] for row in rows if row.get("system") == OURS}
    assert {"cartpole", "acrobot", "taxi"} <= played and played.isdisjoint(notes)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


# greedy and sampled of each

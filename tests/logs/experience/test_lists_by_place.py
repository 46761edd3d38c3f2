"""A team's lists with a signal for each place: what learners get of them, and the verdict at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.cli.train import train_options
from recsys_rl.logs.experience.logged import Logged, make_logged
from recsys_rl.logs.judges.best_item import item_scores
from recsys_rl.logs.judges.judge_own_log import _decisions
from recsys_rl.make import make_world
from recsys_rl.training.train import train
from recsys_rl.types import Transitions

ROWS, ITEMS = 900, 5
LIKED = np.array([0.1, 0.8, 0.3, 0.2, 0.4])


def columns() -> dict[str, object]:
    """Uniform lists of two of five items; a user looks at the second place in half of the cases."""
    rng = np.random.default_rng(0)
    lists = rng.permuted(np.tile(np.arange(ITEMS), (ROWS, 1)), axis=1)[:, :2]
    clicks = (rng.random((ROWS, 2)) < LIKED[lists] * np.array([1.0, 0.5])).astype(float)
    return {
        "user": np.arange(ROWS),
        "items": lists.tolist(),
        "propensity": np.full(ROWS, 1 / 20),
        "place_logprobs": np.log(np.tile([1 / 5, 1 / 4], (ROWS, 1))).tolist(),
        "signal.click": clicks.tolist(),
    }


def logged(folder: Path, table: dict[str, object], *words: str) -> Logged:
    path = folder / "lists.parquet"
    pl.DataFrame(table).write_parquet(path)
    config = train_options([*(words or ("--algo", "reinforce")), "--log", str(path)]).config
    return make_logged(config, make_world(config), torch.Generator().manual_seed(0))


def of(logged: Logged) -> Transitions:
    found = logged.batch().data
    assert isinstance(found, Transitions)
    return found


def test_learners_get_the_reward_and_the_probability_of_each_place(tmp_path: Path) -> None:
    batch = of(logged(tmp_path, columns()))
    assert batch.place_rewards is not None and batch.place_logprobs is not None
    assert torch.equal(batch.place_rewards.sum(1), batch.rewards)
    assert {tuple(row) for row in batch.place_rewards.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert batch.place_logprobs.exp().mean(0).tolist() == pytest.approx([1 / 5, 1 / 4])


def test_a_slate_is_one_decision_where_its_places_are_not_known(tmp_path: Path) -> None:
    table = columns()
    clicks = np.array(table["signal.click"])
    sums = {name: values for name, values in table.items() if name != "signal.click"}
    for other in (
        {name: values for name, values in table.items() if name != "place_logprobs"},
        sums | {"reward": clicks.sum(1)},
    ):
        batch = of(logged(tmp_path, other))
        assert batch.place_rewards is None and batch.place_logprobs is None
        assert set(batch.rewards.tolist()) == {0, 1, 2}


def test_a_weighted_clone_takes_the_sum_where_a_place_has_a_negative_reward(tmp_path: Path) -> None:
    table = columns()
    clicks = np.array(table["signal.click"]) @ np.array([[1.0, 0.0], [0.0, 1.0]])
    table["signal.click"] = np.stack([clicks[:, 0] + 1, -0.5 * clicks[:, 1]], 1).tolist()
    assert of(logged(tmp_path, table, "--algo", "bc", "--weighted")).place_rewards is None
    assert of(logged(tmp_path, table)).place_rewards is not None


def test_the_best_items_are_by_the_rewards_of_places(tmp_path: Path) -> None:
    scores = item_scores(_decisions(logged(tmp_path, columns())), ITEMS)
    assert scores.argsort(descending=True)[:2].tolist() == [1, 4]


def test_the_verdict_is_by_the_weights_of_places(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    pl.DataFrame(columns()).write_parquet(path)
    folder = tmp_path / "run"
    train(algo="reinforce", log=(str(path),), total_timesteps=6_400, folder=folder)
    found = json.loads((folder / "ope.json").read_text())
    rows = {row["policy"]: row for row in found["verdicts"]}
    assert {row["estimator"] for name, row in rows.items() if name != "logged"} == {"cascade-dr"}
    assert {row["estimator"] for row in found["rows"] if row.get("recommended")} <= {"cascade-dr"}
    assert rows["clone"]["ess"] > 100 and rows["reinforce-greedy"]["ess"] < rows["clone"]["ess"]

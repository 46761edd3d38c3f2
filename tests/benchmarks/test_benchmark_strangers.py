"""The benchmark of strangers: its smoke run, its filter, and the text of its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from benchmarks import strangers as of_strangers
from benchmarks.strangers_filter import Filter
from recsys_rl.env.satiation import Satiation
from recsys_rl.types import Obs
from tests.doors import benchmark_here
from tests.tiny_world import SATIATION, population, tiny_catalogue

ABOUT = {"date": "2026-11-28", "commit": "abc", "steps": 1000, "users": 9}


def played(env: str, seed: int, policy: str, value: float, regret: float | None) -> dict[str, object]:
    means = {"return_mean": value, "return_low": value - 1, "return_high": value + 1, "length_mean": 3}
    lost = {} if regret is None else {"regret_5": regret / 2, "regret": regret}
    return {**ABOUT, "env": env, "seed": seed, "policy": policy, **means, **lost}


def test_filter_infers_the_taste_from_an_answer_that_says_something() -> None:
    """Items east (catchy), north and between; tastes along one axis, north or south."""
    users = Satiation(tiny_catalogue(), population([[0.0, 1.0], [0.0, -1.0]]), SATIATION)
    agent = Filter(users, torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    # After between (0.6, 0.8): a person of the north would have watched much, and one of the south little.
    history = torch.tensor([[-1, -1, 2], [-1, -1, 2]])
    signals = torch.tensor([[[0.0], [0.0], [0.9]], [[0.0], [0.0], [0.02]]])
    shown = agent.act(Obs(torch.zeros(2, 4), history, signals, exclude=history)).items
    assert shown[0].item() == 1  # north
    before = agent.mean.clone(), agent.covariance.clone()
    agent.act(Obs(torch.zeros(2, 4), history, signals, exclude=history))
    assert_close(agent.mean, before[0])
    assert_close(agent.covariance, before[1])
    deaf = Filter(users, torch.tensor([[0.0, 1.0], [0.0, -0.5]]), learns=False)
    assert deaf.act(Obs(torch.zeros(2, 4), history, signals, exclude=history)).items.tolist() == [[1], [1]]


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    options = ["--smoke", "--threads", "1", "--only", "satiation", "--json", "table.json"]
    benchmark_here(of_strangers.main, tmp_path, *options)
    table = {row["policy"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert {"popularity", "mf", "linucb", "lints", "ppo", "ppo-share"} < table.keys()
    assert table["informed"]["regret"] is None and table["filter"]["regret"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]

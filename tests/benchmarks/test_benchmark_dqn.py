"""The benchmark of DQN: it runs without peers, and its tables come from the rows of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import dqn, foreign
from benchmarks.foreign import OURS
from tests.doors import benchmark_here


def played(system: str, seed: int, value: float, game: str = "cartpole") -> dict[str, object]:
    about = {"date": "2026-11-28", "commit": "abc"}
    known = {"env": game, "system": system, "version": "1", "seed": seed, "steps": 100_000}
    means = {"return_mean": value, "sampled_mean": value, "length_mean": value, "seconds": 60.0}
    return about | known | means


@pytest.mark.proof
def test_smoke_without_peers(tmp_path: Path) -> None:
    options = ["--smoke", "--only", "cartpole", "--json", "table.json"]
    benchmark_here(dqn.main, tmp_path, *options, without=["stable_baselines3"])
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["system"] for row in rows] == [foreign.RANDOM, OURS]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]

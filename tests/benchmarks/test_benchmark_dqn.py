"""The benchmark of DQN: it runs without peers, and its tables come from the rows of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import dqn, foreign
from benchmarks.dqn import catalogues
from benchmarks.foreign import OURS, PEER
from tests.benchmarks.test_written_tables import run, write_rows
from tests.doors import benchmark_without


def played(system: str, seed: int, value: float, game: str = "cartpole") -> dict[str, object]:
    about = {"date": "2026-11-28", "commit": "abc"}
    known = {"env": game, "system": system, "version": "1", "seed": seed, "steps": 100_000}
    means = {"return_mean": value, "sampled_mean": value, "length_mean": value, "seconds": 60.0}
    return about | known | means


def test_table_of_the_games(tmp_path: Path) -> None:
    for seed, value in enumerate((480.0, 500.0)):
        foreign.append(tmp_path / "dqn.csv", played(OURS, seed, value))
    foreign.append(tmp_path / "dqn.csv", played(OURS, 100, 9.0))  # a seed for choosing hyperparameters
    foreign.append(tmp_path / "dqn.csv", played(PEER, 0, 300.0))
    _, _, ours, theirs, _, said, origin = dqn.text(tmp_path).splitlines()
    assert ours == (
        "| CartPole-v1 | **dqn (preset of `gym:`)** | 490.0 | 362.9 – 617.1 | 480.0 | 2 |"
    )  # 490 +- 12.706 x 14.142 / sqrt(2)
    assert theirs.split("|")[3:-1] == [" 300.0 ", " ", " 300.0 ", " 1 "]
    assert "100 episodes" in said and "commit abc" in origin


def test_table_of_the_catalogues_takes_the_seeds_of_dqn(tmp_path: Path) -> None:
    rows = []
    for env in ("drift", "satiation"):
        rows += [run("dqn-greedy", seed, 3 + seed, task=f"{env}-dqn") for seed in (0, 1)]
        rows += [run("ppo-greedy", seed, 10 * seed, task=env) for seed in (0, 1, 2)]
    rows += [run("ppo-greedy", seed, 7, task="satiation-all-effects") for seed in (1, 2)]
    rows += [run("rule", 0, 4, task=task) for task in ("satiation-all-effects", "satiation")]
    rows += [run("ppo-greedy", 0, 99, task="satiation-dqn")]  # of PPO's task, beside DQN in one evaluation
    write_rows(tmp_path, "learning", rows)
    lines = [line.split(" | ")[1:4] for line in catalogues(tmp_path).splitlines()[2:8]]
    assert lines == [
        ["**dqn-greedy**", "100,000", "3.50"],
        ["**ppo-greedy**", "100,000", "5.00"],
        ["**dqn-greedy**", "600,000", "3.50"],
        ["**ppo-greedy**", "600,000", "7.00"],  # the seed that both have
        ["**ppo-greedy**", "1,800,000", "5.00"],
        ["rule (linear, searched)", "1,800,000", "4.00"],
    ]


@pytest.mark.slow
def test_smoke_without_peers(tmp_path: Path) -> None:
    options = ["--smoke", "--only", "cartpole", "--json", "table.json"]
    done = benchmark_without(["stable_baselines3"], "dqn", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["system"] for row in rows] == [foreign.RANDOM, OURS]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]

"""The values of each seed and user in `--json` and `--csv` of `evaluate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.evaluation.printing import as_csv, values_of_seed
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import World
from tests.doors import SATIATION, steps, train_in


def played(rewards: list[list[float]], places: list[int], **streams: list[list[float]]) -> Played:
    """Sessions with these rewards (T, N); a step without a reward is none."""
    earned = torch.tensor(rewards).float()
    items = torch.where(earned > 0, 1, -1).unsqueeze(2)
    left, of_streams = torch.ones(earned.shape[1]).bool(), {n: torch.tensor(x) for n, x in streams.items()}
    return Played(Sessions(items, earned, left, of_streams), torch.tensor(places))


def test_values_of_each_user_by_hand() -> None:
    world = World(*synthetic_world(6, 5, 4, 0.2, 0))
    users = torch.tensor([1, 3, 4])
    ids = world.population.user_ids[users].tolist()
    of_all = played([[1, 2, 0.5], [0, 0.25, 0.5]], [0, 1, 2])
    found = values_of_seed(7, world, users, {"ppo": of_all, "planner": played([[4]], [1])})
    assert found == {
        "seed": 7,
        "users": ids,
        "rows": [
            {
                "policy": "ppo",
                "return_mean": pytest.approx(4.25 / 3),
                "returns": [1, 2.25, 1],
                "lengths": [1, 2, 2],
            },
            {
                "policy": "planner",
                "return_mean": 4,
                "returns": [None, 4, None],
                "lengths": [None, 1, None],
            },
        ],
    }
    lines = as_csv([found]).splitlines()
    assert lines[0] == "seed,policy,user,return,length" and len(lines) == 1 + 3 + 1
    assert [*csv.reader(lines[2:])] == [
        ["7", "ppo", str(ids[1]), "2.25", "2"],
        ["7", "ppo", str(ids[2]), "1.0", "2"],
        ["7", "planner", str(ids[1]), "4.0", "1"],
    ]


def test_each_stream_is_a_column() -> None:
    world = World(*synthetic_world(6, 5, 4, 0.2, 0))
    one = played([[1], [2]], [0], watch=[[0.5], [0.25]], ads=[[3.0], [4.0]])
    lines = as_csv([values_of_seed(0, world, torch.tensor([2]), {"ppo": one})]).splitlines()
    assert lines[0] == "seed,policy,user,return,length,stream.watch,stream.ads"
    assert lines[1].split(",")[3:] == ["3.0", "2", "0.75", "7.0"]


def test_means_of_the_table_are_those_of_the_sessions(tmp_path: Path) -> None:
    files = [str(train_in(tmp_path / seed, *SATIATION, *steps(2), "--seed", seed)) for seed in "05"]
    out = ("--json", str(tmp_path / "t.json"), "--csv", str(tmp_path / "t.csv"))
    assert main(["evaluate", *files, "--no-planner", *out]) == 0
    table, sessions = json.loads((tmp_path / "t.json").read_text()), pl.read_csv(tmp_path / "t.csv")
    assert [seed["seed"] for seed in table["per_seed"]] == [0, 5]
    for file, seed in zip(files, table["per_seed"], strict=True):
        people = load(file).population
        assert seed["users"] == [people.id_of(row) for row in people.heldout.tolist()]
    means = sessions.group_by("seed", "policy").agg(pl.col("return", "length").mean())
    of_seeds = means.group_by("policy").agg(pl.col("return", "length").mean())
    by_name = {row["policy"]: row for row in of_seeds.to_dicts()}
    assert [*by_name] and by_name.keys() == {row["policy"] for row in table["rows"]}
    for row in table["rows"]:
        found = by_name[row["policy"]]
        assert row["return_mean"] == pytest.approx(found["return"], rel=1e-6)
        assert row["length_mean"] == pytest.approx(found["length"])
    for seed in table["per_seed"]:
        for row in seed["rows"]:
            own = sessions.filter(seed=seed["seed"], policy=row["policy"])
            assert own["return"].to_list() == row["returns"] and own["user"].to_list() == seed["users"]
            assert row["return_mean"] == pytest.approx(own["return"].mean(), rel=1e-6)


def test_one_file_for_two_outputs_is_refused(tmp_path: Path) -> None:
    path = train_in(tmp_path / "run", *SATIATION, *steps(1))
    place = str(tmp_path / "t.csv")
    assert main(["evaluate", str(path), "--csv", place, "--json", place]) == 2
    assert main(["evaluate", str(path), "--csv", str(path)]) == 2
    assert not Path(place).exists()

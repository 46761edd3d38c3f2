"""Coat's files: two logs of ratings, and the random one as decisions; made-up folders, and real data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.coat.dataset import load_coat, random_decisions
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.writer import write_decisions
from tests.worlds import shared_data


def test_coat_by_hand(tmp_path: Path) -> None:
    (tmp_path / "train.ascii").write_text("0 5 1\n3 0 0\n")
    (tmp_path / "test.ascii").write_text("2 0 0\n0 0 4\n")
    found = load_coat(tmp_path)
    assert found.chosen.users.tolist() == [0, 0, 1] and found.chosen.ratings.tolist() == [5.0, 1.0, 3.0]
    assert found.chosen.item_ids[found.chosen.items].tolist() == [1, 2, 0]
    assert found.random.ratings.tolist() == [2.0, 4.0] and found.random.source.endswith("random exposures")
    (tmp_path / "test.ascii").write_text("2 0 9\n0 0 4\n")
    with pytest.raises(UserError):
        load_coat(tmp_path)
    with pytest.raises(UserError):
        load_coat(tmp_path / "absent")


def test_coat_counts() -> None:
    found = load_coat(shared_data("coat"))
    assert (len(found.chosen.users), len(found.random.users)) == (6_960, 4_640)
    for log, each in ((found.chosen, 24), (found.random, 16)):
        assert np.bincount(log.users.numpy()).tolist() == [each] * 290


def write_coat(folder: Path) -> Path:
    """Three people and four coats, with features."""
    features = folder / "user_item_features"
    features.mkdir(parents=True)
    (folder / "train.ascii").write_text("0 5 1 0\n3 0 0 0\n0 0 2 0\n")
    (folder / "test.ascii").write_text("2 0 0 1\n0 0 4 5\n0 3 0 1\n")
    (features / "user_features.ascii").write_text("1 0\n0 1\n0 1\n")
    (features / "item_features.ascii").write_text("1 0\n0 1\n0 0\n1 1\n")
    (features / "item_features_map.txt").write_text("colour:red\ntype:parka")
    return folder


def test_random_coats_are_decisions_with_the_propensity_of_the_design(tmp_path: Path) -> None:
    own = random_decisions(write_coat(tmp_path))
    log = own.log
    assert log.users.tolist() == [0, 0, 1, 1, 2, 2] and log.items[:, 0].tolist() == [0, 3, 2, 3, 1, 3]
    assert log.signals[:, 0, 0].tolist() == [2, 1, 4, 5, 3, 1] and log.header.signals == ("rating",)
    assert log.logprobs.exp().tolist() == pytest.approx([0.25] * 6)  # coats of the own choice could be shown
    assert log.header.loggers == ("a uniform draw from 4 coats (propensity 1/4, known by design)",)
    assert log.given["user"].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert own.catalogue.tag_names == ("colour:red", "type:parka")
    assert own.catalogue.tags.tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]
    assert own.items == ("0", "1", "2", "3") and own.sessions is None


def test_coat_without_features_and_with_those_of_other_people(tmp_path: Path) -> None:
    place = write_coat(tmp_path)
    (place / "user_item_features" / "user_features.ascii").write_text("1 0\n")
    with pytest.raises(UserError):
        random_decisions(place)
    (place / "user_item_features" / "user_features.ascii").unlink()
    assert random_decisions(place).log.given == {}


def test_a_target_is_judged_on_random_coats_by_hand(tmp_path: Path) -> None:
    place = write_coat(tmp_path / "coat")
    policy = [0.1, 0.2, 0.3, 0.4]
    rows = [0, 3, 2, 3, 1, 3]
    mine = {"session": range(6), "step": [0] * 6, "propensity": [policy[item] for item in rows]}
    pl.DataFrame(mine).write_csv(tmp_path / "mine.csv")
    log = tmp_path / "coats.parquet"
    write_decisions(log, random_decisions(place).log)
    options = ["--log", str(log), "--no-world", "--target", str(tmp_path / "mine.csv")]
    assert main(["ope", *options, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    ips = next(row for row in found["rows"] if row["estimator"] == "ips")
    # 4 / 6 of 0.1 * 2 + 0.4 * 1 + 0.3 * 4 + 0.4 * 5 + 0.2 * 3 + 0.4 * 1
    assert ips["value"] == pytest.approx(4 / 6 * 4.8)
    assert found["about"]["users"] == 3 and "known by design" in found["about"]["loggers"][0]


def test_random_policy_on_the_real_log(tmp_path: Path) -> None:
    log = tmp_path / "coats.parquet"
    write_decisions(log, random_decisions(shared_data("coat")).log)
    out = tmp_path / "out.json"
    assert main(["ope", "--log", str(log), "--no-world", "--json", str(out), "--policy", "random"]) == 0
    found = json.loads(out.read_text())
    rows = {(row["policy"], row["estimator"]): row for row in found["rows"]}
    assert "1/300, known by design" in found["about"]["loggers"][0]
    assert rows["logged", "mean"]["value"] == pytest.approx(2.228879, abs=5e-5)
    assert rows["random", "ips"]["value"] == pytest.approx(2.228879, abs=5e-5)
    assert rows["random", "ips"]["ess"] == pytest.approx(found["about"]["decisions"], rel=1e-4)

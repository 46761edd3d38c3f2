"""Ranking metrics: numbers worked by hand, ties against all orders, and the whole command."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.evaluation.ranking import LEGEND
from recsys_rl.evaluation.ranking_metrics import Ranking, coverage, rank
from recsys_rl.utils import progress
from tests.data.tables.test_read import RUN
from tests.data.test_new_items_and_data import write_log

EMBEDDING = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
POPULARITY = torch.tensor([0.5, 0.25, 0.125, 0.0, 0.125])


def one(scores: list[float], relevant: list[int], k: int, blocked: tuple[int, ...] = ()) -> Ranking:
    hits, allowed = torch.zeros(1, 5, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
    hits[0, relevant] = True
    allowed[0, list(blocked)] = False
    return rank(torch.tensor([scores]), hits, allowed, k, EMBEDDING, POPULARITY)


def values(found: Ranking) -> dict[str, float]:
    return {name: x.item() for name, x in vars(found).items() if x.ndim == 1}


def test_metrics_by_hand() -> None:
    # The order is 3, 1, 4, 0, 2; relevant are 1 (second place) and 2 (last place).
    found = values(one([0.2, 0.8, 0.1, 0.9, 0.5], [1, 2], 3))
    assert found["ndcg"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert found["recall"] == 0.5 and found["hit"] == 1.0 and found["mrr"] == 0.5
    assert found["similarity"] == pytest.approx((0 + -0.6 + 0.8) / 3)
    assert found["novelty"] == pytest.approx((4 + 2 + 3) / 3)  # popularity 0 counts as 1/16
    assert found["popularity"] == pytest.approx((0 + 0.25 + 0.125) / 3 / 0.2)


def test_more_places_than_relevant_items_can_still_be_perfect() -> None:
    assert values(one([5.0, 4.0, 3.0, 2.0, 1.0], [0], 3))["ndcg"] == 1.0


def test_blocked_items_are_not_ranked() -> None:
    found = values(one([5.0, 4.0, 3.0, 2.0, 1.0], [2], 1, blocked=(0, 1)))
    assert (found["ndcg"], found["recall"], found["mrr"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("scores", [[1, 1, 1, 1, 1], [2, 1, 1, 1, 0], [1, 2, 2, 1, 0], [0, 0, 3, 3, 3]])
@pytest.mark.parametrize("relevant", [[0], [1, 3], [2, 3, 4]])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_ties_are_the_mean_over_all_their_orders(scores: list[int], relevant: list[int], k: int) -> None:
    orders = torch.tensor(list(itertools.permutations(range(5)))) / 10  # (120, 5)
    hits = torch.zeros(120, 5, dtype=torch.bool)
    hits[:, relevant] = True
    broken = rank(torch.tensor(scores) + orders, hits, torch.ones_like(hits), k, EMBEDDING, POPULARITY)
    tied = one([float(score) for score in scores], relevant, k)
    for name, value in vars(tied).items():
        mean = getattr(broken, name).mean(0, keepdim=True)
        torch.testing.assert_close(value, mean, equal_nan=True)


def test_coverage_by_hand() -> None:
    unlisted = torch.tensor([0.0, 0.5, 1.0, 1.0])
    assert coverage(unlisted, torch.tensor([True, True, True, False])) == pytest.approx(0.5)


def test_command_ranks_for_the_users_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(Path("log.csv"))
    rows_of_log = pl.read_csv("log.csv")
    late = pl.col("timestamp") >= pl.col("timestamp").quantile(0.7)
    rows_of_log.filter(~late).write_parquet("train.parquet")
    rows_of_log.filter(late).write_parquet("test.parquet")
    sizes = ["--num-items", "30", "--min-item-likes", "1"]
    assert main(["train", "--data", "train.parquet", *RUN, *sizes]) == 0
    capsys.readouterr()
    arguments = ["ranking", "test.parquet", "--seen", "train.parquet", "--k", "5", "--json", "table.json"]
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    assert main(arguments) == 0
    said, err = capsys.readouterr()
    assert "\nreading test.parquet\nranking users: " in err
    assert "users with relevant items, lists of 5" in said
    heads = said.splitlines()[1].split()
    assert heads[0] == "ranking" and set(LEGEND) == set(heads[1:])
    assert [line.partition(": ")[0] for line in said.splitlines()[-len(LEGEND) :]] == heads[1:]
    table = json.loads(Path("table.json").read_text())
    rows = {row["ranking"]: row for row in table["rows"]}
    assert list(rows) == ["ppo", "mf", "popularity", "random"]
    assert rows["mf"]["ndcg"] > rows["random"]["ndcg"] > 0
    assert rows["mf"]["coverage"] > rows["popularity"]["coverage"]
    assert rows["random"]["popularity"] == pytest.approx(1, abs=0.1)
    Path("strangers.csv").write_text("user,item\n900,1\n", encoding="utf-8")
    assert main(["ranking", "strangers.csv"]) == 2
    assert "no user with a relevant item" in capsys.readouterr().err
    assert main(["ranking", "train.parquet", "--seen", "train.parquet", "--k", "1"]) == 2
    assert "has all relevant items of each user" in capsys.readouterr().err
    # User 1 likes even items. Of their two, one is seen; of user 3's, all: the table counts user 1 alone.
    Path("seen.csv").write_text("user,item,rating\n1,2,5\n3,2,5\n3,4,1\n", encoding="utf-8")
    Path("later.csv").write_text("user;item;rating;date;time\n1;2;5;1;1\n1;4;5;1;1\n3;2;5;1;1\n")
    arguments = ["ranking", "later.csv", "--seen", "seen.csv", "--k", "5", "--json", "table.json"]
    assert main(arguments) == 2 and "give --time-column" in capsys.readouterr().err
    assert main([*arguments, "--time-column", "date"]) == 2  # seen.csv has no such column
    capsys.readouterr()
    Path("later.csv").write_text("user;item;rating\n1;2;5\n1;4;5\n1;6;3\n3;2;5\n3;4;1\n", encoding="utf-8")
    assert main(arguments) == 0 and "1 user with relevant items" in capsys.readouterr().out
    assert json.loads(Path("table.json").read_text())["users"] == 1
    assert main(["ranking"]) == 2 and "needs a log" in capsys.readouterr().err

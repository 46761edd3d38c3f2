"""The benchmark of the Coat game: its lists and its reader by hand, its table from the rows, and it runs."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

from benchmarks.coat import __main__ as command
from benchmarks.coat import play, table
from benchmarks.coat.lists import BayesReader, Rules, greedy_list, searched_list
from recsys_rl.types import Obs
from tests.benchmarks.test_written_tables import write_rows
from tests.doors import benchmark_here


def rules(pairs: list[tuple[int, int]], items: int, length: int, window: int, repeats: bool) -> Rules:
    close = torch.eye(items, dtype=torch.bool)
    for one, two in pairs:
        close[one, two] = close[two, one] = True
    return Rules(close, window, length, repeats)


def test_greedy_list_by_hand() -> None:
    scores = torch.tensor([5.0, 4.0, 3.0, 1.0])
    again = rules([(0, 1)], 4, 5, 1, True)
    assert greedy_list(scores, again).tolist() == [0, 2, 0, 2, 0]
    once = rules([(0, 1)], 4, 4, 1, False)
    assert greedy_list(scores, once).tolist() == [0, 2, 1, 3]
    assert greedy_list(scores, rules([(0, 1), (0, 2), (0, 3)], 4, 2, 1, False)).tolist() == [0, 1]


@pytest.mark.parametrize("repeats", [True, False])
def test_searched_list_is_the_best_of_all(repeats: bool) -> None:
    """Greedy begins with item 0, which keeps 1 and 2 away; the best list does without it."""
    scores = torch.tensor([5.0, 4.9, 4.8, 1.0, 0.5])
    game = rules([(0, 1), (0, 2)], 5, 4, 1, repeats)

    def worth(items: tuple[int, ...]) -> float:
        fits = all(not game.close[a, b] for a, b in pairwise(items))
        return float(scores[list(items)].sum()) if fits and (repeats or len({*items}) == 4) else -1.0

    best = max(worth(items) for items in product(range(5), repeat=4))
    found = searched_list(scores, game, 0)
    assert worth(tuple(found.tolist())) >= worth(tuple(greedy_list(scores, game).tolist())) > 0
    assert worth(tuple(found.tolist())) <= best


def test_reader_finds_the_user_whose_ratings_it_reads() -> None:
    ratings = torch.tensor([[1.0, 2.0, 5.0, 1.0], [4.0, 1.0, 1.0, 5.0]])
    reader = BayesReader(ratings, rules([], 4, 5, 2, True), 0.3, 5)
    history = torch.tensor([[-1, -1, 0, 1], [-1, -1, 0, 1]])
    # The second user rates everything one higher: the level says nothing.
    signals = torch.tensor([[0.0, 0, 1, 2], [0, 0, 5, 2]]).unsqueeze(2)
    assert reader.act(Obs(torch.zeros(2, 1), history, signals)).items.tolist() == [[2], [3]]
    ends = BayesReader(ratings, rules([(1, 2)], 4, 5, 2, True), 0.3, 5)
    assert ends.act(Obs(torch.zeros(2, 1), history, signals)).items.tolist() == [[3], [3]]


def cell(policy: str, seed: int, value: float, over: float | None) -> dict[str, object]:
    found: dict[str, object] = {"date": "2026-11-28", "commit": "abc", "game": "FB", "policy": policy}
    found |= {"seed": seed, "return_mean": value, "length_mean": 30, "seconds": 20, "leak": ""}
    return found | {f"over_{versus}": "" if over is None else over for versus in play.VERSUS}


def test_table_has_intervals_over_refits(tmp_path: Path) -> None:
    rows = [cell("list", seed, 80 + seed, None) for seed in (0, 1)]
    rows += [cell("ppo-session", seed, 82 + seed, 1.0 + seed) for seed in (0, 1)]
    rows[0]["leak"] = -0.5
    write_rows(tmp_path, "coat", rows)
    _, _, first, second, _, said, *_ = table.text(tmp_path).splitlines()
    assert first.split("|")[2:5] == [" list ", " 80.50 (6.35) ", " 30.0 "]  # 12.706 x 0.5
    assert second.split("|")[2:6] == [
        " **ppo-session** ",
        " 82.50 (6.35) ",
        " 30.0 ",
        " +1.50 (-4.85 to +7.85) ",
    ]
    assert "over the refits 0, 1" in said


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    benchmark_here(command.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    wanted = [(game, policy) for game in play.GAMES for policy in play.POLICIES]
    assert [(row["game"], row["policy"]) for row in rows] == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]

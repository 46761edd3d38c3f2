"""Streams of limits and the exposure of creators, by hand, in the table and on disk."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.evaluation.columns import gini, numbers_of
from recsys_rl.evaluation.table import mean_rows
from recsys_rl.experience.rollout import Sessions
from recsys_rl.objective.limit_streams import creators_of, groups, tail_items
from recsys_rl.types import Catalogue, ItemFeature, empty_world
from tests.doors import SATIATION, steps, train_in
from tests.tiny_world import tiny_catalogue


def catalogue(**attributes: list[int]) -> Catalogue:
    """Six items; popularity 6 to 1; the kinds "ad" and "post"."""
    column = torch.zeros(6)
    return Catalogue(
        torch.eye(6),
        torch.arange(6),
        (),
        torch.tensor([0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        column,
        column == 0,
        "made up",
        attributes={name: torch.tensor(values) for name, values in attributes.items()},
        features=(ItemFeature("kind", "classes", ("ad", "post")),) if "kind" in attributes else (),
    )


def test_tail_is_four_fifths_of_the_creators() -> None:
    """Creators 7, 3, 5, 9 and 4 have 0.9, 0.6, 0.3, 0.2 and 0.1: the first one is the head."""
    one = tail_items(catalogue(creator=[3, 7, 7, 5, 9, 4]))
    assert one is not None and one.tolist() == [True, False, False, True, True, True]
    # Without creators each of the six items is one: int(0.8 * 6) = 4 are the tail.
    six = tail_items(catalogue())
    assert six is not None and six.tolist() == [False, False, True, True, True, True]
    assert tail_items(replace(catalogue(), popularity=torch.ones(6))) is None
    assert tail_items(empty_world().catalogue) is None


def test_items_without_a_creator_do_not_count() -> None:
    """As ads of a feed, with the number -1."""
    items = catalogue(creator=[-1, 2, 2, 2, 5, -1], kind=[0, 1, 1, 1, 1, 0])
    assert creators_of(items).tolist() == [-1, 0, 0, 0, 1, -1]
    found = groups(items)
    assert list(found) == ["ads", "tail_exposure"]
    assert found["ads"].items.tolist() == [True, False, False, False, False, True]
    assert found["tail_exposure"].items.tolist() == [False, False, False, False, True, False]
    shown = torch.tensor([[0, 1], [4, 5], [4, -1], [-1, -1]])
    counts = {name: [x.tolist() for x in group.count(shown)] for name, group in found.items()}
    assert counts["ads"] == [[1, 1, 0, 0], [2, 2, 1, 0]]
    assert counts["tail_exposure"] == [[0, 1, 1, 0], [1, 1, 1, 0]]


def test_a_catalogue_without_ads_has_no_such_stream() -> None:
    assert list(groups(tiny_catalogue())) == ["tail_exposure"]
    no_ad = replace(
        catalogue(kind=[0, 1, 1, 1, 1, 0]), features=(ItemFeature("kind", "classes", ("story", "post")),)
    )
    assert list(groups(no_ad)) == ["tail_exposure"]


def test_gini_by_hand() -> None:
    assert gini(torch.tensor([2, 2, 2])) == 0
    assert gini(torch.tensor([0, 0, 9])) == pytest.approx(2 / 3)
    assert gini(torch.tensor([3, 1])) == pytest.approx((-1 * 1 + 1 * 3) / (2 * 4))
    assert math.isnan(gini(torch.zeros(3)))


def test_row_by_hand() -> None:
    """Two users see items 0, 4 and 3, 3; the second one leaves after the first step."""
    items = catalogue(creator=[3, 7, 7, 5, 9, 4], kind=[0, 1, 1, 0, 1, 1])
    sessions = Sessions(
        torch.tensor([[[0], [3]], [[4], [-1]]]), torch.zeros(2, 2), torch.tensor([False, True])
    )
    row = numbers_of(sessions, items)
    expected = {"ads": 2 / 3, "tail_exposure": 1.0, "early_end": 0.5}
    assert row["limit_streams"] == pytest.approx(expected)
    assert row["creator_gini"] == pytest.approx(gini(torch.tensor([0, 0, 1, 1, 1])))
    late = replace(sessions, left_early=torch.tensor([False, False]))
    assert numbers_of(late, items)["limit_streams"]["early_end"] == 0
    without = numbers_of(sessions, empty_world().catalogue)
    assert without["limit_streams"] == {"early_end": 0.5} and "creator_gini" not in without


def test_exposure_of_several_seeds_is_their_mean() -> None:
    def row(tail: float, unevenness: float) -> dict[str, Any]:
        plain = {"policy": "ppo", "users": 2, "return_mean": 1.0, "length_mean": 1.0}
        shares = {"distinct_mean": 1.0, "coverage": 0.5}
        return {**plain, **shares, "limit_streams": {"tail_exposure": tail}, "creator_gini": unevenness}

    [mean] = mean_rows([[row(0.2, 0.5)], [row(0.6, 0.7)]])
    assert mean["limit_streams"] == pytest.approx({"tail_exposure": 0.4})
    assert mean["creator_gini"] == pytest.approx(0.6)


def test_table_and_report_show_the_exposure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = train_in(tmp_path / "run", *SATIATION, *steps(2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = ["--no-planner", "--json", "table.json", "--report", "page.html", "--cache-dir", "cache"]
    assert main(["evaluate", str(path), *options]) == 0
    rows = json.loads(Path("table.json").read_text())["rows"]
    for row in rows:
        assert row["limit_streams"].keys() == {"early_end", "tail_exposure"}
        assert 0 <= row["creator_gini"] < 1
    by_name = {row["policy"]: row for row in rows}
    assert by_name["random"]["creator_gini"] < by_name["one-item"]["creator_gini"]
    assert by_name["popularity"]["limit_streams"]["tail_exposure"] < 0.5
    page = Path("page.html").read_text()
    section = page[page.index("Exposure of creators") :]
    section = section[: section.index("<h2>")]
    assert section.count('<th scope="row">') == len(rows)
    assert f"<td>{by_name['random']['creator_gini']:.2f}</td>" in section

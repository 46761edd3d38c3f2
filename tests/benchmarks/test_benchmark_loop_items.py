"""The benchmark of items that come and go: its rows and its table by hand, its picture."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import loop_items
from examples.loop_items import COME, Round, Thing, best_possible, next_stock, things

SVG = "{http://www.w3.org/2000/svg}"


def rounds(plus: float) -> list[Round]:
    """Both shops over two rounds: the open one gains, and the frozen one promotes a worse policy."""
    return [
        Round("open", 1, 120, 0.75, 0.50 + plus, 0.60 + plus, "bc-1.pt", None, 0.0),
        Round("frozen", 1, 120, 0.75, 0.50 + plus, 0.50 + plus, "", None, 0.0),
        Round("open", 2, 120, 0.70, 0.55 + plus, 0.60 + plus, "bc-2.pt", 4, 0.1),
        Round("frozen", 2, 96, 0.60, 0.42 + plus, 0.40 + plus, "bc-2.pt", None, 0.0),
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [loop_items.row_of(seed, of) for seed in (0, 1) for of in rounds(0.02 * seed)]
    origin = {"date": "2026-12-01", "hardware": "x", "commit": "abc", "python": "3", "torch": "2"}
    with (tmp_path / "loop_items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*origin, *rows[0]])
        writer.writeheader()
        writer.writerows({**origin, **row} for row in rows)
    return tmp_path


def test_an_item_loses_a_fifth_of_its_appeal_with_each_round() -> None:
    item = Thing("s001", "a", price=2.0, season=0, charm=0.1)
    assert item.rate("a", 0) == pytest.approx(0.05 + 0.75)
    assert item.rate("a", 2) == pytest.approx(0.05 + 0.75 * 0.64)
    assert item.rate("b", 1) == pytest.approx(0.05 + 0.3 * 0.8)
    # Of the eight tastes one has a brand here, and the others the cheap item.
    assert best_possible([item], 0) == pytest.approx((0.8 + 7 * 0.35) / 8)


def test_those_that_came_first_go_and_as_many_come() -> None:
    rng = random.Random(0)
    stock = things("s", 120, range(-2, 2), rng)
    later, gone = next_stock(stock, 2, rng)
    assert len(later) == len(stock) and len(gone) == COME[2] == 24
    assert max(item.season for item in stock if item.id in gone) <= min(
        item.season for item in stock if item.id not in gone
    )
    assert sum(item.season == 2 for item in later) == 24 and not gone & {item.id for item in later}


def test_a_promotion_lowers_the_truth_only_if_there_is_one() -> None:
    assert [of.lowered for of in rounds(0)] == [False, False, False, True]
    assert not Round("open", 1, 1, 1.0, 0.5, 0.4, "", None, 0.0).lowered


def test_table_has_a_line_for_each_seed(results: Path) -> None:
    lines = loop_items.text(results).splitlines()
    assert lines[2] == "| 0 | 0.500 | 0.600 of 0.700 | 0.400 of 0.600 | +50.0 % | 4 | 1 of 3 |"
    assert lines[3] == "| 1 | 0.520 | 0.620 of 0.700 | 0.420 of 0.600 | +47.6 % | 4 | 1 of 3 |"
    assert "commit abc, 2026-12-01" in lines[-1]


def test_means_of_the_seeds(results: Path) -> None:
    found = loop_items.means(loop_items.read(results), "open", "after")
    assert found == [pytest.approx((0.61, 0.60, 0.62)), pytest.approx((0.61, 0.60, 0.62))]


def test_picture_has_two_curves_and_two_ceilings(results: Path) -> None:
    whole = ElementTree.fromstring(loop_items.drawing(loop_items.read(results)))
    charts = whole.findall(SVG + "svg")
    assert [float(chart.get("viewBox", "").split()[2]) for chart in charts] == [760, 358]
    for chart in charts:
        lines = {line.get("class"): line.get("points", "") for line in chart.findall(SVG + "polyline")}
        assert {name: len(points.split()) for name, points in lines.items()} == {
            "other baseline": 4,
            "curve": 4,
        }
        paths = {path.get("class"): path.get("d", "") for path in chart.findall(SVG + "path")}
        assert [paths[name].count("H") for name in ("reference", "reference inside")] == [2, 2]


def test_picture_of_the_docs_is_drawn_from_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise: python -m benchmarks.loop_items --redraw."""
    drawn = loop_items.PICTURE.read_text(encoding="utf-8")
    monkeypatch.setattr(loop_items, "PICTURE", tmp_path / "again.svg")
    loop_items.main(["--redraw", "--csv", str(tmp_path / "none.csv")])
    assert drawn == loop_items.PICTURE.read_text(encoding="utf-8")

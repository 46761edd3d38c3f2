"""The benchmark of the loop: its row and its table by hand, its picture, its seeds."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import loop
from recsys_rl.errors import UserError
from tests.docs.test_loop_page import SVG, rounds
from tests.doors import ROOT


def found(**other: Any) -> dict[str, Any]:
    """What a run of three rounds returns: promoted twice, then to a worse policy, and a bad challenger."""
    champions = [[7.9, 9.4], [11.5, 12.0], [11.5, 12.0], [11.3, 12.5]]
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(rounds())))
    return {**values, "champions": champions, **other}


def test_row_by_hand() -> None:
    row = loop.row_of(3, found(), 9.5)
    assert row == {
        "seed": 3,
        "before": 7.9,
        "served_1": 11.5,
        "served": 11.3,
        "greedy": 12.5,
        "visits_1": 400,
        "promoted": 2,
        "worse": 1,
        "stopped": 100,
        "minutes": 9.5,
    }


def test_round_without_a_promotion_has_no_number() -> None:
    bands = found()["bands"]
    bands[0]["end"] = bands[1]["end"] = "went back"
    bands[-1]["end"] = "under way"
    row = loop.row_of(0, found(bands=bands), 9.5)
    assert row["visits_1"] is None and row["stopped"] is None


def test_table_of_the_docs_has_the_means_of_the_seeds(tmp_path: Path) -> None:
    rows = [loop.row_of(seed, found(), 9.0 + seed) for seed in (0, 1)]
    rows[1]["served"] = 12.3
    with (tmp_path / "loop.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["date", "commit", *rows[0]])
        writer.writeheader()
        writer.writerows({"date": "2026-11-30", "commit": "abc", **row} for row in rows)
    lines = loop.text(tmp_path).splitlines()
    assert lines[2] == "| 0 | 7.90 | 11.50 | 11.30 | 12.50 | 400 | 2 | 1 | 100 | 9.0 |"
    assert lines[4] == "| **mean** | 7.90 | 11.50 | 11.80 | 12.50 | 400.0 | 2.0 | 1.0 | 100.0 | 9.5 |"
    assert "commit abc, 2026-11-30" in lines[-1]


def test_picture_is_drawn_from_the_numbers(tmp_path: Path) -> None:
    loop.picture(found(), tmp_path / "loop.svg", tmp_path / "loop.json")
    drawn = (tmp_path / "loop.svg").read_text(encoding="utf-8")
    # A candidate and the dot of the legend, once for a desk and once for a phone.
    assert drawn.startswith("<svg") and drawn.count('class="dot"') == 2 * (2 + 1)
    assert drawn == loop.drawing(json.loads((tmp_path / "loop.json").read_text()))


def test_picture_of_the_docs_is_drawn_from_the_results() -> None:
    """Otherwise: python -m benchmarks.loop --redraw docs/images/loop.svg."""
    drawn = (ROOT / "docs/images/loop.svg").read_text(encoding="utf-8")
    assert drawn == loop.drawing(json.loads(loop.SHOWN.read_text(encoding="utf-8")))


def test_picture_is_readable_on_a_phone() -> None:
    """Its chart for less than 500 pixels has letters of 13 pixels in 358, so of 12.5 in 344."""
    whole = ElementTree.fromstring(loop.drawing(json.loads(loop.SHOWN.read_text(encoding="utf-8"))))
    wide, narrow = whole.findall(SVG + "svg")
    shapes = [[float(x) for x in chart.get("viewBox", "").split()[2:]] for chart in (whole, wide, narrow)]
    assert [width for width, _ in shapes] == [760, 760, 358]
    assert shapes[2][0] / shapes[2][1] == pytest.approx(shapes[0][0] / shapes[0][1], rel=0.01)
    for chart, width in ((wide, 760), (narrow, 358)):
        # The legend: the curve, a canary, the gate, the truth.
        legend = next(group for group in chart.findall(SVG + "g") if group.get("class") == "legend")
        entries = legend.findall(SVG + "g")
        assert len(entries) == 4
        for entry in entries:
            at, said = re.findall(r"[0-9.]+", entry.get("transform", "")), entry.find(SVG + "text")
            assert said is not None and float(at[0]) + 31 + 6.5 * len(said.text or "") <= width


@pytest.mark.parametrize(("given", "seeds"), [("0-2", [0, 1, 2]), ("3", [3]), ("0,4-5", [0, 4, 5])])
def test_seeds(given: str, seeds: list[int]) -> None:
    assert loop.seeds_in(given) == seeds


@pytest.mark.parametrize("given", ["", "a", "0-", "0--1"])
def test_wrong_seeds_are_refused(given: str) -> None:
    with pytest.raises(UserError):
        loop.seeds_in(given)

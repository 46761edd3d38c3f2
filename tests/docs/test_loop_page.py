"""The page of a loop: its words, its coordinates by hand, hostile names, and canaries that ended at once."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from examples.loop_page.canaries import Band, bands_svg
from examples.loop_page.judged import Judged, judged_svg
from examples.loop_page.rounds import Rounds, Visited, served_svg, write_rounds
from recsys_rl.evaluation.report.drawing import scale
from tests.doors import ROOT
from tests.evaluation.report.test_report import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


def visited(count: int = 30, size: int = 200) -> list[Visited]:
    """The mean rises from 8 by 0.1 a point, with an interval of 0.5 on both sides."""
    means = [8 + 0.1 * at for at in range(count)]
    return [Visited(size * at + 1, size * (at + 1), m, m - 0.5, m + 0.5) for at, m in enumerate(means)]


def band(name: str, began: int, ended: int, end: str, mean: float = 2.0) -> Band:
    """The interval narrows with the root of the sessions."""
    sessions = range(10, ended - began + 1, 10)
    widths = [40 / math.sqrt(number) for number in sessions]
    return Band(
        *(name, began, ended, end, [*sessions], [mean] * len(widths)),
        [mean - width for width in widths],
        [mean + width for width in widths],
    )


def rounds(**other: Any) -> Rounds:
    values: dict[str, Any] = {
        "env": "satiation",
        "served": visited(),
        "judged": [
            Judged("ppo-1", 1, "better", 2.0, 1.0, 3.0, 2.5, 8.0, 2000, chosen=True),
            Judged("cql-1", 1, "no harm seen", 1.0, -0.5, 2.5, 2.0, 8.0, 2000),
            Judged("cql-2", 2, "worse", -1.0, -2.0, 0.0, truth=None),
        ],
        "bands": [
            band("ppo-1", 2000, 2400, "promoted"),
            band("cql-2", 4400, 5200, "promoted"),
            band("random", 5600, 5700, "stopped", -6.0),
        ],
        "before": 7.93,
        "after": 12.3,
        "greedy": 13.0,
        "facts": {"Seed": "0", "Date": "2026-11-30"},
    }
    return Rounds(**{**values, **other})


def test_page_has_every_number_and_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "loop.html"
    write_rounds(path, rounds())
    page = path.read_text(encoding="utf-8")
    for said in ("7.9", "12.3", "13.0", "6,000 visits", "2 promotions", "+2.50", "no harm seen", "stopped"):
        assert said in page, said
    assert not re.search(r"<script|src=|href=|url\(", page)


def test_page_is_drawn_again_from_the_numbers_in_the_folder(tmp_path: Path) -> None:
    write_rounds(tmp_path / "first.html", rounds())
    (tmp_path / "loop.json").write_text(json.dumps({**dataclasses.asdict(rounds()), "champions": []}))
    command = [sys.executable, "-m", "examples.loop_page", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "loop.html").read_bytes() == (tmp_path / "first.html").read_bytes()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "loop.html"
    of = rounds(
        env=HOSTILE, judged=[Judged(HOSTILE, 1, "better", 1, 0, 2)], bands=[band(HOSTILE, 0, 100, HOSTILE)]
    )
    write_rounds(path, of)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.parametrize("width", [358, 760, 1072])
def test_dot_of_the_truth_by_hand(width: int) -> None:
    drawn = ElementTree.fromstring(judged_svg(rounds().judged, width=width))
    dots = [float(dot.attrib["cx"]) for dot in drawn.iter(f"{SVG}circle")]
    bars = [bar for bar in drawn.iter(f"{SVG}rect") if "bar" in bar.attrib.get("class", "")]
    # The first bar is from 1 to 3; the truth of 2.5 lies at three quarters of it.
    start, length = float(bars[0].attrib["x"]), float(bars[0].attrib["width"])
    assert dots[0] == pytest.approx(start + 0.75 * length, abs=0.2)
    assert len(dots) == 2 and len(bars) == 3
    of = scale(1, 3, start, start + length)
    assert dots[1] == pytest.approx(of(2.0), abs=0.2)


def served_chart(*judged: Judged) -> ElementTree.Element:
    """The chart of the served sessions without its legend."""
    drawn = ElementTree.fromstring(served_svg(visited(), rounds().bands, judged))
    (legend,) = (group for group in drawn.iter(f"{SVG}g") if group.get("class") == "legend")
    drawn.remove(legend)
    return drawn


def test_curve_and_ends_of_canaries_by_hand() -> None:
    drawn = served_chart()
    ends = [path.attrib["d"] for path in drawn.iter(f"{SVG}path") if path.attrib.get("class") == "reference"]
    curve = next(drawn.iter(f"{SVG}polyline")).attrib["points"].split()
    xs = [float(point.partition(",")[0]) for point in curve]
    assert len(curve) == 30 and len(ends) == 3
    # The canary of ppo-1 ended after 2,400 visits: between the points of 2,300 and 2,500.
    first = float(re.match(r"M([\d.]+)", ends[0])[1])  # type: ignore[index]
    assert first == pytest.approx((xs[11] + xs[12]) / 2, abs=0.2)


def test_candidates_stand_where_they_were_judged() -> None:
    """The champion earned 8: the first dot lies at 10.5, its bar from 9 to 11, the second dot at 10."""
    drawn = served_chart(*rounds().judged)
    dots = [dot for dot in drawn.iter(f"{SVG}circle") if dot.attrib.get("class") == "dot"]
    bar = next(bar for bar in drawn.iter(f"{SVG}rect") if bar.attrib.get("class") == "bar learned")
    top, length = float(bar.attrib["y"]), float(bar.attrib["height"])
    assert [float(dot.attrib["cy"]) for dot in dots] == pytest.approx(
        [top + 0.25 * length, top + 0.5 * length], abs=0.2
    )
    assert float(dots[0].attrib["cx"]) - float(dots[1].attrib["cx"]) == pytest.approx(13)


def test_canary_without_an_interval_is_a_sentence() -> None:
    nan = float("nan")
    drawn = bands_svg(
        [Band("x", 0, 10, "stopped", [10], [nan], [nan], [nan]), Band("y", 0, 0, "back", [], [], [], [])]
    )
    assert drawn.count("it ended before its first interval") == 4  # each in the chart, and in its label
    assert "polygon" not in drawn


def test_canary_of_a_single_look_is_a_bar_with_its_estimate() -> None:
    """From -1 to 3 around 2: the estimate lies at a quarter of the bar from above."""
    drawn = ElementTree.fromstring(bands_svg([Band("x", 0, 25, "stopped", [25], [2.0], [-1.0], [3.0])]))
    [bar], [mark] = (
        [shape for shape in drawn.iter(f"{SVG}{kind}") if shape.attrib.get("class") == name]
        for kind, name in (("rect", "band"), ("path", "whisker"))
    )
    top, length = float(bar.attrib["y"]), float(bar.attrib["height"])
    at = float(re.match(r"M[\d.]+ ([\d.]+)", mark.attrib["d"])[1])  # type: ignore[index]
    assert length > 20 and at == pytest.approx(top + 0.25 * length, abs=0.2)


def test_bands_are_cut_at_their_panels() -> None:
    for width in (358, 760):
        drawn = ElementTree.fromstring(bands_svg(rounds().bands, width=width))
        height = float(drawn.attrib["height"])
        ys = [
            float(point.partition(",")[2])
            for polygon in drawn.iter(f"{SVG}polygon")
            for point in polygon.attrib["points"].split()
        ]
        assert min(ys) >= 12 and max(ys) <= height

"""The report in a browser: it never scrolls sideways, on a phone or a desk, in either colour scheme.

A page of our own holds the report in frames of both widths, measures them, and chromium prints what it
found. Skipped where there is no chromium.
"""

from __future__ import annotations

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pictures
from benchmarks.pictures import OPTIONS, browser, scheme
from recsys_rl.evaluation.report.html import write_report
from tests.doors import ROOT
from tests.evaluation.report.test_report import example, page_of, row, session, slate
from tests.evaluation.report.test_report_categories import picture
from tests.serving.browser import page

BROWSER = browser()
WIDTHS = (320, 390, 768, 1280)
MEASURE = """
const found = [...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, all = [...page.querySelectorAll("body *")];
  const outside = all.filter(e => e.getBoundingClientRect().right > frame.clientWidth + 0.5
                                  && !e.closest(".cards, .wide-table, .hidden, svg"));
  return {width: frame.clientWidth, scroll: page.scrollingElement.scrollWidth,
          outside: outside.map(e => e.tagName + "." + e.className), tall: page.scrollingElement.scrollHeight,
          ground: getComputedStyle(page.body).backgroundColor};
});
document.body.textContent = JSON.stringify(found);
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no chromium here")


def measured(page: str, folder: Path, dark: bool) -> list[dict[str, Any]]:
    """The report, folded and unfolded, in frames of each width."""
    folds = (page.replace(' open="open"', ""), re.sub(r"<details\b", '<details open="open"', page))
    frames = "".join(
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{escape(fold)}"></iframe>'
        for fold in folds
        for width in WIDTHS
    )
    outer = folder / "outer.html"
    outer.write_text(f"<!DOCTYPE html><body>{frames}<script>onload = () => {{{MEASURE}}}</script></body>")
    assert BROWSER is not None
    own = ["--dump-dom", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", scheme(dark)]
    command = [BROWSER, *OPTIONS, *own, outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    body = re.search(r"<body>(\[.*?\])\s*</body>", done.stdout, re.DOTALL)
    assert body is not None, done.stdout[-2000:]
    return list(json.loads(unescape(body.group(1))))


def demanding() -> dict[str, Any]:
    """Rows, titles and words that are as long as they come."""
    long = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
    names = ("random", "static-list", "rule", "informed", "planner", "ppo-greedy", f"my_module:{long}")
    steps = session("ppo", long, False)["steps"] * 40
    other = [step | {"title": f"{long} {i}"} for i, step in enumerate(steps)]
    ended = {"title": long, "visible": {long: 0.75, "clicked": 1.0}}
    chosen = [slate(long, 6, visible={long: 1.0}), slate("", None, goes_on=long, events=[ended])]
    return example(
        categories=picture(),
        tick={"name": long, "meaning": long},
        rows=[row(name, 1000 + i, 900, 1100) for i, name in enumerate(names)],
        yardstick="static-list",
        notes={"rule": long},
        data=long,
        config={"agent_config": {long: long}},
        sessions=[
            session("ppo", long, True) | {"steps": other},
            session(long, long, False) | {"steps": chosen},
        ],
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_never_scrolls_sideways(tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "report.html"
    write_report(path, page_of(**demanding()))
    found = measured(path.read_text(encoding="utf-8"), tmp_path, dark)
    assert [frame["width"] for frame in found] == [*WIDTHS, *WIDTHS]
    for frame in found:
        assert frame["scroll"] <= frame["width"] and frame["outside"] == [], frame
        assert frame["ground"] == ("rgb(16, 18, 20)" if dark else "rgb(246, 247, 248)")
    assert (
        found[-1]["tall"] > found[3]["tall"] > 1000
    )  # the folds hold something, and there is a page around them


def test_picture_of_a_report_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, image = tmp_path / "report.html", tmp_path / "report.png"
    write_report(path, page_of())
    monkeypatch.setattr(pictures, "IMAGE", image)
    pictures.main(["--page", str(path), "--height", "500"])
    header = image.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and image.stat().st_size < 150_000
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (pictures.WIDTH, 500)


@pytest.mark.parametrize(("width", "shown"), [(344, "narrow"), (760, "wide")])
def test_picture_of_the_loop_shows_the_chart_for_its_width(width: int, shown: str, tmp_path: Path) -> None:
    with page(tmp_path / "profile") as tab:
        drawn = (ROOT / "docs/images/loop.svg").read_text(encoding="utf-8")
        (tmp_path / "page.html").write_text(f'<meta name="viewport" content="width=device-width">{drawn}')
        tab.open((tmp_path / "page.html").as_uri(), width, False)
        tab.until("document.querySelectorAll('.chart').length == 2")
        charts = "[...document.querySelectorAll('.chart')].filter(x => getComputedStyle(x).display != 'none')"
        assert tab.run(f"{charts}.map(x => x.getAttribute('class'))") == [f"chart {shown}"]

"""Reward streams over the session, as lines of one chart for each."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_rl.evaluation.report.drawing import number, sizes, text
from recsys_rl.evaluation.report.lines import drawn_lines, lines_svg
from recsys_rl.evaluation.report.page import Row


def streams_html(curves: Sequence[Row], yardstick: str | None = None) -> str:
    """A section of the page for each of ``curves``; "" without any, or where no row can be drawn."""
    return "".join(_section(curve, yardstick) for curve in curves)


def _section(curve: Row, yardstick: str | None) -> str:
    lines = drawn_lines(curve["steps"], yardstick)
    if not lines:
        return ""
    name, unit = str(curve["name"]), str(curve.get("unit", "step"))
    over = "days" if unit == "day" else "session"
    note = (
        f"{curve['meaning']} After each {unit}, the sum so far; the mean over {number(curve['users'], 0)} "
        "users, of whom those who have left keep theirs."
    )
    drawn = sizes(lambda px: lines_svg(lines, name, name.capitalize(), width=px, unit=unit))
    return f'<h2>{text(name.capitalize())} over the {over}</h2><p class="note">{text(note)}</p>{drawn}'

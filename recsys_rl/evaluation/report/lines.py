"""Lines over the steps of a session: one for each policy, with its name and last value at the right end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Axes,
    decimals,
    finite,
    kind,
    marks_of,
    number,
    short_name,
    sizes,
    svg,
    text,
)
from recsys_rl.evaluation.report.page import Page
from recsys_rl.records import PRIVILEGED

SIMPLE = ("popularity", "mf", "linucb", "lints")
"""Rows without a network that are drawn, beside the yardstick: lines of all others would hide these."""


def lines_html(
    heading: str,
    note: str,
    steps: Mapping[str, Sequence[float]],
    page: Page,
    title: str,
    said: str,
    unit: str = "step",
) -> str:
    """A section of the page with a chart of those of ``steps`` that have a line; "" if none has one.

    ``steps``: for each policy a value after each step. The other arguments are those of ``lines_svg``.
    """
    lines = {
        name: values
        for name, values in steps.items()
        if name not in (*PRIVILEGED, "untrained")
        and (name in (*SIMPLE, page.yardstick) or kind(name) == "learned")
        and len(values) > 1
        and all(map(finite, values))
    }
    if not lines:
        return ""
    drawn = sizes(lambda px: lines_svg(lines, title, said, width=px, unit=unit))
    return f'<h2>{text(heading)}</h2><p class="note">{text(note)}</p>{drawn}'


def lines_svg(
    lines: Mapping[str, Sequence[float]], title: str, said: str, *, width: int = 760, unit: str = "step"
) -> str:
    """A line for each policy over the steps 1, 2, ..., with its name and last value at its right end.

    ``lines``: for each policy a value after each step, two or more finite numbers. ``title`` stands above the
    axis; a screen reader reads ``said``, the last step and the last values. ``width`` in pixels. ``unit``:
    what the steps are.
    """
    values = [value for steps in lines.values() for value in steps]
    marks, longest = marks_of([0.0, *values]), max(map(len, lines.values()))
    digits, height = decimals(values), 340 if width > 500 else 300
    ordered = sorted(lines, key=lambda name: kind(name) == "learned")  # these are drawn last, on top
    styles = dict.fromkeys(ordered, ("other", "muted"))
    styles |= {name: ("curve", "learned strong") for name in ordered if kind(name) == "learned"}
    labels = [
        (
            f"{short_name(name)} {number(lines[name][-1], digits)}",
            styles[name][1],
            len(lines[name]),
            lines[name][-1],
        )
        for name in ordered
    ]
    names = [f"{mark:g}" for mark in marks]
    left = 14 + LETTER * max(map(len, names))
    right = width - 26 - LETTER * max(len(shown) for shown, *_ in labels)
    axes = Axes((1, longest), marks, names, left, right, 40, height - 34)
    parts = [f'<text class="muted" x="12" y="22">{text(title)}</text>', *axes.grid()]
    for step in sorted({1, (1 + longest) // 2, longest}):
        last = f" {unit}s" if step == longest else ""
        parts.append(
            f'<text class="muted middle" x="{axes.x(step):.1f}" y="{height - 12}">{step}{last}</text>'
        )
    for name, end in zip(ordered, axes.ends(labels), strict=True):
        tip = f"{name}: {', '.join(number(value, digits) for value in lines[name])}"
        parts.append(
            f'<polyline class="{styles[name][0]}" points="{axes.points(enumerate(lines[name], 1))}">'
            f"<title>{text(tip)}</title></polyline>{end}"
        )
    listed = ", ".join(f"{name} {number(steps[-1], digits)}" for name, steps in lines.items())
    return svg(width, height, f"{said} after {unit} {longest}: {listed}.", parts)

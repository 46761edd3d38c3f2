"""Lines over the steps of a session: one for each policy, with its name and last value at the right end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    decimals,
    finite,
    kind,
    number,
    scale,
    short_name,
    spread,
    svg,
    text,
    ticks,
)
from recsys_rl.records import PRIVILEGED

SIMPLE = ("popularity", "mf", "linucb", "lints")
"""Rows without a network that are drawn, beside the yardstick: lines of all others would hide these."""


def drawn_lines(steps: Mapping[str, Sequence[float]], yardstick: str | None) -> dict[str, Sequence[float]]:
    """Those of ``steps``, for each policy a value after each step, that ``lines_svg`` draws in a report."""
    return {
        str(name): values
        for name, values in steps.items()
        if _is_drawn(str(name), yardstick) and len(values) > 1 and all(map(finite, values))
    }


def _is_drawn(policy: str, yardstick: str | None) -> bool:
    """True for a row that has a line."""
    if policy in (*PRIVILEGED, "untrained"):
        return False
    return policy in (*SIMPLE, yardstick) or kind(policy) == "learned"


def lines_svg(
    lines: Mapping[str, Sequence[float]], title: str, said: str, *, width: int = 760, unit: str = "step"
) -> str:
    """A line for each policy over the steps 1, 2, ..., with its name and last value at its right end.

    ``lines``: for each policy a value after each step, two or more finite numbers. ``title`` stands above the
    axis; a screen reader reads ``said``, the last step and the last values. ``width`` in pixels. ``unit``:
    what the steps are.
    """
    values = [value for steps in lines.values() for value in steps]
    low, high, longest = min(0.0, *values), max(0.0, *values), max(map(len, lines.values()))
    marks = ticks(low, high if high > low else low + 1, 4)
    places, height = decimals(values), 340 if width > 500 else 300
    labels = {name: f"{short_name(name)} {number(steps[-1], places)}" for name, steps in lines.items()}
    names = [f"{mark:g}" for mark in marks]
    left = 14 + LETTER * max(map(len, names))
    right = width - 26 - LETTER * max(map(len, labels.values()))
    top, bottom = 40, height - 34
    x, y = scale(1, longest, left, right), scale(marks[0], marks[-1], bottom, top)
    parts = [f'<text class="muted" x="12" y="22">{text(title)}</text>']
    for mark, shown in zip(marks, names, strict=True):
        parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
            f'<text class="muted end" x="{left - 7:.1f}" y="{y(mark) + 4:.1f}">{shown}</text>'
        )
    for step in sorted({1, (1 + longest) // 2, longest}):
        last = f" {unit}s" if step == longest else ""
        parts.append(f'<text class="muted middle" x="{x(step):.1f}" y="{height - 12}">{step}{last}</text>')
    ordered = sorted(lines, key=lambda name: kind(name) == "learned")  # these are drawn last, on top
    ends = spread([y(lines[name][-1]) for name in ordered], 17)
    for name, end in zip(ordered, ends, strict=True):
        steps, learned = lines[name], kind(name) == "learned"
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(steps, 1))
        tip = f"{name}: {', '.join(number(value, places) for value in steps)}"
        line, label = ("curve", "learned strong") if learned else ("other", "muted")
        parts.append(
            f'<polyline class="{line}" points="{points}"><title>{text(tip)}</title></polyline>'
            f'<path class="leader" d="M{x(len(steps)) + 3:.1f} {y(steps[-1]):.1f}'
            f'L{right + 13:.1f} {end:.1f}"/><text class="{label}" '
            f'x="{right + 16:.1f}" y="{end + 4:.1f}">{text(labels[name])}</text>'
        )
    listed = ", ".join(f"{name} {number(steps[-1], places)}" for name, steps in lines.items())
    return svg(width, height, f"{said} after {unit} {longest}: {listed}.", parts)

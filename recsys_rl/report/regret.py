"""The regret of policies after each step of a session, as lines of one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys_rl.records import PRIVILEGED
from recsys_rl.report.drawing import (
    LETTER,
    decimals,
    finite,
    kind,
    number,
    scale,
    short_name,
    sizes,
    spread,
    svg,
    text,
    ticks,
)
from recsys_rl.report.page import Row

SIMPLE = ("popularity", "mf", "linucb", "lints")
"""Rows without a network that are drawn, beside the yardstick: lines of all others would hide these."""


def regret_html(regret_by_step: Row | None = None, yardstick: str | None = None) -> str:
    """The section of the page; "" without a regret, or where no row can be drawn."""
    regret = regret_by_step or {"steps": {}}
    lines = {
        str(name): steps
        for name, steps in regret["steps"].items()
        if _drawn(str(name), yardstick) and len(steps) > 1 and all(map(finite, steps))
    }
    if not lines:
        return ""
    versus, users = text(regret["versus"]), number(regret["users"], 0)
    note = (
        f"Regret after each step: the reward that {versus} has earned until then, minus that of the policy; "
        f"the mean over {users} users, who earn nothing after they have left. A line that has become level "
        f"loses nothing more: the policy now earns as much as {versus}."
    )
    drawn = sizes(lambda px: regret_svg(lines, str(regret["versus"]), width=px))
    return f'<h2>Regret by step</h2><p class="note">{note}</p>{drawn}'


def _drawn(policy: str, yardstick: str | None) -> bool:
    if policy in (*PRIVILEGED, "untrained"):
        return False
    return policy in (*SIMPLE, yardstick) or kind(policy) == "learned"


def regret_svg(lines: Mapping[str, Sequence[float]], versus: str, *, width: int = 760) -> str:
    """A line for each policy over the steps 1, 2, ..., with its name and last value at its right end.

    ``lines``: for each policy its regret after each step, two or more finite numbers. ``width`` in pixels.
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
    parts = [f'<text class="muted" x="12" y="22">regret against {text(short_name(versus))}</text>']
    for mark, shown in zip(marks, names, strict=True):
        parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
            f'<text class="muted end" x="{left - 7:.1f}" y="{y(mark) + 4:.1f}">{shown}</text>'
        )
    for step in sorted({1, (1 + longest) // 2, longest}):
        last = " steps" if step == longest else ""
        parts.append(f'<text class="muted middle" x="{x(step):.1f}" y="{height - 12}">{step}{last}</text>')
    ordered = sorted(lines, key=lambda name: kind(name) == "learned")  # these are drawn last, on top
    ends = spread([y(lines[name][-1]) for name in ordered], 17)
    for name, end in zip(ordered, ends, strict=True):
        steps, learned = lines[name], kind(name) == "learned"
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(steps, 1))
        said = f"{name}: {', '.join(number(value, places) for value in steps)}"
        line, label = ("curve", "learned strong") if learned else ("other", "muted")
        parts.append(
            f'<polyline class="{line}" points="{points}"><title>{text(said)}</title></polyline>'
            f'<path class="leader" d="M{x(len(steps)) + 3:.1f} {y(steps[-1]):.1f}'
            f'L{right + 13:.1f} {end:.1f}"/><text class="{label}" '
            f'x="{right + 16:.1f}" y="{end + 4:.1f}">{text(labels[name])}</text>'
        )
    listed = ", ".join(f"{name} {number(steps[-1], places)}" for name, steps in lines.items())
    return svg(width, height, f"Regret against {versus} after step {longest}: {listed}.", parts)

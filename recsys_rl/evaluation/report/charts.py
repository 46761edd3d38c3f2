"""Two charts as standalone SVG text: a learning curve, and returns as bars with intervals.

Each chart prints its values beside the marks, so a reader needs no legend box and no look at an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    decimals,
    finite,
    kind,
    number,
    scale,
    short,
    short_name,
    spread,
    svg,
    text,
    ticks,
)
from recsys_rl.types import UserError

RETURN = ("return_mean", "return_low", "return_high")


def curve_points(curve: Mapping[str, Sequence[float]]) -> list[tuple[float, float, float, float]]:
    """(step, mean, low, high) in the order of the steps, without points that are not finite numbers."""
    rows = zip(*(curve.get(name, ()) for name in ("step", "mean", "low", "high")), strict=True)
    return sorted(row for row in rows if all(finite(value) for value in row))


def passing(curve: Mapping[str, Sequence[float]], level: float) -> float | None:
    """The first step from which on the mean of the curve stays above ``level``; None if it ends below."""
    passed = None
    for step, mean, _, _ in reversed(curve_points(curve)):
        if mean <= level:
            break
        passed = step
    return passed


_LINES = ("inside", "baseline")
"""The colours of further curves."""


def learning_curve_svg(
    curve: Mapping[str, Sequence[float]],
    references: Mapping[str, float],
    *,
    name: str = "ppo",
    width: int = 760,
    others: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> str:
    """The mean return over training, its band, and dashed reference lines with names at their right ends.

    A dashed vertical line marks the step from which on the curve stays above a reference.

    ``curve`` has equally long ``step``, ``mean``, ``low``, ``high``. ``references`` gives a return for each
    policy, ``others`` further curves by name, drawn as lines. ``width`` is in pixels, 340 or more; text does
    not scale, so draw another chart for a phone.
    Raises UserError if fewer than two points have finite numbers.
    """
    points = curve_points(curve)
    if len(points) < 2 or points[0][0] == points[-1][0]:
        raise UserError("The learning curve has fewer than two evaluations: evaluate more often to draw it.")
    levels = {policy: value for policy, value in references.items() if finite(value)}
    lines = {title: curve_points(other) for title, other in (others or {}).items()}
    lines = {title: line for title, line in lines.items() if len(line) > 1}
    values = [v for _, *rest in points for v in rest] + list(levels.values())
    values += [mean for line in lines.values() for _, mean, _, _ in line]
    low, high = min(0.0, *values) if max(values) > 0 else min(values), max(values)
    marks = ticks(low, high if high > low else low + 1, 4)
    places = decimals(values)

    labels = [(f"{short_name(name)} {number(points[-1][1], places)}", "learned strong", points[-1][1])]
    labels += [(f"{short_name(p)} {number(v, places)}", f"muted {kind(p)}", v) for p, v in levels.items()]
    labels += [
        (f"{title} {number(line[-1][1], places)}", f"muted {_LINES[at % 2]}", line[-1][1])
        for at, (title, line) in enumerate(lines.items())
    ]
    height = 340 if width > 500 else 300
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))
    names = [number(mark, digits) for mark in marks]
    left, right = (
        14 + LETTER * max(map(len, names)),
        width - 26 - LETTER * max(len(shown) for shown, *_ in labels),
    )
    top, bottom = 40, height - 34
    x = scale(points[0][0], points[-1][0], left, right)
    y = scale(marks[0], marks[-1], bottom, top)

    parts = ['<text class="muted" x="12" y="22">mean return</text>']
    for mark, shown in zip(marks, names, strict=True):
        parts.append(_level("grid", left, right, y(mark)))
        parts.append(f'<text class="muted end" x="{left - 7:.1f}" y="{y(mark) + 4:.1f}">{shown}</text>')
    parts += _step_axis(points[0][0], points[-1][0], x, height - 12)
    parts += [_level(f"reference {kind(policy)}", left, right, y(value)) for policy, value in levels.items()]
    above = [f"{x(step):.1f},{y(high):.1f}" for step, _, _, high in points]
    below = [f"{x(step):.1f},{y(low):.1f}" for step, _, low, _ in reversed(points)]
    middle = [f"{x(step):.1f},{y(mean):.1f}" for step, mean, _, _ in points]
    parts.append(f'<polygon class="band" points="{" ".join(above + below)}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(middle)}"/>')
    for at, line in enumerate(lines.values()):
        path = " ".join(f"{x(step):.1f},{y(mean):.1f}" for step, mean, _, _ in line)
        parts.append(f'<polyline class="other {_LINES[at % 2]}" points="{path}"/>')
    for placed, (shown, style, value) in zip(spread([y(v) for *_, v in labels], 17), labels, strict=True):
        parts.append(
            f'<path class="leader" d="M{right + 3:.1f} {y(value):.1f}L{right + 13:.1f} {placed:.1f}"/>'
            f'<text class="{style}" x="{right + 16:.1f}" y="{placed + 4:.1f}">{text(shown)}</text>'
        )
    passed = {policy: passing(curve, value) for policy, value in levels.items()}
    for step in {step for step in passed.values() if step is not None}:
        parts.append(f'<path class="reference" d="M{x(step):.1f} {top}V{bottom}"/>')
    parts.append(_hover(points, x, y, places, top, bottom))

    ends = [f"{number(mean, places)} at step {step:,.0f}" for step, mean, _, _ in (points[0], points[-1])]
    said = f"Learning curve of {name}: mean return {ends[0]}, {ends[1]}."
    if levels:
        said += f" References: {', '.join(f'{p} {number(v, places)}' for p, v in levels.items())}."
    for title, line in lines.items():
        last = line[-1]
        said += f" {title}: mean {number(last[1], places)} at step {last[0]:,.0f}."
    above = [f"{p} from step {step:,.0f} on" for p, step in passed.items() if step is not None]
    said += f" It stays above {', '.join(above)}." if above else ""
    return svg(width, height, said, parts)


def _level(style: str, left: float, right: float, y: float) -> str:
    return f'<line class="{style}" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _step_axis(first: float, last: float, x: Callable[[float], float], baseline: float) -> list[str]:
    count = max(2, int((x(last) - x(first)) / 100))
    inner = [tick for tick in ticks(first, last, count) if first <= tick <= last]
    if len(inner) < 2:
        inner = [first, last]
    return [
        f'<text class="muted middle" x="{x(tick):.1f}" y="{baseline}">'
        f"{short(tick)}{' steps' if tick == inner[-1] else ''}</text>"
        for tick in inner
    ]


def _hover(
    points: Sequence[tuple[float, float, float, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
    places: int,
    top: float,
    bottom: float,
) -> str:
    """A column around each point, with a dot and the browser's own tooltip, without a script."""
    xs = [x(step) for step, *_ in points]
    edges = [xs[0], *((a + b) / 2 for a, b in pairwise(xs)), xs[-1]]
    return "".join(
        f'<g class="hit"><title>step {step:,.0f}: {number(mean, places)} '
        f"({number(low, places)} to {number(high, places)})</title>"
        f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{bottom - top}"/>'
        f'<circle cx="{x(step):.1f}" cy="{y(mean):.1f}" r="4"/></g>'
        for (step, mean, low, high), (a, b) in zip(points, pairwise(edges), strict=True)
    )


def returns_chart_svg(
    rows: Sequence[Mapping[str, Any]], *, yardstick: str | None = None, width: int = 760
) -> str:
    """One horizontal bar for each policy, best first, with its 95 % interval as a whisker and in numbers.

    ``rows`` have ``policy``, ``return_mean``, ``return_low``, ``return_high``; a row without a finite
    mean keeps its name and shows a dash. A dashed line marks the mean of the row named ``yardstick``.
    ``width`` is in pixels; below 500 the names stand above the bars. Raises UserError if no row has a
    finite mean.
    """
    if not any(finite(row["return_mean"]) for row in rows):
        raise UserError("The returns chart has no finite return: evaluate at least one policy.")
    ordered = by_return(rows)
    ends = [row[key] for row in rows for key in RETURN if finite(row[key])]
    low, high, places = min(0.0, *ends), max(0.0, *ends), decimals(ends)
    narrow = width < 500
    longest = max(len(number(row["return_mean"], places) + interval(row, places)) for row in rows)
    left = 16.0 if narrow else 28 + LETTER * max(len(short_name(str(row["policy"]))) for row in rows)
    right = width - (16.0 if narrow else 30 + LETTER * longest)
    x = scale(low, high if high > low else low + 1, left, right)

    parts, top, pitch = [], 14, 46 if narrow else 32
    floor = top + pitch * len(rows) + 2
    level = next((row["return_mean"] for row in rows if row["policy"] == yardstick), None)
    # In a narrow chart the line is drawn only beside bars: names and numbers stand between them.
    if level is not None and finite(level):
        tops = [top + pitch * index + 22 for index in range(len(rows))] if narrow else [top]
        length = 20 if narrow else floor - 6 - top
        path = "".join(f"M{x(level):.1f} {start}v{length}" for start in tops)
        parts.append(f'<path class="reference" d="{path}"/>')
    for index, row in enumerate(ordered):
        baseline = top + pitch * index + 17
        parts.append(_row_text(row, x, places, baseline, left, right, narrow))
        parts.append(_bar(row, x, baseline + (8 if narrow else -11)))
    kinds = {kind(str(row["policy"])) for row in rows}
    legend, bottom = _legend(kinds, yardstick if finite(level) else None, left, floor + 12, width)
    said = "; ".join(
        f"{row['policy']} {number(row['return_mean'], places)} ({interval(row, places) or 'no interval'})"
        for row in ordered
    )
    said = f"Mean return and 95 % interval by policy: {said}."
    return svg(width, bottom + 22, said, [*parts, legend])


def by_return(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with the greatest mean first, and rows without a finite mean last."""
    return sorted(rows, key=lambda row: -row["return_mean"] if finite(row["return_mean"]) else math.inf)


def interval(row: Mapping[str, Any], places: int) -> str:
    """``15.8 to 16.6``; an empty string if an end is missing."""
    low, high = row["return_low"], row["return_high"]
    return f"{number(low, places)} to {number(high, places)}" if finite(low) and finite(high) else ""


def _row_text(
    row: Mapping[str, Any],
    x: Callable[[float], float],
    places: int,
    baseline: float,
    left: float,
    right: float,
    narrow: bool,
) -> str:
    """Name and numbers: left and right of the bar, or on a line above it in a narrow chart."""
    policy = str(row["policy"])
    anchor = "start" if narrow else "end"
    if kind(policy) == "learned":
        anchor += " learned strong"
    at = max(x(value) for value in (0.0, row["return_mean"], row["return_high"]) if finite(value)) + 10
    where = f'class="end clear" x="{right:.1f}"' if narrow else f'class="clear" x="{at:.1f}"'
    return (
        f'<text class="{anchor}" x="{left if narrow else left - 12:.1f}" y="{baseline}">'
        f"{text(short_name(policy))}</text>"
        f'<text {where} y="{baseline}"><tspan class="strong">{number(row["return_mean"], places)}</tspan>'
        f'<tspan class="muted" dx="8">{interval(row, places)}</tspan></text>'
    )


def _bar(row: Mapping[str, Any], x: Callable[[float], float], top: float) -> str:
    """The bar from zero, its whisker, and the line at zero."""
    zero = f'<path class="axis" d="M{x(0):.1f} {top - 3}v20"/>'
    if not finite(row["return_mean"]):
        return zero
    start, stop = sorted((x(0.0), x(row["return_mean"])))
    bar = (
        f'<rect class="bar {kind(str(row["policy"]))}" x="{start:.1f}" y="{top}" '
        f'width="{stop - start:.1f}" height="14" rx="1.5"/>'
    )
    if not (finite(row["return_low"]) and finite(row["return_high"])):
        return bar + zero
    a, b, middle = x(row["return_low"]), x(row["return_high"]), top + 7
    path = f"M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 4}v8M{b:.1f} {middle - 4}v8"
    return f'{bar}{zero}<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'


def _legend(kinds: set[str], yardstick: str | None, left: float, top: int, width: float) -> tuple[str, int]:
    """The marks and their words, in as many lines as needed, and the top of the last line."""
    words = {
        "learned": "learned",
        "baseline": "no reinforcement learning",
        "inside": "sees inside the simulator",
    }
    marks = [
        (word, f'<rect class="bar {style}" x="{{x:.1f}}" y="{{y}}" width="11" height="11" rx="1.5"/>')
        for style, word in words.items()
        if style in kinds
    ]
    if yardstick is not None:
        marks.append(
            (f"yardstick: {short_name(yardstick)}", '<path class="reference" d="M{x:.1f} {middle}h12"/>')
        )
    parts, x, y = [], left, top
    for word, mark in marks:
        room = 32 + 7 * len(word)
        if x + room > width and x > left:
            x, y = left, y + 19
        parts.append(mark.format(x=x, y=y, middle=y + 6))
        parts.append(f'<text class="muted" x="{x + 17:.1f}" y="{y + 10}">{text(word)}</text>')
        x += room
    return "".join(parts), y

"""The learning curve: the mean return over training, its band, references, and further curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from recsys_rl.evaluation.report import words
from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Axes,
    decimals,
    digits_of,
    finite,
    kind,
    marks_of,
    number,
    short,
    short_name,
    sizes,
    svg,
    text,
    ticks,
)
from recsys_rl.evaluation.report.page import Evaluated, Page, Picture
from recsys_rl.types import UserError

COLUMNS = ("step", "mean", "low", "high")
CURVES = {
    "log": (
        "on the log",
        "The line on the log is the estimate of ope{by} for held-out users of a log. Where it falls while "
        "the return inside rises, the policy learns the errors of its users.",
    ),
    "world": (
        "in the world",
        "The line in the world is the mean return in the platform of --world.",
    ),
}
"""Names in the chart of further learning curves, and what they are."""
_LINES = ("inside", "baseline")
"""The colours of further curves."""
Curve = Mapping[str, Sequence[float]]
"""Equally long ``step``, ``mean``, ``low``, ``high``."""
Point = tuple[float, float, float, float]


def curves_of(evaluated: Evaluated) -> dict[str, Any]:
    """The ``curve`` of training users; ``others``, "log" by `ope` and "world" of another world, and the
    estimator of "log", ``judged_by``.
    """
    info = evaluated.checkpoint.info

    def by_column(curve: Sequence[Sequence[float]]) -> dict[str, list[float]]:
        return {name: [point[index] for point in curve] for index, name in enumerate(COLUMNS)}

    return {
        "curve": by_column(info.get("curve", [])),
        "others": {name: by_column(rows) for name, rows in info.get("curves", {}).items()},
        "judged_by": str(info.get("judged_by", "")),
    }


def curve_html(values: Mapping[str, Any], page: Page) -> str:
    """The section of the page."""
    curve, lives = values["curve"], words.has_lives(page.rows)
    lost = len(curve.get("step", ())) - len(curve_points(curve))
    missing = f" Not drawn, without a finite number: {lost} of the evaluations." if lost else ""
    over = f"training users, always the same; the returns above are over {text(words.people_of(page))}"
    if page.foreign:
        over = "episodes on seeds of their own"
    if page.world:
        over += ", and are of another world than this curve"
    if lives:
        over += "; each point is of single visits, and the returns above are of whole lives"
    note = (
        f"Mean return of the greedy policy during training, and its 95 % interval as a band, over {over}."
        f"{missing}"
    )
    by = f", by {text(values['judged_by'])}," if values["judged_by"] else ""
    note += "".join(f" {CURVES[name][1].format(by=by)}" for name in values["others"])
    others = {CURVES[name][0]: other for name, other in values["others"].items()}
    name = "inside" if others else f"{page.algo}-greedy"
    try:
        drawn = sizes(lambda px: learning_curve_svg(curve, {}, name=name, width=px, others=others))
    except UserError as error:
        return f'<h2>Learning curve</h2><p class="plain">{text(error)}{missing}</p>'
    return f'<h2>Learning curve</h2><p class="note">{note}</p>{drawn}'


CURVE = Picture("curve", curves_of, curve_html)


def curve_points(curve: Curve) -> list[Point]:
    """(step, mean, low, high) in the order of the steps, without points that are not finite numbers."""
    rows = zip(*(curve.get(name, ()) for name in COLUMNS), strict=True)
    return sorted(row for row in rows if all(finite(value) for value in row))


def passing(curve: Curve, level: float) -> float | None:
    """The first step from which on the mean of the curve stays above ``level``; None if it ends below."""
    passed = None
    for step, mean, _, _ in reversed(curve_points(curve)):
        if mean <= level:
            break
        passed = step
    return passed


def learning_curve_svg(
    curve: Curve,
    references: Mapping[str, float],
    *,
    name: str = "ppo",
    width: int = 760,
    others: Mapping[str, Curve] | None = None,
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
    further = {title: curve_points(other) for title, other in (others or {}).items()}
    further = {title: line for title, line in further.items() if len(line) > 1}
    values = [v for _, *rest in points for v in rest] + list(levels.values())
    values += [mean for line in further.values() for _, mean, _, _ in line]
    digits, height = decimals(values), 340 if width > 500 else 300

    last = points[-1][0]
    labels = [(f"{short_name(name)} {number(points[-1][1], digits)}", "learned strong", last, points[-1][1])]
    labels += [
        (f"{short_name(p)} {number(v, digits)}", f"muted {kind(p)}", last, v) for p, v in levels.items()
    ]
    colours = {title: _LINES[at % 2] for at, title in enumerate(further)}
    labels += [
        (f"{title} {number(line[-1][1], digits)}", f"muted {colours[title]}", last, line[-1][1])
        for title, line in further.items()
    ]
    marks = marks_of([0.0, *values] if max(values) > 0 else values)
    names = [number(mark, digits_of(marks)) for mark in marks]
    left = 14 + LETTER * max(map(len, names))
    right = width - 26 - LETTER * max(len(shown) for shown, *_ in labels)
    axes = Axes((points[0][0], last), marks, names, left, right, 40, height - 34)
    passed = {policy: passing(curve, value) for policy, value in levels.items()}
    parts = [
        '<text class="muted" x="12" y="22">mean return</text>',
        *axes.grid(),
        *_step_axis(points[0][0], last, axes.x, height - 12),
        *(axes.level(f"reference {kind(policy)}", value) for policy, value in levels.items()),
        axes.curve(points),
    ]
    for title, line in further.items():
        path = axes.points((step, mean) for step, mean, _, _ in line)
        parts.append(f'<polyline class="other {colours[title]}" points="{path}"/>')
    parts += axes.ends(labels)
    for step in {step for step in passed.values() if step is not None}:
        parts.append(f'<path class="reference" d="M{axes.x(step):.1f} {axes.top}V{axes.bottom}"/>')
    parts.append(_tooltips(points, axes, digits))
    ends = [f"{number(mean, digits)} at step {step:,.0f}" for step, mean, _, _ in (points[0], points[-1])]
    said = f"Learning curve of {name}: mean return {ends[0]}, {ends[1]}."
    if levels:
        said += f" References: {', '.join(f'{p} {number(v, digits)}' for p, v in levels.items())}."
    for title, line in further.items():
        said += f" {title}: mean {number(line[-1][1], digits)} at step {line[-1][0]:,.0f}."
    above = [f"{policy} from step {step:,.0f} on" for policy, step in passed.items() if step is not None]
    said += f" It stays above {', '.join(above)}." if above else ""
    return svg(width, height, said, parts)


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


def _tooltips(points: Sequence[Point], axes: Axes, digits: int) -> str:
    """A column around each point."""
    xs = [axes.x(step) for step, *_ in points]
    edges = pairwise([xs[0], *((a + b) / 2 for a, b in pairwise(xs)), xs[-1]])
    return "".join(
        axes.column(
            *(start, stop, axes.x(step), mean),
            f"step {step:,.0f}: {number(mean, digits)} ({number(low, digits)} to {number(high, digits)})",
        )
        for (step, mean, low, high), (start, stop) in zip(points, edges, strict=True)
    )

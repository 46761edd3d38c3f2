"""Two charts as standalone SVG text: a learning curve, and returns as bars with intervals.

Each names its values directly, follows the reader's light or dark scheme, and stands on its own plate,
so it reads the same inside the report, in a README, and on any background. The palette is blue, grey
and orange, which every common colour blindness tells apart; fill and outline say the same again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from recsys_rl.types import UserError

INSIDE = ("myopic", "oracle", "planner")
"""They see what a recommender can't: the simulator's hidden state."""
BASELINES = ("untrained", "random", "popularity", "one-item", "static-list")

# In a page `:root` is the page, in a file of its own it is the SVG: the same text serves both.
PALETTE_CSS = """
:root{--ink:#1b1f24;--muted:#59626c;--line:#dfe3e7;--surface:#fff;--page:#f6f7f8;
--learned:#0a5fb4;--baseline:#a3abb4;--inside:#a8500a}
@media (prefers-color-scheme:dark){:root{--ink:#e8ebee;--muted:#a0a9b3;--line:#31373e;--surface:#181b1f;
--page:#101214;--learned:#63acff;--baseline:#6b7580;--inside:#f0a35c}}
"""
CHART_CSS = """
.plate{fill:var(--surface)}
.chart text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink);
font-variant-numeric:tabular-nums}
.chart .muted{fill:var(--muted)}.chart .strong{font-weight:650}
.chart .end{text-anchor:end}.chart .middle{text-anchor:middle}
.chart .learned{fill:var(--learned)}.chart .inside{fill:var(--inside)}
.grid{stroke:var(--line)}.axis{stroke:var(--muted)}
.band{fill:var(--learned);opacity:.18}.curve{fill:none;stroke:var(--learned);stroke-width:2.25;
stroke-linejoin:round}
.reference{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:5 4}.reference.inside{stroke:var(--inside)}
.leader{fill:none;stroke:var(--line)}
.bar.learned{fill:var(--learned)}.bar.baseline{fill:var(--baseline)}
.bar.inside{fill:none;stroke:var(--inside);stroke-width:1.5}
.halo{stroke:var(--surface);stroke-width:4.5}.whisker{stroke:var(--ink);stroke-width:1.5}
.hit rect{fill:transparent}.hit circle{fill:var(--learned);opacity:0}.hit:hover circle{opacity:1}
"""


def kind(policy: str) -> str:
    """``inside`` (sees the simulator), ``baseline`` (learns nothing) or ``learned`` (any other name)."""
    return "inside" if policy in INSIDE else "baseline" if policy in BASELINES else "learned"


def text(value: object) -> str:
    """Any string, safe in HTML and XML: escaped, and what no XML may hold shown as U+FFFD."""
    return escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value)))


def finite(value: object) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def decimals(values: Sequence[float]) -> int:
    """Places after the point that keep about three digits of the greatest of ``values``."""
    greatest = max((abs(v) for v in values), default=0.0)
    return 0 if greatest >= 1000 else 1 if greatest >= 10 else 2 if greatest >= 1 else 3


def number(value: object, places: int) -> str:
    """``1,234.5`` with a true minus sign; a dash where there is no finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    shown = f"{value:,.{places}f}"
    return (shown[1:] if float(shown.replace(",", "")) == 0 and shown[0] == "-" else shown).replace("-", "−")


def short(steps: float) -> str:
    """Steps on an axis: 50k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:g}{name}"
    return f"{steps:g}"


def scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The straight line that carries ``low`` to ``start`` and ``high`` to ``stop``, in pixels."""
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten that enclose ``low`` .. ``high``."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """``places`` moved apart to at least ``gap``, in their order, each crowd centred where it was."""
    order = sorted(range(len(places)), key=places.__getitem__)
    crowds: list[list[int]] = []  # runs of labels that touch
    centre = [0.0] * len(places)

    def top(crowd: list[int]) -> float:
        return sum(places[i] for i in crowd) / len(crowd) - gap * (len(crowd) - 1) / 2

    for i in order:
        crowds.append([i])
        while len(crowds) > 1 and top(crowds[-1]) - top(crowds[-2]) < gap * len(crowds[-2]):
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    for crowd in crowds:
        for rank, i in enumerate(crowd):
            centre[i] = top(crowd) + gap * rank
    return centre


def curve_points(curve: Mapping[str, Sequence[float]]) -> list[tuple[float, float, float, float]]:
    """(step, mean, low, high) in the order of the steps; points that are not finite numbers are left out."""
    rows = zip(*(curve.get(name, ()) for name in ("step", "mean", "low", "high")), strict=True)
    return sorted(row for row in rows if all(finite(value) for value in row))


def learning_curve_svg(
    curve: Mapping[str, Sequence[float]],
    references: Mapping[str, float],
    *,
    name: str = "ppo",
    width: int = 760,
) -> str:
    """The mean return over training, its band, and dashed reference lines, each named at its right end.

    ``curve`` has equally long ``step``, ``mean``, ``low``, ``high``; ``references`` gives a return for
    each policy; ``width`` is in pixels, 340 or more (text keeps its size: draw anew for a phone).
    Raises UserError where fewer than two points have finite numbers.
    """
    points = curve_points(curve)
    if len(points) < 2 or points[0][0] == points[-1][0]:
        raise UserError("The learning curve has fewer than two evaluations: evaluate more often to draw it.")
    levels = {policy: value for policy, value in references.items() if finite(value)}
    values = [v for _, *rest in points for v in rest] + list(levels.values())
    low, high = min(0.0, *values) if max(values) > 0 else min(values), max(values)
    marks = ticks(low, high if high > low else low + 1, 4)
    places = decimals(values)

    labels = [(f"{name} {number(points[-1][1], places)}", "learned strong", points[-1][1])]
    labels += [(f"{p} {number(v, places)}", f"muted {kind(p)}", v) for p, v in levels.items()]
    height, left, top = (340 if width > 500 else 300), 12 + 8 * max(len(f"{m:g}") for m in marks), 40
    right, bottom = width - 26 - 7.2 * max(len(label) for label, _, _ in labels), height - 34
    x = scale(points[0][0], points[-1][0], left, right)
    y = scale(marks[0], marks[-1], bottom, top)

    parts = ['<text class="muted" x="12" y="22">mean return</text>']
    for mark in marks:
        parts.append(f'<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        parts.append(f'<text class="muted end" x="{left - 7}" y="{y(mark) + 4:.1f}">{number(mark, 0)}</text>')
    inner = [t for t in ticks(points[0][0], points[-1][0], max(2, int((right - left) / 100)))]
    inner = [t for t in inner if points[0][0] <= t <= points[-1][0]]
    for t in inner:
        unit = " steps" if t == inner[-1] else ""
        parts.append(f'<text class="muted middle" x="{x(t):.1f}" y="{height - 12}">{short(t)}{unit}</text>')
    for policy, value in levels.items():
        style = f"reference {kind(policy)}"
        parts.append(f'<line class="{style}" x1="{left}" x2="{right:.1f}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')

    above = [f"{x(s):.1f},{y(h):.1f}" for s, _, _, h in points]
    below = [f"{x(s):.1f},{y(l):.1f}" for s, _, l, _ in reversed(points)]
    parts.append(f'<polygon class="band" points="{" ".join(above + below)}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x(s):.1f},{y(m):.1f}" for s, m, _, _ in points)}"/>')
    for placed, (label, style, value) in zip(spread([y(v) for *_, v in labels], 17), labels, strict=True):
        parts.append(
            f'<path class="leader" d="M{right + 3:.1f} {y(value):.1f}L{right + 13:.1f} {placed:.1f}"/>'
            f'<text class="{style}" x="{right + 16:.1f}" y="{placed + 4:.1f}">{text(label)}</text>'
        )
    parts.append(_hover(points, x, y, places, top, bottom))
    said = ", ".join(f"{p} {number(v, places)}" for p, v in levels.items())
    return _svg(
        width,
        height,
        f"Learning curve of {name}: mean return {number(points[0][1], places)} at step {points[0][0]:,.0f}, "
        f"{number(points[-1][1], places)} at step {points[-1][0]:,.0f}." + (f" References: {said}." if said else ""),
        parts,
    )


def _hover(
    points: Sequence[tuple[float, float, float, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
    places: int,
    top: float,
    bottom: float,
) -> str:
    """A column around each point, with a dot and the browser's own tooltip: no script."""
    xs = [x(step) for step, *_ in points]
    edges = [xs[0], *((a + b) / 2 for a, b in zip(xs, xs[1:], strict=False)), xs[-1]]
    return "".join(
        f'<g class="hit"><title>step {step:,.0f}: {number(mean, places)} '
        f"({number(low, places)} to {number(high, places)})</title>"
        f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{bottom - top}"/>'
        f'<circle cx="{x(step):.1f}" cy="{y(mean):.1f}" r="4"/></g>'
        for (step, mean, low, high), a, b in zip(points, edges, edges[1:], strict=False)
    )


def returns_chart_svg(rows: Sequence[Mapping[str, Any]], *, width: int = 760) -> str:
    """One horizontal bar for each policy, best first, with its 95 % interval as a whisker and in numbers.

    ``rows`` have ``policy``, ``return_mean``, ``return_low``, ``return_high``; a row without a finite
    mean keeps its name and shows a dash. ``width`` is in pixels; below 500 the names stand above the bars.
    Raises UserError where no row has a finite mean.
    """
    drawn = [row for row in rows if finite(row["return_mean"])]
    if not drawn:
        raise UserError("The returns chart has no finite return: evaluate at least one policy.")
    drawn.sort(key=lambda row: -row["return_mean"])
    rest = [row for row in rows if not finite(row["return_mean"])]
    ends = [row[key] for row in drawn for key in ("return_mean", "return_low", "return_high") if finite(row[key])]
    low, high, places = min(0.0, *ends), max(0.0, *ends), decimals(ends)
    narrow = width < 500
    left = 16.0 if narrow else 30 + 7.2 * max(len(str(row["policy"])) for row in rows)
    right = width - (16.0 if narrow else 150.0)
    x = scale(low, high if high > low else low + 1, left, right)

    parts, pitch, first = [], (46 if narrow else 32), 14
    for index, row in enumerate(drawn + rest):
        policy, style = str(row["policy"]), kind(str(row["policy"]))
        name_y = first + pitch * index + 17
        bar_y = name_y + (8 if narrow else -11)
        name_class, name_x = ("", 16.0) if narrow else ("end", left - 12)
        weight = " learned strong" if style == "learned" else ""
        parts.append(f'<text class="{name_class}{weight}" x="{name_x:.1f}" y="{name_y}">{text(policy)}</text>')
        interval = f"{number(row['return_low'], places)} to {number(row['return_high'], places)}"
        value, at = number(row["return_mean"], places), right
        if finite(row["return_mean"]):
            at = max(x(v) for v in (0.0, row["return_mean"], row["return_high"]) if finite(v))
            parts.append(_bar(row, x, bar_y, style))
        where = f'class="end" x="{right:.1f}"' if narrow else f'x="{(at if row in drawn else left) + 10:.1f}"'
        parts.append(
            f'<text {where} y="{name_y}"><tspan class="strong">{value}</tspan>'
            + (f'<tspan class="muted" dx="8">{interval}</tspan></text>' if row in drawn else "</text>")
        )
    floor = first + pitch * len(rows) + 2
    parts.append(f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{first}" y2="{floor}"/>')
    parts.append(_legend({kind(str(row["policy"])) for row in rows}, 16.0 if narrow else left, floor + 12, width))
    said = "; ".join(
        f"{row['policy']} {number(row['return_mean'], places)} "
        f"({number(row['return_low'], places)} to {number(row['return_high'], places)})"
        for row in drawn
    )
    return _svg(width, floor + (54 if narrow else 34), f"Mean return and 95 % interval by policy: {said}.", parts)


def _bar(row: Mapping[str, Any], x: Callable[[float], float], top: float, style: str) -> str:
    start, stop = sorted((x(0.0), x(row["return_mean"])))
    bar = f'<rect class="bar {style}" x="{start:.1f}" y="{top}" width="{stop - start:.1f}" height="14" rx="1.5"/>'
    if not (finite(row["return_low"]) and finite(row["return_high"])):
        return bar
    a, b, middle = x(row["return_low"]), x(row["return_high"]), top + 7
    path = f"M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 4}v8M{b:.1f} {middle - 4}v8"
    return f'{bar}<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'


def _legend(kinds: set[str], left: float, top: float, width: float) -> str:
    words = {"learned": "learned", "baseline": "simple baseline", "inside": "sees inside the simulator"}
    parts, x, y = [], left, top
    for style, word in words.items():
        if style in kinds:
            room = 36 + 6.6 * len(word)
            if x + room > width:
                x, y = left, y + 19
            parts.append(
                f'<rect class="bar {style}" x="{x:.1f}" y="{y}" width="11" height="11" rx="1.5"/>'
                f'<text class="muted" x="{x + 17:.1f}" y="{y + 10}">{word}</text>'
            )
            x += room
    return "".join(parts)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{text(label)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{PALETTE_CSS}{CHART_CSS}</style>"
        f'<rect class="plate" width="{width}" height="{height}" rx="8"/>{"".join(parts)}</svg>'
    )

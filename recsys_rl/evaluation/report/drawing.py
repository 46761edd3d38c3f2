"""Names, numbers, colours and scales of the charts.

Each chart follows the reader's light or dark scheme and has its own background, so that it looks the same
in the report, in a README and on any page. The palette is blue, grey and orange. These colours differ for
every common colour blindness; fill and outline differ as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from recsys_rl.evaluation.table import YARDSTICKS
from recsys_rl.records import PRIVILEGED, TRADE

BASELINES = ("untrained", "expected", *YARDSTICKS)
LONGEST_LABEL = 22  # letters of a name in a chart, so that there is room for the bars
LETTER = 8.2
"""Width of one bold letter, in pixels: enough for the widest of the common system fonts."""

# `:root` is the page in the report, and the SVG in a separate file: the same text works for both.
PALETTE_CSS = """
:root{--ink:#1b1f24;--muted:#59626c;--line:#dfe3e7;--surface:#fff;--page:#f6f7f8;
--learned:#0a5fb4;--baseline:#87909a;--inside:#a8500a}
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
.chart .clear{paint-order:stroke;stroke:var(--surface);stroke-width:5px;stroke-linejoin:round}
.grid{stroke:var(--line)}.axis{stroke:var(--muted)}
.band{fill:var(--learned);opacity:.18}.curve{fill:none;stroke:var(--learned);stroke-width:2.25;
stroke-linejoin:round}
.other{fill:none;stroke:var(--baseline);stroke-width:1.5;stroke-linejoin:round}.other.inside{stroke:var(--inside)}
.reference{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:5 4}.reference.inside{stroke:var(--inside)}
.leader{fill:none;stroke:var(--line)}
.dot{fill:var(--inside);stroke:var(--surface);stroke-width:1.5}
.bar.learned{fill:var(--learned)}.bar.baseline{fill:var(--baseline)}
.bar.inside{fill:none;stroke:var(--inside);stroke-width:1.5}
.halo{stroke:var(--surface);stroke-width:3.5}.whisker{stroke:var(--ink);stroke-width:1.5}
.area.learned{fill:var(--learned)}.area.baseline{fill:var(--baseline)}.area.inside{fill:var(--inside)}
.hit rect{fill:transparent}.hit circle{fill:var(--learned);opacity:0}.hit:hover circle{opacity:1}
"""


Scale = Callable[[float], float]


def kind(policy: str) -> str:
    """``inside`` (sees the simulator), ``baseline`` (learns no network) or ``learned`` (the rest)."""
    if policy in PRIVILEGED:
        return "inside"
    return "baseline" if policy in BASELINES or policy.startswith(TRADE) else "learned"


def text(value: object) -> str:
    """Any value as text for HTML and XML: escaped, with U+FFFD for characters that XML forbids."""
    return escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value)))


def short_name(policy: str) -> str:
    """A policy's name, cut to LONGEST_LABEL letters."""
    return policy if len(policy) <= LONGEST_LABEL else policy[: LONGEST_LABEL - 1] + "…"


def finite(value: object) -> bool:
    """True for a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def by_return(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with the greatest mean first, and rows without a finite mean last."""
    return sorted(rows, key=lambda row: -row["return_mean"] if finite(row["return_mean"]) else math.inf)


def decimals(values: Sequence[float]) -> int:
    """Digits after the point that keep about three digits of the greatest of ``values``."""
    greatest = max((abs(v) for v in values), default=0.0)
    return 0 if greatest >= 1000 else 1 if greatest >= 10 else 2 if greatest >= 1 else 3


def number(value: object, digits: int) -> str:
    """``1,234.5`` with a real minus sign; a dash if the value is not a finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    shown = f"{value:,.{digits}f}"
    return (shown[1:] if float(shown.replace(",", "")) == 0 and shown[0] == "-" else shown).replace("-", "−")


def signed(value: float, digits: int) -> str:
    """``+1,234.5`` or ``−0.0``: a finite number with its sign, also where it rounds to 0."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def percent(share: object, digits: int | None = None) -> str:
    """``31 %``, and a share below 1 % with one digit; a dash if it is not a finite number."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return "–"
    return f"{number(100 * share, (0 if abs(share) >= 0.01 else 1) if digits is None else digits)} %"


def short(steps: float) -> str:
    """Steps on an axis: 50k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:.3g}{name}"
    return f"{steps:g}"


def scale(low: float, high: float, start: float, stop: float) -> Scale:
    """The linear map from ``low`` to ``start`` and from ``high`` to ``stop``, in pixels."""
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten that enclose ``low`` .. ``high``."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def marks_of(values: Sequence[float], count: int = 4) -> list[float]:
    """``ticks`` that enclose the values, also where these are all the same."""
    low, high = min(values), max(values)
    return ticks(low, high if high > low else low + 1, count)


def digits_of(marks: Sequence[float]) -> int:
    """Digits after the point that the distance of the marks needs."""
    return max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))


def signed_names(marks: Sequence[float]) -> list[str]:
    """The marks with their signs."""
    return [signed(mark, digits_of(marks)) if mark else "0" for mark in marks]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """``places`` moved apart to at least ``gap``, in their order; each crowded group keeps its centre."""
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


Label = tuple[str, str, float, float]
"""The label of a line at the right edge: text, style, and the step and the value at which its line ends."""


@dataclass(frozen=True)
class Axes:
    """The area of a chart from the first to the last of ``steps``, with named marks of the vertical axis."""

    steps: tuple[float, float]
    marks: Sequence[float]
    names: Sequence[str]
    left: float  # in pixels
    right: float
    top: float
    bottom: float

    @cached_property
    def x(self) -> Scale:
        return scale(*self.steps, self.left, self.right)

    @cached_property
    def y(self) -> Scale:
        return scale(self.marks[0], self.marks[-1], self.bottom, self.top)

    def grid(self) -> list[str]:
        """A line for each mark, and its name."""
        return [
            self.level("grid", mark)
            + f'<text class="muted end" x="{self.left - 7:.1f}" y="{self.y(mark) + 4:.1f}">{name}</text>'
            for mark, name in zip(self.marks, self.names, strict=True)
        ]

    def level(self, style: str, value: float) -> str:
        """A horizontal line."""
        y = f"{self.y(value):.1f}"
        return f'<line class="{style}" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{y}" y2="{y}"/>'

    def within(self, value: float) -> float:
        """The value, or the mark at the edge of the chart."""
        return min(max(value, self.marks[0]), self.marks[-1])

    def points(self, line: Iterable[tuple[float, float]]) -> str:
        """The coordinates of (step, value), at the edge for a value outside the chart."""
        return " ".join(f"{self.x(at):.1f},{self.y(self.within(value)):.1f}" for at, value in line)

    def curve(self, points: Sequence[tuple[float, float, float, float]]) -> str:
        """A curve of (step, mean, low, high) over its band."""
        band = [(at, high) for at, _, _, high in points] + [(at, low) for at, _, low, _ in reversed(points)]
        middle = self.points((at, mean) for at, mean, _, _ in points)
        return (
            f'<polygon class="band" points="{self.points(band)}"/><polyline class="curve" points="{middle}"/>'
        )

    def column(self, start: float, stop: float, at: float, value: float, tip: str) -> str:
        """A column of the chart in pixels, with a dot and the browser's own tooltip, without a script."""
        return (
            f'<g class="hit"><title>{tip}</title><rect x="{start:.1f}" y="{self.top}" '
            f'width="{stop - start:.1f}" height="{self.bottom - self.top}"/>'
            f'<circle cx="{at:.1f}" cy="{self.y(value):.1f}" r="4"/></g>'
        )

    def ends(self, labels: Sequence[Label]) -> list[str]:
        """The labels beside the right edge, moved apart, each with a leader from the end of its line."""
        return [
            f'<path class="leader" d="M{self.x(at) + 3:.1f} {self.y(value):.1f}'
            f'L{self.right + 13:.1f} {moved:.1f}"/><text class="{style}" '
            f'x="{self.right + 16:.1f}" y="{moved + 4:.1f}">{text(shown)}</text>'
            for (shown, style, at, value), moved in zip(
                labels, spread([self.y(value) for *_, value in labels], 17), strict=True
            )
        ]


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """A whole SVG file; a screen reader reads ``label`` in place of the picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{text(label)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{PALETTE_CSS}{CHART_CSS}</style>"
        f'<rect class="plate" width="{width}" height="{height}" rx="8"/>{"".join(parts)}</svg>'
    )


def sizes(draw: Callable[[int], str]) -> str:
    """Three charts, for a phone, a tablet and a desktop, with text of one size. The style sheet shows one."""
    widths = {"narrow": 358, "medium": 760, "wide": 1072}
    return "".join(
        draw(px).replace('class="chart"', f'class="chart {name}"', 1) for name, px in widths.items()
    )

"""The three charts of a loop, as standalone SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    decimals,
    finite,
    number,
    scale,
    short,
    short_name,
    signed,
    svg,
    text,
    ticks,
)

if TYPE_CHECKING:
    from recsys_rl.evaluation.report.rounds import Band, Judged, Visited

Scale = Callable[[float], float]
ROW = 32  # pixels of a candidate
LINE, SMALL_LETTER = 18, 6.5  # pixels of a line of the legend, and of a letter in it
PROMOTED, OTHER_END = "✓", "✗"
PANEL, GAP = 150, 58  # of a canary, and below it
ZOOM = 3  # a panel is this many times as high as the band at its end


def served_svg(
    served: Sequence[Visited],
    bands: Sequence[Band],
    judged: Sequence[Judged] = (),
    *,
    width: int = 760,
    height: int | None = None,
) -> str:
    """The mean return over the sessions, a point for each of ``served``; the ends of canaries are named.

    Where candidates were judged, a bar and a dot are the gate's interval and the truth of each. Below 500
    pixels the ends are signs. A legend stands below.
    """
    values = [value for row in served for value in (row.mean, row.low, row.high) if finite(value)]
    values += [
        row.champion + gain
        for row in judged
        if row.champion is not None and row.truth is not None
        for gain in (row.truth, row.difference)
        if finite(gain)
    ]
    marks, places, last = _marks(values, 4), decimals(values), max(row.last for row in served)
    wide = width > 500
    legend, lines = _legend(bands, judged, wide, width)
    height, top = height or (340 if wide else 300) + LINE * lines, 78 if wide else 48
    names = [f"{mark:g}" for mark in marks]
    left, right, bottom = 18 + LETTER * max(map(len, names)), width - 26.0, height - 34 - LINE * lines
    x, y = scale(0, last, left, right), scale(marks[0], marks[-1], bottom, top)
    parts = [
        f'<text class="muted" x="12" y="{22 if wide else 18}">return of a session, as it was served</text>'
    ]
    parts.append(f'<g class="legend" transform="translate(0 {bottom + 34})">{legend}</g>')
    parts += [
        f'<rect class="area baseline" opacity=".16" x="{x(band.began):.1f}" y="{top}" '
        f'width="{x(band.ended) - x(band.began):.1f}" height="{bottom - top}"/>'
        for band in bands
    ]
    parts += _levels(marks, names, y, left, right)
    parts += _visits(last, x, bottom + 22)
    for at, band in enumerate(bands):
        row = 44 + 16 * (at % 2) if wide else 36
        parts.append(f'<path class="reference" d="M{x(band.ended):.1f} {row + 4}V{bottom}"/>')
        said = f"{short_name(band.name)} {band.end}" if wide else PROMOTED if _promoted(band) else OTHER_END
        parts.append(_beside(said, x(band.ended), row, left, right))
    points = [(x((row.first + row.last) / 2), row) for row in served]
    above = [f"{at:.1f},{y(row.high):.1f}" for at, row in points]
    below = [f"{at:.1f},{y(row.low):.1f}" for at, row in reversed(points)]
    parts.append(f'<polygon class="band" points="{" ".join(above + below)}"/>')
    line = " ".join(f"{at:.1f},{y(row.mean):.1f}" for at, row in points)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    parts += _candidates(judged, x, y, marks)
    parts += [
        f'<g class="hit"><title>visits {row.first:,} to {row.last:,}: {number(row.mean, places)} '
        f"({number(row.low, places)} to {number(row.high, places)})</title>"
        f'<rect x="{x(row.first):.1f}" y="{top}" width="{x(row.last) - x(row.first):.1f}" '
        f'height="{bottom - top}"/><circle cx="{at:.1f}" cy="{y(row.mean):.1f}" r="4"/></g>'
        for at, row in points
    ]
    first, end = served[0], served[-1]
    ends = "".join(f" {band.name} {band.end} after {band.ended:,} visits." for band in bands)
    said = (
        f"Mean return of served sessions over {last:,} visits: {number(first.mean, places)} in the first "
        f"{first.last - first.first + 1:,}, {number(end.mean, places)} in the last.{ends}"
    )
    return svg(width, height, said, parts)


def _promoted(band: Band) -> bool:
    return band.end == "promoted"


def _legend(bands: Sequence[Band], judged: Sequence[Judged], wide: bool, width: int) -> tuple[str, int]:
    """The legend of ``served_svg``, from y = 0 downwards, and the number of its lines."""
    entries = [
        (
            '<rect class="band" y="-10" width="24" height="11"/><path class="curve" d="M0 -4.5H24"/>',
            "served, 95 % interval" if wide else "served, 95 %",
        )
    ]
    if bands:
        canary = "a canary, its end" if wide else f"canary; {PROMOTED} promoted, {OTHER_END} not"
        entries.append(
            (
                '<rect class="area baseline" opacity=".16" y="-12" width="24" height="15"/>'
                '<path class="reference" d="M24 -12V3"/>',
                canary,
            )
        )
    if any(row.champion is not None and row.truth is not None for row in judged):
        bar = '<rect class="bar {}" opacity=".45" x="{}" y="-12" width="8" height="15"/>'
        bars = bar.format("learned", 2) + bar.format("baseline", 14)
        entries.append((bars, "the gate's interval"))
        entries.append(
            (
                '<circle class="dot" cx="12" cy="-4.5" r="4.5"/>',
                "true return of a candidate" if wide else "true return",
            )
        )
    parts, at, line = list[str](), 14.0, 0
    for shape, said in entries:
        long = 31 + SMALL_LETTER * len(said)
        if at > 14 and at + long > width - 10:
            at, line = 14.0, line + 1
        parts.append(
            f'<g transform="translate({at:.1f} {LINE * line + 6})">{shape}'
            f'<text class="muted" x="31">{text(said)}</text></g>'
        )
        at += long + 18
    return "".join(parts), line + 1


def _candidates(judged: Sequence[Judged], x: Scale, y: Scale, marks: Sequence[float]) -> list[str]:
    """A bar and a dot for each candidate of which the truth is known, side by side where they were judged."""
    parts, beside = list[str](), dict[int, int]()
    for row in judged:
        if row.champion is None or row.truth is None:
            continue
        at = x(row.visits) - 6 - 13 * beside.get(row.visits, 0)
        beside[row.visits] = beside.get(row.visits, 0) + 1
        style = "learned" if row.chosen else "baseline"
        if finite(row.low) and finite(row.high):
            low, high = (min(max(row.champion + end, marks[0]), marks[-1]) for end in (row.low, row.high))
            parts.append(
                f'<rect class="bar {style}" opacity=".45" x="{at - 4:.1f}" y="{y(high):.1f}" width="8" '
                f'height="{y(low) - y(high):.1f}"/>'
            )
        parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{y(row.champion + row.truth):.1f}" r="4.5"/>')
    return parts


def judged_svg(judged: Sequence[Judged], *, width: int = 760) -> str:
    """A row for each candidate: the gate's interval as a bar, its estimate as a line, the truth as a dot."""
    values = [v for row in judged for v in (row.low, row.high, row.difference, row.truth) if v is not None]
    values = [0.0, *filter(finite, values)]
    marks, places, narrow = _marks(values, 5), decimals(values), width < 500
    labels = [short_name(row.name) for row in judged]
    left = 14.0 if narrow else 26 + LETTER * max(map(len, labels))
    right = width - 20 - (0 if narrow else 7.4 * max(len(row.answer) for row in judged))
    x, pitch = scale(marks[0], marks[-1], left, right), ROW + (16 if narrow else 0)
    floor = 14 + pitch * len(judged)
    parts = [f'<path class="grid" d="M{x(mark):.1f} 10V{floor}"/>' for mark in marks]
    parts += [
        f'<text class="muted middle" x="{x(mark):.1f}" y="{floor + 18}">{shown}</text>'
        for mark, shown in zip(marks, _signed(marks), strict=True)
    ]
    parts.append(f'<path class="axis" d="M{x(0):.1f} 10V{floor}"/>')
    for at, (row, label) in enumerate(zip(judged, labels, strict=True)):
        middle, strong = 14 + pitch * (at + 1) - ROW / 2, " strong" if row.chosen else ""
        name, answer = f'x="{left - 12:.1f}" y="{middle + 4:.1f}"', f'x="{right + 12:.1f}"'
        if narrow:
            name, answer = f'x="{left:.1f}" y="{middle - 16:.1f}"', f'x="{width - 14}"'
        parts.append(
            f'<text class="{"" if narrow else "end"}{strong}" {name}>{text(label)}</text>'
            f'<text class="muted{" end" if narrow else ""}" {answer} {name.split(" ")[1]}>'
            f"{text(row.answer)}</text>"
        )
        parts.append(_evidence(row, x, middle, places))
    said = "candidate minus champion" if narrow else "return of a session, candidate minus champion"
    parts.append(
        f'<text class="muted" x="14" y="{floor + 42}">{said}; '
        '<tspan class="inside strong">dot</tspan>: the truth</text>'
    )
    listed = "; ".join(_evidence_in_words(row, places) for row in judged)
    return svg(width, floor + 56, f"The gate by candidate: {listed}.", parts)


def _evidence(row: Judged, x: Scale, middle: float, places: int) -> str:
    """The gate's bar and line, and the truth; the tooltip has the numbers."""
    parts = [f"<title>{text(_evidence_in_words(row, places))}</title>"]
    if finite(row.low) and finite(row.high):
        style = "learned" if row.chosen else "baseline"
        parts.append(
            f'<rect class="bar {style}" opacity=".45" x="{x(row.low):.1f}" y="{middle - 7:.1f}" '
            f'width="{x(row.high) - x(row.low):.1f}" height="14"/>'
        )
    if finite(row.difference):
        parts.append(f'<path class="whisker" d="M{x(row.difference):.1f} {middle - 9:.1f}v18"/>')
    if row.truth is not None and finite(row.truth):
        parts.append(f'<circle class="dot" cx="{x(row.truth):.1f}" cy="{middle:.1f}" r="5"/>')
    return f"<g>{''.join(parts)}</g>"


def _evidence_in_words(row: Judged, places: int) -> str:
    said = f"{row.name}: {row.answer}"
    if finite(row.difference):
        said += f", {signed(row.difference, places)}"
    if finite(row.low) and finite(row.high):
        said += f" ({signed(row.low, places)} to {signed(row.high, places)})"
    if row.truth is not None and finite(row.truth):
        said += f", truth {signed(row.truth, places)}"
    return said


def bands_svg(bands: Sequence[Band], *, width: int = 760) -> str:
    """A panel for each canary: its difference and band over the sessions that had matured."""
    columns = 1 if width < 500 else 2
    panel = (width - 28 - 24 * (columns - 1)) / columns
    parts = list[str]()
    for at, band in enumerate(bands):
        left, top = 14 + (at % columns) * (panel + 24), 12 + (at // columns) * (PANEL + GAP)
        parts += _panel(band, left, top, panel)
    said = "".join(f" {band.name} {band.end}, {_state(band)}." for band in bands)
    return svg(width, 4 + math.ceil(len(bands) / columns) * (PANEL + GAP), f"The canaries:{said}", parts)


def _panel(band: Band, left: float, top: float, panel: float) -> list[str]:
    """One canary. The band begins far wider than it ends, and what is outside the panel is cut off."""
    parts = [
        f'<text class="strong" x="{left:.1f}" y="{top + 14}">{text(short_name(band.name))}</text>'
        f'<text class="muted end" x="{left + panel:.1f}" y="{top + 14}">{text(band.end)}</text>'
        f'<text class="muted" x="{left:.1f}" y="{top + PANEL + 22}">{_state(band)}</text>'
    ]
    rows = _rows(band)
    if not rows:
        return parts
    last, mean, low, high = rows[-1]
    half = ZOOM * (high - low) / 2
    marks = _marks([0.0, mean - half, mean + half], 4)
    names = _signed(marks)
    start, stop, ceiling, floor = (
        left + 8 + LETTER * max(map(len, names)),
        left + panel,
        top + 26,
        top + PANEL,
    )
    x, y = scale(0, last, start, stop), scale(marks[0], marks[-1], floor, ceiling)

    def within(value: float) -> float:
        return y(min(max(value, marks[0]), marks[-1]))

    parts += _levels(marks, names, y, start, stop)
    above = [f"{x(at):.1f},{within(high):.1f}" for at, _, _, high in rows]
    below = [f"{x(at):.1f},{within(low):.1f}" for at, _, low, _ in reversed(rows)]
    line = " ".join(f"{x(at):.1f},{within(mean):.1f}" for at, mean, _, _ in rows)
    shapes = [
        f'<polygon class="band" points="{" ".join(above + below)}"/>',
        f'<polyline class="curve" points="{line}"/>',
    ]
    if len(rows) == 1:  # an interval alone, as a bar with its estimate
        shapes = [
            f'<rect class="band" x="{stop - 8:.1f}" y="{within(high):.1f}" width="8" '
            f'height="{within(low) - within(high):.1f}"/>',
            f'<path class="whisker" d="M{stop - 11:.1f} {within(mean):.1f}h11"/>',
        ]
    return [*parts, *shapes, f'<path class="axis" d="M{start:.1f} {y(0):.1f}H{stop:.1f}"/>']


def _rows(band: Band) -> list[tuple[int, float, float, float]]:
    rows = zip(band.sessions, band.differences, band.lows, band.highs, strict=True)
    return [row for row in rows if all(map(finite, row))]


def _state(band: Band) -> str:
    """The difference and its bounds at the end of the canary."""
    rows = _rows(band)
    if not rows:
        return "it ended before its first interval"
    last, mean, low, high = rows[-1]
    return f"after {last:,} sessions {signed(mean, 2)} ({signed(low, 2)} to {signed(high, 2)})"


def _marks(values: Sequence[float], count: int) -> list[float]:
    low, high = min(values), max(values)
    return ticks(low, high if high > low else low + 1, count)


def _signed(marks: Sequence[float]) -> list[str]:
    """The marks with their signs, as many digits as their distance needs."""
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))
    return [signed(mark, digits) if mark else "0" for mark in marks]


def _visits(last: int, x: Scale, baseline: float) -> list[str]:
    inner = [tick for tick in ticks(0, last, max(2, int((x(last) - x(0)) / 110))) if tick <= last]
    return [
        f'<text class="muted {"end" if x(last) - x(tick) < 30 else "middle"}" x="{x(tick):.1f}" '
        f'y="{baseline}">'
        f"{short(tick)}{' visits' if tick == inner[-1] else ''}</text>"
        for tick in inner
    ]


def _beside(said: str, at: float, baseline: float, left: float, right: float) -> str:
    """A text beside a vertical line, on the side with more room."""
    anchor, dx = ("end ", -5) if at > (left + right) / 2 else ("", 5)
    return f'<text class="{anchor}clear" x="{at + dx:.1f}" y="{baseline}">{text(said)}</text>'


def _levels(marks: Sequence[float], names: Sequence[str], y: Scale, left: float, right: float) -> list[str]:
    """A line for each mark of the vertical axis, and its name."""
    return [
        f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        f'<text class="muted end" x="{left - 7:.1f}" y="{y(mark) + 4:.1f}">{shown}</text>'
        for mark, shown in zip(marks, names, strict=True)
    ]

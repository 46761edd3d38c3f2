"""The canaries on the page of a loop: for each the interval of its difference while sessions came in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Axes,
    finite,
    marks_of,
    short_name,
    signed,
    signed_names,
    sizes,
    svg,
    text,
)

PANEL, GAP = 150, 58  # pixels of a canary, and below it
ZOOM = 3  # a panel is this many times as high as the band at its end


@dataclass(frozen=True)
class Band:
    """A canary: what was known after each of some numbers of sessions."""

    name: str
    began: int  # sessions that were served before it
    ended: int
    end: str  # such as "promoted"
    sessions: Sequence[int]  # of both arms that had matured, ascending
    differences: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def bands_html(bands: Sequence[Band]) -> str:
    if not bands:
        return ""
    note = (
        "Each canary: the difference of the mean return of a session, the challenger's minus the champion's, "
        "while sessions came in. The band holds the true difference at all of these moments together with "
        "probability 95 %, so one may look as often as one likes, and stop when it leaves 0."
    )
    drawn = sizes(lambda px: bands_svg(bands, width=px))
    return f'<h2>The canaries</h2><p class="note">{note}</p>{drawn}'


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
    marks = marks_of([0.0, mean - half, mean + half])
    names, stop = signed_names(marks), left + panel
    start = left + 8 + LETTER * max(map(len, names))
    axes = Axes((0, last), marks, names, start, stop, top + 26, top + PANEL)
    shape = axes.curve(rows)
    if len(rows) == 1:  # an interval alone, as a bar with its estimate
        above, below, middle = (axes.y(axes.within(value)) for value in (high, low, mean))
        shape = (
            f'<rect class="band" x="{stop - 8:.1f}" y="{above:.1f}" width="8" height="{below - above:.1f}"/>'
            f'<path class="whisker" d="M{stop - 11:.1f} {middle:.1f}h11"/>'
        )
    axis = f'<path class="axis" d="M{axes.left:.1f} {axes.y(0):.1f}H{stop:.1f}"/>'
    return [*parts, *axes.grid(), shape, axis]


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

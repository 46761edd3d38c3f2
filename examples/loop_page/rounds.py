"""The page of a loop: what was served, what the gate found (judged.py), how each canary ended (canaries.py).

The first chart is the mean return of served sessions, in the order of their visits, with the promotions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.loop_page.canaries import Band, bands_html
from examples.loop_page.judged import Judged, judged_html
from recsys_rl.errors import amount
from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Axes,
    Scale,
    decimals,
    finite,
    marks_of,
    number,
    short,
    short_name,
    sizes,
    svg,
    text,
    ticks,
)
from recsys_rl.evaluation.report.html import document
from recsys_rl.utils.files import write_text

LINE, SMALL_LETTER = 18, 6.5  # pixels of a line of the legend, and of a letter in it
PROMOTED, OTHER_END = "✓", "✗"


@dataclass(frozen=True)
class Visited:
    """Consecutive sessions, the first one counted from 1. They are of all arms together."""

    first: int
    last: int
    mean: float  # return
    low: float
    high: float


@dataclass(frozen=True)
class Rounds:
    """The values of the page."""

    env: str
    served: Sequence[Visited]
    judged: Sequence[Judged]
    bands: Sequence[Band]
    before: float  # true served return of the first champion
    after: float  # and of the last one
    greedy: float  # of the last one, with the most probable item
    facts: dict[str, str]  # by name: the line below the headline


def write_rounds(path: Path, rounds: Rounds) -> None:
    """Write the page to ``path``. Raises UserError if the file can't be written."""
    title = f"A loop on {rounds.env}: recsys_rl report"
    write_text(
        path,
        document(
            title, f"{_header(rounds)}{_served(rounds)}{judged_html(rounds.judged)}{bands_html(rounds.bands)}"
        ),
    )


def _header(rounds: Rounds) -> str:
    promoted = [band for band in rounds.bands if band.end == "promoted"]
    visits = max((visited.last for visited in rounds.served), default=0)
    digits = decimals([rounds.before, rounds.after])
    sentence = (
        f"The first champion earns <b>{number(rounds.before, digits)}</b> a session on "
        f"<b>{text(rounds.env)}</b>; after {number(visits, 0)} visits and "
        f"{amount(len(promoted), 'promotion')} the last one earns "
        f'<b class="learned">{number(rounds.after, digits)}</b> as it is served, and '
        f"{number(rounds.greedy, digits)} with the most probable item each time."
    )
    facts = "".join(f"<span>{text(name)}: {text(value)}</span>" for name, value in rounds.facts.items())
    return f'<header><h1>{sentence}</h1><p class="facts">{facts}</p></header>'


def _served(rounds: Rounds) -> str:
    note = (
        "Mean return of the sessions that were served, of all arms together, and its 95 % interval. A dashed "
        "line is the end of a canary; the grey ground is the time in which a challenger served some of the "
        "sessions. Where candidates were judged, each has the gate's interval as a bar, added to the true "
        "return of the champion, and its own true return as a dot."
    )
    drawn = sizes(lambda px: served_svg(rounds.served, rounds.bands, rounds.judged, width=px))
    return f'<h2>Served</h2><p class="note">{note}</p>{drawn}'


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
    marks, digits, last = marks_of(values), decimals(values), max(row.last for row in served)
    wide = width > 500
    legend, lines = _legend(bands, judged, wide, width)
    height, top = height or (340 if wide else 300) + LINE * lines, 78 if wide else 48
    names = [f"{mark:g}" for mark in marks]
    left, right, bottom = 18 + LETTER * max(map(len, names)), width - 26.0, height - 34 - LINE * lines
    axes = Axes((0, last), marks, names, left, right, top, bottom)
    x = axes.x
    parts = [
        f'<text class="muted" x="12" y="{22 if wide else 18}">return of a session, as it was served</text>',
        f'<g class="legend" transform="translate(0 {bottom + 34})">{legend}</g>',
    ]
    parts += [
        f'<rect class="area baseline" opacity=".16" x="{x(band.began):.1f}" y="{top}" '
        f'width="{x(band.ended) - x(band.began):.1f}" height="{bottom - top}"/>'
        for band in bands
    ]
    parts += axes.grid() + _visits(last, x, bottom + 22)
    for at, band in enumerate(bands):
        row = 44 + 16 * (at % 2) if wide else 36
        parts.append(f'<path class="reference" d="M{x(band.ended):.1f} {row + 4}V{bottom}"/>')
        said = f"{short_name(band.name)} {band.end}" if wide else PROMOTED if _promoted(band) else OTHER_END
        parts.append(_beside(said, x(band.ended), row, left, right))
    middles = [(row.first + row.last) / 2 for row in served]
    parts.append(axes.curve([(at, r.mean, r.low, r.high) for at, r in zip(middles, served, strict=True)]))
    parts += _candidates(judged, axes)
    parts += [
        axes.column(
            *(x(row.first), x(row.last), x(at), row.mean),
            f"visits {row.first:,} to {row.last:,}: {number(row.mean, digits)} "
            f"({number(row.low, digits)} to {number(row.high, digits)})",
        )
        for at, row in zip(middles, served, strict=True)
    ]
    first, end = served[0], served[-1]
    ends = "".join(f" {band.name} {band.end} after {band.ended:,} visits." for band in bands)
    said = (
        f"Mean return of served sessions over {last:,} visits: {number(first.mean, digits)} in the first "
        f"{first.last - first.first + 1:,}, {number(end.mean, digits)} in the last.{ends}"
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


def _candidates(judged: Sequence[Judged], axes: Axes) -> list[str]:
    """A bar and a dot for each candidate of which the truth is known, side by side where they were judged."""
    parts, beside = list[str](), dict[int, int]()
    for row in judged:
        if row.champion is None or row.truth is None:
            continue
        at = axes.x(row.visits) - 6 - 13 * beside.get(row.visits, 0)
        beside[row.visits] = beside.get(row.visits, 0) + 1
        style = "learned" if row.chosen else "baseline"
        if finite(row.low) and finite(row.high):
            low, high = (axes.y(axes.within(row.champion + end)) for end in (row.low, row.high))
            parts.append(
                f'<rect class="bar {style}" opacity=".45" x="{at - 4:.1f}" y="{high:.1f}" width="8" '
                f'height="{low - high:.1f}"/>'
            )
        truth = axes.y(row.champion + row.truth)
        parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{truth:.1f}" r="4.5"/>')
    return parts


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

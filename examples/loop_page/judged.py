"""The gate on the page of a loop: the interval of each candidate and, in a simulation, the truth as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Scale,
    decimals,
    finite,
    marks_of,
    scale,
    short_name,
    signed,
    signed_names,
    sizes,
    svg,
    text,
)

ROW = 32  # pixels of a candidate


@dataclass(frozen=True)
class Judged:
    """A candidate, and the gate's answer about it."""

    name: str
    round: int
    answer: str
    difference: float  # return of a session, the candidate's minus its champion's
    low: float
    high: float
    truth: float | None = None  # the same difference, played in the simulator
    champion: float | None = None  # true served return of that champion
    visits: int = 0  # until it was judged
    chosen: bool = False  # it had a canary


def judged_html(judged: Sequence[Judged]) -> str:
    if not judged:
        return ""
    note = (
        "What the gate found: the difference of the return of a session between a candidate and the champion "
        "of its round, on sessions of users from whom no candidate learned, by learned users. The dot is the "
        "truth, which only a simulator knows. The gate is a sieve, not a certificate: the canary decides."
    )
    rows = "".join(
        f'<tr><th scope="row">{text(row.name)}</th><td>{row.round}</td><td>{text(row.answer)}</td>'
        f"<td>{signed(row.difference, 2)} <small>{signed(row.low, 2)} to {signed(row.high, 2)}</small></td>"
        f"<td>{'–' if row.truth is None else signed(row.truth, 2)}</td></tr>"
        for row in judged
    )
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("Candidate", "Round", "Gate", "Difference", "Truth")
    )
    return (
        f'<h2>The gate</h2><p class="note">{note}</p>'
        f"{sizes(lambda px: judged_svg(judged, width=px))}"
        '<div class="wide-table"><table><caption class="hidden">The gate in numbers</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def judged_svg(judged: Sequence[Judged], *, width: int = 760) -> str:
    """A row for each candidate: the gate's interval as a bar, its estimate as a line, the truth as a dot."""
    values = [v for row in judged for v in (row.low, row.high, row.difference, row.truth) if v is not None]
    values = [0.0, *filter(finite, values)]
    marks, digits, narrow = marks_of(values, 5), decimals(values), width < 500
    labels = [short_name(row.name) for row in judged]
    left = 14.0 if narrow else 26 + LETTER * max(map(len, labels))
    right = width - 20 - (0 if narrow else 7.4 * max(len(row.answer) for row in judged))
    x, pitch = scale(marks[0], marks[-1], left, right), ROW + (16 if narrow else 0)
    floor = 14 + pitch * len(judged)
    parts = [f'<path class="grid" d="M{x(mark):.1f} 10V{floor}"/>' for mark in marks]
    parts += [
        f'<text class="muted middle" x="{x(mark):.1f}" y="{floor + 18}">{shown}</text>'
        for mark, shown in zip(marks, signed_names(marks), strict=True)
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
        parts.append(_evidence(row, x, middle, digits))
    said = "candidate minus champion" if narrow else "return of a session, candidate minus champion"
    parts.append(
        f'<text class="muted" x="14" y="{floor + 42}">{said}; '
        '<tspan class="inside strong">dot</tspan>: the truth</text>'
    )
    listed = "; ".join(_evidence_in_words(row, digits) for row in judged)
    return svg(width, floor + 56, f"The gate by candidate: {listed}.", parts)


def _evidence(row: Judged, x: Scale, middle: float, digits: int) -> str:
    """The gate's bar and line, and the truth; the tooltip has the numbers."""
    parts = [f"<title>{text(_evidence_in_words(row, digits))}</title>"]
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


def _evidence_in_words(row: Judged, digits: int) -> str:
    said = f"{row.name}: {row.answer}"
    if finite(row.difference):
        said += f", {signed(row.difference, digits)}"
    if finite(row.low) and finite(row.high):
        said += f" ({signed(row.low, digits)} to {signed(row.high, digits)})"
    if row.truth is not None and finite(row.truth):
        said += f", truth {signed(row.truth, digits)}"
    return said

"""The page of a loop: what was served, what the gate found, and how each canary ended.

served   the mean return of served sessions, in the order of their visits, with the promotions
judged   for each candidate the gate's interval and, in a simulation, the truth as a dot
bands    for each canary the interval of its difference while sessions came in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.errors import amount
from recsys_rl.evaluation.report.drawing import decimals, number, signed, sizes, text
from recsys_rl.evaluation.report.html import document
from recsys_rl.evaluation.report.rounds_charts import bands_svg, judged_svg, served_svg
from recsys_rl.utils.files import write_text


@dataclass(frozen=True)
class Visited:
    """Consecutive sessions, the first one counted from 1. They are of all arms together."""

    first: int
    last: int
    mean: float  # return
    low: float
    high: float


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
    write_text(path, document(title, f"{_header(rounds)}{_served(rounds)}{_judged(rounds)}{_bands(rounds)}"))


def _header(rounds: Rounds) -> str:
    promoted = [band for band in rounds.bands if band.end == "promoted"]
    visits = max((visited.last for visited in rounds.served), default=0)
    places = decimals([rounds.before, rounds.after])
    sentence = (
        f"The first champion earns <b>{number(rounds.before, places)}</b> a session on "
        f"<b>{text(rounds.env)}</b>; after {number(visits, 0)} visits and "
        f"{amount(len(promoted), 'promotion')} the last one earns "
        f'<b class="learned">{number(rounds.after, places)}</b> as it is served, and '
        f"{number(rounds.greedy, places)} with the most probable item each time."
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


def _judged(rounds: Rounds) -> str:
    if not rounds.judged:
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
        for row in rounds.judged
    )
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("Candidate", "Round", "Gate", "Difference", "Truth")
    )
    return (
        f'<h2>The gate</h2><p class="note">{note}</p>'
        f"{sizes(lambda px: judged_svg(rounds.judged, width=px))}"
        '<div class="wide-table"><table><caption class="hidden">The gate in numbers</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _bands(rounds: Rounds) -> str:
    if not rounds.bands:
        return ""
    note = (
        "Each canary: the difference of the mean return of a session, the challenger's minus the champion's, "
        "while sessions came in. The band holds the true difference at all of these moments together with "
        "probability 95 %, so one may look as often as one likes, and stop when it leaves 0."
    )
    drawn = sizes(lambda px: bands_svg(rounds.bands, width=px))
    return f'<h2>The canaries</h2><p class="note">{note}</p>{drawn}'

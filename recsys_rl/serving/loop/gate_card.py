"""The card of a verdict: what was compared, on whom, by what, and what could be wrong, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsys_rl.errors import amount
from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL
from recsys_rl.logs.ope.diagnostics import FEW
from recsys_rl.logs.ope.lower import LOWER
from recsys_rl.logs.ope.result import number
from recsys_rl.serving.loop.gate_rule import HARM, LEAST_SESSIONS, GateVerdict

MEANING = {
    "better": "By this record the challenger earns more. A canary should confirm it before it serves alone.",
    "no harm seen": "This record shows no harm. It does not show a gain either: the canary may decide.",
    "worse": "By this record the challenger earns less: do not serve it.",
    CANT_TELL: "This record can't tell: gather more sessions, or another candidate. Where the "
    "difference is above 0 the canary may decide.",
    BROKEN: "This record can judge nothing: mend what is said above first.",
}


def card(of: GateVerdict, challenger: str, champion: str, doubts: Sequence[str] = ()) -> str:
    """The text of SHA256.gate.md.

    Args:
        challenger, champion: names of the files.
        doubts: more of what could be wrong, as sentences.
    """
    lines = [
        f"# {challenger} against {champion}: {of.answer}",
        "",
        f"{of.reason} {MEANING[of.answer]}",
        "",
        "| | |",
        "|---|---|",
        f"| challenger | {challenger} `{of.challenger[:12]}` |",
        f"| champion | {champion} `{of.champion[:12]}` |",
        *_numbers(of),
        f"| return of these sessions as they were served | {number(of.logged)} |",
        *_chance(of),
        "",
        "## On whom",
        "",
        f"{amount(of.sessions, 'session')} of {amount(of.users, 'held-out user')}, from the rows "
        f"{of.since:,} to {of.until:,} of the record{_latest(of)}. No policy may learn from these users; "
        "both policies were judged on the same sessions.",
        "",
        "## By what",
        "",
        *_method(of),
        "",
        "## What could be wrong",
        "",
        *(f"- {line}" for line in (*doubts, *_doubts(of))),
        "",
    ]
    return "\n".join(lines)


def _numbers(of: GateVerdict) -> tuple[str, ...]:
    """The rows of the estimates; those of a lower bound are ends."""
    if of.by == LOWER:
        return (
            f"| return of the champion, by `{of.by}` | at most {number(of.value)} on average |",
            f"| difference of the challenger | at least {number(of.difference)} on average |",
            f"| {1 - of.alpha:.1%} interval | from {number(of.low)} on |",
        )
    return (
        f"| return of the champion, by `{of.by}` | {number(of.value)} |",
        f"| difference of the challenger | {number(of.difference)} |",
        f"| {1 - of.alpha:.1%} interval | {number(of.low)} to {number(of.high)} |",
    )


def _chance(of: GateVerdict) -> Iterator[str]:
    """The rows of the chance that each policy leaves."""
    for name, items in (("challenger", of.items), ("champion", of.champion_items)):
        if items == items:
            yield f"| effective number of items a decision of the {name} | {items:.2f} |"


def _latest(of: GateVerdict) -> str:
    if not of.left_out:
        return ""
    return (
        f": the latest ones, as the {amount(of.left_out, 'earlier session')} of held-out users are too many"
    )


def weights_line(of: GateVerdict) -> str:
    """Which policies this record could judge by weights, and whether the challenger is one."""
    most = (
        "By weights, these sessions could judge policies with a chi² of a decision of at most "
        f"{of.chi2_most:.2g}"
    )
    if not of.chi2_most:
        most = f"By weights, these sessions can judge no other policy, as there are fewer than {FEW}"
    if of.chi2 != of.chi2:
        return f"{most}; that of the challenger is unknown, as the record lacks probabilities."
    left = f"{of.effective:,.0f}" if of.effective >= 1 else "less than one"
    return (
        f"{most}; that of the challenger is {of.chi2:.2g}, which leaves {left} of {of.sessions:,} effective, "
        f"and {FEW} are needed."
    )


def _method(of: GateVerdict) -> Iterator[str]:
    if of.by == "dr":
        yield (
            "Each decision is weighed by its probability (`dr`), and the difference is paired. "
            + weights_line(of)
        )
        return
    if of.by == LOWER:
        yield (
            f"Each decision is weighed by its probability (`{LOWER}`). The weights are too heavy for an "
            "interval, so there is a lower end alone: large weights are cut, and what is cut, or lacking "
            "in the record, counts as the worst reward for the challenger and as the best for the champion. "
            + weights_line(of)
        )
        return
    yield (
        "Users were learned from these sessions; each session was played by both policies in the users to "
        "which its own user had not been fitted (`world`). " + weights_line(of)
    )


def _doubts(of: GateVerdict) -> Iterator[str]:
    if of.by == "world":
        yield (
            "The answer is that of a model. The interval is over users, and does not hold the model's error: "
            "in trials the model gave differences that were a third too small, and it let through a bad "
            "policy once at 500 sessions. It is a sieve and not a certificate."
        )
        yield (
            "The model has seen what was shown. Of items that the record hardly shows it knows little, and a "
            "policy that found an error of learned users looks better than it is."
        )
    if of.by == "dr":
        yield "The interval holds if the probabilities in the record are right, and if its tails are light."
    if of.by == LOWER:
        yield (
            "The lower end holds if the probabilities in the record are right, and if each reward lies in "
            "the range of its signals: that of the platform, or from 0 to 1 where a signal of the record is "
            "0 and 1 and nothing else. The truth may be far above it."
        )
    if of.sessions < LEAST_SESSIONS:
        yield (
            f"There are fewer than {LEAST_SESSIONS} sessions of held-out users: the best answer is *no harm "
            "seen*."
        )
    if of.answer == "no harm seen":
        yield (f"A loss of up to {-HARM:.0%} of the champion's return would have passed: a canary finds it.")
    yield (
        f"This is judgement {of.look} in this folder: its interval spends {of.alpha:.2g} of the 0.05 that "
        "all judgements have together."
    )
    yield (
        "Only the return of a session, by the weights for which the champion was trained, was compared: "
        "whether people come back, and what they are shown, was not."
    )
    yield "The sessions are of the past: people and items may have changed since."

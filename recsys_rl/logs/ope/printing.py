"""The table of `recsys-rl ope` on standard output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recsys_rl.errors import amount
from recsys_rl.logs.intervals import late_sentence
from recsys_rl.logs.ope.compare import PLACES, about_model, enough
from recsys_rl.logs.ope.diagnostics import FEW, MOST_MOVE, NO_PROMISE
from recsys_rl.logs.ope.result import About, Estimate, OpeResult, number
from recsys_rl.utils.terminal import say

LEGEND = (
    "ess: effective sample size, the number of {unit} logged by the policy itself that are worth as much. "
    "weight: mean weight, 1 with right propensities. k: Pareto k, the tail of the weights, a note: above 0.5 "
    "their variance looks infinite, which that of bounded weights is not; empty if the largest weights are "
    "equal or too few."
)

TRUSTED = {"dr", "wdr"}  # marked where their weights allow it; of slates by place those of PLACES are


def _weight(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def print_result(result: OpeResult) -> None:
    """Print the table, the warnings and the comparison."""
    about, rows = result.about, result.rows
    decisions, sessions, users = (
        amount(count, noun)
        for count, noun in ((about.decisions, "decision"), (about.sessions, "session"), (about.users, "user"))
    )
    say(f"{decisions} in {sessions} of {users}, logged by {', '.join(about.loggers)}{_discount(about)}")
    if about.fitted < about.decisions:
        say(f"models are fitted on a sample of {about.fitted:,} decisions, drawn by --seed")
    if about.late_feedback:
        say(late_sentence(about.late_feedback))
    if result.propensities is not None:
        say(result.propensities.sentence)
    if result.unknown is not None:
        say(result.unknown.sentence)
    for kind, promise in result.promises.items():
        names = list(dict.fromkeys(row.estimator for row in rows if row.interval == kind))
        of = f" of {', '.join(names)}" if len(result.promises) > 1 else ""
        print(f"intervals{of} ({kind}): {promise}")
    width = max(len("policy"), *(len(row.policy) for row in rows)) + 2
    numbers = f"{'ess':>9}{'weight':>8}{'k':>7}"
    print(f"{'policy':<{width}}{'estimator':<13}{'value':>9}  {'95 % interval':<20}{numbers}")
    for row in rows:
        say(_line(result, row, width))
    if any(row.weights is not None for row in rows):
        print(LEGEND.format(unit="rows" if about.decisions == about.sessions else "sessions"))
    choice = about_mark(rows)
    if choice:
        say(choice)
    if about.clusters:
        say(f"mips, offcem: {about.clusters}")
    for missing in result.not_computed:
        whose = f" of {', '.join(missing.policies)}" if missing.policies else ""
        say(f"not computed{whose}: {', '.join(missing.estimators)} ({missing.reason})")
    print_warnings(rows)
    if not any(row.recommended for row in rows):
        say(_no_recommendation(result))
        for verdict in result.verdicts:
            if verdict.by and verdict != result.verdict:
                say(verdict.sentence)
    if result.compare is not None:
        say(result.compare.brief)
    if result.verdict is not None:
        say(result.verdict.sentence)


def _line(result: OpeResult, row: Estimate, width: int) -> str:
    weights = shape = ""
    if row.weights is not None:
        weights = f"{row.weights.ess:>9,.0f} {_weight(row.weights.mean):>7}"
        shape = f"{row.weights.pareto_k:.2f}" if math.isfinite(row.weights.pareto_k) else ""
    mark = "no promise" if row.interval in NO_PROMISE else ""
    if row.recommended:
        mark = f"<- {_mark(result, row)}"
    value = f"{number(row.value):>9}  {f'[{number(row.low)}, {number(row.high)}]':<20}"
    return f"{row.policy:<{width}}{row.estimator:<13}{value}{weights:<17}{shape:>7}  {mark}".rstrip()


def _discount(about: About) -> str:
    """The discount of the estimates, and that of the log's policy if it is another; "" at one step."""
    if about.sessions == about.decisions:
        return ""
    text = f"; discount {about.discount:g}"
    if about.discount == 1:
        text += " (as in the table of evaluate)"
    if about.log_discount not in (1, about.discount):
        text += f"; the log's policy learned with {about.log_discount:g}"
    return text


def print_warnings(rows: Sequence[Estimate]) -> None:
    """Print each distinct warning once, with the estimators and the policies of its rows."""
    by_warning: dict[str, dict[str, list[str]]] = {}  # the estimators of each policy of each warning
    for row in rows:
        for text in row.warnings:
            by_warning.setdefault(text, {}).setdefault(row.policy, []).append(row.estimator)
    lines: dict[str, list[str]] = {}  # the warnings of the same rows
    for text, of_policies in by_warning.items():
        policies: dict[str, list[str]] = {}  # those with the same estimators
        for policy, estimators in of_policies.items():
            policies.setdefault(", ".join(estimators), []).append(policy)
        whose = "; ".join(f"{estimators} of {', '.join(names)}" for estimators, names in policies.items())
        lines.setdefault(whose, []).append(text)
    for whose, texts in lines.items():
        say(f"warning ({whose}): {' '.join(texts)}")


def _mark(result: OpeResult, row: Estimate) -> str:
    """The mark of a recommended row, with the outcome of the checks if it is of a learned model."""
    if row.interval != "model":
        return "recommended"
    model = about_model(result.world_checks)
    if model:
        return f"the best there is, {model}: don't rely on it"
    return "recommended (a model, checked on another policy)"


def about_mark(rows: Sequence[Estimate]) -> str:
    """The reason for the marked estimator, one for all judged policies; "" below two, or without a mark."""
    marked = [row for row in rows if row.recommended]
    if len({row.policy for row in marked}) < 2:
        return ""
    tests = (
        f"ess at least {FEW}, no row that could move it by more than {MOST_MOVE:g} standard error, mean "
        "weight 1 up to chance, choices covered"
    )
    by_weights = [row for row in rows if row.estimator in TRUSTED]
    poor = list(dict.fromkeys(row.policy for row in by_weights if not enough(row)))
    if marked[0].estimator in {*TRUSTED, *PLACES}:
        why = f"its weights are good for each of them ({tests})"
    elif poor:
        why = f"the weights of {by_weights[0].estimator} are not good for {' and '.join(poor)} ({tests})"
    else:
        why = f"{' and '.join(sorted(TRUSTED))} can't be computed"
    return f"<- marks one estimator, the same for all policies: {marked[0].estimator}, as {why}"


def _no_recommendation(result: OpeResult) -> str:
    lacking = [
        missing for missing in result.not_computed if TRUSTED & set(missing.estimators) and missing.policies
    ]
    if lacking:
        name = min(TRUSTED & set(lacking[0].estimators))
        return f"No row is recommended: that would be {name}, but {lacking[0].reason}."
    return "No row is recommended: the log is too small for these policies, or too unlike them."

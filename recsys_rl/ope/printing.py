"""The table of `recsys-rl ope` on standard output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recsys_rl.errors import amount
from recsys_rl.ope.intervals import NO_PROMISE
from recsys_rl.utils.terminal import say

LEGEND = (
    "ess: effective sample size, the number of {unit} logged by the policy itself that are worth as much. "
    "weight: mean weight, 1 with right propensities. k: Pareto k, the tail of the weights; above 0.5 the "
    "interval covers too seldom; empty if the largest weights are equal or too few."
)


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float) -> str:
    """Three decimals, or three digits if the value is small or huge: click rates are a few thousandths."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


def _weight(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def print_result(result: Mapping[str, Any]) -> None:
    """Print the table, the warnings and the comparison."""
    about = result["about"]
    decisions, sessions, users = (amount(about[f"{noun}s"], noun) for noun in ("decision", "session", "user"))
    say(f"{decisions} in {sessions} of {users}, logged by {', '.join(about['loggers'])}{_discount(about)}")
    if result["propensities"] is not None:
        say(result["propensities"]["text"])
    for kind, promise in about["promises"].items():
        names = list(dict.fromkeys(row["estimator"] for row in result["rows"] if row["interval"] == kind))
        of = f" of {', '.join(names)}" if len(about["promises"]) > 1 else ""
        print(f"intervals{of} ({kind}): {promise}")
    width = max(len("policy"), *(len(row["policy"]) for row in result["rows"])) + 2
    numbers = f"{'ess':>9}{'weight':>8}{'k':>7}"
    print(f"{'policy':<{width}}{'estimator':<13}{'value':>9}  {'95 % interval':<20}{numbers}")
    for row in result["rows"]:
        bounds = f"[{number(row['low'])}, {number(row['high'])}]"
        weights = "" if row["ess"] is None else f"{row['ess']:>9,.0f} {_weight(row['mean_weight']):>7}"
        shape = "" if row["pareto_k"] is None else f"{row['pareto_k']:.2f}"
        mark = "no promise" if row["interval"] in NO_PROMISE else ""
        if row["recommended"]:
            mark = f"<- {_mark(result, row)}"
        value = f"{number(row['value']):>9}  {bounds:<20}"
        line = f"{row['policy']:<{width}}{row['estimator']:<13}{value}{weights:<17}{shape:>7}  {mark}"
        say(line.rstrip())
    if any(row["ess"] is not None for row in result["rows"]):
        print(LEGEND.format(unit="rows" if about["decisions"] == about["sessions"] else "sessions"))
    if about["clusters"]:
        say(f"mips, offcem: {about['clusters']}")
    for part in result["not_computed"]:
        whose = f" of {', '.join(part['policies'])}" if part["policies"] else ""
        say(f"not computed{whose}: {', '.join(part['estimators'])} ({part['reason']})")
    print_warnings(result["rows"])
    if not any(row["recommended"] for row in result["rows"]):
        say(_no_recommendation(result))
    if result["compare"] is not None:
        say(result["compare"]["brief"])


def _discount(about: Mapping[str, Any]) -> str:
    """The discount of the estimates, and that of the log's policy if it is another; "" at one step."""
    if about["sessions"] == about["decisions"]:
        return ""
    text = f"; discount {about['discount']:g}"
    if about["discount"] == 1:
        text += " (as in the table of evaluate)"
    if about["log_discount"] not in (1, about["discount"]):
        text += f"; the log's policy learned with {about['log_discount']:g}"
    return text


def print_warnings(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each distinct warning once, with the estimators and the policies of its rows."""
    told: dict[str, dict[str, list[str]]] = {}  # the estimators of each policy of each warning
    for row in rows:
        for text in row["warnings"]:
            told.setdefault(text, {}).setdefault(row["policy"], []).append(row["estimator"])
    lines: dict[str, list[str]] = {}  # the warnings of the same rows
    for text, of_policies in told.items():
        policies: dict[str, list[str]] = {}  # those with the same estimators
        for policy, estimators in of_policies.items():
            policies.setdefault(", ".join(estimators), []).append(policy)
        whose = "; ".join(f"{estimators} of {', '.join(names)}" for estimators, names in policies.items())
        lines.setdefault(whose, []).append(text)
    for whose, texts in lines.items():
        say(f"warning ({whose}): {' '.join(texts)}")


def _mark(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The mark of a recommended row, with the outcome of the checks if it is of a learned model."""
    if row["interval"] != "model":
        return "recommended"
    model = about_model([check["wrong"] for check in result["world_checks"]])
    if model:
        return f"the best there is, {model}: don't rely on it"
    return "recommended (a model, checked on another policy)"


def about_model(wrong: Sequence[bool]) -> str:
    """The learned model in words, if it was not checked or a check was ``wrong``; else "".

    Each check is of the model's prediction for another policy.
    """
    if not wrong:
        return "a model that was NOT checked on another policy"
    return f"a model that FAILED {sum(wrong)} of {len(wrong)} checks on other policies" if any(wrong) else ""


def _no_recommendation(result: Mapping[str, Any]) -> str:
    trusted = {"dr", "wdr"}
    lacking = [
        part for part in result["not_computed"] if trusted & set(part["estimators"]) and part["policies"]
    ]
    if lacking:
        name = min(trusted & set(lacking[0]["estimators"]))
        return f"No row is recommended: that would be {name}, but {lacking[0]['reason']}."
    return "No row is recommended: the log is too small for these policies, or too unlike them."

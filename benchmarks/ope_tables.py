"""The tables of docs/09 on estimators, from the results of benchmarks.ope."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.newest import Row, origin, read, table
from recsys_rl.logs.ope.estimators import ESTIMATORS

CASES = {
    "5 steps": "five steps",
    "1 step": "one step",
    "1 step, heavier weights": "one step, heavier weights",
    "no overlap": "five steps, the log lacks the policy",
}
PROMISES = {
    "student-t": "Student's t",
    "model": "none",
    "clip": "none",
    "cluster": "none",
}
LABELS = {"fqe": "`fqe`, ridge"}


def coverage(results: Path) -> str:
    """How many intervals of each estimator held the truth, by log and promise."""
    rows = [
        row
        for row in read(results, "ope", ("case",), question="coverage")
        if row["case"] in CASES and row["estimator"] in ESTIMATORS
    ]
    head = ["log", "effective sample size, k", "promise", "held the truth"]
    body = []
    for case, label in CASES.items():
        mine = [row for row in rows if row["case"] == case]
        kinds: dict[str, list[str]] = {}
        for row in mine:
            kinds.setdefault(PROMISES[row["promise"]], []).append(
                f"`{row['estimator']}` {int(row['covered']):,}"
            )
        of = f"{float(mine[0]['ess']):,.0f}, {float(mine[0]['pareto_k']):.2f}"
        order = [kind for kind in dict.fromkeys(PROMISES.values()) if kind in kinds]
        for index, kind in enumerate(order):
            first = [label, of] if index == 0 else ["", ""]
            body.append([*first, kind, ", ".join(kinds[kind])])
    origins = dict.fromkeys(origin([row]) for row in rows)
    warned = next(row for row in rows if row["case"] == "no overlap")
    return (
        f"{table(head, body, words=True)}\n\n{int(warned['logs']):,} logs of 2,000 sessions each; where "
        f"the log lacks the policy, the command warned in {int(warned['warned']):,}.\n"
        f"`python -m benchmarks.ope --only coverage`, {'; '.join(origins)}."
    )


def selection(results: Path, env: str) -> str:
    """How well each estimator orders ten policies, and how far off it is; of several logs a range."""
    rows = read(results, "ope", question="selection", env=env)
    command = f"`python -m benchmarks.ope --only selection --env {env}`"
    truths = [float(row["truth"]) for row in rows if row["truth"]]
    logs: dict[str, list[Row]] = {}
    for row in rows:
        if row["estimator"]:
            logs.setdefault(row["estimator"], []).append(row)
    body = []
    for name, mine in logs.items():
        ranges = [_range(mine, column, 2) for column in ("spearman", "spearman_of_five")]
        ranges.append(f"{_range(mine, 'regret', 0, 100)} %")
        ranges.append(f"{_range(mine, 'error', 0, 100)} %")
        worst = max(mine, key=lambda row: abs(float(row["worst_error"])))
        largest = f"{100 * float(worst['worst_error']):+.0f} % ({worst['worst_of']})"
        body.append([LABELS.get(name, f"`{name}`"), *ranges, largest])
    head = [
        "estimator",
        "Spearman's correlation",
        "among the better five",
        "regret",
        "mean error",
        "largest error",
    ]
    number = len(next(iter(logs.values())))
    return (
        f"{table(head, body, words=True)}\n\n`{env}`, {number} logs of {int(rows[0]['sessions']):,} "
        f"sessions; the ten policies earn {min(truths):.1f} to {max(truths):.1f}.\n"
        f"{command}, {origin(rows)}."
    )


def _range(rows: Sequence[Row], column: str, digits: int, times: float = 1.0) -> str:
    values = [times * float(row[column]) for row in rows]
    low, high = (f"{end:.{digits}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"

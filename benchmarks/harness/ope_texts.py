"""The tables and figures of docs/09 on estimators, from the newest rows of ope.csv and open_bandit.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.newest import Row, read

CASES = {
    "5 steps": "five steps",
    "1 step": "one step",
    "1 step, heavier weights": "one step, heavier weights",
    "no overlap": "five steps, the log lacks the policy",
}
PROMISES = {
    "student-t": "Student's t",
    "bernstein": "Bernstein",
    "model": "none",
    "clip": "none",
    "cluster": "none",
}
SLOPE = "none, `--clip slope`"
LABELS = {"fqe": "`fqe`, ridge"}


def coverage(results: Path) -> str:
    """How many intervals of each estimator held the truth, by log and promise."""
    rows = [row for row in read(results, "ope", ("case",), question="coverage") if row["case"] in CASES]
    head = ["log", "effective sample size, k", "promise", "held the truth"]
    body = []
    for case, label in CASES.items():
        mine = [row for row in rows if row["case"] == case]
        kinds: dict[str, list[str]] = {}
        for row in mine:
            name, _, rest = row["estimator"].partition(", ")
            kind = SLOPE if rest == "slope" else PROMISES[row["promise"]]
            kinds.setdefault(kind, []).append(f"`{name}` {int(row['covered']):,}")
        of = f"{float(mine[0]['ess']):,.0f}, {float(mine[0]['pareto_k']):.2f}"
        order = [kind for kind in (*dict.fromkeys(PROMISES.values()), SLOPE) if kind in kinds]
        for place, kind in enumerate(order):
            first = [label, of] if place == 0 else ["", ""]
            body.append([*first, kind, ", ".join(kinds[kind])])
    warned = next(row for row in rows if row["case"] == "no overlap")
    return (
        f"{_table(head, body)}\n\n{int(warned['logs']):,} logs of 2,000 sessions each; where the log "
        f"lacks the policy, the command warned in {int(warned['warned']):,}.\n"
        f"`python -m benchmarks.ope --only coverage`, {'; '.join(dict.fromkeys(map(_origin, rows)))}."
    )


def selection(results: Path, env: str) -> str:
    """How well each estimator orders ten policies, and how far off it is; of several logs a range.

    Rows of before 2026-11-28 have no errors, so that these cells stay empty.
    """
    rows = read(results, "ope", question="selection", env=env)
    command = f"`python -m benchmarks.ope --only selection --env {env}`"
    if not rows:
        return f"Not measured yet: {command} measures it."
    truths = [float(row["truth"]) for row in rows if row["truth"]]
    logs: dict[str, list[Row]] = {}
    for row in rows:
        if row["estimator"]:
            logs.setdefault(row["estimator"], []).append(row)
    body = []
    for name, mine in logs.items():
        ranges = [_range(mine, column, 2) for column in ("spearman", "spearman_of_five")]
        ranges.append(f"{_range(mine, 'regret', 0, 100)} %")
        errors = ["", ""]
        if mine[0]["error"]:
            worst = max(mine, key=lambda row: abs(float(row["worst_error"])))
            errors = [f"{_range(mine, 'error', 0, 100)} %"]
            errors.append(f"{100 * float(worst['worst_error']):+.0f} % ({worst['worst_of']})")
        body.append([LABELS.get(name, f"`{name}`"), *ranges, *errors])
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
        f"{_table(head, body)}\n\n`{env}`, {number} logs of {int(rows[0]['sessions']):,} sessions; the ten "
        f"policies earn {min(truths):.1f} to {max(truths):.1f}.\n"
        f"{command}, {_origin(rows[0])}."
    )


def _range(rows: Sequence[Row], column: str, digits: int, times: float = 1.0) -> str:
    found = [times * float(row[column]) for row in rows]
    low, high = (f"{x:.{digits}f}" for x in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def open_bandit(results: Path) -> str:
    """The mean relative errors of the published estimators."""
    rows = {row["estimator"]: row for row in read(results, "open_bandit")}
    names = [name for name in ("ips", "snips", "dm", "dr", "sndr", "switch-dr", "dros") if name in rows]
    return ", ".join(f"{name} {float(rows[name]['relative_error']):.3f}" for name in names)


def open_bandit_weights(results: Path) -> str:
    """The mean weight and the effective sample size."""
    row = next(row for row in read(results, "open_bandit") if row["estimator"] == "ips")
    mean, ess = float(row["mean_weight"]), float(row["ess"])
    return f"mean weight is {mean:.3f}, and the effective sample size {ess:,.0f}"


def _origin(row: Row) -> str:
    return f"commit {row['commit']}, {row['date']}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown with all columns to the left."""
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])

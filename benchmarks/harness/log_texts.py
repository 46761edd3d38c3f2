"""Rows of the logs of runs: tables of docs/03 and docs/04, from the newest rows of logs.csv."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import read, table

LOGGED = (
    "return_mean",
    "entropy",
    "approx_kl",
    "clipfrac",
    "explained_variance",
    "value_loss",
    "policy_loss",
    "lr",
)


def logged(results: Path, task: str) -> dict[int, dict[str, float]]:
    """Values by step and name."""
    found: dict[int, dict[str, float]] = {}
    for row in read(results, "logs", task=task):
        found.setdefault(int(row["step"]), {})[row["name"]] = float(row["value"])
    return dict(sorted(found.items()))


def short(value: float | None) -> str:
    """About two digits, without an exponent."""
    if value is None:
        return "–"
    size = abs(value)
    places = 1 if size >= 1 else 2 if size >= 0.1 else 3 if size >= 0.01 else 4
    shown = f"{value:.{places}f}"
    return "0" if float(shown) == 0 else shown


def log_ppo(results: Path) -> str:
    runs = {task: list(logged(results, task).values()) for task in ("drift", "satiation")}
    body = [
        [f"`{name}`", *(", ".join(short(run[i].get(name)) for i in (0, 1, -1)) for run in runs.values())]
        for name in LOGGED
    ]
    return table(["first update, a tenth of the run, last update", *(f"`{task}`" for task in runs)], body)


def log_a2c(results: Path) -> str:
    names = ("entropy", "return_mean", "explained_variance")
    runs = {"drift-a2c": "the defaults", "drift-a2c-no-bonus": "`ent_coef` 0"}
    body = [
        [words, f"{step:,}", *(short(values.get(name)) for name in names)]
        for task, words in runs.items()
        for step, values in logged(results, task).items()
    ]
    return table(["dials", "step", *(f"`{name}`" for name in names)], body)

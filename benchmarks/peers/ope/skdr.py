"""The verdicts of skdr-eval, for `python -m benchmarks.verdict_peers`.

    V/bin/python benchmarks/peers/ope/skdr.py FOLDER

FOLDER has ``NAME.npz`` for each log: ``context`` (E, F), ``action`` and ``reward`` (E,), and the judged
policy as ``known_context`` (C, F) and ``policy`` (C, A). The line of JSON has the version and the answers for
each log.

The call is that of its guides (docs/daily-driver.md, docs/recipes/logs-to-experiment-card.md), with three
choices in its favour: the intervals that its report guide asks for (``ci_bootstrap``), all rows, as the
policy is fixed and nothing is trained on them (``policy_train="all"``), and the log's mean reward as the
baseline. The package judges the policy 1 / prediction of a model, so a model that predicts 1 / pi gives pi.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skdr_eval


class Inverse:
    """Predicts 1 / pi(a|x) from rows of x and the one-hot of a."""

    def __init__(self, contexts: Any, policy: Any) -> None:
        self.row = {context.tobytes(): row for row, context in enumerate(contexts)}
        self.policy, self.features = policy, contexts.shape[1]

    def fit(self, x: Any, y: Any) -> Inverse:
        return self

    def predict(self, x: Any) -> Any:
        rows = [self.row[np.ascontiguousarray(context).tobytes()] for context in x[:, : self.features]]
        return 1.0 / self.policy[rows, x[:, self.features :].argmax(1)]


def table(log: Any) -> pd.DataFrame:
    """The log as its guides have it: times, features of the client, what was eligible, what was done."""
    rows, number = len(log["action"]), log["policy"].shape[1]
    columns = {"arrival_ts": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(rows), unit="min")}
    columns |= {f"cli_{index}": values for index, values in enumerate(log["context"].T)}
    columns |= {f"item{item}_elig": np.ones(rows, dtype=bool) for item in range(number)}
    columns |= {"action": [f"item{item}" for item in log["action"]], "reward": log["reward"]}
    return pd.DataFrame(columns)


def answers(log: Any) -> dict[str, Any]:
    """Its estimate, its answer by each reading of its docs, and the health of the log's support."""
    logs = table(log)
    artifact = skdr_eval.evaluate_sklearn_models(
        logs=logs,
        models={"policy": Inverse(log["known_context"], log["policy"])},
        y_col="reward",
        fit_models=False,
        n_splits=3,
        random_state=0,
        policy_train="all",
        ci_bootstrap=True,
        baseline="logged",
    )
    report = artifact.report.set_index("estimator").loc["SNDR"]
    as_shown = artifact.recommendation("policy", estimator="SNDR")
    above = artifact.recommendation("policy", estimator="SNDR", baseline=float(logs["reward"].mean()))
    low, high = float(report["delta_ci_lower"]), float(report["delta_ci_upper"])
    found = {"value": float(report["V_hat"]), "low": low, "high": high}
    return found | {
        "health": str(report["support_health"]),
        "as_shown": as_shown.verdict,
        "baseline": above.verdict,
        "delta": "better" if low > 0 else "worse" if high < 0 else "can't tell",
    }


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    found: dict[str, Any] = {"peer": f"skdr-eval {version('skdr-eval')}", "logs": {}}
    for file in sorted(Path(sys.argv[1]).glob("*.npz")):
        found["logs"][file.stem] = answers(np.load(file))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

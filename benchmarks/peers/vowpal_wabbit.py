"""Vowpal Wabbit on a log of many items, run by the Python that has it: python vowpal_wabbit.py FOLDER.

``problem.npz`` in the folder holds the decisions to learn from, and the other contexts. The items (m,) that
the policy would show there are written to ``shown.npy``; the line of JSON has version and seconds of CPU.

``--cb_adf`` with the products of context and item (``-q ui``) and its own defaults otherwise: one pass over
the log in its order, and regression with weights by inverse propensity. An item is its vector, or its id.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import vowpalwabbit


def main(folder: Path) -> None:
    started = time.process_time()
    log = np.load(folder / "problem.npz")
    contexts, others = (_namespaces("u", log[name]) for name in ("contexts", "others"))
    vectors = log["items"]
    actions = _namespaces("i", vectors) if vectors.size else [f"|i i{row}" for row in range(log["number"])]
    learner = vowpalwabbit.Workspace("--cb_adf -q ui --quiet")
    for context, chosen, click, chance in zip(
        contexts, log["chosen"], log["clicks"], log["propensities"], strict=True
    ):
        lines = actions.copy()
        lines[chosen] = f"0:{-float(click)}:{chance:.9g} {actions[chosen]}"
        learner.learn([f"shared {context}", *lines])
    shown = [np.argmin(_costs(learner, [f"shared {context}", *actions])) for context in others]
    np.save(folder / "shown.npy", np.array(shown))
    seconds = time.process_time() - started
    print(json.dumps({"version": vowpalwabbit.__version__, "seconds": seconds}))


def _namespaces(name: str, rows: np.ndarray) -> list[str]:
    """A namespace of each row (n, F), whose features are the columns."""
    return [f"|{name} " + " ".join(f"{k}:{value:.6g}" for k, value in enumerate(row)) for row in rows]


def _costs(learner: vowpalwabbit.Workspace, lines: list[str]) -> list[float]:
    """The expected cost of each action."""
    found: list[float] = learner.predict(lines)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))

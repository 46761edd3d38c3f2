"""scikit-learn's classifiers as learners from a log of a classified data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.classified import Ints, Problem
from recsys_rl.settings.config import Config

RIVALS = ("direct logistic", "ipw logistic", "ipw network", "all labels")


def rivals_of(problem: Problem, seed: int) -> dict[str, tuple[float, float]]:
    """The share of right items of each rival, and its seconds of CPU."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    data, used = problem.data, ~problem.heldout
    features, rows, chosen = data.features, problem.rows[used], problem.chosen[used]
    x, rewards, others = features[rows], problem.rewards[used], features[problem.others]
    paid = rewards > 0
    weights = (rewards / problem.propensities[used])[paid]

    def direct() -> Ints:
        scores = np.zeros((len(others), len(data.items)))
        for item in range(len(data.items)):
            mine = chosen == item
            if mine.any():
                scores[:, item] = rewards[mine].mean()
            if len(np.unique(rewards[mine])) > 1:
                model = LogisticRegression(max_iter=300).fit(x[mine], rewards[mine])
                scores[:, item] = model.predict_proba(others)[:, 1]
        best: Ints = scores.argmax(1)
        return best

    def weighted(model: Any) -> Callable[[], Any]:
        return lambda: model.fit(x[paid], chosen[paid], sample_weight=weights).predict(others)

    def all_labels() -> Any:
        told = np.unique(rows)
        return LogisticRegression(max_iter=300).fit(features[told], data.labels[told]).predict(others)

    layers = Config(algo="reinforce").model_config.hidden_dims
    found = {}
    for name, choose in {
        "direct logistic": direct,
        "ipw logistic": weighted(LogisticRegression(max_iter=300)),
        "ipw network": weighted(MLPClassifier(layers, max_iter=40, random_state=seed)),
        "all labels": all_labels,
    }.items():
        started = time.process_time()
        found[name] = (problem.right(choose()), time.process_time() - started)
    return found

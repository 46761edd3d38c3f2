"""Models of the click of an item in a context, as learners from a log of many items.

Each takes the decisions that `train` does not hold out and returns the item (m,) that it would show in each
of the other contexts. With ``features`` it is given the vectors of the items, otherwise their ids alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.classified import Floats, Ints
from benchmarks.harness.many_items import ManyItems

RIVALS = ("two towers", "ipw logistic", "boosted")
HIDDEN, OUT, EPOCHS, PATIENCE = 64, 32, 60, 3


def rivals_of(
    problem: ManyItems, used: Any, features: bool, seed: int, names: tuple[str, ...] = RIVALS
) -> dict[str, tuple[Ints, float]]:
    """What each rival shows, and its seconds of CPU; ``used`` (E,) bool: the decisions to learn from."""
    made: dict[str, Callable[[ManyItems, Any, bool, int], Ints]] = {
        "two towers": two_towers,
        "ipw logistic": ipw_logistic,
        "boosted": boosted,
    }
    found = {}
    for name in names:
        started = time.process_time()
        found[name] = made[name](problem, used, features, seed), time.process_time() - started
    return found


def two_towers(problem: ManyItems, used: Any, features: bool, seed: int) -> Ints:
    """A click model: a network of the context times one of the item, by log loss, with early stopping."""
    torch.manual_seed(seed)
    x, y = _tensor(problem.contexts[used]), _tensor(problem.clicks[used])
    shown = torch.tensor(problem.chosen[used])
    known = _tensor(problem.items) if features else torch.eye(len(problem.items))
    user = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, OUT + 1),
    )
    item = nn.Sequential(nn.Linear(known.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT + 1))

    def loss(rows: Tensor) -> Tensor:
        a, b = user(x[rows]), item(known[shown[rows]])
        scores = (a[:, :-1] * b[:, :-1]).sum(1) + a[:, -1] + b[:, -1]
        return nn.functional.binary_cross_entropy_with_logits(scores, y[rows])

    order = torch.randperm(len(x))
    checked, learned = order[: len(x) // 5], order[len(x) // 5 :]
    optimizer = torch.optim.Adam([*user.parameters(), *item.parameters()], lr=1e-3, weight_decay=1e-5)
    least, best, since = float("inf"), None, 0
    for _ in range(EPOCHS):
        for rows in learned[torch.randperm(len(learned))].split(256):
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(loss(checked))
        since = 0 if now < least else since + 1
        if now < least:
            states = ({k: v.clone() for k, v in net.state_dict().items()} for net in (user, item))
            least, best = now, tuple(states)
        if since == PATIENCE:
            break
    assert best is not None
    user.load_state_dict(best[0])
    item.load_state_dict(best[1])
    with torch.no_grad():
        a, b = user(_tensor(problem.others)), item(known)
        found: Ints = (a[:, :-1] @ b[:, :-1].T + b[:, -1]).argmax(1).numpy()
    return found


def ipw_logistic(problem: ManyItems, used: Any, features: bool, seed: int) -> Ints:
    """A logistic regression of the clicked item, weighted by the inverse propensity; it knows ids alone."""
    from sklearn.linear_model import LogisticRegression

    paid = problem.clicks[used] > 0
    weights = np.minimum(1 / problem.propensities[used][paid], 100)
    model = LogisticRegression(max_iter=100)
    model.fit(problem.contexts[used][paid], problem.chosen[used][paid], sample_weight=weights)
    found: Ints = model.predict(problem.others)
    return found


def boosted(problem: ManyItems, used: Any, features: bool, seed: int) -> Ints:
    """Boosted trees of context, item and the product of both; an id is the item's rate of clicks."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    chosen, clicks = problem.chosen[used], problem.clicks[used]
    number = len(problem.items)
    shows = np.bincount(chosen, minlength=number)
    rate = (np.bincount(chosen, clicks, number) + clicks.mean()) / (shows + 1)

    def inputs(x: Floats, items: Ints) -> Floats:
        of_items = problem.items[items]
        own = [of_items, x * of_items, (x * of_items).sum(1, keepdims=True)] if features else []
        return np.concatenate([x, rate[items][:, None], *own], 1)

    model = HistGradientBoostingClassifier(early_stopping=True, random_state=seed)
    model.fit(inputs(problem.contexts[used], chosen), clicks)
    best = np.zeros(len(problem.others), np.int64)
    every = np.arange(number)
    for row, x in enumerate(problem.others):
        scores = model.predict_proba(inputs(np.repeat(x[None], number, 0), every))[:, 1]
        best[row] = scores.argmax()
    return best


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)

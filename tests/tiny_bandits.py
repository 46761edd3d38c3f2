"""A bandit so small that all its logs can be listed: two contexts, three actions, rewards 0 and 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

F64 = torch.float64
CONTEXTS = torch.tensor([0.4, 0.6], dtype=F64)  # probability of each context
LOGGING = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=F64)  # (2, 3) pi_b
POLICY = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.5, 0.0]], dtype=F64)  # (2, 3) pi
REWARD = torch.tensor([[0.2, 0.7, 0.5], [0.9, 0.1, 0.4]], dtype=F64)  # (2, 3) P(r = 1)
MODEL = torch.tensor([[0.3, 0.4, 0.5], [0.6, 0.2, 0.1]], dtype=F64)  # (2, 3) a wrong q
VALUE = float((CONTEXTS.unsqueeze(1) * POLICY * REWARD).sum())
WEIGHT = POLICY / LOGGING


@dataclass(frozen=True)
class Log:
    """One possible log of n rows, and its probability."""

    probability: float
    contexts: Tensor  # (n,)
    actions: Tensor  # (n,)
    rewards: Tensor  # (n,) float64


def rows() -> list[tuple[float, int, int, int]]:
    """Each possible row: probability, context, action, reward."""
    found = []
    for x, a, r in itertools.product(range(2), range(3), range(2)):
        hit = float(REWARD[x, a])
        found.append((float(CONTEXTS[x] * LOGGING[x, a]) * (hit if r else 1 - hit), x, a, r))
    return found


def logs(length: int) -> Iterator[Log]:
    """All logs of ``length`` rows."""
    for drawn in itertools.product(rows(), repeat=length):
        probability = 1.0
        for row in drawn:
            probability *= row[0]
        columns = [torch.tensor([row[k] for row in drawn]) for k in (1, 2, 3)]
        yield Log(probability, columns[0], columns[1], columns[2].double())


def expectation(estimate: Callable[[Log], float], length: int = 2) -> float:
    """The expected estimate over all logs of ``length`` rows."""
    return sum(log.probability * estimate(log) for log in logs(length))

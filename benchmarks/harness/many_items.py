"""Made-up logs of catalogues with many items, whose true click rates are known.

A context x holds 16 numbers, an item the unit vector f of 16, and a click has probability::

    p(x, i) = s(-3.5 + 2 m(x) . f_i + 0.5 q_i)        m(x) = A tanh(B x), of unit variance

with s the logistic function and q_i what no feature tells. A logger, the softmax of its own rough guess of
the logit, draws the decisions; ``mild``, half of its draws are uniform, or ``sharp``, one of twenty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.harness.classified import UNIFORM, Floats, Ints

SIZE = 16
TRUTH = 2_000
"""Contexts on which policies are checked."""
LEVEL, TASTE, QUALITY = -3.5, 2.0, 0.5
ROUGH, SHARPNESS = 3.0, 1.0
"""Weight of the error in the logger's guess, and the factor before its softmax."""


@dataclass(frozen=True)
class ManyItems:
    """A log of ``decisions`` decisions over ``num_items`` items, and contexts with the truth."""

    items: Floats  # (I, SIZE)
    contexts: Floats  # (E, SIZE)
    chosen: Ints  # (E,)
    propensities: Floats  # (E,)
    clicks: Ints  # (E,)
    others: Floats  # (TRUTH, SIZE)
    truth: Floats  # (TRUTH, I): click probabilities
    logger: Floats  # (TRUTH, I): its probabilities

    @property
    def names(self) -> list[str]:
        return [f"i{row:05}" for row in range(len(self.items))]

    def write(self, path: Path) -> None:
        """The log as a table of decisions; each context is a user."""
        users = np.arange(len(self.contexts))
        self._table(users, self.contexts, self.chosen, self.propensities, self.clicks).write_parquet(path)

    def write_truth(self, path: Path) -> None:
        """A decision for each of the other contexts."""
        rows = len(self.others)
        nothing: NDArray[Any] = np.zeros(rows, np.int64)
        self._table(np.arange(rows), self.others, nothing, np.ones(rows), nothing).write_parquet(path)

    def write_items(self, path: Path) -> None:
        pl.DataFrame({"item": self.names, "embedding": self.items.astype(np.float32)}).write_parquet(path)

    def _table(
        self, users: Any, contexts: Floats, chosen: Any, propensities: Any, clicks: Any
    ) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "user": users,
                "item": np.array(self.names)[chosen],
                "reward": clicks,
                "propensity": propensities,
                "context.x": contexts.astype(np.float32),
            }
        )


def made(num_items: int, decisions: int, logger: str, seed: int) -> ManyItems:
    rng = np.random.default_rng([seed, 43])
    items = rng.standard_normal((num_items, SIZE))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    quality = rng.standard_normal(num_items)
    first = rng.standard_normal((SIZE, 32)) / 4
    second = rng.standard_normal((32, SIZE)) / 32**0.5
    bent = rng.standard_normal((SIZE, SIZE)) / SIZE**0.5

    def logits(x: Floats) -> Floats:
        found: Floats = LEVEL + TASTE * (np.tanh(x @ first) @ second * 1.6) @ items.T + QUALITY * quality
        return found

    def chances(x: Floats) -> Floats:
        guess = SHARPNESS * (logits(x) + ROUGH * (x @ bent) @ items.T)
        guess = np.exp(guess - guess.max(1, keepdims=True))
        share = UNIFORM[logger]
        found: Floats = (1 - share) * guess / guess.sum(1, keepdims=True) + share / num_items
        return found

    x, others = rng.standard_normal((decisions, SIZE)), rng.standard_normal((TRUTH, SIZE))
    chosen = np.zeros(decisions, np.int64)
    propensities = np.zeros(decisions)
    clicks = np.zeros(decisions, np.int64)
    for start in range(0, decisions, 2_000):
        part = slice(start, min(start + 2_000, decisions))
        probabilities = chances(x[part])
        at = np.arange(len(probabilities))
        drawn = (probabilities.cumsum(1) > rng.random((len(at), 1))).argmax(1)
        chosen[part], propensities[part] = drawn, probabilities[at, drawn]
        rates = 1 / (1 + np.exp(-logits(x[part])[at, drawn]))
        clicks[part] = rng.random(len(at)) < rates
    truth = 1 / (1 + np.exp(-logits(others)))
    return ManyItems(items, x, chosen, propensities, clicks, others, truth, chances(others))

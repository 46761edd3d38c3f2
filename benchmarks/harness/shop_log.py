"""A shop of 160 items, in which people buy 3 % of what its rule shows, with a known answer.

Purchases are drawn. People differ by age and by one of six segments, items by one of eight kinds and by how
well they sell. The log and the requests hold age and segment alone; nothing tells the kind of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ITEMS, KINDS, SEGMENTS, PEOPLE = 160, 8, 6, 20_000
BOUGHT = 0.03
"""The share of purchases of what the rule shows."""
SELLS, LIKES, AGES = 0.6, 1.0, 0.5
"""Spreads of the logit of a purchase: of items, of a segment's taste for a kind, of the slope over age."""
OFF, UNIFORM = 0.6, 0.5
"""The rule knows how well items sell but for such a spread, and draws so many items uniformly."""
JUDGED = 3_000
"""People of the other half on whom policies are checked."""


@dataclass(frozen=True)
class Shop:
    """People, and with what chance they buy each item."""

    segments: Ints  # (n,)
    ages: Floats  # (n,)
    chances: Floats  # (n, I): of a purchase
    rule: Floats  # (I,): the chance that the shop's rule shows an item, to anybody
    seed: int

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The columns of the context."""
        return {"segment": np.array([f"s{x}" for x in self.segments]), "age": self.ages}

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(f"i{item}" for item in range(ITEMS))

    @property
    def mine(self) -> Ints:
        """The half whose people are in the log, and come."""
        return np.arange(len(self.ages) // 2)

    @property
    def others(self) -> Ints:
        """People whom no policy has seen."""
        half = len(self.ages) // 2
        return np.arange(half, min(half + JUDGED, len(self.ages)))

    def write(self, path: Path, decisions: int) -> None:
        """A log of the shop's rule."""
        rng = np.random.default_rng([self.seed, 51])
        rows = rng.choice(self.mine, size=decisions)
        shown = rng.choice(ITEMS, size=decisions, p=self.rule)
        bought = (rng.random(decisions) < self.chances[rows, shown]).astype(float)
        self._write(path, rows, shown, bought, self.rule[shown])

    def write_truth(self, path: Path) -> None:
        """A decision for each of the people on whom policies are checked; its item means nothing."""
        ones = np.ones(len(self.others))
        self._write(path, self.others, np.full(len(self.others), self.rule.argmax()), ones, ones)

    def _write(self, path: Path, rows: Ints, shown: Ints, bought: Floats, chances: Floats) -> None:
        items = np.array(self.items)[shown]
        context = {f"context.{name}": values[rows] for name, values in self.columns.items()}
        columns = {"user": rows, "item": items, "purchase": bought, "propensity": chances, **context}
        pl.DataFrame(columns).write_parquet(path)


def shop_of(seed: int, people: int = PEOPLE) -> Shop:
    """Draw people and items."""
    rng = np.random.default_rng([seed, 50])
    kinds, segments = np.arange(ITEMS) % KINDS, rng.integers(SEGMENTS, size=people)
    ages = rng.uniform(18, 80, people)
    likes, slopes = rng.normal(0, LIKES, (SEGMENTS, KINDS)), rng.normal(0, AGES, KINDS)
    sells = rng.normal(0, SELLS, ITEMS)
    logits = sells + likes[segments][:, kinds] + ((ages - 49) / 18)[:, None] * slopes[kinds]
    known = np.exp(sells + rng.normal(0, OFF, ITEMS))
    rule = UNIFORM / ITEMS + (1 - UNIFORM) * known / known.sum()
    return Shop(segments, ages, _chances(logits, rule), rule, seed)


def _chances(logits: Floats, rule: Floats) -> Floats:
    """Those of logits with a constant, by which the rule sells BOUGHT."""
    low, high = -20.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        chances: Floats = 1 / (1 + np.exp(-(logits + middle)))
        low, high = (middle, high) if float((chances @ rule).mean()) < BOUGHT else (low, middle)
    return chances

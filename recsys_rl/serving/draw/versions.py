"""Versions of the policy: a checkpoint that can serve, with the names and tables that requests need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import over
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.context_rows import ContextRows
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.errors import UserError, one_line
from recsys_rl.functional.patterns import Layout
from recsys_rl.logs.log_shape import SignalRange
from recsys_rl.models.heads import slate_layout
from recsys_rl.recommender import Recommender, Visit, load
from recsys_rl.recommender.directory import Directory
from recsys_rl.recommender.visit import NOON
from recsys_rl.serving.messages import ContextField, Item, Platform, Problem
from recsys_rl.serving.record.record_schema import ServedPolicy
from recsys_rl.serving.record.stock import Stock
from recsys_rl.settings.fields import shown
from recsys_rl.types import Catalogue, tensors_of
from recsys_rl.utils.files import sha256_of
from recsys_rl.utils.tensor_cache import digest

POPULARITY = ServedPolicy(0, "popularity", "", "")
"""The policy that chooses where another one fails."""
LARGEST = 1e9
"""Largest value of a signal without bounds: larger ones could overflow in a float32 network."""
SOME = 20  # people and items of a page
MOST_POPULAR = 20_000
"""Items among which `popularity` chooses: of a million, a batch of 64 would take seconds and gigabytes."""
SMALLEST = 1e-3
"""Added to the popularity of each of these items, so that `popularity` shows each with some probability."""


class Silent(Recommender):
    """Items and people, and no policy."""

    def __init__(self, checkpoint: Checkpoint, trained_on: Catalogue | None = None) -> None:
        Directory.__init__(self, checkpoint)
        self.agent = None


@dataclass(frozen=True)
class Version:
    """A policy that can serve."""

    row: ServedPolicy
    recommender: Recommender
    alike: Checkpoint | None = None
    """The checkpoint of another version of the same ``sight``, by which the visits of both are made."""
    stock: Stock | None = None
    """The items over which the policy is laid, at a team's own place; None elsewhere, and before that."""
    trained: Checkpoint | None = None
    """The checkpoint of the file, whose items are those of the training; None: ``checkpoint``."""

    def over(self, stock: Stock) -> Version:
        """The policy over the items of a team's own place. Raises UserError if there are too few."""
        if stock is self.stock:
            return self
        trained = self.checkpoint if self.trained is None else self.trained
        checkpoint = over(trained, stock.items, learns=not self.decides)
        recommender = type(self.recommender)(checkpoint)
        return Version(self.row, recommender, stock=stock, trained=trained)

    def showable(self, number: int) -> Tensor | None:
        """(I,) bool: the items that a decision with this number could show; None: all of the platform."""
        return None if self.stock is None else self.stock.available_at(self.stock.moment_of(number))

    @cached_property
    def never_shown(self) -> Tensor:
        """(I,) bool: the items that no decision of the policy's training showed."""
        return self.checkpoint.catalogue.popularity == 0

    @property
    def of_visits(self) -> Checkpoint:
        """The checkpoint by which visits are made: those of one batch have the same one."""
        return self.checkpoint if self.alike is None else self.alike

    @cached_property
    def sight(self) -> tuple[object, ...]:
        """All on which visits and observations depend: versions of equal sights see people alike."""
        own, (catalogue, population) = self.checkpoint, self.checkpoint.world
        tensors = {name: tensor.cpu() for name, tensor in tensors_of(population).items()}
        items = catalogue_hash(catalogue), catalogue.features
        return own.config.env, own.config.env_config, own.interface, self.pieces, items, digest(tensors)

    @property
    def checkpoint(self) -> Checkpoint:
        return self.recommender.checkpoint

    @property
    def agent(self) -> Any:
        return self.recommender.agent

    @property
    def decides(self) -> bool:
        """False for a place without a policy (``place_of`` in server.py), or whose policy is not read."""
        return self.agent is not None

    @cached_property
    def contexts(self) -> ContextRows | None:
        """The encoding of the context of a team's own log; None on other platforms."""
        return None if self.recommender.pieces is None else ContextRows(self.recommender.pieces)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The named pieces of the context of a team's own log."""
        return () if self.contexts is None else self.contexts.pieces

    @property
    def columns(self) -> Mapping[str, str]:
        """The column of each role in the team's own log; {} on other platforms, and without a log."""
        config = self.checkpoint.config
        tables = config.platform.tables
        return {} if tables is None else tables.columns(config.env_config)

    @property
    def takes_likes(self) -> bool:
        """True if the profile of a stranger is made from what they like."""
        return self.contexts is None

    @property
    def two_stages(self) -> bool:
        """True if a first stage proposes the candidates."""
        return self.checkpoint.config.model_config.candidates > 0

    @cached_property
    def popularity(self) -> Tensor:
        """(I,): the logits of `popularity`; it shows items in proportion to their popularity."""
        return (self.checkpoint.catalogue.popularity + SMALLEST).log()

    @cached_property
    def layout(self) -> Layout | None:
        """The kinds of a slate's places, by which `popularity` fills it; None where these have no kinds."""
        patterns = self.checkpoint.interface.patterns
        return slate_layout(self.checkpoint.catalogue, patterns) if patterns else None

    @cached_property
    def most_popular(self) -> Tensor:
        """(P,): the rows, ascending, of the MOST_POPULAR items of a larger catalogue.

        Of equally popular items the first ones: a replay on another processor needs the same.
        """
        catalogue = self.checkpoint.catalogue
        known = catalogue.popularity.masked_fill(~catalogue.available, -torch.inf)
        order = known.sort(descending=True, stable=True).indices
        return order[: min(MOST_POPULAR, int(catalogue.available.sum()))].sort().values

    @cached_property
    def by_hour(self) -> bool:
        """True if the policy sees the hour of the week."""
        pieces = self.checkpoint.config.platform.visit_pieces
        return pieces is not None and pieces.by_hour

    @cached_property
    def item_ids(self) -> list[str]:
        """(I,): the ids of the items, as text. One that changed stands in several rows."""
        catalogue = self.checkpoint.catalogue
        return [str(id_) for id_ in catalogue.item_names or catalogue.item_ids.tolist()]

    @cached_property
    def row_of_item(self) -> dict[str, int]:
        """The row of each item id; at a team's own place of those that are there."""
        if self.stock is not None:
            return self.stock.row_of
        return {name: row for row, name in enumerate(self.item_ids)}

    @cached_property
    def row_of_user(self) -> dict[str, int]:
        """The row of each user of the data, by the id as text."""
        return {str(name): row for name, row in self.recommender.row_of_user.items()}

    @cached_property
    def signals(self) -> dict[str, int]:
        """The place of each visible signal."""
        return {name: index for index, name in enumerate(self.checkpoint.interface.signals)}

    @cached_property
    def ranges(self) -> Mapping[str, SignalRange]:
        """The values that each visible signal may have.

        One of a team's own log that was 0 or 1 there is so for ever; an amount may be larger than any before.
        """
        config = self.checkpoint.config
        known, tables = config.platform.signal_ranges, config.platform.tables
        of_log = {} if tables is None else tables.ranges(config.env_config)
        ranges = {}
        for name in self.signals:
            low, high = known.get(name, (-math.inf, math.inf))
            widest = SignalRange(max(low, -LARGEST), min(high, LARGEST))
            ranges[name] = of_log[name] if name in of_log and of_log[name].binary else widest
        return ranges

    @cached_property
    def full_signals(self) -> list[float]:
        """(S,): the visible signals of an item that is consumed in full."""
        pieces = self.checkpoint.config.platform.visit_pieces
        known = {} if pieces is None else pieces.consumed
        return [known.get(name, 1.0) for name in self.signals]

    @cached_property
    def taken(self) -> list[int]:
        """The places of the visible signals that tell alone that an item was consumed."""
        pieces = self.checkpoint.config.platform.visit_pieces
        return [] if pieces is None else [self.signals[name] for name in pieces.taken]

    @cached_property
    def platform(self) -> Platform:
        """The answer of `GET /v1/platform`."""
        interface = self.checkpoint.interface
        return Platform(
            name=self.checkpoint.config.env,
            items=len(self.row_of_item),
            slate_size=interface.slate_size,
            session_length=interface.session_length,
            full=dict(zip(self.signals, self.full_signals, strict=True)),
            shares=self.checkpoint.config.platform.simulates,
            events=interface.events,
            by_hour=self.by_hour,
            people=[*islice(self.row_of_user, SOME)],
            likes=self.takes_likes,
            context=[_field(piece) for piece in self.pieces],
            features=None,
        )

    def find_items(self, text: str) -> list[Item]:
        """Some items with this text in their titles, those with this id or title first.

        At a team's own place the latest come first, and withdrawn ones are among them.
        """
        folded, titles = text.casefold(), self.folded_titles
        order: Sequence[int] = range(len(titles))
        if self.stock is not None:  # of an id the latest row
            order = sorted({id_: row for row, id_ in enumerate(self.item_ids)}.values(), reverse=True)
        same = [row for row in order if folded == titles[row]]
        like = (row for row in order if folded in titles[row])
        with_id = [self.row_of_item[text]] if text in self.row_of_item else []
        rows, there = dict.fromkeys([*with_id, *same[:SOME], *islice(like, SOME)]), self.row_of_item
        title = self.checkpoint.catalogue.title
        return [Item(self.item_ids[row], title(row), there.get(self.item_ids[row]) == row) for row in rows]

    @cached_property
    def folded_titles(self) -> list[str]:
        """(I,): the titles without regard to case."""
        catalogue = self.checkpoint.catalogue
        return [catalogue.title(row).casefold() for row in range(catalogue.num_items)]

    def prepare(self) -> None:
        """Make the tables that requests need: of a million items they take longer than an answer may."""
        _ = self.row_of_item, self.row_of_user, self.signals, self.popularity, self.most_popular

    def check_places(self, number: int, steps: int, given: str) -> None:
        """Raise Problem unless so many items fill the next steps of a session that has had ``steps``.

        ``given``: how the request gives the number, in words.
        """
        interface = self.checkpoint.interface
        slate, left = interface.slate_size, interface.session_length - steps
        if slate > 1 and number != slate:
            raise Problem(422, "wrong-n", f"{given}, but a slate of this platform has {slate} places.")
        if number > left * slate:
            raise Problem(422, "wrong-n", f"{given}, but only {left} steps of the session are left.")

    def rows_of_items(self, ids: Sequence[str], field: str) -> tuple[int, ...]:
        """The rows of these items of a request's ``field``, each once. Raises Problem for an unknown one."""
        rows = self.row_of_item
        try:
            return tuple(dict.fromkeys([rows[id_] for id_ in ids]))
        except KeyError as error:
            id_ = str(error.args[0])
            raise Problem(
                422, "unknown-item", f"{field}: there is no item {shown(id_)} in the catalogue."
            ) from None

    def rows_of_known(self, ids: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The rows of those of these items that the catalogue has, each once, and the ids of the others."""
        rows = self.row_of_item
        known = {id_: rows[id_] for id_ in ids if id_ in rows}
        others = (
            () if len(known) == len(ids) else tuple(dict.fromkeys(id_ for id_ in ids if id_ not in known))
        )
        return tuple(known.values()), others

    def rows_of_candidates(
        self, candidates: Sequence[str] | None
    ) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
        """``rows_of_known`` of the candidates of a request; None: all. Raises Problem if none is known."""
        if candidates is None:
            return None, ()
        rows, others = self.rows_of_known(candidates)
        if not rows:
            why = f"candidates: the catalogue has none of them, as {shown(candidates[0])}: give items of it."
            raise Problem(422, "unknown-item", why)
        return rows, others

    def rows_of_likes(self, likes: Sequence[str]) -> tuple[int, ...]:
        """``rows_of_items`` of the likes of a request. Raises Problem where nothing is made from them."""
        if likes and not self.takes_likes:
            raise Problem(
                422,
                "no-likes",
                "likes: this policy knows people by the context of their requests alone: leave likes out.",
            )
        return self.rows_of_items(likes, "likes")

    def profile(self, population_row: int, likes: tuple[int, ...]) -> Tensor:
        """(1, D): of a user of the data, or of a stranger from these likes; zero without any."""
        if population_row >= 0:
            return self.checkpoint.population.profile[population_row : population_row + 1]
        if not likes:
            return self._nobody
        return self.recommender.fold_in(likes)

    @cached_property
    def _nobody(self) -> Tensor:
        return torch.zeros(1, self.checkpoint.population.profile.shape[1])


def _field(piece: Piece) -> ContextField:
    """The description of a piece for callers."""
    return ContextField(
        name=piece.name,
        kind=piece.kind,
        size=len(piece.low),
        low=min(piece.low, default=None),
        high=max(piece.high, default=None),
        values=[*piece.values],
        example=piece.example,
        gaps=piece.gaps,
    )


def open_version(path: Path, number: int, env: str | None = None, *, networks: bool = True) -> Version:
    """The policy in the checkpoint at ``path``. Raises UserError if it can't serve visitors.

    ``networks``: False: only what it knows of its place is read; it does not decide.
    """
    sha256 = sha256_of(path)
    recommender = load(path, env) if networks else Silent(load_at_home(path, env, networks=False))
    checkpoint, name = recommender.checkpoint, one_line(path)
    if checkpoint.world.is_empty:
        raise UserError(
            f"{name} is of {checkpoint.config.env}, which has no catalogue of items to recommend from: serve "
            "a policy of a platform with items."
        )
    if checkpoint.interface.visits > 1:
        raise UserError(
            f"{name} is of users with up to {checkpoint.interface.visits} visits, and the record holds "
            "sessions of one visit: serve a policy that was trained with --visits 1."
        )
    # Raises UserError where the platform's pieces can't be made from a visitor's events.
    Visit.begin(checkpoint, torch.zeros(1, checkpoint.population.profile.shape[1]), NOON)
    return Version(ServedPolicy(number, checkpoint.config.algo, sha256, str(path.resolve())), recommender)


def files_in(path: Path) -> Mapping[str, Path]:
    """The checkpoints at ``path``, a file or a folder, by their SHA-256. Raises UserError if none is there.

    The second name that a training keeps of its checkpoint before the last is left out.
    """
    files = [path]
    if path.is_dir():
        files = [
            file
            for file in sorted(path.glob("*.pt"))
            if file.is_file() and not file.name.endswith(".prev.pt")
        ]
        if not files:
            raise UserError(f"{one_line(path)} has no checkpoint (*.pt): give a file, or a folder with some.")
    return {sha256_of(file): file for file in files}

"""Visits under way: the observations of a policy from what visitors were shown and how they responded.

``session.py`` makes most of an observation. The other pieces of the context are made by the platform's
``VisitPieces``, with the functions that its simulator uses too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError, listed
from recsys_rl.records import VisitPieces
from recsys_rl.session import PIECES, Session
from recsys_rl.settings import fields as schema
from recsys_rl.types import Events, Feedback, Interface, Obs, tree_map

NOON = 12.0  # on Monday: the hour of rankings, which must not depend on the clock


class Event(NamedTuple):
    """An item that a visitor was shown, and their response."""

    item: int | str  # its id, or its title
    signals: Mapping[str, float] = {}  # visible signals of the platform by name; those without a value are 0


@dataclass(frozen=True)
class Request:
    """One step of a visit: what was shown, and what the visitor did until the next request."""

    shown: Sequence[Event]  # in the order of the places; fewer than K leave places empty
    # Where the history holds events (Interface.events): items that the visitor left during this step.
    left: Sequence[Event] = field(default=())


@dataclass(frozen=True)
class Visit:
    """N visits under way. Each method returns new ones and changes nothing in place."""

    checkpoint: Checkpoint
    session: Session
    known: Mapping[str, Tensor]  # (N, ...) each: what the platform's VisitPieces keep

    @classmethod
    def begin(
        cls,
        checkpoint: Checkpoint,
        profiles: Tensor,
        hours: float | Tensor = NOON,
        rows: Tensor | None = None,
        likes: Sequence[Sequence[int]] | None = None,
    ) -> Visit:
        """The visits of people with ``profiles`` (N, D) before their first step.

        Args:
            hours: of the week, (N,) or one for all, 0 .. 168 from Monday at midnight.
            rows: (N,) int64, these people in the population, -1 for strangers; None: all are strangers.
            likes: rows of the items that each of them named as liked; None: nobody named any.

        Raises UserError if the policy sees a piece of the context that its platform does not make from a
        visitor's events.
        """
        number = len(profiles)
        session = Session.begin(checkpoint.interface, checkpoint.catalogue, torch.arange(number))
        hour = torch.as_tensor(hours, dtype=torch.float32).expand(number)  # (N,)
        config, pieces = checkpoint.config.env_config, _pieces_of(checkpoint)
        known = pieces.begin(config, checkpoint.catalogue, profiles, hour)
        if pieces.of_people is not None:
            rows = torch.full((number,), -1) if rows is None else rows
            own = pieces.of_people(checkpoint.world, rows, [()] * number if likes is None else likes)
            known = {**known, **own}
        visit = cls(checkpoint, session, known)
        _check_sizes(checkpoint, visit.pieces())
        return visit

    def record(
        self, items: Tensor, signals: Tensor, shown: Tensor | None = None, events: Events | None = None
    ) -> Visit:
        """The visits after a step.

        Args:
            items: (N, K) rows of the catalogue.
            signals: (N, K, S) the visible signals, 0 at a place that was not shown.
            shown: (N, K) bool, places that were shown; None: all were.
            events: entries of the history, with visible signals, where it does not hold all shown items.
        """
        session = self.session.record(items, signals, shown, events)
        if shown is None:
            shown = torch.ones_like(items, dtype=torch.bool)
        config, catalogue = self.checkpoint.config.env_config, self.checkpoint.catalogue
        after = _pieces_of(self.checkpoint).after
        known = after(config, catalogue, self.known, items, Feedback(signals, shown, events))
        return replace(self, session=session, known=known)

    def consume(self, items: Tensor, shown: Tensor | None = None) -> Visit:
        """The visits after a step in which each shown item of ``items`` (N, K) was consumed in full.

        Where the history holds events, the items have been left again, and nothing plays.
        """
        interface = self.checkpoint.interface
        consumed = _pieces_of(self.checkpoint).consumed
        of_item = torch.tensor([consumed.get(name, 1.0) for name in interface.signals])  # (S,)
        if not interface.events:
            return self.record(items, of_item.expand(*items.shape, -1), shown)
        return replace(self, session=self.session.consumed(items, of_item, shown))

    def request(self, step: Request, row_of: Mapping[int | str, int]) -> Visit:
        """The visits after the same step of all; ``row_of`` has the row of each item. Raises UserError."""
        interface, places = self.checkpoint.interface, self.checkpoint.interface.slate_size
        if not 0 < len(step.shown) <= places:
            raise UserError(
                f"A step of this policy shows 1 to {places} items, but {len(step.shown)} are given: give one "
                "Request for each step."
            )
        if step.left and not interface.events:
            raise UserError(
                f"{self.checkpoint.config.env} has no items that are left later: give their signals in shown."
            )
        empty = places - len(step.shown)
        number, nothing = len(self.session.users), [0.0] * len(interface.signals)
        items = [row_of[event.item] for event in step.shown] + [0] * empty
        signals = [_signals(interface, event) for event in step.shown] + [nothing] * empty
        shown = None if not empty else torch.arange(places).expand(number, -1) < len(step.shown)
        events = None
        if interface.events:
            left = [row_of[event.item] for event in step.left] or [-1]
            of_left = [_signals(interface, event) for event in step.left] or [nothing]
            events = Events(_of_each(left, number), _of_each(of_left, number))
        return self.record(_of_each(items, number), _of_each(signals, number), shown, events)

    def at(self, hours: float | Tensor | None) -> Visit:
        """The visits at these hours, if the policy sees the hour; None leaves the clock as it is."""
        if hours is None or not _pieces_of(self.checkpoint).by_hour:  # a piece of a caller may be named hour
            return self
        hour = torch.as_tensor(hours, dtype=torch.float32).expand(len(self.session.users))
        return replace(self, known={**self.known, "hour": hour})

    @classmethod
    def together(cls, visits: Sequence[Visit]) -> Visit:
        """The people of several visits of one checkpoint as the rows of one, in their order.

        A server answers those who wait together: ``observe`` and ``act`` then take all of them at once.
        """
        first = visits[0]
        session = tree_map(lambda *pieces: torch.cat(pieces), *(visit.session for visit in visits))
        known = {name: torch.cat([visit.known[name] for visit in visits]) for name in first.known}
        return replace(first, session=session, known=known)

    def with_context(self, given: Mapping[str, Tensor]) -> Visit:
        """The visits with these pieces of the context, (N, size) each, until others are given."""
        return replace(self, known={**self.known, **given})

    def without_context(self, names: Sequence[str]) -> Visit:
        """The visits without these pieces, which must be given again before the next observation."""
        return replace(self, known={name: x for name, x in self.known.items() if name not in names})

    def next_visit(self, profiles: Tensor, gap: Tensor, hours: float | Tensor = NOON) -> Visit:
        """The same people's next visit, ``gap`` (N,) int64 days later; arguments as in ``begin``."""
        again, lasting = Visit.begin(self.checkpoint, profiles, hours), _pieces_of(self.checkpoint).lasting
        known = {**again.known, **{name: self.known[name] for name in lasting}}
        return replace(again, session=self.session.next_visit(gap), known=known)

    def pieces(self) -> Mapping[str, Tensor]:
        """The pieces of the context, (N, size) each, that the session does not make."""
        pieces = _pieces_of(self.checkpoint).pieces
        return pieces(self.checkpoint.config.env_config, self.checkpoint.catalogue, self.known)

    def observe(self, mask: Tensor | None = None) -> Obs:
        """The observations (N) of the next step.

        ``mask`` (N, I): items that may be shown; None: all that are available. A visit that is longer than
        those of the training is seen at its last step.
        """
        latest = self.checkpoint.interface.session_length - 1
        session = replace(self.session, steps=self.session.steps.clamp_max(latest))
        available = self.checkpoint.catalogue.available
        if mask is None and not bool(available.all()):
            mask = available.expand(len(session.users), -1)
        permits = _pieces_of(self.checkpoint).permits
        if permits is not None:
            config, catalogue = self.checkpoint.config.env_config, self.checkpoint.catalogue
            permitted = permits(config, catalogue, self.known)  # (N, I)
            mask = permitted if mask is None else permitted & mask
        return session.request(self.pieces(), mask)


def _of_each(values: Sequence[object], number: int) -> Tensor:
    """(N, ...): the same values for each of N people."""
    one = torch.tensor(values)
    return one.expand(number, *one.shape)


def _signals(interface: Interface, event: Event) -> list[float]:
    """The visible signals of an event. Raises UserError for an unknown name or an impossible value."""
    if not isinstance(event.signals, Mapping):
        example = "{" + ", ".join(f"{name!r}: 1.0" for name in interface.signals[:1]) + "}"
        raise UserError(
            f"The signals of item {schema.shown(event.item)} are {schema.shown(event.signals)}: give their "
            f"values by name, as in {example}."
        )
    if not event.signals.keys() <= set(interface.signals):
        unknown = next(name for name in event.signals if name not in interface.signals)
        raise UserError(
            f"This policy sees no signal {schema.shown(unknown)}: choose from {listed(interface.signals)}."
        )
    values = [float(event.signals.get(name, 0.0)) for name in interface.signals]
    if not all(map(math.isfinite, values)):
        raise UserError(
            f"A signal of item {schema.shown(event.item)} is not a finite number: give finite numbers."
        )
    return values


def _pieces_of(checkpoint: Checkpoint) -> VisitPieces:
    """The platform's; without them, those of a platform that hands in the profile alone."""
    pieces: VisitPieces | None = checkpoint.config.platform.visit_pieces
    if pieces is not None:
        return pieces
    names = [name for name, _ in checkpoint.interface.context if name not in PIECES]
    if len(names) > 1:
        raise UserError(
            f"The policy needs more than the profile of a user ({', '.join(names[1:])}), and the platform "
            f"{checkpoint.config.env} can't make this from a visitor's events: give its Platform "
            "visit_pieces."
        )
    return VisitPieces(
        begin=lambda config, catalogue, profiles, hours: dict.fromkeys(names, profiles),
        after=lambda config, catalogue, known, items, seen: known,
        pieces=lambda config, catalogue, known: known,
    )


def _check_sizes(checkpoint: Checkpoint, pieces: Mapping[str, Tensor]) -> None:
    """Raise UserError for a piece that is missing, or of another size than in the training."""
    wanted = {name: size for name, size in checkpoint.interface.context if name not in PIECES}
    wrong = [name for name, size in wanted.items() if name not in pieces or pieces[name].shape[1:] != (size,)]
    if wrong:
        raise UserError(
            f"The policy needs {', '.join(wrong)} of the sizes of its training, and "
            f"{checkpoint.config.env} can't make this from a visitor's events in this version: train again."
        )

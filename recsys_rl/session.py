"""Sessions under way: from the items and signals so far to the observation of the next step.

The environment, the reader of a log and a server all make their observations here. A session holds no user
profile: the caller passes it, and every other piece of the context that is not in PIECES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional import rows
from recsys_rl.types import Catalogue, Events, Interface, Obs, UserError


@dataclass(frozen=True)
class Session:
    """N sessions. ``record`` returns the sessions after a step and changes nothing in place."""

    interface: Interface
    catalogue: Catalogue
    users: Tensor  # (N,) int64: the caller's own numbers
    steps: Tensor  # (N,) int64: steps so far
    history: Tensor  # (N, W) int64: the last W items, latest last, -1 padding first; W = max(L, K)
    signals: Tensor  # (N, W, S) float32: the visible signals of each, 0 at padding
    # (N, T K) int64: all items shown, -1 at empty places; None if the history holds them, or they repeat
    shown_items: Tensor | None
    visit: Tensor | None = None  # (N,) int64: visits before this one; None: an episode is one visit
    day: Tensor | None = None  # (N,) int64: days since the first visit

    @classmethod
    def begin(cls, interface: Interface, catalogue: Catalogue, users: Tensor) -> Session:
        """New sessions of ``users`` (N,) before their first step."""
        n, device = len(users), users.device
        window, most = max(interface.history_length, interface.slate_size), interface.most_shown
        apart = interface.events or interface.visits > 1  # then the history is not all that was shown
        first = torch.zeros(n, dtype=torch.int64, device=device) if interface.visits > 1 else None
        return cls(
            interface=interface,
            catalogue=catalogue,
            users=users,
            steps=torch.zeros(n, dtype=torch.int64, device=device),
            history=torch.full((n, window), -1, device=device),
            signals=torch.zeros(n, window, len(interface.signals), device=device),
            shown_items=(
                torch.full((n, most), -1, device=device) if most and (window < most or apart) else None
            ),
            visit=first,
            day=first,
        )

    def record(
        self, items: Tensor, signals: Tensor, shown: Tensor | None = None, events: Events | None = None
    ) -> Session:
        """The sessions after a step with ``items`` (N, K) and their ``signals`` (N, K, S).

        Only the places that were ``shown`` (N, K) are recorded. None: all were.
        ``events``, with the visible signals, are the new entries of the history in place of the items.
        """
        history, seen, shown_items = self.history, self.signals, self.shown_items
        slate_size = self.interface.slate_size
        if events is not None:
            if shown_items is not None:
                shown_items = _append(shown_items, items, shown)  # (N, T K)
            there = events.items >= 0  # (N, E)
            history = _push(history, events.items, there)  # (N, W)
            seen = _push(seen, events.signals, there)  # (N, W, S)
        elif shown is None and shown_items is None and history.shape[1] == slate_size:
            # Copy: the caller still holds these tensors.
            history, seen = items.to(history, copy=True), signals.to(seen, copy=True)
        else:
            history = _push(history, items, shown)  # (N, W)
            seen = _push(seen, signals, shown)  # (N, W, S)
            if shown_items is not None:
                shown_items = _append(shown_items, items, shown)  # (N, T K)
        steps = self.steps + 1
        # ``replace`` would take as long as two operators of a step with few users.
        return Session(
            self.interface,
            self.catalogue,
            self.users,
            steps,
            history,
            seen,
            shown_items,
            self.visit,
            self.day,
        )

    def consumed(self, items: Tensor, signals: Tensor, shown: Tensor | None = None) -> Session:
        """The sessions after a step whose shown ``items`` (N, K) all had these visible ``signals`` (S,).

        Where the history holds events, the items have been left again.
        """
        of_item = signals.expand(*items.shape, -1)  # (N, K, S)
        left = items if shown is None else items.masked_fill(~shown, -1)
        return self.record(items, of_item, shown, Events(left, of_item) if self.interface.events else None)

    def next_visit(self, gap: Tensor) -> Session:
        """The sessions at the start of the users' next visit, ``gap`` (N,) int64 days later.

        Every item may be shown again. The history begins anew, so that its length is that of this visit.
        A history of events goes on.
        """
        assert self.visit is not None and self.day is not None
        goes_on = self.interface.events
        return replace(
            self,
            steps=torch.zeros_like(self.steps),
            history=self.history if goes_on else torch.full_like(self.history, -1),
            signals=self.signals if goes_on else torch.zeros_like(self.signals),
            shown_items=None if self.shown_items is None else torch.full_like(self.shown_items, -1),
            visit=self.visit + 1,
            day=self.day + gap,
        )

    def request(self, given: Mapping[str, Tensor], mask: Tensor | None = None) -> Obs:
        """The observation of the next step.

        Args:
            given: the pieces of the context that are not in PIECES, (N, size) each.
            mask: (N, I) bool, True for items that may be shown; None if the caller forbids none.
        """
        context = self._context(given)
        if not self.interface.history_length:
            return Obs(context, exclude=self.excluded, mask=mask)
        return Obs(context, self.history, self.seen, self.excluded, mask=mask)

    @property
    def seen(self) -> Tensor:
        """(N, W, S): the signals of the history as observations have them; relative if the interface says so.

        Relative signals are their distances from the session's mean so far: s_k - mean(s_1 ... s_n) at entry
        k of n, 0 at padding.
        """
        return relative(self.history, self.signals) if self.interface.relative else self.signals

    @property
    def excluded(self) -> Tensor | None:
        """(N, X) int64: items that may not be shown again, -1 padding; None where items repeat.

        It is the same tensor as ``history`` if that holds all of them.
        """
        if self.interface.repeats:
            return None
        return self.history if self.shown_items is None else self.shown_items

    def _context(self, given: Mapping[str, Tensor]) -> Tensor:
        names = [name for name, _ in self.interface.context]
        if names[1:] == ["last_item"] and names[0] in given and self.interface.slate_size == 1:
            user, table = given[names[0]], self.catalogue.embedding  # (N, D), (I, D)
            if user.shape[1] == table.shape[1]:  # One pass instead of two, with the same numbers.
                return rows.beside_rows(user, table, self.history[:, -1:].contiguous())
        parts = [given[name] if name in given else PIECES[name].read(self) for name in names]
        return torch.cat(parts, -1)


def _push(old: Tensor, fresh: Tensor, shown: Tensor | None) -> Tensor:
    """``old`` (N, W, ...) moved on by the entries ``fresh`` (N, E, ...) that are ``shown`` (N, E)."""
    number = fresh.shape[1]
    if number > 1 and (shown is None or bool(shown.all())):  # in one pass instead of E
        return torch.cat([old[:, number:], fresh.to(old)], 1)
    if shown is None:
        shown = torch.ones(fresh.shape[:2], dtype=torch.bool, device=fresh.device)
    if number == 1:
        return rows.push_rows(old, fresh.to(old).contiguous(), shown.contiguous())
    for index in range(number):  # One after another, as each row may lack other places.
        at = slice(index, index + 1)
        old = rows.push_rows(old, fresh[:, at].to(old).contiguous(), shown[:, at].contiguous())
    return old


def _append(shown_items: Tensor, items: Tensor, shown: Tensor | None) -> Tensor:
    """``shown_items`` (N, T K) moved on by the ``items`` (N, K) of a step, -1 where not ``shown`` (N, K)."""
    fresh = items if shown is None else items.masked_fill(~shown, -1)
    return torch.cat([shown_items[:, items.shape[1] :], fresh], 1)


def _last_item(session: Session) -> Tensor:
    """(N, D): mean embedding of the last K items shown, zero before the first."""
    last = session.history[:, -session.interface.slate_size :]  # (N, K)
    table, there = session.catalogue.embedding, last >= 0
    nothing = table.new_zeros(len(last), table.shape[1])
    total = rows.add_rows(nothing, table, last.clamp_min(0), there)
    return total / there.sum(1, keepdim=True).clamp_min(1)


def _last_signals(session: Session) -> Tensor:
    """(N, K S): the visible signals of the last K items shown, 0 before the first."""
    return session.signals[:, -session.interface.slate_size :].flatten(1)


def relative(history: Tensor, signals: Tensor) -> Tensor:
    """``signals`` (N, W, S) minus their mean over the entries of ``history`` (N, W); 0 at padding, -1."""
    there = (history >= 0).unsqueeze(-1)  # (N, W, 1)
    mean = signals.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1)  # (N, 1, S)
    return (signals - mean) * there


def _relative_signals(session: Session) -> Tensor:
    """(N, K S): ``_last_signals`` minus the means of these signals over the session so far."""
    last = relative(session.history, session.signals)[:, -session.interface.slate_size :]
    return last.flatten(1)


def _clock(session: Session) -> Tensor:
    """(N, 1): share of the session that is over, in [0, 1]."""
    return (session.steps / session.interface.session_length).unsqueeze(1)


def _streak(session: Session) -> Tensor:
    """(N, 1): number of latest items, in a row, with the same creator, within the history."""
    history = session.history  # (N, W)
    known = session.catalogue.attributes["creator"]
    creators = known.index_select(0, history.flatten().clamp_min(0)).view_as(history)  # (N, W)
    same = (history >= 0) & (creators == creators[:, -1:])
    # The streak begins after the last entry of another creator.
    places = torch.arange(1, history.shape[1] + 1, dtype=torch.float32, device=history.device)  # (W,)
    last_other = places.where(~same, places.new_zeros(())).amax(1, keepdim=True)  # (N, 1), 0 for none
    return history.shape[1] - last_other


class SessionPiece(NamedTuple):
    """A piece of the context that is computed from the session."""

    read: Callable[[Session], Tensor]
    size: Callable[[Catalogue, int], int]  # from the items and the number of signals of a step, K S


PIECES = {
    "last_item": SessionPiece(_last_item, lambda items, signals: items.embedding.shape[1]),
    "last_signals": SessionPiece(_last_signals, lambda items, signals: signals),
    "relative_signals": SessionPiece(_relative_signals, lambda items, signals: signals),
    "clock": SessionPiece(_clock, lambda items, signals: 1),
    "streak": SessionPiece(_streak, lambda items, signals: 1),
}


def make_interface(
    catalogue: Catalogue,
    *,
    context: Sequence[str],
    given: Mapping[str, int],
    signals: Sequence[str],
    session_length: int,
    slate_size: int = 1,
    repeats: bool = False,
    history_length: int | None = None,
    events: bool = False,
    visits: int = 1,
    relative: bool = False,
    patterns: tuple[tuple[int, ...], ...] = (),
) -> Interface:
    """The interface of sessions over ``catalogue``.

    Args:
        context: names of the pieces of the context, in their order.
        given: sizes of the pieces that the caller passes to ``Session.request``.
        signals: names of the visible signals.
        session_length: T, steps of the longest session, or visit.
        slate_size: K, items of each step.
        repeats: True if an item may be shown twice in a session.
        history_length: L, items in the history. None: all items of a session, or 0 if items repeat.
        events: True if the history holds events (``Session.record``), and not all shown items.
        visits: most visits of an episode; 1: an episode is one visit.
        relative: True if the signals in the history are relative to the session so far (``Session.seen``).
        patterns: sequences of kinds of the places of a slate; (): any.

    The first piece is the user's embedding if the caller passes it.

    Raises UserError for an unknown piece, and for sizes that don't fit together.
    """
    most = session_length * slate_size
    length = (0 if repeats else most) if history_length is None else min(history_length, most)
    _check_sizes(catalogue, slate_size, repeats, length)
    own = {name: piece.size(catalogue, slate_size * len(signals)) for name, piece in PIECES.items()}
    sizes = own | dict(given)
    _check_pieces([name for name in context if name not in given], catalogue, length)
    if length < most and (relative or ("relative_signals" in context and "relative_signals" not in given)):
        raise UserError(
            f"Signals relative to the session so far need a history of the whole session, {most} items, but "
            f"it holds {length}: make it longer, or leave them out."
        )
    return Interface(
        context=tuple((name, sizes[name]) for name in context),
        action_sizes=(catalogue.num_items,),
        slate_size=slate_size,
        repeats=repeats,
        history_length=length,
        signals=tuple(signals),
        session_length=session_length,
        events=events,
        visits=visits,
        profile=context[0] in given if context else False,
        relative=relative,
        patterns=patterns,
    )


def _check_pieces(names: Sequence[str], catalogue: Catalogue, history_length: int) -> None:
    """Raise UserError for pieces that can't be computed from sessions over this catalogue."""
    strange = [name for name in names if name not in PIECES]
    if strange:
        known = ", ".join(PIECES)
        raise UserError(
            f"There is no piece {strange[0]!r} of the context: choose from {known}, or pass it in."
        )
    for missing, what in (
        ("creator" not in catalogue.attributes, "the attribute 'creator' of the items"),
        (not history_length, "a history"),
    ):
        if "streak" in names and missing:
            raise UserError(
                f"The piece 'streak' of the context needs {what}, and there is none: leave it out."
            )


def _check_sizes(catalogue: Catalogue, slate_size: int, repeats: bool, history_length: int) -> None:
    available = int(catalogue.available.sum())
    if slate_size > available:
        raise UserError(
            f"A slate of {slate_size} items is larger than the {available} available items: use a smaller "
            "slate, or a larger catalogue."
        )
    if 0 < history_length < slate_size or (not repeats and history_length == 0):
        raise UserError(
            f"A history of {history_length} items is shorter than a slate of {slate_size}: make it longer."
        )

"""The arms of a release: which sessions, or people, the challenger answers.

The arm is a function of the rows of the record, so it is the same after a start, and in the tools that read
the record. A hash of the session, or of its person, is a number in [0, 1), and the challenger has those below
its share: a larger share moves nobody back. A session has the share at its begin, and keeps its arm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from recsys_rl.serving.record.record_schema import Arm, Release


class Assigned(NamedTuple):
    """The arm of a session."""

    arm: Arm
    probability: float  # with which it got this arm


NONE = Assigned("", 1.0)
"""Of a session that is in no release: the champion answers."""


@dataclass(frozen=True)
class UnderWay:
    """A release that has begun and not ended."""

    start: Release
    shares: tuple[tuple[int, float], ...]
    """Each with the number of the row from which on it holds; 0 while the release was frozen."""
    frozen: Release | None = None  # the row that froze it, if it is now

    @property
    def challenger(self) -> str:
        return self.start.challenger

    @property
    def share(self) -> float:
        """The present share of the challenger; in a frozen release the last one."""
        return next(share for _, share in reversed(self.shares) if share)

    def assigned(self, person: str, visit: int, session: int | None = None) -> Assigned:
        """The arm of a session.

        Args:
            person: the name of its person.
            visit: the person's sessions before it.
            session: its number in the record; None if it begins now.
        """
        start = self.start
        before = (share for number, share in reversed(self.shares) if session is None or number < session)
        share = next(before, 0.0)
        if not share:  # it began before the release, or while that was frozen
            return NONE
        unit = person if start.unit == "user" else f"{person} {visit}"
        if number_of(f"{start.number} {start.challenger}", unit) < share:
            return Assigned("challenger", share)
        return Assigned("champion", 1 - share)


def number_of(salt: str, unit: str) -> float:
    """A number in [0, 1) of a unit, independent of those of other salts."""
    key = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    digest = hashlib.blake2b(unit.encode(), digest_size=7, key=key).digest()
    return (int.from_bytes(digest, "big") >> 3) / 2.0**53


@dataclass(frozen=True)
class History:
    """The state that the rows of releases give, in their order."""

    champion: str = ""  # SHA-256 of the version that serves since the last row; "" before the first
    under_way: UnderWay | None = None
    before: tuple[str, ...] = ()  # champions that promotions have replaced, the latest last
    last: int = 0  # number of the last row

    def after(self, row: Release) -> History:
        """The state after one more row."""
        champion, under_way, before = row.champion, self.under_way, self.before
        if row.kind == "promote":
            before = (*before, self.champion)
        elif row.kind == "back" and under_way is None:
            before = before[:-1]
        elif champion != self.champion:  # another version was made the champion in between
            before = ()
        if row.kind == "start":
            under_way = UnderWay(row, ((row.number, row.share),))
        elif row.kind == "share" and under_way is not None:
            under_way = replace(under_way, shares=(*under_way.shares, (row.number, row.share)), frozen=None)
        elif row.kind == "freeze" and under_way is not None:
            under_way = replace(under_way, shares=(*under_way.shares, (row.number, 0.0)), frozen=row)
        else:
            under_way = None
        return History(champion, under_way, before, row.number)


def history_of(rows: Sequence[Release]) -> History:
    """The state after these rows."""
    history = History()
    for row in rows:
        history = history.after(row)
    return history

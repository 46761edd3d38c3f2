"""The actions of a release, in the worker's thread: start, share, promote, freeze, back and stop.

Each one is checked, written down as a row of the record together with the champion, and only then it holds.
So a process that is killed at any moment starts again with the state of the last row (``history_of``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from recsys_rl.data.tables.pieces import differ_in_gaps
from recsys_rl.errors import UserError
from recsys_rl.serving import messages
from recsys_rl.serving.jobs import Shared
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.place import no_policy
from recsys_rl.serving.record.record_schema import Release, ReleaseKind, Unit
from recsys_rl.serving.record.store import Full, Store
from recsys_rl.serving.releases.active_version import ActiveVersion, PolicyFiles
from recsys_rl.serving.releases.arms import UnderWay, history_of
from recsys_rl.serving.versions import Version

FAILED = "failed three times in a row"


@dataclass(frozen=True)
class Start:
    """Let ``version`` answer a share of the units. Raises Problem."""

    version: Version
    share: float
    unit: Unit
    reason: str
    verdict: Mapping[str, Any] | None  # of the gate

    def __call__(self, shared: Shared) -> None:
        active, sha256 = shared.active, self.version.row.sha256
        if not active.version.decides:
            raise no_policy()
        if active.history.under_way is not None:
            raise Problem(
                409,
                "release-under-way",
                f"The release of {active.history.under_way.challenger[:8]} is under way: promote it, or end "
                "it with back.",
            )
        if sha256 == active.version.row.sha256:
            raise Problem(409, "is-champion", "This version serves already: give another one.")
        if self.version.two_stages or active.version.two_stages:  # no log holds probabilities of both arms
            raise Problem(
                409,
                "two-stages",
                "A policy that chooses among candidates of its first stage takes no part in a release: serve "
                "it alone, with alias.",
            )
        piece = differ_in_gaps(self.version.pieces, active.version.pieces)
        if piece is not None:  # one would refuse requests that the other answers
            raise Problem(
                409,
                "other-gaps",
                f"The challenger and the champion differ in the gaps that context.{piece} may have: train "
                "the challenger with --checkpoint and the champion's file, which brings its encodings.",
            )
        if self.verdict is not None and not self._judged(sha256, active.version.row.sha256):
            raise Problem(
                409,
                "other-verdict",
                "The verdict is not about this challenger and the champion that serves: judge it again with "
                f"recsys-rl gate, or delete {sha256[:8]}....gate.json beside it.",
            )
        write(shared, "start", sha256, self.share, self.unit, self.reason, self.verdict)
        active.challenger = self.version

    def _judged(self, challenger: str, champion: str) -> bool:
        """True if the verdict is about these two."""
        verdict = self.verdict or {}
        return (verdict.get("challenger"), verdict.get("champion")) == (challenger, champion)


@dataclass(frozen=True)
class Share:
    """Raise the challenger's share, or end a freeze with the same one. Raises Problem."""

    share: float

    def __call__(self, shared: Shared) -> None:
        release = under_way(shared)
        if self.share < release.share or (self.share == release.share and release.frozen is None):
            raise Problem(
                409,
                "not-larger",
                f"The share is {release.share:g} already, and a smaller one would move people back: give a "
                "larger one, or end the release with back.",
            )
        challenger_of(shared)
        write(shared, "share", release.challenger, self.share, release.start.unit)


@dataclass(frozen=True)
class Promote:
    """Make ``challenger`` the champion. Raises Problem if its release is not under way.

    ``canary`` is the latest look of the canary at the release with the number ``release``.
    """

    challenger: str
    release: int
    canary: Mapping[str, Any]
    without_gate: bool
    reason: str

    def __call__(self, shared: Shared) -> None:
        active, release = shared.active, under_way(shared, self.release)
        if release.challenger != self.challenger:
            raise other_challenger()
        version = challenger_of(shared)
        gate = None if not release.start.verdict else msgspec.json.decode(release.start.verdict)
        if not self.without_gate and self.canary.get("answer") != "better":
            doubt = f" ({self.canary['doubt']})" if self.canary.get("doubt") else ""
            raise Problem(
                409,
                "no-canary",
                "The challenger is not yet better: the canary's answer is "
                f"{self.canary.get('answer')}{doubt}; without_gate (--without-gate) promotes it all the "
                "same, and is written down.",
            )
        verdict = {"gate": gate, "canary": self.canary, "without_gate": self.without_gate}
        write(shared, "promote", release.challenger, 1.0, release.start.unit, self.reason, verdict, version)
        active.serve(version)


@dataclass(frozen=True)
class Freeze:
    """Give the challenger no new sessions; those under way keep their arm. Raises Problem.

    ``release``: only the release of this number.
    """

    reason: str
    release: int | None = None

    def __call__(self, shared: Shared) -> None:
        release = under_way(shared, self.release)
        if release.frozen is None:
            write(shared, "freeze", release.challenger, release.share, release.start.unit, self.reason)


@dataclass(frozen=True)
class Back:
    """End the release of ``challenger``. Raises Problem if it is not under way.

    So a request that is sent again, as its answer was lost, does nothing more.
    """

    reason: str
    challenger: str

    def __call__(self, shared: Shared) -> None:
        release = shared.active.history.under_way
        if release is None or release.challenger != self.challenger:
            raise other_challenger()
        write(shared, "back", release.challenger, 0.0, release.start.unit, self.reason)
        shared.active.challenger = None


@dataclass(frozen=True)
class TakeBack:
    """Take the promotion of the champion ``promotion`` back. Raises Problem if it is not the last one.

    ``version`` is the champion before it, if there was one.
    """

    reason: str
    promotion: str
    version: Version | None

    def __call__(self, shared: Shared) -> None:
        active = shared.active
        if active.history.under_way is not None:
            raise Problem(409, "release-under-way", "A release is under way: end it first, with back.")
        wanted, now = champion_before(active), active.version.row.sha256
        if now != self.promotion or wanted is None or self.version is None:
            raise Problem(
                409, "nothing-to-take-back", "This version is not the champion, or no release promoted it."
            )
        if self.version.row.sha256 != wanted:  # promoted once more in the same moment
            raise Problem(409, "nothing-to-take-back", "Another promotion came in between: try again.")
        write(shared, "back", now, 0.0, "session", self.reason, champion=self.version)
        active.serve(self.version)
        active.previous = None  # nobody wants the one that was taken back


@dataclass(frozen=True)
class Stop:
    """End the release of this number, because its challenger harms; nothing if it has ended."""

    release: int
    reason: str
    verdict: Mapping[str, Any] | None

    def __call__(self, shared: Shared) -> None:
        release = shared.active.history.under_way
        if release is not None and release.start.number == self.release:
            stop(shared, release, self.reason, self.verdict)


def stop(shared: Shared, release: UnderWay, reason: str, verdict: Mapping[str, Any] | None) -> None:
    """End the release at once: the champion answers everybody. Raises Problem without room."""
    print(f"the release of {release.challenger[:8]} has stopped: {reason}", file=sys.stderr)
    shared.active.challenger = None  # also where it can't be written down
    write(shared, "stop", release.challenger, 0.0, release.start.unit, reason, verdict)


def fall_back(shared: Shared, version: Version) -> None:
    """``version`` failed three times in a row: another one serves in its place, or else popularity."""
    active, release = shared.active, shared.active.history.under_way
    previous, is_champion = active.previous, version is active.version
    print(f"the policy {FAILED} and serves no more", file=sys.stderr)
    if is_champion and previous is None:
        active.broken = True
        return
    if is_champion and previous is not None:
        active.serve(previous)
        active.previous = None
    # Whatever becomes of the row: who answers now is in no arm.
    active.history = replace(active.history, under_way=None)
    try:
        if release is not None:
            stop(shared, release, f"the {'champion' if is_champion else 'challenger'} {FAILED}", None)
        else:
            active.write_champion()
    except Problem as problem:  # it must not wait for room
        print(f"after a start the version that failed serves again: {problem.detail}", file=sys.stderr)


def under_way(shared: Shared, number: int | None = None) -> UnderWay:
    """The release under way, with this ``number`` if one is given. Raises Problem if there is none."""
    release = shared.active.history.under_way
    if release is None or (number is not None and release.start.number != number):
        raise Problem(409, "no-release", "No release is under way: start one.")
    return release


def other_challenger() -> Problem:
    """The challenger that was named is not the one of the release under way."""
    return Problem(409, "no-release", "The release of this challenger is not under way any more.")


def challenger_of(shared: Shared) -> Version:
    """The challenger. Raises Problem if it could not be opened when the server started."""
    if shared.active.challenger is None:
        raise Problem(
            409, "no-file", "The challenger's file is missing: put it back and start the server again."
        )
    return shared.active.challenger


def champion_before(active: ActiveVersion) -> str | None:
    """The SHA-256 of the champion before the last promotion; None if none can be taken back."""
    history = active.history
    if history.under_way is not None or not history.before:
        return None
    return history.before[-1] if history.champion == active.version.row.sha256 else None


def write(
    shared: Shared,
    kind: ReleaseKind,
    challenger: str,
    share: float,
    unit: Unit,
    reason: str = "",
    verdict: Mapping[str, Any] | None = None,
    champion: Version | None = None,
) -> None:
    """Write an action down, on the disk; ``champion``: another version serves from this row on.

    Raises Problem if there is no room, Lost.
    """
    active = shared.active
    row = Release(
        number=shared.transaction.number(),
        time=shared.clock(),
        kind=kind,
        champion=(champion or active.version).row.sha256,
        challenger=challenger,
        share=share,
        unit=unit,
        reason=reason,
        verdict="" if verdict is None else msgspec.json.encode(verdict).decode(),
    )
    try:
        shared.store.write([row], durable=True)
    except Full as full:
        raise messages.no_room(str(full)) from full
    active.history = active.history.after(row)


@dataclass(frozen=True)
class AtStart:
    """The challenger of a server that starts, and what must be written down about the release."""

    challenger: Version | None = None
    action: Freeze | Stop | None = None


def at_start(store: Store, policies: PolicyFiles, champion: Version) -> AtStart:
    """The release under way in the record, with its challenger's file. Raises Damaged."""
    release = history_of(store.releases()).under_way
    if release is None:
        return AtStart()
    if release.start.champion != champion.row.sha256:
        reason = "the server was started with another version"
        return AtStart(None, Stop(release.start.number, reason, None))
    file = next((row.file for row in store.policies() if row.sha256 == release.challenger), None)
    try:
        policies.version(release.challenger, file)  # from then on it is open
        version = policies.tried(release.challenger, [])
        return AtStart(version)
    except (UserError, Problem) as error:
        why = error.detail if isinstance(error, Problem) else str(error)
        return AtStart(None, Freeze(f"the challenger can't serve: {why}", release.start.number))

"""What each action of a release changes, in the worker's thread.

Each one is checked, written down as a row of the record together with the champion, and only then it holds.
So a process that is killed at any moment starts again with the state of the last row (``history_of``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from recsys_rl.data.tables.pieces import differ_in_gaps
from recsys_rl.errors import UserError
from recsys_rl.serving import messages
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.record.record_schema import Release, ReleaseKind, Unit
from recsys_rl.serving.record.store import Full, Store
from recsys_rl.serving.releases.active_version import ActiveVersion, PolicyFiles
from recsys_rl.serving.releases.arms import UnderWay, history_of
from recsys_rl.serving.work.jobs import Shared

FAILED = "failed three times in a row"
Change = Callable[[Shared], None]
"""Raises Problem, Lost."""
Verdict = Mapping[str, Any] | None


def alias(shared: Shared, version: Version, reason: str) -> None:
    """Let ``version`` answer everybody."""
    _check_nothing_under_way(shared)
    write(shared, "alias", "", 1.0, reason=reason, champion=version)
    shared.active.serve(version)


def start(
    shared: Shared, version: Version, share: float, unit: Unit, reason: str = "", verdict: Verdict = None
) -> None:
    """Let ``version`` answer a share of the units; ``verdict``: of the gate."""
    active, sha256 = shared.active, version.row.sha256
    if not active.version.decides:
        raise messages.no_policy()
    _check_nothing_under_way(shared)
    if sha256 == active.version.row.sha256:
        raise Problem(409, "is-champion", "This version serves already: give another one.")
    if version.two_stages or active.version.two_stages:  # no log holds probabilities of both arms
        raise Problem(
            409,
            "two-stages",
            "A policy that chooses among candidates of its first stage takes no part in a release: serve it "
            "alone, with alias.",
        )
    piece = differ_in_gaps(version.pieces, active.version.pieces)
    if piece is not None:  # one would refuse requests that the other answers
        raise Problem(
            409,
            "other-gaps",
            f"The challenger and the champion differ in the gaps that context.{piece} may have: train the "
            "challenger with --checkpoint and the champion's file, which brings its encodings.",
        )
    judged = {} if verdict is None else {verdict.get("challenger"): verdict.get("champion")}
    if verdict is not None and judged != {sha256: active.version.row.sha256}:
        raise Problem(
            409,
            "other-verdict",
            "The verdict is not about this challenger and the champion that serves: judge it again with "
            f"recsys-rl gate, or delete {sha256[:8]}....gate.json beside it.",
        )
    write(shared, "start", sha256, share, unit, reason, verdict)
    active.challenger = active.of_now(version)


def share(shared: Shared, share: float) -> None:
    """Raise the challenger's share, or end a freeze with the same one."""
    release = under_way(shared)
    if share < release.share or (share == release.share and release.frozen is None):
        raise Problem(
            409,
            "not-larger",
            f"The share is {release.share:g} already, and a smaller one would move people back: give a "
            "larger one, or end the release with back.",
        )
    challenger_of(shared)
    write(shared, "share", release.challenger, share, release.start.unit)


def promote(
    shared: Shared,
    challenger: str,
    without_gate: bool,
    reason: str,
    number: int,
    canary: Mapping[str, Any],
) -> None:
    """Make ``challenger`` the champion; ``canary``: its latest look at the release of this number."""
    release = under_way(shared, number)
    if release.challenger != challenger:
        raise other_challenger()
    version = challenger_of(shared)
    if not without_gate and canary.get("answer") != "better":
        doubt = f" ({canary['doubt']})" if canary.get("doubt") else ""
        raise Problem(
            409,
            "no-canary",
            f"The challenger is not yet better: the canary's answer is {canary.get('answer')}{doubt}; "
            "without_gate (--without-gate) promotes it all the same, and is written down.",
        )
    gate = None if not release.start.verdict else msgspec.json.decode(release.start.verdict)
    verdict = {"gate": gate, "canary": canary, "without_gate": without_gate}
    write(shared, "promote", challenger, 1.0, release.start.unit, reason, verdict, version)
    shared.active.serve(version)


def freeze(shared: Shared, reason: str, number: int | None = None) -> None:
    """Give the challenger no new sessions; those under way keep their arm.

    ``number``: only the release of this one.
    """
    release = under_way(shared, number)
    if release.frozen is None:
        write(shared, "freeze", release.challenger, release.share, release.start.unit, reason)


def end(shared: Shared, challenger: str, reason: str) -> None:
    """End the release of ``challenger``. Raises Problem if it is not under way, as for a second request."""
    release = shared.active.history.under_way
    if release is None or release.challenger != challenger:
        raise other_challenger()
    write(shared, "back", release.challenger, 0.0, release.start.unit, reason)
    shared.active.challenger = None


def take_back(shared: Shared, promotion: str | None, reason: str, version: Version | None) -> None:
    """Take the promotion of the champion ``promotion`` back; ``version``: the champion before, or None."""
    active = shared.active
    _check_nothing_under_way(shared)
    wanted, now = champion_before(active), active.version.row.sha256
    if now != promotion or wanted is None or version is None:
        raise Problem(
            409, "nothing-to-take-back", "This version is not the champion, or no release promoted it."
        )
    if version.row.sha256 != wanted:  # promoted once more in the same moment
        raise Problem(409, "nothing-to-take-back", "Another promotion came in between: try again.")
    write(shared, "back", now, 0.0, reason=reason, champion=version)
    active.serve(version)
    active.previous = None  # nobody wants the one that was taken back


def stop(shared: Shared, number: int, reason: str, verdict: Verdict = None) -> None:
    """End the release of this number, because its challenger harms; nothing if it has ended."""
    release = shared.active.history.under_way
    if release is not None and release.start.number == number:
        _stop(shared, release, reason, verdict)


def _stop(shared: Shared, release: UnderWay, reason: str, verdict: Verdict) -> None:
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
            _stop(shared, release, f"the {'champion' if is_champion else 'challenger'} {FAILED}", None)
        else:
            active.write_champion()
    except Problem as problem:  # it must not wait for room
        print(f"after a start the version that failed serves again: {problem.detail}", file=sys.stderr)


def _check_nothing_under_way(shared: Shared) -> None:
    """Raise Problem while a release is under way."""
    release = shared.active.history.under_way
    if release is not None:
        raise Problem(
            409,
            "release-under-way",
            f"The release of {release.challenger[:8]} is under way: promote it, or end it with back.",
        )


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
    unit: Unit = "session",
    reason: str = "",
    verdict: Verdict = None,
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
    change: Change | None = None


def at_start(store: Store, policies: PolicyFiles, champion: Version) -> AtStart:
    """The release under way in the record, with its challenger's file. Raises Damaged."""
    release = history_of(store.releases()).under_way
    if release is None:
        return AtStart()
    number = release.start.number
    if release.start.champion != champion.row.sha256:
        reason = "the server was started with another version"
        return AtStart(change=partial(stop, number=number, reason=reason))
    file = next((row.file for row in store.policies() if row.sha256 == release.challenger), None)
    try:
        policies.version(release.challenger, file)  # from then on it is open
        return AtStart(policies.tried(release.challenger, []))
    except (UserError, Problem) as error:
        reason = f"the challenger can't serve: {error.detail if isinstance(error, Problem) else error}"
        return AtStart(change=partial(freeze, reason=reason, number=number))

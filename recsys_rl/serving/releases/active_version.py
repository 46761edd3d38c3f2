"""The version that answers a request: the one that serves, how another replaces it, and how it comes back.

The record keeps the SHA-256 of the version that serves (facts.py), so that the same one serves after a start.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from recsys_rl.data.timeline import NEVER
from recsys_rl.errors import UserError, one_line
from recsys_rl.recommender.visit import NOON
from recsys_rl.serving import messages
from recsys_rl.serving.draw.decide_again import request_of
from recsys_rl.serving.draw.draw_request import DrawRequest, draw
from recsys_rl.serving.draw.rule import LATE, NOT_FINITE, RAISED
from recsys_rl.serving.draw.versions import Version, files_in, open_version
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.record.facts import CHAMPION, facts_of
from recsys_rl.serving.record.record_schema import Damaged, Decision, ServedPolicy, SessionRows
from recsys_rl.serving.record.snapshot import champion_in
from recsys_rl.serving.record.stock import Stock
from recsys_rl.serving.record.store import Full, Store
from recsys_rl.serving.releases.arms import NONE, Assigned, history_of
from recsys_rl.utils.files import sha256_of

FAULTS = 3  # of a policy in a row, after which the version before serves again
LATEST = 4
"""Versions that stay open, each with its catalogue and network, besides those that serve."""
TRIED = 32  # latest decisions on which a new version is tried


class ActiveVersion:
    """``version``, the champion, answers each request; ``broken``: popularity does in its place.

    While a release is under way its ``challenger`` answers some sessions.
    """

    def __init__(self, store: Store, version: Version, challenger: Version | None = None) -> None:
        """Raise Damaged if the rows of releases can't be read."""
        self.store, self.version, self.challenger = store, version, challenger
        self.stock = version.stock
        """The items of a team's own place, over which every version is laid; None elsewhere."""
        self.previous: Version | None = None
        self.faults: Counter[str] = Counter()  # in a row, by the SHA-256 of the version
        self.broken = False
        self.history = history_of(store.releases())
        self.served: dict[str, ServedPolicy] = {}  # policies in the record, by their SHA-256
        self.read_served()

    def read_served(self) -> None:
        """Read the policies that have decided from the record."""
        self.served = {row.sha256: row for row in self.store.policies()}

    def arm_of(self, person: str, visit: int, session: int | None = None) -> tuple[Assigned, Version]:
        """The arm of a session (``UnderWay.assigned``), and the version that answers it."""
        under_way = self.history.under_way
        if under_way is None or self.challenger is None:  # one policy answers all, so there are no arms
            return NONE, self.version
        assigned = under_way.assigned(person, visit, session)
        return assigned, self.challenger if assigned.arm == "challenger" else self.version

    def of_now(self, version: Version) -> Version:
        """The version over the items that are there now: some may have come or gone since it was opened."""
        return version if self.stock is None else version.over(self.stock)

    def restock(self, version: Version, challenger: Version | None) -> None:
        """These versions, laid over another stock, answer in place of those over the one before."""
        self.version, self.challenger, self.stock = version, challenger, version.stock

    def serve(self, version: Version) -> None:
        """``version`` is the champion, and there is no challenger."""
        before = self.version if self.version.decides else None
        self.version, self.previous = self.of_now(version), before
        self.challenger, self.broken = None, False
        self.faults.clear()

    def count(self, version: Version, degraded: str) -> bool:
        """Count a draw of ``version``; True if it must serve no more, after three faults in a row."""
        sha256 = version.row.sha256  # over the items of now, or of the moment of the draw
        serving = [of.row.sha256 for of in (self.version, self.challenger) if of is not None]
        if sha256 not in serving or (sha256 == serving[0] and self.broken):
            return False
        self.faults[sha256] = self.faults[sha256] + 1 if degraded in (RAISED, NOT_FINITE, LATE) else 0
        return self.faults[sha256] >= FAULTS

    def write_champion(self) -> None:
        """Write down, on the disk, that this version serves. Raises Problem without room, Lost."""
        try:
            self.store.set_fact(CHAMPION, self.version.row.sha256)
        except Full as full:
            raise messages.no_room(str(full)) from full


def checkpoint_at_start(path: Path, record: Path) -> Path:
    """The checkpoint that serves first: a file that is named, else the one in the record, else the only one.

    Raises UserError if this leaves none: that another policy serves must not go unnoticed.
    """
    files, champion = files_in(path), champion_in(record)
    if champion in files:
        return files[champion]
    name, mend = one_line(path), "name the one to serve, once: --checkpoint FILE"
    if champion and path.is_dir():
        raise UserError(
            f"{name} has no checkpoint with the SHA-256 {champion[:8]}..., which served {one_line(record)}: "
            f"put it back, or {mend}."
        )
    if len(files) > 1:
        raise UserError(f"{name} has {len(files)} checkpoints, and {one_line(record)} names none: {mend}.")
    return next(iter(files.values()))


class PolicyFiles:
    """The checkpoints that may serve, in a file or a folder, by their SHA-256."""

    def __init__(
        self,
        path: Path,
        facts: object,
        env: str | None = None,
        to_come: bool = False,
        stock: Stock | None = None,
    ) -> None:
        """
        Args:
            facts: those of the record, which a version must have (``facts_of``).
            to_come: there may be no checkpoint yet.
            stock: the items of a team's own place, over which each version is laid.
        """
        self.path, self.facts, self.env, self.to_come, self.stock = path, facts, env, to_come, stock
        # Those that are open: the ones that serve, and the latest others.
        self.versions: MutableMapping[str, Version] = WeakValueDictionary()
        self._latest: dict[str, Version] = {}
        self._opening, self._hashing = threading.Lock(), threading.Lock()
        self._hashed: tuple[list[tuple[Path, int, int]], Mapping[str, Path]] = [], {}

    @property
    def one_file(self) -> str:
        """The name of the file, where there is no folder of versions; else ""."""
        return self.path.name if self.path.is_file() else ""

    def files(self) -> Mapping[str, Path]:
        """``files_in`` of the path, hashed again only after a file there has changed. Raises UserError."""
        with self._hashing:
            now = _sizes_and_times(self.path)
            if not now and self.to_come:
                return {}
            if not now or now != self._hashed[0]:
                self._hashed = now, files_in(self.path)
            return self._hashed[1]

    def version(self, sha256: str, file: str | None = None) -> Version:
        """The policy of this hash, from the folder or from ``file``. Raises UserError, Problem."""
        with self._opening:
            version = self.versions.get(sha256)
            if version is None:
                path = self.files().get(sha256)
                if path is None and file is not None and Path(file).is_file():
                    path = Path(file)
                if path is None:
                    raise Problem(404, "unknown-policy", self._lacks(sha256))
                version = open_version(path, 0, self.env)
                if version.row.sha256 != sha256:
                    raise Problem(
                        409, "policy-changed", f"{one_line(path)} is not the file of this SHA-256 any more."
                    )
                if facts_of(version.checkpoint) != self.facts:
                    own = "other items, signals or pieces of the context"
                    what = "another platform, catalogue or session" if version.pieces is None else own
                    raise UserError(
                        f"{one_line(path)} is of {what} than the record: train it on the same data and "
                        "settings."
                    )
                self._add(version if self.stock is None else version.over(self.stock))
                version = self.versions[sha256]
            self._latest.pop(sha256, None)
            self._latest[sha256] = version
            if len(self._latest) > LATEST:
                del self._latest[next(iter(self._latest))]
            return version

    def _add(self, version: Version) -> None:
        """Keep a version that is open."""
        alike = (known for known in [*self.versions.values()] if known.sight == version.sight)
        if (other := next(alike, None)) is not None:  # one batch for the people of both
            version = replace(version, alike=other.of_visits)
        self.versions[version.row.sha256] = self._latest[version.row.sha256] = version

    def over(self, stock: Stock, serving: Sequence[Version]) -> PolicyFiles:
        """The same files, with their versions over another stock; those that are ``serving`` are open.

        Raises UserError if one of them can't choose from the stock.
        """
        files = PolicyFiles(self.path, self.facts, self.env, self.to_come, stock)
        for version in serving:
            files._add(version.over(stock))
        return files

    def numbered(self, stock: Stock, serving: Sequence[Version | None]) -> tuple[Version, Version | None]:
        """The champion and the challenger that are ``serving``, where their stock has these numbers now."""
        self.stock = stock
        opened = [None if of is None else replace(of, stock=stock) for of in serving]
        self._latest = {of.row.sha256: of for of in opened if of is not None}
        self.versions = WeakValueDictionary(self._latest)
        for version in self._latest.values():
            version.prepare()
        assert opened[0] is not None
        return opened[0], opened[1]

    def adopt(self, other: PolicyFiles) -> None:
        """Have the stock and the open versions of ``other`` from now on."""
        with self._opening:
            self.stock, self.versions, self._latest = other.stock, other.versions, other._latest

    def _lacks(self, sha256: str) -> str:
        """The sentence about a version that is not there."""
        name = one_line(self.path)
        if self.path.is_dir():
            return f"The server's folder {name} has no file with the SHA-256 {sha256[:8]}...: copy it there."
        return (
            f"The server has {name} alone, and no file with the SHA-256 {sha256[:8]}...: start it with a "
            "folder of both, --checkpoint FOLDER."
        )

    def check_there(self, sha256: str, file: str = "") -> None:
        """Raise Problem unless a server that starts finds this version; UserError.

        ``file``: where it was, for a server that was started with the path of another file.
        """
        if sha256 in self.files():
            return
        known = Path(file)
        if not self.path.is_dir() and known.is_file() and sha256_of(known) == sha256:
            return
        raise Problem(
            409,
            "no-file",
            f"{one_line(self.path)} has no file with the SHA-256 {sha256[:8]}... any more, so that it could "
            "not serve after a start: put it back.",
        )

    def version_of(self, decision: Decision, served: Mapping[str, ServedPolicy]) -> Version:
        """The policy of a decision; ``served``: those in the record. Raises UserError, Problem."""
        row = next((row for row in [*served.values()] if row.number == decision.policy), None)
        if row is None:
            raise Problem(404, "unknown-policy", "The record does not know the policy of this decision.")
        return self.version(row.sha256, row.file)

    def tried(self, sha256: str, stored: Sequence[tuple[SessionRows, Decision]]) -> Version:
        """A version that answers a new visitor and the ``stored`` requests with finite scores.

        Raises UserError, Problem.
        """
        version = self.version(sha256)
        version.prepare()
        now = NEVER  # whatever was there at the stored requests
        places = version.checkpoint.interface.slate_size
        context = () if version.contexts is None else version.contexts.example
        first = DrawRequest(now, version, -1, (), NOON, None, (), NOON, (0.5,) * places, context=context)
        try:
            asked = [request_of(version, *entry) for entry in stored]
            again = [
                replace(request, number=now, degraded="", candidates=None, items=None) for request in asked
            ]
            results = draw([first, *again])
            why = next(
                (result.error or result.degraded for result in results if result.error or result.degraded), ""
            )
        except Exception as error:  # whatever a policy raises, it can't serve
            why = f"{type(error).__name__}: {one_line(error)}"
        if why:
            raise Problem(
                409, "policy-fails", f"The policy failed on a new visitor or a stored request ({why})."
            )
        return version

    def listed(self, active: ActiveVersion) -> messages.Versions:
        """All versions, those of the folder and those that have served."""
        files = {sha256: str(path) for sha256, path in self.files().items()}
        served = dict(active.served)
        files |= {row.sha256: row.file for row in served.values() if row.sha256 not in files}
        names = {row.sha256: row.name for row in (active.version.row, *served.values())}
        return messages.Versions(
            [
                messages.PolicyRow(
                    name=names.get(sha256, Path(file).stem),
                    sha256=sha256,
                    file=Path(file).name,
                    version=served[sha256].number if sha256 in served else None,
                    champion=active.version.row.sha256 == sha256,
                )
                for sha256, file in files.items()
            ]
        )


def latest_requests(store: Store) -> list[tuple[SessionRows, Decision]]:
    """The latest decisions whose sessions can be read, each with its session: a new version is tried on them.

    Those that can't be read are named: no new version can mend them, so they must not hinder one.
    """
    see, requests = "see recsys-rl log check.", list[tuple[SessionRows, Decision]]()
    try:
        rows, unreadable = store.latest(TRIED)
    except Damaged as damage:
        print(f"a new version is tried without stored decisions ({damage}): {see}", file=sys.stderr)
        return []
    for row, *_ in rows:
        try:
            decision = store.decision(row.number)
        except Damaged:
            unreadable.append(row.number)
        else:
            requests += [] if decision is None else [decision]
    for number in unreadable:
        print(
            f"a new version is tried without decision {number}, which can't be read: {see}",
            file=sys.stderr,
        )
    return requests


def _sizes_and_times(path: Path) -> list[tuple[Path, int, int]]:
    """The checkpoints there, each with its size and the time of its last change in nanoseconds."""
    facts = []
    for file in sorted(path.glob("*.pt")) if path.is_dir() else [path]:
        with contextlib.suppress(OSError):  # gone in the meantime
            stat = file.stat()
            facts.append((file, stat.st_size, stat.st_mtime_ns))
    return facts

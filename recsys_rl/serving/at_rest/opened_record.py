"""A record at rest, for `recsys-rl log`: its sessions, its people, and the policies that decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

from recsys_rl.errors import UserError, one_line
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version, files_in, open_version
from recsys_rl.serving.record.facts import facts_of, of_own_place
from recsys_rl.serving.record.record_schema import Damaged, Decision, ServedPolicy, SessionRows
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.record.stock import Stock
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.types import Interface

LONGEST = 10_000  # steps of a session of a team's own place, whose length nothing limits
SESSIONS = 256  # that are replayed together


class Record:
    """The record in a file, with the versions that it names."""

    def __init__(
        self,
        path: Path,
        checkpoint: Path | None = None,
        env: str | None = None,
        store: StoreReader | None = None,
    ) -> None:
        """Open it. Raises UserError.

        Args:
            checkpoint: a file or a folder with policies that have moved.
            store: the record that is open already; else it is locked, and its server must have ended.
        """
        self.name, self.env = one_line(path), env
        self.store = Store(path) if store is None else store
        try:
            with self.whole():
                self.policies = {row.number: row for row in self.store.policies()}
        except UserError:
            self.store.close()
            raise
        self.moved = {} if checkpoint is None else dict(files_in(checkpoint))  # by their SHA-256
        self._versions: dict[tuple[str, bool], Version] = {}  # by their SHA-256, with and without networks

    def version(self, decision: Decision) -> Version:
        """The policy that made the decision, or in whose place popularity did. Raises UserError."""
        return self._version(self._served(decision))

    def place(self, decision: Decision) -> Version:
        """``version`` without its networks: what it saw can be made again. Raises UserError.

        So a policy of an earlier version of this package, whose networks can't be built any more, is read.
        """
        return self._version(self._served(decision), networks=False)

    def _served(self, decision: Decision) -> ServedPolicy:
        number = decision.policy
        if not number and self.policies:  # of an application, before there was a policy
            number = min(self.policies)
        if number not in self.policies:
            raise UserError(f"{self.name} lacks the policy {number}: copy it from a backup.")
        return self.policies[number]

    def version_of(self, sha256: str) -> Version:
        """The policy with this SHA-256, also one that has not decided. Raises UserError if it is missing."""
        served = next((row for row in self.policies.values() if row.sha256 == sha256), None)
        if served is None:  # its file lies with those that have decided, or has moved with them
            served = ServedPolicy(0, sha256[:8], sha256, str(self._beside().get(sha256, sha256)))
        return self._version(served)

    def _version(self, served: ServedPolicy, networks: bool = True) -> Version:
        key = served.sha256, networks
        if key not in self._versions:
            self._versions[key] = self._open(served, networks)
        return self._versions[key]

    def _beside(self) -> dict[str, Path]:
        """The checkpoints in the folders of those that have decided, by their SHA-256."""
        files = dict[str, Path]()
        for folder in sorted({Path(row.file).parent for row in self.policies.values()}):
            with contextlib.suppress(UserError):  # the folder is not there any more
                files.update(files_in(folder))
        return files

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What is read in the block must be whole. Raises UserError."""
        try:
            yield
        except Damaged as damage:
            raise UserError(
                f"{self.name} is damaged ({damage}): see recsys-rl log check, and copy it from a backup."
            ) from None

    @property
    def of_own_log(self) -> bool:
        """True for a team's own place, whose facts tell what its rows mean."""
        return of_own_place(self.store.facts)

    @cached_property
    def stock(self) -> Stock:
        """The items of a team's own place. Raises UserError."""
        with self.whole():
            return self.store.stock()

    def interface_of(self, decision: Decision) -> Interface:
        """The interface of a session of a team's own place that begins with the decision.

        Its length is that of the policy, if the decision was made by one whose file is there.
        """
        facts, length = self.store.facts, LONGEST
        if decision.policy:
            with contextlib.suppress(UserError):
                length = self.place(decision).checkpoint.interface.session_length
        return Interface(
            context=(),
            action_sizes=(self.stock.num_rows,),
            slate_size=facts["slate_size"],
            repeats=True,
            history_length=0,
            signals=tuple(facts["signals"]),
            session_length=length,
        )

    def _open(self, served: ServedPolicy, networks: bool) -> Version:
        path = self.moved.get(served.sha256, Path(served.file))
        mend = "give the folder with it: --checkpoint"
        if not path.is_file():
            raise UserError(
                f"The policy {served.name} ({served.sha256[:8]}) of {self.name} is not at {one_line(path)} "
                f"any more: {mend}."
            )
        version = open_version(path, served.number, self.env, networks=networks)
        if version.row.sha256 != served.sha256:
            raise UserError(f"{one_line(path)} is not the file any more that decided in {self.name}: {mend}.")
        for name, value in facts_of(version.checkpoint).items():
            if self.store.facts.get(name) != value:
                raise UserError(f"{one_line(path)} is of another {name} than {self.name}: {mend}.")
        return version.over(self.stock) if self.of_own_log and networks else version

    def state_of(self, rows: SessionRows) -> SessionState:
        """The session at its end. Raises UserError."""
        first = rows.decisions[0]
        own = self.of_own_log
        return SessionState.of(
            rows, self.interface_of(first) if own else self.place(first).checkpoint.interface
        )

    def people(self, numbers: Iterable[int]) -> dict[int, str]:
        """The name of each of these people by the number. Raises UserError for a damaged row."""
        with self.whole():
            return {number: self.store.name_of(number) for number in numbers}

    def sessions(self, numbers: Iterable[int] | None = None) -> Iterator[SessionRows]:
        """All sessions with decisions, ascending, or those. Raises UserError for a damaged one."""
        for number in self.store.sessions() if numbers is None else numbers:
            with self.whole():
                rows = self.store.session(number)
            if rows is not None and rows.decisions:
                yield rows

    def groups(self, sessions: Iterator[SessionRows]) -> Iterator[list[SessionRows]]:
        """The sessions, SESSIONS at a time."""
        while group := [*islice(sessions, SESSIONS)]:
            yield group


def open_snapshot(db: Path, checkpoint: Path | None = None, env: str | None = None) -> Record:
    """The record at this moment, with the versions that it names. Close its ``store``. Raises UserError.

    ``checkpoint``: a file or a folder with policies that have moved.
    """
    return Record(db, checkpoint, env, Snapshot(db))

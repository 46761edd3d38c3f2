"""The version that serves, the one before it, and what makes it come back."""

from __future__ import annotations

import sys

from recsys_rl.serve import problems
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.rule import LATE, NOT_FINITE, RAISED
from recsys_rl.serve.sqlite_file import CHAMPION
from recsys_rl.serve.store import Full, Store
from recsys_rl.serve.versions import Version

FAULTS = 3  # of a policy in a row, after which the version before serves again


class Champions:
    """``version`` serves; ``broken``: popularity does in its place."""

    def __init__(self, store: Store, version: Version) -> None:
        self.store, self.version = store, version
        self.previous: Version | None = None
        self.faults, self.broken = 0, False

    def swap(self, version: Version) -> None:
        """Serve ``version`` from now on. Raises Problem if there is no room to write it down, Lost."""
        self._keep(version)
        self.version, self.previous = version, self.version
        self.faults, self.broken = 0, False

    def count(self, version: Version, degraded: str) -> None:
        """A draw of ``version``: three faults in a row bring the one before back; without it, popularity."""
        if version is not self.version or self.broken:
            return
        self.faults = self.faults + 1 if degraded in (RAISED, NOT_FINITE, LATE) else 0
        if self.faults < FAULTS:
            return
        if self.previous is None:
            self.broken = True
        else:
            self.version, self.previous, self.faults = self.previous, None, 0
            try:
                self._keep(self.version)
            except Problem as problem:  # it must not wait for room
                print(
                    f"after a start the version that failed serves again: {problem.detail}", file=sys.stderr
                )
        print("the policy failed three times in a row and serves no more", file=sys.stderr)

    def _keep(self, version: Version) -> None:
        """Let the record know, on the disk, who serves after a start. Raises Problem without room, Lost."""
        try:
            self.store.fact(CHAMPION, version.row.sha256)
        except Full as full:
            raise problems.no_room(str(full)) from full

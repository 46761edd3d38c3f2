"""A record at rest: its sessions, and the policies that made its decisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from recsys_rl.errors import UserError, one_line
from recsys_rl.serve.rows import Decision, Served, Whole
from recsys_rl.serve.sqlite import SQLite
from recsys_rl.serve.store import Damaged
from recsys_rl.serve.versions import Version, facts_of, files_in, open_version

SESSIONS = 256  # that are replayed together


class Record:
    """The record in a file, with the versions that it names."""

    def __init__(self, path: Path, checkpoint: Path | None = None, env: str | None = None) -> None:
        """Open it; ``checkpoint`` is a file or a folder with policies that have moved. Raises UserError."""
        self.name, self.env = one_line(path), env
        self.store = SQLite(path)
        try:
            self.policies = {row.number: row for row in self.store.policies()}
        except Damaged as damage:
            self.store.close()
            raise UserError(f"{self.name} is damaged ({damage}): copy it from a backup.") from None
        self.places = {} if checkpoint is None else dict(files_in(checkpoint))
        self._open: dict[int, Version] = {}

    def version(self, decision: Decision) -> Version:
        """The policy that made the decision, or in whose place popularity did. Raises UserError."""
        if decision.policy not in self._open:
            if decision.policy not in self.policies:
                raise UserError(f"{self.name} lacks the policy {decision.policy}: copy it from a backup.")
            self._open[decision.policy] = self._find(self.policies[decision.policy])
        return self._open[decision.policy]

    def _find(self, served: Served) -> Version:
        path = self.places.get(served.sha256, Path(served.file))
        mend = "give the folder with it: --checkpoint"
        if not path.is_file():
            raise UserError(
                f"The policy {served.name} ({served.sha256[:8]}) of {self.name} is not at {one_line(path)} "
                f"any more: {mend}."
            )
        found = open_version(path, served.number, self.env)
        if found.row.sha256 != served.sha256:
            raise UserError(f"{one_line(path)} is not the file any more that decided in {self.name}: {mend}.")
        for name, value in facts_of(found.checkpoint).items():
            if self.store.facts.get(name) != value:
                raise UserError(f"{one_line(path)} is of another {name} than {self.name}: {mend}.")
        return found

    def people(self) -> dict[int, str]:
        """The name of each person by the number. Raises UserError for a damaged row."""
        try:
            return {person.number: person.name for person in self.store.people()}
        except Damaged as damage:
            raise UserError(
                f"{self.name} is damaged ({damage}): see recsys-rl log check, and copy it from a backup."
            ) from None

    def sessions(self, numbers: Iterable[int] | None = None) -> Iterator[Whole]:
        """All sessions with decisions, ascending, or those. Raises UserError for a damaged one."""
        for number in self.store.sessions() if numbers is None else numbers:
            try:
                whole = self.store.session(number)
            except Damaged:
                raise UserError(
                    f"Session {number} of {self.name} is damaged: see recsys-rl log check, and copy the file "
                    "from a backup."
                ) from None
            if whole is not None and whole[1]:
                yield whole

    def groups(self, wholes: Iterator[Whole]) -> Iterator[list[Whole]]:
        """The sessions, SESSIONS at a time."""
        while group := [*islice(wholes, SESSIONS)]:
            yield group

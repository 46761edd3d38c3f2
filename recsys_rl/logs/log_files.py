"""The log of a run as its learner reads it: a header, and the decisions a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from recsys_rl.data.tables.read import files_of, has_header
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, concatenate
from recsys_rl.logs.parts import PART, drawn_from, gathered
from recsys_rl.logs.reader import fingerprint, header_of_log, num_rows


class LogSource(Protocol):
    """The decisions of a log: RecordedLog here, or OwnLog (own_log.py)."""

    header: DecisionHeader

    @property
    def name(self) -> str:
        """For errors."""
        ...

    @property
    def num_rows(self) -> int: ...

    @property
    def unit(self) -> str:
        """The noun for those who are held out as a whole: a user, or what stands for one."""
        ...

    @property
    def has_times(self) -> bool:
        """True if ``times`` of its decisions are those of a clock."""
        ...

    def fingerprint(self) -> bytes:
        """32 bytes that are equal for logs with the same decisions in the same files."""
        ...

    def parts(self, rows: int) -> Iterator[DecisionLog]:
        """The checked decisions in parts of whole sessions, of about ``rows`` rows. Raises UserError."""
        ...


class RecordedLog:
    """A log of `recsys-rl record`, a file or a folder of its parts."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raise UserError for another file, and for several logs."""
        missing = next((path for path in paths if not Path(path).exists()), None)
        if missing is not None and len(paths) > 1:
            raise UserError(f"{one_line(missing)} is not a file: give the paths of tables of your own.")
        if len(paths) > 1:
            raise UserError(
                f"{one_line(paths[0])} and {one_line(paths[1])} are two logs of recsys-rl record: give one, "
                "or a folder with the parts of one."
            )
        self.path = Path(paths[0])
        if not has_header(self.path):
            raise UserError(
                f"{one_line(self.path)} is not a log of `recsys-rl record`, but a table of your own, whose "
                "platform is the table itself: leave --env out, or give the checkpoint of a policy of such a "
                "table."
            )
        self.header = header_of_log(self.path)

    @property
    def name(self) -> str:
        return one_line(self.path)

    @property
    def num_rows(self) -> int:
        return sum(map(num_rows, files_of(self.path)))

    @property
    def unit(self) -> str:
        return "user"

    @property
    def has_times(self) -> bool:
        return False  # of a simulator they count steps, and a server's log may say so or not

    def fingerprint(self) -> bytes:
        return fingerprint(self.path)

    def parts(self, rows: int) -> Iterator[DecisionLog]:
        return gathered(self.path, rows)


def sample_of(source: LogSource, rows: int, generator: torch.Generator) -> tuple[DecisionLog, str]:
    """The decisions of a log, and a note; of one with more than ``rows`` rows random sessions (parts.py).

    The note is "" for a whole log. Raises UserError for a wrong value, and if no session is kept.
    """
    if rows >= source.num_rows:
        return concatenate(list(source.parts(PART))), ""
    return drawn_from(source.name, source.parts(PART), rows, source.num_rows, generator)

"""Write a DecisionLog as Parquet, one row for each decision.

docs/09_logs.md lists the columns. The header is JSON under the key ``recsys-rl.decisions`` of the file's
metadata. logs/reader.py reads the file, logs/parts.py a log of several.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
from torch import Tensor

from recsys_rl.data.tables.read import DECISIONS
from recsys_rl.data.tables.schema import STORED, Column
from recsys_rl.errors import error_text
from recsys_rl.logs.checksum import Checksum
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, cut
from recsys_rl.logs.intervals import Numbers, metadata_of
from recsys_rl.types import UserError
from recsys_rl.utils.files import check_new_folder
from recsys_rl.utils.locks import parts_of

FORMAT = 1
KEY = DECISIONS
CHECKSUM = "sha256"
"""The field of the header with the checksum (logs/checksum.py)."""
PART, PARTS = "part", "parts"
"""The fields of the header of a part: its number, from 0, and the number of parts."""
ROWS = 65_536
"""Rows of a row group: a reader or a writer in pieces holds this many at a time."""


class DecisionWriter:
    """Writes a log in pieces, each a DecisionLog with the same header, inside a ``with`` block.

    With ``rows``, ``path`` is a new folder of Parquet parts, each with whole sessions and at most so many
    rows if no session has more; the pieces then have whole sessions too, in the order of their numbers.

    All lies in a hidden folder beside ``path``. At the end of the block the pieces of each file are joined, a
    row group at a time, and the whole is renamed: a file or a folder at ``path`` is whole at every moment.
    After an error nothing is left, and what a killed process left is deleted by the next one. Only one
    process at a time may write a log. Raises UserError.
    """

    def __init__(
        self,
        path: Path,
        header: DecisionHeader,
        rows: int | None = None,
        interval: Numbers | None = None,
        late: int = 0,
    ) -> None:
        """``interval``, ``late``: of the rows of a record that the log is made from (intervals.py)."""
        self.path, self.header, self.rows = path, header, rows
        self.more = {} if interval is None else metadata_of(interval, late)
        self.stack = contextlib.ExitStack()
        self.num_rows, self.num_pieces = 0, 0
        self.last_session: int | None = None
        self.files: list[_Pieces] = []  # of each file of the log; the last one is under way

    def __enter__(self) -> DecisionWriter:
        if self.rows is not None:
            check_new_folder(self.path, "The folder")
        with self._writing():
            self.folder = self.stack.enter_context(parts_of(self.path))
            if self.rows is not None:
                (self.folder / "whole").mkdir()
        return self

    def write(self, log: DecisionLog) -> None:
        """Add the rows of ``log``. Raises UserError if the disk is full."""
        if self.rows is None:
            self._write(log)
            return
        sessions = log.sessions
        if bool((sessions.diff() < 0).any()) or (
            self.last_session is not None and int(sessions[0]) <= self.last_session
        ):
            raise UserError(
                f"{self.path}: the pieces of a log in parts need whole sessions in ascending order: order "
                "the rows by session."
            )
        self.last_session = int(sessions[-1])
        for piece in cut(log, self.rows):
            self._write(piece)

    def _write(self, log: DecisionLog) -> None:
        full = self.rows is not None and self.files and self.files[-1].rows + log.num_rows > self.rows
        if not self.files or full:
            self.files.append(_Pieces(Checksum(header_to_dict(self.header))))
        file, path = self.files[-1], self.folder / f"{self.num_pieces:08}.parquet"
        with self._writing():
            frame_of(log).write_parquet(path, compression="zstd")
        file.paths.append(path)
        file.checksum.add(log)
        file.rows += log.num_rows
        self.num_pieces += 1
        self.num_rows += log.num_rows

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                if not self.files:
                    raise UserError(f"{self.path} isn't written: there are no decisions.")
                with self._writing():
                    self._join().replace(self.path)
        finally:
            self.stack.close()

    def _join(self) -> Path:
        """Join the pieces of each file in the hidden folder: each part names the number of all parts."""
        joined, count = self.folder / "whole", len(self.files)
        for number, file in enumerate(self.files):
            path = joined if self.rows is None else joined / part_name(number)
            part = {} if self.rows is None else {PART: number, PARTS: count}
            rows = pl.scan_parquet(file.paths, glob=False)
            write_with_header(rows, path, file.checksum, part, self.more)
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
            for piece in file.paths:
                piece.unlink()
        return joined

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.ComputeError) as error:
            why = error_text(error).split("\n", 1)[0]
            raise UserError(
                f"{self.path} can't be written ({why}): make room there, or choose another place."
            ) from error


@dataclasses.dataclass
class _Pieces:
    """The pieces of a file that are not joined yet."""

    checksum: Checksum
    paths: list[Path] = dataclasses.field(default_factory=list)
    rows: int = 0


def part_name(number: int) -> str:
    """The name of a part's file."""
    return f"part-{number:05}.parquet"


def write_with_header(
    rows: pl.LazyFrame,
    path: Path,
    checksum: Checksum,
    part: Mapping[str, int] | None = None,
    more: Mapping[str, str] | None = None,
) -> None:
    """Write these rows, whose checksum this is, a row group at a time, under its header.

    ``part``: PART and PARTS of a part. ``more``: further metadata. The checksum is one of the rows alone: it
    does not depend on them.
    """
    fields = {**checksum.header, **(part or {}), CHECKSUM: checksum.hexdigest()}
    rows.sink_parquet(
        path,
        compression="zstd",
        row_group_size=ROWS,
        metadata={KEY: json.dumps(fields), **(more or {})},
        engine="streaming",
    )


def write_decisions(path: Path, log: DecisionLog, rows: int | None = None) -> None:
    """Write the whole log at once, in parts of ``rows`` rows if they are given. Raises UserError."""
    with DecisionWriter(path, log.header, rows) as writer:
        writer.write(log)


def frame_of(log: DecisionLog) -> pl.DataFrame:
    """The columns of the file."""
    columns: dict[str, pl.Series] = {}
    for column in STORED:
        values = getattr(log, column.field)
        if values is not None:
            columns |= _columns(column, log, values)
    return pl.DataFrame(columns)


def _columns(column: Column, log: DecisionLog, values: Any) -> dict[str, pl.Series]:
    """The column of a field by its name; those of several signals or pieces of the context."""
    name, header = column.name, log.header
    if column.field == "given":
        return {f"{name}{piece}": _column(tensor) for piece, tensor in values.items()}
    if name.endswith("."):
        each = zip(header.signals, values.unbind(-1), strict=True)
        return {f"{name}{signal}": _column(tensor.contiguous()) for signal, tensor in each}
    series = _column(values)
    if column.form == "logger":
        places = list(range(len(header.loggers)))
        return {name: series.replace_strict(places, list(header.loggers), return_dtype=pl.String)}
    if column.form == "chance":
        series = series.fill_nan(None) if header.applications else series
        return {name: series} if log.lists_propensities else {}
    if column.form == "ids":  # without padding
        series = series.list.eval(pl.element().filter(pl.element() >= 0))
    return {name: series}


def header_to_dict(header: DecisionHeader) -> dict[str, Any]:
    """The header as JSON primitives, with the number of the format."""
    fields = {"format": FORMAT, **dataclasses.asdict(header)}
    # Versions before these fields read the file too.
    for name in ("estimated", "applications", "consumed", "requested"):
        if not fields[name]:
            del fields[name]
    return fields


def _column(values: Tensor) -> pl.Series:
    """A column of numbers (E,), or of lists (E, n)."""
    array = values.cpu().numpy()
    if array.ndim == 1:
        return pl.Series(array)
    if array.shape[1] == 0:
        return pl.Series([[]] * len(array), dtype=pl.List(pl.Series(array.reshape(-1)).dtype))
    return pl.Series(array).arr.to_list()

"""Read and check a DecisionLog from a Parquet file of decisions/writer.py, whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.decisions.checks import check_probabilities, check_rows
from recsys_rl.decisions.checksum import Checksum
from recsys_rl.decisions.log import DecisionHeader, DecisionLog
from recsys_rl.decisions.writer import CHECKSUM, FORMAT, KEY, ROWS
from recsys_rl.errors import one_line
from recsys_rl.files.read import parsing
from recsys_rl.types import Interface, UserError


def read_decisions(path: str | Path) -> DecisionLog:
    """Read a log, check it, and order its rows by session and step.

    A file may hold a column ``propensity``, with probabilities, in place of ``logprob``, or neither.

    Raises UserError for the first mistake that is found: a damaged file, a missing column, an impossible
    probability, an item that could not be shown, steps or times out of order (decisions/checks.py), or
    values that do not fit the checksum in the header. A log without a checksum is read, too.
    """
    path = Path(path)
    name, header = one_line(path), read_header(path)
    with parsing(name):
        frame = pl.read_parquet(path, glob=False)
    if frame.height == 0:
        raise UserError(f"{name} holds no decisions: give a log with at least one row.")
    log = _log(name, header.header, frame)
    checksum = Checksum(header.fields)
    checksum.add(log)
    header.check(name, checksum)
    order = torch.from_numpy(
        np.lexsort((log.steps.numpy(), log.sessions.numpy()))  # the last key is the first to sort by
    )
    log = log.rows(order)
    check_rows(name, log, order + 1)
    return log


@dataclass(frozen=True)
class FileHeader:
    """The header of a file."""

    header: DecisionHeader
    fields: Mapping[str, Any]  # as JSON primitives, without the checksum
    checksum: str | None  # None in files of earlier versions

    def check(self, name: str, checksum: Checksum) -> None:
        """Raise UserError if the header has another checksum than that of its rows."""
        if self.checksum is not None and checksum.hexdigest() != self.checksum:
            raise UserError(
                f"{name} holds other values than were written to it (its checksum is wrong): copy the file "
                "again, or record it again; after a change of your own, write it with write_decisions."
            )


def read_header(path: Path) -> FileHeader:
    """The header of the file. Raises UserError if there is none, or if the file is damaged."""
    name = one_line(path)
    if not path.is_file():
        raise UserError(f"{name} is not a file: give the path of a log of decisions (recsys-rl record).")
    with parsing(name):
        texts = pl.read_parquet_metadata(path)
    return _header(name, texts)


def read_pieces(path: Path, header: DecisionHeader) -> Iterator[DecisionLog]:
    """The rows in the order of the file, ROWS at a time. No rule of decisions/checks.py is checked."""
    name = one_line(path)
    with parsing(name):
        scan = pl.scan_parquet(path, glob=False)
        rows = int(scan.select(pl.len()).collect().item())
    for start in range(0, rows, ROWS):
        with parsing(name):
            frame = scan.slice(start, ROWS).collect()
        yield _log(name, header, frame)


def check_pieces(path: Path) -> FileHeader:
    """The header of a file, after a check of its checksum that holds ROWS rows at a time.

    Raises UserError if the checksum is wrong, or if the columns are not those of such a log.
    """
    header = read_header(path)
    checksum = Checksum(header.fields)
    for piece in read_pieces(path, header.header):
        checksum.add(piece)
    header.check(one_line(path), checksum)
    return header


def has_header(path: str | Path) -> bool:
    """False for a file without our header, which decisions/table.py reads. Raises UserError if damaged."""
    path = Path(path)
    if not path.is_file():
        return True  # read_decisions reports it
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
    with parsing(one_line(path)):
        return KEY in pl.read_parquet_metadata(path)


def _header(name: str, texts: Mapping[str, str]) -> FileHeader:
    if KEY not in texts:
        raise UserError(
            f"{name} has no header of decisions ({KEY}): give a file that `recsys-rl record` or "
            "write_decisions wrote."
        )
    try:
        fields, as_written = json.loads(texts[KEY]), json.loads(texts[KEY])
        checksum = as_written.pop(CHECKSUM, None)
        fields.pop(CHECKSUM, None)
        number = fields.pop("format")
        if type(number) is int and number != FORMAT:
            raise UserError(
                f"{name} has the format {number}, and this version reads {FORMAT}: record it again, or use "
                "the version that wrote it."
            )
        interface = fields["interface"]
        interface["context"] = tuple((str(piece), int(size)) for piece, size in interface["context"])
        interface["action_sizes"] = tuple(map(int, interface["action_sizes"]))
        interface["signals"] = tuple(map(str, interface["signals"]))
        fields["interface"] = Interface(**interface)
        fields["loggers"] = tuple(map(str, fields["loggers"]))
        fields["signals"] = tuple(map(str, fields["signals"]))
        header = DecisionHeader(**fields)
        sound = (
            bool(header.loggers)
            and header.num_items > 0
            and header.interface.slate_size > 0
            and set(header.interface.signals) <= set(header.signals)
            and 0 <= header.discount <= 1
            and (checksum is None or isinstance(checksum, str))
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{name} has a header that is none: record the log again.")
    return FileHeader(header, as_written, checksum)


def _log(name: str, header: DecisionHeader, frame: pl.DataFrame) -> DecisionLog:
    """The log of the columns, in the order of the file."""
    read = _Columns(name, frame, header)
    interface, places = header.interface, header.interface.slate_size
    handed = [column.removeprefix("context.") for column in frame.columns if column.startswith("context.")]
    sizes = dict(interface.context)
    events = "event_items" in frame.columns
    return DecisionLog(
        header=header,
        users=read.numbers("user", torch.int64),
        sessions=read.numbers("session", torch.int64),
        steps=read.numbers("step", torch.int64),
        times=read.numbers("time", torch.int64),
        items=read.lists("items", torch.int64, places),
        logprobs=read.logprobs(),
        signals=read.signals("signal", places),
        terminated=read.numbers("terminated", torch.bool),
        truncated=read.numbers("truncated", torch.bool),
        loggers=read.loggers(),
        handed={piece: read.lists(f"context.{piece}", torch.float32, sizes.get(piece)) for piece in handed},
        place_logprobs=read.optional("place_logprobs", torch.float64, places),
        logger_logprobs=read.optional("logger_logprobs", torch.float64, len(header.loggers)),
        candidates=read.padded("candidates"),
        exclude=read.padded("exclude"),
        event_items=read.optional("event_items", torch.int64, None),
        event_signals=read.signals("event_signal", None) if events else None,
    )


class _Columns:
    """The columns of a file as tensors.

    Each method raises UserError if the column is missing or of another kind.
    """

    def __init__(self, name: str, frame: pl.DataFrame, header: DecisionHeader) -> None:
        self.name, self.frame, self.header = name, frame, header

    def numbers(self, column: str, dtype: torch.dtype) -> Tensor:
        """(E,)"""
        series = self._find(column)
        self._no_null(column, series)
        return self._tensor(column, series, dtype)

    def lists(self, column: str, dtype: torch.dtype, size: int | None) -> Tensor:
        """(E, size); ``size`` None is that of the first row."""
        series = self._find(column)
        if series.dtype.base_type() is pl.Array:
            series = series.arr.to_list()
        if series.dtype.base_type() is not pl.List:
            raise UserError(f"{self.name}: the column {column!r} holds {series.dtype}, and must hold lists.")
        self._no_null(column, series)
        lengths = series.list.len()
        wanted = int(lengths[0]) if size is None else size
        wrong = (lengths != wanted).arg_true()
        if wrong.len():
            row = int(wrong[0])
            raise UserError(
                f"{self.name}: {column!r} holds {lengths[row]} values in row {row + 1}, and must hold "
                f"{wanted} in each row."
            )
        flat = series.explode() if wanted else pl.Series([], dtype=series.dtype.inner)  # type: ignore[attr-defined]
        null = flat.is_null().arg_true()
        if null.len():
            row = int(null[0]) // wanted + 1
            raise UserError(f"{self.name}: {column!r} lacks a value in row {row}: every row must hold all.")
        return self._tensor(column, flat, dtype).view(len(series), wanted)

    def optional(self, column: str, dtype: torch.dtype, size: int | None) -> Tensor | None:
        return self.lists(column, dtype, size) if column in self.frame.columns else None

    def padded(self, column: str) -> Tensor | None:
        """(E, n) int64 of lists of different lengths, with -1 after the end; None without the column."""
        if column not in self.frame.columns:
            return None
        series = self._find(column)
        if series.dtype.base_type() is not pl.List:
            raise UserError(f"{self.name}: the column {column!r} holds {series.dtype}, and must hold lists.")
        self._no_null(column, series)
        lengths = torch.from_numpy(series.list.len().to_numpy().astype(np.int64))  # (E,)
        found = torch.full((len(series), int(lengths.max())), -1)
        filled = torch.arange(found.shape[1]) < lengths.unsqueeze(1)
        found[filled] = self._tensor(column, series.filter(series.list.len() > 0).explode(), torch.int64)
        return found

    def signals(self, prefix: str, places: int | None) -> Tensor:
        """(E, places, S) float32"""
        names = [f"{prefix}.{name}" for name in self.header.signals]
        missing = [name for name in names if name not in self.frame.columns]
        if missing:
            raise UserError(
                f"{self.name} has no column {missing[0]!r}, and its header names that signal: a log needs "
                "every signal of its header."
            )
        return torch.stack([self.lists(name, torch.float32, places) for name in names], -1)

    def logprobs(self) -> Tensor:
        """(E,) float64, from logprob or propensity; NaN without either."""
        both = [name for name in ("logprob", "propensity") if name in self.frame.columns]
        if not both:
            return torch.full((self.frame.height,), torch.nan, dtype=torch.float64)
        if len(both) > 1:
            raise UserError(f"{self.name} has both logprob and propensity: leave one of the columns out.")
        values = self.numbers(both[0], torch.float64)
        check_probabilities(self.name, values, both[0])
        return values if both[0] == "logprob" else values.log()

    def loggers(self) -> Tensor:
        """(E,) int64"""
        series, names = self._find("logger"), self.header.loggers
        places = {name: place for place, name in enumerate(names)}
        unknown = (~series.is_in(list(names))).fill_null(True).arg_true()
        if unknown.len():
            row = int(unknown[0])
            raise UserError(
                f"{self.name}: row {row + 1} is of logger {one_line(series[row])!r}, but its header names "
                f"{', '.join(names)}."
            )
        return self._tensor("logger", series.replace_strict(places, return_dtype=pl.Int64), torch.int64)

    def _find(self, column: str) -> pl.Series:
        if column not in self.frame.columns:
            raise UserError(f"{self.name} has no column {column!r}: docs/09_logs.md lists the columns.")
        return self.frame[column]

    def _no_null(self, column: str, series: pl.Series) -> None:
        null = series.is_null().arg_true()
        if null.len():
            raise UserError(
                f"{self.name}: {column!r} is missing in row {int(null[0]) + 1}: every row must hold it."
            )

    def _tensor(self, column: str, series: pl.Series, dtype: torch.dtype) -> Tensor:
        kind = {torch.int64: pl.Int64, torch.bool: pl.Boolean, torch.float64: pl.Float64}.get(
            dtype, pl.Float32
        )
        right = {
            torch.int64: series.dtype.is_integer(),
            torch.bool: series.dtype == pl.Boolean,
        }.get(dtype, series.dtype.is_numeric())
        if not right:
            raise UserError(f"{self.name}: the column {column!r} holds {series.dtype}, and must hold {kind}.")
        with parsing(f"{self.name}: the column {column!r}"):
            return torch.from_numpy(series.cast(kind).to_numpy().copy())

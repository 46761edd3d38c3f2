"""Read a DecisionLog from a Parquet file of logs/writer.py, whole or in pieces, and its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import Cells, tensor_of
from recsys_rl.data.tables.read import files_of, parsing
from recsys_rl.data.tables.schema import STORED, Column, named
from recsys_rl.data.tables.values import no_value, on
from recsys_rl.errors import one_line
from recsys_rl.logs.checksum import Checksum
from recsys_rl.logs.decision_log import OPTIONAL, DecisionHeader, DecisionLog, assemble
from recsys_rl.logs.intervals import Joined, Numbers, in_order, interval_in
from recsys_rl.logs.writer import CHECKSUM, FORMAT, KEY, PART, PARTS, ROWS, part_name
from recsys_rl.types import Interface, UserError


@dataclass(frozen=True)
class FileHeader:
    """The header of a file."""

    header: DecisionHeader
    fields: Mapping[str, Any]  # as JSON primitives, without the checksum and the part
    checksum: str | None  # None in files of earlier versions
    part: tuple[int, int] | None  # its number, from 0, and the number of parts; None for a log in one file
    interval: Numbers | None = None  # of the rows of a record that it was exported from

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
    return replace(_header(name, texts), interval=interval_in(texts))


def files_of_log(path: Path) -> list[Path]:
    """``files_of``, if no part is missing of a folder whose files have numbers; earlier versions gave none.

    Intervals of a record are in their order. Raises UserError that names the first missing part, or two that
    are not of one log.
    """
    files = files_of(path)
    if not path.is_dir():
        return files  # one part, which the user named
    headers = {file: read_header(file) for file in files}
    intervals = in_order(path, {file: header.interval for file, header in headers.items()})
    if intervals is not None:
        return intervals
    parts = sorted((*header.part, file) for file, header in headers.items() if header.part is not None)
    for one, two in pairwise(parts):
        if one[0] == two[0] or one[1] != two[1]:
            raise UserError(
                f"{one_line(path)} holds {one_line(one[2].name)} and {one_line(two[2].name)}, which are not "
                "parts of one log: give each log its own folder."
            )
    if parts and len(parts) < (count := parts[0][1]):
        # The number comes from a file: nothing is made of that size.
        first = next((k for k, (number, *_) in enumerate(parts) if number != k), len(parts))
        missing = count - len(parts)
        more = f" (and {missing - 1:,} more)" if missing > 1 else ""
        raise UserError(
            f"{one_line(path)} lacks {part_name(first)}{more} of its {count:,} parts: copy the folder "
            "again, record the log again, or give one of its parts by its own name."
        )
    return files


def joined_of(files: Sequence[Path]) -> Joined | None:
    """The header and columns shared by the intervals of one log; None for another log. Raises UserError."""
    headers = {file: read_header(file) for file in files}
    if len(files) < 2 or any(header.interval is None for header in headers.values()):
        return None
    with parsing(one_line(files[0].parent)):
        return Joined.of({file: header.header for file, header in headers.items()})


def header_of_log(path: Path) -> DecisionHeader:
    """The header of a file, or of a folder of parts or of intervals. Raises UserError."""
    files = files_of(path)
    if len(files) > 1 and read_header(files[0]).interval is not None:
        joined = joined_of(files_of_log(path))
        assert joined is not None
        return joined.header
    return read_header(files[0]).header


def num_rows(path: Path) -> int:
    """The number of rows of a file. Raises UserError if there are none."""
    name = one_line(path)
    with parsing(name):
        rows = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    if rows == 0:
        raise UserError(f"{name} holds no decisions: give a log with at least one row.")
    return rows


def read_whole(path: Path, header: FileHeader) -> DecisionLog:
    """The rows in the order of the file, if they fit the checksum. No other rule is checked."""
    name = one_line(path)
    with parsing(name):
        frame = pl.read_parquet(path, glob=False)
    log = _log(name, header.header, frame)
    checksum = Checksum(header.fields)
    checksum.add(log)
    header.check(name, checksum)
    return log


def read_pieces(path: Path, header: DecisionHeader) -> Iterator[DecisionLog]:
    """``read_whole``, ROWS rows at a time, without the checksum."""
    name = one_line(path)
    for start in range(0, num_rows(path), ROWS):
        yield _log(name, header, _frame(path, start))


def read_keys(path: Path) -> Iterator[Tensor]:
    """(n, 2) int64: the sessions and steps of the rows, ROWS rows at a time."""
    name = one_line(path)
    for start in range(0, num_rows(path), ROWS):
        cells = Cells(name, _frame(path, start, ("session", "step")))
        yield torch.stack([cells.values("session"), cells.values("step")], 1)


def _frame(path: Path, start: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """ROWS rows from ``start`` on; all columns without ``columns``."""
    with parsing(one_line(path)):
        scan = pl.scan_parquet(path, glob=False).slice(start, ROWS)
        if columns is not None:
            scan = scan.select(name for name in columns if name in scan.collect_schema().names())
        return scan.collect()


def check_file(file: Path) -> FileHeader:
    """The header of a file after a check of its checksum.

    Raises UserError if it is wrong, or if the columns are not those of such a log.
    """
    header = read_header(file)
    checksum = Checksum(header.fields)
    for piece in read_pieces(file, header.header):
        checksum.add(piece)
    header.check(one_line(file), checksum)
    return header


def fingerprint(path: Path) -> bytes:
    """32 bytes that are equal for two logs with the same values in the same files, in the same order.

    They come from the checksums in the headers; a file of an earlier version, which has none, is hashed.
    """
    total = hashlib.sha256()
    for file in files_of(path):
        checksum = read_header(file).checksum
        if checksum is None:
            with parsing(one_line(file)), file.open("rb") as stream:
                checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(checksum.encode())
    return total.digest()


def _header(name: str, texts: Mapping[str, str]) -> FileHeader:
    if KEY not in texts:
        raise UserError(
            f"{name} has no header of decisions ({KEY}): give a file that `recsys-rl record` or "
            "write_decisions wrote."
        )
    try:
        as_written = json.loads(texts[KEY])
        checksum, *part = (as_written.pop(key, None) for key in (CHECKSUM, PART, PARTS))
        fields = dict(as_written)
        number = fields.pop("format")
        if type(number) is int and number != FORMAT:
            raise UserError(
                f"{name} has the format {number}, and this version reads {FORMAT}: record it again, or use "
                "the version that wrote it."
            )
        interface = dict(fields["interface"])
        interface["context"] = tuple((str(piece), int(size)) for piece, size in interface["context"])
        interface["action_sizes"] = tuple(map(int, interface["action_sizes"]))
        interface["signals"] = tuple(map(str, interface["signals"]))
        interface["patterns"] = tuple(tuple(map(int, kinds)) for kinds in interface.get("patterns", ()))
        fields["interface"] = Interface(**interface)
        fields["loggers"] = tuple(map(str, fields["loggers"]))
        fields["signals"] = tuple(map(str, fields["signals"]))
        fields["applications"] = tuple(map(str, fields.get("applications", ())))
        fields["consumed"] = tuple(map(float, fields.get("consumed", ())))
        header = DecisionHeader(**fields)
        sound = (
            bool(header.loggers)
            and header.num_items > 0
            and header.interface.slate_size > 0
            and set(header.interface.signals) <= set(header.signals)
            and set(header.applications) <= set(header.loggers)
            and type(header.requested) is bool
            and len(header.consumed) in (0, len(header.interface.signals))
            and 0 <= header.discount <= 1
            and type(header.estimated) is int
            and header.estimated >= 0
            and (checksum is None or isinstance(checksum, str))
            and (
                part == [None, None]
                or (all(type(number) is int for number in part) and 0 <= part[0] < part[1])
            )
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{name} has a header that can't be read: record the log again.")
    return FileHeader(header, as_written, checksum, None if part[0] is None else (part[0], part[1]))


def _log(name: str, header: DecisionHeader, frame: pl.DataFrame) -> DecisionLog:
    """The log of the columns, in the order of the file."""
    cells = Cells(name, frame)
    return assemble(header, **{column.field: _values(cells, column, header) for column in STORED})


def _values(cells: Cells, column: Column, header: DecisionHeader) -> Any:
    """The field of a column; None for one without which a log can be, and that the file lacks."""
    name, sizes = column.name, {"places": header.interface.slate_size, "loggers": len(header.loggers)}
    if column.form == "chance":
        return _logprobs(cells, header)
    if column.form == "logger":
        return cells.named(name, header.loggers)
    if column.field == "given":
        known = dict(header.interface.context)
        given = named(cells.frame.columns, name)
        return {piece: cells.lists(each, known.get(piece)) for piece, each in given.items()}
    if column.field in OPTIONAL and name not in cells and f"{name}{header.signals[0]}" not in cells:
        return None
    if name.endswith("."):
        size = sizes.get(column.form)
        return torch.stack([cells.lists(f"{name}{signal}", size) for signal in header.signals], -1)
    if column.form == "row":
        return cells.values(name)
    values = cells.padded(name) if column.form == "ids" else cells.lists(name, sizes.get(column.form))
    if column.kind == "id":
        cells.check_items(name, values, header.num_items)
    return values


def _logprobs(cells: Cells, header: DecisionHeader) -> Tensor:
    """(E,) float64, from logprob or propensity; NaN without either, and in gaps of an application's rows."""
    both = [column for column in ("logprob", "propensity") if column in cells]
    if not both:
        return torch.full((cells.frame.height,), torch.nan, dtype=torch.float64)
    if len(both) > 1:
        raise UserError(f"{cells.name} has both logprob and propensity: leave one of the columns out.")
    column, certain = both[0], 0.0 if both[0] == "logprob" else 1.0
    gaps = None
    if header.applications:
        gaps = on(cells.frame[column], no_value) & cells.texts("logger").is_in(list(header.applications))
        filled = cells.frame.select(pl.when(gaps).then(certain).otherwise(pl.col(column)).alias(column))
        cells = Cells(cells.name, filled)
    values = cells.values(column).double()
    values = values if column == "logprob" else values.log()
    return values if gaps is None else values.masked_fill(tensor_of(gaps), torch.nan)

"""Split a log file in two Parquet files, by time or by user, without holding it in memory.

Both parts of a log of `recsys-rl record` get its header, each with its own checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.errors import error_text, listed, short
from recsys_rl.tables.checksum import Checksum
from recsys_rl.tables.clean import Missing, Problems, no_value, number_of_rows
from recsys_rl.tables.columns import find_columns
from recsys_rl.tables.decision_survey import is_log_of_decisions
from recsys_rl.tables.describe import ROLES
from recsys_rl.tables.description import Found
from recsys_rl.tables.event_survey import event_hashes
from recsys_rl.tables.hashes import hashes_of, repeats
from recsys_rl.tables.lines import about, lines_of
from recsys_rl.tables.read import HEADLESS, TableFile, has_header, open_table, parsing, pieces
from recsys_rl.tables.reader import FileHeader, check_pieces, read_pieces
from recsys_rl.tables.times import UNCLEAR, TimeFormat, format_of, times_of
from recsys_rl.tables.writer import write_with_header
from recsys_rl.types import UserError
from recsys_rl.utils.user_hashes import user_hashes

GAPS, WRONG = "rows without a value", "rows with a wrong value"


def split_by_time(
    path: Path,
    train: Path,
    test: Path,
    fraction: float,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
    missing: Missing = "refuse",
) -> tuple[int, int, int]:
    """Write the rows before a time to ``train`` and the others to ``test``; the numbers of both, and dropped.

    The time is that quantile of all times after which a ``fraction`` of the rows lies. If the file has a
    session column, a session with a row at or after that time goes to ``test`` whole, so no session is on
    both sides, and ``train`` holds nothing from that time on. Without one, each row is a session. Rows
    without a time are refused or dropped, according to ``missing``. Raises UserError if the file has no
    column of times or a value that is not a time, or if a side is empty.
    """
    table = open_table(path, separator, HEADLESS)
    columns, _ = find_columns(path, table.names, given or {}, ("user", "session", "time"), required=())
    if "time" not in columns:
        raise UserError(
            f"{path}: it has no column for the time; its columns are {listed(table.names)}: name it with "
            "--time-column, or give --by user."
        )
    form = format_of(table, columns["time"])
    if form.order in UNCLEAR:
        raise UserError(f"{path}: column {columns['time']!r}: {UNCLEAR[form.order]}.")
    with lines_of(table):
        times, gone = _times(table, columns["time"], form, missing)
    place = min(int((1 - fraction) * len(times)), len(times) - 1)
    cut = float(np.partition(times, place)[place])
    del times
    late = pl.col(columns["time"]).map_batches(
        lambda x: times_of(x, "time", form)[0] >= cut, return_dtype=pl.Boolean
    )
    scan = _with_values(table.scan(table.names), columns["time"], gone)
    if "session" not in columns:
        return *_write(table, scan.filter(~late), scan.filter(late), train, test), gone
    keys = [columns[role] for role in ("user", "session") if role in columns]
    times_and_keys = _with_values(table.scan([*keys, columns["time"]]), columns["time"], gone)
    sessions = table.collect(times_and_keys.filter(late).select(keys).unique())
    return *_by_keys(table, scan, sessions, keys, train, test), gone


def _times(
    table: TableFile, column: str, form: TimeFormat, missing: Missing
) -> tuple[NDArray[np.float64], int]:
    """The times in seconds, and the number of rows without one. Raises UserError with all wrong rows."""
    found, seconds = Found(), []
    example, rule = "", ""
    for start, piece in pieces(table, [column]):
        parsed, bad, why, _ = times_of(piece[column], "time", form)
        no = no_value(piece[column])
        found.add(GAPS, no, start)
        wrong = (bad & ~no).arg_true()
        if wrong.len() and WRONG not in found.problems:
            example, rule = short(piece[column][int(wrong[0])]), why
        found.add(WRONG, bad & ~no, start)
        seconds.append(parsed.drop_nulls().cast(pl.Float64).to_numpy())
    problems = Problems(str(table.path))
    dropped = _gaps(problems, column, found, missing)
    if WRONG in found.problems:
        count, row = found.problems[WRONG]
        more = f" (and {count - 1:,} more rows)" * (count > 1)
        problems.add(f"column {column!r} has {example} in row {row}{more}", rule)
    problems.refuse()
    times = np.concatenate(seconds) if seconds else np.zeros(0)
    if len(times) == 0:
        raise UserError(f"{table.path} holds no rows: give a log with at least one.")
    return times, dropped


def _gaps(problems: Problems, column: str, found: Found, missing: Missing) -> int:
    """The number of rows without a value in the column, which are a problem unless they are dropped."""
    if GAPS not in found.problems:
        return 0
    count, row = found.problems[GAPS]
    if missing == "refuse":
        problems.gaps(column, count, row)
    return count


def _with_values(scan: pl.LazyFrame, column: str, gaps: int) -> pl.LazyFrame:
    """The rows that have a value in the column, which ``gaps`` rows lack. A filter takes memory."""
    if gaps == 0:
        return scan
    return scan.filter(pl.col(column).map_batches(lambda x: ~no_value(x), return_dtype=pl.Boolean))


def split_by_user(
    path: Path,
    train: Path,
    test: Path,
    fraction: float,
    seed: int,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
    missing: Missing = "refuse",
) -> tuple[int, int, int]:
    """Write the rows of about a ``fraction`` of the users to ``test``, the others to ``train``.

    Returns the numbers of rows of both, and of those that were dropped. A user's side depends on the seed and
    on their own id alone. Rows without a user are refused or dropped, according to ``missing``. Raises
    UserError if a side is empty.
    """
    table = open_table(path, separator, HEADLESS)
    name = find_columns(path, table.names, given or {}, ("user",), ("user",))[0]["user"]
    found = Found()
    for start, piece in pieces(table, [name]):
        found.add(GAPS, no_value(piece[name]), start)
    problems = Problems(str(path))
    gone = _gaps(problems, name, found, missing)
    with lines_of(table):
        problems.refuse()
    scan = _with_values(table.scan(table.names), name, gone)
    some = _with_values(table.scan([name]), name, gone)
    users = table.collect(some.select(pl.col(name).unique()))[name].sort()
    if users.is_empty():
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    # Another key than that of the training's own split, which else would find no held-out users in `train`.
    chosen = users.filter(pl.Series(user_hashes(users.to_list(), f"file {seed}") < fraction))
    return *_by_keys(table, scan, chosen.to_frame(), [name], train, test), gone


def repeated_rows(
    path: Path, given: Mapping[str, str | None] | None = None, separator: str | None = None
) -> str:
    """A note about events with the user, item and time of an earlier row, which a split keeps; "" if none.

    None are sought in a log of decisions, which may show an item twice, and in a file whose columns of users
    and items are unknown.
    """
    table = open_table(path, separator, HEADLESS)
    try:
        columns, _ = find_columns(path, table.names, given or {}, ROLES, required=("user", "item"))
    except UserError:
        return ""
    if is_log_of_decisions(columns, table.names):
        return ""
    columns = {role: columns[role] for role in ("user", "item", "time") if role in columns}
    form = format_of(table, columns["time"]) if "time" in columns else None
    parts = []
    for start, piece in pieces(table, list(columns.values())):
        gaps = [no_value(piece[name]) for name in columns.values()]
        seconds = None
        if "time" in columns:
            seconds, bad, _, _ = times_of(piece[columns["time"]], "time", form)
            gaps.append(bad)
        users, items = (hashes_of(piece[columns[role]]) for role in ("user", "item"))
        parts.append(event_hashes(start, users, items, seconds, gaps))
    count, first = repeats(parts) if parts else (0, 0)
    if not count:
        return ""
    verb, kept = ("repeats", "is") if count == 1 else ("repeat", "are")
    return about(
        table,
        f"{number_of_rows(count)} {verb} the {', '.join(columns)} of an earlier row (the first is row "
        f"{first + 1:,}) and {kept} kept: train with --duplicates sum or keep-first",
    )


def _by_keys(
    table: TableFile, scan: pl.LazyFrame, chosen: pl.DataFrame, keys: list[str], train: Path, test: Path
) -> tuple[int, int]:
    """The rows with the keys ``chosen`` go to ``test``. Joins stream: a window over the keys would not."""
    chosen_rows = chosen.lazy()
    return _write(
        table,
        scan.join(chosen_rows, on=keys, how="anti", nulls_equal=True),
        scan.join(chosen_rows, on=keys, how="semi", nulls_equal=True),
        train,
        test,
    )


def _write(
    table: TableFile, early: pl.LazyFrame, late: pl.LazyFrame, train: Path, test: Path
) -> tuple[int, int]:
    """Write both sides to temporary files, and rename them if both have rows."""
    header = check_pieces(table.path) if has_header(table.path) else None
    counts, done = [], []
    target = train
    try:
        for scan, target in ((early, train), (late, test)):
            target.parent.mkdir(parents=True, exist_ok=True)
            done.append(target.parent / f".{target.name}.{os.getpid()}.tmp")  # with the usual permissions
            with parsing(table.path), _writing(target):
                scan.sink_parquet(done[-1])
            counts.append(int(pl.scan_parquet(done[-1], glob=False).select(pl.len()).collect().item()))
        if 0 in counts:
            raise UserError(
                f"{table.path}: one side of the split would have no rows ({counts[0]:,} and {counts[1]:,}): "
                "give another --fraction."
            )
        for temporary, target in zip(done, (train, test), strict=True):
            if header is not None:
                with _writing(target):
                    _add_header(temporary, header)
        for temporary, target in zip(done, (train, test), strict=True):
            temporary.replace(target)
    except OSError as error:
        raise _unwritten(target, error_text(error)) from error
    finally:
        for temporary in done:
            temporary.unlink(missing_ok=True)
    return counts[0], counts[1]


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn an error of polars about the file that it writes, such as a full disk, into a UserError."""
    try:
        yield
    except pl.exceptions.ComputeError as error:
        found = re.search(r"([^:]*) \(os error \d+\)", str(error))
        if found is None:
            raise  # about the file that it reads
        raise _unwritten(target, found[1].strip()) from error


def _unwritten(target: Path, why: str) -> UserError:
    return UserError(f"{target} can't be written ({why}): make room there.")


def _add_header(path: Path, header: FileHeader) -> None:
    """Write the file again, under this header with the checksum of its own rows."""
    checksum = Checksum(header.fields)
    for piece in read_pieces(path, header.header):
        checksum.add(piece)
    whole = path.with_name(f"{path.name}.2")
    try:
        write_with_header(pl.scan_parquet(path, glob=False), whole, checksum)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)

"""Split a log file in two Parquet files, by time or by user, without holding it in memory.

Both parts of a log of `recsys-rl record` get its header, each with its own checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from recsys_rl.errors import amount, error_text, listed, short
from recsys_rl.tables.checksum import Checksum
from recsys_rl.tables.clean import Missing, Problems
from recsys_rl.tables.layout import ROW, Layout
from recsys_rl.tables.lines import about, lines_of
from recsys_rl.tables.read import TableFile, has_header, parsing
from recsys_rl.tables.reader import FileHeader, check_pieces, read_pieces
from recsys_rl.tables.schema import ROLES
from recsys_rl.tables.times import UNCLEAR, seconds
from recsys_rl.tables.values import no_value
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
    layout = Layout.open(path, given or {}, separator, ("user", "session", "time"), required=())
    table, columns, form = layout.table, layout.roles, layout.form
    if form is None:
        raise UserError(
            f"{path}: it has no column for the time; its columns are {listed(table.names)}: name it with "
            "--time-column, or give --by user."
        )
    if form.order in UNCLEAR:
        raise UserError(f"{path}: column {columns['time']!r}: {UNCLEAR[form.order]}.")
    gone = _check(layout, columns["time"], missing, layout.seconds, form.rule)
    time, kind = table.text(columns["time"]), layout.types[columns["time"]]
    instant = seconds(time, kind, form).cast(pl.Float64)
    times = table.collect(table.scan([columns["time"]]).select(instant).drop_nulls()).to_series().sort()
    if times.is_empty():
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    late = instant >= times[min(int((1 - fraction) * len(times)), len(times) - 1)]
    del times
    scan, keys = table.scan(table.names), [columns[role] for role in ("user", "session") if role in columns]
    own = table.scan(list(dict.fromkeys([*keys, columns["time"]])))
    if gone:  # a filter takes memory
        scan, own = (table.filter(~no_value(time, kind)) for table in (scan, own))
    if "session" not in columns:
        return *_write(table, scan.filter(~late), scan.filter(late), train, test), gone
    sessions = table.collect(own.filter(late).select(keys).unique())
    return *_by_keys(table, scan, sessions, keys, train, test), gone


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
    layout = Layout.open(path, given or {}, separator, ("user",), ("user",))
    table, name = layout.table, layout.roles["user"]
    gone = _check(layout, name, missing)
    scan = table.scan(table.names)
    scan = scan.filter(~no_value(table.text(name), layout.types[name])) if gone else scan
    users = table.collect(scan.select(name).unique()).to_series().sort()
    if users.is_empty():
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    # Another key than that of the training's own split, which else would find no held-out users in `train`.
    chosen = users.filter(pl.Series(user_hashes(users.to_list(), f"file {seed}") < fraction))
    return *_by_keys(table, scan, chosen.to_frame(), [name], train, test), gone


def _check(
    layout: Layout, column: str, missing: Missing, parsed: pl.Expr | None = None, rule: str = ""
) -> int:
    """The number of rows without a value, which are refused or dropped.

    Raises UserError with all rows without a value, and those whose ``parsed`` value is null by the ``rule``.
    """
    problems, gap = Problems(str(layout.table.path)), layout.gap(column)
    counts = layout.counted({GAPS: gap} | ({} if parsed is None else {WRONG: parsed.is_null() & ~gap}))
    count, row = counts.get(GAPS, (0, 0))
    if count and missing == "refuse":
        problems.gaps(column, count, row)
    if WRONG in counts:
        number, first = counts[WRONG]
        (value,) = layout.collect(layout.scan.filter(pl.col(ROW) == first))[column].to_list()
        more = f" (and {number - 1:,} more rows)" * (number > 1)
        problems.add(f"column {column!r} has {short(value)} in row {first}{more}", rule)
    with lines_of(layout.table):
        problems.refuse()
    return count


def repeated_rows(
    path: Path, given: Mapping[str, str | None] | None = None, separator: str | None = None
) -> str:
    """A note about events with the user, item and time of an earlier row, which a split keeps; "" if none.

    None are sought in a log of decisions, which may show an item twice, and in a file whose columns of users
    and items are unknown.
    """
    try:
        layout = Layout.open(path, given or {}, separator, ROLES)
    except UserError:
        return ""
    if layout.holds_decisions:
        return ""
    columns = {role: name for role, name in layout.roles.items() if role in ("user", "item", "time")}
    count, first = Layout(layout.table, columns).repeated_events(timed=True)
    if not count:
        return ""
    verb, is_or_are = ("repeats", "is") if count == 1 else ("repeat", "are")
    return about(
        layout.table,
        f"{amount(count, 'row')} {verb} the {', '.join(columns)} of an earlier row (the first is row "
        f"{first:,}) and {is_or_are} kept: train with --duplicates sum or keep-first",
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
        match = re.search(r"([^:]*) \(os error \d+\)", str(error))
        if match is None:
            raise  # about the file that it reads
        raise _unwritten(target, match[1].strip()) from error


def _unwritten(target: Path, why: str) -> UserError:
    return UserError(f"{target} can't be written ({why}): make room there.")


def _add_header(path: Path, header: FileHeader) -> None:
    """Write the file again, under this header with the checksum of its own rows."""
    checksum = Checksum(header.fields)
    for piece in read_pieces(path, header.header):
        checksum.add(piece)
    with_header = path.with_name(f"{path.name}.2")
    try:
        write_with_header(pl.scan_parquet(path, glob=False), with_header, checksum)
        with_header.replace(path)
    finally:
        with_header.unlink(missing_ok=True)

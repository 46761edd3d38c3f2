"""Split a log file in two Parquet files, by time or by user, without holding it in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from recsys_rl.data.columns import find_columns
from recsys_rl.data.describe import HEADLESS, pieces
from recsys_rl.data.read import TableFile, open_table, parsing
from recsys_rl.data.times import UNCLEAR, order_of, times_of
from recsys_rl.types import UserError

_USER_STREAM = 21  # one of the independent streams of the seed


def split_by_time(
    path: Path,
    train: Path,
    test: Path,
    fraction: float,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
) -> tuple[int, int]:
    """Write the rows before a time to ``train`` and the others to ``test``; the numbers of both.

    The time is that quantile of all times after which a ``fraction`` of the rows lies. If the file has a
    session column, a session with a row at or after that time goes to ``test`` whole, so no session is on
    both sides, and ``train`` holds nothing from that time on. Without one, each row is a session. Raises
    UserError if the file has no time or a row without one, or if a side is empty.
    """
    table, columns = _open(path, separator, given, ("user", "session", "time"), ("time",))
    seconds = []
    order = order_of(table, columns["time"])
    if order in UNCLEAR:
        raise UserError(f"{path}: column {columns['time']!r}: {UNCLEAR[order]}.")
    for start, piece in pieces(table, [columns["time"]]):
        found, bad, _, _ = times_of(piece[columns["time"]], "time", order)
        if bad.any():
            raise UserError(
                f"{path}: column {columns['time']!r} has no time in row "
                f"{start + int(bad.arg_true()[0]) + 1}: a split by time needs one in each row."
            )
        seconds.append(found.cast(pl.Float64).to_numpy())
    times = np.concatenate(seconds) if seconds else np.zeros(0)
    if len(times) == 0:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    place = min(int((1 - fraction) * len(times)), len(times) - 1)
    cut = float(np.partition(times, place)[place])
    del times, seconds
    late = pl.col(columns["time"]).map_batches(
        lambda x: times_of(x, "time", order)[0] >= cut, return_dtype=pl.Boolean
    )
    scan = table.scan(table.names)
    if "session" not in columns:
        return _write(table, scan.filter(~late), scan.filter(late), train, test)
    keys = [columns[role] for role in ("user", "session") if role in columns]
    sessions = table.collect(table.scan([*keys, columns["time"]]).filter(late).select(keys).unique())
    return _by_keys(table, sessions, keys, train, test)


def split_by_user(
    path: Path,
    train: Path,
    test: Path,
    fraction: float,
    seed: int,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
) -> tuple[int, int]:
    """Write the rows of a random ``fraction`` of the users to ``test``, the others to ``train``.

    The draw depends on the users' ids and the seed alone. Raises UserError if a side is empty.
    """
    table, columns = _open(path, separator, given, ("user",), ("user",))
    name = columns["user"]
    users = table.collect(table.scan([name]).select(pl.col(name).unique()))[name].sort()
    drawn = np.random.default_rng([_USER_STREAM, seed]).permutation(users.len())[
        : round(fraction * users.len())
    ]
    return _by_keys(table, users.gather(np.sort(drawn)).to_frame(), [name], train, test)


def _open(
    path: Path,
    separator: str | None,
    given: Mapping[str, str | None] | None,
    roles: tuple[str, ...],
    required: tuple[str, ...],
) -> tuple[TableFile, dict[str, str]]:
    table = open_table(path, separator, HEADLESS)
    return table, find_columns(path, table.names, given or {}, roles, required)[0]


def _by_keys(
    table: TableFile, chosen: pl.DataFrame, keys: list[str], train: Path, test: Path
) -> tuple[int, int]:
    """The rows with the keys ``chosen`` go to ``test``. Joins stream: a window over the keys would not."""
    scan, chosen_rows = table.scan(table.names), chosen.lazy()
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
    counts, done = [], []
    target = train
    try:
        for scan, target in ((early, train), (late, test)):
            target.parent.mkdir(parents=True, exist_ok=True)
            done.append(target.parent / f".{target.name}.{os.getpid()}.tmp")  # with the usual permissions
            with parsing(table.path):
                scan.sink_parquet(done[-1])
            counts.append(int(pl.scan_parquet(done[-1]).select(pl.len()).collect().item()))
        if 0 in counts:
            raise UserError(
                f"{table.path}: one side of the split would have no rows ({counts[0]:,} and {counts[1]:,}): "
                "give another --fraction."
            )
        for temporary, target in zip(done, (train, test), strict=True):
            temporary.replace(target)
    except OSError as error:
        raise UserError(f"{target} can't be written ({error.strerror or error}): make room there.") from error
    finally:
        for temporary in done:
            temporary.unlink(missing_ok=True)
    return counts[0], counts[1]

"""User events from columns, or from any CSV or Parquet file, as an InteractionLog.

Events are sorted by (user, time, item). So the order of the rows does not matter in a file with times. In
a file without times, the order of the rows is the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.catalogue import LikesConfig, world_of_log
from recsys_rl.data.download import gunzip
from recsys_rl.dials import EnvConfig
from recsys_rl.errors import one_line
from recsys_rl.protocols import Source
from recsys_rl.types import InteractionLog, UserError, World

TIME_COLUMN = "timestamp"
RATING_COLUMN = "rating"

# Numbers as programs write them. "007" is a name: if it were read as 7, two ids could become one.
_NUMBER = r"(?i)^\s*[+-]?(nan|inf(inity)?|(0|[1-9]\d*)(\.\d*)?(e[+-]?\d+)?)\s*$"


@dataclasses.dataclass(frozen=True)
class LogConfig(LikesConfig):
    """The users and the items of a CSV or Parquet log."""

    user_column: str = "user"
    """Column of the user id."""
    item_column: str = "item"
    """Column of the item id."""
    time_column: str = TIME_COLUMN
    """Column of the time. Without it, the order of the rows is the time."""
    rating_column: str = RATING_COLUMN
    """Column of the rating. Without it, every row is a like."""


def make_log(
    users: Any,
    items: Any,
    times: Any = None,
    ratings: Any = None,
    *,
    source: str,
    titles: Mapping[Any, str] | None = None,
    genres: Mapping[Any, Sequence[str]] | None = None,
    years: Mapping[Any, float] | None = None,
    rating_range: tuple[float, float] | None = None,
) -> InteractionLog:
    """Check E events and number their U users and I items 0, 1, ... by ascending id.

    ``users``, ``items``, ``times``, ``ratings`` are columns of equal length E (lists, arrays or polars
    series). Ids are whole numbers 0..2**63-1, or strings. If any id of a column does not look like a
    number, the column is read as strings: the sorted rank of a string becomes the id, and the string of an
    item becomes its title. ``times`` are seconds, integer or fractional (the fraction only orders events),
    or dates; without them the order of the rows is the time. Without ``ratings`` each event counts as a
    like: rating 1.0 of the range (0, 1). The keys of ``titles``, ``genres``, ``years`` are ids of the
    source; the default title is "item <id>". ``rating_range`` defaults to the smallest and largest rating
    in the column.

    A repeated event (same user, item and time; without times, same user and item) is an error: it is
    usually a broken export, and it would count twice. Raises UserError, with rows counted from 1.
    """
    user_column, item_column = _series("user", users), _series("item", items)
    columns = (users, items, times, ratings)
    if len({len(column) for column in columns if column is not None}) > 1:
        raise UserError(f"{source}: the columns differ in length: give one value per event in each.")
    if user_column.len() == 0:
        raise UserError(f"{source} holds no events, so no users: give a log with at least one row.")
    user_keys, user_rows = _rank(_ids(user_column, source))
    item_keys, item_rows = _rank(_ids(item_column, source))
    frame = pl.DataFrame({"user": user_rows, "item": item_rows}).with_row_index("row")
    if times is None:
        _refuse_duplicates(frame, ["user", "item"], source)
        frame = frame.with_columns(time=pl.col("row").cast(pl.Int64))
    else:
        frame = frame.with_columns(time=_times(_series(TIME_COLUMN, times), source))
        _refuse_duplicates(frame, ["user", "item", "time"], source)
    rating_column = pl.repeat(1.0, frame.height, dtype=pl.Float32, eager=True)
    if ratings is None:
        rating_range = rating_range or (0.0, 1.0)
    else:
        rating_column = _ratings(_series(RATING_COLUMN, ratings), source)
        rating_range = rating_range or _observed_range(rating_column)
    frame = frame.with_columns(rating=rating_column).sort("user", "time", "item")

    names = item_keys.to_list()
    is_text = item_keys.dtype == pl.String
    genre_rows, genre_names = _multi_hot([(genres or {}).get(name, ()) for name in names])
    return InteractionLog(
        users=_tensor(frame["user"], np.int64),
        items=_tensor(frame["item"], np.int64),
        times=_tensor(frame["time"].floor() if frame["time"].dtype.is_float() else frame["time"], np.int64),
        ratings=_tensor(frame["rating"], np.float32),
        user_ids=_source_ids(user_keys),
        item_ids=_source_ids(item_keys),
        titles=tuple((titles or {}).get(name, name if is_text else f"item {name}") for name in names),
        genres=genre_rows,
        genre_names=genre_names,
        year=torch.tensor([(years or {}).get(name, float("nan")) for name in names], dtype=torch.float32),
        source=source,
        rating_range=rating_range,
    )


def read_log(
    path: str | Path,
    user_column: str = "user",
    item_column: str = "item",
    time_column: str = TIME_COLUMN,
    rating_column: str = RATING_COLUMN,
) -> InteractionLog:
    """Read a log from a .csv, .csv.gz or .parquet file with the named columns; see ``make_log``.

    The time and the rating column may be missing if they have their default names. A column that the
    caller names must exist. Raises UserError.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file: give the path of a .csv, .csv.gz or .parquet log.")
    raw = _read_bytes(path)
    header = _parse(path, raw, None).columns
    needed = [user_column, item_column]
    needed += [time_column] if time_column != TIME_COLUMN else []
    needed += [rating_column] if rating_column != RATING_COLUMN else []
    missing = [name for name in needed if name not in header]
    if missing:
        noun = "columns" if len(missing) > 1 else "column"
        raise UserError(
            f"{path} has no {noun} {_listed(missing)}; it has {_listed(header)}"
            ": name its columns with --user-column, --item-column, --time-column and --rating-column."
        )
    optional = [name for name in (time_column, rating_column) if name in header]
    columns = list(dict.fromkeys([user_column, item_column, *optional]))
    twice = [name for name in columns if f"{name}_duplicated_0" in header]  # polars renames the second so
    if twice:
        raise UserError(f"{path} has more than one column {_short(twice[0])}: rename or remove the others.")
    frame = _parse(path, raw, columns)
    log = make_log(
        frame[user_column],
        frame[item_column],
        frame[time_column] if time_column in header else None,
        frame[rating_column] if rating_column in header else None,
        source=one_line(path.name),
    )
    if rating_column in header:
        return log
    source = f"{log.source} (it has no column {rating_column!r}, so each row counts as a like)"
    return dataclasses.replace(log, source=source)


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gunzip(raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read ({error}): give a whole, readable file.") from error
    if not raw:
        raise UserError(f"{path} is empty: give a log with a header and at least one row.")
    return raw


@contextlib.contextmanager
def parsing(where: str | Path) -> Iterator[None]:
    """Turn a parser's error inside the block into a UserError about the file ``where``."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        quoted = re.sub(r"`(.*?)`", lambda found: _short(found[1]), str(error), flags=re.DOTALL)
        reason = quoted.split("\n", 1)[0][:300]
        raise UserError(
            f"{where} can't be parsed ({reason}): give the whole file, as it was written."
        ) from error


def _short(value: object) -> str:
    """A value of a file as one short line; the value may have many lines."""
    return repr(value[:37] + "..." if isinstance(value, str) and len(value) > 40 else value)


def _listed(names: Sequence[str]) -> str:
    """The first 20 names, and the number of all if there are more."""
    most = 20
    return ", ".join(map(_short, names[:most])) + (f" ... ({len(names):,})" if len(names) > most else "")


def _parse(path: Path, raw: bytes, columns: list[str] | None) -> pl.DataFrame:
    """The named columns, as text for a CSV file; None gives all columns without rows."""
    rows = 0 if columns is None else None
    with parsing(path):
        if path.name.lower().endswith(".parquet"):
            return pl.read_parquet(io.BytesIO(raw), columns=columns, n_rows=rows)
        if b"\0" in raw:
            raise UserError(f"{path} holds NUL bytes, so it is no CSV text: export it again as UTF-8 CSV.")
        return pl.read_csv(raw, columns=columns, n_rows=rows, infer_schema=False)


def _series(name: str, values: Any) -> pl.Series:
    if isinstance(values, pl.Series):
        return values
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"column {name!r} mixes kinds of values or exceeds 64 bits: give one kind."
        ) from error


def _bad(column: pl.Series, mask: pl.Series, source: str, rule: str) -> None:
    """Raise UserError for the first row with a true ``mask`` (null counts as true)."""
    rows = mask.fill_null(True).arg_true()
    if rows.len():
        row = int(rows[0])
        (value,) = column.slice(row, 1).to_list()
        raise UserError(f"{source}: column {column.name!r} has {_short(value)} in row {row + 1}: {rule}.")


def _ids(column: pl.Series, source: str) -> pl.Series:
    """Ids as Int64, or as String if they are names."""
    rule = "ids are whole numbers from 0 to 2**63-1, or strings"
    _bad(column, column.is_null(), source, rule)
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        if not column.str.contains(_NUMBER).all():
            _bad(column, column.str.strip_chars() == "", source, rule)
            return column
        numbers = column.str.strip_chars().cast(pl.Int64, strict=False)
    elif column.dtype.is_integer():
        numbers = column.cast(pl.Int64, strict=False)
    else:
        numbers = pl.repeat(None, column.len(), dtype=pl.Int64, eager=True)
    _bad(column, numbers < 0, source, rule)
    return numbers


def _times(column: pl.Series, source: str) -> pl.Series:
    """Seconds as Int64, or as Float64 with fractions; the caller cuts fractions off after sorting."""
    rule = "times are seconds, as numbers of at most 64 bits"
    if column.dtype.is_temporal() and column.dtype in (pl.Date, pl.Datetime):
        seconds = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    elif column.dtype == pl.String or column.dtype.is_numeric():
        seconds = column.cast(pl.Int64, strict=False) if not column.dtype.is_float() else column
        if seconds.has_nulls():
            seconds = column.cast(pl.Float64, strict=False)
    else:
        seconds = pl.repeat(None, column.len(), dtype=pl.Float64, eager=True)
    if seconds.dtype.is_float():
        _bad(column, (seconds.abs() < 2.0**63).not_(), source, rule)
    _bad(column, seconds.is_null(), source, rule)
    return seconds


def _ratings(column: pl.Series, source: str) -> pl.Series:
    numbers = pl.repeat(None, column.len(), dtype=pl.Float32, eager=True)
    if column.dtype == pl.String or column.dtype.is_numeric():
        numbers = column.cast(pl.Float32, strict=False)
    _bad(column, numbers.is_finite().not_(), source, "ratings are finite numbers")
    return numbers


def _observed_range(ratings: pl.Series) -> tuple[float, float]:
    low, high = float(np.min(ratings.to_numpy())), float(np.max(ratings.to_numpy()))
    # A single rating does not show its scale: extend the range to 0, or to 1.
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def _refuse_duplicates(frame: pl.DataFrame, columns: list[str], source: str) -> None:
    repeated = frame.filter(frame.select(columns).is_duplicated())
    if repeated.height:
        first = repeated.filter(pl.struct(columns) == repeated.select(pl.struct(columns).first()).item())
        rows = (first["row"] + 1).to_list()
        raise UserError(
            f"{source}: rows {rows[0]} and {rows[1]} have the same {', '.join(columns)}: "
            "remove repeated rows, or give a time column with different times for them."
        )


def _rank(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The distinct ids in ascending order, and the rank of each row's id among them."""
    return ids.unique().sort(), ids.rank("dense").cast(pl.Int64) - 1


def _source_ids(keys: pl.Series) -> Tensor:
    return torch.arange(keys.len()) if keys.dtype == pl.String else _tensor(keys, np.int64)


def _multi_hot(rows: list[Sequence[str]]) -> tuple[Tensor, tuple[str, ...]]:
    """(I, G) flags, and the G names in alphabetical order."""
    names = tuple(sorted({name for row in rows for name in row}))
    columns = {name: column for column, name in enumerate(names)}
    flags = torch.zeros(len(rows), len(names))  # (I, G)
    for item, row in enumerate(rows):
        for name in row:
            flags[item, columns[name]] = 1.0
    return flags, names


def _tensor(column: pl.Series, dtype: type) -> Tensor:
    return torch.from_numpy(column.to_numpy().astype(dtype, copy=True))


def _make_world(config: LogConfig, sizes: EnvConfig, seed: int) -> World:
    log = read_log(
        config.data, config.user_column, config.item_column, config.time_column, config.rating_column
    )
    return world_of_log(log, config, sizes, seed)


SOURCE = Source(LogConfig, _make_world)

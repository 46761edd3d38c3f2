"""Data frames of pandas, read column by column: their own Arrow stream needs pyarrow, which may be absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys_rl.data.tables.json_lines import series


def is_pandas(table: object) -> bool:
    """True for a frame of pandas, which need not be installed."""
    return type(table).__module__.partition(".")[0] == "pandas" and hasattr(table, "iloc")


def from_pandas(frame: Any) -> pl.DataFrame:
    """The rows of a frame, with the levels of its index that have names as columns.

    A missing value (None, NaN, NaT, NA) is null; times with a zone are in UTC; a column of objects is read as
    one of JSON lines is. Raises TypeError, ValueError or an error of polars for values of other types.
    """
    levels = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=levels) if levels else frame
    return pl.DataFrame([_column(str(name), frame.iloc[:, at]) for at, name in enumerate(frame.columns)])


def _column(name: str, cells: Any) -> pl.Series:
    if getattr(cells.dtype, "tz", None) is not None:
        cells = cells.dt.tz_convert("UTC").dt.tz_localize(None)
    kind = cells.dtype
    if isinstance(kind, np.dtype) and kind.kind == "M":
        return pl.Series(name, cells.to_numpy().astype("datetime64[us]"))
    if isinstance(kind, np.dtype) and kind.kind != "O":
        return pl.Series(name, cells.to_numpy(), nan_to_null=True)
    gaps = cells.isna().to_numpy()
    values = [None if gap else _plain(x) for x, gap in zip(cells.astype(object), gaps, strict=True)]
    plain = all(x is None or isinstance(x, str | bool | int | float | list) for x in values)
    # Dates and times have types of their own.
    return series(name, values) if plain else pl.Series(name, values, strict=True)


def _plain(value: Any) -> Any:
    """The value without types of numpy; a list of a tuple or an array."""
    if isinstance(value, list | tuple | np.ndarray):
        return [None if x is None or x != x else _plain(x) for x in value]
    return value.item() if isinstance(value, np.generic) else value

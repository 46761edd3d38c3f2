"""Data frames in place of paths: those of pandas, and any with an Arrow stream (polars, pyarrow, duckdb).

A frame becomes a Parquet file, which is read as any other. Its name is made of its content, so the same frame
is the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from recsys_rl.data.tables.columns import A_FRAME, FRAMES, log_name
from recsys_rl.data.tables.pandas_frames import from_pandas, is_pandas
from recsys_rl.errors import UserError, error_text, one_line, short
from recsys_rl.utils.files import write_bytes

_KINDS = "a data frame of polars, pandas, pyarrow or duckdb"


def files_of_frames(log: object, folder: Path) -> tuple[str, ...]:
    """The paths of ``log``: a path, a data frame, or a list of these. Frames are written to ``folder``.

    Raises UserError for any other object, and for a frame that can't be read or written.
    """
    several = log if isinstance(log, list | tuple) else [log]
    return tuple(
        str(one) if isinstance(one, str | Path) else str(_written(_frame(one), folder)) for one in several
    )


@contextlib.contextmanager
def with_files(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The ``settings`` with paths for the data frames of ``log``, whose files go when the block ends.

    ``log=None`` counts as not given. Errors inside the block name the data frame and not its file.
    """
    if settings.get("log") is None:
        yield {name: value for name, value in settings.items() if name != "log"}
        return
    with TemporaryDirectory(prefix=FRAMES) as folder:
        files = files_of_frames(settings["log"], Path(folder))
        try:
            yield {**settings, "log": files}
        except UserError as error:
            text = str(error)
            for number, file in enumerate(files, 1):
                text = text.replace(file, log_name(file, number if len(files) > 1 else None))
            if text == str(error) and not text.startswith(A_FRAME):
                raise
            raise UserError(text[:1].upper() + text[1:]) from error


def _frame(table: Any) -> pl.DataFrame:
    if not is_pandas(table) and not hasattr(table, "__arrow_c_stream__"):
        raise UserError(f"log is {short(table)}, which has no Arrow stream: give a path, or {_KINDS}.")
    try:
        frame = from_pandas(table) if is_pandas(table) else pl.DataFrame(table)
    except (ImportError, TypeError, ValueError, RuntimeError, pl.exceptions.PolarsError) as error:
        reason = one_line(error_text(error)).rstrip(".")
        raise UserError(
            f"The log, a {type(table).__name__}, can't be read ({reason}): give {_KINDS}."
        ) from error
    if not frame.width or not frame.height:
        raise UserError("The log is a data frame without rows: give one with at least one decision.")
    return frame


def _written(frame: pl.DataFrame, folder: Path) -> Path:
    content = io.BytesIO()
    try:
        frame.write_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = one_line(error_text(error)).rstrip(".")
        raise UserError(f"The log has a column that Parquet can't hold ({reason}): leave it out.") from error
    path = folder / f"frame-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.parquet"
    if not path.exists():
        write_bytes(path, content.getvalue())
    return path

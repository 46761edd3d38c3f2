"""The part of `recommend` about contexts: the policies of a team's own log, which know no users."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl
import torch

from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.findings import in_words, words_of
from recsys_rl.data.tables.pieces import CONTEXT, tensors
from recsys_rl.data.tables.read import TableFile, open_table
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.recommender import Recommendation, Recommender
from recsys_rl.recommender.row_candidates import candidate_rows, candidates_column
from recsys_rl.settings.fields import check_used
from recsys_rl.utils.files import check_writable, write_bytes

ROWS = 65_536
"""Rows of a file of contexts that are held at once."""


class PeopleOptions(Protocol):
    """The options that say for whom the recommendations are."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def like(self) -> tuple[str, ...]: ...
    @property
    def users(self) -> str | None: ...
    @property
    def context(self) -> tuple[str, ...]: ...
    @property
    def contexts(self) -> str | None: ...
    @property
    def out(self) -> str | None: ...
    @property
    def k(self) -> int | None: ...
    @property
    def again(self) -> bool: ...
    @property
    def seen(self) -> str | None: ...
    @property
    def separator(self) -> str | None: ...


_ONE = "Give one of --user ID, --like TITLE and --users FILE"


def _ways(options: PeopleOptions) -> dict[str, bool]:
    """For each option that names people or contexts, whether it is given."""
    return {
        "user": options.user is not None,
        "like": bool(options.like),
        "users": options.users is not None,
        "context": bool(options.context),
        "contexts": options.contexts is not None,
    }


def check_one_way(options: PeopleOptions) -> None:
    """Raise UserError if the options name several people, or an output without its input."""
    ways = _ways(options)
    if sum(ways.values()) > 1:
        own = ", or for your own log of --context NAME=VALUE and --contexts FILE"
        raise UserError(f"{_ONE}{own * (ways['context'] or ways['contexts'])}.")
    many = "contexts" if ways["contexts"] else "users"
    if ways[many] != (options.out is not None):
        raise UserError(f"--{many} and --out belong together: give both, or neither.")
    contexts, reason = ways["context"] or ways["contexts"], "only for users of the data; --block takes ids"
    check_used(
        ("again", contexts and options.again, reason),
        ("seen", contexts and options.seen is not None, reason),
    )
    if options.contexts is not None and options.out is not None:
        path = Path(options.out)
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise UserError(
                f"--out {path} is to be a CSV or a Parquet file: end its name with .csv or .parquet."
            )
        if path.resolve() == Path(options.contexts).resolve():
            raise UserError(f"--out {path} is also the file of --contexts: give another name.")
        check_writable(path, "--out")


def check_people(recommender: Recommender, options: PeopleOptions) -> None:
    """Raise UserError if the policy knows users and the options name contexts, or the reverse."""
    ways, pieces = _ways(options), recommender.pieces
    takes = ("user", "like", "users") if pieces is None else ("context", "contexts") if pieces else ()
    reason = f"this policy takes {', '.join(f'--{way}' for way in takes) or 'none'}"
    check_used(*((way, given and way not in takes, reason) for way, given in ways.items()))
    if pieces is None and not any(ways.values()):
        raise UserError(f"{_ONE}.")


def write_contexts(
    recommender: Recommender,
    options: PeopleOptions,
    path: str,
    out: Path,
    allow: Sequence[int | str] | None,
    block: Sequence[int | str],
    generator: torch.Generator | None,
) -> None:
    """Write the recommendations for each row of the file of contexts to ``out``. Raises UserError.

    A row with candidates gets items of these alone. The columns of ``out`` are row (from 1), place (from 1),
    item, title, probability and expected.
    """
    table, pieces = open_table(path, options.separator), recommender.pieces or ()
    k = recommender.checkpoint.interface.slate_size if options.k is None else options.k
    columns = [f"{CONTEXT}{piece.name}" for piece in pieces]
    offered, allowed = candidates_column(table, recommender), recommender.allowed(allow, block)
    frames, done, strange = [], 0, 0
    unknown = dict.fromkeys((piece.name for piece in pieces), 0)
    candidates = None
    for cells in _blocks(table, [*columns, *([offered] if offered else ())]):
        with in_words(words_of(table, done)):
            given = tensors(pieces, cells)
            if offered is not None:
                candidates, lacking = candidate_rows(cells, offered, recommender, allowed)
                strange += lacking
        for piece in pieces:
            unknown[piece.name] += piece.unknown(cells)
        lists = recommender.for_contexts(given, k, allow, block, generator, candidates)
        frames.append(_frame(lists, done))
        done += cells.frame.height
    frame, file = pl.concat(frames), io.BytesIO()
    frame.write_csv(file) if out.suffix.lower() == ".csv" else frame.write_parquet(file)
    write_bytes(out, file.getvalue())
    for name, rows in unknown.items():
        if rows:
            print(f"context.{name}: {amount(rows, 'text')} that the log never had: other", file=sys.stderr)
    if strange:
        said = f"{offered}: {amount(strange, 'candidate')} left out, which the catalogue lacks"
        print(one_line(said), file=sys.stderr)
    print(f"{amount(done, 'context')}: {out}", file=sys.stderr)


def _blocks(table: TableFile, columns: Sequence[str]) -> Iterator[Cells]:
    """The rows of the file with those of the columns that it has, ROWS at a time. Raises UserError."""
    start = 0
    known = [column for column in columns if column in table.names]
    if len(known) < len(columns):  # the reader of the pieces names the first that is missing
        known = known or list(table.names[:1])
    scan = table.texts(known)
    while True:
        frame = table.collect(scan.slice(start, ROWS))
        if not start and not frame.height:
            raise UserError(f"{one_line(table.path)} holds no contexts: give a file with at least one row.")
        if not frame.height:
            return
        yield Cells(one_line(table.path), frame)
        start += ROWS


def _frame(lists: Iterator[list[Recommendation]], before: int) -> pl.DataFrame:
    """The table of lists; ``before``: the rows of the file before the first."""
    rows = [
        (row, place, *recommendation)
        for row, places in enumerate(lists, before + 1)
        for place, recommendation in enumerate(places, 1)
    ]
    kind = pl.String if isinstance(rows[0][2], str) else pl.Int64
    types = (pl.Int64, pl.Int32, kind, pl.String, pl.Float32, pl.Float32)
    names = ("row", "place", *Recommendation._fields)
    return pl.DataFrame(rows, dict(zip(names, types, strict=True)), orient="row")

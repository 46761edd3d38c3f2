"""Intervals of a server's record, which `recsys-rl log export` wrote one after another, as files of one log.

Each file names its interval. Their headers may differ: another version may have served meanwhile, or an
application may have decided. A session is in one interval. Only where the machine's clock was set ahead, and
a session was exported before it had ended, it is in two, and the later one has all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.read import ITEMS_OF, files_of, items_beside, parsing
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, with_columns

KEY = "recsys-rl.interval"
"""The key of [since, until] in the metadata of a Parquet file."""
LATE = "recsys-rl.late-feedback"
"""The key of the number of decisions whose feedback came after the next decision of their session."""
Numbers = tuple[int, int]
"""The numbers of the record's rows in (since, until]."""


def metadata_of(numbers: Numbers, late: int = 0) -> dict[str, str]:
    """The metadata of a file that holds these rows; ``late``: the number of LATE."""
    return {KEY: json.dumps(numbers)} | ({LATE: str(late)} if late else {})


def late_feedback(paths: Sequence[str]) -> int:
    """The number of LATE of a log at these paths; 0 for files that are no exports. Raises UserError."""
    files = [file for path in paths for file in files_of(Path(path)) if file.suffix == ".parquet"]
    texts = []
    for file in files:
        with parsing(one_line(file)):
            texts.append(pl.read_parquet_metadata(file).get(LATE, ""))
    return sum(int(text) for text in texts if text.isdecimal())


def late_sentence(late: int) -> str:
    """The words for ``late`` decisions with late feedback."""
    return (
        f"{amount(late, 'decision')} with feedback that came after the next decision of the session: the "
        "log's observation of that one holds it, and the policy had not seen it"
    )


def interval_in(metadata: Mapping[str, str]) -> Numbers | None:
    """The interval that the metadata of a file name; None without one."""
    try:
        since, until = json.loads(metadata[KEY])
        return (since, until) if type(since) is type(until) is int and 0 <= since < until else None
    except (KeyError, TypeError, ValueError):
        return None


def in_order(folder: Path, files: Mapping[Path, Numbers | None]) -> list[Path] | None:
    """The files of a folder by their intervals; None if none of them has one.

    Raises UserError if some have none, or if two overlap.
    """
    known = sorted((numbers, file) for file, numbers in files.items() if numbers is not None)
    if not known:
        return None
    other = next((file for file, numbers in files.items() if numbers is None), None)
    if other is not None:
        raise UserError(
            f"{one_line(folder)} holds {one_line(other.name)} beside exports of a record, and it is none: "
            "give each log its own folder."
        )
    for (one, first), (two, second) in pairwise(known):
        if two[0] < one[1]:
            raise UserError(
                f"{one_line(folder)} holds {one_line(first.name)} with the rows {one[0] + 1} to {one[1]} of "
                f"a record, and {one_line(second.name)} with {two[0] + 1} to {two[1]}: give files whose rows "
                "do not overlap, each exported with --since the number that the one before printed."
            )
    return [file for _, file in known]


def files_in_order(folder: Path) -> list[Path]:
    """``files_of`` a folder with tables; intervals of a record in their order. Raises UserError."""
    files = files_of(folder)
    with parsing(one_line(folder)):
        intervals = {file: interval_in(pl.read_parquet_metadata(file)) for file in files}
    return in_order(folder, intervals) or files


def items_of_log(paths: Sequence[str]) -> str | None:
    """The file with the items beside the exports of a record: that of the last interval. None without one.

    Raises UserError for a file that can't be read.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += path.glob(f"*{ITEMS_OF}")
        elif items_beside(path).is_file():
            found.append(items_beside(path))
    latest: tuple[int, Path] | None = None
    for file in sorted(found):
        with parsing(one_line(file)):
            numbers = interval_in(pl.read_parquet_metadata(file))
        if numbers is not None and (latest is None or numbers[1] > latest[0]):
            latest = numbers[1], file
    return None if latest is None else str(latest[1])


def item_files(paths: Sequence[str], items: str | Path | None) -> list[str]:
    """The files about the items of a log: of the user, and beside the exports of a record.

    Raises UserError for a file that can't be read.
    """
    return [*dict.fromkeys(str(path) for path in (items, items_of_log(paths)) if path is not None)]


@dataclass(frozen=True)
class Joined:
    """The header and the columns that the intervals of one log share."""

    header: DecisionHeader
    columns: frozenset[str]  # that some file has
    factors: bool  # every file has the log-probability of each place

    @classmethod
    def of(cls, files: Mapping[Path, DecisionHeader]) -> Joined:
        """The files in the order of their intervals. Raises UserError if they are of different places."""
        headers, names = [*files.values()], [*files]
        first, last = headers[0], headers[-1]
        for name, header in files.items():
            for part in ("interface", "signals", "platform", "catalogue"):
                if getattr(header, part) != getattr(first, part):
                    raise UserError(
                        f"{one_line(name)} is of another {part} than {one_line(names[0].name)}: give the "
                        "exports of one record."
                    )
        columns = [{*pl.read_parquet_schema(file)} for file in files]
        loggers = _distinct(header.loggers for header in headers)
        applications = _distinct(header.applications for header in headers)
        if not applications:
            # A later file may have other policies, also of the same names, and no file has the
            # log-probabilities of its rows under those: they count as one logger that changes.
            loggers = (" + ".join(loggers),)
        rules = {header.candidates for header in headers}
        return cls(
            replace(
                last,
                loggers=loggers,
                applications=applications,
                candidates=rules.pop() if len(rules) == 1 else "",
                consumed=next((header.consumed for header in headers if header.consumed), ()),
                requested=all(
                    header.requested or "exclude" not in some
                    for header, some in zip(headers, columns, strict=True)
                ),
            ),
            frozenset().union(*columns),
            all("place_logprobs" in some for some in columns),
        )

    def fitted(self, log: DecisionLog) -> DecisionLog:
        """The log of a file with the header and the columns of all: each row keeps its own propensity."""
        loggers = self.header.loggers
        places = torch.tensor([loggers.index(name) if name in loggers else 0 for name in log.header.loggers])
        return replace(
            with_columns(log, self.columns),
            header=self.header,
            loggers=places[log.loggers],
            place_logprobs=log.place_logprobs if self.factors else None,
            logger_logprobs=None,
        )


def later_sessions(sessions: Sequence[Tensor]) -> list[Tensor]:
    """Of the sessions (n,) of each file, those that a later file holds again."""
    later, found = torch.zeros(0, dtype=torch.int64), list[Tensor]()
    for some in reversed(sessions):
        found.append(some[torch.isin(some, later)])
        later = torch.cat([later, some])
    return found[::-1]


def _distinct(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))

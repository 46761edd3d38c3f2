"""A log of decisions in parts of whole sessions, so that memory does not grow with the log.

A log is a Parquet file, or a folder of Parquet files with one header. Sessions are whole in a file, and their
numbers ascend from file to file. The header of each part says how many there are, so none can be missing.
A folder may hold the intervals of a record (intervals.py), too: their headers and the numbers may differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from recsys_rl.errors import amount, listed, one_line
from recsys_rl.logs.checks import check_rows
from recsys_rl.logs.checksum import Checksum
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, concatenate, cut
from recsys_rl.logs.intervals import Joined, later_sessions
from recsys_rl.logs.reader import (
    FileHeader,
    files_of_log,
    joined_of,
    num_rows,
    read_header,
    read_keys,
    read_pieces,
    read_whole,
)
from recsys_rl.types import UserError
from recsys_rl.utils.allocator import share_arenas

PART = 262_144
"""Rows of a part, if no session is longer."""


def read_decisions(path: str | Path) -> DecisionLog:
    """Read a log, a file or a folder of parts, check it, and order its rows by session and step.

    A file may hold a column ``propensity``, with probabilities, in place of ``logprob``, or neither.

    Raises UserError for the first mistake that is found: a damaged file, a missing column, an impossible
    probability, an item that could not be shown, steps or times out of order (logs/checks.py), or
    values that do not fit the checksum in the header. A log without a checksum is read, too.
    """
    return concatenate(list(parts(path, sys.maxsize)))


def sampled(parts: Iterable[DecisionLog], rows: int, generator: torch.Generator) -> tuple[DecisionLog, bool]:
    """Sessions drawn at random, with at most ``rows`` rows; and True if they are the whole log.

    Each session draws a number by ``generator``, in the order of the log, and the smallest stay. So the
    sample does not depend on the parts.
    """
    samples: list[DecisionLog] = []
    keys = torch.empty(0, dtype=torch.float64)  # (G,) of the sessions of ``samples``
    complete, bound = True, float("inf")
    for log in parts:
        number = log.session
        key = torch.rand(log.num_sessions, dtype=torch.float64, generator=generator)
        stays = key < bound
        if not bool(stays.all()):
            log = log.rows(stays[number])
        samples, keys = [*samples, log], torch.cat([keys, key[stays]])
        if sum(part.num_rows for part in samples) > rows:
            pool = concatenate(samples)
            number = pool.session
            order = keys.argsort()
            most = max(1, int((number.bincount()[order].cumsum(0) <= rows).sum()))
            bound, complete = float(keys[order[most]]) if most < len(order) else bound, False
            stays = keys < bound
            samples, keys = [pool.rows(stays[number])], keys[stays]
    return concatenate(samples), complete


def parts(path: str | Path, rows: int = PART) -> Iterator[DecisionLog]:
    """The rows of ``read_decisions`` in parts of whole sessions, with at most ``rows`` rows each.

    A session with more rows is a part of its own. A file with more rows is read a row group at a time if its
    rows are ordered by session and step, as `recsys-rl record` writes them; in another order it is in memory.

    Raises the errors of ``read_decisions``. Whether a file fits its checksum is known after its last part:
    a result that was computed from the earlier ones does not count before.
    """
    share_arenas()
    files = files_of_log(Path(path))
    joined = joined_of(files)
    if joined is not None:
        yield from _of_intervals(files, joined, rows)
        return
    before: tuple[str, int, FileHeader] | None = None  # a file, its last session, its header
    for file in files:
        name, header = one_line(file), read_header(file)
        if before is not None and header.fields != before[2].fields:
            raise UserError(
                f"{name} has another header than {before[0]}: give a folder with the parts of one log."
            )
        for log in _of_file(file, name, header, rows):
            first = int(log.sessions[0])
            if before is not None and first <= before[1]:
                raise UserError(
                    f"{name} holds session {first}, and {before[0]} holds sessions up to {before[1]}: each "
                    "session must be whole in one file, and have a higher number than those of the files "
                    "before."
                )
            yield log
            last = int(log.sessions[-1])
        before = (name, last, header)


def _of_intervals(files: Sequence[Path], joined: Joined, rows: int) -> Iterator[DecisionLog]:
    """The parts of the intervals of a record, without sessions that a later one has again."""
    again = later_sessions([torch.cat([keys[:, 0] for keys in read_keys(file)]).unique() for file in files])
    for file, later in zip(files, again, strict=True):
        for log in _of_file(file, one_line(file), read_header(file), rows):
            kept = log.rows(~torch.isin(log.sessions, later)) if len(later) else log
            if kept.num_rows:
                yield joined.fitted(kept)


def gathered(path: str | Path, rows: int) -> Iterator[DecisionLog]:
    """The parts of ``parts``, with small ones, as of small files, joined up to ``rows`` rows."""
    waiting: list[DecisionLog] = []
    for log in parts(path, rows):
        if waiting and sum(piece.num_rows for piece in waiting) + log.num_rows > rows:
            yield concatenate(waiting)
            waiting = []
        waiting.append(log)
    yield concatenate(waiting)


def with_propensities(
    name: str, header: DecisionHeader, decisions: Callable[[], Iterator[DecisionLog]]
) -> tuple[Callable[[], Iterator[DecisionLog]], str]:
    """The parts of a log without the sessions in which a propensity is unknown, and a note on these.

    Only decisions of an application may lack theirs. Where no session has all, every one stays, and the note
    is "": then the propensities can be estimated. ``decisions`` begins a pass over the parts of the log.
    """
    known = left_out = 0
    for log in decisions() if header.applications else ():
        lacking = log.num_sessions - log.known_sessions.num_sessions
        known, left_out = known + log.num_sessions - lacking, left_out + lacking
    if not known or not left_out:
        return decisions, ""

    def of_known() -> Iterator[DecisionLog]:
        return (log for log in (part.known_sessions for part in decisions()) if log.num_rows)

    note = f"{amount(left_out, 'session')} of {listed(header.applications)} without propensities left out"
    return of_known, f"{name}: {one_line(note)}"


def _of_file(path: Path, name: str, header: FileHeader, rows: int) -> Iterator[DecisionLog]:
    """The checked parts of one file."""
    if num_rows(path) <= rows or not _is_ordered(path):
        yield from cut(_ordered(name, read_whole(path, header)), rows)
        return
    checksum, start = Checksum(header.fields), 0
    for log in _sessions(_summed(read_pieces(path, header.header), checksum), rows):
        check_rows(name, log, torch.arange(start, start + log.num_rows) + 1)
        start += log.num_rows
        yield log
    header.check(name, checksum)


def _is_ordered(path: Path) -> bool:
    """True if the rows are ordered by session and step."""
    before = torch.empty(0, 2, dtype=torch.int64)
    for keys in read_keys(path):
        ahead = torch.cat([before, keys]).diff(dim=0)  # (n, 2)
        if bool(((ahead[:, 0] < 0) | ((ahead[:, 0] == 0) & (ahead[:, 1] < 0))).any()):
            return False
        before = keys[-1:]
    return True


def _summed(pieces: Iterable[DecisionLog], checksum: Checksum) -> Iterator[DecisionLog]:
    """The pieces, which ``checksum`` takes."""
    for piece in pieces:
        checksum.add(piece)
        yield piece


def _sessions(pieces: Iterable[DecisionLog], rows: int) -> Iterator[DecisionLog]:
    """The rows of the pieces in parts of whole sessions."""
    waiting: list[DecisionLog] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(log.num_rows for log in waiting) > rows:
            *full, rest = cut(concatenate(waiting), rows)
            yield from full
            waiting = [rest]
    yield from cut(concatenate(waiting), rows)


def _ordered(name: str, log: DecisionLog) -> DecisionLog:
    """The checked log, its rows ordered by session and step."""
    order = torch.from_numpy(np.lexsort((log.steps.numpy(), log.sessions.numpy())))
    if not torch.equal(order, torch.arange(log.num_rows)):
        log = log.rows(order)
    check_rows(name, log, order + 1)
    return log

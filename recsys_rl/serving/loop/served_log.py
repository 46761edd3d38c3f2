"""The record of a server as the log of a folder of policies: exported by intervals, read by the champion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import find_encoding
from recsys_rl.data.tables.item_encoding import fitted, items_of
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.ope.part import heldout_of
from recsys_rl.logs.ope.world import why_no_world
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log, over_log
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.rounds import Interval, part_path, parts_in
from recsys_rl.serving.record.snapshot import champion_in
from recsys_rl.utils.progress import announce

SURE = 1e-6
"""Distance of a log-probability from 0 up to which a choice was certain."""


class Served(NamedTuple):
    """The policy that serves, by the record."""

    sha256: str
    file: Path
    checkpoint: Checkpoint


def champion_of(db: Path, policies: Path, env: str | None) -> Served:
    """The record's champion in the folder. Raises UserError without a record, or if its file is missing."""
    if not db.is_file():
        raise UserError(f"{one_line(db)} is not a file: give the record of recsys-rl serve with --db.")
    sha256 = champion_in(db)
    if not sha256:
        raise UserError(f"{one_line(db)} names no policy that served: serve one, then learn from its record.")
    file = files_in(policies).get(sha256)
    if file is None:
        raise UserError(
            f"The policy that serves ({sha256[:8]}) is not in {one_line(policies)}: give the folder of "
            "policies that the server has."
        )
    return Served(sha256, file, load_at_home(file, env))


def export_new(db: Path, policies: Path, env: str | None, until: int | None = None) -> Interval:
    """Export the sessions that have matured since the folder's last part, and return the interval.

    ``until``: the last row of the interval; None for all that have matured. The record may be that of a
    running server. If nothing has matured, no file is written, and the interval is that of the last part.
    Raises UserError for a record that can't be read, and for the first part without a session.
    """
    before = parts_in(policies)
    since = before[-1][1] if before else 0
    if until is not None and until <= since:
        return before[-1]
    record = open_snapshot(db, policies, env)
    try:
        found = interval_of(record, since, until)
        if before and not found.sessions:
            return before[-1]
        out = part_path(policies, since, found.until)
        out.parent.mkdir(exist_ok=True)
        for note in export_record(record, out, found).notes:
            announce(note)
    finally:
        record.store.close()
    return since, found.until


class Sides(NamedTuple):
    """The numbers of sessions and users on both sides of the split, and what the log can't teach."""

    training: int  # sessions of training users
    heldout: int
    training_users: int
    heldout_users: int
    lacking: str  # a sentence; "" for a log with chance in it
    nothing: bool = False  # it can teach nothing at all
    unjudged: str = ""  # a sentence if no model of users can judge what is learned from these sessions
    unknown: float = 0.0  # share of a place's items of now with texts that only new encodings would know


def survey(
    log: Path, checkpoint: Checkpoint, also: Callable[[DecisionLog], None] = lambda part: None
) -> Sides:
    """Read the log once, by the checkpoint over its items. The split is that of the checkpoint's training.

    ``also`` gets each part, so that nobody has to read the log again.
    """
    sessions, users = [0, 0], [set[int](), set[int]()]
    certain, items, no_world = True, set[int](), ""
    paths = (str(log),)
    laid = over_log(checkpoint, paths)
    for part in open_log(paths, laid).parts(PART):
        also(part)
        held = heldout_of(part, checkpoint)
        for side, rows in enumerate((~held, held)):
            sessions[side] += len(part.sessions[rows].unique())
            users[side] |= set(part.users[rows].unique().tolist())
        if len(items) < 2:
            items |= set(part.items[part.items >= 0].unique()[:2].tolist())
        no_world = no_world or (why_no_world(part) if checkpoint.interface.session_length > 1 else "")
        certain = certain and bool((part.logprobs.abs() <= SURE).all())
    lacking = ""
    if len(items) == 1:
        lacking = (
            "The record shows one item everywhere: it says nothing about any other item, so nothing can be "
            "learned or judged from it; serve a policy that draws."
        )
    elif certain:
        lacking = (
            "Each decision of the record had probability 1: it has no answer to a choice that the policy did "
            "not make, so a model must guess it, and weights can judge no other policy; serve a policy that "
            "draws (--explore, or a temperature), and learn from that."
        )
    unjudged = ""
    if no_world:
        unjudged = (
            f"The gate can't judge what is learned from this record, as {no_world}: each candidate gets the "
            "answer can't tell, and only a canary can judge it."
        )
    people = len(users[0]), len(users[1])
    return Sides(sessions[0], sessions[1], *people, lacking, len(items) == 1, unjudged, _unknown(laid))


def heldout_log(log: Path, checkpoints: Sequence[Checkpoint]) -> tuple[Sides, DecisionLog | None]:
    """``survey`` by the last checkpoint, and the decisions for users who are held out by all of them.

    There may be no such decision: None.
    """
    found = list[DecisionLog]()

    def keep(part: DecisionLog) -> None:
        mine = heldout_of(part, *checkpoints)
        if bool(mine.any()):
            found.append(part.rows(mine))

    return survey(log, checkpoints[-1], keep), concatenate(found) if found else None


def _unknown(laid: Checkpoint) -> float:
    """The share of a place's items of now with texts that are *other* to the policy over them.

    Less the share with texts that are *other* to new encodings as well, as the rare ones of many are.
    """
    encoding = find_encoding(laid)
    if encoding is None:
        return 0.0
    live = [item for item in items_of(laid.catalogue) if item.live]
    rows, (best, _) = [item.features for item in live], fitted(live)
    return max(0, encoding.unknown(rows) - best.unknown(rows)) / max(1, len(rows))

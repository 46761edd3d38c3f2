"""One turn of learning from what a server recorded: export what is new, and learn candidates from all so far.

A killed turn goes on when it is started again: the round keeps its interval, finished candidates stay, and
one that was under way is learned again from the same sessions with the same seed.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.checkpoint.home import split_of
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.logs.source import open_log
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.learners import OF_SESSIONS, Learner, Task, learners_of
from recsys_rl.serving.loop.rounds import (
    LOG,
    Candidate,
    Round,
    candidate_in,
    folder_of,
    forget_round,
    held,
    latest_round,
    next_number,
    parts_in,
    round_folder,
    write_candidate,
    write_round,
)
from recsys_rl.serving.loop.served_log import Served, Sides, champion_of, export_new, survey
from recsys_rl.settings.fields import Count, Range, check_fields
from recsys_rl.settings.names import platform_of
from recsys_rl.utils.files import sha256_of, write_bytes
from recsys_rl.utils.progress import announce

MOST_UNKNOWN = 0.05
"""Share of a place's items with texts that only new encodings would know, above which a round says so."""


@dataclass(frozen=True)
class RetrainConfig:
    """One turn of learning from a server's record."""

    db: str = "record.sqlite"
    """The record of recsys-rl serve."""
    policies: str | None = None
    """The folder of the policies that the server has: the champion is there, the log of the record and the
    candidates will be."""
    env: str | None = None
    """Environment of the champion. Required if its name holds a module to import."""
    steps: Count = 150_000
    """Steps of PPO inside learned users; for a log of sessions."""
    decisions: Count | None = None
    """Decisions that a learner from the log draws (default: those of the platform's preset)."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    quiet: bool = False
    """Print no progress."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)


def retrain(options: RetrainConfig) -> list[Path]:
    """Learn the candidates of a round; returns their files.

    A finished round of the same champion and the same interval is not done again. Raises UserError for a
    record without a policy or without sessions that can be learned from, and for a folder without the
    champion.
    """
    policies = folder_of(options.policies)
    with held(policies):
        champion = champion_of(Path(options.db), policies, options.env)
        now = begin_round(options, champion)
        if now.candidates:
            _say(options, f"round {now.number} is done, and nothing has matured since")
            return [*_files_of(policies, now)]
        try:
            return _learn(options, champion, now)
        except UserError:
            forget_round(policies, now)  # the next try learns from what has come in until then, too
            raise


def begin_round(options: RetrainConfig, champion: Served) -> Round:
    """The round to learn: the one that is under way, a new one, or the finished one if nothing is new."""
    policies = folder_of(options.policies)
    latest = latest_round(policies)
    if latest is not None and not latest.candidates and latest.champion == champion.sha256:
        intervals = parts_in(policies)
        if intervals and intervals[-1][1] == latest.until:
            return latest
    _say(options, f"exporting what is new in {one_line(options.db)}")
    since, until = export_new(Path(options.db), policies, options.env)
    if latest is not None and latest.champion == champion.sha256 and latest.until == until:
        return latest
    number = next_number(policies)
    shutil.rmtree(round_folder(policies, number), ignore_errors=True)  # of an interval that grew
    now = Round(number, champion.sha256, since, until)
    write_round(policies, now)
    return now


def _learn(options: RetrainConfig, champion: Served, now: Round) -> list[Path]:
    """The candidates of the round. A learner that can't learn from this log leaves a line alone."""
    policies = folder_of(options.policies)
    log = policies / LOG
    sides = survey(log, champion.checkpoint)
    _check(log, sides)
    learners = learners_of(champion.checkpoint, sides.unknown > MOST_UNKNOWN)
    for line in filter(None, (sides.lacking, sides.unjudged, _unknown_part(sides.unknown, learners))):
        announce(line)
    task = Task(
        champion=champion,
        log=log,
        folder=round_folder(policies, now.number),
        steps=options.steps,
        decisions=options.decisions,
        threads=options.threads,
        env=options.env,
    )
    log_hash = open_log((str(log),), champion.checkpoint).fingerprint().hex()
    learned, refusals = dict[str, Path](), list[UserError]()
    for learner in learners:
        path = policies / f"{learner.name}-{now.number}.pt"
        before = _before(policies, path, now)
        if before:
            learned[before] = path
            continue
        _say(options, f"learning {path.name} from {amount(sides.training, 'session')}: {learner.how}")
        try:
            made = learner.learn(task)
            checkpoint = _undated(made, options.env)
        except UserError as error:
            refusals.append(error)
            announce(f"no {path.name}: {error}")
            continue
        of = _candidate(made, checkpoint, path.name, champion, now, log_hash, sides)
        write_candidate(policies, of)  # first: a file that nobody knows is not replaced
        _publish(made, path)
        learned[of.sha256] = path
    if not learned:
        raise refusals[-1]
    write_round(policies, dataclasses.replace(now, candidates=tuple(learned), unknown=sides.unknown))
    return [*learned.values()]


def _files_of(policies: Path, of: Round) -> Iterator[Path]:
    """The files of the round's candidates. Raises UserError for one that is gone."""
    files = files_in(policies)
    for sha256 in of.candidates:
        if sha256 not in files:
            raise UserError(
                f"{one_line(policies)} lacks the candidate {sha256[:8]} of round {of.number}: copy it from a "
                f"backup, or delete {one_line(round_folder(policies, of.number))} to learn another round."
            )
        yield files[sha256]


def _check(log: Path, sides: Sides) -> None:
    """Raise UserError for sessions from which no candidate can come that could be judged."""
    name = one_line(log)
    if sides.nothing:
        raise UserError(sides.lacking)
    if sides.training_users < 2:
        people = amount(sides.training_users, "training user")
        raise UserError(
            f"{name} has {amount(sides.training, 'session')} of {people}, and two are needed: learn again "
            "when more people have come."
        )
    if sides.heldout_users < 2:
        raise UserError(
            f"{name} has sessions of {amount(sides.heldout_users, 'held-out user')}, and two are needed to "
            "judge what is learned from it: learn again when more people have come."
        )


def _before(policies: Path, path: Path, now: Round) -> str:
    """The SHA-256 of the round's finished candidate at ``path``; "" if it is still to be learned.

    Raises UserError for a file that no round learned.
    """
    if not path.exists():
        return ""
    sha256 = sha256_of(path)
    known = candidate_in(policies, sha256)
    if known is None or known.file != path.name:
        raise UserError(f"{one_line(path)} exists, and no round learned it: give it another name.")
    if (known.round, known.parent, known.interval[1]) != (now.number, now.champion, now.until):
        raise UserError(f"{one_line(path)} is of another round: give it another name.")
    return sha256


def _candidate(
    made: Path,
    checkpoint: Checkpoint,
    name: str,
    champion: Served,
    now: Round,
    log_hash: str,
    sides: Sides,
) -> Candidate:
    """What is known of the candidate at ``made``, which gets the name ``name`` in the folder."""
    share, seed = split_of(champion.checkpoint)
    return Candidate(
        sha256=sha256_of(made),
        file=name,
        algo=checkpoint.config.algo,
        parent=champion.sha256,
        round=now.number,
        interval=(0, now.until),
        log_hash=log_hash,
        seed=seed,
        heldout_fraction=share,
        sessions=sides.training,
        warm="steps_before" in checkpoint.info,
    )


def _unknown_part(share: float, learners: Sequence[Learner]) -> str:
    """A sentence if many items of the place have texts that only new encodings would know; "" if not."""
    if share <= MOST_UNKNOWN:
        return ""
    mend = f"the candidate {learners[-1].name} learns with new encodings"
    if learners is OF_SESSIONS:
        mend = "train a policy without --checkpoint, which makes new encodings"
    return (
        f"{share:.0%} of the items have texts that the champion takes for other, and new encodings would "
        f"know: {mend}."
    )


def _undated(path: Path, env: str | None) -> Checkpoint:
    """Take the time of its writing out of the checkpoint at ``path``: learned again, it has the same bytes.

    Returns the checkpoint.
    """
    checkpoint = load(path, env)
    info = {name: value for name, value in checkpoint.info.items() if name != "created"}
    checkpoint = dataclasses.replace(checkpoint, info=info)
    save(path, checkpoint)
    return checkpoint


def _publish(checkpoint: Path, path: Path) -> None:
    """Copy the checkpoint to ``path``, in one step."""
    write_bytes(path, checkpoint.read_bytes())


def _say(options: RetrainConfig, line: str) -> None:
    if not options.quiet:
        announce(line)

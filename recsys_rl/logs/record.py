"""Record the decisions of a policy, with their probabilities, in a Parquet file or in parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import amount
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.evaluation.players import Table
from recsys_rl.evaluation.policies import Behaviours, check_once
from recsys_rl.evaluation.rivals.linear_bandit import DRAWS
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, concatenate
from recsys_rl.logs.experience.decisions import record as record_sessions
from recsys_rl.logs.writer import ROWS, DecisionWriter
from recsys_rl.protocols import Behaviour
from recsys_rl.records import PRIVILEGED
from recsys_rl.settings.fields import Count, Range, check_fields
from recsys_rl.settings.names import DEFAULT_ALGO, platform_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.latest import print_latest
from recsys_rl.types import Population, UserError
from recsys_rl.utils.files import check_new_folder, check_parquet
from recsys_rl.utils.progress import counted
from recsys_rl.utils.seeding import generators

WIDTH = 256  # sessions played together


@dataclass(frozen=True)
class RecordConfig:
    """One recording of the decisions of one or more policies."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy, the catalogue and the users."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    policy: tuple[str, ...] = ()
    """Row of the evaluation table that decides: ppo, ppo-greedy, random, popularity ... (default: the
    checkpoint's own policy, sampled). Of several policies, each session draws one."""
    mix: str | None = None
    """A second policy, which decides with probability epsilon in place of the first."""
    epsilon: Annotated[float, Range(above=0, below=1)] | None = None
    """Probability of the policy of --mix in each decision."""
    sessions: Count = 1000
    """Sessions to record."""
    out: str | None = None
    """The Parquet file to write; with --parts a new folder."""
    parts: Count | None = None
    """Write a folder of Parquet files with whole sessions and at most so many rows each (default: one
    file)."""
    users: Literal["heldout", "train", "all"] = "heldout"
    """The users who play, each equally often."""
    seed: Seed = 0
    """The seed of users, responses and decisions."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    quiet: bool = False
    """Print no progress."""
    cache_dir: str | None = None
    """Folder for the results of the searches of `rule` and `searched` (default: the user's cache folder)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)
        if (self.mix is None) != (self.epsilon is None):
            raise UserError("--mix and --epsilon belong together: give both, or neither.")
        if self.mix is not None and len(self.policy) > 1:
            raise UserError("--mix is for one --policy: give one, or several without --mix.")
        check_once(self.policy)


def record(options: RecordConfig) -> Path:
    """Play the sessions, and write their decisions in pieces. Returns the path of the log.

    Raises UserError for a checkpoint or a policy that can't be used, and if the file can't be written.
    """
    if options.out is None:
        raise UserError("The file to write is missing: give --out FILE.parquet.")
    path = Path(options.out)
    if options.parts is None:
        check_parquet(path, "--out")
    else:
        check_new_folder(path, "--out")
    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = load_at_home(options.checkpoint, options.env)
    if path.resolve() == Path(options.checkpoint).resolve():
        raise UserError(f"--out {path} is the checkpoint itself: give another name.")
    if checkpoint.world.is_empty:
        raise UserError(
            f"{options.checkpoint} is of {checkpoint.config.env}, which has no catalogue: record a policy of "
            "a platform with items."
        )
    if checkpoint.interface.visits > 1:
        raise UserError(
            f"{options.checkpoint} is of users with up to {checkpoint.interface.visits} visits, and a log "
            "holds sessions of one visit: record a policy that was trained with --visits 1."
        )
    streams = generators(options.seed, "evaluation users", "policy", "random", "mixture", "sessions")
    users = _users(checkpoint.population, options.users)
    table = Table(checkpoint.config, checkpoint.world, users, options.seed, torch.device("cpu"), streams)
    env = table.env()
    assert isinstance(env, RecEnv)
    loggers, header = _loggers(
        options, checkpoint, Behaviours(checkpoint, table, env, options.cache_dir), env
    )
    if not options.quiet:
        print_latest(options.checkpoint, checkpoint)
    _print_overlap(loggers)
    progress = counted("recording sessions", options.sessions, options.quiet)
    with DecisionWriter(path, header, options.parts) as writer, progress as show:
        for piece in _pieces(options.sessions, env, loggers, header, checkpoint, users, streams["sessions"]):
            writer.write(piece)
            show(int(piece.sessions[-1]) + 1)
    if not options.quiet:
        done = f"{amount(writer.num_rows, 'decision')} of {amount(options.sessions, 'session')}"
        print(f"{done}: {path}", file=sys.stderr)
    return path


def _loggers(
    options: RecordConfig, checkpoint: Checkpoint, behaviours: Behaviours, env: RecEnv
) -> tuple[dict[str, Behaviour], DecisionHeader]:
    """The policies that decide, by their names in the log, and the log's header."""
    names = options.policy or (behaviours.name,)
    rule = behaviours.candidate_rule(names)
    if options.mix is not None and options.epsilon is not None:
        mixture = behaviours.mix(names[0], options.mix, options.epsilon)
        loggers = {f"{1 - options.epsilon:g} {names[0]} + {options.epsilon:g} {options.mix}": mixture}
    else:
        seers = [name for name in names if name in PRIVILEGED]
        if seers and len(names) > 1:
            raise UserError(
                f"{seers[0]} reads the simulator's state, so its probability in other sessions is unknown: "
                "record it alone."
            )
        loggers = {name: behaviours.make(name) for name in names}
    header = DecisionHeader(
        loggers=tuple(loggers),
        interface=env.interface,
        signals=tuple(signal.name for signal in env.signals),
        discount=checkpoint.config.agent_config.discount,
        platform=checkpoint.config.env,
        catalogue=catalogue_hash(checkpoint.catalogue),
        candidates=rule,
        estimated=DRAWS if "lints" in (*names, options.mix) else 0,
    )
    return loggers, header


def _print_overlap(loggers: dict[str, Behaviour]) -> None:
    """Print a line about policies without chance."""
    fixed = [name for name, behaviour in loggers.items() if isinstance(behaviour, Fixed)]
    if not fixed:
        return
    if len(fixed) < len(loggers):
        what = "the sessions of the other policies alone can judge another one"
    else:
        what = (
            "the log overlaps with no other policy and can't judge one; mix a random policy in with --mix "
            "random --epsilon 0.2"
        )
    print(
        f"{', '.join(fixed)}: every decision has probability 1 (logprob 0), so {what}",
        file=sys.stderr,
    )


def _users(population: Population, group: str) -> Tensor:
    """(U',) rows of the users who play."""
    if group == "all":
        return torch.arange(len(population.user_ids))
    return population.heldout if group == "heldout" else population.train


def _pieces(
    sessions: int,
    env: RecEnv,
    loggers: dict[str, Behaviour],
    header: DecisionHeader,
    checkpoint: Checkpoint,
    users: Tensor,
    generator: torch.Generator,
) -> Iterator[DecisionLog]:
    """The log in pieces of about ROWS rows."""
    waiting: list[DecisionLog] = []
    at = 0
    for turn in _turns(users, sessions, generator):
        played = record_sessions(
            env,
            env.given,
            list(loggers.values()),
            header,
            turn,
            checkpoint.population.user_ids[turn],
            at,
            generator,
        )
        at += len(turn)
        waiting.append(played)
        if sum(log.num_rows for log in waiting) >= ROWS or at == sessions:
            yield concatenate(waiting)
            waiting = []


def _turns(users: Tensor, sessions: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The users (n,) of WIDTH sessions at a time: in each round every user has one, in random order."""
    queue = users[:0]
    while sessions:
        count = min(sessions, WIDTH)
        while len(queue) < count:
            queue = torch.cat([queue, users[torch.randperm(len(users), generator=generator)]])
        yield queue[:count]
        queue, sessions = queue[count:], sessions - count

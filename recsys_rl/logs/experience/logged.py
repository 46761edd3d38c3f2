"""Logged experience: batches of the decisions of a log."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError, amount
from recsys_rl.logs.checks import check_catalogue
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.experience.dealt import Decisions, check_processes, dealt
from recsys_rl.logs.experience.log_facts import (
    LogFacts,
    behaviour_logprobs,
    check_facts,
    check_slates,
    facts_of,
)
from recsys_rl.logs.experience.sides import Sides
from recsys_rl.logs.parts import with_propensities
from recsys_rl.logs.rewards import Rewards, has_signals, place_rewards
from recsys_rl.logs.source import LogSource, Place, heldout_strangers, open_log
from recsys_rl.logs.transitions import TransitionTable, transition_table
from recsys_rl.make import make_user_model
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.objective.weighted import FIELD
from recsys_rl.protocols import Learner, Watcher
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import check_used
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.types import Batch, Catalogue, Interface, Transitions, World, tensors_of
from recsys_rl.utils.seeding import stream_seed

MOST_ROWS = 524_288
"""Decisions that are held at once: some 0.6 kB each, and as much again while they are read."""
MOST_HELD_BACK = 20_000
"""Decisions that are held back at most, about."""
FEWEST_USERS = 10
"""Users of a log from which some are held back."""


def make_from_log(
    config: Config,
    world: World,
    generators: Mapping[str, torch.Generator],
    agent_for: Callable[[Interface], Any],
    num_updates: int = 1,
    average: Callable[[Tensor], None] | None = None,
    process: tuple[int, int] = (0, 1),
) -> tuple[Logged, Learner]:
    """The log of a run, and the agent that learns from it; arguments as of ``make_on_policy``.

    Raises the errors of ``make_logged``.
    """
    logged = make_logged(config, world, generators["shuffle"], process)
    agent = agent_for(logged.interface)
    if config.agent_config.held_back:
        agent.learn_from(logged.num_decisions, logged.held_back)
    if config.platform.tables is not None and isinstance(agent, NetworkPolicy):
        agent.keep_chance()
    return logged, agent


def make_logged(
    config: Config, world: World, generator: torch.Generator, process: tuple[int, int] = (0, 1)
) -> Logged:
    """The log of a run as its experience: the decisions of users who aren't held out.

    ``process``: the rank of this process, and the number of all; each holds other sessions, and about as many
    decisions (dealt.py).

    Raises UserError if the log is missing, of other items, of other sessions than the platform's, without
    training users, or of fewer sessions than there are processes.
    """
    settings, (rank, size) = config.agent_config, process
    side = _opened(config, world, size)
    source, sides = side.source, Sides(side.source.unit)
    in_one_part = source.num_rows <= MOST_ROWS
    held = _together([*side.parts(sides)]) if in_one_part and size == 1 else None
    facts = facts_of(side.parts(sides) if held is None else held)  # read once more, part by part
    share = getattr(settings, "best_sessions", 0)
    share = share if 0 < share < 1 else 1.0
    parts: Callable[[], Iterable[Decisions]] = side.parts
    if size > 1:
        check_processes(source.name, math.ceil(share * len(facts.returns)), size)
        parts = partial(side.of_process, facts, share, rank, size)
        held = _together([*parts()]) if in_one_part else None
    ids = world.catalogue.item_names or world.catalogue.item_ids.tolist()
    needs = (*config.algorithm.needs, *settings.needs)
    check_facts(source.name, config.algo, facts, needs, ids, sides.num_users)
    sides.check(source.name)
    parts, whole = (parts, False) if held is None else (partial(iter, held), len(held) < 2)
    held_back, share_back, mine = None, 0.0, parts
    if settings.held_back and len(sides.users[0]) >= FEWEST_USERS:
        share_back = min(settings.held_back, MOST_HELD_BACK / facts.rows)
        parted = partial(_parted, share_back, config.train_config.seed, parts)
        held_back = _first_rows(side.tables(settings, facts, False, 1.0, partial(parted, True)))
        parts = partial(parted, False)
    logged = partial(
        Logged,
        source.name,
        interface=source.header.interface,
        config=settings,
        generator=generator,
        fingerprint=source.fingerprint(),
        sides=sides.text,
    )
    # A likelihood with a negative weight has no maximum, so it takes the sum of a slate then.
    least = facts.least_of_places
    by_place = least is not None and (least >= 0 or "gains" not in needs)
    tables = partial(side.tables, settings, facts, by_place)
    # a process of several doesn't hold the sessions of the others, so they are read again
    every = partial(tables, 1.0, mine if size == 1 else side.parts)
    fewer = share < 1 or size > 1 or held_back is not None
    all_sessions = partial(logged, every, size == 1 and whole) if fewer else None
    experience = logged(partial(tables, share, parts), whole, unfiltered=all_sessions)
    others = f"each of {size} processes has other sessions of the log" if size > 1 else ""
    back = 0 if held_back is None else held_back.num_rows
    stops = f"{amount(back, 'decision')} of these are held back, to see when to stop" if back else ""
    experience.note = "\n".join(filter(None, [side.note, others, stops]))
    experience.held_back = held_back
    experience.num_decisions = round((1 - share_back) * facts.rows)
    experience.last_time = sides.last if source.has_times else None
    return experience


@dataclass(frozen=True)
class _TrainingSide:
    """The decisions of a log that are learned from."""

    source: LogSource
    decisions: Callable[[], Iterator[DecisionLog]]  # begins a pass over those of both sides
    rewards_of: Rewards
    catalogue: Catalogue
    rows: int  # that are held at once
    note: str  # on sessions that are left out

    def parts(self, sides: Sides | None = None) -> Iterator[Decisions]:
        """The decisions with their rewards, a part of the log at a time; ``sides`` counts both sides."""
        for log in self.decisions():
            heldout = self.source.heldout(log)
            if sides is not None:
                sides.add(log, heldout)
            part = log.rows(~heldout)
            if part.num_rows:
                check_slates(self.source.name, part, self.catalogue)
                yield Decisions(part, self.rewards_of(part.feedback), self._places(part))

    def _places(self, part: DecisionLog) -> Tensor | None:
        """(E, K): the rewards of places, where each place has its own probability; None elsewhere.

        Places with patterns of kinds are one decision: a pattern is chosen as a whole.
        """
        if part.place_logprobs is None or part.header.interface.patterns or not part.has_propensities:
            return None
        return place_rewards(self.rewards_of, part.feedback)

    def of_process(self, facts: LogFacts, share: float, rank: int, size: int) -> Iterator[Decisions]:
        """Those of one process of several, of the best sessions, joined up to ``rows`` rows."""
        waiting: list[Decisions] = []
        for part in dealt(facts.best(share, self.parts()), rank, size):
            if sum(some.log.num_rows for some in (*waiting, part)) > self.rows:
                yield from _together(waiting)
                waiting = []
            waiting.append(part)
        yield from _together(waiting)

    def tables(
        self,
        config: LoggedConfig,
        facts: LogFacts,
        by_place: bool,
        share: float,
        parts: Callable[[], Iterable[Decisions]],
    ) -> Iterator[TransitionTable]:
        """The tables of the best sessions of ``parts``; ``by_place``: with the rewards of places."""
        endless = bool(getattr(config, "bootstrap_time_limit", 0))
        for part in facts.best(share, parts()):
            log = replace(part.log, logprobs=behaviour_logprobs(part.log, facts.logger_rows))
            places = part.places if by_place else None
            settings = config.discount, facts.span, endless, places
            yield transition_table(log, self.catalogue, part.rewards, *settings)


def _opened(config: Config, world: World, processes: int) -> _TrainingSide:
    """The log of a run, whose settings fit it. Raises the errors of ``make_logged`` that need no decision."""
    settings = config.agent_config
    if not settings.log:
        raise UserError(f"{config.algo} learns from a log of decisions: give --log FILE.")
    if world.is_empty:
        raise UserError(f"{config.env} has no catalogue, and a log is of one: choose a platform with items.")
    data, seed, users = config.data_config, config.train_config.seed, make_user_model(config, world)
    check_used(("stranger_share", data.stranger_share > 0, "the profiles of a log are in the log"))
    source = open_log(settings.log, Place.of_run(config, world))
    header, note = source.header, ""
    rows = MOST_ROWS if processes == 1 else -(-min(source.num_rows, MOST_ROWS) // processes)
    decisions: Callable[[], Iterator[DecisionLog]] = partial(source.gathered, rows)
    if "propensities" in config.algorithm.needs:
        decisions, note = with_propensities(source.name, header, decisions)
    check_catalogue(source.name, header, world.catalogue, f"--data {data.data} --seed {seed}")
    env = RecEnv(users, world.catalogue, config.env_config, world.population.train, 1, torch.Generator())
    if header.interface != env.interface or not has_signals(header, users):
        raise UserError(
            f"{source.name} is of other sessions than those of {config.env} (platform, length, or pieces of "
            "the context): give the settings with which it was recorded."
        )
    rewards_of = source.rewards(config.train_config.weights, FIELD)
    return _TrainingSide(source, decisions, rewards_of, world.catalogue, rows, note)


def _parted(
    share: float, seed: int, parts: Callable[[], Iterable[Decisions]], held_back: bool
) -> Iterator[Decisions]:
    """The decisions for the ``share`` of users that is held back from training, or those for the others."""
    for part in parts():
        back = heldout_strangers(part.log.users, share, stream_seed(seed, "held back"))
        rows = back if held_back else ~back
        if rows.any():
            yield part.rows(rows)


def _first_rows(tables: Iterator[TransitionTable]) -> Transitions | None:
    """The first MOST_HELD_BACK decisions; None without any."""
    table = next(tables, None)
    if table is None:
        return None
    rows = (table.items >= 0).all(1).nonzero().squeeze(1)
    return table.at(rows[:MOST_HELD_BACK]) if len(rows) else None


def _together(parts: Sequence[Decisions]) -> list[Decisions]:
    """Parts of a log, those of the same columns as one: a batch is drawn from all."""
    kinds: dict[tuple[str, ...], list[Decisions]] = {}
    for part in parts:
        kinds.setdefault(tuple(tensors_of(part.log)), []).append(part)
    return [Decisions.joined(some) for some in kinds.values()]


class Logged:
    """Batches of decisions, drawn with replacement: all decisions that are held are equally likely.

    A log of at most MOST_ROWS decisions is held as a whole. A larger one is read in parts, one after another
    and round again, and each part serves as many batches as have its number of rows, rounded up. Slates with
    an empty place are never drawn, as a policy has no probability for them.
    """

    def __init__(
        self,
        name: str,
        tables: Callable[[], Iterator[TransitionTable]],
        in_one_part: bool,
        interface: Interface,
        config: LoggedConfig,
        generator: torch.Generator,
        fingerprint: bytes = b"",
        sides: str = "",
        unfiltered: Callable[[], Logged] | None = None,
    ) -> None:
        """
        Args:
            name: of the log, for errors.
            tables: begins a new pass over the parts of the log.
            in_one_part: the log is one part.
            generator: draws the decisions of each batch.
            fingerprint: of the log; a resumed run must have the same.
            sides: what is learned from and what is held out, in words.
            unfiltered: makes ``of_all_sessions``, if this holds the best ones, those of a process, or those
                that are not held back.

        Raises UserError if the log has no decision to learn from.
        """
        self.name, self.tables, self.in_one_part, self._interface = name, tables, in_one_part, interface
        self.size, self.generator, self.sides = config.steps_per_update, generator, sides
        self.fingerprint = torch.tensor(list(fingerprint), dtype=torch.uint8)
        self._unfiltered = unfiltered
        self.env: None = None
        self.watcher: Watcher | None = None
        self.note = ""  # on sessions that are left out
        self.held_back: Transitions | None = None  # decisions that are never drawn
        self.num_decisions = 0  # of all processes together, about, without those that are held back
        self.last_time: int | None = None  # of the training side, in the log's unit, where it has times
        self.part, self.served = -1, 0  # the place of the table in the log, and its batches so far
        self._pass = tables()
        self.table: Any = None  # the TransitionTable that is held
        self.rows: Any = None  # (n,) int64: its decisions that are drawn
        self._next_part()

    @property
    def interface(self) -> Interface:
        return self._interface

    def of_all_sessions(self) -> Logged:
        """The training side of the log with all its sessions; itself if it holds them."""
        return self if self._unfiltered is None else self._unfiltered()

    def batch(self) -> Batch:
        if not self.in_one_part and self.served * self.size >= self.table.num_rows:
            self._next_part()
        drawn = torch.randint(len(self.rows), (self.size,), generator=self.generator)
        self.served += 1
        data = self.table.at(self.rows[drawn])
        return Batch(data, {"reward_mean": data.rewards.mean().item()}, torch.zeros(2, 0))

    def _next_part(self) -> None:
        """Hold the next part with a decision to learn from; after the last one, the first."""
        self.table = self.rows = None  # freed before another is made
        for _ in range(2):
            for table in self._pass:
                self.part, self.served = self.part + 1, 0
                rows = (table.items >= 0).all(1).nonzero().squeeze(1)
                if len(rows):
                    self.table, self.rows = table, rows
                    return
            self._pass, self.part = self.tables(), -1
        raise UserError(
            f"{self.name} holds no decisions to learn from: all its users are held out from training, or its "
            "slates have empty places. Record training users (--users train, or all)."
        )

    def describe(self) -> str:
        sessions = int((self.table.steps_left == 1).sum())
        size = f"{amount(self.table.num_rows, 'decision')} of {amount(sessions, 'session')}"
        note = f"\n{self.note}" if self.note else ""
        return f"log: {size}{note}" if self.in_one_part else f"log: in parts, the first of {size}{note}"

    def verdict(self) -> str:
        return ""

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        """The part that is held, and the log's fingerprint; the run holds the generator."""
        position = {"part": torch.tensor(self.part), "served": torch.tensor(self.served)}
        return position | {"fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        """The inverse of ``state_dict``. Raises KeyError or ValueError if it doesn't fit.

        Raises UserError if the log is another one than that of the state.
        """
        if not finished and not torch.equal(state["fingerprint"].cpu(), self.fingerprint):
            raise UserError(
                f"{self.name} holds other decisions than at the start of this run: give the log as it was, "
                "or start a new run without --resume or --run."
            )
        part = int(state["part"])
        while self.part != part and not finished:
            before = self.part
            self._next_part()
            if self.part <= before:
                raise ValueError(f"part {part} of the log")
        self.served = int(state["served"])

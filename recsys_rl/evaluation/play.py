"""Plays the table: every policy plays the same users, with the same noise."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.evaluation.players import Player, Table, custom_players, evenly, learned
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.evaluation.rivals.linear_bandit import check_feedback, check_size
from recsys_rl.evaluation.rivals.references import LONG_SESSION
from recsys_rl.evaluation.row_makers import Make, RowMakers
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import play
from recsys_rl.protocols import Env, Policy, Reader, ReadingPolicy
from recsys_rl.types import Action, Obs, UserError
from recsys_rl.utils.logger import SECONDS_BETWEEN_LINES, progress_bar
from recsys_rl.utils.seeding import generators, stream_seed
from recsys_rl.utils.tasks import MapTasks, in_this_process

PLANNER_USERS = 64  # a planner needs a second for each user in a session of LONG_SESSION steps
LONG_PLANNER_USERS = 32  # in longer sessions
PLANNERS = ("informed", "planner")


class Stopped(KeyboardInterrupt):
    """Ctrl-C in the middle of a table, with the rows that were played."""

    def __init__(self, played: dict[str, Played]) -> None:
        super().__init__()
        self.played = played


def play_all(
    entries: Sequence[Entry],
    users: Tensor,
    options: EvaluateConfig,
    device: torch.device,
    policies: Mapping[str, Any] | None = None,
    map_tasks: MapTasks = in_this_process,
) -> dict[str, Played]:
    """Play one session per user and policy, in the table's order, with the same noise for all policies.

    A baseline is made just before it plays, and the planners, which take most of the time, come last.

    Args:
        policies: the user's own policies, by their names module:NAME.
        map_tasks: does the searches of `rule` and `searched`.

    Planners play PLANNER_USERS of the users, or LONG_PLANNER_USERS in sessions of more than LONG_SESSION
    steps, unless ``options.full``.

    A progress bar on standard error shows the policy in play. Raises Stopped after Ctrl-C.
    """
    first = entries[0].checkpoint
    world, users = first.world.to(device), users.to(device)
    streams = generators(options.seed, "evaluation users", "policy", "shuffle", "random", device=device)
    table = Table(first.config, world, users, options.seed, device, streams, options.strangers)
    env = table.env(None, first)
    for name in options.bandits:
        check_feedback(env.interface, name)
        check_size(len(users), world.catalogue.num_items)
    players = learned(entries, table, env)
    home = _home(entries[0], table)
    steps = max(entry.checkpoint.total_steps for entry in entries)  # of the longest training
    rivals = _rivals(table, home, env, steps, options, map_tasks)
    for name in policies or ():
        if name in players or name in rivals:
            raise UserError(f"The policy {name} has the name of a row of the table: give it another name.")
    if policies:
        players |= custom_players(policies, table, env, home, steps)
    makers = {name: partial(_same, player) for name, player in players.items()} | rivals
    episode, session = env.interface.episode_length, env.interface.session_length
    if not options.planner or (episode > session and not options.full):
        left_out = [name for name in PLANNERS if makers.pop(name, None) is not None]
        if options.planner and left_out:
            print(
                f"{' and '.join(left_out)}: only with --full, as a life of {episode} steps takes them "
                "minutes for each user",
                file=sys.stderr,
            )
    fewer = min(len(users), LONG_PLANNER_USERS if session > LONG_SESSION else PLANNER_USERS)
    return _play_each(makers, table, env, users, len(users) if options.full else fewer)


def _same(player: Player) -> Player:
    return player


def _rivals(
    table: Table, home: Table, env: Env, steps: int, options: EvaluateConfig, map_tasks: MapTasks
) -> dict[str, Make]:
    """Functions that make the rows beside those of the checkpoints."""
    if not isinstance(env, RecEnv):  # references read the simulator's state
        sizes, slate = env.interface.action_sizes, env.interface.slate_size
        return {"random": partial(Player, RandomPolicy(sizes, table.streams["random"], slate))}
    cache_dir = None if options.cache_dir is None else str(options.cache_dir)
    rows = RowMakers(table, env, steps, cache_dir, options.bandits, map_tasks=map_tasks)
    return rows.makers() if home is table else rows.makers_of(home)


def _home(entry: Entry, table: Table) -> Table:
    """The table in the world in which this checkpoint was trained."""
    if entry.trained is None:
        return table
    world = entry.trained.world.to(table.device)
    return dataclasses.replace(table, config=entry.trained.config, world=world)


def _play_each(
    makers: Mapping[str, Callable[[], Player]], table: Table, env: Env, users: Tensor, planned: int
) -> dict[str, Played]:
    """Play each policy with all ``users``, planners with ``planned`` of them. Raises Stopped after Ctrl-C."""
    world, streams, played = table.world, table.streams, dict[str, Played]()
    try:
        for number, (name, make) in enumerate(makers.items(), 1):
            player = make()
            count = len(users)
            places = evenly(planned if name in PLANNERS else count, count)
            for stream in ("evaluation users", "policy"):
                streams[stream].manual_seed(stream_seed(table.seed, stream))
            if world.is_empty:  # only a new environment begins the same episodes again
                env.close()
                env = table.env(player.config, player.checkpoint)
            length = None if world.is_empty else env.interface.episode_length
            with _watched(player.agent, f"playing {name} ({number} of {len(makers)})", length) as agent:
                sessions = play(env, agent, users[places.to(table.device)], player.greedy)
            if sessions.days is not None:
                sessions = sessions.summed()
            played[name] = Played(sessions, places, player.note)
    except KeyboardInterrupt:
        raise Stopped(played) from None
    return played


class _Counted:
    """An agent that counts its calls on a progress bar, or without a bar in lines every few seconds."""

    def __init__(self, agent: Policy, title: str, length: int | None, bar: Progress | None) -> None:
        """``length`` is the number of steps of the longest session; None if it is unknown."""
        self.agent, self.title, self.of, self.bar = agent, title, f" of {length}" if length else "", bar
        self.steps, self.printed = 0, time.monotonic()
        self.task = None if bar is None else bar.add_task(title, total=length, news="")

    def reader(self) -> Reader | None:
        return self.agent.reader() if isinstance(self.agent, ReadingPolicy) else None

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        action = self.agent.act(obs, greedy)
        self.steps += 1
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.steps)
        elif time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            print(f"{self.title}: step {self.steps}{self.of}", file=sys.stderr, flush=True)
        return action


@contextmanager
def _watched(agent: Policy, title: str, length: int | None) -> Iterator[Policy]:
    """The agent, with a progress bar on a terminal and plain lines elsewhere."""
    bar = progress_bar()
    if bar.disable or length is None:
        print(title, file=sys.stderr, flush=True)
        yield _Counted(agent, title, length, None)
        return
    with bar:
        yield _Counted(agent, title, length, bar)

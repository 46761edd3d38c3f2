"""The players of the table: every policy plays the same users, with the same noise."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation import custom
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.rivals import tuning
from recsys_rl.evaluation.rivals.baselines import RandomPolicy, baseline_makers, untried_makers
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.linear_bandit import (
    BANDITS,
    BanditSettings,
    LinUCB,
    Thompson,
    check_feedback,
    check_size,
    make_bandit,
    signal_weights,
)
from recsys_rl.evaluation.rivals.references import LONG_SESSION, upper_bounds
from recsys_rl.evaluation.searched_rows import SearchedRows
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import play
from recsys_rl.make import episodes, make_agent, make_env, one_visit
from recsys_rl.protocols import Env, Policy, Reader, ReadingPolicy
from recsys_rl.records import TRADE
from recsys_rl.settings.config import Config
from recsys_rl.types import Action, Interface, Obs, Population, UserError, World
from recsys_rl.utils.logger import SECONDS_BETWEEN_LINES, progress_bar
from recsys_rl.utils.seeding import generators, stream_seed
from recsys_rl.utils.tasks import MapTasks, in_this_process

NUM_FOREIGN_EPISODES = 100  # episodes in gym: environments, which have no held-out users
PLANNER_USERS = 64  # a planner needs a second for each user in a session of LONG_SESSION steps
LONG_PLANNER_USERS = 32  # in longer sessions
PLANNERS = ("informed", "planner")
SEARCH_FREE = ("random", "popularity")  # rows that are the same in each world of a catalogue


@dataclass(frozen=True)
class Player:
    """A row of the table before it is played."""

    agent: Policy
    greedy: bool = False
    config: Config | None = None  # settings of its gym: environment; None for those of the first player
    checkpoint: Checkpoint | None = None  # holds the normalisation of its gym: environment
    note: str = ""


class Stopped(KeyboardInterrupt):
    """Ctrl-C in the middle of a table, with the rows that were played."""

    def __init__(self, played: dict[str, Played]) -> None:
        super().__init__()
        self.played = played


@dataclass(frozen=True)
class Table:
    """The world, the users and the random streams that all players of one table share."""

    config: Config
    world: World
    users: Tensor  # (n,) rows of the held-out users, or seeds of episodes if the world is empty
    seed: int
    device: torch.device
    streams: dict[str, torch.Generator]
    strangers: bool = False  # the users' profiles are withheld

    def env(self, config: Config | None = None, checkpoint: Checkpoint | None = None) -> Env:
        """A new environment with the settings ``config`` and the normalisation in ``checkpoint``."""
        env = make_env(
            config or self.config,
            self.world,
            len(self.users),
            self.streams["evaluation users"],
            heldout=True,
            training=False,
            strangers=self.strangers,
        )
        if checkpoint is not None:
            with restoring():
                env.load_statistics(checkpoint.env)
        return env

    def trainees(self, interface: Interface, noise: torch.Generator) -> tuning.Trainees:
        """The training users, in single visits."""
        config, catalogue = one_visit(self.config), self.world.catalogue

        def make(group: Population, num_rows: int, drawn: torch.Generator) -> Env:
            world = World(catalogue, group)
            return make_env(config, world, num_rows, drawn, training=False, strangers=self.strangers)

        return tuning.Trainees(
            make,
            catalogue,
            tuning.training_part(self.world.population),
            dataclasses.replace(interface, visits=1),
            noise,
        )


def heldout_users(world: World, max_users: int, seed: int) -> Tensor:
    """Rows of the held-out users to play, all or ``max_users`` evenly spread; or seeds of episodes."""
    if world.is_empty:
        return episodes(NUM_FOREIGN_EPISODES, stream_seed(seed, "evaluation users"))
    heldout = world.population.heldout
    count = len(heldout) if max_users == 0 else min(max_users, len(heldout))
    return heldout[evenly(count, len(heldout))]


def evenly(count: int, total: int) -> Tensor:
    """``count`` places (count,) int64, spread evenly over 0 .. total - 1."""
    return torch.arange(count) * total // count


def play_all(
    entries: Sequence[Entry],
    users: Tensor,
    seed: int,
    device: torch.device,
    policies: Mapping[str, Any] | None = None,
    full: bool = False,
    cache_dir: str | None = None,
    planner: bool = True,
    bandits: Sequence[str] = (),
    strangers: bool = False,
    map_tasks: MapTasks = in_this_process,
) -> dict[str, Played]:
    """Play one session per user and policy, in the table's order, with the same noise for all policies.

    A baseline is made just before it plays, and the planners, which take most of the time, come last.

    Args:
        policies: the user's own policies, by their names module:NAME.
        full: let the planners play all users, and not only PLANNER_USERS of them, or LONG_PLANNER_USERS in
            sessions of more than LONG_SESSION steps.
        cache_dir: folder for the results of the searches of `rule` and `searched`.
        planner: False leaves the planners out.
        bandits: names of BANDITS to play.
        strangers: withhold the profiles of all users, also of those on whom rows are tuned.
        map_tasks: does the searches of `rule` and `searched`.

    If the checkpoints are played in another world than that of their training, the rows of ``references``
    are found in the world in which the first one was trained: a policy has not seen the other one either.

    A progress bar on standard error shows the policy in play. Raises Stopped after Ctrl-C.
    """
    first = entries[0].checkpoint
    world, users = first.world.to(device), users.to(device)
    streams = generators(seed, "evaluation users", "policy", "shuffle", "random", device=device)
    table = Table(first.config, world, users, seed, device, streams, strangers)
    env = table.env(None, first)
    for name in bandits:
        check_feedback(env.interface, name)
        check_size(len(users), world.catalogue.num_items)
    players = learned(entries, table, env)
    makers = _rivals(entries, table, env, cache_dir, bandits, map_tasks)
    if policies:
        _check_free(policies, [*players, *makers])
        players |= custom_players(policies, table, env, _home(entries[0], table), _steps(entries))
    makers = {name: partial(_same, player) for name, player in players.items()} | makers
    episode, session = env.interface.episode_length, env.interface.session_length
    if not planner:
        makers = {name: make for name, make in makers.items() if name not in PLANNERS}
    elif not full and episode > session:
        _leave_out_planners(makers, episode)
    fewer = LONG_PLANNER_USERS if session > LONG_SESSION else PLANNER_USERS
    return _play_each(makers, table, env, users, len(users) if full else min(len(users), fewer))


def _rivals(
    entries: Sequence[Entry],
    table: Table,
    env: Env,
    cache_dir: str | None,
    bandits: Sequence[str],
    map_tasks: MapTasks,
) -> dict[str, Callable[[], Player]]:
    """Functions that make the rows beside those of the checkpoints."""
    if not isinstance(env, RecEnv):  # references read the simulator's state
        sizes, slate = env.interface.action_sizes, env.interface.slate_size
        return {"random": partial(Player, RandomPolicy(sizes, table.streams["random"], slate))}
    budget = _steps(entries)
    if entries[0].trained is None:
        return {**references(table, env, budget, cache_dir, bandits, map_tasks=map_tasks)}
    return _moved_references(_home(entries[0], table), table, env, budget, cache_dir, bandits, map_tasks)


def _steps(entries: Sequence[Entry]) -> int:
    """Environment steps of the longest training, and of each search."""
    return max(entry.checkpoint.total_steps for entry in entries)


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


def _moved_references(
    home: Table,
    table: Table,
    env: RecEnv,
    budget: int,
    cache_dir: str | None,
    bandits: Sequence[str],
    map_tasks: MapTasks,
) -> dict[str, Callable[[], Player]]:
    """The rows of ``references``, found in the world of the training, with a note that says so.

    The upper references are those of ``env``, in which the table is played. If the world of the training
    can't be made, only `random`, `popularity` and the upper references are left, and a line says so.
    """
    bounds: dict[str, Callable[[], Player]] = {
        name: partial(Player, agent) for name, agent in upper_bounds(env).items()
    }
    try:
        there = home.env()
    except UserError as error:
        if bandits:
            raise
        print(
            f"only {', '.join(SEARCH_FREE)} and upper references are played beside the policies: other rows "
            f"are found in the world of the training, and it can't be made. {error}",
            file=sys.stderr,
        )
        simple = baseline_makers(env, table.world.population.train, table.streams["random"])
        return {name: partial(_plain, simple[name]) for name in SEARCH_FREE} | bounds
    assert isinstance(there, RecEnv)  # worlds without a catalogue are never moved
    text = f"found in the world of the training ({home.config.env})"

    def noted(make: Callable[[], Player]) -> Player:
        player = make()
        return dataclasses.replace(player, note=f"{player.note}; {text}" if player.note else text)

    others = upper_bounds(there)
    makers = references(home, there, budget, cache_dir, bandits, map_tasks=map_tasks)
    return {
        name: make if name in SEARCH_FREE else partial(noted, make)
        for name, make in makers.items()
        if name not in others
    } | bounds


def _same(player: Player) -> Player:
    return player


def _check_free(policies: Iterable[str], rows: Sequence[str]) -> None:
    """Raise UserError for a policy of the user with the name of another row."""
    for name in policies:
        if name in rows:
            raise UserError(f"The policy {name} has the name of a row of the table: give it another name.")


def _leave_out_planners(makers: dict[str, Callable[[], Player]], episode_length: int) -> None:
    """Remove the planners and print a line about it."""
    removed = [name for name in PLANNERS if makers.pop(name, None) is not None]
    if removed:
        print(
            f"{' and '.join(removed)}: only with --full, as a life of {episode_length} steps takes them "
            "minutes for each user",
            file=sys.stderr,
        )


def learned(entries: Sequence[Entry], table: Table, env: Env) -> dict[str, Player]:
    """The policy of each checkpoint, sampled and greedy, and the untrained policy of the first checkpoint."""
    players, streams = {}, table.streams
    agent: Any  # of any algorithm
    for entry in entries:
        checkpoint, config = entry.checkpoint, entry.checkpoint.config
        streams["model"] = torch.Generator().manual_seed(stream_seed(config.train_config.seed, "model"))
        agent = make_agent(config, env.interface, table.world.catalogue, 1, streams, table.device)
        if entry is entries[0]:
            untrained = agent
            agent = make_agent(config, env.interface, table.world.catalogue, 1, streams, table.device)
        if config.model_config == table.config.model_config:
            agent.share_index(untrained)
        with restoring():
            agent.load_state_dict(
                {name: tensor.to(table.device) for name, tensor in checkpoint.agent.items()}
            )
        players[entry.name] = Player(agent, False, config, checkpoint)
        players[f"{entry.name}-greedy"] = Player(agent, True, config, checkpoint)
    return players | {"untrained": Player(untrained, False, table.config, entries[0].checkpoint)}


def references(
    table: Table,
    env: RecEnv,
    budget: int,
    cache_dir: str | None,
    bandits: Sequence[str] = BANDITS,
    estimates: bool = False,
    map_tasks: MapTasks = in_this_process,
) -> Mapping[str, Callable[[], Player]]:
    """Functions that make the simple baselines, the tuned rankings and the upper references.

    The rankings are tuned on single visits, also for a table of lives, in which few users could be played.
    ``table.streams`` holds "random". ``budget``: environment steps of each search, of `rule` and
    `searched`, which ``map_tasks`` does. ``bandits``: names of BANDITS; ``estimates``: their probabilities
    are needed.
    """
    catalogue, population = table.world
    if not table.config.platform.simulates:  # the others are found by trials in the simulator
        untried = untried_makers(catalogue, env.interface, table.streams["random"])
        return {name: partial(_plain, make) for name, make in untried.items()}
    config = one_visit(table.config)
    interface = dataclasses.replace(env.interface, visits=1)
    simple = baseline_makers(env, population.train, table.streams["random"])
    trade = {f"{TRADE}{name}": maker for name, maker in config.platform.heuristics.items()}
    tuned: tuple[str, ...] = ("mf", "mmr", *trade)
    searched = ["rule", "searched"] if interface.profile else []
    # The same result for each --seed.
    streams = generators(0, *tuned, *BANDITS, "rule", "searched", device=table.device)

    def trainees(name: str) -> tuning.Trainees:
        return table.trainees(env.interface, streams[name])

    def announced(name: str, make: Callable[[], Policy]) -> Player:
        if name == "static-list":  # the others take no time worth a line
            print(f"searching `{name}` on training users", file=sys.stderr, flush=True)
        return _plain(make)

    def tune(name: str) -> Player:
        print(f"tuning {name} on training users", file=sys.stderr)
        if name in trade:
            agent, note = tuning.tune_heuristic(trainees(name), trade[name])
        else:
            agent, note = (tuning.tune_mf if name == "mf" else tuning.tune_mmr)(trainees(name))
        return Player(agent, note=note)

    def bandit(name: str) -> Player:
        check_feedback(interface, name)
        print(f"tuning {name} on training users", file=sys.stderr)
        weights = signal_weights(interface.signals, env.streams).to(table.device)
        start = population.profile[population.train].mean(0)  # (D,)

        def make(settings: BanditSettings, seed: int = 0, estimates: bool = False) -> LinUCB | Thompson:
            drawn = generators(seed, name, f"{name} estimates", device=table.device)
            noise = drawn[name], drawn[f"{name} estimates"]
            slate = BestSlate.of(interface, catalogue)
            return make_bandit(name, catalogue, settings, weights, noise, start, slate, estimates)

        settings, note = tuning.tune_bandit(trainees(name), weights, start, make)
        return Player(make(settings, table.seed, estimates), note=note)

    def noted(make: Callable[[], tuple[Policy, str]]) -> Player:
        agent, note = make()
        return Player(agent, note=note)

    if not interface.profile:
        print(
            f"mf, mmr, rule and searched are left out: they rank items by the user's profile, and "
            f"observations of {config.env} hold none",
            file=sys.stderr,
        )
        tuned, bandits = (*trade,), ()
    rows = SearchedRows(
        config, table.world, budget, cache_dir, trainees, searched, table.strangers, map_tasks
    )
    return (
        {name: partial(announced, name, make) for name, make in simple.items()}
        | {name: partial(tune, name) for name in tuned}
        | {name: partial(bandit, name) for name in bandits}
        | {name: partial(noted, make) for name, make in rows.makers().items()}
        | {name: partial(Player, agent) for name, agent in upper_bounds(env).items()}
    )


def _plain(make: Callable[[], Policy]) -> Player:
    return Player(make())


def custom_players(
    policies: Mapping[str, Any], table: Table, env: Env, home: Table, steps: int
) -> dict[str, Player]:
    """The user's own policies. They see a ``gym:`` environment without normalisation.

    Each acts once here, so that its mistakes are reported before the baselines are tuned. A callable may take
    the catalogue, the training users of ``home`` (a ``gym:`` environment has none), and ``steps``, the number
    of environment steps of the training. Raises UserError.
    """
    raw = table.config
    if table.world.is_empty:
        raw = dataclasses.replace(raw, env_config=raw.platform.config())
    rows: dict[str, tuple[Policy, bool]] = {}
    for spec, candidate in policies.items():
        given: tuple[Any, ...] = (table.world.catalogue,)
        if isinstance(env, RecEnv):
            noise = generators(0, spec, device=table.device)[spec]  # the same for each --seed
            given = (*given, home.trainees(env.interface, noise), steps)
        rows |= custom.players(spec, candidate, env, given)
    if table.world.is_empty:
        env = table.env(raw)
    with torch.inference_mode():
        obs = env.reset(table.users)
        for agent, greedy in rows.values():
            agent.act(obs, greedy)
    if table.world.is_empty:
        env.close()
    return {name: Player(agent, greedy, raw) for name, (agent, greedy) in rows.items()}


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

"""The players of the table: the world that they share, and the rows of checkpoints and of the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation import custom
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.rivals import tuning
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.expected import ByExpectedReward
from recsys_rl.make import episodes, make_agent, make_env, one_visit, restore
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.protocols import Env, Policy
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, Population, World
from recsys_rl.utils.seeding import generators, stream_seed

NUM_FOREIGN_EPISODES = 100  # episodes in gym: environments, which have no held-out users


@dataclass(frozen=True)
class Player:
    """A row of the table before it is played."""

    agent: Policy
    greedy: bool = False
    config: Config | None = None  # settings of its gym: environment; None for those of the first player
    checkpoint: Checkpoint | None = None  # holds the normalisation of its gym: environment
    note: str = ""


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


def learned(entries: Sequence[Entry], table: Table, env: Env) -> dict[str, Player]:
    """The policy of each checkpoint, sampled and greedy, then two rows of the first checkpoint.

    These are its policy before its training and, if its network expects rewards, a ranking by these.
    """
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
        restore(agent, {name: tensor.to(table.device) for name, tensor in checkpoint.agent.items()})
        players[entry.name] = Player(agent, False, config, checkpoint)
        players[f"{entry.name}-greedy"] = Player(agent, True, config, checkpoint)
    first = entries[0]
    players["untrained"] = Player(untrained, False, table.config, first.checkpoint)
    trained = players[first.name].agent
    if isinstance(env, RecEnv) and isinstance(trained, NetworkPolicy) and trained.expects_rewards:
        slate = BestSlate.of(env.interface, table.world.catalogue)
        players["expected"] = Player(ByExpectedReward(trained, slate), config=table.config)
    return players


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
        arguments: tuple[Any, ...] = (table.world.catalogue,)
        if isinstance(env, RecEnv):
            noise = generators(0, spec, device=table.device)[spec]  # the same for each --seed
            arguments = (*arguments, home.trainees(env.interface, noise), steps)
        rows |= custom.players(spec, candidate, env, arguments)
    if table.world.is_empty:
        env = table.env(raw)
    with torch.inference_mode():
        obs = env.reset(table.users)
        for agent, greedy in rows.values():
            agent.act(obs, greedy)
    if table.world.is_empty:
        env.close()
    return {name: Player(agent, greedy, raw) for name, (agent, greedy) in rows.items()}

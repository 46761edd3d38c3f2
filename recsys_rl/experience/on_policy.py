"""On-policy experience: each batch is a rollout of the present policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.experience.returns import SessionReturns
from recsys_rl.experience.rollout import collect
from recsys_rl.make import make_env
from recsys_rl.objective.objectives import make_objectives
from recsys_rl.objective.weighted import stream_weights, weighted
from recsys_rl.protocols import Actor, Env, Learner, Objective, Watcher
from recsys_rl.settings.config import Config
from recsys_rl.types import Batch, Interface, Obs, Stream, World
from recsys_rl.utils.seeding import generators as make_generators


def make_on_policy(
    config: Config,
    world: World,
    generators: Mapping[str, torch.Generator],
    agent_for: Callable[[Interface], Any],
    num_updates: int = 1,
    average: Callable[[Tensor], None] | None = None,
    process: tuple[int, int] = (0, 1),
) -> tuple[OnPolicy, Learner]:
    """The rollouts of a run, and the agent that plays them.

    Args:
        generators: the streams "users" and "shuffle" of the run.
        agent_for: makes the agent for an interface.
        num_updates: updates of the whole run.
        average: replaces a tensor in place by its mean over all processes of the run.
        process: the rank of this process, and the number of all; of a log it has its own parts.

    Raises UserError if the algorithm can't learn there.
    """
    env = make_env(config, world, generator=generators["users"])
    agent = agent_for(env.interface)
    cells = make_generators(config.train_config.seed, "cells")["cells"]
    objectives = make_objectives(
        config.train_config, env.streams, world.catalogue, num_updates, cells, average
    )
    return OnPolicy(env, agent, config.agent_config.n_steps, objectives), agent


class OnPolicy:
    """Rollouts of ``n_steps`` steps of every user; sessions go on from one rollout to the next."""

    def __init__(
        self,
        env: Env,
        agent: Actor,
        n_steps: int,
        objectives: Sequence[Objective],
    ) -> None:
        """``objectives``: make the rewards of learning, each from those of the one before."""
        self.watcher: Watcher | None = None
        self.env, self.agent, self.n_steps, self.objectives = env, agent, n_steps, objectives
        self.sessions = SessionReturns(env.num_envs)
        self._obs: Obs | None = None  # of the next step; None before the first batch

    @property
    def interface(self) -> Interface:
        return self.env.interface

    def batch(self) -> Batch:
        obs = self.env.observe() if self._obs is None else self._obs
        rollout, self._obs = collect(self.env, self.agent, obs, self.n_steps, self.watcher)
        done = rollout.terminated | rollout.truncated
        metrics, ended = session_metrics(rollout.streams, done, self.env.streams, self.sessions)
        for objective in self.objectives:
            rollout, numbers = objective.apply(rollout)
            metrics |= numbers
        return Batch(rollout, metrics, ended)

    def describe(self) -> str:
        return ""

    def verdict(self) -> str:
        """The verdicts of the objectives at the end of the run; "" if there are none."""
        return "\n".join(filter(None, (objective.verdict() for objective in self.objectives)))

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        state = self.sessions.state_dict()
        for objective in self.objectives:
            state |= objective.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        self.sessions.load_state_dict(state)
        for objective in self.objectives:
            objective.load_state_dict(state)
        self._obs = None


def session_metrics(
    values: Tensor, done: Tensor, streams: Sequence[Stream], sessions: SessionReturns
) -> tuple[dict[str, float], Tensor]:
    """Mean rewards of T steps of N users, and the returns and lengths (2, n) of sessions that ended.

    ``values`` (T, N, M) of the streams, never normalised; ``done`` (T, N): ends. The rewards are the
    platform's own, whatever the weights of learning are.
    """
    rewards = weighted(values, stream_weights(streams))  # (T, N)
    metrics = {"reward_mean": rewards.mean().item()}
    if len(streams) > 1:
        each = values.mean((0, 1)).tolist()
        metrics |= {f"stream_{stream.name}_mean": mean for stream, mean in zip(streams, each, strict=True)}
    return metrics, torch.stack(sessions.add(rewards, done))

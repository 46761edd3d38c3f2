"""On-policy experience: each batch is a rollout of the present policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.experience.returns import SessionReturns
from recsys_rl.experience.rollout import collect
from recsys_rl.objective.weighted import apply_weights, check_weights, stream_weights, weighted
from recsys_rl.protocols import Actor, Env, Watcher
from recsys_rl.types import Batch, Interface, Obs, Stream


class OnPolicy:
    """Rollouts of ``n_steps`` steps of every user; sessions go on from one rollout to the next."""

    def __init__(
        self,
        env: Env,
        agent: Actor,
        n_steps: int,
        weights: Mapping[str, float],
    ) -> None:
        """``weights``: of reward streams, for learning. Raises FieldError for an unknown stream."""
        check_weights(weights, env.streams)
        self.watcher: Watcher | None = None
        self.env, self.agent, self.n_steps, self.weights = env, agent, n_steps, weights
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
        return Batch(apply_weights(rollout, self.env.streams, self.weights), metrics, ended)

    def describe(self) -> str:
        return ""

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        return self.sessions.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        self.sessions.load_state_dict(state)
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

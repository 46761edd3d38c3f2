"""Let an environment and an agent talk, and write down what happened."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.types import Agent, Env, LearningAgent, Obs, Rollout, UserError, tree_map


@torch.inference_mode()
def collect(env: Env, agent: LearningAgent, obs: Obs, num_steps: int) -> tuple[Rollout, Obs]:
    """``num_steps`` steps of every user, from ``obs`` on. Returns the record and the next observation."""
    n, device = obs.num_rows, obs.context.device
    record: Obs | None = None  # (T, N, ...)
    rewards, raw_rewards, logprobs, values, next_values = torch.empty(5, num_steps, n, device=device)
    terminated, truncated = torch.empty(2, num_steps, n, dtype=torch.bool, device=device)
    items: list[Tensor] = []
    for t in range(num_steps):
        action = agent.act(obs)
        assert action.value is not None
        # An update must choose again among the same candidates.
        chosen_from = obs if action.candidates is None else obs.among(action.candidates)
        if record is None:
            record = chosen_from.map(lambda x: x.new_empty(num_steps, *x.shape))
        tree_map(lambda row, x, t=t: row[t].copy_(x), record, chosen_from)
        step = env.step(action.items)
        items.append(action.items)
        logprobs[t], values[t] = action.logprob, action.value
        raw_rewards[t] = step.reward if step.raw_reward is None else step.raw_reward
        rewards[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
        if t > 0:
            next_values[t - 1] = torch.where(truncated[t - 1], next_values[t - 1], action.value)
        # V of the true successor: where the time limit cut the session, the next row is another user's.
        if t == num_steps - 1 or bool(step.truncated.any()):
            next_values[t] = agent.value(step.final_obs)
        obs = step.obs
    assert record is not None
    rollout = Rollout(
        record, torch.stack(items), logprobs, values, next_values, rewards, raw_rewards, terminated, truncated
    )
    return rollout, obs


@dataclass(frozen=True)
class Sessions:
    """One whole session of each of N users; steps after the end hold item -1 and reward 0."""

    items: Tensor  # (T, N) int64
    rewards: Tensor  # (T, N)
    satisfaction: Tensor  # (T, N)
    left: Tensor  # (N,) bool: the user left before the time limit

    @property
    def returns(self) -> Tensor:  # (N,)
        return self.rewards.sum(0)

    @property
    def lengths(self) -> Tensor:  # (N,)
        return (self.items >= 0).sum(0)


MAX_STEPS = 100_000  # of one session, before `play` gives up


@torch.inference_mode()
def play(env: Env, agent: Agent, users: Tensor | None = None, greedy: bool = False) -> Sessions:
    """One whole session for each of ``users`` (or for each row of ``env``), none counted twice.

    Raises UserError where sessions don't end.
    """
    obs = env.reset(users)
    alive = torch.ones(obs.num_rows, dtype=torch.bool, device=obs.context.device)
    left = torch.zeros_like(alive)
    items: list[Tensor] = []
    rewards: list[Tensor] = []
    satisfaction: list[Tensor] = []
    while bool(alive.any()):
        if len(items) == MAX_STEPS:
            raise UserError(
                f"A session did not end within {MAX_STEPS:,} steps: give the environment a time limit, as "
                "max_episode_steps in gymnasium.register does."
            )
        action = agent.act(obs, greedy)
        step = env.step(action.items)
        items.append(torch.where(alive, action.items[:, 0], -1))
        rewards.append(torch.where(alive, step.reward, 0.0))
        pleased = step.reward if step.feedback is None else step.feedback.satisfaction[:, 0]
        satisfaction.append(torch.where(alive, pleased, 0.0))
        left |= alive & step.terminated
        alive = alive & ~(step.terminated | step.truncated)
        obs = step.obs
    return Sessions(torch.stack(items), torch.stack(rewards), torch.stack(satisfaction), left)

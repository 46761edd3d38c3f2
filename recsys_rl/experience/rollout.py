"""Let an environment and an agent talk, and write down what happened."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.protocols import Env, Learner, Policy
from recsys_rl.types import Obs, Rollout, UserError


@torch.inference_mode()
def collect(env: Env, agent: Learner, obs: Obs, num_steps: int) -> tuple[Rollout, Obs]:
    """``num_steps`` steps of every user, from ``obs`` on. Returns the record and the next observation."""
    record: dict[str, Tensor] = {}  # (T, N, ...) each, made once the first step has shown what there is
    rows: dict[str, tuple[Tensor, ...]] = {}
    cut: list[tuple[int, Tensor, Tensor]] = []  # step, users (R,) whom the time limit cut, their V (R,)
    for t in range(num_steps):
        action = agent.act(obs)
        assert action.value is not None
        # An update must choose again among the same candidates.
        asked = obs if action.candidates is None else obs.among(action.candidates)
        step = env.step(action.items)
        seen = {name: x for name, x in vars(asked).items() if x is not None} | {
            "items": action.items,
            "logprobs": action.logprob,
            "values": action.value,
            "rewards": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }
        if step.raw_reward is not None:
            seen["raw_rewards"] = step.raw_reward
        if t == 0:
            record = {name: x.new_empty(num_steps, *x.shape) for name, x in seen.items()}
            rows = {name: x.unbind() for name, x in record.items()}
        for name, x in seen.items():
            rows[name][t].copy_(x)
        users = step.truncated.nonzero().squeeze(1)
        if len(users) and t < num_steps - 1:
            left = dataclasses.replace(step.final_obs, mask=None)  # which may be wide, and a value needs none
            cut.append((t, users, agent.value(left.rows(users))))
        obs = step.obs

    # V of the true successor: the next row's; where a session was cut, the next row is another user's.
    next_values = torch.cat([record["values"][1:], agent.value(step.final_obs).unsqueeze(0)])
    for t, users, value in cut:
        next_values[t, users] = value
    record.setdefault("raw_rewards", record["rewards"])
    names = [field.name for field in dataclasses.fields(Obs) if field.name in record]
    asked = Obs(**{name: record.pop(name) for name in names})
    return Rollout(asked, next_values=next_values, **record), obs


@dataclass(frozen=True)
class Sessions:
    """One whole session of each of N users; steps after the end hold item -1 and reward 0."""

    items: Tensor  # (T, N) int64
    rewards: Tensor  # (T, N)
    satisfaction: Tensor  # (T, N)
    left: Tensor  # (N,) bool: the user left before the time limit
    num_cut: int = 0  # sessions that ``play`` cut at its ``max_steps``

    @property
    def returns(self) -> Tensor:  # (N,)
        return self.rewards.sum(0)

    @property
    def lengths(self) -> Tensor:  # (N,)
        return (self.items >= 0).sum(0)


MAX_STEPS = 100_000  # of one session, before `play` gives up


@torch.inference_mode()
def play(
    env: Env,
    agent: Policy,
    users: Tensor | None = None,
    greedy: bool = False,
    max_steps: int | None = None,
) -> Sessions:
    """One whole session for each of ``users`` (or for each row of ``env``), none counted twice.

    Sessions that have not ended after ``max_steps`` are cut there and counted as they are. Raises UserError
    where sessions don't end and no ``max_steps`` is given.
    """
    obs = env.reset(users)
    alive = torch.ones(obs.num_rows, dtype=torch.bool, device=obs.context.device)
    left = torch.zeros_like(alive)
    items: list[Tensor] = []
    rewards: list[Tensor] = []
    satisfaction: list[Tensor] = []
    while bool(alive.any()) and len(items) != max_steps:
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
    num_cut = int(alive.sum())
    return Sessions(torch.stack(items), torch.stack(rewards), torch.stack(satisfaction), left, num_cut)

"""Let an environment and an agent talk, and write down what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

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
        same = asked.exclude is not None and asked.exclude is asked.history  # then one record serves both
        seen = {
            name: x for name, x in vars(asked).items() if x is not None and not (same and name == "exclude")
        } | {
            "items": action.items,
            "logprobs": action.logprob,
            "values": action.value,
            "rewards": step.reward,
            "streams": step.streams,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }
        if t == 0:
            record = {name: x.new_empty(num_steps, *x.shape) for name, x in seen.items()}
            rows = {name: x.unbind() for name, x in record.items()}
        if "mask" in seen and "mask" not in record:  # until now every item was available
            record["mask"] = torch.ones_like(seen["mask"]).expand(num_steps, -1, -1).clone()
            rows["mask"] = record["mask"].unbind()
        for name, x in seen.items():
            rows[name][t].copy_(x)
        if "mask" in record and "mask" not in seen:  # and again
            rows["mask"][t].fill_(True)
        users = step.truncated.nonzero().squeeze(1)
        if len(users) and t < num_steps - 1:
            left = dataclasses.replace(step.final_obs, mask=None)  # which may be wide, and a value needs none
            cut.append((t, users, agent.value(left.rows(users))))
        obs = step.obs

    # V of the true successor: the next row's; where a session was cut, the next row is another user's.
    next_values = torch.cat([record["values"][1:], agent.value(step.final_obs).unsqueeze(0)])
    for t, users, value in cut:
        next_values[t, users] = value
    names = [entry.name for entry in dataclasses.fields(Obs) if entry.name in record]
    asked = Obs(**{name: record.pop(name) for name in names})
    if same:
        asked = dataclasses.replace(asked, exclude=asked.history)
    return Rollout(asked, next_values=next_values, **record), obs


@dataclass(frozen=True)
class Sessions:
    """One whole session of each of N users; steps after the end hold items -1 and reward 0."""

    items: Tensor  # (T, N, K) int64; an empty place is -1 as well
    rewards: Tensor  # (T, N): the platform's own
    left: Tensor  # (N,) bool: the user left before the time limit
    streams: Mapping[str, Tensor] = field(default_factory=dict)  # (T, N) each, by name: the kinds of reward
    hidden: Mapping[str, Tensor] = field(default_factory=dict)  # (T, N, K) each: signals no policy sees
    num_cut: int = 0  # sessions that ``play`` cut at its ``max_steps``

    @property
    def returns(self) -> Tensor:  # (N,)
        return self.rewards.sum(0)

    @property
    def lengths(self) -> Tensor:  # (N,)
        return (self.items >= 0).any(-1).sum(0)


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
    streams: list[Tensor] = []
    signals: list[Tensor] = []
    hidden = [place for place, signal in enumerate(env.signals) if not signal.visible]
    while bool(alive.any()) and len(items) != max_steps:
        if len(items) == MAX_STEPS:
            raise UserError(
                f"A session did not end within {MAX_STEPS:,} steps: give the environment a time limit, as "
                "max_episode_steps in gymnasium.register does."
            )
        action = agent.act(obs, greedy)
        step = env.step(action.items)
        items.append(torch.where(alive.unsqueeze(1), action.items, -1))
        rewards.append(torch.where(alive, step.reward, 0.0))
        streams.append(torch.where(alive.unsqueeze(1), step.streams, 0.0))
        if hidden and step.feedback is not None:
            felt = step.feedback.signals[:, :, hidden]  # (N, K, H)
            signals.append(torch.where(alive.view(-1, 1, 1), felt, 0.0))
        left |= alive & step.terminated
        alive = alive & ~(step.terminated | step.truncated)
        obs = step.obs
    names = [env.signals[place].name for place in hidden]
    return Sessions(
        items=torch.stack(items),
        rewards=torch.stack(rewards),
        left=left,
        streams=dict(zip((x.name for x in env.streams), torch.stack(streams).unbind(-1), strict=True)),
        hidden=dict(zip(names, torch.stack(signals).unbind(-1), strict=True)) if names else {},
        num_cut=int(alive.sum()),
    )

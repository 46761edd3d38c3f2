"""Play an agent in an environment, and record the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recsys_rl.protocols import Actor, Env, Policy, ReadingPolicy, Watcher
from recsys_rl.types import Feedback, Obs, Rollout, UserError, tree_map


@torch.inference_mode()
def collect(
    env: Env, agent: Actor, obs: Obs, num_steps: int, watcher: Watcher | None = None
) -> tuple[Rollout, Obs]:
    """Play ``num_steps`` steps of every user, starting from the observation ``obs``; ``watcher`` sees each.

    A state of the agent's encoder goes with the users. It is built from ``obs`` at the start, because an
    update has changed the weights.

    Returns: the record of these steps, and the next observation.
    """
    follow = follower(agent)
    now = follow(obs)
    record: dict[str, Tensor] = {}  # (T, N, ...) each, allocated after the first step
    rows: dict[str, tuple[Tensor, ...]] = {}
    cut: list[tuple[int, Tensor, Tensor]] = []  # step, users (R,) at their time limit, their values (R,)
    for t in range(num_steps):
        action = agent.act(now)
        assert action.value is not None
        # The update needs the same candidates again.
        asked = obs if action.candidates is None else obs.among(action.candidates)
        if watcher is not None:
            watcher.decided(asked, action)
        step = env.step(action.items)
        if watcher is not None:
            watcher.answered(step)
        same = asked.exclude is not None and asked.exclude is asked.history  # then it is recorded once
        seen = {
            name: values
            for name, values in vars(asked).items()
            if values is not None and not (same and name == "exclude")
        } | {
            "items": action.items,
            "logprobs": action.logprob,
            "values": action.value,
            "rewards": step.reward,
            "streams": step.streams,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "left_early": step.left_early,
        }
        if step.discount is not None:
            seen["discounts"] = step.discount
        if t == 0:
            record = {name: values.new_empty(num_steps, *values.shape) for name, values in seen.items()}
            rows = {name: values.unbind() for name, values in record.items()}
        if "mask" in seen and "mask" not in record:  # every item was available before
            record["mask"] = torch.ones_like(seen["mask"]).expand(num_steps, -1, -1).clone()
            rows["mask"] = record["mask"].unbind()
        for name, values in seen.items():
            rows[name][t].copy_(values)
        if "mask" in record and "mask" not in seen:  # every item is available again
            rows["mask"][t].fill_(True)
        obs, now = step.obs, follow(step.final_obs)
        if step.final_obs is not step.obs and t < num_steps - 1:  # some sessions ended
            users = step.truncated.nonzero().squeeze(1)
            if len(users):
                left = dataclasses.replace(now, mask=None)  # it may be wide, and a value needs none
                cut.append((t, users, agent.value(left.rows(users))))
            now = follow(obs, step.terminated | step.truncated)

    # The value of the true successor is the next row's. After a time limit the next row is of another user.
    next_values = torch.cat([record["values"][1:], agent.value(now).unsqueeze(0)])
    for t, users, value in cut:
        next_values[t, users] = value
    names = [entry.name for entry in dataclasses.fields(Obs) if entry.name in record]
    asked = Obs(**{name: record.pop(name) for name in names})
    if same:
        asked = dataclasses.replace(asked, exclude=asked.history)
    return Rollout(asked, next_values=next_values, **record), obs


def follower(agent: Policy) -> Callable[..., Obs]:
    """``Reader.follow`` of the agent's encoder; without one, a function that returns the observation."""
    reader = agent.reader() if isinstance(agent, ReadingPolicy) else None
    return (lambda obs, ended=None: obs) if reader is None else reader.follow


@dataclass(frozen=True)
class Sessions:
    """One whole session, or life, of each of N users; steps after the end hold items -1 and reward 0."""

    items: Tensor  # (T, N, K) int64; an empty place is also -1
    rewards: Tensor  # (T, N): the platform's own
    left: Tensor  # (N,) bool: the user left, and be it at the last step that a session can have
    streams: Mapping[str, Tensor] = field(default_factory=dict)  # (T, N) each: reward streams by name
    reactions: tuple[Feedback, ...] = ()  # (T,): of the first NUM_SAMPLE_USERS, also after a session's end
    num_cut: int = 0  # sessions that ``play`` cut at its ``max_steps``
    steps: Tensor | None = None  # (N,) int64: steps of each session; None: the steps that show an item
    # (T, N) int64: day of the user's life on which each step was taken, -1 after its end; None: one visit
    days: Tensor | None = None
    visits: int = 1  # most visits of an episode
    left_early: Tensor | None = None  # (N,) bool: the user left before the last step; None: as ``left``

    @property
    def returns(self) -> Tensor:  # (N,)
        return self.rewards.sum(0)

    @property
    def lengths(self) -> Tensor:  # (N,)
        if self.steps is not None:
            return self.steps
        return (self.items >= 0).any(-1).sum(0)

    def summed(self) -> Sessions:
        """The streams as sums (1, N). Whole lives of many users would need much memory."""
        streams = {name: values.sum(0, keepdim=True) for name, values in self.streams.items()}
        return dataclasses.replace(self, streams=streams)


NUM_SAMPLE_USERS = 3  # users of a report's sample sessions
MAX_STEPS = 100_000  # steps of one session after which `play` raises an error


@torch.inference_mode()
def play(
    env: Env,
    agent: Policy,
    users: Tensor | None = None,
    greedy: bool = False,
    max_steps: int | None = None,
) -> Sessions:
    """Play one whole session, or life, for each of ``users``, or for each row of ``env``.

    Sessions that have not ended after ``max_steps`` are cut there and included. Raises UserError if a session
    does not end and no ``max_steps`` is given.
    """
    obs, follow = env.reset(users), follower(agent)
    alive = torch.ones(obs.num_rows, dtype=torch.bool, device=obs.context.device)
    left, left_early = torch.zeros_like(alive), torch.zeros_like(alive)
    steps = torch.zeros_like(alive, dtype=torch.int64)
    items: list[Tensor] = []
    rewards: list[Tensor] = []
    streams: list[Tensor] = []
    reactions: list[Feedback] = []
    days: list[Tensor] = []
    while bool(alive.any()) and len(items) != max_steps:
        if len(items) == MAX_STEPS:
            raise UserError(
                f"A session did not end within {MAX_STEPS:,} steps: give the environment a time limit, as "
                "max_episode_steps in gymnasium.register does."
            )
        action = agent.act(follow(obs), greedy)
        step = env.step(action.items)
        items.append(torch.where(alive.unsqueeze(1), action.items, -1))
        steps += alive
        rewards.append(torch.where(alive, step.reward, 0.0))
        streams.append(torch.where(alive.unsqueeze(1), step.streams, 0.0))
        if step.feedback is not None:
            reactions.append(_first(step.feedback))
        if step.day is not None:
            days.append(torch.where(alive, step.day, -1))
        left |= alive & step.terminated
        left_early |= alive & step.left_early
        alive = alive & ~(step.terminated | step.truncated)
        obs = step.obs
    return Sessions(
        items=torch.stack(items),
        rewards=torch.stack(rewards),
        left=left,
        streams=dict(
            zip((stream.name for stream in env.streams), torch.stack(streams).unbind(-1), strict=True)
        ),
        reactions=tuple(reactions),
        num_cut=int(alive.sum()),
        steps=steps,
        days=torch.stack(days) if days else None,
        visits=env.interface.visits,
        left_early=left_early,
    )


def _first(feedback: Feedback) -> Feedback:
    """The rows of the first NUM_SAMPLE_USERS."""
    events = feedback.events
    if events is not None:
        events = tree_map(lambda values: values[:NUM_SAMPLE_USERS].clone(), events)
    return Feedback(
        feedback.signals[:NUM_SAMPLE_USERS].clone(), feedback.shown[:NUM_SAMPLE_USERS].clone(), events
    )

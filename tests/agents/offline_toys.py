"""Logs of one decision and of a small MDP as transitions, and learners for them with a dense head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.make import make_agent
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, Obs, Transitions, empty_world
from recsys_rl.utils.seeding import generators
from tests.small_runs import CPU
from tests.tiny_sessions import END, GAMMA, LOGGING, MOVE, REWARD, START, STEPS


def learner(algo: str, num_arms: int, states: int = 1, num_updates: int = 1, **changes: Any) -> Any:
    """A learner of ``algo`` for ``states`` states, one-hot, and ``num_arms`` arms."""
    config = Config(algo=algo, head="dense", hidden_dims=(16,), **changes)
    interface = Interface((("state", states),), (num_arms,))
    streams = generators(0, "model", "policy", "shuffle")
    return make_agent(config, interface, empty_world().catalogue, num_updates, streams, CPU)


def one_step(arms: Sequence[int], returns: Sequence[float], mu: Sequence[float] | None = None) -> Transitions:
    """Sessions of one decision in the same state; ``mu``: probabilities of the arms in the log."""
    number, dtype = len(arms), torch.get_default_dtype()
    obs = Obs(torch.ones(number, 1, dtype=dtype))
    rewards = torch.tensor(returns, dtype=dtype)
    never = torch.zeros(number, dtype=torch.bool)
    logprobs = torch.zeros(number) if mu is None else torch.tensor([mu[arm] for arm in arms]).log()
    span = torch.tensor([min(0.0, float(rewards.min())), float(rewards.max())], dtype=dtype)
    return Transitions(
        obs=obs,
        items=torch.tensor(arms).unsqueeze(1),
        logprobs=logprobs.double(),
        rewards=rewards,
        next_obs=obs,
        terminated=~never,
        truncated=never,
        returns_to_go=rewards,
        steps_left=torch.ones(number, dtype=torch.int64),
        steps=torch.zeros(number, dtype=torch.int64),
        possible=span.expand(number, 2),
    )


def cell(state: Tensor, step: Tensor) -> Tensor:
    """The context (B, 2 STEPS) of the MDP: state and step, one-hot."""
    return torch.nn.functional.one_hot(2 * step.clamp_max(STEPS - 1) + state, 2 * STEPS).float()


def mdp_log(sessions: int, seed: int = 0) -> Transitions:
    """Sessions of the MDP of tests/tiny_sessions.py by its logging policy."""
    rng = torch.Generator().manual_seed(seed)

    def chance(p: Tensor) -> Tensor:
        return (torch.rand(len(p), generator=rng) < p).long()

    state = chance(START[1].expand(sessions))
    alive = torch.ones(sessions, dtype=torch.bool)
    rows: list[dict[str, Tensor]] = []
    for number in range(STEPS):
        step = torch.full_like(state, number)
        action = chance(LOGGING[state, 1])
        ends = chance(END[state, action]).bool() & (number < STEPS - 1)
        after = chance(MOVE[state, action])
        last = torch.full_like(ends, number == STEPS - 1)
        row = {
            "context": cell(state, step),
            "items": action.unsqueeze(1),
            "logprobs": LOGGING[state, action].log(),
            "rewards": REWARD[state, action].float(),
            "next": cell(after, step + 1),
            "terminated": ends | last,
            "steps": step,
            "session": torch.arange(sessions),
        }
        rows.append({name: x[alive] for name, x in row.items()})
        alive, state = alive & ~ends, after
    whole = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    returns = _returns(whole["session"], whole["steps"], whole["rewards"])
    number = len(returns)
    return Transitions(
        obs=Obs(whole["context"]),
        items=whole["items"],
        logprobs=whole["logprobs"],
        rewards=whole["rewards"],
        next_obs=Obs(whole["next"]),
        terminated=whole["terminated"],
        truncated=torch.zeros(number, dtype=torch.bool),
        returns_to_go=returns,
        steps=whole["steps"],
        possible=torch.tensor([-0.6, 3.0]).expand(number, 2),
    )


def _returns(session: Tensor, steps: Tensor, rewards: Tensor) -> Tensor:
    """Discounted sums of the rewards from each decision on."""
    table = torch.zeros(int(session.max()) + 1, STEPS + 1)
    table[session, steps] = rewards
    for step in range(STEPS - 1, -1, -1):
        table[:, step] += GAMMA * table[:, step + 1]
    return table[session, steps]


def mdp_value(policy: Tensor | None = None) -> float:
    """The discounted return of the ``policy`` (STEPS, state, action); None: of the best one."""
    value = torch.zeros(2, dtype=torch.float64)
    for step in range(STEPS - 1, -1, -1):
        go_on = (1 - END) * (value[0] + MOVE * (value[1] - value[0])) if step < STEPS - 1 else 0 * END
        q = REWARD + GAMMA * go_on  # (state, action)
        value = q.amax(1) if policy is None else (policy[step] * q).sum(1)
    return float(START @ value)

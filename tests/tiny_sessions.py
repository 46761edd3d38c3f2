"""An MDP so small that all its sessions can be listed: two states, two actions, three steps, an end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from recsys_rl.logs.ope.estimators import Evidence
from recsys_rl.logs.ope.replay import cumulative

F64 = torch.float64
STEPS, GAMMA = 3, 0.9
START = torch.tensor([0.3, 0.7], dtype=F64)
LOGGING = torch.tensor([[0.6, 0.4], [0.3, 0.7]], dtype=F64)  # (state, action)
POLICY = torch.tensor([[0.2, 0.8], [0.9, 0.1]], dtype=F64)
REWARD = torch.tensor([[0.3, 1.0], [0.5, -0.2]], dtype=F64)
END = torch.tensor([[0.0, 0.5], [0.2, 0.1]], dtype=F64)  # P(the session ends after this action)
MOVE = torch.tensor([[0.7, 0.2], [0.4, 0.9]], dtype=F64)  # P(next state 1 | not ended)
MODEL_Q = torch.tensor([[0.5, 1.5], [1.0, 0.1]], dtype=F64)  # a wrong Q, at every step


@dataclass(frozen=True)
class Path:
    """One possible session."""

    probability: float
    states: tuple[int, ...] = ()
    actions: tuple[int, ...] = ()
    choices: dict[str, float] = field(default_factory=dict)


def paths(logging: Tensor = LOGGING) -> Iterator[Path]:
    """All sessions, with their probabilities under the logging policy."""

    def extend(path: Path, state: int) -> Iterator[Path]:
        for action in range(2):
            p = path.probability * float(logging[state, action])
            here = Path(p, (*path.states, state), (*path.actions, action))
            end = float(END[state, action])
            if len(here.states) == STEPS:
                yield here
                continue
            if end:
                yield replace(here, probability=p * end)
            for after in range(2):
                move = float(MOVE[state, action])
                share = (1 - end) * (move if after else 1 - move)
                yield from extend(replace(here, probability=p * share), after)

    for state in range(2):
        yield from extend(Path(float(START[state])), state)


def batch(chosen: list[Path], logging: Tensor = LOGGING) -> Evidence:
    """The sessions with the wrong model as Q and V."""
    number = len(chosen)
    alive = torch.zeros(number, STEPS, dtype=torch.bool)
    ratios, rewards, q, v = torch.zeros(4, number, STEPS, dtype=F64)
    for n, path in enumerate(chosen):
        for t, (x, a) in enumerate(zip(path.states, path.actions, strict=True)):
            alive[n, t] = True
            ratios[n, t] = POLICY[x, a] / logging[x, a]
            rewards[n, t] = REWARD[x, a]
            q[n, t] = MODEL_Q[x, a]
            v[n, t] = POLICY[x] @ MODEL_Q[x]
    return Evidence(cumulative(ratios, alive), rewards, alive, GAMMA, q, v)


def solved_q(
    reward: Tensor = REWARD, end: Tensor = END, move: Tensor = MOVE, policy: Tensor = POLICY
) -> Tensor:
    """(T, 2, 2): Q of the policy at each step, by one linear solve over (step, state, action)."""
    size = STEPS * 4
    matrix, right = torch.eye(size, dtype=F64), torch.zeros(size, dtype=F64)
    for t, x, a in product(range(STEPS), range(2), range(2)):
        row = t * 4 + x * 2 + a
        right[row] = reward[x, a]
        if t + 1 < STEPS:
            for after, b in product(range(2), range(2)):
                share = (1 - end[x, a]) * (move[x, a] if after else 1 - move[x, a])
                matrix[row, (t + 1) * 4 + after * 2 + b] -= GAMMA * share * policy[after, b]
    solved: Tensor = torch.linalg.solve(matrix, right)
    return solved.reshape(STEPS, 2, 2)


VALUE = float((START.unsqueeze(1) * POLICY * solved_q()[0]).sum())

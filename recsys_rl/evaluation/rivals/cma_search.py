"""Search of a policy's numbers by CMA-ES (Hansen and Ostermeier 2001, "Completely derandomized
self-adaptation in evolution strategies"), from the returns of training users.

In each generation POPULATION candidates play the same users. The numbers of a user's candidate are drawn
from a normal distribution, whose mean and covariance move to the better half of them. The result is the mean
of the last means: a single candidate, the best of noisy returns, would be worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.tuning import Trainees, training_part
from recsys_rl.protocols import Policy

Make = Callable[[Tensor], Policy]
"""Makes a policy from numbers (F,), or (N, F) for N users."""

POPULATION = 24
SESSIONS = 600
"""Sessions of a generation if the budget has that many for at least LEAST generations."""
LEAST, LAST = 20, 3


@dataclass
class Trials:
    """Sessions of candidates, with a count of their steps."""

    trainees: Trainees
    steps: int = 0
    sessions: int = 0

    @property
    def length(self) -> float:
        """Mean steps of a session so far; the longest session before the first."""
        return self.steps / self.sessions if self.sessions else self.trainees.interface.session_length

    def play(self, make: Make, drawn: Tensor, users: Tensor) -> Tensor:
        """Returns (P, n) of candidates ``drawn`` (P, F), which all play the ``users`` (n,)."""
        agent = make(drawn.repeat_interleave(len(users), 0))
        sessions = self.trainees.play(agent, users.repeat(len(drawn)))  # N = P * n
        self.steps += int(sessions.lengths.sum())
        self.sessions += len(sessions.lengths)
        return sessions.returns.view(len(drawn), -1)


def search_numbers(trials: Trials, make: Make, first: Tensor, spread: Tensor, budget: int) -> Tensor:
    """Numbers (F,) with a high mean return, from a search with about ``budget`` environment steps.

    ``first`` and ``spread`` (F,) are the mean and the deviations of the first generation. There is at least
    one generation, of one user.
    """
    from cmaes import CMA  # with scipy.stats, half a second of each start; most commands search nothing

    generator, end = trials.trainees.generator, trials.steps + budget
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    search = CMA(np.zeros(len(first)), sigma=1.0, population_size=POPULATION, seed=seed)

    def scaled(steps: np.ndarray) -> Tensor:
        return first + spread * torch.as_tensor(steps, dtype=first.dtype, device=first.device)

    def users_of_a_candidate() -> int:
        affordable = budget / (LEAST * trials.length)  # sessions of a generation
        return max(1, int(min(SESSIONS, affordable) / POPULATION))

    means: list[Tensor] = []
    while not means or trials.steps + POPULATION * users_of_a_candidate() * trials.length <= end:
        users = trials.trainees.draw(users_of_a_candidate())
        drawn = np.stack([search.ask() for _ in range(POPULATION)])  # (P, F)
        returns = trials.play(make, scaled(drawn), users).mean(1)  # (P,)
        search.tell([(numbers, -value) for numbers, value in zip(drawn, returns.tolist(), strict=True)])
        means.append(scaled(search.mean))
    return torch.stack(means[-LAST:]).mean(0)


def parted(trainees: Trainees, share: float) -> tuple[Trainees, Trainees]:
    """Two parts of the training users: to search with, and the ``share`` of them to choose with.

    A single user is in both.
    """
    population, generator = trainees.population, trainees.generator
    total = len(population.train)
    if total < 2:
        return trainees, trainees
    order = torch.randperm(total, generator=generator, device=generator.device)
    count = max(1, min(total - 1, round(share * total)))

    def trainees_of(places: Tensor) -> Trainees:
        rows = population.train[places.sort().values]
        return dataclasses.replace(
            trainees, population=training_part(dataclasses.replace(population, train=rows))
        )

    return trainees_of(order[count:]), trainees_of(order[:count])

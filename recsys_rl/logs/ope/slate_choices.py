"""The marginal probability of an item at a place of a slate, over all items above it.

Where few slates are possible each one is scored, and the probabilities are exact. Elsewhere they are means
over drawn slates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from recsys_rl.logs.ope.replay import PAIRS, ReplayedLog
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Obs

MOST = 1_000
"""Number of possible slates, up to which each one is scored."""


@dataclass(frozen=True)
class Choices:
    """The slates of one policy on the rows of a log."""

    # (E, K, K) float64: the probability of the item of place j (last) of the logged slate at place k
    marginals: Tensor
    every: Tensor | None = None  # (E, M) float64: of each of ``possible_slates``; None: too many
    draws: int = 0  # slates over which ``marginals`` are means; 0: they are exact


def possible_slates(log: ReplayedLog) -> Tensor | None:
    """(M, K) int64: all slates of different items; None above MOST, or if rows times slates exceed PAIRS."""
    number = math.perm(log.num_items, log.places)
    if number > MOST or number * log.log.num_rows > PAIRS:
        return None
    return torch.tensor(list(permutations(range(log.num_items), log.places)))


def choices_of(
    log: ReplayedLog, policy: Behaviour, slates: Tensor | None, draws: int, logged: bool = False
) -> Choices:
    """Exact with the ``slates`` (M, K) of ``possible_slates``, else a mean over ``draws`` slates.

    ``logged``: as in ``place_marginals``.
    """
    if slates is None:
        return Choices(marginals_of(log, policy, draws, logged), draws=draws)
    every = slate_probabilities(log, policy, slates)
    return Choices(exact_marginals(every, slates, log.log.items, log.num_items), every)


@torch.no_grad()
def slate_probabilities(log: ReplayedLog, policy: Behaviour, slates: Tensor) -> Tensor:
    """(E, M) float64: the policy's probability of each of the ``slates`` (M, K) in each row."""

    def of(at: Tensor, obs: Obs) -> Tensor:  # (B, M)
        columns = []
        for slate in slates:
            terms = policy.place_logprobs(obs, slate.expand(len(at), -1).contiguous())  # (B, K)
            logprob = terms.double().sum(1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
            columns.append(logprob.exp())
        return torch.stack(columns, 1)

    return log.of_rows(of)


# m_k(a) = sum over the slates s with s_k = a of P(s)
def exact_marginals(every: Tensor, slates: Tensor, items: Tensor, num_items: int) -> Tensor:
    """(E, K, K): of place k the probability of the item of place j (last) of ``items`` (E, K).

    ``every`` (E, M) are the probabilities of the ``slates`` (M, K).
    """
    columns = []
    for at_place in slates.unbind(1):  # (M,)
        of_items = every.new_zeros(len(every), num_items).index_add_(1, at_place, every)  # (E, I)
        columns.append(of_items.gather(1, items))
    return torch.stack(columns, 1)


def mixed(first: Choices, second: Choices, epsilon: float) -> Choices:
    """The slates of ``second`` with probability ``epsilon``, else those of ``first``."""
    marginals = (1 - epsilon) * first.marginals + epsilon * second.marginals
    every = None
    if first.every is not None and second.every is not None:
        every = (1 - epsilon) * first.every + epsilon * second.every
    return Choices(marginals, every, max(first.draws, second.draws))


def place_marginals(policy: Behaviour, obs: Obs, items: Tensor, draws: int, logged: bool = False) -> Tensor:
    """(B, K, K) float64: the probability that ``policy`` shows the item of place j (last) at place k.

    It is the mean over ``draws`` slates of the policy of the probability given the drawn places above, which
    is right in expectation.

    Args:
        items: (B, K), the logged slates.
        logged: count the logged slate as one more drawn slate. If the policy made the log, then no logged
            item has probability 0, and the error falls as 1 / ``draws``.
    """
    above = [items] if logged else []
    above += [policy.act(obs).items for _ in range(draws)]
    columns = [_at_place(policy, obs, 0, items, items)]  # nothing stands above, so it is exact
    for k in range(1, items.shape[1]):
        columns.append(torch.stack([_at_place(policy, obs, k, slate, items) for slate in above]).mean(0))
    return torch.stack(columns, 1)


def _at_place(policy: Behaviour, obs: Obs, k: int, above: Tensor, items: Tensor) -> Tensor:
    """(B, K): the probability of each of ``items`` (B, K) at place k, below the first k of ``above``."""
    columns = []
    for item in items.unbind(1):  # (B,)
        slate = above.clone()
        slate[:, k] = item
        columns.append(policy.place_logprobs(obs, slate)[:, k].double().exp())
    return torch.stack(columns, 1)


@torch.no_grad()
def marginals_of(log: ReplayedLog, policy: Behaviour, draws: int, logged: bool) -> Tensor:
    """(E, K, K): ``place_marginals`` of the logged slates."""
    return log.of_rows(lambda at, obs: place_marginals(policy, obs, log.log.items[at], draws, logged))


def showable(log: ReplayedLog) -> Tensor:
    """(E,) int64: the number of items that could be shown."""
    return log.of_rows(lambda at, obs: obs.showable(log.num_items).sum(1))


def uniform_marginals(numbers: Tensor, places: int) -> Tensor:
    """(E, K, K): the marginals of the uniform policy, 1 / n, with n (E,) from ``showable``."""
    return (1 / numbers.double()).view(-1, 1, 1).expand(-1, places, places)

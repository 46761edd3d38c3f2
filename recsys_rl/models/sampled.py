"""Candidates for learning from a log over a large catalogue, and the correction of sums over them.

A sum over all I items of exp(score) is too much for each decision. It is taken over C candidates of the first
stage and the shown items. The best items by the present weights count once, and each of the E items that were
drawn uniformly from the n others counts n / E times (importance sampling; Bengio and Senecal 2008)::

    sum_i exp(s_i)  =  sum over shown and best exp(s_i)  +  n / E  sum over drawn exp(s_i)      (on average)
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.heads import Distribution
from recsys_rl.types import Obs


def shown_among(
    model: ActorCritic, obs: Obs, items: Tensor, generator: torch.Generator
) -> tuple[Obs, Tensor | None]:
    """``obs`` with the shown ``items`` (N, K) and C candidates of the first stage; log-weights (N, K + C).

    Without a first stage, or with candidates of the log's own, there are no weights, and only the head that
    scores the whole catalogue has a mask in their place. The result has the summary of the history: an
    encoder reads it once for all losses of a minibatch.
    """
    obs = model.summarised(obs)
    if model.retriever is None or obs.candidates is not None:
        return model.propose(obs, False, generator), None
    proposed = model.propose(obs, False, generator).candidates  # (N, C)
    assert proposed is not None
    proposed = proposed.masked_fill((proposed.unsqueeze(2) == items.unsqueeze(1)).any(2), -1)
    num_best = proposed.shape[1] - model.num_drawn
    best, drawn = ((ids >= 0).sum(1) for ids in proposed.split([num_best, model.num_drawn], 1))  # (N,) each
    allowed = len(model.retriever.rows) if obs.mask is None else obs.mask.sum(1)
    excluded = 0 if obs.exclude is None else (obs.exclude >= 0).sum(1)
    others = allowed - excluded - best - items.shape[1]  # (N,): among which ``drawn`` were drawn
    weight = (others / drawn.clamp_min(1)).clamp_min(1.0).log()  # (N,)
    plain = obs.context.new_zeros(len(proposed), items.shape[1] + num_best)
    weights = torch.cat([plain, weight.to(plain).unsqueeze(1).expand(-1, model.num_drawn)], 1)
    return obs.among(torch.cat([items, proposed], 1)), weights


def corrected(distribution: Distribution, weights: Tensor | None) -> Distribution:
    """The distribution over candidates with log-weights (N, C): it estimates that over all items."""
    if weights is None:
        return distribution
    if isinstance(distribution, PlackettLuce):
        return PlackettLuce(distribution.logits + weights, distribution.slate_size)
    assert isinstance(distribution, Categorical)  # patterns have no candidates
    return Categorical(distribution.logits + weights.unsqueeze(1))

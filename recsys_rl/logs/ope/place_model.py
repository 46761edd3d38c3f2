"""The reward model of slates by place, for `cascade-dr`: what a place and those below it bring.

Q_k(x, a_1 .. a_k) is fitted from the last place to the first, to r_k + V_{k+1}, with V_k the mean of Q_k over
the items that the judged policy shows at place k below the logged a_1 .. a_{k-1}. It is linear in the
features of the item and in the means of those above it. Cross-fitted, as reward_model.py is.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from recsys_rl.data.tables.items import knows_items
from recsys_rl.logs.ope.item_models import MOST_ITEMS, of_each_item
from recsys_rl.logs.ope.replay import PAIRS, ReplayedLog
from recsys_rl.logs.ope.reward_model import Fit, Predict, cross_fit, predict, ridge
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Obs


def why_no_place_model(log: ReplayedLog) -> str:
    """Why no such model is fitted to a log, as the end of a sentence; "" where it can be."""
    if log.log.num_rows < log.totals.rows:
        return (
            f"the model of places is fitted on all rows, and a log of {log.totals.rows:,} is judged in parts"
        )
    if log.totals.rows * log.num_items > PAIRS:
        return f"the model of places is averaged over every item, for at most {PAIRS:,} pairs of row and item"
    return ""


@torch.no_grad()
def place_values(
    log: ReplayedLog, policy: Behaviour, certain: bool, rewards: Tensor
) -> tuple[Tensor, Tensor]:
    """Q_k of the logged places and V_k below the logged items above, (E, K) float64 each.

    Args:
        certain: the same observation always gives the same items.
        rewards: (E, K) of the places.
    """
    slates, folds, fit = log.log.items, log.folds, _fit(log)
    every = torch.arange(log.num_items)
    q, v = torch.zeros(2, *slates.shape, dtype=torch.float64)
    for place in reversed(range(log.places)):
        features = log.of_rows(partial(_of_logged, log, place))  # (E, F)
        target = rewards[:, place] + (v[:, place + 1] if place + 1 < log.places else 0.0)
        models, left = cross_fit(fit, features, target, folds), log.places - place
        limits = left * float(rewards.min()), left * float(rewards.max())
        q[:, place] = predict(models, features, folds).clamp(*limits)
        for at, obs in log.observations():
            alternatives = _features(log, obs, slates[at], every.expand(len(at), -1), place)
            values = predict(models, alternatives, folds[at]).clamp(*limits)  # (B, I)
            v[at, place] = (place_probabilities(log, policy, certain, obs, slates[at], place) * values).sum(1)
    return q, v


def place_probabilities(
    log: ReplayedLog, policy: Behaviour, certain: bool, obs: Obs, slates: Tensor, place: int
) -> Tensor:
    """(B, I) float64: the probability of each item at a place, below those of ``slates`` (B, K) above it."""
    if certain:  # what stands above does not change its items
        items = policy.act(obs).items[:, place : place + 1]
        one = torch.zeros(len(slates), log.num_items, dtype=torch.float64)
        return one.scatter_(1, items.clamp_min(0), (items >= 0).double())
    whole = obs.candidates is None and not log.log.header.interface.patterns
    if whole and isinstance(policy, NetworkPolicy) and policy.first_stage is None:
        scores = policy.scores(obs).double()  # one look at the network for all items
        return scores.scatter(1, slates[:, :place], -torch.inf).softmax(1)
    every = torch.arange(log.num_items).expand(len(slates), -1)
    chances = torch.zeros(len(slates), log.num_items + 1, dtype=torch.float64)
    for items in (every if obs.candidates is None else obs.candidates).unbind(1):  # (B,), -1: none
        slate = slates.clone()
        slate[:, place] = items.clamp_min(0)
        terms = policy.place_logprobs(obs, slate)[:, place].double().exp().nan_to_num(nan=0.0)
        at = torch.where(items < 0, log.num_items, items)
        chances.scatter_(1, at.unsqueeze(1), terms.unsqueeze(1))
    return chances[:, :-1]


def _of_logged(log: ReplayedLog, place: int, at: Tensor, obs: Obs) -> Tensor:
    """(B, F): of the logged items at a place."""
    slates = log.log.items[at]
    return _features(log, obs, slates, slates[:, place : place + 1], place)[:, 0]


def _features(log: ReplayedLog, obs: Obs, slates: Tensor, items: Tensor, place: int) -> Tensor:
    """(B, M, F): of each of ``items`` (B, M) at a place below those of ``slates`` (B, K) above it.

    The last column is the item's row.
    """
    own = torch.stack([log.features(obs, column.unsqueeze(1)) for column in items.unbind(1)], 1)
    columns = [own]
    if place:
        above = log.features(obs, slates[:, :place]).unsqueeze(1)
        columns.append(above.expand(-1, items.shape[1], -1))
    return torch.cat([*columns, items.unsqueeze(2).float()], 2)  # exact up to 2^24 items


def _fit(log: ReplayedLog) -> Fit:
    """The fit of a model; a few items that are known by their ids alone have coefficients each."""
    if not knows_items(log.catalogue) and log.num_items <= MOST_ITEMS:
        return of_each_item(ridge(), log.features.of_users, log.num_items)
    plain = ridge()

    def fit(features: Tensor, targets: Tensor) -> Predict:
        model = plain(features[:, :-1], targets)
        return lambda rows: model(rows[:, :-1])

    return fit

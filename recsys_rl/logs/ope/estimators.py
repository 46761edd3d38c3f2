"""The estimators, by name: `ESTIMATORS`. Each scores the `Evidence` of a policy on a log.

Evidence is of N sessions, padded to T steps; T = 1 for single decisions. After its end a session has reward
0, Q 0, V 0, and keeps its last weight, so that the weights of each step have the expectation 1.

A score is one term for each session, (N,) float64: the mean of the terms is the estimate, and their spread
gives its error. Self-normalised estimators return linearised terms, ``ratio + w (x - ratio) / mean w``, which
have the same two properties.

A new estimator is one entry at the end of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps

import torch
from torch import Tensor

from recsys_rl.types import UserError


@dataclass(frozen=True)
class Slates:
    """The logged slates of K items; a part is None if it is unknown.

    At one place of a slate, ``pi(a_k | x, a_1 .. a_{k-1})`` is the probability of its item given those above,
    and ``pi(a_k | x)`` that of the item whatever stands above.
    """

    given_above: Tensor | None = None  # (N, T, K) float64: pi / pi_b of each place, given the items above
    alone: Tensor | None = None  # (N, T, K) float64: pi / pi_b of each place, whatever stands above
    additive: Tensor | None = None  # (N, T) float64: the pseudo-inverse weight of the slate
    rewards: Tensor | None = None  # (N, T, K) float64: the reward of each place
    # Of a place with the logged items above it, (N, T, K) float64 each: what it and those below it bring, of
    # its logged item and on average over the policy's items, by a model (place_model.py).
    q: Tensor | None = None
    v: Tensor | None = None


@dataclass(frozen=True)
class Evidence:
    """N logged sessions and what the judged policy would have done in them."""

    weights: Tensor  # (N, T) float64: w_{0:t}, the cumulative weight; after the end the last one
    rewards: Tensor  # (N, T) float64: r_t, 0 after the end
    alive: Tensor  # (N, T) bool: True for steps that took place
    gamma: float = 1.0
    q: Tensor | None = None  # (N, T) float64: Q_t of the logged action, cross-fitted; 0 after the end
    v: Tensor | None = None  # (N, T) float64: V_t = sum_a pi(a|x_t) Q_t(x_t, a); 0 after the end
    clusters: Tensor | None = None  # (N,) float64: pi / pi_b of the cluster of the one logged item
    slates: Slates | None = None
    world: Tensor | None = None  # (N,) float64: the policy's expected return in a learned world model

    @property
    def discounts(self) -> Tensor:
        """(T,): g^t"""
        return discounts(self.gamma, self.rewards.shape[1])

    @property
    def residual(self) -> Tensor:
        """(N, T): r_t + g V_{t+1} - Q_t, with V = 0 after the end; at one step r - q(x, a)."""
        v = needed(self.v)
        after = torch.cat([v[:, 1:], v.new_zeros(len(v), 1)], 1)  # (N, T)
        return self.rewards + self.gamma * after - needed(self.q)


def place_residual(of: Slates) -> Tensor:
    """(N, T): sum_k (r_k + V_{k+1} - Q_k), with V = 0 below the last place."""
    v = needed(of.v)
    below = torch.cat([v[..., 1:], torch.zeros_like(v[..., :1])], 2)
    return (needed(of.rewards) + below - needed(of.q)).sum(2)


def discounts(gamma: float, steps: int) -> Tensor:
    """(T,) float64: g^t"""
    return torch.as_tensor(gamma, dtype=torch.float64) ** torch.arange(steps, dtype=torch.float64)


def needed(values: Tensor | None) -> Tensor:
    """``values``, or UserError if the evidence lacks it."""
    if values is None:
        raise UserError(
            "This estimator needs a reward model, but none was fitted: give features to fit it on, or choose "
            "ips, clipped-ips or snips."
        )
    return values


# What an estimator needs of a log and a policy; the judge names the reason where a need is not met.
ONE_STEP, STEPS, ITEM, SLATE = "one step", "several steps", "single items", "slates"  # the kind of the log
MODEL = "q"  # a reward model, averaged over the policy's actions
CLUSTERS = "clusters"  # the probability of each cluster of items under the policy and the logger
GIVEN_ABOVE, ALONE, ADDITIVE = "given above", "alone", "additive"  # weights of a slate; see Slates
PLACE_REWARDS, PLACE_MODEL = "place rewards", "place model"
WORLD = "world"  # a learned model in which the policy can be played
INFINITE = float("inf")


def last_weights(log: Evidence) -> Tensor:
    """(N,): the weight of each whole session."""
    return log.weights[:, -1]


@dataclass(frozen=True)
class Estimator:
    """An estimator and what it needs."""

    name: str
    paper: str
    needs: tuple[str, ...]
    score: Callable[[Evidence], Tensor]  # (N,) float64; with a clip: without any clipping
    weights: Callable[[Evidence], Tensor] | None = last_weights  # (N,), of expectation 1; None: it uses none
    # w (...) and a clip c -> the clipped weights, which trade bias for variance; clipping.py chooses c
    clip: Callable[[Tensor, float], Tensor] | None = None

    def clipped(self, log: Evidence, clip: float) -> Tensor:
        """(N,): the score with the clip ``clip``."""
        assert self.clip is not None
        return self.score(replace(log, weights=self.clip(log.weights, clip)))


def normalised(weights: Tensor, values: Tensor) -> Tensor:
    """Linearised terms of the ratio ``sum w x / sum w``; 0 without any weight. Of (N,), or of each column."""
    mean = weights.mean(0)
    ratio = torch.where(mean > 0, (weights * values).mean(0) / mean, 0.0)
    return torch.where(mean > 0, ratio + weights * (values - ratio) / mean, 0.0)


def weighted_rewards(log: Evidence) -> Tensor:
    """``sum_t g^t w_{0:t} r_t`` (Precup et al. 2000); at one step ``w r`` (Horvitz and Thompson 1952)."""
    return (log.weights * log.rewards) @ log.discounts


def normalised_rewards(log: Evidence) -> Tensor:
    """``sum_t g^t sum_i w r / sum_i w``: each step normalised over the sessions."""
    return normalised(log.weights, log.rewards) @ log.discounts


def doubly_robust(log: Evidence) -> Tensor:
    """``V_0 + sum_t g^t w_{0:t} (r_t + g V_{t+1} - Q_t)``; at one step ``v + w (r - q)``."""
    return needed(log.v)[:, 0] + (log.weights * log.residual) @ log.discounts


def normalised_doubly_robust(log: Evidence) -> Tensor:
    """As ``doubly_robust``, with the weights of each step normalised over the sessions."""
    return needed(log.v)[:, 0] + normalised(log.weights, log.residual) @ log.discounts


def model_alone(log: Evidence) -> Tensor:
    """``V_0``: at one step ``v(x) = sum_a pi(a|x) q(x, a)``."""
    return needed(log.v)[:, 0]


def clipped(weights: Tensor, clip: float) -> Tensor:
    """min(w, c)"""
    return weights.clamp_max(clip)


def shrunk(weights: Tensor, clip: float) -> Tensor:
    """c w / (w^2 + c); w if c is infinite."""
    if clip == INFINITE:
        return weights
    return clip * weights / (weights**2 + clip) if clip else torch.zeros_like(weights)


GRID = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0, INFINITE)
"""Clips of weights, from the smallest to none."""


def cluster_weights(log: Evidence) -> Tensor:
    """The weight of an item's cluster in place of the item's own.

    An item's own is huge or zero where the catalogue is large. A cluster's is unbiased if its items have the
    same reward.
    """
    return _given(log.clusters)


def by_cluster(score: Callable[[Evidence], Tensor]) -> Callable[[Evidence], Tensor]:
    """``score`` with the weights of clusters, and with its docstring."""

    @wraps(score)
    def of_clusters(log: Evidence) -> Tensor:
        return score(replace(log, weights=cluster_weights(log).unsqueeze(1)))

    return of_clusters


# Slates: V = sum_t g^t w_{0:t-1} f_t, with w_{0:t-1} the weight of the whole slates of the steps before and
# f_t = w_k r_k, summed over places k, of the slate at step t. The estimator decides only which places the
# reward of a place depends on.
def over_steps(log: Evidence, of_slate: Tensor) -> Tensor:
    """(N,): the terms of the sessions from those of single slates (N, T)."""
    return (before(log) * of_slate) @ log.discounts


def before(log: Evidence) -> Tensor:
    """(N, T): w_{0:t-1}"""
    return torch.cat([torch.ones_like(log.weights[:, :1]), log.weights[:, :-1]], 1)


def slate_weights(of_slate: Callable[[Slates], Tensor]) -> Callable[[Evidence], Tensor]:
    """(N,): the weight of a session whose last slate has the weight ``of_slate`` (N, T)."""

    def weights(log: Evidence) -> Tensor:
        last = (log.alive.sum(1) - 1).unsqueeze(1)  # (N, 1)
        return (before(log) * of_slate(_slates(log))).gather(1, last).squeeze(1)

    return weights


def _slates(log: Evidence) -> Slates:
    assert log.slates is not None  # ``met`` is false without
    return log.slates


def _given(values: Tensor | None) -> Tensor:
    assert values is not None  # ``met`` is false without
    return values


def cascade(log: Evidence) -> Tensor:
    """``f = sum_k w_{1:k} r_k``: the reward of a place depends on the items at it and above."""
    of = _slates(log)
    return over_steps(log, (_given(of.given_above).cumprod(2) * _given(of.rewards)).sum(2))


def cascade_doubly_robust(log: Evidence) -> Tensor:
    """``f = sum_k w_{1:k} (r_k - Q_k) + w_{1:k-1} V_k``, Q_k and V_k of the places from k on."""
    of = _slates(log)
    weights, v = _given(of.given_above).cumprod(2), _given(of.v)
    above = torch.cat([torch.ones_like(weights[..., :1]), weights[..., :-1]], 2)  # w_{1:k-1}
    return over_steps(log, (weights * (_given(of.rewards) - _given(of.q)) + above * v).sum(2))


def independent(log: Evidence) -> Tensor:
    """``f = sum_k w_k r_k``, ``w_k`` of the place alone: the reward of a place depends on its own item."""
    of = _slates(log)
    return over_steps(log, (_given(of.alone) * _given(of.rewards)).sum(2))


def additive(log: Evidence) -> Tensor:
    """``f = 1_pi' G^+ 1_s r``: of the reward of the slate alone, a sum of numbers of its items."""
    return over_steps(log, _given(_slates(log).additive) * log.rewards)


def in_world(log: Evidence) -> Tensor:
    """The mean return of the policy in a learned model of the users (world.py)."""
    return _given(log.world)


E = Estimator
ONE, SEVERAL, CLUSTER = (ONE_STEP,), (STEPS,), (ONE_STEP, ITEM, CLUSTERS)
_ALL = (
    # of one step
    E("dm", "direct method", (ONE_STEP, MODEL), model_alone, weights=None),
    E("ips", "Horvitz and Thompson 1952", ONE, weighted_rewards),
    E("snips", "Swaminathan and Joachims 2015", ONE, normalised_rewards),
    E("dr", "Dudik, Langford and Li 2011", (*ONE, MODEL), doubly_robust),
    E("sndr", "dr with weights divided by their mean", (*ONE, MODEL), normalised_doubly_robust),
    E("clipped-ips", "Ionides 2008", ONE, weighted_rewards, clip=clipped),
    E("dros", "Su et al. 2020, shrinkage", (*ONE, MODEL), doubly_robust, clip=shrunk),
    # of sessions
    E("pdis", "Precup, Sutton and Singh 2000", SEVERAL, weighted_rewards),
    E("wpdis", "pdis with the weights of each step normalised", SEVERAL, normalised_rewards),
    E("sdr", "Jiang and Li 2016, unrolled", (*SEVERAL, MODEL), doubly_robust),
    E("wdr", "Thomas and Brunskill 2016", (*SEVERAL, MODEL), normalised_doubly_robust),
    E("fqe", "Le, Voloshin and Yue 2019", (*SEVERAL, MODEL), model_alone, weights=None),
    # of large catalogues, in one step
    E("mips", "Saito and Joachims 2022", CLUSTER, by_cluster(weighted_rewards), cluster_weights),
    E("offcem", "Saito, Ren and Joachims 2023", (*CLUSTER, MODEL), by_cluster(doubly_robust),
      cluster_weights),
    # of slates: unbiased whatever the user does; if a place's reward depends on its own item; if it depends
    # on the items at it and above; if the slate's reward is a sum of numbers of the places' own items
    E("sips", "the weight of the whole slate", (SLATE,), weighted_rewards),
    E("iips", "Li et al. 2018", (SLATE, ALONE, PLACE_REWARDS), independent,
      slate_weights(lambda of: _given(of.alone).mean(2))),
    E("rips", "McInerney et al. 2020, not normalised", (SLATE, GIVEN_ABOVE, PLACE_REWARDS), cascade,
      slate_weights(lambda of: _given(of.given_above).cumprod(2).mean(2))),
    E("cascade-dr", "Kiyohara et al. 2022", (SLATE, ONE_STEP, GIVEN_ABOVE, PLACE_REWARDS, PLACE_MODEL),
      cascade_doubly_robust, slate_weights(lambda of: _given(of.given_above).cumprod(2).mean(2))),
    E("pi", "Swaminathan et al. 2017", (SLATE, ALONE, ADDITIVE), additive,
      slate_weights(lambda of: _given(of.additive))),
    # by a learned model of the users (world.py)
    E("world", "the policy played in a learned model", (WORLD,), in_world, weights=None),
)  # fmt: skip
ESTIMATORS: dict[str, Estimator] = {estimator.name: estimator for estimator in _ALL}
"""The estimators by name, in the order of the table."""


def met(log: Evidence) -> set[str]:
    """The needs that the evidence meets."""
    of = log.slates or Slates()
    parts = {
        MODEL: log.q, CLUSTERS: log.clusters, WORLD: log.world, SLATE: log.slates,
        GIVEN_ABOVE: of.given_above, ALONE: of.alone, ADDITIVE: of.additive, PLACE_REWARDS: of.rewards,
        PLACE_MODEL: of.q,
    }  # fmt: skip
    needs = {need for need, evidence in parts.items() if evidence is not None}
    return needs | {ONE_STEP if log.rewards.shape[1] == 1 else STEPS} | (set() if log.slates else {ITEM})

"""Estimators of slates and of large catalogues, against enumeration under each model of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness.evidence import of_decisions
from recsys_rl.logs.ope.clusters import by_cluster
from recsys_rl.logs.ope.estimators import ESTIMATORS, SLATE, Evidence, Slates, place_residual
from recsys_rl.logs.ope.slates import pseudo_inverse_weights

F64 = torch.float64
OF_SLATES = [name for name, x in ESTIMATORS.items() if SLATE in x.needs]
ITEMS, PLACES = 3, 2
LOGGING = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=F64)  # (place, item)
POLICY = torch.tensor([[0.1, 0.2, 0.7], [0.4, 0.5, 0.1]], dtype=F64)
TASTE = torch.tensor([[0.9, 0.2, 0.4], [0.3, 0.8, 0.1]], dtype=F64)  # (place, item)

Q_1 = torch.tensor([0.7, -0.4, 1.5], dtype=F64)
Q_2 = torch.tensor([[0.1, 0.6, -0.3], [0.9, 0.2, 0.5], [-0.7, 0.8, 0.4]], dtype=F64)  # (above, item)


def independent(slate: tuple[int, ...]) -> list[float]:
    return [float(TASTE[k, a]) for k, a in enumerate(slate)]


def cascade(slate: tuple[int, ...]) -> list[float]:
    """The second place is looked at if the first did not satisfy."""
    first = float(TASTE[0, slate[0]])
    return [first, (1 - first) * float(TASTE[1, slate[1]])]


def whole(slate: tuple[int, ...]) -> list[float]:
    """Both places depend on both items."""
    a, b = slate
    return [float(TASTE[0, a] * TASTE[1, b]), float((TASTE[0, b] - TASTE[1, a]) ** 2)]


USERS: dict[str, Callable[[tuple[int, ...]], list[float]]] = {
    "independent": independent,
    "cascade": cascade,
    "whole": whole,
}
UNBIASED = {
    "sips": ("independent", "cascade", "whole"),
    "rips": ("independent", "cascade"),
    "cascade-dr": ("independent", "cascade"),
    "iips": ("independent",),
    "pi": ("independent",),
}


def slate_evidence(
    given_above: Tensor,
    rewards: Tensor,
    alone: Tensor,
    additive: Tensor,
    model: tuple[Tensor, Tensor] | None = None,
) -> Evidence:
    """One session for each slate: ratios, rewards (M, K), the weight of the sum (M,), Q and V (M, K)."""
    q, v = model or (torch.zeros_like(rewards), torch.zeros_like(rewards))
    parts = given_above, alone, additive, rewards, q, v
    of = Slates(*(part.unsqueeze(1) for part in parts))
    return replace(of_decisions(given_above.prod(1), rewards.sum(1)), slates=of)


def errors(with_replacement: bool) -> dict[tuple[str, str], float]:
    """The bias of each estimator for each user, over all slates."""
    slates = (
        list(product(range(ITEMS), repeat=PLACES)) if with_replacement else list(permutations(range(3), 2))
    )
    shown = torch.tensor(slates)  # (M, K)

    def given_above(p: Tensor) -> Tensor:  # (M, K)
        first, second = p[0, shown[:, 0]], p[1, shown[:, 1]]
        if not with_replacement:  # drawn by the second row among the items that are left
            second = second / (1 - p[1, shown[:, 0]])
        return torch.stack([first, second], 1)

    mine, theirs = given_above(POLICY), given_above(LOGGING)
    probability = {"policy": mine.prod(1), "logging": theirs.prod(1)}

    def alone(p: Tensor) -> Tensor:  # (M, K): probability of each place's item, whatever the other is
        same = shown.unsqueeze(1) == shown.unsqueeze(0)  # (M, M, K)
        return (same * p.view(1, -1, 1)).sum(1)

    q = torch.stack([Q_1[shown[:, 0]], Q_2[shown[:, 0], shown[:, 1]]], 1)  # of a wrong model, (M, K)
    left = 1.0 if with_replacement else 1 - torch.eye(ITEMS, dtype=F64)  # below each first item
    second = POLICY[1] * left * torch.ones(ITEMS, 1, dtype=F64)
    below = (second / second.sum(1, keepdim=True) * Q_2).sum(1)  # (3,): V of place 2
    model = q, torch.stack([(POLICY[0] @ Q_1).expand(len(shown)), below[shown[:, 0]]], 1)

    number = len(slates)
    additive = pseudo_inverse_weights(
        probability["policy"].expand(number, -1),
        probability["logging"].expand(number, -1),
        shown,
        shown,
        ITEMS,
    )
    assert additive is not None
    found = {}
    for user, reward in USERS.items():
        rewards = torch.tensor([reward(slate) for slate in slates], dtype=F64)
        value = float(probability["policy"] @ rewards.sum(1))
        weights = alone(probability["policy"]) / alone(probability["logging"])
        log = slate_evidence(mine / theirs, rewards, weights, additive, model)
        for name in OF_SLATES:
            terms = ESTIMATORS[name].score(log)
            found[name, user] = abs(float(probability["logging"] @ terms) - value)
    return found


class Largest(TorchDispatchMode):
    """``numel``: the largest number of elements of a tensor that was made meanwhile."""

    numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(x.numel() for x in (out,) if isinstance(x, Tensor)), 0)
        return out


def test_pseudo_inverse_makes_no_tensor_of_rows_times_slates_times_items() -> None:
    items, places, rows = 12, 2, 500
    slates = torch.tensor(list(permutations(range(items), places)))  # (132, 2)
    rng = torch.Generator().manual_seed(0)
    policy, logging = torch.rand(2, rows, len(slates), generator=rng).double().softmax(2)
    shown = slates[torch.randint(len(slates), (rows,), generator=rng)]
    with Largest() as made:  # type: ignore[no-untyped-call]
        weights = pseudo_inverse_weights(policy, logging, slates, shown, items)
    assert weights is not None and len(weights) == rows
    assert made.numel <= rows * (places * items) ** 2 < rows * len(slates) * places * items


@pytest.mark.parametrize("with_replacement", [True, False])
def test_slate_estimators_are_unbiased_for_their_users_and_biased_for_others(with_replacement: bool) -> None:
    for (name, user), error in errors(with_replacement).items():
        if user in UNBIASED[name]:
            assert error == pytest.approx(0, abs=1e-10), (name, user)
        else:
            assert error > 1e-3, (name, user)


def test_pseudo_inverse_weight_of_independent_places_is_the_sum_less_the_places_and_one() -> None:
    slates = torch.tensor(list(product(range(ITEMS), repeat=PLACES)))
    mine, theirs = (p[0, slates[:, 0]] * p[1, slates[:, 1]] for p in (POLICY, LOGGING))
    found = pseudo_inverse_weights(mine.expand(9, -1), theirs.expand(9, -1), slates, slates, ITEMS)
    assert found is not None
    ratios = (POLICY / LOGGING)[torch.arange(2), slates]  # (9, 2)
    assert found.tolist() == pytest.approx((ratios.sum(1) - 1).tolist(), abs=1e-10)


def test_pseudo_inverse_has_no_weights_for_a_policy_that_the_log_does_not_cover() -> None:
    slates = torch.tensor([[0, 1], [1, 0]])
    first, second = torch.eye(2)
    assert pseudo_inverse_weights(second[None], first[None], slates, slates[:1], 2) is None
    assert pseudo_inverse_weights(first[None], first[None], slates, slates[:1], 2) is not None


def test_slates_of_one_item_give_the_weighted_rewards_of_decisions() -> None:
    w, r = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)).double()
    log = slate_evidence(w[:, None], r[:, None], w[:, None], w)
    for name in OF_SLATES:
        of = ESTIMATORS[name]
        assert of.score(log).tolist() == pytest.approx((w * r).tolist()), name
        assert of.weights is not None and of.weights(log).tolist() == pytest.approx(w.tolist()), name


def test_slates_of_later_steps_have_the_weight_of_the_whole_slates_before_them() -> None:
    """By hand: one session of two steps of two places, and one that ends after its first step."""
    ratio, reward = torch.rand(2, 2, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    ratio[1, 1] = reward[1, 1] = 0
    alive = torch.tensor([[True, True], [True, False]])
    weights = torch.where(alive, ratio.prod(2), 1.0).cumprod(1)
    of = Slates(given_above=ratio, alone=ratio, additive=ratio.sum(2) - 1, rewards=reward)
    log = Evidence(weights, reward.sum(2), alive, 0.5, slates=of)
    first, second = (ratio[:, t] * reward[:, t] for t in (0, 1))
    expected = first.sum(1) + 0.5 * ratio[:, 0].prod(1) * second.sum(1)
    assert ESTIMATORS["iips"].score(log).tolist() == pytest.approx(expected.tolist())
    of_session = ESTIMATORS["iips"].weights
    assert of_session is not None
    means = [float(ratio[0, 0].prod() * ratio[0, 1].mean()), float(ratio[1, 0].mean())]
    assert of_session(log).tolist() == pytest.approx(means)


def test_cascade_dr_is_the_sum_of_its_paper() -> None:
    """Kiyohara et al. (2022), eq. 4, in plain loops: each place with its weight and that of those above."""
    rng = np.random.default_rng(0)
    ratio, reward, q, v = rng.random((4, 20, 4))
    expected = []
    for row in range(20):
        total, above = 0.0, 1.0
        for place in range(4):
            here = above * ratio[row, place]
            total += here * (reward[row, place] - q[row, place]) + above * v[row, place]
            above = here
        expected.append(total)
    w, r, *model = map(torch.from_numpy, (ratio, reward, q, v))
    log = slate_evidence(w, r, w, w.sum(1), (model[0], model[1]))
    assert ESTIMATORS["cascade-dr"].score(log).tolist() == pytest.approx(expected)
    assert log.slates is not None
    left = (reward + np.pad(v[:, 1:], ((0, 0), (0, 1))) - q).sum(1)
    assert place_residual(log.slates)[:, 0].tolist() == pytest.approx(left.tolist())


CLUSTERS = torch.tensor([0, 0, 1])


def both(log: Evidence) -> list[Tensor]:
    return [ESTIMATORS[name].score(log) for name in ("mips", "offcem")]


def test_cluster_estimators_against_enumeration() -> None:
    """mips is unbiased if a cluster's items earn the same, offcem if its model is right within clusters."""
    logging, policy = LOGGING[:1], POLICY[:1]
    w = (by_cluster(policy, CLUSTERS) / by_cluster(logging, CLUSTERS))[0, CLUSTERS]
    assert w.tolist() == pytest.approx([0.3 / 0.8, 0.3 / 0.8, 0.7 / 0.2])

    def bias(reward: list[float], q: list[float]) -> tuple[float, float]:
        r, model = torch.tensor(reward, dtype=F64), torch.tensor(q, dtype=F64)
        log = of_decisions((policy / logging)[0], r, model, (policy[0] @ model).expand(3))
        log = replace(log, clusters=w)
        value = float(policy[0] @ r)
        return tuple(float(logging[0] @ x) - value for x in both(log))  # type: ignore[return-value]

    assert bias([0.4, 0.4, 0.9], [0.0, 0.0, 0.0]) == pytest.approx((0, 0), abs=1e-12)
    assert bias([0.1, 0.6, 0.9], [0.3, 0.8, 0.2])[1] == pytest.approx(
        0, abs=1e-12
    )  # off by one number a cluster
    assert abs(bias([0.1, 0.6, 0.9], [0.3, 0.8, 0.2])[0]) > 0.01


def test_cluster_of_each_item_alone_has_the_items_own_probability() -> None:
    assert torch.equal(by_cluster(POLICY, torch.arange(3)), POLICY)

"""Estimators of slates and of large catalogues, against enumeration under each model of the user."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_rl.ope import bandit
from recsys_rl.ope.bandit import Decisions
from recsys_rl.ope.clustered import cluster_weights, mips, offcem
from recsys_rl.ope.slate import SLATE, Slates, pseudo_inverse_weights

F64 = torch.float64
ITEMS, PLACES = 3, 2
LOGGING = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=F64)  # (place, item)
POLICY = torch.tensor([[0.1, 0.2, 0.7], [0.4, 0.5, 0.1]], dtype=F64)
TASTE = torch.tensor([[0.9, 0.2, 0.4], [0.3, 0.8, 0.1]], dtype=F64)  # (place, item)


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
    "iips": ("independent",),
    "pi": ("independent",),
}


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
        log = Slates(
            mine / theirs, rewards, alone(probability["policy"]) / alone(probability["logging"]), additive
        )
        for name, estimate in SLATE.items():
            found[name, user] = abs(float(probability["logging"] @ estimate(log)) - value)
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
    rewards = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)).double()
    short, general = Slates(ratios, rewards), Slates(ratios, rewards, ratios, found)
    assert SLATE["pi"](short).tolist() == pytest.approx(SLATE["pi"](general).tolist(), abs=1e-10)


def test_pseudo_inverse_has_no_weights_for_a_policy_that_the_log_does_not_cover() -> None:
    slates = torch.tensor([[0, 1], [1, 0]])
    first, second = torch.eye(2)
    assert pseudo_inverse_weights(second[None], first[None], slates, slates[:1], 2) is None
    assert pseudo_inverse_weights(first[None], first[None], slates, slates[:1], 2) is not None


def test_slates_of_one_item_give_the_bandit_estimator() -> None:
    rng = torch.Generator().manual_seed(0)
    w, r = torch.rand(2, 30, generator=rng).double()
    expected = bandit.ips(Decisions(w, r)).tolist()
    for name, estimate in SLATE.items():
        assert estimate(Slates(w[:, None], r[:, None])).tolist() == pytest.approx(expected), name


CLUSTERS = torch.tensor([0, 0, 1])


def test_cluster_estimators_against_enumeration() -> None:
    """mips is unbiased if a cluster's items earn the same, offcem if its model is right within clusters."""
    logging, policy = LOGGING[:1], POLICY[:1]
    items = torch.arange(ITEMS)
    w = cluster_weights(policy.expand(3, -1), logging.expand(3, -1), CLUSTERS, items)
    assert w.tolist() == pytest.approx([0.3 / 0.8, 0.3 / 0.8, 0.7 / 0.2])

    def bias(reward: list[float], q: list[float]) -> tuple[float, float]:
        r, model = torch.tensor(reward, dtype=F64), torch.tensor(q, dtype=F64)
        log = Decisions((policy / logging)[0], r, model, (policy[0] @ model).expand(3))
        value = float(policy[0] @ r)
        return tuple(float(logging[0] @ x) - value for x in (mips(log, w), offcem(log, w)))  # type: ignore[return-value]

    assert bias([0.4, 0.4, 0.9], [0.0, 0.0, 0.0]) == pytest.approx((0, 0), abs=1e-12)
    assert bias([0.1, 0.6, 0.9], [0.3, 0.8, 0.2])[1] == pytest.approx(
        0, abs=1e-12
    )  # off by one number a cluster
    assert abs(bias([0.1, 0.6, 0.9], [0.3, 0.8, 0.2])[0]) > 0.01


def test_cluster_of_each_item_alone_gives_the_items_own_weight() -> None:
    items = torch.tensor([2, 0])
    policy, logging = POLICY, LOGGING
    found = cluster_weights(policy, logging, torch.arange(3), items)
    assert found.tolist() == pytest.approx([0.7 / 0.2, 0.4 / 0.2])

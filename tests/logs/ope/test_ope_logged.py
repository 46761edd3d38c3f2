"""What the estimators of slates and clusters read of policies and logs."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import pytest
import torch
from torch import Tensor

from benchmarks.harness.evidence import of_decisions
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.evaluation.mixture import EpsilonMixture, Fixed
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.decision_table import single_decisions
from recsys_rl.logs.ope import slate_choices as choices_module
from recsys_rl.logs.ope.clusters import ClusterLog, k_means, lloyd
from recsys_rl.logs.ope.estimators import ADDITIVE, ALONE, ESTIMATORS, PLACE_REWARDS
from recsys_rl.logs.ope.playable import slate_choices
from recsys_rl.logs.ope.replay import ReplayedLog, replay
from recsys_rl.logs.ope.rows import Knowledge, score
from recsys_rl.logs.ope.slate_choices import Choices, choices_of, place_marginals, possible_slates
from recsys_rl.logs.ope.slates import (
    SlateLog,
    pseudo_inverse_weights,
    uniform_additive,
    uniform_choices,
)
from recsys_rl.types import Action, Interface, Obs

F64 = torch.float64
SLATES = torch.tensor(list(permutations(range(4), 2)))  # (12, 2)


class Tilted:
    """Plackett-Luce with the same logits for everyone."""

    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def distribution(self, rows: int) -> PlackettLuce:
        return PlackettLuce(self.logits.repeat(rows, 1), 2)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action(*self.distribution(obs.num_rows).draw(self.generator))

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        return self.distribution(len(items)).place_logprobs(items)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        return self.logits.double().softmax(0).expand(obs.num_rows, -1)


def exact_marginals() -> Tensor:
    """(4, 2): the probability of each item at each place."""
    p = Tilted().distribution(12).logprob(SLATES).double().exp()
    one = torch.nn.functional.one_hot(SLATES, 4).double()  # (12, 2, 4)
    return torch.einsum("m,mki->ik", p, one)


def test_marginals_of_slates_are_right_in_expectation() -> None:
    found = place_marginals(Tilted(), Obs(torch.zeros(12, 1)), SLATES, 4000)
    expected = exact_marginals()[SLATES].transpose(1, 2)  # (12, place, item of place j)
    assert torch.allclose(found, expected, atol=0.025)
    first = found[:, 0]  # nothing stands above the first place, so that its probability is exact
    assert torch.allclose(first, expected[:, 0], atol=1e-6)


@pytest.mark.parametrize(("items", "places"), [(4, 2), (5, 3), (3, 3), (6, 1)])
def test_closed_form_of_uniform_slates_is_the_pseudo_inverse(items: int, places: int) -> None:
    slates = torch.tensor(list(permutations(range(items), places)))
    rng = torch.Generator().manual_seed(0)
    policy = torch.rand(len(slates), generator=rng, dtype=F64)
    policy /= policy.sum()
    uniform = torch.full_like(policy, 1 / len(slates))
    number = len(slates)
    expected = pseudo_inverse_weights(
        policy.expand(number, -1), uniform.expand(number, -1), slates, slates, items
    )
    assert expected is not None
    one = torch.nn.functional.one_hot(slates, items).double()  # (M, K, I)
    at = torch.einsum("m,mki->ki", policy, one)  # (K, I)
    marginals = at[:, slates].permute(1, 0, 2)  # (M, K, K)
    found = uniform_additive(marginals, torch.full((number,), items))
    assert torch.allclose(found, expected, atol=1e-10)


def test_item_probabilities_are_those_of_single_items() -> None:
    rng = torch.Generator().manual_seed(0)
    obs = Obs(torch.zeros(3, 1), exclude=torch.tensor([[0, 1], [-1, 4], [2, 2]]))
    random = RandomPolicy((5,), rng)
    fixed = Fixed(Always())
    mixture = EpsilonMixture(fixed, random, 0.4, rng)
    for policy in (random, fixed, mixture):
        every = torch.stack(
            [policy.place_logprobs(obs, torch.full((3, 1), k))[:, 0] for k in range(5)], 1
        ).exp()
        assert torch.allclose(policy.item_probabilities(obs, 5), every, atol=1e-12)
    staged = Obs(torch.zeros(1, 1), candidates=torch.tensor([[3, 1, -1]]))
    assert random.item_probabilities(staged, 5).tolist() == [[0, 0.5, 0, 0.5, 0]]


class Always:
    """Shows item 3."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action.certain(torch.full((obs.num_rows, 1), 3))


def test_k_means_finds_separate_groups_and_no_more_clusters_than_points() -> None:
    rng = torch.Generator().manual_seed(0)
    groups = torch.arange(60) % 3
    points = 10 * torch.eye(3)[groups] + 0.1 * torch.randn(60, 3, generator=rng)
    found = k_means(points, 3, rng)
    for group in range(3):
        assert len(found[groups == group].unique()) == 1
    assert len(found.unique()) == 3
    same = k_means(torch.eye(2)[torch.arange(20) % 2], 7, rng)
    assert same.max() == 1 and (same[::2] == same[0]).all() and same[0] != same[1]


@pytest.mark.parametrize(("apart", "number"), [(1e-5, 2), (1e-8, 1)])
def test_points_make_two_clusters_if_they_differ_by_more_than_rounding(apart: float, number: int) -> None:
    points = torch.tensor([[0.0], [0.0], [apart]])
    assert len(k_means(points, 3, torch.Generator().manual_seed(0)).unique()) == number


@pytest.mark.parametrize("seed", range(10))
def test_k_means_gives_a_few_items_far_from_all_others_a_cluster(seed: int) -> None:
    """Centres that are drawn uniformly would leave the three of 1,003 items without one."""
    rng = torch.Generator().manual_seed(seed)
    groups = torch.cat([torch.arange(1000) % 2, torch.full((3,), 2)])
    points = 10 * torch.eye(3)[groups] + 0.01 * torch.randn(1003, 3, generator=rng)
    found = k_means(points, 3, rng)
    rare = found[groups == 2].unique()
    assert len(rare) == 1 and not (found[groups < 2] == rare).any()


def test_centre_without_points_stays_where_it_is() -> None:
    """At 0 it would take the first point from the other centre."""
    points = torch.tensor([[1.0], [5.0]])
    assert lloyd(points, torch.tensor([[3.0], [100.0]])).tolist() == [0, 0]
    assert lloyd(points, torch.tensor([[1.0], [8.0]])).tolist() == [0, 1]


@pytest.mark.parametrize(("share", "lost"), [(1e-3, 0.0), (1e-9, 0.0), (0.0, 0.3)])
def test_cluster_that_the_logger_shows_rarely_is_covered_and_one_that_it_never_shows_is_lost(
    share: float, lost: float
) -> None:
    clusters = torch.tensor([0, 0, 1, 2])
    theirs = torch.tensor([0.3, 0.3, 0.4 - share, share], dtype=F64)
    mine = torch.tensor([0.2, 0.3, 0.2, 0.3], dtype=F64)
    items = torch.tensor([0, 1, 2, 3 if share else 2])
    catalogue, _ = synthetic_world(4, 50, 4, 0.2, 0)
    own = single_decisions(
        torch.arange(4), items, torch.ones(4), torch.full((4,), 0.25), signal="click", logger="x",
        catalogue=catalogue, ids="abcd",
    )  # fmt: skip
    of = replay(own.log, catalogue, torch.ones(4), 1.0, RNG)
    log = ClusterLog.make(of, clusters, lambda rows, obs: theirs.expand(obs.num_rows, -1))
    found, share_lost = log.weights(lambda rows, obs: mine.expand(obs.num_rows, -1))
    assert share_lost == pytest.approx(lost)
    last = 0.3 / share if share else 0.2 / (0.4 - share)
    assert found.tolist() == pytest.approx([0.5 / 0.6, 0.5 / 0.6, 0.2 / (0.4 - share), last])


class Softer(Tilted):
    logits = torch.tensor([0.5, 0.0, 0.2, 1.0])


def slate_log(logger: Tilted) -> ReplayedLog:
    """One row for each of the 12 slates, with the logger's probabilities."""
    catalogue, _ = synthetic_world(4, 50, 4, 0.2, 0)
    interface = Interface(
        context=(("profile", 4),), action_sizes=(4,), slate_size=2, signals=("click",), session_length=1
    )
    rows, terms = torch.arange(12), logger.place_logprobs(Obs(torch.zeros(12, 1)), SLATES).double()
    log = DecisionLog(
        header=DecisionHeader(loggers=("ppo",), interface=interface, signals=("click",)),
        users=rows,
        sessions=rows,
        steps=torch.zeros_like(rows),
        times=rows,
        items=SLATES,
        logprobs=terms.sum(1),
        place_logprobs=terms,
        signals=torch.zeros(12, 2, 1),
        terminated=torch.ones(12, dtype=torch.bool),
        truncated=torch.zeros(12, dtype=torch.bool),
        loggers=torch.zeros_like(rows),
        given={"profile": torch.zeros(12, 4)},
    )
    taste = torch.tensor([[0.9, 0.2, 0.4, 0.1], [0.3, 0.8, 0.1, 0.6]])  # (place, item)
    each = taste[torch.arange(2), SLATES]  # (12, 2): of its own item alone
    log = dataclasses.replace(log, signals=each.unsqueeze(2))
    return replay(log, catalogue, each.double().sum(1), 1.0, RNG)


RNG = torch.Generator().manual_seed(0)


def test_slate_estimators_of_a_known_logger_with_unequal_scores_are_unbiased() -> None:
    """Each slate weighted by the logger's probability: that is the expectation over all logs."""
    logger, policy = Tilted(), Softer()
    of = slate_log(logger)
    each = of.log.signals[..., 0].double()
    slates = possible_slates(of)
    assert slates is not None and slates.tolist() == SLATES.tolist()
    log = SlateLog(of, each, lambda slates: slate_choices(of, logger, slates, 1, logged=True))
    mine = policy.place_logprobs(Obs(torch.zeros(12, 1)), SLATES).double()
    p, theirs = mine.sum(1).exp(), of.log.logprobs.exp()
    found = log.evidence(mine, choices_of(of, policy, slates, 1))
    assert found.lacking == {} == found.doubts
    evidence = dataclasses.replace(of_decisions(p / theirs, each.sum(1)), slates=found.slates)
    value = float(p @ each.sum(1))
    for name in ("sips", "iips", "rips", "pi"):
        estimator = ESTIMATORS[name]
        assert float(theirs @ estimator.score(evidence)) == pytest.approx(value, abs=1e-10), name
        assert estimator.weights is not None
        assert float(theirs @ estimator.weights(evidence)) == pytest.approx(1.0, abs=1e-10), name
    # The weights of the places as they were logged, given those above, are other numbers: not iips.
    assert of.log.place_logprobs is not None
    wrong = ((mine - of.log.place_logprobs).exp() * each).sum(1)
    assert abs(float(theirs @ wrong) - value) > 1e-3


def test_drawn_slates_of_a_known_logger_come_near_the_exact_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = Tilted()
    of = slate_log(logger)
    exact = choices_of(of, logger, possible_slates(of), 1)
    assert exact.draws == 0
    drawn = choices_of(of, logger, None, 3000, logged=True).marginals
    assert torch.allclose(drawn, exact.marginals, atol=0.03)
    once = choices_of(of, logger, None, 1, logged=True).marginals.diagonal(dim1=1, dim2=2)
    assert bool((once > 0).all())  # the logged slate counts, too
    log = SlateLog(of, None, lambda _: choices_of(of, logger, None, 5, logged=True))
    monkeypatch.setattr(choices_module, "MOST", 11)
    reasons = log.lacking(None, choices_of(of, logger, None, 5))
    assert "too many slates" in reasons[ADDITIVE] and "not a sum" in reasons[PLACE_REWARDS]


class Listed:
    """Shows the items 2 and 0."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action.certain(torch.tensor([2, 0]).expand(obs.num_rows, -1))


def test_choices_of_random_of_fixed_policies_and_of_their_mixtures_need_no_draws() -> None:
    of, rng = slate_log(Tilted()), torch.Generator().manual_seed(0)
    random, fixed = RandomPolicy((4,), rng, 2), Fixed(Listed())
    slates = possible_slates(of)
    for policy in (random, fixed, EpsilonMixture(fixed, random, 0.1, rng)):
        expected = choices_of(of, policy, slates, 1)
        by_parts = slate_choices(of, policy, slates, 1, logged=True)
        found = slate_choices(of, policy, None, 1, logged=True)
        assert found.draws == 0 and found.every is None
        assert torch.allclose(found.marginals, expected.marginals, atol=1e-12)
        assert expected.every is not None and by_parts.every is not None
        assert torch.allclose(by_parts.every, expected.every, atol=1e-12)


def test_weights_by_a_logger_of_drawn_slates_are_doubted() -> None:
    logger = Tilted()
    of, rng = slate_log(logger), torch.Generator().manual_seed(0)
    assert uniform_choices(of) is None
    mixture = EpsilonMixture(logger, RandomPolicy((4,), rng, 2), 0.1, rng)
    each, slates = of.log.signals[..., 0].double(), possible_slates(of)

    def warnings(logging: Choices) -> dict[str, str]:
        found = SlateLog(of, each, lambda _: logging).evidence(None, choices_of(of, logger, slates, 1))
        evidence = dataclasses.replace(
            of_decisions(torch.ones(12).double(), each.sum(1)), slates=found.slates
        )
        rows = score("a", evidence, of.users, knowledge=Knowledge(doubts=found.doubts)).rows
        return {row.estimator: row.warning for row in rows}

    exact = choices_of(of, logger, slates, 1)
    for policy in (logger, mixture):
        drawn = slate_choices(of, policy, None, 7, logged=True)
        found = warnings(dataclasses.replace(drawn, every=exact.every))
        assert "a mean over 7 drawn slates" in found["iips"] and "drawn slates" not in found["sips"]
    assert "drawn slates" not in warnings(exact)["iips"]


def test_unknown_logger_of_slates_is_a_reason() -> None:
    log = SlateLog(slate_log(Tilted()), None, lambda _: None, unknown=", and that is all")
    assert log.lacking(None, None)[ALONE].endswith("are not uniform, and that is all")


def test_slates_that_the_logger_never_shows_leave_pi_out() -> None:
    """The logger always shows (0, 1), and the policy any slate."""
    of = slate_log(Tilted())
    slates = possible_slates(of)
    never = torch.tensor([1.0] + 11 * [0.0], dtype=F64).expand(12, -1)
    alone = torch.ones(12, 2, 2, dtype=F64)
    log = SlateLog(of, None, lambda _: Choices(alone, never))
    found = log.evidence(None, choices_of(of, Tilted(), slates, 1))
    assert found.slates.additive is None and "never does" in found.lacking[ADDITIVE]

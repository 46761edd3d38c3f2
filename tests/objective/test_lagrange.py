"""Limits on streams: the controller by hand, and a constrained MDP whose optimum is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.experience.on_policy import OnPolicy
from recsys_rl.objective.lagrange import Limit, Limits, check_limits, parse_limits
from recsys_rl.objective.limit_streams import LimitStream, limit_streams
from recsys_rl.objective.weighted import Weighted
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.types import Interface, Obs, Rollout, Step, Stream, UserError, empty_world
from tests.proofs import Proof
from tests.small_runs import settings, toy_agent

TWO = (Stream("watch"), Stream("cost", 0.0))


def rollout(cost: Tensor, reward: Tensor, terminated: Tensor | None = None) -> Rollout:
    none = torch.zeros_like(reward)
    ended = none > 0 if terminated is None else terminated
    streams = torch.stack([reward, cost], -1)
    items = none.long().unsqueeze(-1)
    return Rollout(Obs(none), items, none, none, none, reward, streams, ended, ended & False)


def limits(*texts: str, num_updates: int = 1, **settings: Any) -> Limits:
    config, streams = TrainConfig(**settings), limit_streams(empty_world().catalogue, TWO)
    return Limits(parse_limits(texts), streams, config, num_updates)


def test_rewards_and_multiplier_by_hand() -> None:
    """Two steps of two users cost 1, 0, 1, 1, and the bound is 1/2: e = 1/4, w = 1/2, e / w = 1/2."""
    objective = limits("cost<=0.5", limit_kp=2.0, limit_ki=0.5)
    cost, reward = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    found, numbers = objective.apply(rollout(cost, reward))
    # I = 0.5 * 0.5 = 0.25, p = 2 * 0.5 + 0.25 = 1.25; the rewards have the deviation 2: m = 2 / 0.5 * 1.25
    assert numbers == {"limit_cost": 0.75, "multiplier_cost_max": 5.0, "limits_met": 0.0}
    torch.testing.assert_close(found.rewards, (reward - 5 * (cost - 0.5)) / 2.25)
    _, numbers = objective.apply(rollout(cost, reward))
    assert objective.integral == [0.5] and numbers["multiplier_cost_max"] == 6.0  # 4 (1 + 0.5)
    # Three cost nothing: e / w = -1/2, I = 0.25, p = max(-1 + 0.25, 0). The variance is 4 + 0.1 (324 - 4).
    free = rollout(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), reward * 9)
    found, numbers = objective.apply(free)
    assert numbers["multiplier_cost_max"] == 0.0 and objective.integral == [0.25]
    assert objective.unit == pytest.approx(6.0)
    torch.testing.assert_close(found.rewards, reward * 9)


@pytest.mark.parametrize(("of_reward", "of_stream"), [(10.0, 1.0), (1.0, 10.0), (1e-3, 1e3)])
def test_learning_does_not_depend_on_the_units_of_reward_and_stream(
    of_reward: float, of_stream: float
) -> None:
    cost, reward = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    plain, other = limits("cost<=0.1"), limits(f"cost<={0.1 * of_stream}")
    for number in range(3):
        found, numbers = plain.apply(rollout(cost[number], reward[number]))
        again, others = other.apply(rollout(cost[number] * of_stream, reward[number] * of_reward))
        torch.testing.assert_close(again.rewards, found.rewards * of_reward)
        price = numbers["multiplier_cost_max"] * of_reward / of_stream
        assert others["multiplier_cost_max"] == pytest.approx(price, rel=1e-5) and price > 0


def test_integral_gain_is_of_the_whole_run() -> None:
    objective = limits("cost<=0", num_updates=50, limit_kp=0.0, limit_ki=20.0)
    one = rollout(torch.ones(1, 2), torch.tensor([[0.0, 2.0]]))  # e / w = 1
    for _ in range(50):
        objective.apply(one)
    assert objective.integral == [pytest.approx(20.0)]


def test_lower_limit_pays_for_its_stream() -> None:
    """The mean of 0 and 2 lies 1 below the bound, and w = sqrt((4 + 0) / 2)."""
    objective = limits("watch>=2", limit_kp=1.0, limit_ki=0.0)
    reward = torch.tensor([[0.0, 2.0]])
    found, numbers = objective.apply(rollout(torch.zeros(1, 2), reward))
    assert numbers["multiplier_watch_min"] == pytest.approx(0.5)  # 1 / sqrt(2) of 1 / sqrt(2)
    torch.testing.assert_close(found.rewards, (reward + 0.5 * (reward - 2.0)) / (1 + 0.5**0.5))


def test_multiplier_is_bounded_and_does_not_wind_up() -> None:
    objective = limits("cost<=0", limit_kp=0.0, limit_ki=1.0, limit_most=3.0)
    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    for _ in range(10):
        objective.apply(rollout(one, one))
    assert objective.multiplier == [3.0] and "no policy of this run met it" in objective.verdict()
    objective = limits("cost<=0.5", limit_kp=0.0, limit_ki=1.0, limit_most=3.0)
    for _ in range(10):
        objective.apply(rollout(one, one))
    for _ in range(3):  # e / w = -1: no longer, however long the limit was violated before
        objective.apply(rollout(none, one))
    assert objective.multiplier == [0.0]


def test_steps_that_are_all_at_the_bound_leave_the_integral_alone() -> None:
    """They meet the limit, so the part in proportion to the violation of an earlier rollout goes."""
    objective = limits("cost<=0", limit_kp=1.0, limit_ki=0.25)
    objective.apply(rollout(torch.ones(1, 2), torch.tensor([[0.0, 2.0]])))
    _, numbers = objective.apply(rollout(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]])))
    assert objective.integral == [0.25] and numbers["multiplier_cost_max"] == 0.25  # sigma / w = 1
    assert numbers["limit_cost"] == 0.0


def test_error_of_slates_of_which_few_places_count() -> None:
    """One place in four counts at each step, and it is in the stream: with the bound 0, e / w = sqrt(4)."""
    objective = limits("cost<=0", limit_kp=1.0, limit_ki=0.0)
    quarter = torch.full((2, 3), 0.25)
    share = LimitStream("cost", "a share", lambda x: x.streams[..., 1], lambda x: quarter)
    objective.streams = [share]
    objective.apply(rollout(quarter, torch.rand(2, 3)))
    assert objective.price == [pytest.approx(2.0)]


def test_price_stays_if_rounding_alone_violates_the_limit() -> None:
    objective = limits("cost<=0", limit_kp=1.0, limit_ki=0.25)
    objective.apply(rollout(torch.ones(1, 2), torch.tensor([[0.0, 2.0]])))
    objective._move(0, 1e-12, 0.0)
    assert objective.price == [1.25]


def test_a_multiplier_from_before_rewards_differ_is_in_their_deviation_later() -> None:
    """No session ends in the second rollout: the price stays, and its state can be read."""
    settings: dict[str, Any] = {"limit_kp": 0.0, "limit_ki": 8.0, "limit_most": 2.0}
    objective = limits("early_end<=0.5", **settings)
    one, ended = torch.ones(1, 2), torch.tensor([[True, False]])
    assert objective.apply(rollout(one, one, ended))[1]["multiplier_early_end_max"] == 4.0  # w = 1/2
    numbers = objective.apply(rollout(one, torch.tensor([[0.0, 0.5]])))[1]
    assert objective.unit == 0.25 and numbers["multiplier_early_end_max"] == 1.0
    again = limits("early_end<=0.5", **settings)
    again.load_state_dict(objective.state_dict())
    assert again.multiplier == [1.0] and again.unit == 0.25


def test_sessions_that_end_early_are_a_share_of_those_that_end() -> None:
    """Without an end the multiplier stays; the charge falls on the step of the end alone."""
    objective = limits("early_end<=0.5", limit_kp=1.0, limit_ki=0.0)
    one = torch.ones(2, 2)
    found, numbers = objective.apply(rollout(one, one))
    assert numbers["multiplier_early_end_max"] == 0.0 and torch.equal(found.rewards, one)
    assert "no session has ended" in objective.verdict()
    found, numbers = objective.apply(rollout(one, one, torch.tensor([[False, True], [False, False]])))
    # e = 1/2 and w = 1/2: p = 1, and u = 2, as rewards do not differ
    assert numbers["limit_early_end"] == 1.0 and numbers["multiplier_early_end_max"] == 2.0
    torch.testing.assert_close(found.rewards, torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2)
    assert "is not met" in objective.verdict()
    # One of the three who leave does so before the last step: 1/3, and only they are charged.
    left = torch.tensor([[False, True], [True, True]])
    early = replace(rollout(one, one, left), left_early=torch.tensor([[False, True], [False, False]]))
    objective = limits("early_end<=0.25", limit_kp=1.0, limit_ki=0.0)
    found, numbers = objective.apply(early)
    assert numbers["limit_early_end"] == pytest.approx(1 / 3)
    assert torch.equal(found.rewards < found.rewards.max(), torch.tensor([[False, True], [False, False]]))


def test_verdict_has_the_value_and_the_price_of_a_limit_that_is_met() -> None:
    objective = limits("cost<=0.5")
    objective.apply(rollout(torch.full((1, 2), 0.25), torch.ones(1, 2)))
    assert objective.verdict() == "The limit cost<=0.5 is met: at the end cost is 0.25 with the multiplier 0."


def test_state_goes_on_bit_for_bit() -> None:
    """Also before a stream has a value."""
    cost = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    whole, pieces = (limits("cost<=0.1", "early_end<=0.2") for _ in range(2))
    for number in range(4):
        again = limits("cost<=0.1", "early_end<=0.2")
        again.load_state_dict(pieces.state_dict())
        pieces = again
        for objective in (whole, pieces):
            objective.apply(rollout(cost * number, cost, cost > 0.9 if number == 2 else None))
        assert repr(whole.state_dict()) == repr(pieces.state_dict())
    with pytest.raises(ValueError, match="other limits"):
        limits("cost<=0.1").load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match="range"):
        whole.load_state_dict({**whole.state_dict(), "limit_integral": torch.tensor([-1.0, 0.0])})
    with pytest.raises(ValueError, match="deviations"):
        whole.load_state_dict({**whole.state_dict(), "limit_deviation": torch.tensor([0.0, 1.0])})


def test_limits_as_they_are_typed() -> None:
    assert parse_limits(["ads<=0.1", " watch >= -2e-1 "]) == (
        Limit("ads", "<=", 0.1),
        Limit("watch", ">=", -0.2),
    )
    assert parse_limits(["ads>=0.1", "ads<=0.1"])  # exactly the bound


@pytest.mark.parametrize(
    "texts",
    [
        ["ads"],
        ["ads=0.1"],
        ["ads<=many"],
        ["ads<=nan"],
        ["<=0.1"],
        ["ads<=0.1", "ads<=0.1"],
        ["ads<=0.1", "ads<=0.2"],
        ["ads<=0.1", "ads>=0.2"],
    ],
)
def test_impossible_texts(texts: list[str]) -> None:
    with pytest.raises(UserError):
        parse_limits(texts)


@pytest.mark.parametrize(
    "text",
    [
        "clicks<=1",
        "early_end<=-0.1",
        "early_end>=1.5",
    ],
)
def test_limits_that_nothing_can_meet(text: str) -> None:
    with pytest.raises(UserError):
        check_limits(parse_limits([text]), limit_streams(empty_world().catalogue, TWO))


class Tired:
    """Users who are fresh (state 0) or tired (state 1), and two actions: a post (0) and an ad (1).

    Fresh users pay AD for an ad and POST for a post; tired ones pay REST for a post and nothing for an ad. An
    ad makes them tired, a post fresh.
    """

    streams, signals = (Stream("reward"), Stream("ad", 0.0)), ()
    AD, POST, REST = 1.0, 0.4, 0.2

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.interface = Interface((("tired", 2),), (2,))
        self.tired = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, users: Tensor | None = None) -> Obs:
        self.tired = torch.zeros(self.num_envs, dtype=torch.int64)
        return self.observe()

    def observe(self) -> Obs:
        return Obs(torch.nn.functional.one_hot(self.tired, 2).float())

    def step(self, items: Tensor) -> Step:
        ad = items[:, 0]
        pay = torch.tensor([[self.POST, self.AD], [self.REST, 0.0]])[self.tired, ad]
        self.tired = ad
        obs, never = self.observe(), torch.zeros(self.num_envs, dtype=torch.bool)
        return Step(obs, obs, pay, never, never, torch.stack([pay, ad.float()], 1))

    def state_dict(self) -> dict[str, Tensor]:
        return {"tired": self.tired}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.tired = state["tired"]

    def statistics(self) -> dict[str, Tensor]:
        return {}

    def load_statistics(self, state: Mapping[str, Tensor]) -> None: ...

    def close(self) -> None: ...


@pytest.mark.learning
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_constrained_mdp_with_a_known_optimum(algo: str, proof: Proof) -> None:
    """At most one ad in five steps: return 0.48 and multiplier 0.42, found with the gains as they are.

    Without the limit it is best to alternate: (1 + 0.2) / 2 = 0.6 a step with half of the steps an ad. With
    it a fresh user gets an ad with probability p, so a share p / (1 + p) = 1/5 of the steps is an ad: p =
    1/4, and the return is (AD + REST) / 5 + POST 3/5 = 0.48. A policy that draws is optimal only where both
    actions are worth the same: AD - m + g REST = POST + g POST, as both lead to a fresh user after two steps.
    With g = 0.9 that is m = 1 + 0.18 - 0.76 = 0.42.
    """
    gamma, bound, num_updates, lr = (0.9, 0.2, 400, 0.005) if algo == "ppo" else (0.9, 0.2, 800, 0.01)
    agent_config: dict[str, Any] = {"gamma": gamma, "gae_lambda": 1.0, "ent_coef": 0.0, "lr": lr}
    agent_config |= {"n_steps": 16, "num_envs": 64, "anneal_lr": False}
    agent_config |= {"batch_size": 256, "update_epochs": 2} if algo == "ppo" else {}
    model = {"head": "dense", "hidden_dims": [8]}
    config = settings(algo, "gym:Tired", agent_config=agent_config, model_config=model)
    env = Tired(64)
    env.reset()
    learner = toy_agent(config, env, num_updates)
    streams = limit_streams(empty_world().catalogue, env.streams)
    objective = Limits(parse_limits([f"ad<={bound}"]), streams, TrainConfig(), num_updates)
    experience = OnPolicy(env, learner, 16, [Weighted(env.streams, {}), objective])
    latest = []  # rewards, ads and multipliers of the second half
    for number in range(num_updates):
        batch = experience.batch()
        assert isinstance(batch.data, Rollout)
        learner.update(batch.data)
        if number >= num_updates // 2:
            latest.append([batch.metrics[name] for name in ("reward_mean", "limit_ad", "multiplier_ad_max")])
    value, ads, multiplier = torch.tensor(latest).mean(0).tolist()
    proof(abs(value / 0.48 - 1), below=0.02, what="return")
    proof(abs(ads / bound - 1), below=0.05, what="ads")
    # A2C's critic, with one gradient step for each rollout, holds V(fresh) - V(tired) for too small
    proof(abs(multiplier / 0.42 - 1), below=0.02 if algo == "ppo" else 0.03, what="multiplier")

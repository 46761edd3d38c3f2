"""Slates learned by place: losses by hand, and gradients by all slates of four items."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.bc import CAP
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.make import make_agent
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, Obs, Transitions, empty_world
from recsys_rl.utils.seeding import generators
from tests.small_runs import CPU

EVERY = torch.tensor(list(permutations(range(4), 3)))  # (24, 3)
UNIFORM = torch.tensor([1 / 4, 1 / 3, 1 / 2]).double().log().expand(24, 3)
LIKED = torch.tensor([0.2, 0.9, 0.4, 0.6]).double()


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learner(algo: str, **changes: Any) -> Any:
    config = Config(algo=algo, head="dense", hidden_dims=(8,), max_grad_norm=1e9, **changes)
    interface = Interface((("state", 1),), (4,), slate_size=3)
    streams = generators(0, "model", "policy", "shuffle")
    return make_agent(config, interface, empty_world().catalogue, 400, streams, CPU)


def slates(items: Tensor, logprobs: Tensor, rewards: Tensor, later: float = 0.0) -> Transitions:
    """Decisions in one state with the reward of each place (B, 3); ``later`` is the return that follows."""
    number = len(items)
    obs, whole = Obs(torch.ones(number, 1)), rewards.sum(1)
    ends = torch.ones(number, dtype=torch.bool)
    return Transitions(
        obs=obs,
        items=items,
        logprobs=logprobs.sum(1),
        rewards=whole,
        next_obs=obs,
        terminated=ends,
        truncated=~ends,
        returns_to_go=whole + later,
        steps=torch.zeros(number, dtype=torch.int64),
        place_logprobs=logprobs,
        place_rewards=rewards,
    )


def cascade(items: Tensor) -> Tensor:
    """(B, 3): the user likes each item a third less for each like above it: places depend on those above."""
    liked = LIKED[items]
    return liked * (1 - (liked.cumsum(1) - liked) / 3)


def logits_of(agent: Any) -> Tensor:
    return agent.model(Obs(torch.ones(1, 1)))[0].logits[0].detach()  # type: ignore[no-any-return]


def terms_of(logits: Tensor, items: Tensor) -> Tensor:
    """(B, 3): log pi of each place given those above, place by place."""
    columns, left = [], torch.zeros(len(items), 4)
    for column in items.unbind(1):
        columns.append((logits + left).log_softmax(1).gather(1, column.unsqueeze(1)))
        left = left.scatter(1, column.unsqueeze(1), -torch.inf)
    return torch.cat(columns, 1)


def test_terms_have_the_gradient_of_each_place() -> None:
    logits = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    factors = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found, expected = PlackettLuce(ours, 3).terms(EVERY), terms_of(theirs, EVERY)
    assert_close(found, expected)
    (found * factors).sum().backward()
    (expected * factors).sum().backward()
    assert_close(ours.grad, theirs.grad)
    whole = torch.tensor([[2, 0, 3, 1]])
    both = torch.autograd.functional.jacobian(
        lambda x: PlackettLuce(x, 4).terms(whole), torch.tensor([[3.0, -1.0, 0.5, 0.0]])
    )
    assert_close(both[0, 3], torch.zeros(1, 4))  # the last place of all items has no choice left


def test_loss_of_a_weighted_clone_by_hand() -> None:
    """Two slates; the rare item at place 2 of the second is capped, and 0.5 follows each slate."""
    agent = learner("bc", weighted=True)
    items, rewards = torch.tensor([[0, 1, 2], [3, 2, 0]]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    chances = torch.tensor([[0.5, 0.25, 0.125], [0.2, 0.001, 0.5]])
    logp = terms_of(logits_of(agent).unsqueeze(0), items)
    weights = [[1.5 / 0.5, 0.5 / 0.25, 2.5 / 0.125], [0.5 / 0.2, 3.5 * CAP, 1.5 / 0.5]]
    expected = -(torch.tensor(weights) * logp).sum() / 2
    found = agent.update(slates(items, chances.log(), rewards, later=0.5))
    assert found["loss"] == pytest.approx(float(expected))


def test_a_weighted_clone_draws_each_place_by_what_items_are_liked() -> None:
    """The logger is uniform, and users look at places 2 and 3 less often, whatever stands above."""
    agent = learner("bc", weighted=True, lr=0.05, batch_size=24)
    batch = slates(EVERY, UNIFORM, LIKED[EVERY] * torch.tensor([1.0, 0.5, 0.25]))
    for _ in range(400):
        agent.update(batch)
    logits = logits_of(agent)
    assert_close(logits.softmax(0), LIKED / LIKED.sum(), atol=2e-3, rtol=0)
    drawn = agent.place_logprobs(Obs(torch.ones(24, 1)), EVERY)
    chance = 0.08 / (1 + 1 / 2 + 1 / 3)
    steps = torch.zeros(4)
    steps[logits.argsort(descending=True)] = math.log(chance) / 3 * torch.arange(4)  # by their order
    assert_close(drawn, terms_of(steps.unsqueeze(0), EVERY).double())
    assert agent.model.chance == 0.0
    agent.keep_chance()
    assert agent.model.chance == pytest.approx(chance)
    with_chance, state = agent.place_logprobs(Obs(torch.ones(24, 1)), EVERY), agent.state_dict()
    assert float((with_chance[:, 0] - drawn[:, 0]).abs().max()) > 0.01
    agent.model.chance, agent.model.draw_ratio = 0.0, 1.0
    agent.load_state_dict(state)
    assert_close(agent.place_logprobs(Obs(torch.ones(24, 1)), EVERY), with_chance)
    with pytest.raises(ValueError, match="a ratio"):
        agent.load_state_dict({**state, "draw_ratio": torch.tensor(0.5)})


def test_a_clone_without_weights_takes_no_notice_of_rewards() -> None:
    agent, items = learner("bc"), EVERY[:5]
    logp = terms_of(logits_of(agent).unsqueeze(0), items).sum(1)
    found = agent.update(slates(items, UNIFORM[:5], cascade(items)))
    assert found["loss"] == pytest.approx(-float(logp.mean()))


def rewards_to_go(above: tuple[int, ...], item: int) -> float:
    """The mean of what this place and those below it bring, where a uniform logger fills the rest."""
    begins = (EVERY[:, : len(above) + 1] == torch.tensor([*above, item])).all(1)
    return float(cascade(EVERY[begins])[:, len(above) :].sum(1).mean())


def changed_at_a_place(logits: Tensor) -> Tensor:
    """What is earned if the policy fills one place below the logger's, and the logger all others: a sum."""
    total = torch.zeros(())
    for size in range(3):
        prefixes = list(permutations(range(4), size))
        for above in prefixes:
            left = [item for item in range(4) if item not in above]
            chances = logits[left].softmax(0)
            earned = torch.tensor([rewards_to_go(above, item) for item in left])
            total = total + (chances * earned).sum() / len(prefixes)
    return total


def earned_by(logits: Tensor) -> Tensor:
    """The mean reward of the policy's own slates."""
    return (terms_of(logits.unsqueeze(0), EVERY).sum(1).exp() * cascade(EVERY).sum(1)).sum()


@pytest.mark.parametrize("as_logger", [False, True])
def test_the_mean_gradient_of_reinforce_over_all_slates(as_logger: bool) -> None:
    """It is that of ``changed_at_a_place``; where the policy is the logger, of what the policy earns."""
    agent = learner("reinforce", kl_coef=0.0, vf_coef=0.0, batch_size=24, weight_cap=1e9)
    if as_logger:
        with torch.no_grad():
            agent.model.head.last.weight.zero_()
            agent.model.head.last.bias.zero_()
    obs, parameters = Obs(torch.ones(1, 1)), list(agent.model.parameters())
    distribution, value = agent.model(obs)
    objective = (earned_by if as_logger else changed_at_a_place)(distribution.logits[0])
    expected = torch.autograd.grad(objective, parameters, allow_unused=True)
    rewards = cascade(EVERY)
    above = rewards.cumsum(1) - rewards
    advantage = (rewards.sum(1, keepdim=True) - above) - (value.detach() - above.mean(0))
    scale = math.sqrt(float(advantage.square().mean()))
    agent.update(slates(EVERY, UNIFORM, rewards))
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is not None:
            assert parameter.grad is not None
            assert_close(-scale * parameter.grad, gradient, atol=1e-8, rtol=1e-6)


def test_weights_of_places_are_capped() -> None:
    """pi / mu is 2 at each place: above the cap, so the policy loss is 1.5 times that of weights 1."""
    agent = learner("reinforce", kl_coef=0.0, weight_cap=1.5, batch_size=24)
    terms = terms_of(logits_of(agent).unsqueeze(0), EVERY)
    rewards = cascade(EVERY)
    above = rewards.cumsum(1) - rewards
    value = agent.value(Obs(torch.ones(1, 1)))
    advantage = (rewards.sum(1, keepdim=True) - above) - (value - above.mean(0))
    advantage = advantage / advantage.square().mean().sqrt()
    found = agent.update(slates(EVERY, terms - math.log(2), rewards))
    assert found["policy_loss"] == pytest.approx(-1.5 * float((terms * advantage).sum(1).mean()))
    assert found["capped_share"] == 1.0 and found["weight_mean"] == pytest.approx(2.0)

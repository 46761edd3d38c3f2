"""The direct method: its loss, its temperature, and the weights that it keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from recsys_rl.errors import UserError
from recsys_rl.make import make_agent
from recsys_rl.types import Interface, Obs
from recsys_rl.utils.seeding import generators
from tests.agents.offline_toys import learner, one_step
from tests.small_runs import CPU, settings, world

HERE = Obs(torch.ones(1, 1))


def test_loss_of_scores_by_hand() -> None:
    """Rewards -1, 1 and 3 are shares 0, 1/2 and 1 of the way from -1 to 3."""
    agent = learner("direct", 3)
    batch = one_step([0, 1, 2], [-1.0, 1.0, 3.0])
    agent.update(batch)
    assert agent.model.span.tolist() == [-1.0, 3.0]
    with torch.no_grad():
        z = agent.model.logits(HERE)[0].double()
        p = 1 / (1 + (-z).exp())
        terms = [-math.log(1 - p[0]), -0.5 * math.log(p[1] * (1 - p[1])), -math.log(p[2])]
        assert float(agent.loss(batch)) == pytest.approx(sum(terms) / 3, rel=1e-5)
        assert torch.allclose(agent.model.q(HERE)[0].double(), -1 + 4 * p, atol=1e-5)


def test_expected_rewards_are_the_means_of_the_log() -> None:
    """Means .5, 0 and -.25 of rewards between -1 and 1, whatever the logger preferred."""
    rewards = [1.0, 1.0, -1.0, 1.0] + [1.0, -1.0] * 4 + [-1.0, 0.0, 1.0, -1.0]
    arms = [0] * 4 + [1] * 8 + [2] * 4
    agent = learner("direct", 3, num_updates=400, lr=0.02)
    for _ in range(400):
        agent.update(one_step(arms, rewards))
    with torch.no_grad():
        beta = agent.model.q(HERE)[0]
    assert torch.allclose(beta, torch.tensor([0.5, 0.0, -0.25]), atol=0.02)
    assert int(agent.act(HERE, greedy=True).items) == 0
    assert float(agent.value(HERE)) == pytest.approx(0.5, abs=0.02)


def test_temperature_keeps_the_share_of_what_the_best_item_adds() -> None:
    """With two items, uniform draws get the middle: 99 % of the way is p - 1/2 = .495."""
    agent = learner("direct", 2, num_updates=300, lr=0.02)
    for _ in range(300):
        agent.update(one_step([0] * 10 + [1] * 10, [1.0] * 8 + [0.0] * 2 + [1.0] * 3 + [0.0] * 7))
    with torch.no_grad():
        beta = agent.model.q(HERE)[0]
        expected = float(beta[0] - beta[1]) / math.log(0.995 / 0.005)
    assert float(agent.model.softness) == pytest.approx(expected, rel=0.003)
    assert float(agent.item_probabilities(HERE, 2)[0, 0]) == pytest.approx(0.995, abs=1e-4)


def test_the_average_with_the_lowest_loss_is_kept() -> None:
    """The held-back decisions say the opposite of the log, so the first average is the best one."""
    log, opposite = one_step([0, 1] * 8, [1.0, 0.0] * 8), one_step([0, 1], [0.0, 1.0])
    agent = learner("direct", 2, num_updates=6, lr=0.05, gradient_steps=20)
    agent.validate_on(opposite)
    losses, averages = [], []
    for _ in range(6):
        losses.append(agent.update(log)["held_back_loss"])
        averages.append(agent.mean.clone())
    assert losses == sorted(losses) and losses[0] < losses[-1] - 0.01
    assert torch.equal(agent.optimizer.weights, averages[0])
    assert float(agent.loss(opposite).detach()) == pytest.approx(losses[0], rel=1e-5)


def test_average_of_the_weights_by_hand() -> None:
    agent = learner("direct", 2, num_updates=5, batch_size=2)
    first = agent.optimizer.weights.clone()
    agent.validate_on(one_step([0], [1.0]))
    agent.update(one_step([0, 1], [1.0, 0.0]))
    expected = 0.99 * first.double() + 0.01 * agent.optimizer.weights.double()
    assert torch.allclose(agent.mean.double(), expected, atol=1e-7)


def test_state_of_a_run_and_of_a_start_from_its_weights() -> None:
    log = one_step([0, 1] * 8, [1.0, 0.0] * 8)
    agents: list[Any] = [learner("direct", 2, num_updates=4) for _ in range(3)]
    agents[0].validate_on(log)
    for _ in range(2):
        agents[0].update(log)
    state = agents[0].state_dict()
    agents[1].load_state_dict(state)
    assert agents[1].least_loss == pytest.approx(agents[0].least_loss)
    assert torch.equal(agents[1].best, agents[0].best) and torch.equal(agents[1].mean, agents[0].mean)
    agents[2].load_state_dict(state | {"updates": torch.tensor(0)})
    assert agents[2].least_loss == math.inf and torch.equal(agents[2].best, agents[0].optimizer.weights)


def test_a_process_that_holds_nobody_back_has_the_loss_of_the_others() -> None:
    """Sums of losses and of decisions are averaged over all processes, whether or not one has any."""
    log = one_step([0, 1] * 8, [1.0, 0.0] * 8)
    alone, beside, without = (learner("direct", 2, num_updates=4) for _ in range(3))
    alone.validate_on(log)
    beside.validate_on(log)
    beside.average = lambda mine: mine.mul_(0.5)  # the other process adds nothing, and there are two
    without.average = lambda mine: mine.copy_(torch.tensor([6.0, 8.0])) if mine.ndim else mine
    expected = alone.update(log)["held_back_loss"]
    assert beside.update(log)["held_back_loss"] == pytest.approx(expected, rel=1e-6)
    assert without.update(log)["held_back_loss"] == 0.75 == without.least_loss


def test_slates_are_refused() -> None:
    config = settings("direct", "satiation", env_config={"num_items": 20, "embedding_dim": 4})
    slates = Interface((("profile", 4),), (20, 20))
    streams = generators(0, "model", "policy", "shuffle")
    with pytest.raises(UserError, match="one item at a time"):
        make_agent(config, slates, world(config).catalogue, 1, streams, CPU)

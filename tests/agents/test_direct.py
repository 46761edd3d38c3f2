"""The direct method: its loss, its temperature, and the weights that it keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.agents import direct
from recsys_rl.agents.direct import evidence, spread
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
    agent.learn_from(10**9, opposite)  # so many that the prior has no weight
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
    agent.learn_from(16, one_step([0], [1.0]))
    agent.update(one_step([0, 1], [1.0, 0.0]))
    expected = 0.99 * first.double() + 0.01 * agent.optimizer.weights.double()
    assert torch.allclose(agent.mean.double(), expected, atol=1e-7)


def test_state_of_a_run_and_of_a_start_from_its_weights() -> None:
    log = one_step([0, 1] * 8, [1.0, 0.0] * 8)
    agents: list[Any] = [learner("direct", 2, num_updates=4) for _ in range(3)]
    agents[0].learn_from(16, log)
    for _ in range(2):
        agents[0].update(log)
    state = agents[0].state_dict()
    agents[1].load_state_dict(state)
    assert agents[1].least_loss == pytest.approx(agents[0].least_loss)
    assert torch.equal(agents[1].best, agents[0].best) and torch.equal(agents[1].mean, agents[0].mean)
    assert agents[1].precision == agents[0].precision > 0
    agents[2].precision = 3.0
    agents[2].load_state_dict(state | {"updates": torch.tensor(0)})
    assert agents[2].precision == 0 and agents[2].least_loss == math.inf
    assert torch.equal(agents[2].best, agents[0].optimizer.weights)
    agents[1].learn_from(16, log)
    assert agents[0].update(log) == agents[1].update(log) and agents[0].precision == agents[1].precision
    assert torch.equal(agents[0].optimizer.weights, agents[1].optimizer.weights)


def test_a_process_that_holds_nobody_back_has_the_loss_of_the_others() -> None:
    """Sums of losses and of decisions are averaged over all processes, whether or not one has any."""
    log = one_step([0, 1] * 8, [1.0, 0.0] * 8)
    alone, beside, without = (learner("direct", 2, num_updates=4) for _ in range(3))
    alone.learn_from(16, log)
    beside.learn_from(16, log)
    beside.average = lambda mine: mine.mul_(0.5)  # the other process adds nothing, and there are two
    without.average = lambda mine: mine.copy_(torch.tensor([6.0, 8.0])) if mine.shape == (2,) else mine
    expected = alone.update(log)["held_back_loss"]
    assert beside.update(log)["held_back_loss"] == pytest.approx(expected, rel=1e-6)
    assert without.update(log)["held_back_loss"] == 0.75 == without.least_loss


@pytest.mark.parametrize(
    ("square", "information", "directions", "precision"),
    [
        (2.0, [1.0], 4.0, 1.0),
        (0.5, [4.0, 4.0], 4.0, 4.0),
        (2.0, [2.0] * 3, 3.0, 1.0),
        (2.0, [math.inf], 3.0, 1.5),
        (1.0, [0.0, 0.0], 1.0, 0.0),
        (1.0, [1.0, 3.0], 1.6, 1.0),  # (1/2 + 3/4) / 2 of 1.6
        (1.0, [2.0, 0.0], 3.0, 1.0),  # an item that is never shown tells nothing
    ],
)
def test_the_precision_solves_its_equation(
    square: float, information: list[float], directions: float, precision: float
) -> None:
    """c = d / v  mean a_i / (a_i + c); with infinitely many decisions d / v, without any knowledge 0."""
    assert evidence(square, torch.tensor(information), directions) == pytest.approx(precision, abs=1e-9)


def most_probable(n: Tensor, k: Tensor) -> float:
    """The precision with the largest marginal likelihood of k of n clicks, by quadrature over each score."""
    v = float((k.sum() / n.sum()).logit())
    grid = torch.linspace(-6, 6, 121, dtype=torch.float64)
    candidates = torch.logspace(-1, 2, 61, dtype=torch.float64)

    def log_likelihood(c: Tensor) -> float:
        z = grid / c.sqrt()
        log_prior = -grid.square() / 2
        p = (v + z).sigmoid()
        each = k[:, None] * p.log() + (n - k)[:, None] * (1 - p).log() + log_prior
        return float(each.logsumexp(1).sum())

    return float(max(candidates, key=log_likelihood))


def fixed_point(n: Tensor, k: Tensor) -> float:
    """The precision to which the scores of highest posterior density and ``evidence`` lead each other."""
    v, z, c = (k.sum() / n.sum()).logit(), torch.zeros_like(n), 1.0
    for _ in range(100):
        for _ in range(5):  # Newton's steps
            p = (v + z).sigmoid()
            z = z + (k - n * p - c * z) / (n * p * (1 - p) + c)
        p = (v + z).sigmoid()
        c = evidence(float(z.square().mean()), n * p * (1 - p), 1.0)
    return c


@pytest.mark.parametrize("items", [160, 2000])
@pytest.mark.parametrize("zipf", [False, True])
def test_the_precision_makes_the_log_most_probable(items: int, zipf: bool) -> None:
    """30,000 decisions with 8 % clicks, items alike or as in life; within a quarter, as it is Laplace's."""
    generator = torch.Generator().manual_seed(0)
    shares = 1 / torch.arange(1, items + 1) if zipf else torch.ones(items)
    n = (30_000 * shares / shares.sum()).round().clamp_min(1).double()
    scores = 0.6 * torch.randn(items, generator=generator).double()
    k = torch.binomial(n, (scores - 2.44).sigmoid(), generator=generator)
    assert fixed_point(n, k) == pytest.approx(most_probable(n, k), rel=0.25)


@pytest.mark.parametrize(
    ("scores", "square", "directions"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.5, 2.0),
        ([[1.0, 2.0], [2.0, 4.0]], 6.25, 1.0),
        ([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 5 / 6, 25 / 17),  # eigenvalues 4 and 1: (4 + 1)^2 / (16 + 1)
        ([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], 5 / 6, 25 / 17),
    ],
)
def test_spread_of_scores_by_hand(scores: list[list[float]], square: float, directions: float) -> None:
    found = spread(torch.tensor(scores))
    assert float(found["square"]) == pytest.approx(square)
    assert float(found["directions"]) == pytest.approx(directions)


def test_decisions_of_each_item_are_part_of_the_state() -> None:
    agent, again = learner("direct", 3, num_updates=4), learner("direct", 3, num_updates=4)
    agent.learn_from(40, None)
    agent.update(one_step([0, 0, 1, 2], [1.0, 1.0, 0.0, 1.0]))
    again.load_state_dict(agent.state_dict())
    assert again.seen.tolist() == [2.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="items"):
        again.load_state_dict(agent.state_dict() | {"optimizer.seen": torch.ones(4)})


def test_the_precision_of_an_update_by_hand() -> None:
    """One context, so one direction. Of 40 decisions the first item has 20, and the others ten each."""
    agent = learner("direct", 3, num_updates=4)
    agent.learn_from(40, None)
    with torch.no_grad():
        shown = agent.model.logits(HERE)[0].double()
        z = shown - float(agent.model.value_head(agent.model.hidden.one(1, HERE.context)))
    agent.update(one_step([0, 0, 1, 2], [1.0, 1.0, 0.0, 1.0]))
    p = shown.sigmoid()
    information = torch.tensor([20.0, 10.0, 10.0]) * p * (1 - p)
    c = agent.precision
    assert agent.seen.tolist() == [2.0, 1.0, 1.0]
    assert c > 0
    assert c * float(z.square().sum()) == pytest.approx(
        float((information / (information + c)).sum()), rel=1e-4
    )


def test_a_step_computes_the_last_layer_once() -> None:
    """The prior and the likelihood share one pass, forward and back."""
    agent = learner("direct", 3, num_updates=4, batch_size=6, gradient_steps=1)
    agent.learn_from(6, None)
    passes: list[int] = []

    def read(obs: Obs) -> tuple[None, None]:
        passes.append(obs.num_rows)
        return None, None

    agent.model._read = read
    agent.update(one_step([0, 1, 2] * 2, [1.0, 0.0, 1.0] * 2))
    assert passes == [6, 6]  # of the step, and of the temperature's contexts


def test_the_precision_is_that_of_all_processes() -> None:
    """v 2, d 4, and p (1 - p) of 1/8; with 8 decisions of each of two items a is 1, so c is 1."""
    agent = learner("direct", 2)
    agent.learn_from(16, None)
    of_all = torch.tensor([2.0, 4.0, 0.25, 0.25, 2.0, 2.0])
    agent.average = lambda mine: mine.copy_(of_all) if mine.shape == (6,) else mine
    agent.update(one_step([0, 1], [1.0, 0.0]))
    assert agent.precision == pytest.approx(1.0)


def test_the_prior_weighs_as_much_as_the_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight decisions of each item, with means 3/4 and 1/4, and precision 4: 8 (s(z) - 3/4) + 4 z = 0."""
    monkeypatch.setattr(direct, "evidence", lambda *_: 4.0)
    agent = learner("direct", 2, num_updates=10**6, lr=0.02)  # before its last update it has no average
    agent.learn_from(16, None)
    for _ in range(150):
        agent.update(one_step([0] * 8 + [1] * 8, [1.0] * 6 + [0.0] * 2 + [1.0] * 2 + [0.0] * 6))
    with torch.no_grad():
        first, second = agent.model.logits(HERE)[0].tolist()
    assert first == pytest.approx(-second, abs=0.01)
    assert 8 * (1 / (1 + math.exp(-first)) - 0.75) + 4 * first == pytest.approx(0, abs=0.03)


def test_prior_draws_the_luckiest_of_equal_items_to_the_others() -> None:
    """Of 40 items with ten decisions each and the same chance of 0.3, the luckiest has six clicks or more."""
    items = torch.arange(40).repeat_interleave(10)
    clicks = (torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    best = []
    for decisions in (10**9, 400):  # so many that the prior has no weight, and those of the log
        agent = learner("direct", 40, num_updates=10**6, batch_size=400, lr=0.05)
        agent.learn_from(decisions, None)
        for _ in range(35):
            agent.update(one_step(items.tolist(), clicks.tolist()))
        best.append(float(agent.value(HERE)))
    assert clicks.view(40, 10).mean(1).max() > 0.55 and best[0] > 0.5 and 0.25 < best[1] < 0.42


def test_slates_are_refused() -> None:
    config = settings("direct", "satiation", env_config={"num_items": 20, "embedding_dim": 4})
    slates = Interface((("profile", 4),), (20, 20))
    streams = generators(0, "model", "policy", "shuffle")
    with pytest.raises(UserError, match="one item at a time"):
        make_agent(config, slates, world(config).catalogue, 1, streams, CPU)

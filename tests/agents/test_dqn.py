"""Double Q-learning: targets by hand, masks, exploration, the bias of a maximum, and a known optimum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.agents.dqn import DQN
from recsys_rl.experience.replay import Replay
from recsys_rl.make import make_agent
from recsys_rl.settings.config import Config
from recsys_rl.types import Obs, Step, Transitions, empty_world
from recsys_rl.utils.seeding import generators
from tests.proofs import Proof
from tests.small_runs import CPU, Toy


def learner(env: Any, num_updates: int = 10, **changes: Any) -> DQN:
    config = Config(algo="dqn", env="gym:CartPole-v1", hidden_dims=(16,), **changes)
    streams = generators(0, "model", "policy", "shuffle")
    agent = make_agent(config, env.interface, empty_world().catalogue, num_updates, streams, CPU)
    assert isinstance(agent, DQN)
    return agent


def toy(length: int = 2, num_arms: int = 3) -> Toy:
    return Toy(4, length, lambda clock, arm: arm.float(), num_arms=num_arms)


def transitions(**changes: Any) -> Transitions:
    """Three transitions with reward 1, 2, 3 of three arms, of which arm 2 may not be shown next."""
    obs = Obs(torch.eye(2)[[0, 0, 1]])
    after = Obs(torch.eye(2)[[1, 1, 1]], mask=torch.tensor([[True, True, False]] * 3))
    no = torch.zeros(3, dtype=torch.bool)
    items, rewards = torch.tensor([[0], [1], [0]]), torch.tensor([1.0, 2.0, 3.0])
    known = {"terminated": no, "truncated": no} | changes
    return Transitions(obs, items, torch.zeros(3).double(), rewards, after, **known)


def fixed(monkeypatch: pytest.MonkeyPatch, network: Any, values: Tensor) -> None:
    """Let ``network.q`` be ``values`` (B, A), with -inf where the mask says so."""

    def q(obs: Obs) -> Tensor:
        return values if obs.mask is None else values.masked_fill(~obs.mask, -torch.inf)

    monkeypatch.setattr(network, "q", q)


def test_targets_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network picks arm 1 (arm 2 is larger, but forbidden), and the target network values it with 10."""
    agent = learner(toy(), gamma=0.5)
    fixed(monkeypatch, agent.model, torch.tensor([[0.0, 1.0, 9.0]] * 3))
    fixed(monkeypatch, agent.target, torch.tensor([[20.0, 10.0, 30.0]] * 3))
    assert agent.targets(transitions()).tolist() == [6, 7, 8]
    ends = torch.tensor([True, False, False])
    assert agent.targets(transitions(terminated=ends)).tolist() == [1, 7, 8]
    assert agent.targets(transitions(truncated=ends)).tolist() == [6, 7, 8]
    steps = torch.tensor([0.125, 0.25, 0.0])
    assert agent.targets(transitions(discounts=steps)).tolist() == [2.25, 4.5, 3]


def test_time_limit_that_is_real_has_no_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner(toy(), gamma=0.5, bootstrap_time_limit=False)
    fixed(monkeypatch, agent.model, torch.ones(3, 3))
    fixed(monkeypatch, agent.target, torch.ones(3, 3))
    ends = torch.tensor([True, False, False])
    assert agent.targets(transitions(truncated=ends)).tolist() == [1, 2.5, 3.5]


def test_successor_without_an_item_left_has_no_value() -> None:
    nothing = Obs(torch.eye(2)[[1, 1, 1]], mask=torch.zeros(3, 3, dtype=torch.bool))
    batch = Transitions(**{**vars(transitions()), "next_obs": nothing})
    agent = learner(toy())
    assert agent.targets(batch).tolist() == [1, 2, 3]
    assert all(x == x for x in agent.update(batch).values())  # no NaN


@pytest.mark.parametrize(("arms", "bias"), [(10, 1.54), (1_000, 3.24)])
def test_maximum_of_noise_is_too_high_with_one_estimator(
    arms: int, bias: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All items are worth 0, and the estimates are standard normal numbers."""
    rng = torch.Generator().manual_seed(0)
    rows = 4_000
    one, two = torch.randn(rows, arms, generator=rng), torch.randn(rows, arms, generator=rng)
    no = torch.zeros(rows, dtype=torch.bool)
    obs = Obs(torch.eye(2)[torch.zeros(rows, dtype=torch.int64)])
    nothing = torch.zeros(rows)
    batch = Transitions(obs, no.long().unsqueeze(1), nothing.double(), nothing, obs, no, no, nothing + 1)
    agent = learner(toy(num_arms=arms))
    fixed(monkeypatch, agent.model, one)
    fixed(monkeypatch, agent.target, one)
    assert abs(float(agent.targets(batch).mean()) - bias) < 0.05
    fixed(monkeypatch, agent.target, two)
    assert abs(float(agent.targets(batch).mean())) < 0.06


def test_exploration_shows_any_allowed_item_and_its_probability_is_exact() -> None:
    agent = learner(toy(num_arms=4), exploration_initial_eps=0.5)
    mask = torch.tensor([[True, True, False, True]])
    obs = Obs(torch.eye(2)[[0] * 6_000], mask=mask.expand(6_000, -1))
    action = agent.explore(obs)
    best = int(agent.model.q(obs.rows(torch.tensor([0]))).argmax())
    counts = action.items.flatten().bincount(minlength=4)
    expected = torch.tensor([0.5 / 3, 0.5 / 3, 0.0, 0.5 / 3])
    expected[best] += 0.5
    assert counts[2] == 0
    seen = expected > 0
    chi_square = float(((counts - 6_000 * expected) ** 2)[seen].div(6_000 * expected[seen]).sum())
    assert chi_square < 13.8  # 2 degrees of freedom, one in a thousand
    assert torch.allclose(action.logprob.exp(), expected[action.items.flatten()])


def test_probability_of_a_random_item_falls_linearly_and_stays() -> None:
    agent = learner(
        toy(),
        num_updates=10,
        exploration_fraction=0.5,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.05,
    )
    found = []
    for agent.updates in (0, 2, 5, 9):
        found.append(agent.epsilon)
    assert found == pytest.approx([1.0, 1 - 0.4 * 0.95, 0.05, 0.05])


def test_sampled_policy_is_softmax_of_q_over_the_temperature() -> None:
    agent = learner(toy(), temperature=0.5)
    obs = Obs(torch.eye(2), mask=torch.tensor([[True, True, False], [True, True, True]]))
    with torch.no_grad():
        q = agent.model.q(obs)
    assert torch.allclose(agent.scores(obs), q / 0.5)
    assert torch.allclose(agent.item_probabilities(obs, 3).float(), (q / 0.5).softmax(1), atol=1e-6)
    assert agent.act(obs, greedy=True).items.flatten().tolist() == q.argmax(1).tolist()
    assert torch.equal(agent.value(obs), q.amax(1))


def test_target_network_follows_by_the_share_tau() -> None:
    agent = learner(toy(), tau=0.25, batch_size=4)
    before = [x.detach().clone() for x in agent.target.parameters()]
    assert all(torch.equal(x, y) for x, y in zip(before, agent.model.parameters(), strict=True))
    agent.update(transitions())
    for old, new, own in zip(before, agent.target.parameters(), agent.model.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25 * (own - old), atol=1e-7)
    assert any(not torch.equal(x, y) for x, y in zip(before, agent.target.parameters(), strict=True))


def test_state_holds_both_networks() -> None:
    agent, other = learner(toy(), batch_size=4), learner(toy(), batch_size=4)
    for _ in range(3):
        agent.update(transitions())
    other.load_state_dict(agent.state_dict())
    one, two = (x.update(transitions()) for x in (agent, other))
    assert one == two
    fresh = learner(toy())
    weights = {name: x for name, x in agent.state_dict().items() if name.startswith("model.")}
    fresh.load_state_dict(fresh.state_dict() | weights)  # as --init-from does
    for x, y in zip(fresh.target.parameters(), agent.model.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.learning
def test_delayed_reward_is_found(proof: Proof) -> None:
    """Two steps: the first pays 1 for arm 0 and nothing for arm 1, the second 3 if the first was arm 1.

    The best return is 3, that of the best first reward 1. The clock shows only the step, so the environment
    tells the first arm by moving to another step.
    """

    class Chain(Toy):
        def step(self, items: Tensor) -> Step:
            arm = items[:, 0]
            first = self.clock == 0
            reward = torch.where(first, 1.0 * (arm == 0), 3.0 * (self.clock == 2))
            after = torch.where(first, 1 + (arm == 1), 3)  # 1 after arm 0, 2 after arm 1
            ended = after == 3
            self.clock = torch.where(ended, 0, after)
            never = torch.zeros_like(ended)
            return Step(self.observe(), self.seen(after), reward, ended, never, reward.unsqueeze(1))

        def reset(self, users: Tensor | None = None) -> Obs:
            self.clock = torch.zeros(self.num_envs, dtype=torch.int64)
            return self.observe()

    env = Chain(8, 3, lambda clock, arm: arm.float())
    agent = learner(env, num_updates=100, gamma=0.9, lr=0.01, learning_starts=64, return_steps=1)
    env.reset()
    source = Replay(env, agent, agent.config, {}, agent.generators["shuffle"])
    for _ in range(100):
        found = source.batch().data
        assert isinstance(found, Transitions)
        agent.update(found)
    with torch.no_grad():
        q = agent.model.q(Obs(torch.eye(3)))
    proof(float(q[0, 1] - q[0, 0]), above=0.5)  # 0.9 x 3 against 1: 1.7
    proof(float((q[0, 1] - 2.7).abs()), below=0.4, what="value")

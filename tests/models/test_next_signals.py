"""The auxiliary loss of an encoder: the entries whose signals it expects, and the error."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.experience.rollout import collect
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.next_signals import Entries, NextSignals, next_entries, signal_loss
from recsys_rl.protocols import Env
from recsys_rl.types import Obs
from tests.proofs import Proof
from tests.small_runs import begin, settings


def test_entries_of_a_rollout_by_hand() -> None:
    """Four steps of two users; the first user's session ends at the second step, the second adds no entry."""
    history = torch.tensor([[[-1, -1], [-1, 5]], [[-1, 3], [-1, 5]], [[-1, -1], [5, 6]], [[-1, 4], [6, 7]]])
    signals = torch.zeros(4, 2, 2, 1)
    signals[1, 0, 1], signals[3, 0, 1], signals[2, 1, 1], signals[3, 1, 1] = 1.0, 3.0, 5.0, 7.0
    signals[3, 1, 0] = 5.0
    done = torch.tensor([[False, False], [True, False], [False, False], [False, False]])
    found = next_entries(Obs(torch.zeros(4, 2, 1), history, signals), done)
    known = found.known.view(4, 2)
    assert known.tolist() == [[True, False], [False, True], [True, True], [False, False]]
    assert found.items.view(4, 2)[known].tolist() == [3, 6, 4, 7]
    deviation = math.sqrt(5)  # of 1, 5, 3 and 7, whose mean is 4
    expected = torch.tensor([[-3.0], [1.0], [-1.0], [3.0]]) / deviation
    torch.testing.assert_close(found.signals.view(4, 2, 1)[known], expected)


def test_a_signal_that_does_not_vary_is_zero() -> None:
    history = torch.tensor([[[-1]], [[3]], [[4]]])
    signals = torch.tensor([[[[0.0]]], [[[1.0]]], [[[1.0]]]])
    found = next_entries(Obs(torch.zeros(3, 1, 1), history, signals), torch.zeros(3, 1, dtype=torch.bool))
    assert found.known.tolist() == [True, True, False]
    assert found.signals[:2].tolist() == [[0.0], [0.0]]


def test_no_entry_is_known() -> None:
    """One step alone: its next observation is not in the rollout."""
    obs = Obs(torch.zeros(1, 2, 1), torch.full((1, 2, 3), -1), torch.zeros(1, 2, 3, 2))
    found = next_entries(obs, torch.zeros(1, 2, dtype=torch.bool))
    assert not found.known.any() and bool(found.signals.isfinite().all())
    assert signal_loss(torch.ones(2, 2, 4), torch.ones(2, 4), found).item() == 0.0


def test_loss_by_hand() -> None:
    """q . f is 2 + 3 = 5 and 2 * 3 = 6; the errors are 5 - 4 and 6 - 3: (1 + 9) / 2 of the known sample."""
    queries = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]])
    entries = Entries(
        torch.tensor([0, 0]), torch.tensor([[4.0, 3.0], [0.0, 0.0]]), torch.tensor([True, False])
    )
    assert signal_loss(queries, torch.tensor([[2.0, 3.0], [2.0, 3.0]]), entries).item() == 5.0


def test_vectors_by_hand() -> None:
    module = NextSignals(2, 2, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]))
        module.layer.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 100.0]))
        found = module(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert found.tolist() == [[[21.0, 42.0], [63.0, 184.0]]]


def small(algo: str, **agent: Any) -> tuple[Env, PPO | A2C]:
    config: dict[str, Any] = {
        "env_config": {"num_items": 40, "embedding_dim": 4, "max_episode_steps": 8},
        "data_config": {"num_users": 30},
        "agent_config": {"n_steps": 16, "num_envs": 32} | agent,
        "model_config": {"encoder": "transformer", "hidden_dims": [8]},
    }
    return begin(settings(algo, "satiation", **config))


def test_the_loss_alone_teaches_the_encoder() -> None:
    env, agent = small("a2c")
    rollout, _ = collect(env, agent, env.reset(), 16)
    obs = agent.model.summarised(rollout.obs.map(lambda x: x.flatten(0, 1).clone()))
    agent.model.signal_loss(obs, next_entries(rollout.obs, rollout.terminated | rollout.truncated)).backward()
    taught = {name for name, p in agent.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    expected = {
        name for name, _ in agent.model.named_parameters() if name.startswith(("encoder.", "next_signals."))
    }
    assert taught == expected


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_entries_stand_beside_their_steps(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each minibatch, a known entry is the item that was shown at the observation's step."""
    env, agent = small(algo, **({"batch_size": 128} if algo == "ppo" else {}))
    rollout, _ = collect(env, agent, env.reset(), 16)
    shown = rollout.items.flatten(0, 1)[:, 0]  # (T N,)
    context = rollout.obs.context.flatten(0, 1)  # (T N, F)
    history = rollout.obs.history
    assert history is not None
    windows = torch.cat([context, history.flatten(0, 1).float()], 1)  # unlike for each step
    seen, loss = 0, ActorCritic.signal_loss

    def compared(self: ActorCritic, obs: Obs, entries: Entries) -> torch.Tensor:
        nonlocal seen
        assert obs.history is not None
        own = torch.cat([obs.context, obs.history.float()], 1)
        for row in entries.known.nonzero().flatten().tolist():
            step = (windows == own[row]).all(1).nonzero().flatten()
            assert int(entries.items[row]) in shown[step].tolist()
            seen += 1
        return loss(self, obs, entries)

    monkeypatch.setattr(ActorCritic, "signal_loss", compared)
    agent.update(rollout)
    assert seen > 100


@pytest.mark.learning
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_signals_are_learned_from_the_signals_alone(algo: str, proof: Proof) -> None:
    """Without any reward the loss falls well below 1, that of the mean signal."""
    limits = {"batch_size": 128} if algo == "ppo" else {"max_grad_norm": 100.0}
    env, agent = small(algo, anneal_lr=False, lr=1e-2, **limits)
    obs, seen = env.reset(), []
    for _ in range(8 if algo == "ppo" else 24):  # PPO learns from each rollout several times
        rollout, obs = collect(env, agent, obs, 16)
        no_rewards = replace(rollout, rewards=torch.zeros_like(rollout.rewards))
        seen.append(agent.update(no_rewards)["signal_loss"])
    proof(seen[-1], below=0.8)


def test_the_loss_of_expected_rewards_reaches_no_encoder() -> None:
    """The expected signals, made by the encoder, are inputs of the expected rewards without a gradient."""
    env, agent = small("ppo", batch_size=128)
    rollout, _ = collect(env, agent, env.reset(), 16)
    for parameter in agent.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
    obs = agent.model.summarised(rollout.obs.map(lambda x: x.flatten(0, 1).clone()))
    rewards = rollout.rewards.flatten()
    agent.model.reward_loss(obs, rollout.items.flatten(0, 1), rewards).backward()
    taught = {name for name, p in agent.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert taught and all(name.startswith("head.expected.") for name in taught)

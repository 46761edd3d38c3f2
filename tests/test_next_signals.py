"""What an encoder learns beside the return: the entries that it must expect, and their loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from recsys_rl.experience.rollout import collect
from recsys_rl.models.next_signals import Entries, NextSignals, next_entries, signal_loss
from recsys_rl.types import Obs
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
    expected = torch.tensor([[1.0], [5.0], [3.0], [7.0]]) / deviation
    torch.testing.assert_close(found.signals.view(4, 2, 1)[known], expected)
    assert bool(found.signals.isfinite().all())


def test_no_entry_is_known() -> None:
    """One step alone: its next observation is not in the rollout."""
    obs = Obs(torch.zeros(1, 2, 1), torch.full((1, 2, 3), -1), torch.zeros(1, 2, 3, 2))
    found = next_entries(obs, torch.zeros(1, 2, dtype=torch.bool))
    assert not found.known.any() and bool(found.signals.isfinite().all())
    assert signal_loss(torch.ones(2, 2, 4), torch.ones(2, 4), found).item() == 0.0


def test_loss_by_hand() -> None:
    """q . f is 2 + 3 = 5 and 2 * 3 = 6; the errors are 5 - 4 and 6 - 3: (1 + 9) / 2 of one of two samples."""
    queries = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]])
    entries = Entries(
        torch.tensor([0, 0]), torch.tensor([[4.0, 3.0], [0.0, 0.0]]), torch.tensor([True, False])
    )
    assert signal_loss(queries, torch.tensor([[2.0, 3.0], [2.0, 3.0]]), entries).item() == 2.5


def test_vectors_by_hand() -> None:
    module = NextSignals(2, 2, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]))
        module.layer.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 100.0]))
        found = module(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert found.tolist() == [[[21.0, 42.0], [63.0, 184.0]]]


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_signals_are_learned_from_the_signals_alone(algo: str, encoder: str) -> None:
    """Without any reward the loss falls: an encoder learns from what users do."""
    config: dict[str, Any] = {
        "env_config": {"num_items": 40, "embedding_dim": 4, "max_episode_steps": 8},
        "data_config": {"num_users": 30},
        "agent_config": {"n_steps": 16, "num_envs": 32, "anneal_lr": False, "lr": 1e-2}
        | ({"batch_size": 128} if algo == "ppo" else {"max_grad_norm": 100.0}),
        "model_config": {"encoder": encoder, "hidden_dims": [8]},
    }
    env, agent = begin(settings(algo, "satiation", **config))
    obs, seen = env.reset(), []
    for _ in range(12):
        rollout, obs = collect(env, agent, obs, 16)
        no_rewards = replace(rollout, rewards=torch.zeros_like(rollout.rewards))
        seen.append(agent.update(no_rewards)["signal_loss"])
    assert seen[-1] < 0.8 * seen[0]

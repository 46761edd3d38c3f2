"""An epoch in one call is the same epoch: the weights, and every diagnostic, to the last bit."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from recsys_rl.agents.ppo import PPO
from recsys_rl.functional import kernels
from recsys_rl.models.dense import DenseActorCritic
from recsys_rl.rollout import collect
from recsys_rl.types import Rollout
from tests.small_runs import begin, settings

SMALL = {"num_items": 37, "num_users": 50, "embedding_dim": 8, "max_episode_steps": 5}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")


def rollout_and_agent(**dials: Any) -> tuple[Rollout, PPO]:
    """Of the classic network on `drift`: 8 users x 9 steps, minibatches of 16, the last of 8."""
    agent_config = {"n_steps": 9, "num_envs": 8, "batch_size": 16, "update_epochs": 3, **dials}
    model_config = {"head": "dense", "hidden_dims": (16, 12), "activation": "tanh"}
    env, agent = begin(
        settings("ppo", "drift", env_config=SMALL, agent_config=agent_config, model_config=model_config)
    )
    assert isinstance(agent, PPO) and isinstance(agent.model, DenseActorCritic)
    return collect(env, agent, env.reset(), 9)[0], agent


def after_updates(monkeypatch: pytest.MonkeyPatch, one_call: bool, **dials: Any) -> list[Tensor | float]:
    """Two updates on the same rollout: their diagnostics, then the weights and Adam's moments."""
    rollout, agent = rollout_and_agent(**dials)
    if not one_call:
        monkeypatch.setattr(agent, "_compiled_epoch", lambda samples, ent_coef: None)
    else:
        monkeypatch.setattr(agent, "_epoch", None)  # or else it would be called
    found: list[Tensor | float] = []
    for _ in range(2):
        found += agent.update(rollout).values()
    state = agent.state_dict()
    return [*found, *(state[name] for name in sorted(state))]


@pytest.mark.parametrize(
    "dials",
    [
        {},
        {"clip_vloss": True, "clip_eps": 0.01},
        {"ent_coef": 0.0, "normalize_advantage": False},
        {"max_grad_norm": 0.01, "batch_size": 72},
        {"target_kl": 1e-9, "lr": 0.1},  # stops after the first epoch
        {"batch_size": 7, "lr": 0.03},
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_equals_the_loop(dials: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = [after_updates(monkeypatch, one_call, **dials) for one_call in (True, False)]
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_who_learns_minibatch_by_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks, which average between the passes; masked requests; and everybody without the compiled loops."""
    rollout, agent = rollout_and_agent()
    loop = Mock(wraps=agent._epoch)
    monkeypatch.setattr(agent, "_epoch", loop)
    agent.update(rollout)
    assert loop.call_count == 0
    mask = torch.ones(9, 8, 37, dtype=torch.bool)
    agent.update(dataclasses.replace(rollout, obs=dataclasses.replace(rollout.obs, mask=mask)))
    assert loop.call_count == 3
    agent.average = lambda x: None
    agent.update(rollout)
    assert loop.call_count == 6
    agent.average = None
    monkeypatch.setattr(kernels, "library", lambda: None)
    agent.update(rollout)
    assert loop.call_count == 9


def test_an_item_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, agent = rollout_and_agent()
    monkeypatch.setattr(agent, "_epoch", None)
    items = rollout.items.clone()
    items[4, 3] = 37
    with pytest.raises(IndexError, match=r"outside 0 \.\. 36"):
        agent.update(dataclasses.replace(rollout, items=items))

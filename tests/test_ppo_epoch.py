"""An epoch in one call is the same epoch: the weights, and every diagnostic, up to rounding."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.ppo import PPO
from recsys_rl.functional import kernels
from recsys_rl.models.dense import DenseActorCritic
from recsys_rl.rollout import collect
from recsys_rl.types import Rollout
from tests.small_runs import begin, settings

SMALL = {"num_users": 50, "embedding_dim": 8, "max_episode_steps": 5}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")


def rollout_and_agent(
    hidden_dims: tuple[int, ...] = (16, 12), activation: str = "tanh", num_items: int = 37, **dials: Any
) -> tuple[Rollout, PPO]:
    """Of the classic network on `drift`: 8 users x 9 steps, minibatches of 16, the last of 8."""
    agent_config = {"n_steps": 9, "num_envs": 8, "batch_size": 16, "update_epochs": 3, **dials}
    config = settings(
        "ppo",
        "drift",
        env_config={**SMALL, "num_items": num_items},
        agent_config=agent_config,
        model_config={"head": "dense", "hidden_dims": hidden_dims, "activation": activation},
    )
    env, agent = begin(config)
    assert isinstance(agent, PPO) and isinstance(agent.model, DenseActorCritic)
    return collect(env, agent, env.reset(), config.agent_config.n_steps)[0], agent


def after_updates(one_call: bool, threads: int = 1, **dials: Any) -> list[Tensor]:
    """Two updates on the same rollout: their diagnostics, then the weights and Adam's moments."""
    rollout, agent = rollout_and_agent(**dials)
    found, before = [], torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if one_call:
            patch.setattr(agent, "_epoch", None)  # or else it would be called
        else:
            patch.setattr(agent, "_compiled_epoch", lambda samples, ent_coef: None)
        try:
            torch.set_num_threads(threads)
            for _ in range(2):
                found.append(torch.tensor(list(agent.update(rollout).values())))
        finally:
            torch.set_num_threads(before)
    state = agent.state_dict()
    return [*found, *(state[name] for name in sorted(state))]


DIALS: list[dict[str, Any]] = [
    {},
    {"clip_vloss": True, "clip_eps": 0.01},
    {"ent_coef": 0.0, "normalize_advantage": False},
    {"max_grad_norm": 0.01, "batch_size": 72},
    {"target_kl": 1e-9},  # stops after the first epoch
    {"batch_size": 7, "lr": 0.01},
    {"hidden_dims": (5,), "num_items": 300},
    {"hidden_dims": (70, 40, 33), "activation": "relu", "num_items": 131},
    {"hidden_dims": (9, 4, 6, 3), "activation": "elu", "num_items": 2},
]


@pytest.mark.parametrize("dials", DIALS)
def test_equals_the_loop(dials: dict[str, Any]) -> None:
    for one, other in zip(after_updates(True, **dials), after_updates(False, **dials), strict=True):
        assert_close(one, other, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
@pytest.mark.parametrize("dials", [DIALS[0], DIALS[6], DIALS[7]])
def test_threads_change_nothing(dials: dict[str, Any], threads: int) -> None:
    """Not by a bit. The minibatches are large enough for a team."""
    large = {**dials, "batch_size": 700, "n_steps": 240, "num_items": 300}
    for one, other in zip(
        after_updates(True, 1, **large), after_updates(True, threads, **large), strict=True
    ):
        assert torch.equal(one, other)


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

"""An epoch in one call is the same epoch: the weights, and every diagnostic, up to rounding."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.ppo import PPO
from recsys_rl.experience.rollout import collect
from recsys_rl.functional import kernels
from recsys_rl.functional.dense import Fixed
from recsys_rl.functional.ppo_epoch import ppo_epoch
from recsys_rl.models.dense import DenseActorCritic
from recsys_rl.types import Rollout
from tests.doors import ROOT
from tests.small_runs import begin, settings

SMALL = {"embedding_dim": 8, "max_episode_steps": 5}


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
        data_config={"num_users": 50},
        env_config={**SMALL, "num_items": num_items},
        agent_config=agent_config,
        model_config={"head": "dense", "hidden_dims": hidden_dims, "activation": activation},
    )
    env, agent = begin(config)
    assert isinstance(agent, PPO) and isinstance(agent.model, DenseActorCritic)
    return collect(env, agent, env.reset(), config.agent_config.n_steps)[0], agent


def after_updates(one_call: bool, threads: int = 1, moved: float = 0.0, **dials: Any) -> list[Tensor]:
    """Two updates on the same rollout: their diagnostics, then the weights and Adam's moments.

    ``moved``: the old values differ from the critic's by up to so much.
    """
    rollout, agent = rollout_and_agent(**dials)
    moves = torch.rand(rollout.values.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).mul(2)
    rollout = dataclasses.replace(rollout, values=rollout.values + moved * moves)
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


@pytest.mark.parametrize("one_call", [True, False])
def test_value_clipping_changes_nothing_within_its_range(one_call: bool) -> None:
    """Not by a bit. One unit in the last place once turned the gradient of such a sample off."""
    dials: dict[str, Any] = {"moved": 0.5, "clip_eps": 0.9, "batch_size": 72, "update_epochs": 9}
    clipped, free = (after_updates(one_call, clip_vloss=clip, **dials) for clip in (True, False))
    assert all(map(torch.equal, clipped, free))


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
@pytest.mark.parametrize("dials", [DIALS[0], DIALS[6], DIALS[7]])
def test_threads_change_nothing(dials: dict[str, Any], threads: int) -> None:
    """Not by a bit. The minibatches are large enough for a team: ten million products and more."""
    large = {**dials, "batch_size": 5000, "n_steps": 900, "num_items": 400, "update_epochs": 1}
    for one, other in zip(
        after_updates(True, 1, **large), after_updates(True, threads, **large), strict=True
    ):
        assert torch.equal(one, other)


def test_epoch_falls_back_to_minibatch_loop(monkeypatch: pytest.MonkeyPatch) -> None:
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
    before = agent.state_dict()
    with pytest.raises(IndexError, match=r"outside 0 \.\. 36"):
        agent.update(dataclasses.replace(rollout, items=items))
    assert all(torch.equal(x, before[name]) for name, x in agent.state_dict().items())


def test_a_parameter_that_moved_is_noticed() -> None:
    """Its place would be reckoned from the weights, and be anywhere."""
    rollout, agent = rollout_and_agent()
    agent.model.value_head.bias.data = agent.model.value_head.bias.data + 1.0
    with pytest.raises(ValueError, match="no views of the weights"):
        agent.update(rollout)


def test_samples_that_do_not_fit() -> None:
    _, agent = rollout_and_agent()
    assert isinstance(agent.model, DenseActorCritic)
    network, optimizer = agent.model.network_as_it_lies(), agent.optimizer
    vectors = Fixed([optimizer.weights, optimizer.exp_avg, optimizer.exp_avg_sq])

    def epoch(vectors: Fixed, inputs: Tensor, items: Tensor, numbers: Tensor) -> Tensor | None:
        record = inputs, items, numbers, numbers, numbers, numbers
        return ppo_epoch(network, vectors, 1, 0.01, 1.0, *record, 4, 0.2, 0.0, 0.5, False)

    inputs, items, numbers = torch.zeros(6, 16), torch.zeros(6, dtype=torch.int64), torch.zeros(6)
    assert epoch(vectors, inputs, items, numbers) is not None
    for others in ((inputs[:, :15].contiguous(), items, numbers), (inputs, items[:5], numbers)):
        with pytest.raises(ValueError, match="samples don't fit"):
            epoch(vectors, *others)
    short = Fixed([optimizer.weights, optimizer.exp_avg[1:], optimizer.exp_avg_sq])
    with pytest.raises(ValueError, match="no views"):
        epoch(short, inputs, items, numbers)
    for served in ((inputs.double(), items, numbers), (inputs, items.int(), numbers)):
        assert epoch(vectors, *served) is None
    assert epoch(vectors, inputs, items, torch.zeros(6, 2)[:, 0]) is None


FEWER = """
import torch
from tests.test_ppo_epoch import DIALS, after_updates
large = {**DIALS[7], "batch_size": 5000, "n_steps": 900, "num_items": 400, "update_epochs": 1}
assert all(map(torch.equal, after_updates(True, 1, **large), after_updates(True, 4, **large)))
"""


def test_fewer_threads_than_asked() -> None:
    environment = os.environ | {"OMP_THREAD_LIMIT": "3", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FEWER], check=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("widest", [4, 8])
def test_for_other_processors(widest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as if the processor knew no wider vectors."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler here")
    made = tmp_path / "kernels.so"
    sources = map(str, Path(kernels.__file__).parent.glob("*.c"))
    options = ["-O2", "-std=gnu11", "-fPIC", "-shared", f"-DWIDEST={widest}", "-o", str(made)]
    expected = after_updates(True, **DIALS[7])
    subprocess.run(["gcc", *options, *sources, "-lm"], check=True)
    monkeypatch.setattr(kernels, "library", partial(kernels.load, made))
    for one, other in zip(after_updates(True, **DIALS[7]), expected, strict=True):
        assert_close(one, other, atol=2e-5, rtol=2e-4)

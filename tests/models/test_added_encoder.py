"""`--init-from` with an encoder and the weights of a network without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.agents.ppo import PPO
from recsys_rl.cli import main
from recsys_rl.models.added_encoder import with_encoder, with_zeros
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from recsys_rl.workflows.train import Update, updates
from tests.tagged_networks import OLD, network, observations

RUN: dict[str, Any] = {
    "env": "short-video",
    "env_config": {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 8},
    "data_config": {"data": "synthetic", "num_users": 40},
    "agent_config": {"num_envs": 8, "n_steps": 16, "batch_size": 64},
}


def last_update(folder: Path, model: dict[str, Any], steps: int, **train: Any) -> Update:
    settings = {"total_timesteps": steps, "eval_interval": 0, **train}
    config = from_dict(Config, {**RUN, "model_config": model, "train_config": settings})
    *_, last = updates(config, folder=folder)
    return last


def observation(update: Update) -> Obs:
    """Of 8 users in the middle of their sessions."""
    env, generator = update.run.env, torch.Generator().manual_seed(0)
    env.reset()
    for _ in range(3):
        obs: Obs = env.step(torch.randint(20, (8, 1), generator=generator)).obs
    return obs


@pytest.mark.parametrize("head", ["two-tower", "scorer", "dense"])
def test_run_with_an_encoder_begins_as_the_policy_without(head: str, tmp_path: Path) -> None:
    """A learning rate of 1e-9 leaves the weights as they were; with the usual rate the encoder learns."""
    plain = last_update(tmp_path / "plain", {"head": head}, 256)
    start = {"init_from": str(tmp_path / "plain" / "ppo.pt")}
    model = {"head": head, "encoder": "transformer"}
    run = {**RUN, "agent_config": {**RUN["agent_config"], "lr": 1e-9}}
    config = from_dict(
        Config, {**run, "model_config": model, "train_config": {"total_timesteps": 128, **start}}
    )
    (same,) = updates(config, folder=tmp_path / "same")
    obs, new, old = observation(plain), same.agent, plain.agent
    assert isinstance(new, PPO) and isinstance(old, PPO)
    wanted = old.item_probabilities(obs, 20)
    assert_close(new.item_probabilities(obs, 20), wanted, atol=1e-5, rtol=1e-5)
    assert_close(new.value(obs), old.value(obs), atol=1e-5, rtol=1e-5)
    assert same.run.note.endswith("; the transformer begins without influence on the policy")
    other = last_update(tmp_path / "other", model, 256, **start)
    assert isinstance(other.agent, PPO)
    learned = other.agent.model
    assert learned.encoder is not None
    of_encoder = learned.hidden.weights[0][:, -learned.encoder.out_features :]
    assert bool((of_encoder.abs().amax((1, 2)) > 1e-4).all())  # of the actor and of the critic


def test_zeros_are_inserted_before_a_place() -> None:
    x = torch.arange(1.0, 7.0).view(2, 3)
    assert with_zeros(x, 1, 1, 2).tolist() == [[1, 0, 0, 2, 3], [4, 0, 0, 5, 6]]
    assert with_zeros(x, 0, 2, 1).tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]


def test_an_encoder_begins_with_the_weights_of_a_fitting_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    world = ["--env", "short-video", "--data", "synthetic", "--num-users", "40", "--num-items", "20"]
    sizes = ["--embedding-dim", "4", "--max-episode-steps", "8"]
    steps = ["--total-timesteps", "128", "--num-envs", "8", "--n-steps", "16", "--batch-size", "64"]
    run = ["train", *world, *sizes, *steps, "--eval-interval", "0"]
    assert main([*run, "--encoder", "transformer", "--name", "first"]) == 0
    start = ["--init-from", "runs/first/ppo.pt"]
    assert main([*run, *start, "--name", "second"]) == 2
    said = "that run has --encoder transformer, and this one --encoder mlp"
    assert said in capsys.readouterr().err
    assert not Path("runs/second").exists()
    assert main([*run, "--name", "sums"]) == 0
    start = ["--init-from", "runs/sums/ppo.pt", "--encoder", "transformer", "--name", "second"]
    assert main([*run, *start, "--hidden-dims", "8"]) == 2
    assert "and this run has 8; give" in capsys.readouterr().err
    assert main([*run, *start, "--head", "scorer"]) == 2
    assert "does not fit this run" in capsys.readouterr().err
    scorer = [*run, "--head", "scorer"]  # on satiation with fewer signals, so fewer gates
    assert main([*scorer, "--env", "satiation", "--name", "satiation"]) == 0
    fewer = ["--init-from", "runs/satiation/ppo.pt", "--encoder", "transformer", "--name", "second"]
    assert main([*scorer, *fewer]) == 2
    assert "does not fit this run" in capsys.readouterr().err
    assert main([*run, *start]) == 0
    assert "the transformer begins without influence on the policy" in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["transformer", "deep-sets"])
@pytest.mark.parametrize(
    ("head", "candidates"), [("two-tower", 0), ("two-tower", 6), ("scorer", 0), ("dense", 0), ("gated", 6)]
)
def test_added_encoder_keeps_logits_and_values_with_genres(
    head: Literal["two-tower", "scorer", "dense", "gated"],
    candidates: int,
    encoder: Literal["transformer", "deep-sets"],
) -> None:
    """No weight of the old network is zero, and items have genres."""
    config = ModelConfig(hidden_dims=(8,), head=head, candidates=candidates)
    old, new = network(OLD, config, 0), network(OLD, replace(config, encoder=encoder), 1)
    fresh = {name: x.clone() for name, x in new.state_dict().items() if name.startswith(("enc", "next"))}
    new.load_state_dict(with_encoder(old.state_dict(), new))
    obs = observations()
    if candidates:
        obs = obs.among(torch.arange(6).expand(4, 6))
    with torch.no_grad():
        (one, value), (two, other) = old(obs), new(obs)
    assert_close(two.logits, one.logits, atol=1e-5, rtol=1e-5)
    assert_close(other, value, atol=1e-5, rtol=1e-5)
    kept = new.state_dict()
    assert fresh and all(torch.equal(kept[name], x) for name, x in fresh.items())

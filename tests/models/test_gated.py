"""The gated head: kinds and items of a whole policy, its training, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.experience.rollout import collect
from recsys_rl.functional.gated import Gated
from recsys_rl.models.heads import GatedHead, item_kinds
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.settings.config import Config
from recsys_rl.types import Catalogue
from tests.functional.test_gated import kind_probabilities
from tests.small_runs import begin, settings
from tests.small_runs import world as made_up

ITEMS = 40
KINDS = torch.tensor([0] * 30 + [1] * 8 + [2] * 2)  # as tests.small_runs.world makes them


def config(algo: str = "ppo", env: str = "satiation", **sections: Mapping[str, Any]) -> Config:
    sizes: Mapping[str, Any] = {"num_items": ITEMS, "embedding_dim": 4, "max_episode_steps": 6}
    given = {"model_config": {"head": "gated", "hidden_dims": [8]}, "env_config": sizes, **sections}
    return settings(algo, env, **given)


def test_untrained_policy_is_nearly_uniform_over_items() -> None:
    env, agent = begin(config())
    shown = agent.item_probabilities(env.reset(), ITEMS)
    assert_close(shown.sum(1), torch.ones(len(shown), dtype=torch.float64))
    assert_close(shown, torch.full_like(shown, 1 / ITEMS), rtol=0.5, atol=0)


def test_kind_without_an_allowed_item_is_never_shown() -> None:
    env, agent = begin(config())
    obs = env.reset()
    mask = torch.ones(obs.num_rows, ITEMS, dtype=torch.bool)
    mask[:, KINDS == 0] = False  # the kind of most items
    mask[0, KINDS == 1] = False  # one kind alone is left to the first user
    obs = dataclasses.replace(obs, mask=mask)
    shown = agent.item_probabilities(obs, ITEMS)
    assert bool((shown[~mask] == 0).all()) and bool((shown[mask] > 0).all())
    # Shares of kinds 1 and 2 in the catalogue are 8 to 2.
    assert_close(shown[1:, KINDS == 1].sum(1), torch.full((len(shown) - 1,), 0.8).double(), rtol=0.1, atol=0)
    assert_close(shown[0, KINDS == 2].sum(), torch.tensor(1.0).double())
    for _ in range(20):
        assert bool(mask.gather(1, agent.act(obs).items).all())


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("candidates", [0, 12])
def test_learners_learn_kinds_and_items(algo: str, candidates: int) -> None:
    model = {"head": "gated", "hidden_dims": [8], "candidates": candidates}
    env, agent = begin(config(algo, model_config=model))
    head = agent.model.head
    assert isinstance(agent, NetworkPolicy) and isinstance(head, GatedHead)
    before = head.query.bias.detach().clone()
    rollout, obs = collect(env, agent, env.reset(), 6)
    if not candidates:  # the probabilities while acting are those of the update
        samples = rollout.obs.map(lambda x: x.flatten(0, 1))
        with torch.no_grad():
            again = agent.model.logprob(samples, rollout.items.flatten(0, 1))
        assert_close(again, rollout.logprobs.flatten(), rtol=1e-4, atol=1e-4)
    metrics = agent.update(rollout)
    assert all(math.isfinite(x) for x in metrics.values())
    of_kinds = slice(-3 - head.curves.num_gates, -head.curves.num_gates)
    assert bool((head.query.bias.detach() != before)[of_kinds].all())
    with torch.no_grad():
        distribution, _ = agent.model(agent.propose(obs))
    assert isinstance(distribution, Gated)
    assert_close(kind_probabilities(distribution).sum(1), torch.ones(obs.num_rows))


def test_a_policy_finds_the_kind_that_pays() -> None:
    """Only the two items of kind 2 pay: after some updates they are shown more often than 2 in 40 times."""
    env, agent = begin(config(agent_config={"n_steps": 8, "num_envs": 32, "batch_size": 256, "lr": 0.01}))
    obs = env.reset()
    for _ in range(10):
        rollout, obs = collect(env, agent, obs, 8)
        pays = (KINDS[rollout.items[..., 0]] == 2).float()
        agent.update(dataclasses.replace(rollout, rewards=pays))
    distribution, _ = agent.model(env.reset())
    assert float(kind_probabilities(distribution)[:, 2].mean()) > 0.2


def test_candidates_have_the_kinds_of_their_items() -> None:
    env, agent = begin(config())
    obs = env.reset()
    candidates = torch.tensor([[39, 3, 31, -1]]).expand(obs.num_rows, -1)
    few = agent.item_probabilities(obs.among(candidates), ITEMS)
    every = torch.zeros(obs.num_rows, ITEMS, dtype=torch.bool)
    every[:, [3, 31, 39]] = True
    assert_close(few, agent.item_probabilities(dataclasses.replace(obs, exclude=None, mask=every), ITEMS))


def catalogue(kinds: Tensor | None) -> Catalogue:
    place = made_up(config()).catalogue
    return dataclasses.replace(place, attributes={} if kinds is None else {"kind": kinds})


@pytest.mark.parametrize(
    "kinds",
    [None, KINDS.float(), KINDS - 1, torch.zeros(ITEMS, dtype=torch.int64)],
    ids=["none", "floats", "negative", "one kind"],
)
def test_items_without_kinds_are_refused(kinds: Tensor | None) -> None:
    with pytest.raises(UserError):
        item_kinds(catalogue(kinds))


def test_new_items_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError):
        item_kinds(catalogue(KINDS + 1), catalogue(KINDS))
    assert torch.equal(item_kinds(catalogue(KINDS), catalogue(KINDS)), KINDS)


def test_slates_and_values_are_refused() -> None:
    with pytest.raises(UserError):
        begin(config(env="long-video"))
    for algo in ("dqn", "cql", "bcq", "iql", "dt", "direct"):
        with pytest.raises(UserError):
            config(algo)


def test_platform_with_kinds_of_its_own() -> None:
    """The feed forbids ads and suggestions at times: such kinds have probability 0 there."""
    env, agent = begin(config(env="social-feed"))
    obs, kinds = env.reset(), env.catalogue.attributes["kind"]  # type: ignore[attr-defined]
    for _ in range(4):
        allowed = obs.allowed(ITEMS)
        shown = agent.item_probabilities(obs, ITEMS)
        assert bool((shown[~allowed] == 0).all())
        with torch.no_grad():
            distribution, _ = agent.model(obs)
        assert isinstance(distribution, Gated)
        of_kinds = kind_probabilities(distribution)  # (N, G)
        there = torch.stack([allowed[:, kinds == kind].any(1) for kind in range(of_kinds.shape[1])], 1)
        assert bool(((of_kinds > 0) == there).all())
        obs = env.step(agent.act(obs).items).obs


def test_command_trains_with_kinds_from_a_file_of_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log and a file of items with a column 'kind': train, and evaluate the checkpoint."""
    noise = torch.Generator().manual_seed(0)
    rows = [
        f"{user},{item}" for user in range(60) for item in torch.randperm(30, generator=noise)[:12].tolist()
    ]
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    log.write_text("user,item\n" + "\n".join(rows) + "\n")
    kinds = "\n".join(f"{item},{'ad' if item % 5 == 0 else 'post'}" for item in range(30))
    items.write_text(f"item,kind\n{kinds}\n")
    train = [
        *("train", "--data", str(log), "--items", str(items), "--num-items", "30", "--embedding-dim", "4"),
        *("--max-episode-steps", "4", "--total-timesteps", "256", "--n-steps", "8", "--num-envs", "16"),
        *("--batch-size", "64", "--head", "gated", "--runs-dir", str(tmp_path / "runs"), "--name", "first"),
        *("--cache-dir", str(tmp_path / "cache"), "--eval-interval", "0", "--env", "satiation"),
    ]
    assert main(train) == 0
    checkpoint, table = tmp_path / "runs" / "first" / "ppo.pt", tmp_path / "table.json"
    evaluate = ["evaluate", "--checkpoint", str(checkpoint), "--max-users", "4", "--no-planner"]
    assert main([*evaluate, "--cache-dir", str(tmp_path / "cache"), "--json", str(table)]) == 0
    earned = {row["policy"]: row["return_mean"] for row in json.loads(table.read_text())["rows"]}
    assert earned["ppo"] > 0 and earned["ppo-greedy"] > 0

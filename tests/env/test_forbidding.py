"""Items that a step forbids: honoured by every policy, and the same in environment, log and Gymnasium."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.env import PLATFORMS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import FixedList
from recsys_rl.foreign.ids import MASK, RecSysEnv
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observations, transition_table
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.testing.envs import random_items
from recsys_rl.types import Obs, World
from tests.doors import A2C, DQN, DRIFT, steps, train_in
from tests.forbidding import PLATFORM, Forbidding

ENV = ["--env", "forbidding"]
HEADS = {
    "two-tower": [*DRIFT, "--head", "two-tower"],
    "scorer": [*A2C, "--head", "scorer"],
    "dense": [*DRIFT, "--head", "dense"],
    "two-stage": [*DRIFT, "--head", "two-tower", "--candidates", "16"],
    "dqn": DQN,
}


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLATFORMS, "forbidding", "tests.forbidding:PLATFORM")


def made(*options: str) -> tuple[Config, World, RecEnv]:
    config = train_options([*ENV, *DRIFT, *options]).config
    world = make_world(config)
    env = make_env(config, world, 6, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    return config, world, env


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("share", ["0.2", "0.9"])
def test_contracts_over_random_masks(seed: str, share: str) -> None:
    _, world, env = made("--forbidden", share)
    assert isinstance(env.user_model, Forbidding)
    users = torch.arange(9)
    config = dataclasses.replace(env.user_model.config, mask_seed=int(seed), strict=False)
    check_user_model(dataclasses.replace(env.user_model, config=config), world.catalogue, users)

    def make(number: int) -> RecEnv:
        model = dataclasses.replace(env.user_model, config=config)  # type: ignore[type-var]
        rng = torch.Generator().manual_seed(number)
        return RecEnv(model, world.catalogue, config, world.population.train, 6, rng)

    check_env(make, 5)


def test_mask_of_the_environment_is_what_the_user_model_permits() -> None:
    _, world, env = made()
    obs, rng = env.reset(), torch.Generator().manual_seed(3)
    world.catalogue.available[5] = False
    for _ in range(12):
        obs = env.observe()
        permitted = env.user_model.permits(env.user_state)  # type: ignore[attr-defined]
        permitted[:, 5] = False
        assert obs.mask is not None and torch.equal(obs.mask, permitted)
        expected = env.expected_reward()
        assert torch.equal(expected.isfinite(), obs.allowed(world.catalogue.num_items))
        block = env.expected_reward(slice(7, 20))
        torch.testing.assert_close(block, expected[:, 7:20])
        env.step(random_items(env, obs, rng))


def test_forbidden_item_leaves_the_place_empty() -> None:
    _, _, env = made()
    obs = env.reset()
    assert obs.mask is not None
    forbidden = (~obs.mask).float().argmax(1, keepdim=True)
    with pytest.raises(AssertionError, match="forbidden item"):
        env.step(forbidden)


def test_fixed_list_takes_the_next_allowed_item() -> None:
    mask = torch.tensor([[True, False, True, True], [True, False, False, True], [True, True, False, False]])
    exclude = torch.tensor([[-1, -1], [-1, -1], [-1, 0]])
    obs = Obs(torch.zeros(3, 2), exclude=exclude, mask=mask)
    assert FixedList(torch.tensor([1, 2])).act(obs).items.tolist() == [[2], [0], [1]]


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_every_row_of_the_table_honour_the_mask(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole sessions: the user model raises an error for a forbidden item."""
    monkeypatch.chdir(tmp_path)
    options = HEADS[head]
    assert main(["train", *ENV, *options, *steps(4), "--name", "a"]) == 0
    algo = options[1] if options[0] == "--algo" else "ppo"
    path = f"runs/a/{algo}.pt"
    for name in (algo, f"{algo}-greedy"):
        own = ["--policy", name, "--out", f"{name}.parquet", "--sessions", "30"]
        assert main(["record", "--checkpoint", path, *own]) == 0
    if head == "scorer":  # the other rows of the table do not depend on the head
        assert main(["evaluate", "--checkpoint", path, "--json", "t.json", "--max-users", "6"]) == 0
        rows = {row["policy"] for row in json.loads(Path("t.json").read_text())["rows"]}
        assert {algo, f"{algo}-greedy", "random", "static-list", "mf", "mmr", "rule", "planner"} <= rows
        for bandit in ("linucb", "lints"):
            assert main(["evaluate", "--checkpoint", path, "--policy", bandit, "--max-users", "6"]) == 0
    log = ["--policy", "random", "--out", "log.parquet", "--sessions", "30"]
    assert main(["record", "--checkpoint", path, *(log if head != "two-stage" else log[2:])]) == 0
    assert main(["ope", "--log", "log.parquet", "--checkpoint", path, "--policy", algo]) == 0


def test_log_gives_the_observations_of_the_environment(tmp_path: Path, monkeypatch: Any) -> None:
    """The items that a policy may show, and so its log-probabilities, are the same when a log is read."""
    monkeypatch.chdir(tmp_path)
    path = train_in(tmp_path / "run", *ENV, *DRIFT, *steps(2), "--record", str(tmp_path / "decisions"))
    assert main(["record", "--checkpoint", str(path), "--out", "log.parquet", "--sessions", "40"]) == 0
    found = load(path)
    catalogue = found.world.catalogue
    model = PLATFORM.users(*found.world, found.config.env_config)
    for name in ("log.parquet", "decisions"):
        log = read_decisions(name)
        assert log.exclude is not None
        for rows, obs in observations(log, catalogue):
            users = torch.tensor([found.world.population.user_ids.tolist().index(x) for x in log.users[rows]])
            state = dataclasses.replace(model.sample(users), step=log.steps[rows])
            assert obs.exclude is not None
            wanted = model.permits(state).scatter(1, obs.exclude.clamp_min(0), False)
            wanted[:, 0] = ~(obs.exclude == 0).any(1)
            assert torch.equal(obs.allowed(catalogue.num_items), wanted)
            assert bool(wanted.gather(1, log.items[rows]).all())
        table = transition_table(log, catalogue, torch.zeros(log.num_rows))
        assert table.obs.num_rows == log.num_rows + int((log.steps == 0).sum())


def test_gymnasium_shows_the_mask() -> None:
    env = RecSysEnv("forbidding", data="synthetic", num_items=24, num_users=9, embedding_dim=4)
    _, info = env.reset(seed=0)
    for _ in range(5):
        mask = info[MASK]
        model: Any = env.sessions.user_model
        state = env.sessions.user_state
        wanted = model.permits(state)[0].numpy() & mask.astype(bool)
        assert np.array_equal(mask.astype(bool), wanted) and 0 < mask.sum() < 24
        _, _, terminated, truncated, info = env.step(int(mask.argmax()))
        if terminated or truncated:
            break

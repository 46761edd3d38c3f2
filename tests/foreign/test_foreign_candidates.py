"""Candidates that an observation of Gymnasium lists: found, standardised alike, scored by shared weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.experience.rollout import collect, play
from recsys_rl.foreign.gym import GymEnv
from recsys_rl.foreign.spaces import layout_of
from recsys_rl.make import make_agent
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import UserError, empty_world

BOX = spaces.Box(-9, 9, (3, 2))
DOCS = spaces.Dict({str(place): spaces.Box(0, 1, (1,)) for place in range(12)})


class Shelf(gymnasium.Env[Any, Any]):
    """Three candidates, drawn anew each step. The reward is the first feature of the first one shown."""

    def __init__(self, slate: int = 1) -> None:
        parts: dict[str, spaces.Space[Any]] = {"doc": BOX, "user": spaces.Box(0, 9, (2,))}
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Discrete(3) if slate == 1 else spaces.MultiDiscrete([3] * slate)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        reward = float(self.docs[np.asarray(action).flat[0], 0])
        return self.observe(), reward, self.time == 4, False, {}

    def observe(self) -> Any:
        self.docs = self.np_random.normal(size=(3, 2)).astype(np.float32)
        return {"doc": self.docs, "user": np.full(2, self.time, np.float32)}


for slate in (1, 2):
    gymnasium.register(f"tests/Shelf{slate}-v0", lambda **to: Shelf(**to), kwargs={"slate": slate})


@pytest.mark.parametrize(
    ("part", "action", "features"),
    [
        (BOX, spaces.Discrete(3), 2),
        (BOX, spaces.MultiDiscrete([3, 3]), 2),
        (DOCS, spaces.Discrete(12), 1),
        (BOX, spaces.Discrete(4), 0),  # another number of rows
        (BOX, spaces.MultiDiscrete([3, 4]), 0),  # choices of different sizes
        (spaces.Box(0, 1, (3,)), spaces.Discrete(3), 0),  # a flat vector
    ],
)
def test_the_only_list_is_taken(part: Any, action: Any, features: int) -> None:
    space = spaces.Dict({"user": spaces.Box(0, 1, (5,)), "doc": part})
    layout = layout_of("gym:X", space, action)
    assert layout.num_features == features and layout.key == ("doc" if features else None)
    assert ("'doc'" in layout.describe()) == bool(features)
    without = layout_of("gym:X", space, action, "none")
    assert without.key is None and ("--candidate-features doc" in without.describe()) == bool(features)


def test_of_two_lists_one_must_be_named() -> None:
    space = spaces.Dict({"a": BOX, "b": BOX, "user": spaces.Box(0, 1, (3,))})
    assert "a or b" in layout_of("gym:X", space, spaces.Discrete(3)).describe()
    assert layout_of("gym:X", space, spaces.Discrete(3), "b").context == (
        ("observation", 6), ("candidates", 6), ("observation_after", 3), ("clock", 1)
    )  # fmt: skip
    for key in (
        "user",
        "c",
    ):
        with pytest.raises(UserError):
            layout_of("gym:X", space, spaces.Discrete(3), key)


def test_numbered_documents_are_in_the_order_of_numbers() -> None:
    space = spaces.Dict({"doc": DOCS})
    layout = layout_of("gym:X", space, spaces.Discrete(12))
    batch = {"doc": {str(place): np.full((2, 1), place) for place in range(12)}}
    assert layout.flatten(batch, np.array([0, 50])).tolist() == [[*range(12), 0], [*range(12), 0.5]]


def test_flatten_is_gymnasiums() -> None:
    space = spaces.Tuple([spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3), spaces.Box(0, 1, (0,)), BOX])
    space.seed(0)
    row = space.sample()
    found = layout_of("gym:X", space, spaces.Discrete(2)).flatten(row, np.zeros(1, np.int64))
    np.testing.assert_allclose(found[0], np.asarray(flatten(space, row)))


def test_clock_and_shared_moments() -> None:
    env = GymEnv("gym:tests/Shelf1-v0", 2, 0, normalize_obs=True)
    assert (
        env.interface.candidate_features == 2
        and env.interface.split_candidates(torch.zeros(1, 9))[1] is not None
    )
    env.reset()
    for _ in range(4):
        step = env.step(torch.zeros(2, 1, dtype=torch.int64))
    assert step.terminated.all() and env.statistics()["candidates.count"] == 5 * 2 * 3
    raw = GymEnv("gym:tests/Shelf1-v0", 2, 0)
    raw.reset()
    for _ in range(4):
        step = raw.step(torch.zeros(2, 1, dtype=torch.int64))
    assert step.final_obs.context[:, -1].tolist() == pytest.approx([0.04, 0.04])
    assert step.obs.context[:, -1].tolist() == [0, 0]


@pytest.mark.parametrize("slate", [1, 2])
def test_scores_follow_the_candidates(slate: int) -> None:
    """Candidates in another order have the same scores in that order; a few updates find the best one."""
    config = from_dict(Config, {"algo": "ppo", "env": f"gym:tests/Shelf{slate}-v0"})
    env = GymEnv(config.env, 16, 0, normalize_obs=True)
    agent: Any = make_agent(config, env.interface, empty_world().catalogue, 12)
    obs = env.reset()
    with torch.no_grad():
        agent.model.head.product.normal_(generator=torch.Generator().manual_seed(0))
        before = agent.model(obs)[0].logits.reshape(16, 3)
        place = env.interface.place_of("candidates")
        moved = obs.context.clone()
        moved[:, place] = obs.context[:, place].unflatten(1, (3, 2)).flip(1).flatten(1)
        after = agent.model(type(obs)(moved))[0].logits.reshape(16, 3)
        torch.testing.assert_close(after, before.flip(1))
        agent.model.head.product.zero_()
    for _ in range(3):
        rollout, obs = collect(env, agent, obs, 64)
        agent.update(rollout)
    unseen = GymEnv(config.env, 128, 1, normalize_obs=True, training=False)
    unseen.load_statistics(env.statistics())
    played = play(unseen, agent, greedy=True)
    assert played.items.shape[2] == slate
    # The highest of three standard normal numbers, four times: 3.4, with a deviation of 0.13. Any: 0.
    assert played.returns.mean() > 2.7


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves a link to the latest checkpoint in the working folder."""
    monkeypatch.chdir(tmp_path)


def command(env: str, folder: Path, *options: str) -> int:
    """Train for two updates by the command; returns its exit code."""
    sizes = ["--total-timesteps", "64", "--num-envs", "4", "--n-steps", "8", "--batch-size", "16"]
    return main(["train", "--env", env, *sizes, "--runs-dir", str(folder), *options])


@pytest.mark.parametrize("slate", [1, 2])
def test_a_checkpoint_is_evaluated(slate: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training prints the part that it took; the same scores come back from the file."""
    env = f"gym:{__name__}:tests/Shelf{slate}-v0"
    assert command(env, tmp_path) == 0
    printed = capsys.readouterr()
    assert "3 candidates, whose 2 features" in printed.out + printed.err
    [path] = tmp_path.glob("*-ppo-0/ppo.pt")
    assert load(path, env).interface.slate_size == slate
    assert main(["evaluate", "--checkpoint", str(path), "--env", env, "--json", "table.json"]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {"ppo", "ppo-greedy", "untrained", "random"} == {row["policy"] for row in rows}


def test_a_wrong_name_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = f"gym:{__name__}:tests/Shelf1-v0"
    for key in ("dock", "user"):
        assert command(env, tmp_path, "--candidate-features", key) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --candidate-features is '{key}'") and error.count("\n") == 1
        assert "choose from doc, none" in error
    assert command("gym:CartPole-v1", tmp_path, "--candidate-features", "doc") == 2
    assert "--candidate-features is 'doc'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_none_gives_each_place_its_own_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = f"gym:{__name__}:tests/Shelf1-v0"
    assert command(env, tmp_path, "--candidate-features", "none") == 0
    assert "--candidate-features doc" in capsys.readouterr().err
    [path] = tmp_path.glob("*-ppo-0/ppo.pt")
    assert load(path, env).interface.context == (("observation", 8),)

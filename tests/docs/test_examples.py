"""The examples run, with budgets too small to learn much."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.logs import RecordConfig, open_log, read_decisions
from recsys_rl.logs.record import record
from tests.doors import SATIATION, train_in

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


@pytest.mark.proof
def test_own_log_trains_and_evaluates(tmp_path: Path) -> None:
    example = load("own_log")
    log = example.made_up_log(tmp_path / "plays.csv", num_users=100)
    columns = {"user_column": "listener", "item_column": "track", "rating_column": "stars"}
    table = example.main(log, columns, tmp_path, total_timesteps=1024)
    assert table["env"] == "satiation"
    assert [row["policy"] for row in table["rows"]][:3] == ["ppo", "ppo-greedy", "untrained"]
    assert (tmp_path / "runs/satiation-plays-ppo-0/ppo.pt").is_file()
    assert "plays.csv" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_new_agent_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    path = load("new_agent").main(total_timesteps=4096)
    torch.set_num_threads(threads)
    found = load_checkpoint(path)
    assert (found.config.algo, found.updates) == ("new_agent:ALGORITHM", 2)
    assert found.config.agent_config.clip_advantage == 3


@pytest.mark.parametrize("slate_size", [1, 3])
def test_new_platform_gives_returns_in_range(slate_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        found = load("new_platform").main(num_updates=10, slate_size=slate_size)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    err = capsys.readouterr().err
    assert err.startswith("update 10 of 10: reward ")
    assert 0 < float(err.split()[-1]) < slate_size
    assert list(found) == ["ppo-greedy", "random", "myopic"]
    # 30 exercises, each of a reward in 0..1; chance is far from who knows each next reward
    assert all(0 < x.low <= x.mean <= x.high < 30 for x in found.values())
    assert found["random"].high < found["myopic"].low


def test_tutor_learners_by_hand() -> None:
    example = load("new_platform")
    tutor = example.Tutor(*synthetic_world(3, 4, 2, 0.5, seed=0), example.TutorConfig())
    difficulty = tutor.catalogue.quality
    learner = example.LearnerState(profile=torch.zeros(1, 2), skill=difficulty[:1])
    items, shown = torch.tensor([[0]]), torch.tensor([[True]])
    feedback = tutor.respond(learner, items, shown, None)
    # skill equals difficulty: p = 1/2, the reward is half the difficulty, and the skill gains 0.25 / 4
    assert feedback.signals[0, 0].tolist() == pytest.approx([difficulty[0].item() / 2, 0.5])
    assert tutor.rewards(feedback).item() == pytest.approx(difficulty[0].item() / 2)
    assert tutor.expected_reward(learner)[0, 0].item() == pytest.approx(difficulty[0].item() / 2)
    after, leaves = tutor.advance(learner, items, feedback)
    assert after.skill.item() == pytest.approx(difficulty[0].item() + 0.0625)
    assert not leaves.any()
    unseen = tutor.respond(learner, items, ~shown, None)
    assert unseen.signals.tolist() == [[[0.0, 0.0]]]
    assert torch.equal(tutor.advance(learner, items, unseen)[0].skill, learner.skill)


def test_options_in_the_text_of_own_log_exist() -> None:
    text = str(load("own_log").__doc__)
    source = (EXAMPLES / "own_log.py").read_text(encoding="utf-8")
    named = re.findall(r"--[a-z-]+", text.splitlines()[2])
    assert named and all(f'add_argument("{option}"' in source for option in named)


def test_stable_baselines3_sees_whole_sessions() -> None:
    """Every batch equals Gymnasium's own, and the last observation of a session is not lost."""
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    world: dict[str, Any] = {"data": "synthetic", "num_items": 60, "num_users": 30, "embedding_dim": 8}
    users = load("sb3_on_satiation").sessions(5, 3, **world)
    envs = gymnasium.make_vec("recsys_rl/Satiation-v0", num_envs=5, **world)
    mine, (theirs, _) = users.reset(), envs.reset(seed=3)
    draw, ended, returns = np.random.default_rng(0), 0, np.zeros(5)
    for _ in range(60):
        for name in ("context", "signals", "action_mask"):
            np.testing.assert_array_equal(mine[name], theirs[name])
        actions = draw.integers(60, size=5)
        mine, rewards, dones, of_each = users.step(actions)
        theirs, expected, terminated, truncated, infos = envs.step(actions)
        np.testing.assert_allclose(rewards, expected)
        np.testing.assert_array_equal(dones, terminated | truncated)
        returns += expected
        for row in np.flatnonzero(dones):
            last = of_each[row]["terminal_observation"]
            np.testing.assert_array_equal(last["context"], infos["final_obs"][row]["context"])
            assert of_each[row]["TimeLimit.truncated"] == truncated[row]
            assert of_each[row]["episode"]["r"] == pytest.approx(returns[row], abs=1e-4)  # VecMonitor's
        returns[dones] = 0
        ended += int(dones.sum())
    assert ended > 5


def test_a_log_becomes_a_minari_data_set_and_a_table_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari", reason="Minari is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    checkpoint = str(train_in(tmp_path / "run", *SATIATION, "--total-timesteps", "48"))
    file, table_file = str(tmp_path / "log.parquet"), str(tmp_path / "table.parquet")
    record(RecordConfig(checkpoint, policy=("random",), sessions=12, users="all", out=file, quiet=True))
    example, log = load("minari_log"), read_decisions(file)
    example.write(file, checkpoint, "satiation/random-v0")
    table = example.read("satiation/random-v0", table_file)

    assert table["item"].to_list() == log.items[:, 0].tolist()
    assert table["reward"].to_list() == log.signals[:, 0, 0].tolist()  # the share of each movie
    assert table["step"].to_list() == log.steps.tolist()
    assert table["terminated"].to_list() == log.terminated.tolist()
    assert table["truncated"].to_list() == log.truncated.tolist()
    num_items = log.header.interface.action_sizes[0]
    seen = np.array(table["context.observation"].to_list())[:, -num_items:]
    shown: set[int] = set()
    for step, item, allowed in zip(table["step"], table["item"], seen, strict=True):
        shown = shown if step else set()
        assert {*np.flatnonzero(allowed == 0)} == shown
        shown.add(item)

    of_table = next(open_log((table_file,)).parts(10**9))
    assert of_table.num_sessions == log.num_sessions == 12
    assert of_table.terminated.sum() == log.terminated.sum() > 0  # in another order
    assert sorted(of_table.steps.tolist()) == sorted(log.steps.tolist())


def test_stable_baselines3_trains_on_satiation(recwarn: pytest.WarningsRecorder) -> None:
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    recwarn.clear()  # of its import
    returns = load("sb3_on_satiation").main(total_timesteps=1024)
    assert len(returns) == 2 and all(0 < x < 20 for x in returns)
    assert [str(x.message) for x in recwarn if "WARN" in str(x.message)] == []

"""A user's own platform or algorithm: a file alone, or a file and one line of a dict."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import recsys_rl
from recsys_rl.agents import AGENTS
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.env import PLATFORMS
from recsys_rl.errors import UserError
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training.train import updates
from tests.doors import A2C, DRIFT, ROOT, assert_names, finish, home, start, steps

ENV = ["--env", "my_tutor:PLATFORM"]
ALGORITHM = '''
"""A2C whose advantages are multiplied."""

from dataclasses import dataclass, replace

from recsys_rl.agents.a2c import A2C, A2CConfig
from recsys_rl.records import Algorithm
from recsys_rl.settings.fields import Positive


@dataclass(frozen=True)
class BoldConfig(A2CConfig):
    """A bold learner."""

    boldness: Positive = 1.0
    """Factor of the rewards."""


class Bold(A2C):
    def update(self, rollout):
        return super().update(replace(rollout, rewards=self.config.boldness * rollout.rewards))


ALGORITHM = Algorithm(BoldConfig, Bold)
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the example's platform as my_tutor.py, and with an algorithm, bold.py."""
    (tmp_path / "my_tutor.py").write_text((ROOT / "examples/new_platform.py").read_text())
    (tmp_path / "bold.py").write_text(ALGORITHM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("my_tutor", "bold"):
        sys.modules.pop(name, None)


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command. It also asserts that the platform's module was not imported."""
    sys.modules.pop("my_tutor", None)
    assert main(argv) == 2
    assert "my_tutor" not in sys.modules
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.proof
def test_own_platform_trains_and_is_evaluated_by_whole_commands(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training in a process of its own, as a user runs it."""
    options = [*ENV, *DRIFT, *steps(4), "--learning-gain", "0.5"]
    code, _, err = finish(start(here, "train", *options))
    assert code == 0, err
    path = here / "runs/my_tutor-PLATFORM-synthetic-ppo-0/ppo.pt"
    assert f"checkpoint: {path.relative_to(here)}" in err
    assert "learning_gain = 0.5" in (path.parent / "config.toml").read_text()
    assert main(["evaluate", *ENV, "--json", "t.json", "--report", "r.html"]) == 0
    assert capsys.readouterr().out.startswith("my_tutor:PLATFORM, ppo after 96 steps; synthetic\n")
    rows = [row["policy"] for row in json.loads((here / "t.json").read_text())["rows"]]
    assert rows[:5] == ["ppo", "ppo-greedy", "untrained", "expected", "random"] and rows[-1] == "myopic"
    assert "my_tutor:PLATFORM" in (here / "r.html").read_text()


def test_own_platform_resumes_bit_for_bit(here: Path) -> None:
    whole = ["train", *ENV, *DRIFT, *home(here / "runs/whole"), "--seed", "3", *steps(6)]
    assert main(whole) == 0
    job = train_options([*whole[1:], "--name", "half"])
    assert job.config.env_config.learning_gain == 0.25 and job.config.agent_config.gamma == 0.99
    course = updates(job.config)
    for update in course:
        if update.step == 72:
            break
    course.close()
    assert load(here / "runs/half/ppo.pt", ENV[1]).step == 72
    assert main(["train", "--run", "runs/half", *ENV]) == 0
    one, two = (load(here / f"runs/{name}/ppo.pt", ENV[1]).agent for name in ("whole", "half"))
    assert one.keys() == two.keys()
    assert all(one[name].numpy().tobytes() == two[name].numpy().tobytes() for name in one)


def test_platform_module_in_a_file_is_not_imported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *ENV, *DRIFT, *home(here / "runs/one"), *steps(1)]) == 0
    allow = "type --env my_tutor:PLATFORM to allow it."
    for argv in (["evaluate"], ["train", "--resume"], ["train", "--run", "runs/one"]):
        assert sentence(argv, capsys).endswith(allow)
        assert sentence([*argv, "--env", "drift"], capsys).endswith(allow)
    config = ["train", "--config", "runs/one/config.toml"]
    begin, allow = "error: --config runs/one/config.toml ", "--env my_tutor:PLATFORM"
    said, other = sentence(config, capsys), sentence([*config, "--env", "drift"], capsys)
    assert said.startswith(begin) and other.startswith(begin)
    assert_names(said, "module", allow)
    assert_names(other, "for my_tutor:PLATFORM", "--env is drift", allow)
    with pytest.raises(UserError):
        load("runs/one/ppo.pt")
    assert train_options([*config[1:], *ENV]).config.env_config.learning_gain == 0.25


def test_options_of_an_own_platform(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, words in (
        ("--user-drift 1", "--user-drift"),
        ("--learning-gain -1", "--learning-gain is -1.0"),
        ("--learning-gian 1", "--learning-gian"),
    ):
        assert main(["train", *ENV, *line.split()]) == 2
        assert words in capsys.readouterr().err
    assert main(["train", *ENV, "--help"]) == 0
    assert "Skill gained per exercise" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["train", "--learning-gain", "1"]) == 2  # of drift
    assert "--learning-gain" in capsys.readouterr().err


def test_platform_and_algorithm_are_added_by_one_line_of_a_dict(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PLATFORMS, "kitchen", "my_tutor:PLATFORM")
    monkeypatch.setitem(AGENTS, "bold", "bold:ALGORITHM")
    for boldness in ("1", "2"):
        options = ["--algo", "bold", "--env", "kitchen", *A2C[2:], *steps(4), "--boldness", boldness]
        assert main(["train", *options, "--name", boldness]) == 0
    assert main(["train", "--resume", "--algo", "bold"]) == 0  # no module is typed: the dict names it
    one, two = (load(f"runs/{name}/bold.pt").agent for name in ("1", "2"))
    assert any(not one[name].equal(two[name]) for name in one)
    assert main(["evaluate", "--algo", "bold", "--report", "r.html"]) == 0
    assert capsys.readouterr().out.startswith("kitchen, bold after 96 steps; ")
    # The platform's preset for every algorithm is that of the new one, too.
    config = from_dict(Config, {"algo": "bold", "env": "kitchen"})
    assert (config.agent_config.gamma, type(config.agent_config).__name__) == (0.99, "BoldConfig")
    assert main(["train", "--boldness", "2"]) == 2
    assert "--boldness" in capsys.readouterr().err


def test_platform_of_slates_and_streams_is_added_by_one_line_of_a_dict(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three items a step, two streams and settings of its own, with an algorithm that is added, too."""
    monkeypatch.setitem(PLATFORMS, "feed", "tests.feed:PLATFORM")
    monkeypatch.setitem(AGENTS, "bold", "bold:ALGORITHM")
    options = ["--algo", "bold", "--env", "feed", *A2C[2:], *steps(4), "--boldness", "2", "--fatigue", "0.3"]
    assert main(["train", *options, "--weights", "revenue=2"]) == 0
    assert main(["evaluate", "--algo", "bold", "--json", "t.json", "--report", "r.html"]) == 0
    assert capsys.readouterr().out.startswith("feed, bold after 96 steps; ")
    rows = {row["policy"]: row for row in json.loads((here / "t.json").read_text())["rows"]}
    assert {"bold", "bold-greedy", "mf", "mmr", "rule", "static-list", "planner"} <= rows.keys()
    for row in rows.values():  # of the platform, and so with its weights
        watch, revenue = (row["streams"][name] for name in ("watch", "revenue"))
        assert row["return_mean"] == pytest.approx(watch + 0.5 * revenue, abs=1e-4)
    assert rows["bold"]["distinct_mean"] == pytest.approx(3 * rows["bold"]["length_mean"])
    assert main(["train", "--fatigue", "0.3"]) == 2
    assert "--fatigue" in capsys.readouterr().err


def test_platform_of_a_dict_has_an_id_of_gymnasium(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLATFORMS, "my-tutor", "my_tutor:PLATFORM")
    recsys_rl.register_ids()
    try:
        sizes: dict[str, Any] = {"data": "synthetic", "num_items": 40, "num_users": 9}
        env = gymnasium.make("recsys_rl/MyTutor-v0", learning_gain=0.0, **sizes)
        before = env.reset(seed=0)[0]["history"]
        assert (before == -1).all() and env.step(7)[0]["history"].tolist() == [-1] * 19 + [7]
        with pytest.raises(UserError):
            gymnasium.make("recsys_rl/MyTutor-v0", noise=0.5)
    finally:
        gymnasium.registry.pop("recsys_rl/MyTutor-v0")


def test_own_platform_has_a_gymnasium_id(here: Path) -> None:
    """It plays as it does in our own environment, by one call; a name without users is refused."""
    env_id = recsys_rl.register_platform("my_tutor:PLATFORM")
    assert env_id == recsys_rl.register_platform("my_tutor:PLATFORM") == "recsys_rl/my_tutor.PLATFORM-v0"
    made: dict[str, Any] = {"data": "synthetic", "num_items": 20, "num_users": 10, "learning_gain": 0.5}
    env = gymnasium.make(env_id, **made)
    _, info = env.reset(seed=3)
    mask = info["action_mask"] if info else None
    seen = env.step(env.action_space.sample(mask=mask))
    assert isinstance(env.action_space, gymnasium.spaces.Discrete) and env.action_space.n == 20
    assert 0 <= float(seen[1]) <= 1
    many = gymnasium.make_vec(env_id, num_envs=3, **made)
    many.reset(seed=3)
    assert many.step(many.action_space.sample())[1].shape == (3,)
    for wrong in ("gym:CartPole-v1", "own-log", "my_tutor:NOTHING", "nowhere"):
        with pytest.raises(UserError):
            recsys_rl.register_platform(wrong)

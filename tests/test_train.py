"""The door to training: what is said, what is written, and that the same settings do the same."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl import train as train_module
from recsys_rl.checkpoint import load, previous
from recsys_rl.cli import main, train_options
from recsys_rl.config import defaults, to_toml
from recsys_rl.run import begin
from recsys_rl.utils.logger import read_log
from tests.doors import (
    A2C,
    CARTPOLE,
    DRIFT,
    PPO,
    ROOT,
    SATIATION,
    SIZES,
    assert_same_weights,
    finish,
    start,
    steps,
)

METRICS = {
    *("loss", "policy_loss", "value_loss", "entropy", "explained_variance", "lr"),
    *("reward_mean", "steps_per_second"),
}


def values(path: Path, name: str) -> dict[int, float]:
    return {step: value for step, _, row, value in read_log(path) if row == name}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_quickstart(tmp_path: Path) -> None:
    """Both commands as the README has them, from a folder without anything; plain lines, no control codes."""
    world = ("--data", "synthetic", "--num-items", "40", "--num-users", "50", "--total-timesteps", "4096")
    code, out, err = finish(start(tmp_path, "train", "--algo", "ppo", *world))
    assert (code, out) == (0, ""), err
    data, *progress, done = err.splitlines()
    assert data == "data: synthetic: 40 unit-norm Gaussian items, seed 0; 40 training users, 10 held out"
    assert progress and all(
        re.fullmatch(r"step [\d,]+ of 4,096  (return [\d.-]+  )?[\d,]+ steps/s", line) for line in progress
    )
    assert progress[-1].startswith("step 4,096 of 4,096  return ")
    assert done == "done: 4,096 steps; checkpoint: checkpoints/ppo.pt; log: logs/drift-ppo-0/log.csv"

    code, out, err = finish(
        start(tmp_path, "evaluate", "--algo", "ppo", "--checkpoint", "checkpoints/ppo.pt")
    )
    assert code == 0 and err.endswith("\nplaying oracle (9 of 9)\n")
    assert out.startswith("drift, ppo after 4,096 steps; synthetic") and "\nppo-greedy " in out
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "checkpoints/ppo.pt",
        "checkpoints/ppo.prev.pt",
        "logs/drift-ppo-0/log.csv",
        "logs/drift-ppo-0/config.toml",
    }


def test_users_with_too_few_likes_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of users 0..9, each of whom likes 0..9, the last two are cut down to 4 likes and to 1."""
    likes = [(user, item) for user in range(10) for item in range({8: 4, 9: 1}.get(user, 10))]
    Path("log.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in likes))
    sizes = [*SIZES, *PPO, "--num-items", "10", "--embedding-dim", "2", "--max-episode-steps", "5"]
    options = ["--data", "log.csv", "--min-item-likes", "1", "--cache-dir", "cache", *sizes]
    assert main(["train", *options, *steps(1)]) == 0
    data = capsys.readouterr().err.splitlines()[0]
    assert data.startswith(
        "data: log.csv (it has no column 'rating', so each row counts as a like): the 10 most liked of 10 "
        "items with at least 1 likes by training users; 8 of 10 users, those with enough likes "
        "among them (at least 5): "
    )
    found = re.search(r": (\d+) training users, (\d+) held out$", data)
    assert found is not None and int(found[1]) + int(found[2]) == 8
    assert main(["train", "--resume"]) == 0  # the checkpoint knows it, too
    assert capsys.readouterr().err.splitlines()[0] == data


def test_on_a_terminal_there_is_one_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}
    command = [sys.executable, "-m", "train", *DRIFT, *steps(60)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert lines[0].startswith("data: synthetic") and lines[-1].startswith("done: 1,440 steps")
    assert all(line.startswith("ppo on drift ━") for line in lines[1:-1])
    assert re.fullmatch(
        r"ppo on drift ━+ 1,440/1,440 return -?\d+\.\d\d  [\d,]+ steps/s 00:\d\d *", lines[-2]
    )
    assert max(map(len, lines[1:-1])) <= 100


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side has gone
        return b""


@pytest.mark.parametrize(
    "options", [DRIFT, SATIATION, A2C, CARTPOLE], ids=["drift", "satiation", "a2c", "gym"]
)
def test_the_same_settings_end_in_the_same_weights(options: list[str], here: Path) -> None:
    """Twice from the options, and once from the config.toml that a run writes beside its log."""
    algo = "a2c" if options is A2C else "ppo"
    assert main(["train", *options, *steps(5), "--seed", "7"]) == 0
    (config,) = here.glob(f"logs/*-{algo}-7/config.toml")
    for folder, argv in (
        ("twice", [*options, *steps(5), "--seed", "7"]),
        ("toml", ["--config", str(config)]),
    ):
        assert main(["train", *argv, "--checkpoint-dir", folder, "--log-dir", folder]) == 0
        assert_same_weights(here / f"checkpoints/{algo}.pt", here / folder / f"{algo}.pt")
    assert main(["train", *options, *steps(5), "--seed", "8", "--checkpoint-dir", "other"]) == 0
    with pytest.raises(AssertionError):
        assert_same_weights(here / f"checkpoints/{algo}.pt", here / f"other/{algo}.pt")


def test_the_log(here: Path) -> None:
    assert main(["train", *DRIFT, *steps(9), "--log-interval", "2"]) == 0
    path = here / "logs/drift-ppo-0/log.csv"
    assert path.read_text().splitlines()[0] == "step,seconds,name,value"
    every_second = [48, 96, 144, 192, 216]  # and the last
    for name in (*METRICS, "approx_kl", "clipfrac"):
        assert list(values(path, name)) == every_second, name
    assert values(path, "length_mean") == dict.fromkeys(every_second, 5.0)  # drift's users never leave
    # The learning rate falls linearly: update k of 9 uses lr * (1 - k / 9), from k = 0 on.
    lr = [3e-3 * (1 - k / 9) for k in (1, 3, 5, 7, 8)]
    assert list(values(path, "lr").values()) == pytest.approx(lr)
    # The greedy policy is evaluated at updates 4, 8 and at the end, and the checkpoint has the same curve.
    curve = load(Path("checkpoints/ppo.pt")).info["curve"]
    assert [row[0] for row in curve] == [96, 192, 216]
    for place, name in enumerate(("mean", "low", "high"), 1):
        assert values(path, f"eval_return_{name}") == {row[0]: row[place] for row in curve}
    assert all(low <= mean <= high for _, mean, low, high in curve)
    seconds = [row[1] for row in read_log(path)]
    assert seconds == sorted(seconds)


def test_evaluation_changes_nothing(here: Path) -> None:
    """Looking does not touch the course of learning."""
    assert main(["train", *CARTPOLE, *steps(6), "--eval-interval", "1", "--checkpoint-dir", "often"]) == 0
    assert main(["train", *CARTPOLE, *steps(6), "--eval-interval", "0", "--checkpoint-dir", "never"]) == 0
    assert len(load(Path("often/ppo.pt")).info["curve"]) == 6
    assert load(Path("never/ppo.pt")).info["curve"] == []
    assert_same_weights(here / "often/ppo.pt", here / "never/ppo.pt")


def test_the_checkpoint_before_is_kept(here: Path) -> None:
    assert main(["train", *DRIFT, *steps(7)]) == 0  # saved at 0, 3, 6 and 7
    path = Path("checkpoints/ppo.pt")
    assert (load(path).updates, load(previous(path)).updates) == (7, 6)


def test_a_new_run_keeps_the_earlier_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DRIFT, *steps(2)]) == 0
    assert " is kept as " not in capsys.readouterr().err
    before = Path("checkpoints/ppo.pt").read_bytes()
    assert main(["train", *DRIFT, *steps(7), "--seed", "1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said.count("checkpoints/ppo.pt of an earlier run is kept as ppo.old.pt") == 1
    assert Path("checkpoints/ppo.old.pt").read_bytes() == before
    assert main(["train", "--resume"]) == 0
    assert " is kept as " not in capsys.readouterr().err
    assert Path("checkpoints/ppo.old.pt").read_bytes() == before


def test_gym_evaluation_is_on_the_device_of_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown on one device: its generator is asked for there by name, and not left to the default."""
    asked: list[object] = []

    real = torch.Generator

    def generator(device: object = "not said") -> torch.Generator:
        asked.append(device)
        return real("cpu")

    config, _ = train_options([*CARTPOLE, *steps(1)])
    run = begin(config, None, torch.device("cpu"))
    monkeypatch.setattr(torch, "Generator", generator)
    train_module.evaluate_training_users(run)
    assert asked == [torch.device("cpu")]


def test_tensorboard(here: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["train", *DRIFT, *steps(3), "--tensorboard"]) == 0
    events = reader.EventAccumulator(str(here / "logs/drift-ppo-0"))
    events.Reload()
    assert {*METRICS, "eval_return_mean"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [24, 48, 72]


def test_tensorboard_that_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["train", *DRIFT, *steps(3), "--tensorboard"]) == 2
    said = '--tensorboard needs the package tensorboard: in the checkout, pip install -e ".[tensorboard]".'
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {said}"


def test_whose_log_it_is(tmp_path: Path) -> None:
    """That of a run that learns the same way, whatever it saves and says meanwhile."""
    file, config = tmp_path / "config.toml", defaults("ppo", "drift")
    assert train_module._is_of(file, config)  # there is none
    file.write_text(to_toml(config))
    longer = replace(config, train_config=replace(config.train_config, save_interval=7))
    other = replace(config, agent_config=replace(config.agent_config, lr=0.5))
    assert train_module._is_of(file, longer) and not train_module._is_of(file, other)
    file.write_text("no settings")
    assert not train_module._is_of(file, config)

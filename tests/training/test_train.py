"""Training: its messages, its files, and equal results of equal settings."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load, previous
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.training.begin import begin
from recsys_rl.training.learning_curve import evaluate_training_users
from recsys_rl.utils.logger import read_log
from tests.doors import (
    A2C,
    CARTPOLE,
    DRIFT,
    PPO,
    ROOT,
    SATIATION,
    SIZES,
    assert_names,
    assert_same_weights,
    finish,
    read_terminal,
    start,
    steps,
    without_kernels_note,
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


@pytest.mark.proof
def test_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What README's first commands run, in an empty folder, with plain lines and without control codes."""
    world = ("--data", "synthetic", "--num-items", "40", "--num-users", "50", "--total-timesteps", "4096")
    code, out, err = finish(start(tmp_path, "train", "--algo", "ppo", *world))
    assert (code, out) == (0, ""), err
    data, note, run, *progress, done = without_kernels_note(err)
    assert note.startswith("note: --total-timesteps 4,096 is 4.1 % of the 100,000 of the preset")
    assert data == "data: synthetic: 40 unit-norm Gaussian items, seed 0; 40 training users, 10 held out"
    assert run == "run: runs/drift-synthetic-ppo-0; checkpoints/ppo.pt is a link to its checkpoint"
    assert progress and all(
        re.fullmatch(r"step [\d,]+ of 4,096  (return [\d.-]+  )?[\d,]+ steps/s", line) for line in progress
    )
    assert progress[-1].startswith("step 4,096 of 4,096  return ")
    folder = "runs/drift-synthetic-ppo-0"
    assert done == f"done: 4,096 steps; checkpoint: {folder}/ppo.pt; log: {folder}/log.csv"

    monkeypatch.chdir(tmp_path)  # the next commands run in this process, which has imported torch
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["evaluate", "--algo", "ppo", "--checkpoint", "checkpoints/ppo.pt"]) == 0
    out, err = capsys.readouterr()
    assert err.endswith("\nplaying oracle (14 of 14)\n")
    assert out.startswith("drift, ppo after 4,096 steps; synthetic") and "\nppo-greedy " in out
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {name for name in found if re.match(r"cache/recsys_rl/(rule|searched)-", name)}
    assert len(kept) == 2
    assert found == kept | {
        "checkpoints/ppo.pt",
        *(f"{folder}/{name}" for name in ("ppo.pt", "ppo.prev.pt", "log.csv", "config.toml")),
    }

    assert main(["recommend", "--like", "item 7", "--like", "item 12", "--k", "5"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"checkpoint: {folder}/ppo.pt, ppo on drift after 4,096 steps"), err
    assert len(re.findall(r"^ *\d+ .*\bitem \d+\b", out, re.MULTILINE)) == 5, out


def test_log_without_ratings_has_no_catchy_items(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console and the report state it."""
    likes = [(user, item) for user in range(12) for item in range(10) if (user + item) % 4]
    Path("log.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in likes))
    sizes = [*SIZES, *PPO, "--num-items", "10", "--embedding-dim", "2", "--max-episode-steps", "5"]
    options = ["--data", "log.csv", "--min-item-likes", "1", "--cache-dir", "cache", *sizes]
    assert main(["train", "--env", "satiation", *options, *steps(1)]) == 0
    assumed = "the data hold no ratings that differ, so no item is catchy"
    assert f"satiation: {assumed}" in capsys.readouterr().err.splitlines()
    assert main(["evaluate", "--report", "r.html", "--cache-dir", "cache"]) == 0
    assert assumed in Path("r.html").read_text()


def test_training_of_few_steps_gets_one_note(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recsys_rl.training.about_run.ENOUGH", 7e-5)  # of 800,000 steps: 56
    notes = []
    for updates in (3, 2):  # of 24 steps each
        assert main(["train", *SATIATION, *steps(updates)]) == 0
        said = without_kernels_note(capsys.readouterr().err)
        notes.append([line for line in said if line.startswith("note:")])
    assert notes[0] == []
    (note,) = notes[1]
    assert_names(note, "--total-timesteps 48", "0.006 %", "800,000", "ppo on satiation")


def test_users_with_too_few_likes_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of users 0..9, each of whom likes 0..9, the last two are cut down to 4 likes and to 1."""
    likes = [(user, item) for user in range(10) for item in range({8: 4, 9: 1}.get(user, 10))]
    Path("log.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in likes))
    sizes = [*SIZES, *PPO, "--num-items", "10", "--embedding-dim", "2", "--max-episode-steps", "5"]
    options = ["--data", "log.csv", "--min-item-likes", "1", "--cache-dir", "cache", *sizes]
    assert main(["train", *options, *steps(1)]) == 0
    data = capsys.readouterr().err.splitlines()[0]
    assert data.startswith(
        "data: log.csv (columns: user, item; it has no column 'rating', so each row counts as a like): "
        "the 10 most liked of 10 items with at least 1 likes by training users; 85 events, each a like; 8 of "
        "10 users, those "
        "with enough likes among them (at least 5), with profiles from 8 likes each (median; 8 to 8), drawn "
        "by a hash of user and item"
    )
    found = re.search(r": (\d+) training users, (\d+) held out$", data)
    assert found is not None and int(found[1]) + int(found[2]) == 8
    assert main(["train", "--resume"]) == 0  # the checkpoint knows it, too
    assert capsys.readouterr().err.splitlines()[0] == data


@pytest.mark.proof
def test_one_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}
    command = [sys.executable, "-m", "train", *DRIFT, *steps(60)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := read_terminal(ours):
            shown += chunk
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line for line in without_kernels_note(text) if line.strip()]
    assert lines[0].startswith("data: synthetic") and lines[-1].startswith("done: 1,440 steps")
    assert lines[1].startswith("note: --total-timesteps 1,440")
    bars = [line for line in lines[2:-1] if re.match("ppo on drift", line)]
    # On a busy machine the bar is drawn early, when its first character is half full, and takes minutes.
    assert any(line.startswith("run: ") for line in lines[2:4])
    assert bars and all(re.match("ppo on drift [━╸]", line) for line in bars)
    assert re.fullmatch(
        r"ppo on drift ━+ 1,440/1,440 return -?\d+\.\d\d  [\d,]+ steps/s \d\d:\d\d *", bars[-1]
    )
    assert max(map(len, bars)) <= 100


@pytest.mark.parametrize(
    "options", [DRIFT, SATIATION, A2C, CARTPOLE], ids=["drift", "satiation", "a2c", "gym"]
)
def test_same_settings_end_in_same_weights(options: list[str], here: Path) -> None:
    """Twice from the options, and once from the config.toml that a run writes beside its log."""
    algo = "a2c" if options is A2C else "ppo"
    assert main(["train", *options, *steps(5), "--seed", "7"]) == 0
    (config,) = here.glob(f"runs/*-{algo}-7/config.toml")
    first = config.with_name(f"{algo}.pt")
    for name, argv in (("twice", [*options, *steps(5), "--seed", "7"]), ("toml", ["--config", str(config)])):
        assert main(["train", *argv, "--name", name]) == 0
        assert_same_weights(first, here / f"runs/{name}/{algo}.pt")
    assert main(["train", *options, *steps(5), "--seed", "8", "--name", "other"]) == 0
    with pytest.raises(AssertionError):
        assert_same_weights(first, here / f"runs/other/{algo}.pt")


def test_log_file(here: Path) -> None:
    assert main(["train", *DRIFT, *steps(9), "--log-interval", "2"]) == 0
    path = here / "runs/drift-synthetic-ppo-0/log.csv"
    assert path.read_text().splitlines()[0] == "step,seconds,name,value"
    every_second = [48, 96, 144, 192, 216]  # and the last
    for name in (*METRICS, "approx_kl", "clipfrac"):
        assert list(values(path, name)) == every_second, name
    assert values(path, "length_mean") == dict.fromkeys(every_second, 5.0)  # drift's users never leave
    # The learning rate falls linearly: update k of 9 uses lr * (1 - k / 9), from k = 0 on.
    lr = [3e-3 * (1 - k / 9) for k in (1, 3, 5, 7, 8)]
    assert list(values(path, "lr").values()) == pytest.approx(lr)
    # The greedy policy is evaluated before the first update, after 4 and 8, and at the end.
    curve = load(Path("checkpoints/ppo.pt")).info["curve"]
    assert [row[0] for row in curve] == [0, 96, 192, 216]
    for place, name in enumerate(("mean", "low", "high"), 1):
        assert values(path, f"eval_return_{name}") == {row[0]: row[place] for row in curve}
    assert all(low <= mean <= high for _, mean, low, high in curve)
    seconds = [row[1] for row in read_log(path)]
    assert seconds == sorted(seconds)


def test_evaluation_does_not_change_training(here: Path) -> None:
    """Periodic evaluation does not affect learning."""
    assert main(["train", *CARTPOLE, *steps(6), "--eval-interval", "1", "--name", "often"]) == 0
    assert main(["train", *CARTPOLE, *steps(6), "--eval-interval", "0", "--name", "never"]) == 0
    assert len(load(Path("runs/often/ppo.pt")).info["curve"]) == 7
    assert load(Path("runs/never/ppo.pt")).info["curve"] == []
    assert_same_weights(here / "runs/often/ppo.pt", here / "runs/never/ppo.pt")


def test_previous_checkpoint_is_kept(here: Path) -> None:
    assert main(["train", *DRIFT, *steps(7)]) == 0  # saved at 0, 3, 6 and 7
    path = Path("runs/drift-synthetic-ppo-0/ppo.pt")
    assert (load(path).updates, load(previous(path)).updates) == (7, 6)


def test_gym_evaluation_is_on_the_device_of_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown on one device: the generator is made there by name, not by default."""
    asked: list[object] = []

    real = torch.Generator

    def generator(device: object = "not said") -> torch.Generator:
        asked.append(device)
        return real("cpu")

    config = train_options([*CARTPOLE, *steps(1)]).config
    run = begin(config, None, torch.device("cpu"))
    monkeypatch.setattr(torch, "Generator", generator)
    evaluate_training_users(run)
    assert asked == [torch.device("cpu")]


def test_tensorboard(here: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["train", *DRIFT, *steps(3), "--tensorboard"]) == 0
    events = reader.EventAccumulator(str(here / "runs/drift-synthetic-ppo-0"))
    events.Reload()
    assert {*METRICS, "eval_return_mean"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [24, 48, 72]

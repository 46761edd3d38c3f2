"""Mistakes of a user end in one sentence and exit code 2, and no file is lost or half-written."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import load, sealed
from recsys_rl.cli import main
from recsys_rl.errors import UserError, one_line
from recsys_rl.training import train as train_module
from recsys_rl.utils import logger as logger_module
from tests.doors import (
    A2C,
    CARTPOLE,
    DRIFT,
    PPO,
    SATIATION,
    SIZES,
    assert_names,
    steps,
)

PPO_FILE = Path("runs/drift-synthetic-ppo-0/ppo.pt")
A2C_FILE = Path("runs/drift-synthetic-a2c-0/a2c.pt")
LATEST = Path("checkpoints/ppo.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of each algorithm."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", *A2C, *steps(4)]) == main(["train", *DRIFT, *steps(4)]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder, to damage its files."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error sentence of the command ``argv``."""
    capsys.readouterr()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    *before, last = err.splitlines()
    assert last.startswith("error: ") and last.endswith(".") and out == ""
    told = ("data: ", "note: ", "run: ", "resuming ", "checkpoint: ")
    assert all(line.startswith(told) or " is kept as " in line for line in before), err
    return last.removeprefix("error: ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate --json checkpoints/ppo.pt", "--json checkpoints/ppo.pt"),
        ("evaluate --report checkpoints/a2c.pt", "--report checkpoints/a2c.pt"),
        ("evaluate --json x.out --report ./x.out", "x.out"),
        ("evaluate --json log.csv/x.json", "log.csv/x.json"),
        ("evaluate --report log.csv/x.html", "log.csv/x.html"),
    ],
)
def test_output_that_would_replace_something(
    line: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("log.csv").touch()
    before = files(folder)
    assert words in sentence(line.split(), capsys)
    assert files(folder) == before


# ---- checkpoints


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def rewrite(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change what is in the file and seal it again, as an attacker would."""

    def apply(path: Path) -> None:
        texts, tensors = sealed.read(path)
        change(texts, tensors)
        sealed.write(path, texts, tensors)

    return apply


def drop(prefix: str) -> Callable[[Path], None]:
    def change(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return rewrite(change)


def spoil(path: Path) -> None:
    rewrite(lambda _, t: t[next(name for name in t if name.startswith("agent.model."))].fill_(torch.nan))(
        path
    )


BROKEN: dict[str, Callable[[Path], Any]] = {
    "truncated": truncate,
    "one bit": flip,
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "no weights": drop("agent."),
    "no sessions": drop("env."),
    "no streams": drop("generators."),
    "no catalogue": drop("catalogue."),
    "no device": rewrite(lambda texts, _: texts["info"].update(device="abacus")),
    "no curve": rewrite(lambda texts, _: texts.update(info={})),
    "a curve of words": rewrite(lambda texts, _: texts["info"].update(curve=[["a", "b", "c", "d"]])),
    "other dials": rewrite(lambda texts, _: texts["config"]["model_config"].update(hidden_dims=[7])),
    "field of another platform": rewrite(
        lambda texts, _: texts["config"]["env_config"].update(normalize_obs=True)
    ),
    "option without effect": rewrite(lambda texts, _: texts["config"]["model_config"].update(index="exact")),
}


def put(name: str, value: float) -> Callable[[Path], None]:
    """Set every number of a tensor."""
    return rewrite(lambda _, tensors: tensors[name].fill_(value))


def put_sessions(**sums: list[float]) -> Callable[[Path], None]:
    parts = {f"experience.{name}": torch.tensor(values) for name, values in sums.items()}
    return rewrite(lambda _, tensors: tensors.update(parts))


def pend_nan(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """The second half of a pair of normal numbers, which torch keeps for the next call, becomes NaN."""
    state = bytearray(tensors["generators.users"].numpy().tobytes())
    state[5016:5044] = struct.pack("<dddi", *[float("nan")] * 3, 1)
    tensors["generators.users"] = torch.frombuffer(state, dtype=torch.uint8)


OUT_OF_RANGE: dict[str, Callable[[Path], Any]] = {
    "a step of the user, too late": put("env.user_state.step", 1e9),
    "a step of the user, one too late": put("env.user_state.step", 5),
    "a user of NaN": put("env.user_state.user", torch.nan),
    "a session of minus five steps": put("env.session.steps", -5),
    "a session beyond its limit": put("env.session.steps", 5),
    "an item beyond the catalogue": put("env.session.history", 24),
    "an item far beyond the catalogue": put("env.session.history", 1e9),
    "an item of minus two": put("env.session.history", -2),
    "a signal without bounds": put("env.session.signals", torch.inf),
    "a user who is not in the data": put("env.session.users", 99),
    "steps of the optimiser": put("agent.optimizer.steps", -1),
    "very many steps of the optimiser": put("agent.optimizer.steps", 2**62),
    "a negative square": put("agent.optimizer.exp_avg_sq", -1.0),
    "updates of the agent": put("agent.updates", 3),
    "updates of the file": rewrite(lambda texts, _: texts.update(updates=3)),
    "more updates than planned": rewrite(
        lambda texts, x: (texts.update(updates=9, step=9 * 24), x["agent.updates"].fill_(9))
    ),
    "another step": rewrite(lambda texts, _: texts.update(step=7)),
    "a pending number of NaN": rewrite(pend_nan),
    "a generator of zeros": put("generators.policy", 0),
    "sums of too few sessions": put_sessions(running=[0.0]),
    "a sum of NaN": put_sessions(running=[float("nan")] * 4),
    "sessions of negative length": put_sessions(lengths=[-1.0] * 4),
}


@pytest.mark.parametrize("how", OUT_OF_RANGE)
def test_numbers_out_of_range_in_a_checkpoint(
    how: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hash is valid, but the numbers are impossible."""
    OUT_OF_RANGE[how](PPO_FILE)
    before = files(folder)
    sentence(["train", "--resume"], capsys)
    assert files(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        put("env.actions", 255),
        put("env.actions", 2),
        rewrite(lambda _, x: x.update({"env.actions": x["env.actions"].float()})),
        put("env.obs.mean", torch.nan),
        put("env.return.count", -1.0),
        put("env.obs.sum_of_squares", -1.0),
    ],
)
def test_numbers_out_of_range_in_a_checkpoint_of_a_gym_environment(
    change: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *CARTPOLE, *steps(1), "--eval-interval", "0"]) == 0
    change(Path("checkpoints/ppo.pt").resolve())
    sentence(["train", "--resume"], capsys)


def test_checkpoint_of_users_without_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SATIATION, *steps(1), "--eval-interval", "0"]) == 0
    path = Path("checkpoints/ppo.pt").resolve()
    whole = path.read_bytes()
    for patience in (torch.nan, 0.0, 1.5):
        path.write_bytes(whole)
        put("env.user_state.patience", patience)(path)
        sentence(["train", "--resume"], capsys)


def test_catalogue_without_available_items(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("catalogue.available", False)(PPO_FILE)
    for command in (["train", "--resume"], ["evaluate"]):
        sentence(command, capsys)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("door", ["resume", "evaluate"])
def test_broken_checkpoint(how: str, door: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if door == "evaluate" and how in ("no sessions", "no streams", "no curve", "no device"):
        pytest.skip("evaluation needs no session, stream or curve of the run")
    BROKEN[how](PPO_FILE)
    before = files(folder)
    sentence(["train", "--resume"] if door == "resume" else ["evaluate"], capsys)
    assert files(folder) == before and not Path("exploded").exists()


def test_error_names_the_previous_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate(PPO_FILE)
    before = PPO_FILE.resolve().with_name("ppo.prev.pt")
    assert f"give {before}, " in sentence(["evaluate"], capsys)
    assert main(["evaluate", "--checkpoint", str(before)]) == 0


def test_resume_on_another_kind_of_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(PPO_FILE).info["device"] == "cpu"
    rewrite(lambda texts, _: texts["info"].update(device="cuda"))(PPO_FILE)
    before = files(folder)
    said = sentence(["train", "--resume", "--device", "cpu"], capsys)
    assert_names(said, str(PPO_FILE), "on cuda", "on cpu", "--device cuda", "--resume", "--run")
    assert files(folder) == before


def test_environment_error_on_resume_is_no_checkpoint_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay of a resumed run executes foreign code, whose errors are reported as they are."""
    gymnasium.register("RecsysTestFails-v0", lambda **_: Nan())
    try:
        options = ["--env", "gym:RecsysTestFails-v0", *SIZES, *PPO, *steps(3), "--eval-interval", "0"]
        assert main(["train", *options]) == 0

        def step(*_: Any) -> Any:
            raise ValueError("out of coffee")

        monkeypatch.setattr(Nan, "step", step)
        with pytest.raises(ValueError, match=r"^out of coffee$"):
            main(["train", "--resume"])
    finally:
        gymnasium.registry.pop("RecsysTestFails-v0")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate --algo a2c --checkpoint checkpoints/ppo.pt", "is a checkpoint of ppo, not of a2c"),
        ("evaluate --env satiation", "was trained on drift, not on satiation"),
        ("train --resume --env satiation", "was made with --env drift, but --env is satiation now"),
        ("train --resume --env gym:CartPole-v1", "was made with --env drift, but --env is gym:Cart"),
        ("train --resume --num-items 500", "was made with --num-items 24, but --num-items is 500 now"),
        (
            "train --resume --data movielens",
            "was made with --data synthetic, but --data is movielens now",
        ),
        ("train --resume --seed 1", "was made with --seed 0, but --seed is 1 now"),
        ("train --resume --init-from x.pt", "was made without --init-from, but --init-from is x.pt now"),
        ("train --resume --total-timesteps 999", "was made with --total-timesteps 96"),
        (
            "train --resume --algo a2c --lr 1",
            "runs/drift-synthetic-a2c-0/a2c.pt was made with --lr 0.005, but --lr is",
        ),
        ("train --run elsewhere", "--run elsewhere is not a folder: give the folder of one run"),
        ("train --run runs", "--run runs holds no ppo.pt or a2c.pt"),
        ("train --run runs/drift-synthetic-ppo-0 --algo a2c", "a2c.pt does not exist"),
        ("train --resume --run runs/drift-synthetic-ppo-0", "--resume resumes the latest run and --run"),
        ("train --resume --name other", "--name"),
        ("train --resume --runs-dir other --seeds 0-4", "--runs-dir"),
        ("train --resume --seeds 0-4", "--seeds"),
    ],
)
def test_checkpoint_of_another_run(
    line: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(folder)
    assert words in sentence(line.split(), capsys)
    assert files(folder) == before


def test_checkpoint_under_the_other_algorithms_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(A2C_FILE, PPO_FILE)
    assert "is a checkpoint of a2c, not of ppo" in sentence(["train", "--resume"], capsys)


def test_module_names_in_files_are_not_imported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("spy.py").write_text("import pathlib; pathlib.Path('imported').touch()\n")
    drop("catalogue.")(PPO_FILE)
    drop("population.")(PPO_FILE)
    no_world = {"catalogue": None, "population": None}
    rewrite(lambda texts, _: texts.update(no_world, config=texts["config"] | {"env": "gym:spy:X-v0"}))(
        PPO_FILE
    )
    assert "type --env gym:spy:X-v0" in sentence(["evaluate"], capsys)
    assert "type --env gym:spy:X-v0" in sentence(["train", "--resume"], capsys)
    assert not Path("imported").exists()


# ---- data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "log.csv"),
        (b"user,item\n", "log.csv"),
        (b"person,item\n1,2\n", "user"),
        (b"user\n1\n", "item"),
        (b"user,item\n1,\x002\n", "log.csv"),
        (b"user,item\n1,9223372036854775808\n", "log.csv"),
        (b"user,item\n1,2\n1,2\n1,2\n", "log.csv"),
        (b"user,item,rating\n1,2,nan\n", "log.csv"),
        (b"user,item,rating\n1,2,good\n", "log.csv"),
        (b"user,item\n1,2\n3,4\n", "--min-item-likes"),
        (b"\x80\x05K\x01.", "log.csv"),
    ],
)
def test_data(
    content: bytes,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_bytes(content)
    said = sentence(["train", "--data", "log.csv", "--cache-dir", "cache"], capsys)
    assert words in said
    assert [path for path in files(tmp_path) if not path.endswith("log.csv")] == []


def test_control_characters_in_file_names_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, a carriage return, a text that runs from right to left."""
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[31m\rb\u202e.csv"
    Path(name).write_text("user,item\n1,2\n3,4\n")
    data = ["train", "--data", name, "--cache-dir", "cache"]
    for line in (data, ["train", "--config", name], ["evaluate", "--checkpoint", name]):
        said = sentence(line, capsys)
        assert said.isprintable() and "a\\x1b[31m\\rb\\u202e.csv" in said


def test_long_errors_are_one_line() -> None:
    assert one_line("two\nlines") == "two\\nlines" and one_line("Amélie: \x9b2J") == "Amélie: \\x9b2J"
    long = one_line(UserError(f"begins {'x' * 10_000_000} ends."))
    assert len(long) < 2_000 and long.startswith("begins x") and long.endswith("x ends.")


# ---- disks


def test_runs_folder_that_is_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").touch()
    before = files(folder)
    for place in ("taken", "taken/here"):
        said = sentence(["train", *DRIFT, *steps(1), "--runs-dir", place], capsys)
        assert_names(said, " taken:", "--runs-dir")
    assert files(folder) == before


@pytest.mark.parametrize(
    "option", ["--name=" + 100 * "漢", "--runs-dir=" + 300 * "x"], ids=["name", "runs_dir"]
)
def test_run_name_too_long_for_the_disk(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(folder)
    assert_names(sentence(["train", *DRIFT, *steps(1), option], capsys), "--name", "--runs-dir")
    assert files(folder) == before


def test_invalid_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/drift-synthetic-ppo-0/log.csv").write_bytes(b"\x00\xff")
    assert "log.csv is not the log of a run" in sentence(["train", "--resume"], capsys)


def test_disk_that_fills_up_during_a_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third save fails: the file of the second stays, and the run can be resumed from it."""
    syncs: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        syncs.append(number)
        if len(syncs) > 5:  # the settings; then a file and its folder, for each save
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert main(["train", *DRIFT, *steps(9)]) == 2
    err = capsys.readouterr().err
    run = Path("runs/drift-synthetic-ppo-0-2")
    assert f"error: {run}/ppo.pt can't be written (No space left on device)" in err
    assert load(LATEST).updates == 3
    assert {path.name for path in run.iterdir()} == {"ppo.pt", "ppo.prev.pt", "log.csv", "config.toml"}
    assert main(["train", "--resume"]) == 0 and load(LATEST).updates == 9


def test_disk_that_fills_up_during_a_log_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(logger_module.Logger):
        def _append(self, rows: list[tuple[Any, ...]]) -> None:
            if rows[0][0] == 24 * 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super()._append(rows)

    monkeypatch.setattr(train_module, "Logger", Full)
    assert main(["train", *DRIFT, *steps(9)]) == 2
    assert "log.csv can't be written at step 120 (No space left on device)" in capsys.readouterr().err
    assert load(LATEST).updates == 3


# ---- numbers that break


class Nan(gymnasium.Env[Any, Any]):
    """Its third reward is NaN."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)
    clock = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        return (
            np.zeros(2, np.float32),
            float("nan") if self.clock > 30 else 1.0,
            False,
            self.clock % 4 == 0,
            {},
        )


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_nan_loss_stops_the_run(algo: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = DRIFT if algo == "ppo" else A2C
    said = sentence(["train", *options, *steps(50), "--lr", "1e30"], capsys)
    kept = f"runs/drift-synthetic-{algo}-0-2/{algo}.pt"
    assert "loss became " in said and f"and {kept} keeps the untrained policy" in said
    path = Path(f"checkpoints/{algo}.pt")
    assert load(path).updates == 0  # it was written before the first update, so it can be evaluated
    assert main(["evaluate", "--algo", algo]) == 0


def test_nan_reward_stops_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gymnasium.register("RecsysTestNan-v0", lambda **_: Nan())
    try:
        said = sentence(
            ["train", "--env", "gym:RecsysTestNan-v0", *SIZES, *PPO, *steps(50), "--eval-interval", "0"],
            capsys,
        )
    finally:
        gymnasium.registry.pop("RecsysTestNan-v0")
    # 30 good rewards are 5 updates of 6 steps; the checkpoint of the third is the last before the sixth.
    assert said.startswith("loss became nan at step 144 (update 6), so the run stopped and ")
    assert "runs/gym-RecsysTestNan-v0-ppo-0/ppo.pt keeps the state of step 72" in said
    assert load(LATEST).updates == 3

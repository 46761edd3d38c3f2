"""Tasks in processes of this machine: order, errors, killed processes, and answers equal to those of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.distributed import in_processes
from recsys_rl.distributed.in_processes import InProcesses
from recsys_rl.errors import UserError
from recsys_rl.evaluation import evaluate as evaluate_module
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.logs.ope import judge
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.writer import write_decisions
from recsys_rl.training import train_seeds as train_seeds_module
from recsys_rl.training.folder import MARK
from recsys_rl.training.train import Interrupted, updates
from recsys_rl.training.train_seeds import SeedRun, _run_of, train_run, train_seeds
from tests.distributed.test_distributed import children, gone, wait_until
from tests.distributed.test_distributed import updates as updates_in
from tests.doors import CARTPOLE, DRIFT, SATIATION, assert_same_weights, steps, train_in
from tests.log_in_parts import log_of, write_parts
from tests.workers import counted_workers


def killed_once(folder: Path) -> Callable[[int], int]:
    """The square of a number; the process of each odd number is killed at its first try."""

    def square(number: int) -> int:
        mark = folder / str(number)
        if number % 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    return square


def test_results_are_in_order_and_killed_tasks_are_done_again(tmp_path: Path) -> None:
    results = InProcesses(2)(killed_once(tmp_path), iter(range(3)))
    assert [*results] == [0, 1, 4]
    assert os.listdir(tmp_path) == ["1"]


def test_task_whose_process_always_ends_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the signal or the exit code, and blames the memory for SIGKILL alone."""
    monkeypatch.setattr(in_processes, "TRIES", 2)

    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(_: int) -> None:
        os._exit(3)

    with pytest.raises(UserError, match=r"SIGKILL.*memory"):
        [*InProcesses(1)(kill, [0])]
    with pytest.raises(UserError, match=r"exit code 3: (?!.*memory)"):
        [*InProcesses(1)(leave, [0])]


def test_threads_of_workers() -> None:
    """One thread, also where this process has several; --threads gives more."""

    def threads(_: int) -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert [*InProcesses(1)(threads, [0])] == [1]
        assert [*InProcesses(1, 2)(threads, [0])] == [2]
    finally:
        torch.set_num_threads(before)


def test_processes_end_when_the_command_is_killed(tmp_path: Path) -> None:
    """Killed as for want of memory, the command can't end them itself; a training writes its checkpoint."""
    words = ["train", *DRIFT, "--total-timesteps", "100000000", "--seeds", "0,1", "--jobs", "2"]
    command = subprocess.Popen([sys.executable, "-m", "recsys_rl.cli", *words], cwd=tmp_path, text=True)
    wait_until(lambda: len(list(tmp_path.glob("runs/*/ppo.pt"))) == 2, command)
    pids = children(command)
    command.kill()
    command.wait()
    wait_until(lambda: all(gone(pid) for pid in pids))
    assert all(updates_in(path) > 0 for path in tmp_path.glob("runs/*/ppo.pt"))


def test_error_of_a_task_is_raised_here() -> None:
    def refuse(number: int) -> int:
        if number == 1:
            raise UserError("Number 1 is wrong: give another.")
        if number == 2:
            raise ZeroDivisionError("two")
        return number

    results = InProcesses(1)(refuse, range(3))
    assert next(results) == 0
    with pytest.raises(UserError, match=r"^Number 1 is wrong: give another\.$"):
        next(results)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: two"):
        [*InProcesses(1)(refuse, [2])]


def test_ope_of_a_folder_is_the_same_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit; in one file the parts are others, and so are the last digits."""
    monkeypatch.setattr(ope_log, "FITTED", 300)
    log, out = log_of(300, 3), tmp_path / "out.json"
    write_parts(tmp_path / "sixteen", log, 16)
    write_parts(tmp_path / "one", log, 1)

    def answer(name: str, *words: str) -> dict[str, Any]:
        shown = ["--policy", "random", "--no-world", "--json", str(out)]
        assert main(["ope", "--log", str(tmp_path / name), *shown, *words]) == 0
        found: dict[str, Any] = json.loads(out.read_text())
        return {key: value for key, value in found.items() if key != "about"}

    sixteen = answer("sixteen")
    assert answer("sixteen", "--jobs", "2") == sixteen
    values = {row["estimator"]: (row["value"], row["low"], row["high"]) for row in answer("one")["rows"]}
    assert len(values) > 4
    for row in sixteen["rows"]:
        assert values[row["estimator"]] == pytest.approx((row["value"], row["low"], row["high"]), rel=1e-9)


def test_policies_that_draw_are_judged_the_same_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPO draws the sessions of `world`, in each part from streams of its own."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)  # the fit need not be good
    checkpoint = train_in(tmp_path / "run", *SATIATION, *steps(2))
    log, out = tmp_path / "log", tmp_path / "out.json"
    record(RecordConfig(str(checkpoint), sessions=24, users="all", out=str(log), parts=40, quiet=True))
    monkeypatch.setattr(ope_log, "FITTED", 40)
    begun = counted_workers(monkeypatch)

    def answer(*words: str) -> dict[str, Any]:
        of = ["--checkpoint", str(checkpoint), "--policy", "ppo"]
        assert main(["ope", "--log", str(log), *of, "--json", str(out), *words]) == 0
        found: dict[str, Any] = json.loads(out.read_text())
        return {key: value for key, value in found.items() if key != "about"}

    one, two = answer(), answer("--jobs", "2")
    assert one == two and len(begun) == 2
    assert {"sdr", "world"} <= {row["estimator"] for row in one["rows"]}
    monkeypatch.setattr(judge, "_seed_draws", lambda *_: None)  # one stream through all parts
    assert answer() != one


def test_options_without_effect_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_decisions(tmp_path / "log.parquet", log_of(60, 3))
    Path("events.csv").write_text("user,item,time\na,x,1\na,y,2\nb,x,3\n")
    commands = (
        ["ope", "--log", "log.parquet", "--policy", "random", "--no-world"],
        ["data", "describe", "log.parquet"],
        ["data", "describe", "events.csv"],
    )
    for words in commands:
        for more, expected in (([], False), (["--jobs", "2"], True)):
            assert main([*words, *more]) == 0
            assert ("--jobs and --on change nothing" in capsys.readouterr().err) is expected

    def engine(function: Callable[[Any], Any], items: Any) -> Any:
        return map(function, items)

    def stop(*_: object, **settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(evaluate_module, "_round", stop)
    monkeypatch.setattr(train_seeds_module, "train", stop)
    config = train_options([*DRIFT, *steps(1)]).config
    path = train_in(tmp_path / "run", *CARTPOLE, *steps(1))  # its table has no searches
    for work in (lambda: evaluate(path, map_tasks=engine), lambda: train_seeds([config], engine)):
        capsys.readouterr()
        with pytest.raises(ZeroDivisionError):
            work()
        assert "--jobs and --on change nothing" in capsys.readouterr().err


def test_mistakes_end_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ope_log, "FITTED", 100)
    log = log_of(60, 3)
    write_parts(tmp_path, log, 2)
    other = replace(log, header=replace(log.header, discount=0.5), sessions=log.sessions + 60)
    write_decisions(tmp_path / "02.parquet", other)
    words = ["ope", "--log", str(tmp_path), "--policy", "random"]
    assert main([*words, "--jobs", "2"]) == 2  # parts of different logs
    assert main([*words, "--jobs", "2", "--on", "ray"]) == 2
    assert main([*words, "--jobs", "0"]) == 2


def test_seeds_side_by_side_are_those_of_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run of seed 1 was killed after its second update, and goes on."""
    monkeypatch.chdir(tmp_path)
    words = ["train", *DRIFT, *steps(3)]
    assert main([*words, "--seed", "1", "--runs-dir", "alone"]) == 0
    run = _run_of(train_options([*words[1:], "--seed", "1", "--name", "n-1"]).config)
    for update in updates(run.config, folder=run.folder):
        if update.run.updates == 2:
            break
    path, said = train_run(run)
    assert_same_weights(path, Path("alone/drift-synthetic-ppo-1/ppo.pt"))
    assert said.startswith("done")
    capsys.readouterr()
    assert main([*words, "--seeds", "1,2", "--jobs", "2"]) == 0
    assert_same_weights(path, Path("runs/drift-synthetic-ppo-1/ppo.pt"))
    assert Path("checkpoints/ppo.pt").samefile("runs/drift-synthetic-ppo-2/ppo.pt")
    said = capsys.readouterr().err
    assert said.index("seed 1, 1 of 2: done") < said.index("seed 2, 2 of 2: done")
    assert main(["train", *DRIFT, "--jobs", "2"]) == 2


def test_two_commands_never_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders are taken at once, and one that others made is neither deleted nor resumed."""
    monkeypatch.chdir(tmp_path)
    configs = [train_options([*DRIFT, *steps(1), "--seed", seed]).config for seed in "12"]

    def broken(function: Callable[[Any], Any], runs: Any) -> Any:
        assert [run.folder.path.name[-2:] for run in runs] == ["-1", "-2"]
        second = _run_of(configs[0])
        assert second.folder.path.name == "drift-synthetic-ppo-1-2" and second.folder.path.is_dir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_seeds(configs, broken)
    assert "Seeds not finished: 1, 2" in capsys.readouterr().err
    assert [path.name for path in Path("runs").iterdir()] == [
        "drift-synthetic-ppo-1-2"
    ]  # the second command's

    run = _run_of(configs[0])
    shutil.rmtree(run.folder.path)
    with pytest.raises(UserError):
        train_run(run)
    theirs = run.folder.path / "ppo.pt"
    for content in ({}, {theirs: b"a live run"}, {run.folder.path / MARK: b"of another command"}):
        run.folder.path.mkdir(exist_ok=True)
        for path, data in content.items():
            path.write_bytes(data)
        with pytest.raises(UserError):
            train_run(run)
        run.folder.release()
    assert theirs.read_bytes() == b"a live run"

    (Path("runs") / "mine-2").mkdir(parents=True)
    named = [train_options([*DRIFT, "--seed", seed, "--name", f"mine-{seed}"]).config for seed in "12"]
    with pytest.raises(UserError):  # and the folder that was made first is removed again
        train_seeds(named, broken)
    assert not Path("runs/mine-1").exists()


def test_interrupted_run_goes_on_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process gets SIGTERM, which ``train`` answers so; then it is over, and its run is not."""
    monkeypatch.chdir(tmp_path)
    run = _run_of(train_options([*DRIFT, *steps(2), "--seed", "1"]).config)
    mark = tmp_path / "mark"

    def interrupted(*_: object, **settings: object) -> Path:
        raise Interrupted

    def once(run: SeedRun) -> tuple[Path, str]:
        if not mark.exists():
            mark.touch()
            setattr(train_seeds_module, "train", interrupted)  # noqa: B010
        return train_run(run)

    ((path, said),) = InProcesses(1)(once, [run])
    assert mark.exists() and updates_in(path) == 2 and said.startswith("done")


@pytest.mark.proof
def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    words = ["train", *DRIFT, "--total-timesteps", "100000000", "--seeds", "0,1", "--jobs", "2"]
    before = signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a suite in the background may ignore it, and all below
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "recsys_rl.cli", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        wait_until(lambda: len(list(tmp_path.glob("runs/*/ppo.pt"))) == 2, command)
        pids = children(command)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=100)
    finally:
        command.kill()
    assert command.returncode == 130 and "Seeds not finished: 0, 1" in said
    wait_until(lambda: all(gone(pid) for pid in pids))  # Python's own helper process ends a moment later
    assert all(updates_in(path) > 0 for path in tmp_path.glob("runs/*/ppo.pt"))

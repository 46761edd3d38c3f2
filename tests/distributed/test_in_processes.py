"""Tasks in processes of this machine: order, errors, killed processes, and answers equal to those of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.distributed import in_processes
from recsys_rl.distributed.in_processes import InProcesses
from recsys_rl.errors import UserError
from recsys_rl.tables.writer import write_decisions
from recsys_rl.workflows import ope_log
from recsys_rl.workflows.train import updates
from recsys_rl.workflows.train_seeds import _run_of, train_run
from tests.distributed.test_distributed import children, gone, wait_until
from tests.distributed.test_distributed import updates as updates_in
from tests.doors import DRIFT, assert_same_weights, steps
from tests.log_in_parts import log_of, write_parts


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


def test_task_that_is_always_killed_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_processes, "TRIES", 2)

    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError):
        [*InProcesses(1)(kill, [0])]


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
    for wrong in (["--jobs", "2"], ["--seeds", "1,2", "--jobs", "2", "--num-processes", "2"]):
        assert main(["train", *DRIFT, *wrong]) == 2


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    words = ["train", *DRIFT, "--total-timesteps", "100000000", "--seeds", "0,1", "--jobs", "2"]
    command = subprocess.Popen(
        [sys.executable, "-m", "recsys_rl.cli", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(tmp_path.glob("runs/*/ppo.pt"))) == 2, command)
    pids = children(command)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=100)
    assert command.returncode == 130 and "Seeds not finished: 0, 1" in said
    wait_until(lambda: all(gone(pid) for pid in pids))  # Python's own helper process ends a moment later
    assert all(updates_in(path) > 0 for path in tmp_path.glob("runs/*/ppo.pt"))

"""Tasks in processes of this machine: order, errors, killed processes, and answers equal to those of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_rl.cli import main
from recsys_rl.distributed.in_processes import InProcesses
from recsys_rl.errors import UserError
from recsys_rl.workflows import ope_log
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
    results = InProcesses(2)(killed_once(tmp_path), iter(range(5)))
    assert [*results] == [0, 1, 4, 9, 16]
    assert sorted(os.listdir(tmp_path)) == ["1", "3"]


def test_task_that_is_always_killed_ends_the_command() -> None:
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

    results = InProcesses(2)(refuse, range(3))
    assert next(results) == 0
    with pytest.raises(UserError, match=r"^Number 1 is wrong: give another\.$"):
        next(results)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: two"):
        [*InProcesses(1)(refuse, [2])]


def test_ope_of_a_folder_is_the_same_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ope_log, "FITTED", 300)
    log = write_parts(tmp_path / "log", log_of(300, 3), 16)

    def answer(*words: str) -> str:
        out = tmp_path / "out.json"
        shown = ["--policy", "random", "--no-world", "--json", str(out)]
        assert main(["ope", "--log", str(log), *shown, *words]) == 0
        return out.read_text()

    assert answer("--jobs", "2") == answer()
    assert main(["ope", "--log", str(log), "--policy", "random", "--jobs", "2", "--on", "ray"]) == 2

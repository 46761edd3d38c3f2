"""Run the package's commands, in a copy of this process that has torch already or as a program of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import torch

PATIENCE = 300.0  # seconds until a command that hangs is killed
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


class CommandFailed(Exception):
    """A command ended with another exit code than 0; its text is the last line that the command printed."""


def package_folder() -> Path:
    """The folder that holds the package ``recsys_rl`` of this interpreter."""
    found = importlib.util.find_spec("recsys_rl")
    assert found is not None and found.origin is not None
    return Path(found.origin).parents[1]


def environment(folder: Path) -> dict[str, str]:
    """One thread, and an empty home and cache in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return kept | QUIET | {"HOME": str(folder / "home"), "PYTHONPATH": str(package_folder())}


def run(folder: Path, *words: str) -> str:
    """`recsys-rl words` in ``folder``: its standard output. Raises CommandFailed."""
    out, err = folder / "out.txt", folder / "err.txt"
    child = os.fork()  # a new interpreter would import torch again: 2 s for each command
    if child == 0:
        os._exit(_command(folder, words, out, err))
    end = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    if os.waitstatus_to_exitcode(status):
        said = (err.read_text() + out.read_text()).strip() or "nothing was printed"
        raise CommandFailed(f"exit {os.waitstatus_to_exitcode(status)}: {said.splitlines()[-1]}")
    return out.read_text()


def _command(folder: Path, words: tuple[str, ...], out: Path, err: Path) -> int:
    """The console script with these words, in the child process: its exit code."""
    try:
        os.environ.clear()
        os.environ.update(environment(folder))
        os.chdir(folder)
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        torch.set_num_threads(1)
        sys.argv = ["recsys-rl", *words]
        script: Callable[[], int | None] = next(
            iter(entry_points(group="console_scripts", name="recsys-rl"))
        ).load()
        code = script()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:  # a traceback that a user would see
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`recsys-rl words` in ``folder`` as a program of its own; what it prints goes to files there."""
    name = "-".join(word for word in words[:1])
    with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "recsys_rl", *words],
            cwd=folder,
            env=environment(folder),
            text=True,
            stdout=out,
            stderr=err,
        )


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until ``happened``; CommandFailed if the process ends before that."""
    end = time.monotonic() + PATIENCE
    while not happened():
        if process.poll() is not None or time.monotonic() > end:
            stop(process)
            raise CommandFailed(f"ended with exit code {process.poll()} before it was stopped")
        time.sleep(0.005)


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> int:
    """Send a signal to a process that still runs, and wait: its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(PATIENCE)

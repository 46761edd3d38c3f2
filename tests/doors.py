"""Tiny runs of train and evaluate, in this process and in other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from recsys_rl import cli
from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.env import PLATFORMS, WITH_OWN_WORLD
from recsys_rl.functional.compiled.kernels import SWITCH
from recsys_rl.training.train import train

ROOT = Path(__file__).parents[1]
# A shell ignores some of these for `nohup` and for background jobs, and its children inherit that.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 240  # seconds to wait for a process: a busy machine may be ten times as slow as an idle one
STARTED: list[subprocess.Popen[str]] = []  # by the test that runs; conftest.py kills those that are left
WITH_CATALOGUE = ", ".join(name for name in PLATFORMS if name not in WITH_OWN_WORLD)  # as errors list them
PPO = ["--batch-size", "12", "--update-epochs", "2"]
SIZES = [
    *("--n-steps", "6", "--num-envs", "4", "--save-interval", "3", "--eval-interval", "4"),
    *("--hidden-dims", "6", "--threads", "1", "--device", "cpu"),
]
WORLD = [
    *("--data", "synthetic", "--num-items", "24", "--num-users", "30", "--embedding-dim", "4"),
    *("--max-episode-steps", "5"),
]
DRIFT = [*SIZES, *WORLD, *PPO]
SATIATION = ["--env", "satiation", *DRIFT]
VIDEOS = [*DRIFT, "--num-items", "300", "--max-episode-steps", "30"]
SERVED = {
    "drift": DRIFT,
    "satiation": SATIATION,
    **{
        name: [*VIDEOS, "--env", name]
        for name in ("short-video", "long-video", "social-feed", "shop", "tutor")
    },
    "shop-coupons": [*VIDEOS, "--env", "shop", "--discounts"],
}
"""The options of a run on each platform whose sessions a server can follow."""
A2C = ["--algo", "a2c", *SIZES, *WORLD]
# The ring holds 15 steps of four users: it is full in the third update, and learning starts in the second.
DQN = [
    *("--algo", "dqn", *SIZES[2:], *WORLD, "--train-freq", "6", "--buffer-size", "60"),
    *("--learning-starts", "30", "--batch-size", "12", "--gradient-steps", "2", "--return-steps", "2"),
]
CARTPOLE = ["--env", "gym:CartPole-v1", *SIZES, *PPO, "--normalize-obs", "--normalize-reward"]


def train_in(folder: Path, *options: str) -> Path:
    """A run with these options in ``folder``, which must be new: the checkpoint. Nothing else is written."""
    return train(train_options(list(options)).config, folder=folder, quiet=True)


def home(folder: Path) -> list[str]:
    """The options for a run in ``folder``, which must be new."""
    return ["--runs-dir", str(folder.parent), "--name", folder.name]


def steps(updates: int) -> list[str]:
    """The option for a run of that many updates of 24 steps."""
    return ["--total-timesteps", str(24 * updates)]


def start(folder: Path, *arguments: str, new_session: bool = False) -> subprocess.Popen[str]:
    """`python -m arguments` in ``folder``, with an empty HOME and cache; a script and -c take no -m.

    No signal is ignored in it, whatever this process ignores.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [
            sys.executable,
            *([] if arguments[0].endswith(".py") or arguments[0] == "-c" else ["-m"]),
            *arguments,
        ],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=new_session,
        preexec_fn=heed_signals,
    )
    STARTED.append(process)
    return process


def heed_signals() -> None:
    """Signals that ask a process to stop do so, as in the foreground of a terminal."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)


def assert_names(said: str, *names: str) -> None:
    """The sentence ``said`` holds each of these names and values, in any words, and it is one line."""
    absent = [name for name in names if name not in said]
    assert not absent and "\n" not in said.strip(), said


def without_kernels_note(said: str) -> list[str]:
    """The lines of ``said`` but for the note that the compiled loops are off, as in a run of all tests."""
    return [line for line in said.splitlines() if f"{SWITCH} is off" not in line]


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def read_terminal(descriptor: int) -> bytes:
    """Bytes of a pseudo-terminal; b"" once the other side has closed it."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # on Linux
        return b""


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All that the agent is: weights, optimiser, count of updates."""
    return dict(load(path).agent)


def assert_same_weights(first: Path, second: Path) -> None:
    """Bit for bit."""
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.numpy().tobytes() == two[name].numpy().tobytes(), name


def benchmark_here(
    main: Callable[[], None], folder: Path, *options: str, without: Sequence[str] = ()
) -> None:
    """The ``main`` of a benchmark with these options, in ``folder`` and in this process, which starts faster.

    So do the commands that it runs. Users are fitted in few steps. None of the modules ``without`` can be
    imported.
    """

    def command(place: Path, words: Sequence[str]) -> None:
        with contextlib.chdir(place), contextlib.redirect_stdout(None):
            assert cli.main([*words]) == 0

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")  # a benchmark sets it for the processes that it starts
        patch.setattr("sys.argv", ["benchmark", *options])
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
        patch.setattr("benchmarks.harness.commands.recsys_rl", command)
        for name in without:
            patch.setitem(sys.modules, name, None)
        main()
    torch.set_num_threads(threads)

"""The repository whose formulation this project set out from, timed as its user runs it.

It is on no package index, so a checkout of github.com/anmolsharma152/RecSys_RL has to be given. Its
command trains PPO with settings of its own (8 users x 256 steps, minibatches of 64, 10 epochs; networks
[128, 64], tanh; 1,000 items). It runs in a copy of the checkout, once for one update and once for
several more; the difference is the time of those, without the start of Python.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness.settings import Settings
from benchmarks.harness.turns import Row
from benchmarks.harness.world import World
from recsys_rl.types import UserError

WHERE = "a checkout of github.com/anmolsharma152/RecSys_RL"


def check(folder: Path | None) -> None:
    """Raises UserError where ``folder`` is no such checkout."""
    if folder is not None and not all((folder / name).is_file() for name in ("train.py", "agents/ppo.py")):
        raise UserError(f"--original {folder} holds no train.py and agents/ppo.py: give {WHERE}.")


def original(folder: Path | None, world: World, settings: Settings) -> Row:
    """Steps per second; ``world`` is unused, as the original makes its own of the same size."""
    if folder is None:
        return {"note": f"not given: --original DIR, {WHERE}"}
    updates = settings.num_updates - 1
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "original"))
        one, more = (_seconds(copy, n * settings.per_update) for n in (1, 1 + updates))
    # The memory that could be told is this process's, and not that of the two which ran.
    return {"steps_per_s": updates * settings.per_update / (more - one), "peak_mb": math.nan}


def _seconds(folder: Path, total_timesteps: int) -> float:
    command = [sys.executable, "-m", "train", "--algo", "ppo", "--total-timesteps", str(total_timesteps)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the original failed"])[-1])
    return time.perf_counter() - started

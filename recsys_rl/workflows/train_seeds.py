"""Train one run for each of several seeds, side by side. Each run has a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.errors import UserError
from recsys_rl.settings.config import Config, with_whole_paths
from recsys_rl.training import folder as folders
from recsys_rl.utils.progress import announce
from recsys_rl.utils.tasks import MapTasks
from recsys_rl.workflows.train import train

PROGRESS = "step "
"""The lines of a run that begin so are not printed."""


def train_seeds(configs: Sequence[Config], map_tasks: MapTasks) -> list[Path]:
    """Train the runs, and return the paths of their checkpoints. checkpoints/ALGO.pt is that of the last one.

    The last lines of each run are printed when it is done, in the order of the runs.

    Raises UserError for a run that can't begin, and for one whose folder is not on this machine. An error and
    Ctrl-C end the runs that are under way; what their folders hold can be resumed.
    """
    runs = [_run_of(config) for config in configs]
    paths: list[Path] = []
    try:
        for path, said in map_tasks(train_run, runs):
            config = configs[len(paths)]
            if not path.exists():
                raise UserError(
                    f"{path} is not on this machine, so the run is on another one: give a --runs-dir that "
                    "all machines share."
                )
            paths.append(path)
            announce(f"seed {config.train_config.seed}, {len(paths)} of {len(configs)}: {said}")
    except (KeyboardInterrupt, UserError):
        left = ", ".join(str(config.train_config.seed) for config in configs[len(paths) :])
        announce(f"Seeds not finished: {left}")
        raise
    linked, _ = folders.publish(paths[-1])
    if linked:
        announce(f"{folders.LATEST / paths[-1].name} is a link to the checkpoint of the last seed")
    return paths


@dataclass(frozen=True)
class SeedRun:
    """A run to train, on whatever machine: all paths are whole."""

    config: Config
    folder: Path


def _run_of(config: Config) -> SeedRun:
    """The run in the first free folder of its name."""
    settings = config.train_config
    first = Path(settings.runs_dir).absolute() / (settings.name or folders.default_name(config))
    names = itertools.chain([first], (first.with_name(f"{first.name}-{k}") for k in itertools.count(2)))
    folder = first if settings.name else next(path for path in names if not path.exists())
    nameless = dataclasses.replace(config, train_config=dataclasses.replace(settings, name=None))
    return SeedRun(with_whole_paths(nameless), folder)


def train_run(run: SeedRun) -> tuple[Path, str]:
    """Train to the end; the checkpoint, and the last lines of the run.

    A run that was killed on the way goes on from its last checkpoint.
    """
    begun = (run.folder / f"{run.config.algo}.pt").exists()
    if not begun:  # killed before its first checkpoint
        shutil.rmtree(run.folder, ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        path = train(run.config, begun, folder=run.folder, latest=False)
    lines = [line for line in said.getvalue().splitlines() if line]
    last = max((k for k, line in enumerate(lines) if line.startswith(PROGRESS)), default=-1)
    return path, "\n".join(lines[last + 1 :])

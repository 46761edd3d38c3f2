"""Train one run for each of several seeds, side by side. Each run has a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.settings.config import Config, with_whole_paths
from recsys_rl.settings.names import checkpoint_name
from recsys_rl.training import folder as folders
from recsys_rl.training.train import Interrupted, train
from recsys_rl.utils.progress import announce
from recsys_rl.utils.tasks import MapTasks, note_one_task

PROGRESS = "step "
"""The lines of a run that begin so are not printed."""


def train_seeds(configs: Sequence[Config], map_tasks: MapTasks, quiet: bool = False) -> list[Path]:
    """Train the runs, and return the paths of their checkpoints. checkpoints/ALGO.pt is that of the last one.

    The last lines of each run are printed when it is done, in the order of the runs, unless ``quiet``.

    Raises UserError for a run that can't begin, and for one whose folder is not on this machine. An error and
    Ctrl-C end the runs that are under way; what their folders hold can be resumed.
    """
    paths: list[Path] = []
    if len(configs) == 1:
        note_one_task(map_tasks, "one seed")
    with contextlib.ExitStack() as stack:
        runs = []
        for config in configs:
            runs.append(_run_of(config, quiet))
            stack.callback(runs[-1].folder.release)
        try:
            for path, said in map_tasks(train_run, runs):
                paths.append(path)
                seed = configs[len(paths) - 1].train_config.seed
                if not quiet:
                    announce(f"seed {seed}, {len(paths)} of {len(configs)}: {said}")
        except BaseException:
            left = ", ".join(str(config.train_config.seed) for config in configs[len(paths) :])
            announce(f"Seeds not finished: {left}")
            raise
    linked, _ = folders.publish(paths[-1])
    if linked and not quiet:
        announce(f"{folders.LATEST / paths[-1].name} is a link to the checkpoint of the last seed")
    return paths


@dataclass(frozen=True)
class SeedRun:
    """A run to train, on whatever machine: all paths are whole."""

    config: Config
    folder: folders.KeptFolder
    quiet: bool = False


def _run_of(config: Config, quiet: bool = False) -> SeedRun:
    """The run, in a folder that is made here, so that no other command can take it."""
    settings = config.train_config
    whole = str(Path(settings.runs_dir).absolute())
    folder = folders.keep(
        dataclasses.replace(config, train_config=dataclasses.replace(settings, runs_dir=whole)),
        secrets.token_hex(16),
    )
    nameless = dataclasses.replace(config, train_config=dataclasses.replace(settings, name=None))
    return SeedRun(with_whole_paths(nameless), folder, quiet)


def train_run(run: SeedRun) -> tuple[Path, str]:
    """Train to the end; the checkpoint, and the last lines of the run.

    A run whose process ended on the way goes on from its last checkpoint, or begins again without one.

    Raises UserError if the folder is not that of the run. Raises KeyboardInterrupt after SIGTERM or SIGHUP,
    when the checkpoint is written.
    """
    run.folder.check()
    begun = (run.folder.path / checkpoint_name(run.config.algo)).exists()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            path = train(run.config, begun, folder=run.folder, latest=False, quiet=run.quiet)
    except Interrupted:
        raise KeyboardInterrupt from None
    lines = [line for line in said.getvalue().splitlines() if line]
    last = max((k for k, line in enumerate(lines) if line.startswith(PROGRESS)), default=-1)
    return path, "\n".join(lines[last + 1 :])

"""Train an agent: the settings checked, the run begun or resumed, its observers made, the loop called."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import error_text
from recsys_rl.settings.config import (
    Config,
    to_toml,
    with_whole_paths,
)
from recsys_rl.settings.names import checkpoint_name
from recsys_rl.training import folder as folders
from recsys_rl.training.about_run import say, say_beginning, to_continue
from recsys_rl.training.begin import begin
from recsys_rl.training.loop import train_on
from recsys_rl.training.observers import LossCheck, Observer, Saver
from recsys_rl.training.ranks import ALONE, Ranks
from recsys_rl.training.resume import load_to_resume
from recsys_rl.training.run import Run
from recsys_rl.training.run import Update as Update
from recsys_rl.training.train_observers import judges_of, recording_of, watching
from recsys_rl.training.train_options import check_new, device_of, with_brought
from recsys_rl.types import UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.files import write_text
from recsys_rl.utils.logger import Logger, summary_writer


class Interrupted(Exception):
    """The run stopped after a request, and its checkpoint is written."""


def train(
    config: Config | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
    *,
    folder: str | Path | folders.KeptFolder | None = None,
    latest: bool | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Path:
    """Train to the end, and return the checkpoint's path.

        train(algo="a2c", lr=1e-3, seed=1)

    The arguments are those of ``updates``, and ``ranks``, the processes of the run. Each process calls this
    with the same arguments; only rank 0 makes the folder, logs, evaluates and writes.

    Raises UserError for a mistake that the user can mend. Raises Interrupted after Ctrl-C, SIGTERM or
    SIGHUP, when the checkpoint is written.
    """
    config = with_brought(config, settings)
    with _opened(config, resume, ranks, folder, latest, quiet) as opened, ranks.stop_requests() as requests:
        for _ in _to_the_end(opened, lambda: nullcontext(requests)):
            pass
        return opened.saver.path


def updates(
    config: Config | None = None,
    resume: bool = False,
    *,
    folder: str | Path | folders.KeptFolder | None = None,
    latest: bool | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Generator[Update, None, None]:
    """Train as ``train`` does, but yield after each update, so that a notebook can inspect the run.

        for update in updates(algo="a2c", folder="first try"):
            print(update.step, update.metrics["reward_mean"])

    Args:
        config: the settings; None: the default ones. ``runs_dir`` and ``name`` of train_config are used if
            ``folder`` is None.
        resume: continue the run in ``folder`` (None: the run behind checkpoints/<algo>.pt) as if it had
            never stopped, with the users and items of its checkpoint.
        folder: the run's folder. A new run makes it, so it must not exist; a ``KeptFolder`` does. None:
            choose a folder in ``runs_dir``, as the command does.
        latest: make checkpoints/<algo>.pt a link to this run. None: only if ``folder`` is None.
        quiet: print nothing about the run, and judge no policy on the held-out side of its log. The first
            preparation of a dataset still prints a line.
        settings: fields of ``Config`` in place of those of ``config``, as in ``Config(lr=1e-3)``. ``log`` may
            be a data frame, or a list of paths and data frames.

    If the generator is closed early, as by break, a checkpoint of the last update is written. Raises the
    errors of ``train``. Ctrl-C during an update ends the run after that update; between two updates it raises
    KeyboardInterrupt in the caller's loop.
    """
    with _opened(with_brought(config, settings), resume, ALONE, folder, latest, quiet) as opened:
        yield from _to_the_end(opened, ALONE.stop_requests)


@dataclass
class OpenRun:
    """A run in its folder, with its observers."""

    run: Run
    saver: Saver
    observers: list[Observer]
    logger: Logger | None  # rank 0's
    ranks: Ranks
    quiet: bool


def _to_the_end(
    opened: OpenRun, requests_to_stop: Callable[[], AbstractContextManager[list[int]]]
) -> Iterator[Update]:
    """Yield the remaining updates, and print the lines about the end of the run."""
    run, folder = opened.run, opened.saver.path.parent
    with opened.logger or nullcontext():
        try:
            yield from train_on(run, folder, opened.observers, opened.ranks, requests_to_stop)
        except GeneratorExit:  # the caller's loop ended here
            opened.saver.save(run)
            raise
        opened.saver.save(run)  # after a stop from the caller's loop
    if not run.over:
        raise Interrupted(
            f"Stopped at step {run.step:,}; {folder} holds the run: continue it with "
            f"{to_continue(run.config, folder)}."
        )
    if opened.logger is not None and not opened.quiet:
        for observer in opened.observers:
            say(observer.ended(run))


@contextlib.contextmanager
def _opened(
    config: Config,
    resume: bool,
    ranks: Ranks,
    folder: str | Path | folders.KeptFolder | None,
    latest: bool | None,
    quiet: bool,
) -> Iterator[OpenRun]:
    """Begin or resume the run and lock its folder; at the end unlock the folder."""
    settings, checkpoint = config.train_config, None
    if settings.num_processes != ranks.size:
        raise UserError(
            f"The settings are those of num_processes = {settings.num_processes}, but this run has "
            f"{ranks.size}: start it with torchrun --nproc-per-node {settings.num_processes}."
        )
    device, place = device_of(config), Path(folder) if isinstance(folder, str) else folder
    if settings.tensorboard:
        summary_writer()
    with ExitStack() as locks:
        if resume:
            place = folders.latest(config.algo) if place is None else Path(place)
            locks.enter_context(folders.held(place) if ranks.rank == 0 else nullcontext())
            checkpoint = load_to_resume(place / checkpoint_name(config.algo), config, device)
        else:
            config = folders.with_init_behind(config)
            check_new(config, place, ranks.rank == 0)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        # The folder has the name; a new run from the same settings needs another name.
        nameless = replace(config, train_config=replace(config.train_config, name=None))
        run = begin(nameless, checkpoint, device, ranks)
        opened = _in_folder(run, config, checkpoint, place, ranks, quiet, locks)
        if ranks.rank == 0:
            _publish(opened, resume, folder is None if latest is None else latest)
        yield opened


def _in_folder(
    run: Run,
    config: Config,
    checkpoint: Checkpoint | None,
    place: Path | folders.KeptFolder | None,
    ranks: Ranks,
    quiet: bool,
    locks: ExitStack,
) -> OpenRun:
    """The run in its folder, with its observers. A new run makes the folder here, and locks it.

    ``checkpoint``: which the run resumes. ``place``: of a resumed run its folder; None: it is chosen here.
    """
    first, resume = ranks.rank == 0, checkpoint is not None
    keep_freed_memory()  # only from here on: memory that the data needed should return to the system
    about = run.experience.describe()  # before there is a folder: it may find too little memory
    # Both may refuse the run, so there is no folder yet.
    judges = judges_of(run) if first else None
    recording = recording_of(run, checkpoint)
    if first and not quiet:
        say_beginning(run, about, Path(place) if resume and place is not None else None)
        say("" if judges is None else judges.note)
    taken = folders.take(config, place) if first and not resume else None
    folder = _shared(taken or (None if place is None else Path(place)), ranks)
    saver = Saver(folder / checkpoint_name(config.algo), ranks, run.step if resume else None)
    opened = OpenRun(run, saver, [LossCheck(saver), *recording, saver], None, ranks, quiet)
    saver.observers = opened.observers
    with folders.removed_on_error(taken):
        if taken is not None:
            locks.enter_context(folders.held(taken))
            write_text(taken / "config.toml", to_toml(with_whole_paths(run.config)))
        if first:
            opened.logger = _logger(run, folder, quiet)
            opened.observers[1:1] = watching(run, saver.path, opened.logger, judges)
        if not resume:  # so that a run killed before its first interval can be resumed
            for observer in opened.observers:
                observer.begun(run)
    return opened


def _publish(opened: OpenRun, resume: bool, latest: bool) -> None:
    """Print the run's folder, and make the link to its checkpoint if ``latest``.

    A link to another run stays if nothing is left to train.
    """
    path, run = opened.saver.path, opened.run
    link = folders.LATEST / path.name
    before, finished = link.resolve(), run.updates == run.num_updates
    latest = latest and not (finished and link.is_symlink() and link.exists())
    linked, news = folders.publish(path) if latest else (False, "")
    where = f"{link} is a link to its checkpoint" if linked else ""
    line = "; ".join(filter(None, [f"run: {path.parent}", where]))
    if resume:  # the folder has been named
        line = "" if before == path.resolve() else where
    if not opened.quiet:
        say(line, news)


def _shared(folder: Path | None, ranks: Ranks) -> Path:
    """Rank 0's folder, on every rank."""
    text = b"" if folder is None else os.fsencode(folder)
    everyone = ranks.gather({"folder": torch.tensor(list(text), dtype=torch.uint8)})
    return Path(os.fsdecode(bytes(everyone[0]["folder"].tolist())))


def _logger(run: Run, folder: Path, quiet: bool) -> Logger:
    settings, title = run.config.train_config, f"{run.config.algo} on {run.config.env}"
    try:
        return Logger(folder, title, run.num_updates * run.per_update, run.step, settings.tensorboard, quiet)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error_text(error)}): mend that.") from error

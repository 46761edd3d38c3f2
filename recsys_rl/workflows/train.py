"""The door to training: config -> env, agent -> (collect, update, log, save)*."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl import folder as folders
from recsys_rl.checkpoint import save
from recsys_rl.config import Config, to_toml
from recsys_rl.experience.rollout import collect
from recsys_rl.functional import kernels
from recsys_rl.lookup import source_of
from recsys_rl.make import check_candidates
from recsys_rl.models.retrieval import import_faiss, kind_of
from recsys_rl.protocols import Learner
from recsys_rl.ranks import ALONE, Ranks
from recsys_rl.run import Run, about_data, begin, choose_device, load_to_resume, snapshot
from recsys_rl.types import Rollout, UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.files import write_text
from recsys_rl.utils.logger import Logger, summary_writer
from recsys_rl.workflows.diary import Diary


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Update:
    """A run just after one of its updates, which the next one changes."""

    step: int  # environment steps so far, over all users
    metrics: Mapping[str, float]  # of this update; with returns and evaluation where they were due
    run: Run
    folder: Path

    @property
    def agent(self) -> Learner:
        return self.run.agent


def train(
    config: Config,
    resume: bool = False,
    ranks: Ranks = ALONE,
    *,
    folder: str | Path | None = None,
    latest: bool | None = None,
    quiet: bool = False,
) -> Path:
    """Train as ``config`` says, to the end, and return the checkpoint's path; arguments as in ``updates``.

    Raises UserError for whatever the user can mend, and Interrupted after Ctrl-C, SIGTERM or SIGHUP, when
    the checkpoint is written.

    ``ranks`` are the processes of the run. Each calls this with the same arguments; rank 0 alone takes the
    folder, logs, evaluates and writes.
    """
    with _begun(config, resume, ranks, folder, latest, quiet) as course, ranks.stop_requests() as requests:
        for _ in _go_on(course, lambda: nullcontext(requests)):
            pass
        return course.path


def updates(
    config: Config,
    resume: bool = False,
    *,
    folder: str | Path | None = None,
    latest: bool | None = None,
    quiet: bool = True,
) -> Generator[Update, None, None]:
    """The same run, one update after another, so that a notebook can look at it while it trains.

        for update in updates(Config(algo="a2c"), folder="first try"):
            print(update.step, update.metrics["reward_mean"])

    Args:
        config: the settings; train_config's runs_dir and name where ``folder`` is None.
        resume: go on with the run in ``folder`` (None: the one behind checkpoints/<algo>.pt) as if it had
            never stopped, in the world that its checkpoint holds.
        folder: the run's folder, which a new run makes and which must not exist; None takes one as the
            command does, below the working directory.
        latest: make checkpoints/<algo>.pt a link to this run; None: where ``folder`` is None.
        quiet: print nothing about the run; preparing data for the first time still prints a line.

    A loop that ends early, by break or an error, leaves a checkpoint of the last update. Raises as
    ``train`` does; Ctrl-C during an update ends the run after it, and between two is the caller's.
    """
    with _begun(config, resume, ALONE, folder, latest, quiet) as course:
        yield from _go_on(course, ALONE.stop_requests)


@dataclass
class Course:
    """A run with the folder that it writes to."""

    run: Run
    path: Path  # of the checkpoint
    ranks: Ranks
    quiet: bool
    diary: Diary | None  # rank 0's
    saved: int | None  # the step of the checkpoint; None before the first


@contextlib.contextmanager
def _begun(
    config: Config,
    resume: bool,
    ranks: Ranks,
    folder: str | Path | None,
    latest: bool | None,
    quiet: bool,
) -> Iterator[Course]:
    """The run as it begins, or goes on; its log is closed and its folder let go at the end."""
    settings, first = config.train_config, ranks.rank == 0
    own = None if folder is None else Path(folder)
    if settings.num_processes != ranks.size:
        raise UserError(
            f"train_config.num_processes is {settings.num_processes}, and this is a run of {ranks.size}: the "
            "command `recsys-rl train` starts several processes, and so does torchrun."
        )
    device = choose_device(settings.device)
    if settings.tensorboard:
        summary_writer()
    with ExitStack() as stack:
        before = None
        if resume:
            own = folders.latest(config.algo) if own is None else own
            if first:
                stack.enter_context(folders.held(own))
            before = load_to_resume(own / f"{config.algo}.pt", config, device)
        else:
            _check_new(config, own, first)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        # The folder has the name; a run that is made again from these settings has another one.
        nameless = replace(config, train_config=replace(settings, name=None))
        run = begin(nameless, before, device, ranks)
        keep_freed_memory()  # from here on, as what the data needed is better given back
        if first and not quiet:
            _say_beginning(run, own if resume else None)
        taken = folders.take(config, own) if first and not resume else None
        own = _shared(own if taken is None else taken, ranks)
        course = Course(run, own / f"{config.algo}.pt", ranks, quiet, None, run.step if resume else None)
        with folders.removed_on_error(taken):
            if taken is not None:
                stack.enter_context(folders.held(taken))
                write_text(taken / "config.toml", to_toml(run.config))
            if first:
                course.diary = Diary(_logger(run, own, quiet))
            if not resume:  # so that a run killed before its first interval can be resumed, too
                if course.diary is not None and settings.eval_interval:
                    course.diary.evaluate(run)  # the curve begins with the untrained policy
                _save(course)
        if course.diary is not None:
            _publish(course, resume, folder is None if latest is None else latest)
        yield course


def _publish(course: Course, resume: bool, latest: bool) -> None:
    """Print the run's folder, and link to its checkpoint if it is the ``latest``."""
    linked, news = folders.publish(course.path) if latest else (False, "")
    where = f"; {folders.LATEST / course.path.name} is a link to its checkpoint" if linked else ""
    if not course.quiet:
        _say("" if resume else f"run: {course.path.parent}{where}", news)


def _check_new(config: Config, folder: Path | None, first: bool) -> None:
    """Raise UserError for what can be known before data are read."""
    if first:
        folders.check_free(config, folder)
    if folder is not None and config.train_config.name is not None:
        raise UserError("train_config.name is of no use beside a folder: leave one of them out.")
    model, sizes, users = config.model_config, config.env_config, config.platform.users
    if not model.candidates or users is None:
        return
    history_length = 0 if users.repeats else sizes.max_episode_steps
    check_candidates(model, sizes.num_items, history_length)  # a log may have fewer
    made_up = source_of(config.data_config.data).made_up
    kind = kind_of(model.index, sizes.num_items if made_up else 0)
    if kind != "exact":
        import_faiss(kind)


def _shared(folder: Path | None, ranks: Ranks) -> Path:
    """Rank 0's folder, on every rank."""
    text = b"" if folder is None else os.fsencode(folder)
    everyone = ranks.gather({"folder": torch.tensor(list(text), dtype=torch.uint8)})
    return Path(os.fsdecode(bytes(everyone[0]["folder"].tolist())))


def _say_beginning(run: Run, folder: Path | None) -> None:
    """Print the data and the length of the run; ``folder`` is that of a run which goes on."""
    asked, planned = run.config.train_config.total_timesteps, run.num_updates * run.per_update
    resuming = f"resuming {folder} at step {run.step:,} of {planned:,}"
    whole = f"whole updates of {run.per_update:,}: {planned:,} steps"
    uncompiled = (
        "The compiled loops are missing here, so torch's operators stand in, more slowly: install again "
        "where there is a C compiler."
    )
    _say(
        about_data(run),
        resuming if folder is not None else "",
        f"total_timesteps {asked:,} is rounded to {whole}" if folder is None and asked != planned else "",
        uncompiled if run.streams["users"].device.type == "cpu" and kernels.library() is None else "",
    )


def _say(*lines: str) -> None:
    for line in filter(None, lines):
        with contextlib.suppress(OSError):  # a terminal that was closed
            print(line, file=sys.stderr)


def _go_on(
    course: Course, requests_to_stop: Callable[[], AbstractContextManager[list[int]]]
) -> Iterator[Update]:
    """The updates that are left; requests to stop are heeded within each."""
    run, ranks = course.run, course.ranks
    settings, n_steps = run.config.train_config, run.config.agent_config.n_steps
    diary = course.diary
    obs, stop, asked = run.env.observe(), False, False
    with nullcontext() if diary is None else diary.logger:
        while run.updates < run.num_updates and not stop:
            with requests_to_stop() as requests:
                rollout, obs = collect(run.env, run.agent, obs, n_steps)
                metrics = run.agent.update(rollout)
                run.updates += 1
                metrics, ended, stop = _exchange(run, rollout, metrics, asked or bool(requests), ranks)
                _check_finite(metrics, run, course)
                if diary is not None:
                    metrics = diary.write(run, metrics, ended)
                if run.due(settings.save_interval) or run.updates == run.num_updates or stop:
                    _save(course)
                asked = bool(requests)
            try:
                yield Update(run.step, metrics, run, course.path.parent)
            except GeneratorExit:  # the caller's loop ended here
                _save(course)
                raise
    folder = course.path.parent
    if run.updates < run.num_updates:
        raise Interrupted(
            f"Stopped at step {run.step:,}; {folder} holds the run: --run {folder} goes on from there."
        )
    if course.diary is not None and not course.quiet:
        _say(f"done: {run.step:,} steps; checkpoint: {course.path}; log: {course.diary.logger.path}")


def _save(course: Course) -> None:
    if course.saved == course.run.step:
        return
    checkpoint = snapshot(course.run, course.ranks)
    if course.ranks.rank == 0:
        save(course.path, checkpoint)
    course.saved = course.run.step


def _exchange(
    run: Run, rollout: Rollout, metrics: Mapping[str, float], stop: bool, ranks: Ranks
) -> tuple[dict[str, float], Tensor, bool]:
    """After each update: mean metrics, sessions that ended (2, finished), whether any rank shall stop."""
    done = rollout.terminated | rollout.truncated
    metrics = {**metrics, "reward_mean": rollout.raw_rewards.mean().item()}
    everyone = ranks.gather(
        {
            "metrics": torch.tensor(list(metrics.values()), dtype=torch.float64),
            "ended": torch.stack(run.sessions.add(rollout.raw_rewards, done)),
            "stop": torch.tensor(stop),
        }
    )
    means = torch.stack([rank["metrics"] for rank in everyone]).mean(0).tolist()
    ended = torch.cat([rank["ended"] for rank in everyone], 1)
    return dict(zip(metrics, means, strict=True)), ended, any(bool(rank["stop"]) for rank in everyone)


def _logger(run: Run, folder: Path, quiet: bool) -> Logger:
    settings, title = run.config.train_config, f"{run.config.algo} on {run.config.env}"
    try:
        return Logger(folder, title, run.num_updates * run.per_update, run.step, settings.tensorboard, quiet)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): mend that.") from error


def _check_finite(metrics: Mapping[str, float], run: Run, course: Course) -> None:
    """Raise UserError where the loss is no number."""
    bad = [name for name in ("loss", "policy_loss", "value_loss") if not math.isfinite(metrics[name])]
    if bad:
        kept = f"the state of step {course.saved:,}" if course.saved else "the untrained policy"
        raise UserError(
            f"{bad[0]} became {metrics[bad[0]]} at step {run.step:,} (update {run.updates}), so the run "
            f"stopped and {course.path} keeps {kept}: start again with a lower --lr or --max-grad-norm."
        )

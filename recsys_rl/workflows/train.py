"""Train an agent: config -> env, agent -> (collect, update, log, save)*."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import save
from recsys_rl.checkpoint.home import settings_of_items
from recsys_rl.checkpoint.users import load_users
from recsys_rl.errors import FieldError, error_text
from recsys_rl.experience.on_policy import OnPolicy
from recsys_rl.functional.compiled import kernels
from recsys_rl.make import check_candidates, learned_file, slate_size_of
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.retrieval import import_faiss, kind_of
from recsys_rl.settings.config import Config, overlay, to_toml, with_settings, with_whole_paths
from recsys_rl.settings.names import is_strange, names_a_module, names_a_source, source_of
from recsys_rl.training import folder as folders
from recsys_rl.training.ranks import ALONE, Ranks
from recsys_rl.training.run import Run, about_data, begin, choose_device, load_to_resume, snapshot
from recsys_rl.training.run_log import RunJudge, RunLog, evaluations_since_best
from recsys_rl.types import UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.files import check_new_folder, write_text
from recsys_rl.utils.logger import Logger, summary_writer
from recsys_rl.workflows.advice import advice
from recsys_rl.workflows.judge_options import check_judged

BEST = "best.pt"
"""The checkpoint of a run with the highest estimate on judge_log."""
JUDGE_PATIENCE = 5
"""Evaluations in a row without a higher estimate on judge_log, after which the run stops."""
SHOWN_GATES = 10
"""Gates of the scorer head that are printed after training, the largest ones."""


class Interrupted(Exception):
    """The run stopped after a request, and its checkpoint is written."""


@dataclass(frozen=True)
class Update:
    """The run after one update. The next update changes ``run`` in place."""

    step: int  # environment steps so far, over all users
    metrics: Mapping[str, float]  # of this update; with returns and evaluation at their intervals
    run: Run
    folder: Path

    @property
    def agent(self) -> Any:
        return self.run.agent


def train(
    config: Config | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
    *,
    folder: str | Path | None = None,
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
    config = _with_items(config, settings)
    with _begun(config, resume, ranks, folder, latest, quiet) as opened, ranks.stop_requests() as requests:
        for _ in _go_on(opened, lambda: nullcontext(requests)):
            pass
        return opened.path


def updates(
    config: Config | None = None,
    resume: bool = False,
    *,
    folder: str | Path | None = None,
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
        folder: the run's folder. A new run makes it, so it must not exist. None: choose a folder in
            ``runs_dir``, as the command does.
        latest: make checkpoints/<algo>.pt a link to this run. None: only if ``folder`` is None.
        quiet: print nothing about the run. The first preparation of a dataset still prints a line.
        settings: fields of ``Config`` in place of those of ``config``, as in ``Config(lr=1e-3)``.

    If the caller's loop ends early, by break or an error, a checkpoint of the last update is written. Raises
    the errors of ``train``. Ctrl-C during an update ends the run after that update; between two updates it
    raises KeyboardInterrupt in the caller's loop.
    """
    with _begun(_with_items(config, settings), resume, ALONE, folder, latest, quiet) as opened:
        yield from _go_on(opened, ALONE.stop_requests)


def _with_items(config: Config | None, settings: Mapping[str, Any]) -> Config:
    """``config`` with ``settings``; a ``checkpoint`` for a run from a log brings its platform and sizes."""
    path = settings.get("checkpoint")
    if path is not None:
        settings = {**settings_of_items(path, settings.get("env")), **settings}
    users = settings.get("user_model")
    if users is not None and "data" not in settings:  # they bring their items and sizes
        settings = overlay({**load_users(users).settings}, settings)
    return with_settings(config, settings)


@dataclass
class OpenRun:
    """A run, its folder and its log."""

    run: Run
    path: Path  # of the checkpoint
    ranks: Ranks
    quiet: bool
    run_log: RunLog | None  # rank 0's
    saved: int | None  # the step of the checkpoint; None before the first


@contextlib.contextmanager
def _begun(
    config: Config,
    resume: bool,
    ranks: Ranks,
    folder: str | Path | None,
    latest: bool | None,
    quiet: bool,
) -> Iterator[OpenRun]:
    """Begin or resume the run and lock its folder; at the end close the log and unlock the folder."""
    settings, first = config.train_config, ranks.rank == 0
    if not resume and settings.init_from is not None:  # a resumed run's link may lead to another run by now
        settings = replace(settings, init_from=folders.checkpoint_behind(settings.init_from))
        config = replace(config, train_config=settings)
    own = None if folder is None else Path(folder)
    if settings.num_processes != ranks.size:
        raise UserError(
            f"train_config.num_processes is {settings.num_processes}, but this run has {ranks.size}: start "
            "several processes with the command `recsys-rl train` or with torchrun."
        )
    logged = config.algorithm.experience == "logged"  # its log is read, and drawn from, on the CPU
    device = choose_device("cpu" if logged and settings.device == "auto" else settings.device)
    if logged and device.type != "cpu":
        raise UserError(f"--device {settings.device}: {config.algo} learns on the CPU: leave --device out.")
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
        # The folder has the name; a new run from the same settings needs another name.
        nameless = _with_whole_users(replace(config, train_config=replace(settings, name=None)))
        run = begin(nameless, before, device, ranks)
        keep_freed_memory()  # only from here on: memory that the data needed should return to the system
        about = run.experience.describe()  # before there is a folder: it may find too little memory
        judges = _judges(run) if first else {}
        run.judged_by = judges["log"].estimator if "log" in judges else ""
        if first and not quiet:
            _say_beginning(run, about, own if resume else None)
            _say(*(judge.note for judge in judges.values()))
        taken = folders.take(config, own) if first and not resume else None
        own = _shared(own if taken is None else taken, ranks)
        opened = OpenRun(run, own / f"{config.algo}.pt", ranks, quiet, None, run.step if resume else None)
        with folders.removed_on_error(taken):
            if taken is not None:
                stack.enter_context(folders.held(taken))
                write_text(taken / "config.toml", to_toml(with_whole_paths(run.config)))
            if first:
                opened.run_log = RunLog(_logger(run, own, quiet), judges=judges)
            if not resume:  # so that a run killed before its first interval can be resumed
                if opened.run_log is not None and run.has_simulator and settings.eval_interval:
                    opened.run_log.evaluate(run)  # the curve begins with the untrained policy
                    if run.curves.get("log"):
                        _judged(opened)
                _save(opened)
        if opened.run_log is not None:
            _publish(opened, resume, folder is None if latest is None else latest)
        yield opened


def _judges(run: Run) -> Mapping[str, RunJudge]:
    """The judges of the settings judge_log and world. Raises UserError for one that can't judge this run."""
    settings = run.config.train_config
    if settings.judge_log is None and settings.world is None:
        return {}
    from recsys_rl.workflows.judged import judges_of  # polars and the estimators

    return judges_of(run)


def _publish(opened: OpenRun, resume: bool, latest: bool) -> None:
    """Print the run's folder, and make the link to its checkpoint if ``latest``.

    A link to another run stays if nothing is left to train.
    """
    place = folders.LATEST / opened.path.name
    before, finished = place.resolve(), opened.run.updates == opened.run.num_updates
    latest = latest and not (finished and place.is_symlink() and place.exists())
    linked, news = folders.publish(opened.path) if latest else (False, "")
    where = f"{place} is a link to its checkpoint" if linked else ""
    line = "; ".join(filter(None, [f"run: {opened.path.parent}", where]))
    if resume:  # the folder has been named
        line = "" if before == opened.path.resolve() else where
    if not opened.quiet:
        _say(line, news)


def _check_new(config: Config, folder: Path | None, first: bool) -> None:
    """Raise UserError for mistakes that can be found before the data are read."""
    if first:
        folders.check_free(config, folder)
    check_judged(config)
    _check_brought(config)
    if config.train_config.record is not None:
        check_new_folder(Path(config.train_config.record), "--record")
    if folder is not None and config.train_config.name is not None:
        raise UserError("train_config.name has no effect beside a folder: omit one of them.")
    model, sizes, users = config.model_config, config.env_config, config.platform.users
    if not model.candidates or users is None:
        return
    slate_size = slate_size_of(config)
    most_shown = 0 if config.platform.repeats(sizes) else sizes.max_episode_steps * slate_size
    check_candidates(model, sizes.num_items, most_shown, slate_size)  # a log may have fewer items
    data = config.data_config.data
    made_up = not is_strange(data) and source_of(data).made_up  # learned users bring a strange one's items
    kind = kind_of(model.index, sizes.num_items if made_up else 0)
    if kind != "exact":
        import_faiss(kind)


def _with_whole_users(config: Config) -> Config:
    """The config with the absolute path of learned users, as a checkpoint needs them in any folder."""
    field = config.platform.user_file
    path = getattr(config.env_config, field) if field else None
    if path is None:
        return config
    return replace(config, env_config=replace(config.env_config, **{field: str(Path(path).absolute())}))


def _check_brought(config: Config) -> None:
    """Raise FieldError for items or sizes other than those that learned users bring."""
    if not config.platform.user_file:
        return
    brought = learned_file(config).settings
    for section, names in (
        ("data_config", ("data",)),
        ("env_config", ("num_items", "embedding_dim", "max_episode_steps")),
    ):
        for name in names:
            given, own = getattr(getattr(config, section), name), brought[section].get(name)
            if own is not None and Path(str(given)).name != Path(str(own)).name:
                path = getattr(config.env_config, config.platform.user_file)
                raise FieldError(
                    f"{section}.{name}", f"is {given}: the users of {path} bring theirs, {own}; leave it out."
                )


def _shared(folder: Path | None, ranks: Ranks) -> Path:
    """Rank 0's folder, on every rank."""
    text = b"" if folder is None else os.fsencode(folder)
    everyone = ranks.gather({"folder": torch.tensor(list(text), dtype=torch.uint8)})
    return Path(os.fsdecode(bytes(everyone[0]["folder"].tolist())))


def _say_beginning(run: Run, experience: str, folder: Path | None) -> None:
    """Print the data, the experience and the length of the run. ``folder`` is that of a resumed run."""
    asked, planned = run.config.train_config.total_timesteps, run.num_updates * run.per_update
    resuming = f"resuming {folder} at step {run.step:,} of {planned:,}"
    items = getattr(run.config.agent_config, "checkpoint", None) if folder is None else None
    whole = f"whole updates of {run.per_update:,}: {planned:,} steps"
    uncompiled = "note: torch's operators replace the compiled loops and are slower: " + (
        f"{kernels.SWITCH} is off."
        if kernels.switched_off()
        else "they are missing, so install a C compiler and then this package again."
    )
    _say(
        f"items of {folders.checkpoint_behind(items)} ({items})"
        if items and folders.is_latest(items)
        else "",
        about_data(run),
        experience,
        run.note,
        getattr(run.env, "note", ""),  # of an environment from elsewhere: the candidates that it took
        resuming if folder is not None and run.updates < run.num_updates else "",
        f"total_timesteps {asked:,} is rounded to {whole}" if folder is None and asked != planned else "",
        uncompiled if run.streams["users"].device.type == "cpu" and kernels.library() is None else "",
    )
    if folder is None and run.env is not None:
        _say(advice(run))  # after the lines above, as it may take seconds


def _from_weights(config: Config, folder: Path) -> str:
    """The command for a new run with the settings and the weights of the run in ``folder``."""
    typed = ["--env", config.env] if names_a_module(config.env) else []
    data = str(getattr(config.data_config, "data", ""))
    typed += ["--data", data] if names_a_source(data) else []
    files = ["--config", str(folder / "config.toml"), "--init-from", str(folder / f"{config.algo}.pt")]
    return f"{shlex.join(['recsys-rl', 'train', *files, *typed])} --total-timesteps NUMBER"


def _say(*lines: str) -> None:
    for line in filter(None, lines):
        with contextlib.suppress(OSError):  # a terminal that was closed
            print(line, file=sys.stderr)


def _go_on(
    opened: OpenRun, requests_to_stop: Callable[[], AbstractContextManager[list[int]]]
) -> Iterator[Update]:
    """Yield the remaining updates. A request to stop ends the loop after the current update."""
    run, ranks = opened.run, opened.ranks
    before = run.updates
    settings, run_log = run.config.train_config, opened.run_log
    stop, asked = False, False
    stale = _is_stale(run)
    with nullcontext() if run_log is None else run_log.logger:
        while run.updates < run.num_updates and not stop and not stale:
            with requests_to_stop() as requests:
                batch = run.experience.batch()
                metrics = {**run.agent.update(batch.data), **batch.metrics}
                run.updates += 1
                metrics, ended, stop = _exchange(metrics, batch.ended, asked or bool(requests), ranks)
                _check_finite(metrics, run, opened)
                if run_log is not None:
                    metrics = run_log.write(run, metrics, ended)
                if "log_return_mean" in metrics:
                    stale = _judged(opened)
                if run.due(settings.save_interval) or run.updates == run.num_updates or stop or stale:
                    _save(opened)
                asked = bool(requests)
            try:
                yield Update(run.step, metrics, run, opened.path.parent)
            except GeneratorExit:  # the caller's loop ended here
                _save(opened)
                raise
    folder = opened.path.parent
    if run.updates < run.num_updates and not stale:
        raise Interrupted(
            f"Stopped at step {run.step:,}; {folder} holds the run: continue it with --run {folder}."
        )
    if opened.run_log is not None and not opened.quiet:
        done = f"done: {run.step:,} steps; checkpoint: {opened.path}; log: {opened.run_log.logger.path}"
        finished = (
            f"{folder} is finished at step {run.step:,}: nothing is left to train. To train longer, start a "
            f"new run from its weights: {_from_weights(run.config, folder)}"
        )
        verdict = run.experience.verdict() if isinstance(run.experience, OnPolicy) else ""
        _say(
            done if run.updates > before else finished, _about_gates(run), verdict, _about_best(opened, stale)
        )
        if not run.has_simulator:
            from recsys_rl.workflows.judge_run import judge_run  # polars and the estimators

            judge_run(run, opened.path)


def _judged(opened: OpenRun) -> bool:
    """Keep the policy in best.pt if its estimate on the log is the highest; True if the run should stop."""
    if evaluations_since_best(opened.run) == 0:
        save(opened.path.with_name(BEST), snapshot(opened.run, opened.ranks))
    return _is_stale(opened.run)


def _is_stale(run: Run) -> bool:
    """True if the estimate on the log has not risen for JUDGE_PATIENCE evaluations."""
    since = evaluations_since_best(run)
    return since is not None and since >= JUDGE_PATIENCE


def _about_best(opened: OpenRun, stale: bool) -> str:
    """A line about the policy with the highest estimate on the log; "" without one."""
    curve = opened.run.curves.get("log")
    if not curve:
        return ""
    step, mean, low, high = max(curve, key=lambda row: row[1])
    why = f"stopped, as the estimate on the log has not risen since step {step:,.0f}; " if stale else ""
    return (
        f"{why}{opened.path.with_name(BEST)} has the policy of step {step:,.0f}, with the highest estimate "
        f"by {opened.run.judged_by}, {mean:.2f} ({low:.2f} to {high:.2f}): the highest of {len(curve)} "
        "estimates, so too high on average; the held-out users that chose it are also users of evaluate's "
        "table"
    )


def _about_gates(run: Run) -> str:
    """A line with the largest mean gates of the scorer head; "" for another head."""
    if run.env is None or not isinstance(run.agent, NetworkPolicy):
        return ""
    gates = run.agent.mean_gates(run.env.observe(), run.interface)
    largest = sorted(gates, key=lambda name: -abs(gates[name]))[:SHOWN_GATES]
    return "mean gates: " + ", ".join(f"{name} {gates[name]:.2f}" for name in largest) if gates else ""


def _save(opened: OpenRun) -> None:
    run = opened.run
    if opened.saved == run.step:
        return
    if run.recorder is not None:
        run.recorder.write(run.updates, run.updates == run.num_updates)
    checkpoint = snapshot(opened.run, opened.ranks)
    if opened.ranks.rank == 0:
        save(opened.path, checkpoint)
    opened.saved = opened.run.step


def _exchange(
    metrics: Mapping[str, float], ended: Tensor, stop: bool, ranks: Ranks
) -> tuple[dict[str, float], Tensor, bool]:
    """Gather an update's mean metrics, finished sessions (2, finished), and True if any rank must stop."""
    everyone = ranks.gather(
        {
            "metrics": torch.tensor(list(metrics.values()), dtype=torch.float64),
            "ended": ended,
            "stop": torch.tensor(stop),
        }
    )
    means = torch.stack([rank["metrics"] for rank in everyone]).mean(0).tolist()
    all_ended = torch.cat([rank["ended"] for rank in everyone], 1)
    return dict(zip(metrics, means, strict=True)), all_ended, any(bool(rank["stop"]) for rank in everyone)


def _logger(run: Run, folder: Path, quiet: bool) -> Logger:
    settings, title = run.config.train_config, f"{run.config.algo} on {run.config.env}"
    try:
        return Logger(folder, title, run.num_updates * run.per_update, run.step, settings.tensorboard, quiet)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error_text(error)}): mend that.") from error


def _check_finite(metrics: Mapping[str, float], run: Run, opened: OpenRun) -> None:
    """Raise UserError if a loss is NaN or infinite."""
    losses = ("loss", "policy_loss", "value_loss")
    bad = [name for name in losses if not math.isfinite(metrics.get(name, 0.0))]
    if bad:
        kept = f"the state of step {opened.saved:,}" if opened.saved else "the untrained policy"
        raise UserError(
            f"{bad[0]} became {metrics[bad[0]]} at step {run.step:,} (update {run.updates}), so the run "
            f"stopped and {opened.path} keeps {kept}: start again with a lower --lr or --max-grad-norm."
        )

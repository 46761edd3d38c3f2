"""The door to training: config -> env, agent -> (collect, update, log, save)*."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.checkpoint import save, save_first
from recsys_rl.config import Config, from_toml, to_toml
from recsys_rl.effect import check_effect
from recsys_rl.env.gym_env import GymEnv
from recsys_rl.env.world import make_env
from recsys_rl.functional import kernels
from recsys_rl.ranks import ALONE, Ranks
from recsys_rl.rollout import collect, play
from recsys_rl.run import Run, begin, choose_device, load_to_resume, snapshot
from recsys_rl.types import Rollout, UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.logger import Logger
from recsys_rl.utils.metrics import Interval, interval
from recsys_rl.utils.seeding import stream_seed

NUM_EVAL_USERS = 256  # training users that periodic evaluation plays, at most


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass
class Diary:
    """What rank 0 writes down: rows of the log and points of the learning curve, where they are due."""

    logger: Logger
    ended: list[Tensor] = field(default_factory=list)  # sessions since the last row: returns, lengths (2, n)
    news: str = ""

    def write(self, run: Run, metrics: Mapping[str, float], ended: Tensor) -> None:
        settings, row = run.config.train_config, dict(metrics)
        self.ended.append(ended)
        if run.due(settings.log_interval):
            returns, lengths = torch.cat(self.ended, 1)
            self.ended.clear()
            if len(returns):
                row["return_mean"], row["length_mean"] = returns.mean().item(), lengths.mean().item()
                self.news = f"return {row['return_mean']:.2f}"
            row["steps_per_second"] = self.logger.steps_per_second(run.step)
            self.logger.write(run.step, row)
        if run.due(settings.eval_interval):
            found = evaluate_training_users(run)
            run.curve.append([run.step, found.mean, found.low, found.high])
            evaluated = {"mean": found.mean, "low": found.low, "high": found.high}
            self.logger.write(run.step, {f"eval_return_{name}": x for name, x in evaluated.items()})
        self.logger.show(run.step, self.news)


def train(config: Config, resume: bool = False, ranks: Ranks = ALONE) -> Path:
    """Train as ``config`` says and return the checkpoint's path.

    With ``resume`` the run in ``checkpoint_dir`` goes on as if it had never stopped, in the world that
    its checkpoint holds. Without, an earlier run's checkpoint there is kept as <algo>.old.pt. Raises
    UserError for whatever the user can mend, and Interrupted after Ctrl-C or SIGTERM.

    ``ranks`` are the processes of the run. Each calls this with the same arguments; rank 0 alone logs,
    evaluates and writes.
    """
    settings = config.train_config
    if settings.num_processes != ranks.size:
        raise UserError(
            f"train_config.num_processes is {settings.num_processes}, and this is a run of {ranks.size}: the "
            "command `recsys-rl train` starts several processes, and so does torchrun."
        )
    if not resume:
        check_effect(config)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    path = Path(settings.checkpoint_dir) / f"{config.algo}.pt"
    run = begin(config, load_to_resume(path, config, device) if resume else None, device, ranks)
    keep_freed_memory()  # from here on, as what the data needed is better given back
    first = ranks.rank == 0
    if resume and first:
        print(
            f"resuming {path} at step {run.step:,} of {run.num_updates * run.per_update:,}", file=sys.stderr
        )
    asked, planned = settings.total_timesteps, run.num_updates * run.per_update
    if first and asked != planned and not resume:
        print(
            f"total_timesteps {asked:,} is rounded to whole updates of {run.per_update:,}: {planned:,} steps",
            file=sys.stderr,
        )
    if first and device.type == "cpu" and kernels.library() is None:
        print(
            "The compiled loops are missing here, so torch's operators stand in, more slowly: install again "
            "where there is a C compiler.",
            file=sys.stderr,
        )
    obs, stop = run.env.observe(), False
    with _logger(run) if first else nullcontext() as logger, ranks.stop_requests() as requests:
        diary = None if logger is None else Diary(logger)
        if not resume:
            _save_first(path, run, ranks)
        saved = run.step
        while run.updates < run.num_updates and not stop:
            rollout, obs = collect(run.env, run.agent, obs, config.agent_config.n_steps)
            metrics = run.agent.update(rollout)
            run.updates += 1
            metrics, ended, stop = _exchange(run, rollout, metrics, bool(requests), ranks)
            _check_finite(metrics, run, path, saved)
            if diary is not None:
                diary.write(run, metrics, ended)
            if run.due(settings.save_interval) or run.updates == run.num_updates or stop:
                checkpoint = snapshot(run, ranks)
                if first:
                    save(path, checkpoint)
                saved = run.step
    if run.updates < run.num_updates:
        raise Interrupted(f"Stopped at step {run.step:,}; {path} holds the run: --resume goes on from there.")
    if logger is not None:
        print(f"done: {run.step:,} steps; checkpoint: {path}; log: {logger.path}", file=sys.stderr)
    return path


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


def evaluate_training_users(run: Run) -> Interval:
    """Greedy return on a fixed draw of training users (on fresh seeds of other people's environments)."""
    seed = stream_seed(run.config.train_config.seed, "training evaluation")
    if run.population is None:
        generator = torch.Generator(run.streams["users"].device).manual_seed(seed)
        env = make_env(run.config, None, None, 16, generator, training=False)
        assert isinstance(env, GymEnv) and isinstance(run.env, GymEnv)
        env.load_statistics(run.env.statistics())
        return interval(play(env, run.agent, None, greedy=True).returns)
    train = run.population.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    users = train[order[:NUM_EVAL_USERS].to(train.device)]
    generator = torch.Generator(users.device).manual_seed(seed)
    env = make_env(run.config, run.catalogue, run.population, len(users), generator, training=False)
    return interval(play(env, run.agent, users, greedy=True).returns)


def _save_first(path: Path, run: Run, ranks: Ranks) -> None:
    """So that a run killed before its first interval can be resumed, too."""
    checkpoint = snapshot(run, ranks)
    kept = save_first(path, checkpoint) if ranks.rank == 0 else None
    if kept is not None:
        print(f"{path} of an earlier run is kept as {kept.name}", file=sys.stderr)


def _logger(run: Run) -> Logger:
    settings = run.config.train_config
    env = run.config.env.replace(":", "-").replace("/", "-")
    folder = Path(settings.log_dir) / f"{env}-{run.config.algo}-{settings.seed}"
    try:
        logger = Logger(
            folder,
            f"{run.config.algo} on {run.config.env}",
            run.num_updates * run.per_update,
            run.step,
            settings.tensorboard,
            to_toml(run.config),
            own=_is_of(folder / "config.toml", run.config),
        )
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): choose another --log-dir.") from error
    return logger


def _is_of(file: Path, config: Config) -> bool:
    """Whether the log beside this config.toml is of a run that learns as ``config`` says (or of none)."""
    try:
        logged = from_toml(file.read_text("utf-8"))
    except FileNotFoundError:
        return True
    except (UserError, UnicodeDecodeError):
        return False
    return replace(logged, train_config=config.train_config) == config


def _check_finite(metrics: Mapping[str, float], run: Run, path: Path, saved: int) -> None:
    """Raise UserError where the loss is no number; ``saved`` is the step of the checkpoint at ``path``."""
    bad = [name for name in ("loss", "policy_loss", "value_loss") if not math.isfinite(metrics[name])]
    if bad:
        kept = f"the state of step {saved:,}" if saved else "the untrained policy"
        raise UserError(
            f"{bad[0]} became {metrics[bad[0]]} at step {run.step:,} (update {run.updates}), so the run "
            f"stopped and {path} keeps {kept}: start again with a lower --lr or --max-grad-norm."
        )

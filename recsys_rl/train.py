"""The door to training: config -> env, agent -> (collect, update, log, save)*."""

from __future__ import annotations

import math
import platform
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import recsys_rl
from recsys_rl.agents import make_agent
from recsys_rl.checkpoint import Checkpoint, check_algo, load, restoring, save, save_first
from recsys_rl.config import Config, to_dict, to_toml
from recsys_rl.env.gym_env import GymEnv
from recsys_rl.env.world import make_env, make_world
from recsys_rl.rollout import collect, play
from recsys_rl.types import Catalogue, Env, LearningAgent, Population, UserError
from recsys_rl.utils.logger import Logger
from recsys_rl.utils.metrics import Interval, SessionReturns, interval
from recsys_rl.utils.seeding import generators, stream_seed

STREAMS = ("model", "users", "policy", "shuffle")
NUM_EVAL_USERS = 256  # training users that periodic evaluation plays, at most

# What a resumed run may change: nothing of it touches the course of learning.
FREE_ON_RESUME = {
    ("data_config", "data_dir"),
    ("data_config", "cache_dir"),
    ("train_config", "log_interval"),
    ("train_config", "eval_interval"),
    ("train_config", "save_interval"),
    ("train_config", "log_dir"),
    ("train_config", "checkpoint_dir"),
    ("train_config", "threads"),
    ("train_config", "device"),  # as a word; _load_to_resume compares what it means on this machine
    ("train_config", "tensorboard"),
}


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass
class Run:
    """A run between two updates: all that a checkpoint stores, alive."""

    config: Config
    catalogue: Catalogue | None  # None, as the population, on other people's environments
    population: Population | None
    env: Env
    agent: LearningAgent
    sessions: SessionReturns
    streams: dict[str, torch.Generator]
    num_updates: int  # of the whole run
    updates: int = 0
    curve: list[list[float]] = field(default_factory=list)  # rows of step, mean, low, high

    @property
    def per_update(self) -> int:
        return self.config.agent_config.n_steps * self.config.agent_config.num_envs

    @property
    def step(self) -> int:
        return self.updates * self.per_update

    def due(self, interval: int) -> bool:
        """Is something that is done every ``interval`` updates (0 = never) and at the end due now?"""
        return interval > 0 and (self.updates % interval == 0 or self.updates == self.num_updates)


def train(config: Config, resume: bool = False) -> Path:
    """Train as ``config`` says and return the checkpoint's path.

    With ``resume`` the run in ``checkpoint_dir`` goes on as if it had never stopped, in the world that
    its checkpoint holds. Without, an earlier run's checkpoint there is kept as <algo>.old.pt. Raises
    UserError for whatever the user can mend, and Interrupted after Ctrl-C or SIGTERM.
    """
    settings = config.train_config
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    path = Path(settings.checkpoint_dir) / f"{config.algo}.pt"
    run = begin(config, _load_to_resume(path, config, device) if resume else None, device)
    obs, news = run.env.observe(), ""
    ended: list[torch.Tensor] = []  # returns and lengths of sessions that ended since the last row of the log
    with _logger(run) as logger, _stop_signals() as stopping:
        if not resume:
            # So that a run killed before its first interval can be resumed, too.
            kept = save_first(path, _checkpoint(run))
            if kept is not None:
                print(f"{path} of an earlier run is kept as {kept.name}", file=sys.stderr)
        while run.updates < run.num_updates and not stopping:
            rollout, obs = collect(run.env, run.agent, obs, config.agent_config.n_steps)
            metrics = run.agent.update(rollout)
            run.updates += 1
            _check_finite(metrics, run, path)

            done = rollout.terminated | rollout.truncated
            ended.append(torch.stack(run.sessions.add(rollout.raw_rewards, done)))  # (2, finished)
            if run.due(settings.log_interval):
                returns, lengths = torch.cat(ended, 1)
                ended.clear()
                if len(returns):
                    metrics["return_mean"] = returns.mean().item()
                    metrics["length_mean"] = lengths.mean().item()
                    news = f"return {metrics['return_mean']:.2f}"
                metrics["reward_mean"] = rollout.raw_rewards.mean().item()
                metrics["steps_per_second"] = logger.steps_per_second(run.step)
                logger.write(run.step, metrics)
            if run.due(settings.eval_interval):
                found = evaluate_training_users(run)
                run.curve.append([run.step, found.mean, found.low, found.high])
                evaluated = {"mean": found.mean, "low": found.low, "high": found.high}
                logger.write(run.step, {f"eval_return_{name}": x for name, x in evaluated.items()})
            logger.show(run.step, news)
            if run.due(settings.save_interval) or run.updates == run.num_updates or stopping:
                save(path, _checkpoint(run))
    if run.updates < run.num_updates:
        raise Interrupted(f"Stopped at step {run.step:,}; {path} holds the run: --resume goes on from there.")
    print(f"done: {run.step:,} steps; checkpoint: {path}; log: {logger.path}", file=sys.stderr)
    return path


def begin(config: Config, before: Checkpoint | None, device: torch.device) -> Run:
    """World, environment, agent and random streams: new ones, or those of a checkpoint."""
    settings = config.train_config
    if before is not None:
        catalogue, population = before.catalogue, before.population
    elif config.env.startswith("gym:"):
        catalogue = population = None
    else:
        catalogue, population = make_world(config.env, config.data_config, config.env_config, settings.seed)
    if catalogue is not None and population is not None:
        catalogue, population = catalogue.to(device), population.to(device)
        sizes = f"{len(population.train)} training users, {len(population.heldout)} held out"
        print(f"data: {catalogue.source}; {sizes}", file=sys.stderr)
    streams = generators(settings.seed, *STREAMS, device=device)
    streams["model"] = generators(settings.seed, "model")["model"]  # weights are drawn on the CPU
    agent_config = config.agent_config
    env = make_env(config, catalogue, population, agent_config.num_envs, streams["users"])
    num_updates = max(1, settings.total_timesteps // (agent_config.n_steps * agent_config.num_envs))
    agent = make_agent(config, env, catalogue, num_updates, streams, device)
    sessions = SessionReturns(env.num_envs, device)
    run = Run(config, catalogue, population, env, agent, sessions, streams, num_updates)
    if before is None:
        env.reset()
    else:
        with restoring():
            agent.load_state_dict({name: x.to(device) for name, x in before.agent.items()})
            if not isinstance(env, GymEnv):
                env.load_state_dict(before.env)
            for name, stream in streams.items():
                stream.set_state(before.generators[name])
            run.updates = before.updates
            run.curve = list(before.info["curve"])
            sessions.load_state_dict(before.info["sessions"])
        if isinstance(env, GymEnv):  # plays on, so what fails here is somebody else's code and not the file
            env.load_state_dict(before.env)
    return run


def choose_device(name: str) -> torch.device:
    """auto -> cuda where there is one. Raises UserError where cuda is asked for and missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this build of torch has no CUDA: use --device cpu.")
    return torch.device(name)


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
        )
        (folder / "config.toml").write_text(to_toml(run.config))
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): choose another --log-dir.") from error
    return logger


def _load_to_resume(path: Path, config: Config, device: torch.device) -> Checkpoint:
    checkpoint = load(path)
    check_algo(path, checkpoint, config.algo)
    with restoring():
        made_on = torch.device(checkpoint.info["device"]).type
    if made_on != device.type:  # whose generators have states of another kind
        raise UserError(
            f"{path} was made on {made_on}, and this run is on {device.type}: resume with --device "
            f"{made_on}, or start a new run without --resume."
        )
    before, now = to_dict(checkpoint.config), to_dict(config)
    for section, value in before.items():
        fields = value if isinstance(value, dict) else {"": value}
        for name, old in fields.items():
            new = now[section][name] if isinstance(value, dict) else now[section]
            if old != new and (section, name) not in FREE_ON_RESUME:
                option = f"--{(name or section).replace('_', '-')}"
                raise UserError(
                    f"{path} was made with {option} {old}, and this run asks for {new}: leave {option} out "
                    "to resume, or start a new run without --resume."
                )
    return checkpoint


def _check_finite(metrics: Mapping[str, float], run: Run, path: Path) -> None:
    bad = [name for name in ("loss", "policy_loss", "value_loss") if not math.isfinite(metrics[name])]
    if bad:
        raise UserError(
            f"{bad[0]} became {metrics[bad[0]]} at step {run.step:,} (update {run.updates}), so the run "
            f"stopped and {path} keeps the last good state: start again with a lower --lr or --max-grad-norm."
        )


def _checkpoint(run: Run) -> Checkpoint:
    info: dict[str, Any] = {
        "curve": run.curve,
        "sessions": run.sessions.state_dict(),
        "device": run.streams["users"].device.type,
        "recsys_rl": recsys_rl.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Checkpoint(
        run.config,
        run.catalogue,
        run.population,
        run.agent.state_dict(),
        run.env.state_dict(),
        {name: stream.get_state() for name, stream in run.streams.items()},
        run.step,
        run.updates,
        info,
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM: the run ends between two updates, or at once at the second signal."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, which alone may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

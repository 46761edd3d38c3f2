"""The learning curve: the greedy policy, measured at the evaluations of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.experience.rollout import MAX_STEPS, Sessions, play
from recsys_rl.make import episodes, make_env, one_visit
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.training.observers import Observer
from recsys_rl.training.run import Run, Update
from recsys_rl.types import World
from recsys_rl.utils.logger import Logger
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import stream_seed

NUM_EVAL_USERS = 256  # at most so many training users in a periodic evaluation
NUM_EVAL_EPISODES = 16  # in a periodic evaluation on a Gymnasium environment
MAX_EVAL_STEPS = 1_000  # of an episode without a time limit, because it may have no end


class Measured(NamedTuple):
    """A value with the ends of its 95 % interval, and other numbers for the row of the log."""

    mean: float
    low: float
    high: float
    others: Mapping[str, float] = {}


class Evaluator(Observer):
    """Measures the policy before the first update and at each evaluation: rows of the log, and a curve.

    The learning curve, ``eval``, is ``curve`` in the information of a checkpoint; others are in ``curves``.
    """

    def __init__(self, logger: Logger, name: str, measure: Callable[[Run], Measured]) -> None:
        self.logger, self.name, self.measure = logger, name, measure

    def begun(self, run: Run) -> None:
        if run.config.train_config.eval_interval:
            self.evaluate(run)

    def updated(self, update: Update) -> None:
        if update.run.due(update.run.config.train_config.eval_interval):
            update.metrics.update(self.evaluate(update.run))

    def evaluate(self, run: Run) -> dict[str, float]:
        """The row of the log. It is written, and its point joins the curve."""
        *point, others = self.measure(run)
        own = self.name == "eval"
        curves = run.info if own else run.info.setdefault("curves", {})
        curves.setdefault("curve" if own else self.name, []).append([run.step, *point])
        ends = zip(("mean", "low", "high"), point, strict=True)
        row = {f"{self.name}_return_{end}": value for end, value in ends} | dict(others)
        self.logger.write(run.step, row)
        return row


class Played:
    """The mean return of training users, as ``Evaluator`` measures it for the learning curve."""

    def __init__(self, logger: Logger) -> None:
        self.logger, self.cut_is_noted = logger, False

    def __call__(self, run: Run) -> Measured:
        sessions = evaluate_training_users(run)
        estimate, others = interval(sessions.returns), {}
        if sessions.num_cut:
            others["eval_cut"] = float(sessions.num_cut)
            if not self.cut_is_noted:
                self.logger.note(
                    f"evaluation at step {run.step:,}: {sessions.num_cut} of {len(sessions.left)} episodes "
                    f"had no end within {len(sessions.items):,} steps and were cut there (the log's eval_cut)"
                )
            self.cut_is_noted = True
        return Measured(estimate.mean, estimate.low, estimate.high, others)


def evaluate_training_users(run: Run) -> Sessions:
    """Sessions of the greedy policy with ``training_sessions``."""
    device = run.streams["users"].device
    statistics = None if run.env is None else run.env.statistics()
    return training_sessions(run.config, run.world, run.agent, device, statistics)


def training_sessions(
    config: Config,
    world: World,
    agent: Policy,
    device: torch.device,
    statistics: Mapping[str, Tensor] | None = None,
) -> Sessions:
    """Greedy sessions of a fixed sample of training users, or episodes if the world has no users.

    A session is one visit: whole lives would take longer than the training itself. ``statistics``: those of
    the environment's normalisation, if it has one.
    """
    seed = stream_seed(config.train_config.seed, "training evaluation")
    train = world.population.train
    if world.is_empty:
        users = episodes(NUM_EVAL_EPISODES, seed)
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        users = train[order[:NUM_EVAL_USERS].to(device)]
    generator = torch.Generator(device).manual_seed(seed)
    env = make_env(one_visit(config), world, len(users), generator, training=False)
    env.load_statistics(statistics or {})
    max_steps = min(env.interface.session_length or MAX_EVAL_STEPS, MAX_STEPS)
    return play(env, agent, users, greedy=True, max_steps=max_steps)

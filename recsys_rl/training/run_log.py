"""Write the rows of a run's log, and evaluate for the learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from recsys_rl.experience.rollout import MAX_STEPS, Sessions, play
from recsys_rl.make import episodes, make_env, one_visit
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.training.run import Run
from recsys_rl.types import World
from recsys_rl.utils.logger import Logger
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import stream_seed

NUM_EVAL_USERS = 256  # at most so many training users in a periodic evaluation
NUM_EVAL_EPISODES = 16  # in a periodic evaluation on a Gymnasium environment
MAX_EVAL_STEPS = 1_000  # of an episode without a time limit, because it may have no end


class RunJudge(Protocol):
    """Further measurements at each evaluation (workflows/judged.py)."""

    estimator: str  # of an estimate on a log; "" where the policy is played
    note: str  # a line for the start of a run; "" for none

    def judge(self, run: Run) -> tuple[float, float, float]:
        """The value of the run's greedy policy with the ends of its 95 % interval."""
        ...


@dataclass
class RunLog:
    """Writes rank 0's log and learning curve at the intervals in the settings."""

    logger: Logger
    ended: list[Tensor] = field(default_factory=list)  # sessions since the last row: returns, lengths (2, n)
    news: str = ""
    cut_is_noted: bool = False
    judges: Mapping[str, RunJudge] = field(default_factory=dict)  # by the name of their curve

    def write(self, run: Run, metrics: Mapping[str, float], ended: Tensor) -> dict[str, float]:
        """Log ``metrics``, evaluate if it is time, and return ``metrics`` with the added numbers."""
        settings, row = run.config.train_config, dict(metrics)
        self.ended.append(ended)
        if run.due(settings.log_interval):
            returns, lengths = torch.cat(self.ended, 1)
            self.ended.clear()
            if len(returns):
                row["return_mean"], row["length_mean"] = returns.mean().item(), lengths.mean().item()
                self.news = f"return {row['return_mean']:.2f}"
            elif run.env is None:
                self.news = f"loss {row['loss']:.3f}"
                if "value_start" in row:  # far above the log's returns, values run away
                    value, returns = row["value_start"], row["return_start"]
                    self.news += f"  value at the start {value:.2f} (log: {returns:.2f})"
            row["steps_per_second"] = self.logger.steps_per_second(run.step)
            self.logger.write(run.step, row)
        if run.has_simulator and run.due(settings.eval_interval):
            row |= self.evaluate(run)
        self.logger.show(run.step, self.news)
        return row

    def evaluate(self, run: Run) -> dict[str, float]:
        """Play training users greedily; add a row to the log and a point to the learning curve."""
        sessions = evaluate_training_users(run)
        found = interval(sessions.returns)
        run.curve.append([run.step, found.mean, found.low, found.high])
        row = {f"eval_return_{name}": getattr(found, name) for name in ("mean", "low", "high")}
        if sessions.num_cut:
            row["eval_cut"] = float(sessions.num_cut)
            if not self.cut_is_noted:
                self.logger.note(
                    f"evaluation at step {run.step:,}: {sessions.num_cut} of {len(sessions.left)} episodes "
                    f"had no end within {len(sessions.items):,} steps and were cut there (the log's eval_cut)"
                )
            self.cut_is_noted = True
        for name, judge in self.judges.items():
            point = judge.judge(run)
            run.curves.setdefault(name, []).append([run.step, *point])
            ends = zip(("mean", "low", "high"), point, strict=True)
            row |= {f"{name}_return_{end}": value for end, value in ends}
        self.logger.write(run.step, row)
        return row


def evaluations_since_best(run: Run) -> int | None:
    """Evaluations since the highest estimate on the log, 0 at the latest; None without an estimate."""
    values = [mean for _, mean, _, _ in run.curves.get("log", ())]
    return len(values) - 1 - values.index(max(values)) if values else None


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

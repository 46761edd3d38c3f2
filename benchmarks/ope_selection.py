"""Which of ten policies is the best? Chosen from a log alone, against what each of them earns.

The log is half by a random policy and half by PPO stopped early, sampled. For each estimator: Spearman's
correlation of its ten estimates with the true returns, among the better five too, the regret of the
policy that it puts first, as a share of the best return, and the mean and the largest of the ten relative
errors.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.mixture import EpsilonMixture
from recsys_rl.evaluation.players import Table
from recsys_rl.evaluation.policies import Behaviours
from recsys_rl.experience.rollout import play
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, concatenate
from recsys_rl.logs.experience.decisions import record
from recsys_rl.logs.ope.playable import playable
from recsys_rl.logs.ope.policies import read_policy, with_models
from recsys_rl.logs.ope.policies import weighted as weighted_sessions
from recsys_rl.logs.ope.replay import replay
from recsys_rl.logs.ope.reward_model import ridge
from recsys_rl.logs.ope.rows import Knowledge, score
from recsys_rl.logs.ope.world import fit_world, world
from recsys_rl.objective.weighted import weighted
from recsys_rl.protocols import Behaviour
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training.train import train
from recsys_rl.utils.seeding import generators

WIDTH = 256  # sessions played together
TABLE = (
    "popularity",
    "static-list",
    "mf",
    "mmr",
)  # policies of the evaluation table, beside PPO's and random


@dataclass(frozen=True)
class Sizes:
    env: str = "satiation"
    sessions: int = 20_000  # of each log
    truth_sessions: int = 4_000  # of each policy
    steps: int = 600_000  # of PPO
    early_share: float = 0.1  # of these for PPO stopped early
    settings: tuple[tuple[str, object], ...] = ()  # of env_config, for a small run


SIZES = {
    "satiation": Sizes(),
    # Its sessions are ten to twenty times as long.
    "short-video": Sizes("short-video", sessions=1_000, truth_sessions=500, steps=800_000),
}


def smoke(env: str) -> Sizes:
    """The smallest sizes."""
    return Sizes(env, 60, 20, 400, 0.5, (("num_items", 24), ("max_episode_steps", 4)))


class Arena:
    """Two PPO policies, the table's simple ones, and the environment that they share."""

    def __init__(self, sizes: Sizes, seed: int, data: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trained, early = (
                self._train(Path(folder) / name, sizes, seed, data, share)
                for name, share in (("whole", 1.0), ("early", sizes.early_share))
            )
        self.checkpoint = trained
        self.streams = generators(seed, "evaluation users", "policy", "random", "mixture", "sessions", "ope")
        self.users = trained.population.train
        cpu = torch.device("cpu")
        table = Table(trained.config, trained.world, self.users[:1], seed, cpu, self.streams)
        env = table.env()
        assert isinstance(env, RecEnv)
        self.env = env
        self.policies = self._policies(
            Behaviours(trained, table, env, None), Behaviours(early, table, env, None)
        )
        self.loggers = {name: self.policies[name] for name in ("random", "ppo-early")}

    def _train(self, folder: Path, sizes: Sizes, seed: int, data: str, share: float) -> Checkpoint:
        settings = {
            "env": sizes.env,
            "env_config": dict(sizes.settings),
            "data_config": {"data": data},
            "train_config": {"seed": seed, "total_timesteps": int(sizes.steps * share), "eval_interval": 0},
        }
        return load(train(from_dict(Config, settings), folder=folder, quiet=True))

    def _policies(self, trained: Behaviours, early: Behaviours) -> dict[str, Behaviour]:
        made = {name: trained.make(name) for name in ("random", *TABLE)}
        stopped, random = early.make("ppo"), made["random"]
        made["half random"] = EpsilonMixture(stopped, random, 0.5, self.streams["mixture"])
        made |= {"ppo-early": stopped, "ppo-early-greedy": early.make("ppo-greedy")}
        return made | {"ppo": trained.make("ppo"), "ppo-greedy": trained.make("ppo-greedy")}

    def log(self, sessions: int, generator: torch.Generator) -> DecisionLog:
        env, header = self.env, self._header()
        parts = []
        for start in range(0, sessions, WIDTH):
            count = min(WIDTH, sessions - start)
            users = self.users[torch.randint(len(self.users), (count,), generator=generator)]
            parts.append(
                record(
                    env,
                    lambda: env.user_model.visible(env.user_state),
                    list(self.loggers.values()),
                    header,
                    users,
                    self.checkpoint.population.user_ids[users],
                    start,
                    generator,
                )
            )
        return concatenate(parts)

    def _header(self) -> DecisionHeader:
        return DecisionHeader(
            loggers=tuple(self.loggers),
            interface=self.env.interface,
            signals=tuple(signal.name for signal in self.env.signals),
            platform=self.checkpoint.config.env,
            catalogue=catalogue_hash(self.checkpoint.catalogue),
        )

    def truth(self, policy: Behaviour, sessions: int) -> float:
        """The mean return of ``sessions`` sessions, of evenly spread training users."""
        places = torch.arange(sessions) * len(self.users) // sessions
        played = [play(self.env, policy, self.users[rows]).returns for rows in places.split(WIDTH)]
        return float(torch.cat(played).mean())


def rank(values: Tensor) -> Tensor:
    """(n,) ranks from 0; equal values are not expected."""
    return values.argsort().argsort().double()


def spearman(x: Tensor, y: Tensor) -> float:
    a, b = rank(x), rank(y)
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def selection(sizes: Sizes, logs: int, seed: int, data: str = "movielens") -> list[Row]:
    """A row for each estimator and log, and the true returns in the first."""
    arena = Arena(sizes, seed, data)
    names = list(arena.policies)
    truth = torch.tensor([arena.truth(arena.policies[name], sizes.truth_sessions) for name in names])
    known = {"env": sizes.env, "sessions": sizes.sessions}
    rows: list[Row] = [
        known | {"policy": name, "truth": float(value)} for name, value in zip(names, truth, strict=True)
    ]
    for number in range(logs):
        values, seconds = estimates(
            arena, sizes.sessions, torch.Generator().manual_seed(1000 * seed + number)
        )
        for estimator, estimated in values.items():
            best = truth.topk(5).indices
            off = (estimated - truth) / truth.abs()
            rows.append(
                known
                | {
                    "log": number,
                    "estimator": estimator,
                    "spearman": spearman(estimated, truth),
                    "spearman_of_five": spearman(estimated[best], truth[best]),
                    "regret": float((truth.max() - truth[estimated.argmax()]) / truth.max()),
                    "error": float(off.abs().mean()),
                    "worst_error": float(off[off.abs().argmax()]),
                    "worst_of": names[int(off.abs().argmax())],
                }
                | (seconds if estimator == "world" else {})
            )
    return rows


def estimates(arena: Arena, sessions: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Row]:
    """The ten estimates (10,) of each estimator on a new log, and the processor seconds of `world`."""
    log = arena.log(sessions, generator)
    rewards = weighted(arena.env.user_model.rewards(log.feedback), arena.env.weights)  # (E,)
    catalogue = arena.checkpoint.catalogue
    of = replay(log, catalogue, rewards, 1.0, generator)
    started = time.process_time()
    worlds = fit_world(of, generator)
    fitted = time.process_time()
    by_name: dict[str, list[float]] = {}
    playing = 0.0
    for policy in arena.policies.values():
        read = read_policy(of, playable("", policy), draws=2)
        before = time.process_time()
        played = world(worlds, policy)
        playing = max(playing, time.process_time() - before)
        evidence, _ = with_models(of, weighted_sessions(of, read), read, ridge())
        evidence = replace(evidence, world=played)
        for name, terms in score("", evidence, of.users, knowledge=Knowledge(most=of.most)).terms.items():
            by_name.setdefault(name, []).append(float(terms.mean()))
    seconds = {"fit_s": fitted - started, "most_s_of_a_policy": playing}
    return {name: torch.tensor(values) for name, values in by_name.items()}, seconds

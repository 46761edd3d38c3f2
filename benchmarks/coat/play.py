"""The games of the Coat benchmark: worlds of two matrices, the policies, and the rows of one refit."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.coat.lists import BayesReader, Rules, Steps, greedy_list, searched_list
from benchmarks.harness.turns import Row
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import RandomPolicy, static_list
from recsys_rl.experience.on_policy import OnPolicy
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_agent, make_env, make_world
from recsys_rl.objective.objectives import make_objectives
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.types import Obs, Step, World
from recsys_rl.utils.seeding import generators

GAMES = {"FB": True, "NX": False}  # may items repeat?
VERSUS = ("list", "penalised", "blind")
RANDOM_ROUNDS = 10
NOISE = 1.0  # in training: about the error of the estimates on held-out ratings of train.ascii, 1.1
BEST = 60  # items of which ``leak_of`` is computed
DEVIATION = 1.0  # of a rating around the posterior's user, chosen as the networks' settings
TUNED_ON, TUNED_IN = (100, 102), 101  # seeds of the refits in which the settings below were chosen
COMMON: dict[str, Any] = {
    "env": "benchmarks.coat.matrix_users:PLATFORM",
    "data": "benchmarks.coat.game:SOURCE",
    "everyone": True,
    "embedding_dim": 32,
    "max_episode_steps": 30,
    "gamma": 0.9,
    "weights": ("rating=0.1",),
    "hidden_dims": (64,),
    "eval_interval": 0,
}
PPO: dict[str, Any] = {
    "algo": "ppo",
    "num_envs": 256,
    "n_steps": 8,
    "batch_size": 512,
    "head": "dense",  # as good as two towers here, in less time
    "lr": 3e-3,
    "ent_coef": 0.03,  # 0.01 and 0.06 earned less
    "gae_lambda": 0.2,  # the answer to an item comes at once, and later ratings are noise
    "total_timesteps": 524_288,
}
SHORT: dict[str, Any] = {"history_length": 3, "clock": False}
LEARNED: Mapping[str, Mapping[str, Any]] = {
    "ppo-last-3": {**PPO, "gae_lambda": 0.5, **SHORT},
    "a2c-last-3": {
        "algo": "a2c",
        "num_envs": 128,
        "n_steps": 5,
        "lr": 1e-3,
        "ent_coef": 0.03,
        "total_timesteps": 640_000,
        **SHORT,
    },
    "blind": {**PPO, "relative": True},
    "ppo-session": {**PPO, "relative": True},
}
SMOKE: dict[str, Any] = {"total_timesteps": 64, "num_envs": 8, "n_steps": 4, "batch_size": 32}
FIXED = ("random", "most-rated", "static-list", "list", "penalised", "true-means", "reader-3", "reader")
POLICIES = (*FIXED, *LEARNED)


class Blind:
    """An environment whose observations have zeros in place of the ratings."""

    def __init__(self, env: RecEnv) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, users: Tensor | None = None) -> Obs:
        return self._hidden(self.env.reset(users))

    def observe(self) -> Obs:
        return self._hidden(self.env.observe())

    def step(self, items: Tensor) -> Step:
        step = self.env.step(items)
        obs = self._hidden(step.obs)
        final = obs if step.final_obs is step.obs else self._hidden(step.final_obs)
        return dataclasses.replace(step, obs=obs, final_obs=final)

    def _hidden(self, obs: Obs) -> Obs:
        assert obs.signals is not None
        context = obs.context.clone()
        for name, _ in self.env.interface.context:
            if name.endswith("_signals"):
                context[:, self.env.interface.place_of(name)] = 0
        return dataclasses.replace(obs, context=context, signals=torch.zeros_like(obs.signals))


@dataclasses.dataclass(frozen=True)
class Game:
    """One game of one refit: the world, and the settings that all its policies share."""

    world: World
    settings: dict[str, Any]
    tested: str  # the matrix of the test: "true" or "estimated"
    seed: int
    smaller: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # sizes of a smoke run

    def config(self, **more: Any) -> Config:
        return Config(**{**self.settings, **more})

    def learner(self, policy: str) -> dict[str, Any]:
        """The settings of a learned row."""
        settings = {**LEARNED[policy], **self.smaller}
        if settings["algo"] == "a2c":
            settings.pop("batch_size", None)
        return settings

    def test(self, policy: Policy, greedy: bool = True, blind: bool = False, **more: Any) -> Sessions:
        """One session of each user in the matrix of the test."""
        config = self.config(**{**more, "ratings": self.tested})
        users, noise = self.world.population.heldout, torch.Generator().manual_seed(0)
        env: Any = make_env(config, self.world, len(users), noise, heldout=True, training=False)
        return play(Blind(env) if blind else env, policy, users, greedy)

    def rules(self) -> Rules:
        config = self.config().env_config
        users = make_env(self.config(), self.world, 1).user_model  # type: ignore[attr-defined]
        return Rules(users.close, config.window, config.max_episode_steps, config.repeats)


def train(game: Game, settings: Mapping[str, Any], blind: bool) -> tuple[Any, float]:
    """A network trained in the estimated ratings, and its seconds of CPU."""
    started = time.process_time()
    config = game.config(**settings, rating_noise=NOISE)
    streams = generators(game.seed, "model", "policy", "shuffle", "users", "cells")
    env: Any = make_env(config, game.world, generator=streams["users"])
    updates = max(1, config.train_config.total_timesteps // config.agent_config.steps_per_update)
    agent = make_agent(config, env.interface, game.world.catalogue, updates, streams)
    env.reset()
    if blind:
        env = Blind(env)
    objectives = make_objectives(
        config.train_config, env.streams, game.world.catalogue, updates, streams["cells"], None
    )
    experience = OnPolicy(env, agent, config.agent_config.n_steps, objectives)
    for _ in range(updates):
        agent.update(experience.batch().data)
    return agent, time.process_time() - started


def fixed_policies(game: Game, rules: Rules) -> dict[str, Policy]:
    """The rows without learning, by name, without `random`."""
    catalogue, population = game.world
    ratings, mean = population.attributes["ratings"], population.attributes["ratings"].mean(0)
    close = (rules.close.sum(0) - 1).float()  # (I,): close items of each
    penalty = mean.std() / close.std().clamp_min(1e-9)  # equal weights of both, in standard deviations
    users = make_env(game.config(), game.world, 1).user_model  # type: ignore[attr-defined]
    lists = {
        "most-rated": greedy_list(catalogue.popularity, rules),
        "static-list": static_list(users, catalogue, population.train, rules.length),
        "list": searched_list(mean, rules, game.seed),
        "penalised": searched_list(mean - penalty * close, rules, game.seed),
        "true-means": searched_list(population.attributes["true_ratings"].mean(0), rules, game.seed),
    }
    readers: dict[str, Policy] = {
        name: BayesReader(ratings, rules, DEVIATION, last)
        for name, last in (("reader-3", 3), ("reader", rules.length))
    }
    return {**{name: Steps(items) for name, items in lists.items()}, **readers}


def rows_of(game: Game, name: str, learned: Sequence[str]) -> list[Row]:
    """The rows of one game and refit."""
    rules, rows = game.rules(), []
    played: dict[str, Sessions] = {}
    catalogue = game.world.catalogue
    rounds = [
        game.test(RandomPolicy((catalogue.num_items,), torch.Generator().manual_seed(k)))
        for k in range(RANDOM_ROUNDS)
    ]
    policies = fixed_policies(game, rules)
    for policy in POLICIES:
        seconds = None
        if policy == "random":
            mean = sum(float(sessions.returns.mean()) for sessions in rounds) / len(rounds)
            length = sum(float(sessions.lengths.double().mean()) for sessions in rounds) / len(rounds)
        else:
            if policy in policies:
                sessions = game.test(policies[policy])
            elif policy in learned:
                blind = policy == "blind"
                agent, seconds = train(game, game.learner(policy), blind)
                sessions = game.test(agent, blind=blind, **game.learner(policy))
            else:
                continue
            played[policy] = sessions
            mean, length = float(sessions.returns.mean()), float(sessions.lengths.double().mean())
        row: Row = {"game": name, "policy": policy, "seed": game.seed, "tested": game.tested}
        row |= {"return_mean": mean, "length_mean": length, "seconds": seconds}
        row["leak"] = leak_of(game, rules) if policy == "penalised" else None
        for versus in VERSUS:
            paired = versus in played and policy in played and policy != versus
            paired = paired and (policy in LEARNED or policy.startswith("reader"))
            row[f"over_{versus}"] = mean - float(played[versus].returns.mean()) if paired else None
        print(
            f"{name} seed {game.seed} {policy}: {mean:.2f}, {length:.1f} turns", file=sys.stderr, flush=True
        )
        rows.append(row)
    return rows


def leak_of(game: Game, rules: Rules) -> float:
    """Correlation of the number of close items with the true mean, given the estimate, among the BEST items.

    The part of both that is linear in the estimated mean is taken off.
    """
    attributes = game.world.population.attributes
    estimate = attributes["ratings"].mean(0)
    best = estimate.argsort(descending=True)[:BEST]
    x, y, z = (
        values[best] - values[best].mean()
        for values in (rules.close.sum(0).float(), attributes["true_ratings"].mean(0), estimate)
    )
    x, y = (values - z * (values @ z) / (z @ z) for values in (x, y))
    return float((x @ y) / (x.norm() * y.norm()).clamp_min(1e-9))


def games_of(
    data_dir: Path, seed: int, names: Sequence[str], tuning: bool, smoke: bool = False
) -> list[tuple[str, Game]]:
    """The games of one refit. ``tuning``: the test matrix is another refit's estimate, and no true one."""
    shared = {**COMMON, "data_dir": str(data_dir), "seed": seed} | ({"embedding_dim": 4} if smoke else {})
    smaller = SMOKE if smoke else {}
    world = make_world(Config(**shared))
    if tuning:
        other = make_world(Config(**{**shared, "seed": TUNED_IN})).population.attributes["ratings"]
        error = torch.randn(other.shape, generator=torch.Generator().manual_seed(TUNED_IN))
        other = (other + NOISE * error).clamp(1, 5).round()
        attributes = {**world.population.attributes, "true_ratings": other}
        world = world._replace(population=dataclasses.replace(world.population, attributes=attributes))
    return [(name, Game(world, {**shared, "repeats": GAMES[name]}, "true", seed, smaller)) for name in names]

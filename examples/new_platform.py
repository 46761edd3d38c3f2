"""A new platform in one file: a tutor that chooses exercises, one or several at a time, trained with PPO.

    python examples/new_platform.py

The record PLATFORM holds its settings, users and presets. The commands accept it by name:

    cd examples
    recsys-rl train --env new_platform:PLATFORM --data synthetic --learning-gain 0.5
    recsys-rl evaluate --env new_platform:PLATFORM --report tutor.html
    recsys-rl train --env new_platform:PLATFORM --data synthetic --slate-size 3

A learner of skill s gets an exercise of difficulty d and solves it with probability p. Exercises that are
neither trivial nor hopeless teach most:

    p       = sigmoid(sharpness (s - d))     [0..1]
    reward  = d p                            [0..1: a hard exercise is worth more]
    s      <- s + learning_gain p (1 - p)    [difficulties and skills are on one scale, 0..1 at the start]

With ``slate_size`` K above 1 a step shows a sheet of K different exercises, in an order that does not matter
here: all are tried with the same skill, the reward is their sum, and so is the gain of skill.

The tutor never sees the skill. It sees the exercises that it has shown and their rewards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.evaluation.rivals.references import Myopic
from recsys_rl.experience.rollout import collect, play
from recsys_rl.make import make_agent, make_env, make_world
from recsys_rl.protocols import Env, Policy
from recsys_rl.records import Platform
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import NonNegative, Positive, Range
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.testing import check_agent, check_env, check_user_model
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream, World
from recsys_rl.utils.metrics import Interval, interval
from recsys_rl.utils.seeding import generators


@dataclass(frozen=True)
class TutorConfig(EnvConfig):
    """Learners whose skill grows. Each field is an option, with its range and its help."""

    slate_size: Annotated[int, Range(1, 10)] = 1
    """K: exercises of one step."""
    sharpness: Positive = 10.0
    """Logits of solving an exercise per unit of skill above its difficulty."""
    learning_gain: NonNegative = 0.25
    """Skill gained per exercise, at most a quarter of this."""


@dataclass(frozen=True)
class LearnerState:
    profile: Tensor  # (N, D)
    skill: Tensor  # (N,)


@dataclass(frozen=True)
class Tutor:
    """The user model: protocols.py defines each method."""

    catalogue: Catalogue  # its `quality` serves as the difficulty
    population: Population
    config: TutorConfig
    repeats: ClassVar[bool] = False
    assumptions: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item")  # what the tutor sees besides the history
    signals: ClassVar[tuple[Signal, ...]] = (Signal("points"), Signal("solved", visible=False))
    streams: ClassVar[tuple[Stream, ...]] = (Stream("points"),)
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({"profile": 0.0})

    @property
    def slate_size(self) -> int:
        return self.config.slate_size

    def sample(self, users: Tensor) -> LearnerState:
        profile = self.population.profile[users]
        return LearnerState(profile, 0.4 + 0.2 * profile[:, 0])

    def possible(self, user_state: LearnerState) -> bool:
        return bool((user_state.skill >= 0).all())

    def visible(self, user_state: LearnerState) -> dict[str, Tensor]:
        return {"profile": torch.zeros_like(user_state.profile)}  # the tutor does not know the learners apart

    def respond(
        self, user_state: LearnerState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        difficulty = self.catalogue.quality[items]  # (N, K)
        solves = self._solves(user_state, difficulty)  # (N, K)
        signals = torch.stack([difficulty * solves, solves], -1)  # (N, K, 2)
        return Feedback(signals.masked_fill(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals[:, :, :1].sum(1)  # (N, 1): points

    def advance(
        self, user_state: LearnerState, items: Tensor, feedback: Feedback
    ) -> tuple[LearnerState, Tensor]:
        solves = feedback.signals[:, :, 1]  # (N, K)
        learnt = self.config.learning_gain * (solves * (1 - solves)).sum(1)  # (N,)
        after = replace(user_state, skill=user_state.skill + learnt)
        return after, torch.zeros_like(learnt, dtype=torch.bool)

    def expected_reward(self, user_state: LearnerState, block: slice = slice(None)) -> Tensor:
        difficulty = self.catalogue.quality[block]  # (b,): a large catalogue is scored in blocks
        return difficulty * self._solves(user_state, difficulty)  # (N, b)

    def _solves(self, user_state: LearnerState, difficulty: Tensor) -> Tensor:
        return (self.config.sharpness * (user_state.skill.unsqueeze(-1) - difficulty)).sigmoid()


PLATFORM = Platform(
    TutorConfig,
    users=Tutor,
    presets={"*": {"agent_config": {"lr": 1e-3, "gamma": 0.99, "gae_lambda": 0.95}}},
)


def check(config: Config, world: World) -> None:
    """Run the batteries on the platform; an error names the method at fault."""
    check_user_model(Tutor(*world, config.env_config), world.catalogue, world.population.train[:8])

    def env(seed: int) -> Env:
        return make_env(config, world, 4, torch.Generator().manual_seed(seed))

    check_env(env, config.env_config.max_episode_steps)
    interface, obs, size = env(0).interface, env(0).reset(), config.env_config.slate_size
    check_agent(
        lambda: make_agent(config, interface, world.catalogue),
        obs,
        world.catalogue.num_items,
        slate_size=size,
    )


def main(num_updates: int = 60, slate_size: int = 1) -> dict[str, Interval]:
    """Train; return the mean return on held-out learners of PPO, a random policy and a myopic oracle."""
    torch.set_num_threads(1)  # in networks this small, more threads only wait for each other
    config = Config(
        env="new_platform:PLATFORM",
        data="synthetic",
        num_users=1000,
        num_items=200,
        embedding_dim=8,
        max_episode_steps=30 // slate_size,
        slate_size=slate_size,
    )
    world = make_world(config)
    check(config, world)
    streams = generators(0, "users", "model", "policy", "shuffle")

    env = make_env(config, world, 64, streams["users"])
    agent = make_agent(config, env.interface, world.catalogue, num_updates, streams, torch.device("cpu"))
    obs = env.reset()
    for update in range(1, num_updates + 1):
        rollout, obs = collect(env, agent, obs, num_steps=30)
        agent.update(rollout)
        if update % 10 == 0:
            mean = rollout.rewards.mean().item()
            print(f"update {update} of {num_updates}: reward {mean:.3f}", file=sys.stderr)

    users = world.population.heldout
    heldout = make_env(config, world, 1, torch.Generator().manual_seed(1), heldout=True)
    assert isinstance(heldout, RecEnv)  # Myopic reads its hidden state
    policies: dict[str, Policy] = {
        "ppo-greedy": agent,
        "random": RandomPolicy(env.interface.action_sizes, torch.Generator().manual_seed(2), slate_size),
        "myopic": Myopic(heldout),
    }
    return {
        name: interval(play(heldout, policy, users, greedy=True).returns) for name, policy in policies.items()
    }


if __name__ == "__main__":
    argparse.ArgumentParser(
        description="Train PPO on a platform of your own, and print returns."
    ).parse_args()
    for name, found in main().items():
        print(f"{name:<12}{found.mean:7.3f}  [{found.low:.3f}, {found.high:.3f}]")

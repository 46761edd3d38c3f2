"""A new platform is one class: a tutor that chooses exercises, trained with our PPO.

    python examples/new_platform.py

A learner of skill s meets an exercise of difficulty d, solves it with probability p, and learns most from
what is neither trivial nor hopeless:

    p       = sigmoid(10 (s - d))            [0..1]
    reward  = d p                            [0..1: solving what is hard is worth more]
    s      <- s + 0.25 p (1 - p)             [difficulties and skills are on one scale, 0..1 at the start]

The tutor never sees the skill. It sees what it gave so far and what came of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from recsys_rl.agents.baselines import RandomPolicy
from recsys_rl.agents.references import Myopic
from recsys_rl.config import EnvConfig, defaults
from recsys_rl.data.catalogue import synthetic_world
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import collect, play
from recsys_rl.make import make_agent
from recsys_rl.protocols import Policy
from recsys_rl.testing import check_user_model
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream
from recsys_rl.utils.metrics import Interval, interval
from recsys_rl.utils.seeding import generators


@dataclass(frozen=True)
class LearnerState:
    profile: Tensor  # (N, D)
    skill: Tensor  # (N,)


@dataclass(frozen=True)
class Tutor:
    """The user model: protocols.py says what each method must do."""

    catalogue: Catalogue  # its `quality` serves as the difficulty
    population: Population
    repeats: ClassVar[bool] = False
    assumptions: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item")  # what the tutor sees besides the history
    signals: ClassVar[tuple[Signal, ...]] = (Signal("points"), Signal("solved", visible=False))
    streams: ClassVar[tuple[Stream, ...]] = (Stream("points"),)
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({"profile": 0.0})

    def sample(self, users: Tensor) -> LearnerState:
        profile = self.population.profile[users]
        return LearnerState(profile, 0.4 + 0.2 * profile[:, 0])

    def possible(self, user_state: LearnerState) -> bool:
        return bool((user_state.skill >= 0).all())

    def visible(self, user_state: LearnerState) -> dict[str, Tensor]:
        return {"profile": torch.zeros_like(user_state.profile)}  # the tutor knows nothing of a learner

    def respond(
        self, user_state: LearnerState, items: Tensor, skipped: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        difficulty = self.catalogue.quality[items]  # (N, K)
        solves = (10 * (user_state.skill.unsqueeze(-1) - difficulty)).sigmoid()  # (N, K)
        signals = torch.stack([difficulty * solves, solves], -1)  # (N, K, 2)
        return Feedback(signals.masked_fill(skipped.unsqueeze(-1), 0), skipped)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals[:, :, :1].sum(1)  # (N, 1): points

    def advance(
        self, user_state: LearnerState, items: Tensor, feedback: Feedback
    ) -> tuple[LearnerState, Tensor]:
        solves = feedback.signals[:, :, 1]  # (N, K)
        after = replace(user_state, skill=user_state.skill + 0.25 * (solves * (1 - solves)).sum(1))
        return after, torch.zeros(len(items), dtype=torch.bool)

    def expected_reward(self, user_state: LearnerState, block: slice = slice(None)) -> Tensor:
        difficulty = self.catalogue.quality[block]  # (b,): a large catalogue is looked at in blocks
        return difficulty * (10 * (user_state.skill.unsqueeze(-1) - difficulty)).sigmoid()  # (N, b)


def main(num_updates: int = 60) -> dict[str, Interval]:
    """Train; then mean return on held-out learners of PPO, chance, and one that knows each next reward."""
    torch.set_num_threads(1)  # more only wait for each other in networks this small
    config = defaults("ppo", "satiation")  # dials for sessions in which looking ahead may pay
    catalogue, population = synthetic_world(200, 1000, 8, heldout_fraction=0.2, seed=0)
    env_config = EnvConfig(num_items=200, embedding_dim=8, max_episode_steps=30)
    tutor = Tutor(catalogue, population)
    check_user_model(tutor, catalogue, population.train[:8])  # says which method breaks the contract
    streams = generators(0, "users", "model", "policy", "shuffle")

    env = RecEnv(tutor, catalogue, env_config, population.train, 64, streams["users"])
    agent = make_agent(config, env, catalogue, num_updates, streams, torch.device("cpu"))
    obs = env.reset()
    for update in range(1, num_updates + 1):
        rollout, obs = collect(env, agent, obs, num_steps=30)
        agent.update(rollout)
        if update % 10 == 0:
            mean = rollout.rewards.mean().item()
            print(f"update {update} of {num_updates}: reward {mean:.3f}", file=sys.stderr)

    strangers = RecEnv(tutor, catalogue, env_config, population.heldout, 1, torch.Generator().manual_seed(1))
    policies: dict[str, Policy] = {
        "ppo-greedy": agent,
        "random": RandomPolicy((catalogue.num_items,), torch.Generator().manual_seed(2)),
        "myopic": Myopic(strangers),
    }
    return {
        name: interval(play(strangers, policy, population.heldout, greedy=True).returns)
        for name, policy in policies.items()
    }


if __name__ == "__main__":
    for name, found in main().items():
        print(f"{name:<12}{found.mean:7.3f}  [{found.low:.3f}, {found.high:.3f}]")

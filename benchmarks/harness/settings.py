"""PPO's settings for every system, and the interface by which each peer trains.

``train(env, settings, seed, between)`` builds an agent and trains it. ``between(act)`` is called before the
first rollout and after each update; training ends when it returns False or after ``settings.total_steps``.
``act(context, greedy)`` is the current policy for a whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.env.rec_env import RecEnv

HIDDEN = (128, 64)

Act = Callable[[Tensor, bool], Tensor]
"""Context (N, F) float32, and whether to be greedy -> items (N,) int64."""
Between = Callable[[Act], bool]
Train = Callable[[RecEnv, "Settings", int, Between], None]


@dataclass(frozen=True)
class Settings:
    """PPO's settings for every system."""

    ppo: PPOConfig
    total_steps: int
    activation: Literal["tanh", "relu"] = "tanh"
    anneal_clip: bool = False  # the clip range falls linearly to zero; ours has no such setting

    @property
    def per_update(self) -> int:
        return self.ppo.num_envs * self.ppo.n_steps

    @property
    def num_updates(self) -> int:
        return max(1, self.total_steps // self.per_update)

    def remaining(self, step: int) -> float:
        """Share of the run that is left at ``step``: 1 at the start, 0 at the end."""
        return max(0.0, 1 - step / self.total_steps)

    def lr(self, remaining: float) -> float:
        return self.ppo.lr * (remaining if self.ppo.anneal_lr else 1)

    def ent_coef(self, remaining: float) -> float:
        return self.ppo.ent_coef * (remaining if self.ppo.anneal_ent else 1)

    def clip_eps(self, remaining: float) -> float:
        return self.ppo.clip_eps * (remaining if self.anneal_clip else 1)


SB3_DEFAULTS = PPOConfig(  # Stable-Baselines3's, as 8 users x 256 steps
    lr=3e-4,
    gamma=0.99,
    gae_lambda=0.95,
    ent_coef=0.0,
    max_grad_norm=0.5,
    update_epochs=10,
    batch_size=64,
    n_steps=256,
    num_envs=8,
    anneal_lr=False,
    anneal_ent=False,
)

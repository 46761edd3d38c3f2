"""Stable-Baselines3 on our batched `drift`. SBX shares its interface and therefore this file.

Both see a VecEnv: arrays in and out, with no loop over users but the list of one info dict for each
that the interface asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from benchmarks.harness.settings import HIDDEN, Between, Settings
from recsys_rl.env.rec_env import RecEnv


class BatchedDrift(VecEnv):
    """Our RecEnv as a VecEnv, which also resets within the step."""

    def __init__(self, env: RecEnv) -> None:
        self.env = env
        observations = spaces.Box(-np.inf, np.inf, (env.interface.context_size,), np.float32)
        super().__init__(env.num_envs, observations, spaces.Discrete(env.catalogue.num_items))

    def reset(self) -> Any:
        return self.env.reset().context.numpy()

    def step_async(self, actions: Any) -> None:
        self.actions = torch.from_numpy(np.asarray(actions, np.int64)).unsqueeze(-1)  # (N, 1)

    def step_wait(self) -> Any:
        step = self.env.step(self.actions)
        done = (step.terminated | step.truncated).numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(done):
            infos[row] = {
                "terminal_observation": step.final_obs.context[row].numpy(),
                "TimeLimit.truncated": bool(step.truncated[row]),
            }
        return step.obs.context.numpy(), step.reward.numpy(), done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        pass

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Turns(BaseCallback):
    """Calls ``between`` before each rollout and at the end, and lets the entropy bonus fall."""

    def __init__(self, settings: Settings, between: Between) -> None:
        super().__init__()
        self.settings, self.between, self.goes_on = settings, between, True

    def act(self, context: Tensor, greedy: bool) -> Tensor:
        items, _ = self.model.predict(context.numpy(), deterministic=greedy)
        return torch.from_numpy(np.asarray(items, np.int64))

    def _on_rollout_start(self) -> None:
        self.model.ent_coef = self.settings.ent_coef(self.settings.remaining(self.num_timesteps))  # type: ignore[attr-defined]
        self.goes_on = self.between(self.act)

    def _on_step(self) -> bool:
        return self.goes_on

    def _on_training_end(self) -> None:
        if self.goes_on:
            self.between(self.act)


def train(env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
    learn(PPO, {"tanh": nn.Tanh, "relu": nn.ReLU}[settings.activation], env, settings, seed, between)


def learn(
    algorithm: Any, activation: Any, env: RecEnv, settings: Settings, seed: int, between: Between
) -> None:
    """Train the PPO of either library; ``activation`` is an object of that library."""
    model = algorithm(
        "MlpPolicy",
        BatchedDrift(env),
        learning_rate=settings.lr,
        n_steps=settings.ppo.n_steps,
        batch_size=settings.ppo.batch_size,
        n_epochs=settings.ppo.update_epochs,
        gamma=settings.ppo.gamma,
        gae_lambda=settings.ppo.gae_lambda,
        clip_range=settings.clip_eps,
        ent_coef=settings.ppo.ent_coef,
        vf_coef=settings.ppo.vf_coef,
        max_grad_norm=settings.ppo.max_grad_norm,
        normalize_advantage=settings.ppo.normalize_advantage,
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": activation},
        device="cpu",
        seed=seed,
    )
    model.learn(settings.num_updates * settings.per_update, callback=Turns(settings, between))

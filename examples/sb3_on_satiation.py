"""Train an agent of another library on our users: Stable-Baselines3's PPO on recsys_rl/Satiation-v0.

    pip install stable-baselines3
    python examples/sb3_on_satiation.py

``Sessions`` hands all users of ``gymnasium.make_vec`` to Stable-Baselines3 as one batch. Its own
``make_vec_env`` would step one environment after the other.

This PPO ignores masks. An item chosen again is not shown and earns 0, so the agent has to learn not to repeat
items. Evaluation samples from the policy, because the most probable item would be shown again and again.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import recsys_rl  # noqa: F401  (registers the environments)

# Not the history: item ids are names, but an MLP would read them as magnitudes.
PARTS = ("context", "signals", "action_mask")


class Sessions(VecEnv):
    """The parts ``names`` of a vector of Gymnasium with same-step autoreset, for Stable-Baselines3."""

    def __init__(self, envs: Any, names: tuple[str, ...]) -> None:
        self.envs, self.names = envs, names
        parts = {name: envs.single_observation_space[name] for name in names}
        super().__init__(envs.num_envs, gymnasium.spaces.Dict(parts), envs.single_action_space)

    def reset(self) -> Any:
        obs, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return self._parts(obs)

    def step_async(self, actions: Any) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        obs, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        done = terminated | truncated
        of_each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(done):
            last = {"terminal_observation": self._parts(infos["final_obs"][row])}
            of_each[row] = last | {"TimeLimit.truncated": bool(truncated[row])}
        return self._parts(obs), rewards, done, of_each

    def _parts(self, obs: Any) -> dict[str, Any]:
        return {name: obs[name] for name in self.names}

    def close(self) -> None:
        self.envs.close()

    # Stable-Baselines3 reads these of each environment; here they are the same for all.
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.envs, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def sessions(num_envs: int, seed: int, **settings: Any) -> VecMonitor:
    """N sessions of users as Stable-Baselines3 takes them; VecMonitor adds the returns of whole sessions."""
    envs = gymnasium.make_vec("recsys_rl/Satiation-v0", num_envs=num_envs, **settings)
    found = VecMonitor(Sessions(envs, PARTS))
    found.seed(seed)
    return found


def main(total_timesteps: int = 50_000) -> tuple[float, float]:
    """Train on training users; return the mean return of 100 held-out sessions before and after."""
    world = {"data": "synthetic", "num_items": 100, "embedding_dim": 16}
    users = sessions(64, 0, **world)
    agent = PPO("MultiInputPolicy", users, n_steps=16, batch_size=256, seed=0, device="cpu")
    heldout = sessions(20, 1, users="heldout", **world)
    before, _ = evaluate_policy(agent, heldout, n_eval_episodes=100, deterministic=False)
    agent.learn(total_timesteps)
    after, _ = evaluate_policy(agent, heldout, n_eval_episodes=100, deterministic=False)
    return float(before), float(after)  # type: ignore[arg-type]


if __name__ == "__main__":
    print("return on held-out users: {:.2f} untrained, {:.2f} trained".format(*main()))

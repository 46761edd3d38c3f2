"""Train an agent of another library on our users: Stable-Baselines3's PPO on recsys_rl/Satiation-v0.

    pip install stable-baselines3
    python examples/sb3_on_satiation.py

This PPO ignores masks. An item shown again counts as a skip, so the agent has to learn not to repeat items.
Evaluation samples from the policy, because the most probable item would be shown again and again.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.wrappers import FilterObservation
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import recsys_rl  # noqa: F401  (registers the environments)


def without_ids(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Remove the history: item ids are names, but an MLP would read them as magnitudes."""
    return FilterObservation(env, ("context", "signals", "action_mask"))


def main(total_timesteps: int = 50_000) -> tuple[float, float]:
    """Train on training users; return the mean return of 100 held-out sessions before and after."""
    # Stable-Baselines3 asks for pictures of each environment unless render_mode is given; there are none.
    world = {"data": "synthetic", "num_items": 100, "embedding_dim": 16, "render_mode": None}
    envs = make_vec_env("recsys_rl/Satiation-v0", 8, seed=0, wrapper_class=without_ids, env_kwargs=world)
    agent = PPO("MultiInputPolicy", envs, n_steps=128, batch_size=256, seed=0, device="cpu")
    heldout = make_vec_env(
        "recsys_rl/Satiation-v0",
        seed=1,
        wrapper_class=without_ids,
        env_kwargs={**world, "users": "heldout"},
    )
    before, _ = evaluate_policy(agent, heldout, n_eval_episodes=100, deterministic=False)
    agent.learn(total_timesteps)
    after, _ = evaluate_policy(agent, heldout, n_eval_episodes=100, deterministic=False)
    return float(before), float(after)  # type: ignore[arg-type]


if __name__ == "__main__":
    print("return on held-out users: {:.2f} untrained, {:.2f} trained".format(*main()))

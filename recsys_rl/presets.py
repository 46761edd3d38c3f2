"""The dials of each algorithm on each environment, where they are not the fields' own defaults."""

from __future__ import annotations

from typing import Any

# Where other dials learn better than the fields' own defaults; docs/log.md says why.
PRESETS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("ppo", "drift"): {"agent_config": {"batch_size": 256}},
    ("ppo", "satiation"): {
        "agent_config": {
            "lr": 1e-3,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "bootstrap_time_limit": False,  # the history shows how many steps are left
        },
        "train_config": {"total_timesteps": 600_000},
    },
    ("ppo", "gym"): {
        "agent_config": {
            "lr": 5e-4,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "ent_coef": 0.01,
            "update_epochs": 10,
            "batch_size": 64,
            "n_steps": 64,
            "num_envs": 16,
            "max_grad_norm": 0.5,
        },
        "env_config": {"normalize_reward": True},  # rewards of -10 and of 1 are learned from alike
        "model_config": {"head": "dense", "activation": "tanh", "hidden_dims": [64, 64]},
    },
    ("a2c", "drift"): {"agent_config": {"lr": 5e-3}},
    ("a2c", "satiation"): {
        "agent_config": {"gamma": 0.99, "gae_lambda": 0.95, "bootstrap_time_limit": False},
        "train_config": {"total_timesteps": 300_000},
    },
    ("a2c", "gym"): {
        "agent_config": {
            "lr": 1e-3,
            "gamma": 0.99,
            "gae_lambda": 1.0,
            "ent_coef": 0.0,
            "max_grad_norm": 0.5,
            "n_steps": 5,
            "num_envs": 8,
            "normalize_advantage": False,
        },
        "model_config": {"head": "dense", "activation": "tanh"},
        # An update is 40 steps only, and an evaluation many episodes.
        "train_config": {"log_interval": 100, "eval_interval": 2000, "save_interval": 2000},
    },
}

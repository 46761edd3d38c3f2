"""Reinforcement learning for recommender systems: PPO and A2C from scratch."""

__version__ = "0.1.0"

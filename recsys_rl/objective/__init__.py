"""Reward streams -> the scalar that is learned from."""

"""Policies that a team would ship without reinforcement learning, and references that know the users."""

"""Estimates from a log that judge a policy during and after its training."""

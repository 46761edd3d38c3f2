"""Policies, one file per algorithm; none imports another."""

"""Gymnasium: its environments for our agents, and our platforms under its ids."""

"""Objectives, which make the scalar reward of learning from reward streams."""

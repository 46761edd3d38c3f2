"""Arithmetic: pure functions of tensors."""

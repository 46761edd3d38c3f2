"""Arithmetic: tensors in, tensors out, no memory."""

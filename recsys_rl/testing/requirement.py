"""An assertion with a sentence."""

from __future__ import annotations


def require(holds: bool, sentence: str) -> None:
    """Raise AssertionError with ``sentence`` unless ``holds``, also with ``python -O``."""
    if not holds:
        raise AssertionError(sentence)

"""One sentence for each thing that is wrong."""

from __future__ import annotations


def require(holds: bool, sentence: str) -> None:
    """Raise AssertionError with ``sentence`` unless ``holds``, with ``python -O`` as well."""
    if not holds:
        raise AssertionError(sentence)

"""The processes of ``--jobs`` that a test begins."""

from __future__ import annotations

import pytest

from recsys_rl.distributed import in_processes


def counted_workers(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A list that gets the function of each process that begins from now on."""
    begun: list[bytes] = []

    class Counted(in_processes._Worker):
        def __init__(self, function: bytes) -> None:
            begun.append(function)
            super().__init__(function)

    monkeypatch.setattr(in_processes, "_Worker", Counted)
    return begun

"""Numbers of a platform's file that are easy to compute with by hand."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def by_hand(module: ModuleType, **numbers: float) -> Any:
    """A fixture for all tests of a file but its proofs: these constants of ``module`` have other values."""

    @pytest.fixture(autouse=True)
    def numbers_by_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.node.get_closest_marker("proof") is None:
            for name, value in numbers.items():
                monkeypatch.setattr(module, name.upper(), value)

    return numbers_by_hand

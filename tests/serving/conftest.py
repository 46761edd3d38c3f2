"""Checkpoints that are trained once for all tests of the server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.servers import trained


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("served")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = trained(folder, name)
        return made[name]

    return get


@pytest.fixture(scope="package")
def two(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two versions, a.pt and b.pt."""
    folder = tmp_path_factory.mktemp("two") / "policies"
    folder.mkdir()
    shutil.copy(checkpoint("satiation"), folder / "a.pt")
    shutil.copy(trained(folder.parent, "satiation", "--hidden-dims", "7"), folder / "b.pt")
    return folder

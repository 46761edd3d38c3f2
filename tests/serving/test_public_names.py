"""The public names of serving: their list, their place in the map, and their lazy import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_rl import serving

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs/map_serving.md").read_text()


def test_the_map_has_the_list_of_names() -> None:
    line = next(line for line in MAP.splitlines() if line.startswith("`from recsys_rl.serving import"))
    named = re.findall(r"\w+", line.partition(" import ")[2].split("`")[0])
    assert named == serving.__all__ and 10 <= len(named) <= 20


@pytest.mark.parametrize("name", serving.__all__)
def test_a_name_is_that_of_its_module(name: str) -> None:
    found = getattr(serving, name)
    assert getattr(importlib.import_module(found.__module__), name) is found


def test_the_files_of_the_map_are_all_files() -> None:
    """Without the files of the loop that its five commands call."""
    folder = ROOT / "recsys_rl/serving"
    named = {*re.findall(r"`serving/([\w/]+\.py)`", MAP)}
    files = {str(file.relative_to(folder)) for file in folder.rglob("*.py") if file.name != "__init__.py"}
    assert named <= files
    assert {file for file in files - named if not file.startswith("loop/")} == set()


def test_import_loads_no_heavy_modules() -> None:
    program = (
        "import sys, recsys_rl.serving; "
        "heavy = {'torch', 'polars', 'scipy', 'uvicorn'} & set(sys.modules); sys.exit(str(heavy or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == ""

"""The public names of the wing: its list, and their lazy import."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import recsys_rl.evaluation as wing

ROOT = Path(__file__).parents[2]


def test_every_name_of_the_list_exists_once() -> None:
    assert len(set(wing.__all__)) == len(wing.__all__) <= 16
    for name in wing.__all__:
        found = getattr(wing, name)
        if hasattr(found, "__module__"):  # tuples have none
            assert getattr(importlib.import_module(found.__module__), name) is found
    assert set(wing.__all__) <= set(dir(wing))


def test_map_of_the_wing_names_every_file_and_no_other() -> None:
    """A file stands in the map by its name, or by the name of its folder."""
    text = (ROOT / "docs/map_evaluation.md").read_text(encoding="utf-8")
    package = Path(wing.__file__).parent
    for file in package.glob("*.py"):
        assert file.name == "__init__.py" or f"`{file.name}`" in text, file.name
    for folder in ("rivals", "report"):
        assert f"`{folder}/`" in text
    for name in (word for word in text.split("`")[1::2] if word.endswith(".py")):
        assert (package / name).is_file() or (package / "report" / name).is_file(), name


def test_import_loads_no_torch() -> None:
    program = "import sys, recsys_rl.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0

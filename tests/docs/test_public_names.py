"""The public names: their list, their page in the docs, and their lazy import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recsys_rl

ROOT = Path(__file__).parents[2]
NAMES = (
    *("AGENTS", "PLATFORMS", "SOURCES", "Action", "Catalogue", "Config", "EvaluateConfig", "Obs"),
    *("Population", "RecEnv", "Recommender", "UserError", "World", "collect", "describe", "evaluate"),
    *("fit_users", "load", "make_agent", "make_env", "make_world", "ope", "play", "register_platform"),
    *("train", "updates"),
)


def test_list_of_names() -> None:
    assert sorted(recsys_rl.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(recsys_rl))


@pytest.mark.parametrize("name", NAMES)
def test_public_name_exists_and_is_documented(name: str) -> None:
    found = getattr(recsys_rl, name)
    if hasattr(found, "__module__"):  # the three dicts have none
        assert getattr(importlib.import_module(found.__module__), name) is found
    examples = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/api.md").read_text(), re.M | re.S)
    assert any(re.search(rf"\b{name}\b", example) for example in examples)


def test_import_loads_no_heavy_modules() -> None:
    program = (
        "import sys, recsys_rl; recsys_rl.PLATFORMS, recsys_rl.UserError; "
        "heavy = {'torch', 'polars', 'scipy'} & set(sys.modules); sys.exit(str(heavy or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == ""

"""The public names of the wing: their list, and its map in the docs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_rl import logs

ROOT = Path(__file__).parents[2]
NAMES = (
    *("DecisionHeader", "DecisionLog", "DecisionWriter", "FitUsersConfig", "LogSource", "OpeConfig"),
    *("OpeResult", "RecordConfig", "estimates", "fit_users", "observe", "open_log", "read_decisions"),
    *("read_log", "transition_table", "write_decisions"),
)


def test_list_of_names() -> None:
    assert sorted(logs.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(logs))


@pytest.mark.parametrize("name", NAMES)
def test_public_name_exists_and_is_on_the_map(name: str) -> None:
    found = getattr(logs, name)
    assert found.__module__.startswith("recsys_rl.logs.")
    assert getattr(importlib.import_module(found.__module__), name) is found
    assert re.search(rf"`{name}`", (ROOT / "docs/map_logs.md").read_text(encoding="utf-8"))


def test_the_map_names_files_that_exist() -> None:
    text = (ROOT / "docs/map_logs.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+\.py|[\w/]+/)`", text)
    files = [name for name in named if not name.startswith("recsys_rl")]
    assert files and all((ROOT / "recsys_rl" / name).exists() for name in files)


def test_import_loads_no_heavy_modules() -> None:
    program = (
        "import sys, recsys_rl.logs; heavy = {'torch', 'polars', 'scipy'} & set(sys.modules); "
        "sys.exit(str(heavy or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == ""

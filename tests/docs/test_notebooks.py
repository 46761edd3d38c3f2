"""The notebooks run as scripts, in their small form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_docs import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
SAID = {
    "train_and_judge": ("searched", "minus", "written:"),
    "own_log": ("can learn:", "reinforce", "'phone'}: ", "'results': [{"),
    "own_platform": ("PPO ", "random", "myopic"),
}
"""Words of what each prints."""


@pytest.mark.proof
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_a_script(notebook: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings = {"SMALL": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, notebook],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [words for words in SAID[notebook.stem] if words not in done.stdout] == []

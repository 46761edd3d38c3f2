"""The command `recsys-rl` in a folder and a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from recsys_rl.cli import main; raise SystemExit(main())"]


def recsys_rl(folder: Path, words: Sequence[str]) -> None:
    """``recsys-rl words`` in that folder, with one thread unless they name more; waiting ones soon sleep.

    The words may name modules of the checkout. Raises CalledProcessError if it fails.
    """
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environ = os.environ | one | {"PYTHONPATH": path}
    subprocess.run([*COMMAND, *words], cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)

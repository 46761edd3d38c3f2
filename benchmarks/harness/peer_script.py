"""A script of benchmarks/peers, run by the Python that has the library which it measures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from recsys_rl.errors import UserError


def answer_of_peer(python: str, script: Path, library: str, folder: Path) -> dict[str, Any]:
    """The line of JSON that the script prints about the files in ``folder``.

    Args:
        python: the interpreter of the environment with the library.
        library: its name, for errors.

    Raises UserError with the last words of the script if it fails.
    """
    try:
        done = subprocess.run(
            [python, str(script), str(folder)], capture_output=True, text=True, check=True, cwd=folder
        )
    except (OSError, subprocess.CalledProcessError) as error:
        words = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise UserError(f"--python {python} does not run {library}: {words}") from None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found

"""A line that names the run behind a file in checkpoints/."""

from __future__ import annotations

import sys
from pathlib import Path

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.training.folder import is_latest, nearby


def print_latest(path: str | Path, checkpoint: Checkpoint) -> None:
    """Print the file that ``path`` links to, if it is a file in checkpoints/, which the next run replaces."""
    if not is_latest(path):
        return
    config = checkpoint.config
    print(
        f"checkpoint: {nearby(Path(path).resolve())}, {config.algo} on {config.env} after "
        f"{checkpoint.step:,} steps ({path}; --checkpoint for another)",
        file=sys.stderr,
    )

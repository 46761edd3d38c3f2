"""A small log of `satiation`, and users who were learned from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.users.fit_users import fit_users
from tests.doors import SATIATION, steps, train_in

SMALL: dict[str, Any] = {"members": 2, "epochs": 1, "quiet": True}


def make_log(folder: Path, *options: str) -> tuple[Path, Path]:
    """The checkpoint of a run with these options, and a log of 120 sessions of all users."""
    checkpoint = train_in(folder / "run", *(options or SATIATION), *steps(1))
    log = folder / "log.parquet"
    record(RecordConfig(str(checkpoint), sessions=120, users="all", out=str(log), quiet=True))
    return checkpoint, log


def make_users(folder: Path, *options: str, **settings: Any) -> Path:
    """A file of users who were learned in few steps from such a log."""
    checkpoint, log = make_log(folder, *options)
    out = folder / "users.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
        fit_users(log=str(log), checkpoint=str(checkpoint), out=str(out), **{**SMALL, **settings})
    return out

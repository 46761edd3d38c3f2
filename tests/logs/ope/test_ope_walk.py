"""The files that a log goes through, from the command to an estimate, are those of docs/05, in order."""

from __future__ import annotations

from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from recsys_rl.cli import main
from tests.doors import PPO, SIZES, WORLD, steps, train_in
from tests.walk import PACKAGE, listed, profiled

ROOMS = ("cli/ope.py", "logs/", "data/tables/", "session.py")
BESIDE = {
    "logs/ope/config.py",  # the options
    "training/latest.py",  # a remark on the checkpoint
    "data/tables/read.py",  # which files a folder has, and errors of Parquet
    "data/tables/schema.py",  # columns and rules, which reader and checks apply
    "logs/intervals.py",  # which files of a folder are intervals of one record
    "logs/checksum.py",
    "logs/experience/logged.py",  # the weighted rewards of its rows
    "data/tables/frames.py",  # whether a path or a data frame was given
    "data/tables/columns.py",  # the options that name columns
    "data/tables/values.py",  # the value of a cell, which the tensors of a table apply
}
MOST = 22


def walked(words: list[str]) -> list[str]:
    """The files of ROOMS with a function that is called before the first estimate, in their order."""
    found, done = dict[str, None](), False

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal done
        file = frame.f_code.co_filename.removeprefix(PACKAGE)
        # The environment of the checkpoint makes its interface before the log is replayed.
        early = file == "session.py" and not frame.f_code.co_qualname.startswith("Session.")
        if event == "call" and not done and not early and file.startswith(ROOMS):
            found.setdefault(file)
        done = done or (
            event == "return" and file == "logs/ope/rows.py" and frame.f_code.co_name == "plain_row"
        )

    profiled(words, watch)
    assert done
    return list(found)


def test_a_log_goes_through_the_files_of_the_walk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = train_in(tmp_path / "run", "--env", "satiation", *SIZES, *WORLD, *PPO, *steps(1))
    log = str(tmp_path / "log.parquet")
    words = ["--checkpoint", str(checkpoint), "--policy", "random"]
    assert main(["record", *words, "--sessions", "30", "--users", "all", "--quiet", "--out", log]) == 0
    judging = ["ope", *words, "--log", log, "--no-world"]
    assert main(judging) == 0  # imports every module, so that no class body counts as a call
    found = [file for file in walked(judging) if file not in BESIDE]
    files = listed("## From a log to an estimate")
    assert files == found
    assert len(files) <= MOST

"""The log of a run: written rows are read back, and a resumed run deletes later rows."""

from __future__ import annotations

import errno
import math
import os
import re
import sys
import time
from pathlib import Path

import pytest

from recsys_rl.types import UserError
from recsys_rl.utils.logger import COLUMNS, Logger, read_log


def rows(path: Path) -> list[tuple[int, str, float]]:
    return [(step, name, value) for step, _, name, value in read_log(path)]


def test_log_rows_are_read_back_exactly(tmp_path: Path) -> None:
    with Logger(tmp_path / "new" / "run", "train", 100, 0, tensorboard=False) as logger:
        logger.write(10, {"loss": 0.1, "tiny": 1e-300, "nan": math.nan})
        logger.write(20, {"loss": 1 / 3})
        assert rows(logger.path)[-1] == (20, "loss", 1 / 3)  # readable during the run
    assert logger.path == tmp_path / "new" / "run" / "log.csv"
    assert logger.path.read_text().splitlines()[0] == ",".join(COLUMNS)
    first, tiny, nan, last = rows(logger.path)
    assert (first, tiny, last) == ((10, "loss", 0.1), (10, "tiny", 1e-300), (20, "loss", 1 / 3))
    assert math.isnan(nan[2])


def test_resume_deletes_rows_after_the_resumed_step(tmp_path: Path) -> None:
    with Logger(tmp_path, "train", 100, 0, tensorboard=False) as logger:
        for step in (10, 20, 30):
            logger.write(step, {"loss": float(step)})
    with Logger(tmp_path, "train", 100, 20, tensorboard=False) as logger:
        assert len(rows(logger.path)) == 3  # until the first write
        logger.write(30, {"loss": -1.0})
    assert rows(logger.path) == [(10, "loss", 10.0), (20, "loss", 20.0), (30, "loss", -1.0)]


def test_log_without_writes_keeps_the_old_file(tmp_path: Path) -> None:
    with Logger(tmp_path, "train", 100, 0, tensorboard=False) as logger:
        logger.write(10, {"loss": 1.0})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"log.csv"}
    with pytest.raises(KeyboardInterrupt), Logger(tmp_path, "train", 100, 0, False):
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_quiet_prints_no_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Logger(tmp_path, "train", 10, 0, tensorboard=False, quiet=True) as logger:
        logger.note("a note")
        logger.show(10, "the end")
    assert capsys.readouterr() == ("", "")


def test_seconds_continue_after_a_resume(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,seconds,name,value\n10,500.5,loss,1.0\n20,900.0,loss,1.0\n")
    with Logger(tmp_path, "train", 100, 10, tensorboard=False) as logger:
        assert 0 <= logger.seconds_here < 99
        logger.write(20, {"loss": 2.0})
    seconds = [seconds for _, seconds, _, _ in read_log(logger.path)]
    assert seconds[0] == 500.5 and 500.5 <= seconds[1] < 600


@pytest.mark.parametrize("tail", ["20,2.0,lo", "20,2.0,loss,", "20,2.0,loss,1."])
def test_incomplete_last_row_is_removed(tmp_path: Path, tail: str) -> None:
    """A killed run leaves such a row. A cut number would be read as another number."""
    path = tmp_path / "log.csv"
    path.write_text(f"step,seconds,name,value\n10,1.0,loss,1.0\n{tail}")
    assert rows(path) == [(10, "loss", 1.0)]
    with Logger(tmp_path, "train", 100, 20, tensorboard=False) as logger:
        logger.write(30, {"loss": 3.0})
    assert rows(path) == [(10, "loss", 1.0), (30, "loss", 3.0)]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,seconds,name,value\nten,1.0,loss,1.0\n", "\n"])
def test_other_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError):
        Logger(tmp_path, "train", 100, 20, tensorboard=False)
    assert (tmp_path / "log.csv").read_text() == text


def test_missing_log_has_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == []


def test_lines_are_printed_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Logger(tmp_path, "train", 2000, 0, tensorboard=False) as logger:
        logger.show(1000, "early")  # less than five seconds after the beginning
        logger.show(2000, "return 1.50")
    captured = capsys.readouterr()
    line = r"step 2,000 of 2,000  return 1\.50  [\d,]+ steps/s\n"
    assert captured.out == "" and re.fullmatch(line, captured.err)


def test_steps_per_second_count_only_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Logger(tmp_path, "train", 2000, 500, tensorboard=False) as logger:
        monkeypatch.setattr(time, "monotonic", lambda: logger.started + 4)
        assert logger.steps_per_second(1500) == 250.0


def test_tensorboard_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    with Logger(tmp_path, "train", 100, 0, tensorboard=True) as logger:
        logger.write(10, {"loss": 0.5})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_missing_tensorboard_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError):
        Logger(tmp_path, "train", 100, 0, tensorboard=True)


def test_full_disk_leaves_no_part_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and at the end, where the file can't be closed."""
    with Logger(tmp_path, "train", 100, 0, tensorboard=False) as logger:
        logger.write(10, {"loss": 1.0})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with Logger(tmp_path, "train", 100, 10, tensorboard=False) as logger:
        logger.file.close()
        logger.file = open("/dev/full", "w")  # noqa: SIM115
        logger.file.write("a row that was not flushed")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def full(self: Logger, rows: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Logger, "_append", full)
    with pytest.raises(OSError, match="No space left"):
        Logger(tmp_path, "train", 100, 10, tensorboard=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

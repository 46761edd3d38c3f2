"""Text files: after an error the old file is unchanged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from recsys_rl.cli import main
from recsys_rl.types import UserError
from recsys_rl.utils import files
from recsys_rl.utils.files import check_writable, read_text, write_text


def test_write_text_makes_folders_and_replaces_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "er" / "x.txt"
    write_text(path, "a longer text\r\n")
    write_text(path, "ü\n")
    assert path.read_bytes() == b"\xc3\xbc\n" and list(path.parent.iterdir()) == [path]


def test_full_disk_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_path_that_is_no_file_is_refused_and_kept(tmp_path: Path) -> None:
    for place in (tmp_path, Path(os.devnull), Path()):
        with pytest.raises(UserError):
            write_text(place, "new")
    assert Path(os.devnull).is_char_device() and list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError):
        write_text(tmp_path / "file" / "x.txt", "new")
    assert (tmp_path / "file").read_text() == "old"


def test_check_writable_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "er" / "x.txt", "--json")
    check_writable(tmp_path / "file", "--json")
    assert [x.name for x in tmp_path.iterdir()] == ["file"]
    for place in (tmp_path, Path(os.devnull), tmp_path / "file" / "x.txt"):
        with pytest.raises(UserError):
            check_writable(place, "--json")


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xc3\xbc")
    assert read_text(path, "--config", "a TOML file") == "ü"
    monkeypatch.setattr(files, "LARGEST", 1)
    with pytest.raises(UserError):
        read_text(path, "--config", "a TOML file")
    with pytest.raises(UserError):
        read_text(tmp_path, "--config", "a TOML file")


@pytest.mark.timeout(30)
def test_devices_and_pipes_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/zero has no end, and a pipe without a writer has no beginning."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero")):
        with pytest.raises(UserError):
            read_text(place, "--users", "a file of ids")
        assert main(["train", "--config", str(place)]) == 2
        assert f"--config {place} is not a regular file" in capsys.readouterr().err

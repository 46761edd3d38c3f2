"""The line that names the run behind a file in checkpoints/, which is taken if no checkpoint is given."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys_rl.cli import main
from tests.doors import DRIFT, SATIATION, steps

RUN = "runs/satiation-synthetic-ppo-0/ppo.pt"
LINE = f"checkpoint: {RUN}, ppo on satiation after 48 steps (checkpoints/ppo.pt; --checkpoint for another)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two runs and a log of the second."""
    path = tmp_path_factory.mktemp("latest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert main(["train", *DRIFT, *steps(1)]) == 0
        assert main(["train", *SATIATION, *steps(2)]) == 0
        pl.DataFrame({"user": [0, 1, 2], "item": [3, 4, 5]}).write_csv("events.csv")
        assert main(["record", "--sessions", "40", "--policy", "random", "--out", "log.parquet"]) == 0
        words = ["record", "--sessions", "40", "--policy", "random", "--users", "train"]
        assert main([*words, "--out", "train.parquet"]) == 0
    return path


COMMANDS = {
    "recommend": "recommend --user 3",
    "recommend-many": "recommend --users all --out lists.parquet",
    "ranking": "ranking events.csv",
    "record": "record --sessions 4 --out new.parquet",
    "ope": "ope --log log.parquet --policy random --no-world --json ope.json",
    "evaluate": "evaluate --json table.json",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_latest_run_is_named_on_standard_error(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = COMMANDS[name].split()
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err.splitlines().count(LINE) == 1 and "checkpoint: " not in said.out
    assert main([*words, "--checkpoint", RUN]) == 0
    assert "checkpoint: " not in capsys.readouterr().err


def test_visitors_name_the_run_whose_people_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["visitors", "--url", "https://localhost"]) == 2
    first, wrong = capsys.readouterr().err.splitlines()
    assert first == LINE and "HOST:PORT" in wrong


def test_quiet_recording_names_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["record", "--sessions", "4", "--out", "quiet.parquet", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_file_in_place_of_the_link(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an earlier version, or copied."""
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    Path("checkpoints/ppo.pt").write_bytes((folder / "checkpoints/ppo.pt").read_bytes())
    assert main(["recommend", "--user", "3"]) == 0
    assert capsys.readouterr().err.startswith("checkpoint: checkpoints/ppo.pt, ppo on satiation after 48 ")

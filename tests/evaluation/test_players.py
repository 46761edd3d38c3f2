"""The players of the table: their progress on the terminal, and their users."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from recsys_rl.cli import main
from recsys_rl.evaluation import play, players
from tests.doors import ROOT, SATIATION, read_terminal, steps, train_in


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_in(tmp_path_factory.mktemp("players") / "run", *SATIATION, *steps(1)))


@pytest.mark.proof
def test_progress_bar_for_each_policy_on_a_terminal(checkpoint: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}
    command = [sys.executable, "-m", "evaluate", checkpoint]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := read_terminal(ours):
            shown += chunk
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    names = [re.match(r"playing (\S+) \((\d+) of (\d+)\) ━+", line) for line in lines]
    found = [match.group(1) for match in names if match]
    assert list(dict.fromkeys(found))[:2] == ["ppo", "ppo-greedy"] and found[-1] == "planner"
    assert re.search(r" \d/5 +\d\d:\d\d$", lines[-1])


def test_plain_lines_without_a_terminal(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(play, "SECONDS_BETWEEN_LINES", 0.0)
    assert main(["evaluate", checkpoint]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("playing planner ")]
    title = lines[0]
    assert re.fullmatch(r"playing planner \((\d+) of \1\)", title)
    assert lines == [title, *(f"{title}: step {step} of 5" for step in range(1, len(lines)))]


def test_planners_play_fewer_users_in_long_sessions(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(play, "LONG_SESSION", 4)
    monkeypatch.setattr(play, "LONG_PLANNER_USERS", 2)
    assert main(["evaluate", checkpoint]) == 0
    table = capsys.readouterr().out
    assert re.search(r"\(2 of \d+ users\)", table) and "--full plays all" in table
    assert main(["evaluate", checkpoint, "--full"]) == 0
    assert "--full plays all" not in capsys.readouterr().out


def test_users_are_spread_evenly() -> None:
    assert players.evenly(4, 6).tolist() == [0, 1, 3, 4]
    assert players.evenly(3, 3).tolist() == [0, 1, 2]
    places = players.evenly(64, 131)
    assert len(places.unique()) == 64 and int(places[-1]) == 128
    assert set(places.diff().tolist()) == {2, 3}

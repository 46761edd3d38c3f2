"""The direct method as a run of a team's own log: what it holds back, and who can go on from its weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys_rl.cli import main
from tests.own_logs import clicks


@pytest.mark.proof
def test_the_lines_of_a_run_and_of_a_learner_that_can_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = [
        "--log",
        str(clicks(tmp_path / "clicks.csv", 200)),
        "--total-timesteps",
        "128",
        "--hidden-dims",
        "8",
    ]
    assert main(["train", "--algo", "direct", *log, "--name", "one"]) == 0
    said = capsys.readouterr().err
    data = re.search(r"data: clicks.csv; (\d+) decisions of", said)
    back = re.search(r"(\d+) decisions of these are held back", said)
    assert data is not None and back is not None
    assert 0.05 < int(back[1]) / int(data[1]) < 0.4  # a fifth of the users
    start = ["--checkpoint", "runs/one/direct.pt", "--init-from", "runs/one/direct.pt", "--name", "two"]
    assert main(["train", "--algo", "bc", *log, *start]) == 2
    assert "give --algo direct, or leave --init-from out" in capsys.readouterr().err
    assert not Path("runs/two").exists()

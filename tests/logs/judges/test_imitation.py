"""The agreement of a policy with a log, by hand and at the end of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.judges.judge_own_log import agreement
from recsys_rl.types import Action, Obs


class Second:
    """A policy that would show the second item to everybody."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert greedy
        number = obs.num_rows
        return Action(torch.ones(number, 1, dtype=torch.int64), torch.zeros(number), torch.zeros(number))


def clicks(path: Path, rows: int = 60) -> Path:
    """Rows in which old people are shown b and young ones a, but for each sixth."""
    lines = [
        f"{row},{'ab'[(row % 2) ^ (row % 6 == 0)]},{row % 3 == 0:d},{20 + 50 * (row % 2)}"
        for row in range(rows)
    ]
    path.write_text("user,item,clicked,context.age\n" + "\n".join(lines) + "\n")
    return path


def test_the_share_of_equal_items_is_counted(tmp_path: Path) -> None:
    table = read_table(clicks(tmp_path / "clicks.csv"))
    policy: Any = Second()
    # Of six rows 1, 3 and 5 show b, and row 0 does.
    assert agreement(policy, table.log, table.catalogue) == pytest.approx(4 / 6)


def test_the_clone_of_an_application_says_how_often_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clicks(tmp_path / "clicks.csv", 600)
    learn = ["--total-timesteps", "6400", "--batch-size", "64", "--gradient-steps", "20", "--lr", "0.01"]
    assert main(["train", "--algo", "bc", "--log", "clicks.csv", *learn]) == 0
    [line] = [x for x in capsys.readouterr().out.splitlines() if "shows what the log shows in" in x]
    assert line.startswith("bc-greedy") and 75 < float(line.split(" % ")[0].split()[-1]) < 90  # 5 of 6

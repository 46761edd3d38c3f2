"""`train` on a log whose best item is rare: no promise of `dr`, and still an answer."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from recsys_rl.cli import main
from tests.own_logs import write_csv

CHANCES, RATES = (0.005, 0.5, 0.495), (0.95, 0.1, 0.1)


def test_a_clearly_better_policy_of_heavy_weights_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rare item pays nine times as much as the others; weights are up to 200."""
    drawn, lines = random.Random(1), []
    for at in range(20_000):
        item = drawn.choices(range(3), CHANCES)[0]
        lines.append([f"u{at}", f"i{item}", int(drawn.random() < RATES[item]), CHANCES[item], drawn.random()])
    log = write_csv(tmp_path / "log.csv", ["user", "item", "clicked", "propensity", "context.x"], lines)
    monkeypatch.chdir(tmp_path)
    words = ["--total-timesteps", "12800", "--hidden-dims", "8", "--lr", "0.02", "--name", "run"]
    assert main(["train", "--algo", "reinforce", "--log", str(log), *words]) == 0
    found = json.loads((tmp_path / "runs" / "run" / "ope.json").read_text())
    rows = {row["policy"]: row for row in found["verdicts"]}
    mine = rows[found["headline"]]
    assert mine["ess"] < 200 and not mine["promise"]
    assert (mine["answer"], mine["by"]) == ("better", "lower-bound") and mine["difference"][1] > 0
    assert rows["clone"]["answer"] != "better"

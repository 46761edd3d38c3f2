"""The benchmark of learned users: its table comes from the rows of the file, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import learned_users
from tests.benchmarks.test_written_tables import write_rows
from tests.doors import benchmark_here


def cell(log: str, **known: object) -> dict[str, object]:
    found: dict[str, object] = {"date": "2026-11-28", "commit": "abc", "env": "satiation", "log": log}
    found |= {"seed": 0, "return_mean": 11.5, "inside_return": 10.5, "share": 0.772}
    found |= {"spearman": 0.82, "regret": 0.228, "loss_engagement": 1.026, "classifier_auc": 0.504}
    return found | known


def test_table_has_means_over_seeds_and_the_largest_loss(tmp_path: Path) -> None:
    rows = [cell("random"), cell("medium", env="short-video", loss_liked=1.11, loss_engagement="")]
    rows += [cell("random", seed=1, return_mean=12.5, share=0.8)]
    write_rows(tmp_path, "learned_users", rows)
    _, _, first, other, _, _, origin = learned_users.text(tmp_path).splitlines()
    wanted = ["`satiation`", "random", "2", "12.00", "10.50", "79 % (77 to 80)", "0.82"]
    assert [x.strip() for x in first.split("|")[1:-1]] == [*wanted, "22.8 %", "1.03", "0.50"]
    assert other.split("|")[9].strip() == "1.11" and "commits abc" in origin


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    options = ["--smoke", "--logs", "medium", "--json", "table.json"]
    benchmark_here(learned_users.main, tmp_path, *options)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["env"], row["policies"]) for row in rows] == [("satiation", 14), ("short-video", 14)]
    assert all(-1 <= row["spearman"] <= 1 and row["regret"] >= 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]

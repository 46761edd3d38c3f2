"""Feedback that came after the next decision of its session: the export counts it, and `ope` names it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_rl.cli import main
from recsys_rl.logs.intervals import late_feedback
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from tests.own_logs import policy, sessions
from tests.serving.servers import event, recommend, send, serving

At = Callable[[str], Path]


def exported(db: Path, out: Path) -> tuple[str, ...]:
    record = open_snapshot(db)
    try:
        return export_record(record, out, interval_of(record, now=time.time() + 9000.0)).notes
    finally:
        record.store.close()


def test_ope_names_the_rows_of_late_feedback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of five users: two events of one decision are one row; what comes after the last is not late."""
    weights = ("clicked=1", "dwell=0.5")
    made = policy(tmp_path / "p.pt", sessions(tmp_path / "s.csv"), "reinforce", weights=weights)
    with serving(made, tmp_path / "r.sqlite", explore=1.0) as client:
        for user in range(5):
            first, second = (recommend(client, f"u{user}", context={"age": 20.0 + user}) for _ in range(2))
            if user < 2:
                send(client, event(first, "dwell", 0.25), event(first, "clicked"))
            send(client, event(second, "dwell", 0.5), event(second, "leave"))
    out, file = tmp_path / "served.parquet", tmp_path / "ope.json"
    assert any(note.startswith("2 decisions with feedback") for note in exported(tmp_path / "r.sqlite", out))
    options = ["--policy", "random", "--no-world", "--json", str(file)]
    options += [word for weight in weights for word in ("--weights", weight)]
    assert main(["ope", "--log", str(out), *options]) == 0
    assert json.loads(file.read_text())["about"]["late_feedback"] == 2
    assert "2 decisions with feedback" in capsys.readouterr().out
    assert main(["ope", "--log", str(tmp_path / "s.csv"), *options]) == 0
    assert json.loads(file.read_text())["about"]["late_feedback"] == 0
    assert "with feedback" not in capsys.readouterr().out


def test_a_log_of_a_platform_counts_them_too(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        for user in range(3):
            first, second = (recommend(client, str(user)) for _ in range(2))
            send(client, event(first, "engagement", 0.5), event(second, "leave"))
    exported(tmp_path / "r.sqlite", tmp_path / "log.parquet")
    assert late_feedback((str(tmp_path / "log.parquet"),)) == 3

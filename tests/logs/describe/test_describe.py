"""The description of log files: counts worked by hand, small pieces, whole commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.data.tables.events import read_log
from recsys_rl.logs.describe.description import Problem
from recsys_rl.logs.describe.survey import describe
from recsys_rl.types import UserError
from tests.doors import ROOT

LOG = (
    "user_id,item,timestamp,session,rating\n"
    "a,x,2024-01-01T00:00:00Z,1,4\n"
    "b,x,2024-01-02T00:00:00Z,1,2\n"
    ",y,2024-01-02T00:00:00Z,2,2\n"
    "a,x,2024-01-01T00:00:00Z,1,5\n"
    "a,y,soon,2,\n"
    "a,z,2024-01-03T00:00:00Z,2,no\n"
    "b,x,2024-01-02T00:00:00Z,1,1\n"
)

DROP = " (train with --missing drop to leave them out)"
MERGE = " (train with --duplicates sum to merge them, or keep-first to drop them)"


def test_description_by_hand(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    found = describe(tmp_path / "log.csv")
    assert (found.rows, found.users, found.items, found.sessions) == (7, 2, 3, 4)
    assert found.density == 7 / 6
    assert found.times == (1704067200.0, 1704240000.0)
    assert found.ranges == {"rating": (1.0, 2.8, 5.0)}
    assert found.events_of_item == (1, 2, 4) and found.most_frequent == ("x", 4)
    assert sorted(found.problems, key=lambda problem: problem.text) == [
        Problem("column 'rating' has no finite number", 1, 6),
        Problem("column 'rating' has no value", 1, 5),
        Problem("column 'timestamp' has no time", 1, 5),
        Problem("column 'user_id' has no value", 1, 3),
        Problem("rows that repeat the user, item, time of an earlier row", 2, 4),
    ]


@pytest.mark.parametrize("name", ["click", "reward"])
def test_events_with_clicks_are_no_decisions(tmp_path: Path, name: str) -> None:
    """Sessions are numbered for each user, and a repeat is one of user, item and time."""
    (tmp_path / "log.csv").write_text(
        f"user,item,session,timestamp,{name}\n"
        "a,x,1,100,1\na,y,2,200,0\nb,x,1,100,true\nb,y,2,200,0\na,x,1,100,0\nb,z,2,300,maybe\n"
    )
    found = describe(tmp_path / "log.csv")
    assert (found.users, found.items, found.sessions, found.slate_size) == (2, 3, 4, 1)
    assert found.ranges == {name: (0.0, 0.4, 1.0)}
    assert sorted(found.problems, key=lambda problem: problem.text) == [
        Problem(f"column {name!r} has no finite number", 1, 6),
        Problem("rows that repeat the user, item, time of an earlier row", 1, 5),
    ]


@pytest.mark.parametrize("text", ["Benutzer;Artikel\n1;2\n", "u1,i1\nu1,i2\n", "user,item\n"])
def test_file_without_known_columns_or_rows_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError):
        describe(tmp_path / "log.csv")


def test_other_columns_and_lacking_roles_are_printed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("item,colour\n1,red\n,blue\n")
    lines = list(describe(tmp_path / "log.csv").lines())
    assert lines[1:3] == [
        "columns without a known role: 'colour'",
        "no column for the user is known: give --user-column",
    ]
    assert lines[-2:] == ["problems: 1", "  column 'item' has no value: 1 row, the first is line 3" + DROP]


def test_description_of_decisions(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "user": [1, 1, 2, 3],
            "item": [5, 6, 5, 5],
            "reward": [0.0, 1.0, 0.5, 0.0],
            "propensity": [0.5, 0.25, 0.0, 1.5],
            "policy": ["old", "new", "old", "old"],
            "candidates": [[5, 6], [5, 6, 7, 8], [5, -1], [5]],
        }
    ).write_parquet(tmp_path / "log.parquet")
    found = describe(tmp_path / "log.parquet")
    assert found.ranges["reward"] == (0.0, 0.375, 1.0) and found.ranges["propensity"] == (0.0, 0.5625, 1.5)
    assert found.inverse_propensity == 3.0  # (2 + 4) / 2
    assert found.candidates_per_row == 2.0  # 8 entries that are not padding, 4 rows
    assert found.shown_of_item == (1, 2, 4)
    assert found.policies == {"old": 3, "new": 1}
    assert found.problems == (Problem("column 'propensity' is not a probability above 0 and up to 1", 2, 3),)
    said = "\n".join(found.lines())
    assert "mean of 1/propensity: 3 (2 candidates a row" in said
    assert "logging policies: 2 ('new' 1, 'old' 3)" in said


def test_description_of_slates_with_logprobs(tmp_path: Path) -> None:
    pl.DataFrame(
        {"user": [1, 1], "items": [[5, 6], [5, -1]], "logprob": [0.0, np.log(0.25)], "session": [0, 0]}
    ).write_parquet(tmp_path / "log.parquet")
    found = describe(tmp_path / "log.parquet")
    assert (found.items, found.events_of_item, found.most_frequent) == (2, (1, 2, 2), ("5", 2))
    assert found.inverse_propensity == pytest.approx(2.5)
    assert found.problems == (Problem("all rows with a value have the same user", 2, 1),)


def test_describe_command_prints_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(LOG)
    assert main(["data", "describe", "log.csv", "--json", "log.json"]) == 0
    said = capsys.readouterr().out
    assert "7 rows, 2 users, 3 items, 4 sessions" in said
    assert "time: 2024-01-01 00:00:00 UTC to 2024-01-03 00:00:00 UTC" in said
    assert f"column 'user_id' has no value: 1 row, the first is line 4{DROP}\n" in said
    assert "column 'timestamp' has no time: 1 row, the first is line 6\n" in said
    assert (
        f"rows that repeat the user, item, time of an earlier row: 2 rows, the first is line 5{MERGE}" in said
    )
    values = json.loads(Path("log.json").read_text())
    first = values["problems"][0]
    assert (values["rows"], first["first_row"], first["first_line"]) == (7, 3, 4)
    assert f" ({first['mend']})" == DROP
    pl.read_csv("log.csv").write_parquet("log.parquet")
    assert main(["data", "describe", "log.parquet"]) == 0
    assert f"column 'user_id' has no value: 1 row, the first is row 3{DROP}\n" in capsys.readouterr().out


def test_remedies_of_a_description_mend_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG.replace("soon", "2024-01-02").replace(",no", ",3"))
    found = [problem.mend for problem in describe(tmp_path / "log.csv").problems]
    assert len(found) == 3 and all("--missing drop" in x or "--duplicates sum" in x for x in found)
    with pytest.raises(UserError):
        read_log(tmp_path / "log.csv")
    assert len(read_log(tmp_path / "log.csv", missing="drop", duplicates="sum").users) == 3


def test_gaps_of_decisions_have_their_own_remedy(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,click,propensity\na,x,1,0.5\nb,y,0,\n")
    last = list(describe(tmp_path / "log.csv").lines())[-1]
    text = "the first is line 3 (fill them in, or leave these sessions out)"
    assert last == f"  column 'propensity' has no value: 1 row, {text}"


# The hashes of a, b, c are 0.66, 0.72, 0.67: one of the three is below 0.665.
FRACTION = {"time": "0.4", "user": "0.665"}
GAPS = "user,item,time,session\na,x,1,1\na,y,,1\n,x,3,2\nb,y,null,3\nb,z,5,4\nc,z,6,5\nc,x,7,5\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("data describe", "file"),
        ("data describe absent.csv", "absent.csv"),
        ("data describe broken.parquet", "broken.parquet"),
        ("data describ log.csv", "describ"),
        ("data describe log.csv --item-column thing", "'thing'"),
        ("data compare log.csv", "two files"),
        ("data compare log.csv absent.csv", "absent.csv"),
        ("data compare log.csv nobody.csv", "nobody.csv"),
        ("data compare log.csv gaps.csv --user-column who", "'who'"),
    ],
)
def test_bad_commands_are_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(LOG)
    Path("broken.parquet").write_bytes(b"PAR1 no")
    Path("gaps.csv").write_text(GAPS)
    Path("timeless.csv").write_text("user,item\n1,2\n3,4\n")
    Path("empty.csv").write_text("user,item\n")
    Path("nobody.csv").write_text("user,item\n,3\n")
    before = {path.name for path in tmp_path.iterdir()}
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == before


def big_log(path: Path, rows: int, users: int = 500, items: int = 200) -> pl.DataFrame:
    """A log with string ids; each user has a session a day."""
    rng = np.random.default_rng(0)
    times = 1_700_000_000 + rng.integers(20 * 86400, size=rows)
    frame = pl.DataFrame(
        {
            "user": rng.integers(users, size=rows),
            "item": (items * rng.random(rows) ** 3).astype(np.int64),
            "timestamp": times,
            "session": times // 86400,
        }
    ).with_columns(pl.format("user_{}", "user").alias("user"), pl.format("item_{}", "item").alias("item"))
    frame.write_parquet(path)
    return frame


@pytest.fixture(scope="module")
def large_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "log.parquet"
    big_log(path, 3_000_000, 100_000, 50_000)
    return path


@pytest.mark.proof
@pytest.mark.parametrize("decisions", [False, True])
def test_large_log_stays_within_memory(tmp_path: Path, large_log: Path, decisions: bool) -> None:
    """3,000,000 rows; 20,000,000 are measured in docs/log."""
    log = large_log
    if decisions:
        log = tmp_path / "decisions.parquet"
        as_decisions = pl.scan_parquet(large_log).with_columns(
            session=pl.int_range(pl.len()) // 5, step=pl.int_range(pl.len()) % 5, propensity=pl.lit(0.1)
        )
        as_decisions.sink_parquet(log)
    code = (
        "import sys; from benchmarks.harness.memory import peak_mb; from recsys_rl.cli import main;"
        "assert main(sys.argv[1:]) == 0; print(peak_mb())"  # getrusage begins with the peak of this process
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "describe", str(log)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.splitlines()[-1]) < 1_230  # MB

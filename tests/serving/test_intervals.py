"""Several intervals of a record, exported one after another, as one log."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.writer import write_decisions
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.utils.files import sha256_of
from tests.doors import train_in
from tests.own_logs import policy, sessions
from tests.serving.servers import begun, event, recommend, send, serving
from tests.serving.test_snapshot import LATER, exported, visits

At = Callable[[str], Path]


def parts_of(db: Path, folder: Path, marks: list[int]) -> None:
    """One more interval into the folder; ``marks``: the numbers at which they end."""
    record = open_snapshot(db)
    try:
        interval = interval_of(record, marks[-1], now=time.time() + LATER)
        done = export_record(record, folder / f"part-{len(marks)}.parquet", interval)
        marks.append(done.watermark)
    finally:
        record.store.close()


def rows_of(log: DecisionLog) -> list[tuple[object, ...]]:
    """What the rows hold, by session and step."""
    logger = [log.header.loggers[number] for number in log.loggers.tolist()]
    columns = (log.sessions, log.steps, log.users, log.items[:, 0], log.logprobs, log.signals[:, 0, 0])
    given = [pieces.tolist() for pieces in log.given["profile"]]
    return sorted(zip(*(x.tolist() for x in columns), logger, given, strict=True))


@pytest.mark.proof
def test_intervals_in_one_folder_are_read_as_one_log(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version, limits of a request, and sessions that end in another order than they begin."""
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
    db, folder, whole, marks = tmp_path / "r.sqlite", tmp_path / "log", tmp_path / "whole.parquet", [0]
    folder.mkdir()
    with serving(begun(two / "a.pt", db), db) as client:
        waiting = recommend(client, "7")  # the first session, which ends last
        visits(client, range(6))
        send(client, event(waiting, "engagement", 0.25))
        parts_of(db, folder, marks)
        body = {"sha256": sha256_of(two / "b.pt")}
        assert client.post("/v1/release/alias", json=body).status_code == 200
        send(client, event(recommend(client, "9", exclude=["1", "2"]), "leave"))
        send(client, event(recommend(client, "10", candidates=["3", "4", "5"]), "leave"))
        visits(client, range(11, 30))
        parts_of(db, folder, marks)
        visits(client, range(2))
        parts_of(db, folder, marks)
        record = open_snapshot(db)
        export_record(record, whole, interval_of(record, now=time.time() + LATER))
        record.store.close()
    joined, one = read_decisions(folder), read_decisions(whole)
    assert (
        rows_of(joined) == [(*row[:6], joined.header.loggers[0], row[7]) for row in rows_of(one)]
        and joined.num_rows == one.num_rows == 1 + 3 * 27 + 2
    )
    assert len(one.header.loggers) == 2 and one.logger_logprobs is not None
    assert joined.header.loggers == ("ppo",) and joined.logger_logprobs is None  # two of one name
    assert joined.candidates is not None and joined.exclude is not None
    assert main(["data", "describe", str(folder)]) == 2  # its files have different columns
    assert main(["data", "describe", str(folder / "part-2.parquet")]) == 0
    ours = ["--checkpoint", str(two / "a.pt")]
    log = ["--log", str(folder)]
    assert main(["ope", *log, *ours, "--policy", "ppo"]) == 0 and "ppo" in capsys.readouterr().out
    assert main(["fit-users", *log, *ours, "--out", str(tmp_path / "users.safetensors")]) == 0
    steps = ["--total-timesteps", "320", "--batch-size", "32", "--gradient-steps", "5", "--threads", "1"]
    world = ["--env", "satiation", "--data", "synthetic", "--num-users", "30", "--num-items", "24"]
    size = ["--embedding-dim", "4", "--max-episode-steps", "5", "--hidden-dims", "8", *steps]
    for algo in ("bc", "cql", "reinforce"):
        assert train_in(tmp_path / algo, *world, *size, "--algo", algo, *log).is_file()


def test_a_folder_of_intervals_that_are_not_one_log_is_refused(checkpoint: At, tmp_path: Path) -> None:
    db, folder, marks = tmp_path / "r.sqlite", tmp_path / "log", [0]
    folder.mkdir()
    with serving(checkpoint("satiation"), db) as client:
        for start in (0, 3):
            visits(client, range(start, start + 3))
            parts_of(db, folder, marks)
        exported(db, folder / "part-3.parquet", marks[1] - 1)
    with pytest.raises(UserError):  # 2 and 3 overlap
        read_decisions(folder)
    (folder / "part-3.parquet").unlink()
    assert read_decisions(folder).num_rows == 18 and main(["data", "describe", str(folder)]) == 0
    write_decisions(folder / "other.parquet", read_decisions(folder / "part-1.parquet"))
    with pytest.raises(UserError):  # one that is no export of a record
        read_decisions(folder)


def test_a_session_that_was_exported_too_early_counts_once(checkpoint: At, tmp_path: Path) -> None:
    """The machine's clock was ahead at the first export: the second one has all of the session."""
    db, folder, marks = tmp_path / "r.sqlite", tmp_path / "log", [0]
    folder.mkdir()
    with serving(checkpoint("satiation"), db) as client:
        visits(client, range(3))
        open_one = recommend(client, "8")
        parts_of(db, folder, marks)
        send(client, event(open_one, "engagement", 0.75), event(open_one, "leave"))
        visits(client, range(3, 5))
        parts_of(db, folder, marks)
    assert [read_decisions(file).num_rows for file in sorted(folder.iterdir())] == [10, 7]
    log = read_decisions(folder)
    assert log.num_rows == 16 and log.signals[log.users == 8].tolist() == [[[0.75]]]


@pytest.mark.proof
def test_intervals_of_a_place_of_ones_own_are_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
    db, folder, marks = tmp_path / "r.sqlite", tmp_path / "log", [0]
    folder.mkdir()
    weights = {"weights": ("clicked=1", "dwell=0.5")}
    path = policy(tmp_path / "p.pt", sessions(tmp_path / "s.csv"), "reinforce", **weights)
    with serving(path, db) as client:
        for users, limits in ((range(40), {}), (range(40, 60), {"candidates": ["i0", "i1"]})):
            for user in users:
                for _ in range(2):
                    answer = recommend(client, f"u{user}", context={"age": 20 + user}, **limits)
                    send(client, event(answer, "clicked", user % 2), event(answer, "dwell", 0.5))
                send(client, event(answer, "leave"))
            parts_of(db, folder, marks)
    log = ["--log", str(folder), "--weights", "clicked=1", "dwell=0.5"]
    short = ["--total-timesteps", "320", "--batch-size", "32", "--gradient-steps", "5", "--threads", "1"]
    learned = train_in(tmp_path / "learned", "--algo", "reinforce", *log, *short, "--hidden-dims", "8")
    assert main(["ope", *log[:2], "--checkpoint", str(learned)]) == 0
    fitted = ["--out", str(tmp_path / "users.safetensors")]
    assert main(["fit-users", *log[:2], "--weights", "clicked=1", "--weights", "dwell=0.5", *fitted]) == 0
    exported(db, folder / "part-9.parquet", marks[1] - 1)
    assert main(["ope", *log[:2], "--checkpoint", str(learned)]) == 2  # 2 and 9 overlap

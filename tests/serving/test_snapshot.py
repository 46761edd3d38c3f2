"""The record while it is served: an interval has the same sessions beside the server, later, and after it."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.check import wrong_arms
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import IN_FLIGHT, Interval, interval_of
from recsys_rl.serving.record.record_schema import LEAVE, Decision, Event, Person, Session
from recsys_rl.serving.record.store import Store
from tests.serving.live import live
from tests.serving.servers import event, recommend, send, serving

At = Callable[[str], Path]
LATER = 6000.0  # seconds after which sessions that have ended are mature
TIMEOUT, WINDOW = 100.0, 50.0  # of the sessions that are written here
PLACE = {"platform": "own-log", "signals": ["clicked"], "slate_size": 1, "context": []}


def session(number: int, person: int, began: float) -> list[Person | Session]:
    return [
        Person(person, f"user {person}"),
        Session(number, person, 0, began, -1, (), TIMEOUT, WINDOW),
    ]


def decision(number: int, session: int, step: int, time_: float) -> Decision:
    return Decision(
        number=number,
        session=session,
        step=step,
        time=time_,
        policy=0,
        request="",
        request_digest="",
        hour=0.0,
        items=(0,),
        logprobs=(-0.5,),
        uniforms=(),
        explore=0.0,
        candidates=None,
        exclude=(),
        degraded="",
        answer=b"",
        application="rules",
    )


def signal(number: int, session: int, decision: int, time_: float, left: bool = False) -> Event:
    return Event(number, f"={number}", session, decision, 0, -1, LEAVE if left else 0, 1.0, None, time_)


def interval(db: Path, since: int, until: int | None, now: float) -> Interval:
    record = open_snapshot(db)
    try:
        return interval_of(record, since, until, now)
    finally:
        record.store.close()


def test_an_interval_ends_before_the_last_row_of_the_first_session_that_has_not_matured(
    tmp_path: Path,
) -> None:
    """By hand: 2 left at once, 5 goes on until 90, and 9 left after its next decision."""
    db = tmp_path / "r.sqlite"
    store = Store(db, PLACE)
    rows = [
        *session(2, 1, 0.0), decision(3, 2, 0, 0.0),
        *session(5, 4, 1.0), decision(6, 5, 0, 1.0),
        signal(7, 2, 3, 5.0, left=True),
        *session(9, 8, 6.0), decision(10, 9, 0, 6.0),
        decision(11, 5, 1, 40.0),
        signal(12, 9, 10, 45.0, left=True),
    ]  # fmt: skip
    store.write(rows, durable=True)
    # Session 2 left at 5 and matured at 55; session 5 has not ended before 140; session 9 matured at 95.
    assert interval(db, 0, None, 54.0) == Interval(0, 6, (), 3)  # row 7 is the last of a session that is open
    assert interval(db, 0, None, 56.0) == Interval(0, 10, (2,), 2)
    # At 96 session 9 has matured too, but session 5, whose last row is 11, has not: 9 waits for it.
    assert interval(db, 0, None, 96.0) == Interval(0, 10, (2,), 2)
    store.write([decision(13, 5, 2, 90.0)], durable=True)  # it goes on, and holds back nobody any more
    assert interval(db, 0, None, 96.0) == Interval(0, 12, (2, 9), 1)
    assert interval(db, 10, None, 96.0) == Interval(10, 12, (9,), 1)
    assert interval(db, 12, None, 96.0) == Interval(12, 12, (), 1)
    # The last row is at 90, timed out at 190, and matured at 240.
    assert interval(db, 12, None, 239.0).sessions == () and interval(db, 12, None, 241.0).sessions == (5,)
    assert interval(db, 0, None, 241.0) == Interval(0, 13, (2, 5, 9), 0)
    # What was an interval before is the same one now, and later.
    assert interval(db, 0, 10, 241.0) == Interval(0, 10, (2,), 0)
    assert interval(db, 10, 12, 1e6) == Interval(10, 12, (9,), 0)
    # A clock that was set back is behind the record, whose last row was at 90: session 9 left at 45.
    assert interval(db, 0, None, -1e9) == interval(db, 0, None, 90.0) == Interval(0, 11, (2,), 2)
    for since, until in ((-1, None), (12, 12), (12, 3), (0, 13), (0, 10**9), (0, -4)):
        with pytest.raises(UserError):
            interval(db, since, until, 200.0)
    store.close()


def test_the_clock_of_an_interval_is_that_of_its_snapshot(tmp_path: Path) -> None:
    """What is accepted after that moment is not in it, however long the versions take to open."""
    store = Store(tmp_path / "r.sqlite", PLACE)
    store.write(
        [*session(2, 1, 0.0), decision(3, 2, 0, 0.0), signal(4, 2, 3, 5.0, left=True)], durable=True
    )  # matures at 55
    record = open_snapshot(tmp_path / "r.sqlite")
    assert time.time() - 60.0 < record.store.moment <= time.time()
    for moment, sessions in ((55.0 + IN_FLIGHT - 0.1, ()), (55.0 + IN_FLIGHT + 0.1, (2,))):
        record.store.moment = moment
        assert interval_of(record, 0, None).sessions == sessions
    record.store.close()
    store.close()


def test_a_session_of_nobody_is_named_by_the_check_of_arms(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite", PLACE)
    store.write([session(2, 1, 0.0)[1], decision(3, 2, 0, 0.0)], durable=True)
    rows = store.session(2)
    assert rows is not None and len(wrong_arms(store, {}, [rows])) == 1
    store.close()


def test_each_session_is_in_exactly_one_interval_that_never_changes(tmp_path: Path) -> None:
    """Sessions by chance, with late feedback up to the last moment that the server takes."""
    chance, db, number, now = random.Random(0), tmp_path / "r.sqlite", 0, 0.0
    store, marks, taken = Store(db, PLACE), [0], list[Interval]()
    open_: dict[int, tuple[list[int], float, float | None]] = {}  # decisions, latest, when they left
    total = set[int]()
    for _ in range(400):
        now += chance.expovariate(1 / 4.0)
        rows: list[Person | Session | Decision | Event] = []
        kind = chance.random()
        open_ = {
            key: value
            for key, value in open_.items()
            if now - (value[2] if value[2] is not None else value[1] + TIMEOUT) < WINDOW
        }
        going = [key for key, (_, latest, left) in open_.items() if left is None and now - latest < TIMEOUT]
        if kind < 0.25 or not open_:
            rows += [*session(number + 2, number + 1, now), decision(number + 3, number + 2, 0, now)]
            open_[number + 2] = [number + 3], now, None
            total.add(number + 2)
            number += 3
        elif kind < 0.6 and going:
            at = chance.choice(going)
            decisions, _, _ = open_[at]
            number += 1
            rows.append(decision(number, at, len(decisions), now))
            open_[at] = [*decisions, number], now, None
        else:
            at = chance.choice(list(open_))
            decisions, latest, left = open_[at]
            leaves = at in going and chance.random() < 0.3
            number += 1
            rows.append(signal(number, at, decisions[-1], now, leaves))
            latest = now if now - latest <= TIMEOUT else latest
            open_[at] = decisions, latest, now if leaves else left
        store.write(rows, durable=False)
        if chance.random() < 0.2:
            taken.append(interval(db, marks[-1], None, now))
            marks.append(taken[-1].until)
    taken.append(interval(db, marks[-1], None, now + 1000))
    found = [number for some in taken for number in some.sessions]
    assert sorted(found) == sorted(total) and len(total) > 50
    assert sum(bool(some.sessions) for some in taken) > 20
    for some in taken:
        if some.since < some.until:
            assert interval(db, some.since, some.until, now + 1000).sessions == some.sessions
    store.close()


def visits(client: object, users: Sequence[int]) -> None:
    for user in users:
        for _ in range(3):
            answer = recommend(client, str(user))  # type: ignore[arg-type]
            send(client, event(answer, "engagement", 0.5))  # type: ignore[arg-type]
        send(client, event(answer, "leave"))  # type: ignore[arg-type]


def exported(db: Path, out: Path, since: int = 0, until: int | None = None) -> tuple[bytes, int]:
    record = open_snapshot(db)
    try:
        done = export_record(record, out, interval_of(record, since, until, time.time() + LATER))
    finally:
        record.store.close()
    return out.read_bytes(), done.watermark


def test_an_export_beside_the_server_equals_one_after_it(checkpoint: At, tmp_path: Path) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    with serving(checkpoint("satiation"), db) as client:
        visits(client, range(4))
        first, watermark = exported(db, out)
        visits(client, range(4, 7))  # the server writes on
        assert exported(db, out, 0, watermark) == (first, watermark)
        second, end = exported(db, out, watermark)
        whole = exported(db, out)[0]
    assert exported(db, out, 0, watermark)[0] == first
    assert exported(db, out, watermark, end)[0] == second
    assert exported(db, out)[0] == whole and len({first, second, whole}) == 3


def test_the_command_prints_the_number_of_the_next_export(
    checkpoint: At, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    export = ["log", "export", "--db", str(db), "--out", str(out)]
    with (
        live(checkpoint("satiation"), db, feedback_window=0.05) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        visits(client, range(2))
        time.sleep(0.2 + IN_FLIGHT)
        assert main(export) == 0
        watermark = int(capsys.readouterr().out)
        content = out.read_bytes()
        visits(client, range(2, 4))
        time.sleep(0.2 + IN_FLIGHT)
        assert main([*export, "--until", str(watermark)]) == 0 and out.read_bytes() == content
        assert int(capsys.readouterr().out) == watermark
        assert main([*export, "--since", str(watermark)]) == 0
        assert int(capsys.readouterr().out) > watermark and out.read_bytes() != content
        content = out.read_bytes()
        for wrong in (
            ["--since", "999999"],
            ["--since", "-1"],
            ["--since", "9", "--until", "9"],
            ["--until", "999999"],
        ):
            assert main([*export, *wrong]) == 2
        assert main(["log", "check", "--db", str(db)]) == 2  # it takes the lock
        assert out.read_bytes() == content
    assert main(["log", "check", "--db", str(db)]) == 0


def test_the_record_of_a_killed_server_is_read_with_its_log(checkpoint: At, tmp_path: Path) -> None:
    """The rows since the last checkpoint of SQLite are in the -wal file alone, and there is no -shm file."""
    db, copy = tmp_path / "r.sqlite", tmp_path / "copy.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        visits(client, range(3))
        for end in ("", "-wal"):
            shutil.copy(f"{db}{end}", f"{copy}{end}")
    assert Path(f"{copy}-wal").stat().st_size > copy.stat().st_size
    logs = [exported(path, tmp_path / f"{path.stem}.parquet") for path in (db, copy)]
    assert logs[0] == logs[1]


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    none, text, empty, newer = (tmp_path / name for name in ("none", "text", "empty", "newer"))
    text.write_text("hello " * 1000)
    empty.touch()
    Store(newer, PLACE).close()

    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()
    for path in (none, text, empty, newer, tmp_path):
        with pytest.raises(UserError):
            open_snapshot(path)
    assert not none.exists()

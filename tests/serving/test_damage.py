"""A row of the record whose bytes changed is named, and never shown."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recsys_rl.cli import main
from recsys_rl.serving.record.record_schema import Damaged, Decision, Event, encoded
from recsys_rl.serving.record.store import Store
from tests.serving.servers import event, recommend, send, serving

At = Callable[[str], Path]


@pytest.fixture(scope="module")
def record(checkpoint: At, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A record with a decision of user 3, with a request id and an event, and a later one of user 4."""
    db = tmp_path_factory.mktemp("damage") / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        one, other = recommend(client, "3", request_id="first"), recommend(client, "4")
        assert send(client, event(one, "engagement", 0.5)) == ["accepted"]
    return db, one, other["decision_id"]


def row_of(db: Path, number: str) -> bytes:
    with sqlite3.connect(db) as raw:
        found: bytes = raw.execute("SELECT row FROM decisions WHERE number = ?", (number,)).fetchone()[0]
    raw.close()
    return found


def write(db: Path, query: str, *values: object) -> None:
    with sqlite3.connect(db) as raw:
        raw.execute(query, values)
    raw.close()


def test_a_decision_with_another_item_is_named_and_not_shown(
    record: tuple[Path, dict[str, Any], str], checkpoint: At, tmp_path: Path
) -> None:
    """The row has another item, and can be decoded as before."""
    db, one, other = record
    shutil.copy(db, tmp_path / "r.sqlite")
    known = msgspec.msgpack.decode(row_of(db, one["decision_id"]), type=Decision)
    changed = encoded(msgspec.structs.replace(known, items=(known.items[0] ^ 1,)))
    write(tmp_path / "r.sqlite", "UPDATE decisions SET row = ? WHERE number = ?", changed, one["decision_id"])
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        rows = client.get("/v1/decisions").json()
        assert [x["decision_id"] for x in rows["decisions"]] == [other]
        assert rows["unreadable"] == [one["decision_id"]]
        for found in (
            client.get(f"/v1/decisions/{one['decision_id']}"),
            client.post("/v1/recommend", json={"user_id": "3", "request_id": "first"}),
            client.post("/v1/feedback", json={"events": [event(one, "engagement", 0.5)]}),
        ):
            assert (found.status_code, found.json()["title"]) == (503, "record-damaged")
        assert client.get(f"/v1/decisions/{other}").json()["replayed"]


def test_an_event_whose_row_changed_is_compared_with_what_was_acknowledged(
    record: tuple[Path, dict[str, Any], str], checkpoint: At, tmp_path: Path
) -> None:
    """The session in memory is whole, and one that must be read is covered by its digest."""
    db, one, other = record
    shutil.copy(db, tmp_path / "r.sqlite")
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        recommend(client, "3")  # the session is in memory
        store = client.app.worker.shared.store  # type: ignore[attr-defined]
        (row,) = store._db.execute("SELECT row FROM events").fetchone()
        known = msgspec.msgpack.decode(row, type=Event)
        changed = encoded(msgspec.structs.replace(known, value=0.75))
        store._db.execute("UPDATE events SET row = ?", (changed,))
        assert send(client, event(one, "engagement", 0.5)) == ["duplicate"]
        assert send(client, event(one, "engagement", 0.75)) == ["conflict"]
        with pytest.raises(Damaged):
            store.event(known.id)
        store._db.execute("UPDATE events SET row = ?, id = '=free'", (row,))
        found = client.post(
            "/v1/feedback",
            json={"events": [event({"decision_id": other}, "engagement", event_id="free")]},
        )
        assert (found.status_code, found.json()["title"]) == (503, "record-damaged")


def test_events_that_were_taken_before_a_damaged_one_are_synced(
    record: tuple[Path, dict[str, Any], str],
    checkpoint: At,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sent again they are duplicates, and that is an acknowledgement."""
    db, one, other = record
    shutil.copy(db, tmp_path / "r.sqlite")
    write(
        tmp_path / "r.sqlite", "UPDATE decisions SET row = zeroblob(9) WHERE number = ?", one["decision_id"]
    )
    durable: list[bool] = []

    def noted(self: Store, rows: Any, synced: bool) -> None:
        durable.append(synced)
        written(self, rows, synced)

    written = Store.write
    monkeypatch.setattr(Store, "write", noted)
    fine = event({"decision_id": other}, "engagement", 0.5)
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        found = client.post("/v1/feedback", json={"events": [fine, event(one, "engagement", 0.5)]})
        assert (found.status_code, found.json()["title"]) == (503, "record-damaged")
        assert durable == [True]
        assert send(client, fine) == ["duplicate"]


def test_no_flipped_bit_of_a_decision_is_read(
    record: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    db, one, other = record
    shutil.copy(db, tmp_path / "r.sqlite")
    row, number = row_of(db, one["decision_id"]), int(one["decision_id"])
    store = Store(tmp_path / "r.sqlite")
    assert store.answered("first") is not None and len(store.latest(9)[0]) == 2
    store._db.execute("PRAGMA synchronous = OFF")  # a thousand changes need not wait for the disk
    for place in range(8 * len(row)):
        changed = bytearray(row)
        changed[place // 8] ^= 1 << place % 8
        store._db.execute("UPDATE decisions SET row = ? WHERE number = ?", (bytes(changed), number))
        with pytest.raises(Damaged):
            store.decision(number)
        with pytest.raises(Damaged):
            store.answered("first")
        if place % 8 == 0:
            rows, unreadable = store.latest(9)
            assert ([str(x.number) for x, *_ in rows], unreadable) == ([other], [number])
    store.close()


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE decisions SET session = (SELECT max(number) FROM sessions) WHERE number = ?",
        "UPDATE decisions SET session = 12345 WHERE number = ?",
        "UPDATE people SET name = '5' WHERE name = '3' AND ? > 0",
        "UPDATE sessions SET person = (SELECT max(number) FROM people) "
        "WHERE number IN (SELECT session FROM decisions WHERE number = ?)",
    ],
)
def test_a_changed_column_makes_no_decision_one_of_another_person(
    record: tuple[Path, dict[str, Any], str], tmp_path: Path, query: str
) -> None:
    db, one, _ = record
    shutil.copy(db, tmp_path / "r.sqlite")
    write(tmp_path / "r.sqlite", query, one["decision_id"])
    store = Store(tmp_path / "r.sqlite")
    rows, unreadable = store.latest(9)
    assert int(one["decision_id"]) in unreadable and all(name == "4" for _, name, _ in rows)
    store.close()


def test_a_changed_number_of_a_decision_does_not_hide_the_others(
    record: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """The column is outside the digests, and the row in it has the true number."""
    db, one, other = record
    shutil.copy(db, tmp_path / "r.sqlite")
    write(tmp_path / "r.sqlite", "UPDATE decisions SET number = 12345 WHERE number = ?", one["decision_id"])
    store = Store(tmp_path / "r.sqlite")
    rows, unreadable = store.latest(9)
    assert ([str(x.number) for x, *_ in rows], unreadable) == ([other], [12345])
    with pytest.raises(Damaged):
        store.decision(12345)
    store.close()


def test_forget_refuses_a_damaged_file(record: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    """The page that finds a person by name is overwritten; the file can be opened all the same."""
    db = tmp_path / "r.sqlite"
    shutil.copy(record[0], db)
    raw = sqlite3.connect(db)
    page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_people_1'")
    (place,), (size,) = page.fetchone(), raw.execute("PRAGMA page_size").fetchone()
    raw.close()
    content = bytearray(db.read_bytes())
    content[(place - 1) * size : place * size] = b"\xff" * size
    db.write_bytes(content)
    assert main(["log", "forget", "--db", str(db), "--user", "3"]) == 2


def test_a_request_id_that_was_changed_gives_no_answer_of_another_request(
    record: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    db, one, _ = record
    shutil.copy(db, tmp_path / "r.sqlite")
    write(
        tmp_path / "r.sqlite", "UPDATE decisions SET request = 'second' WHERE number = ?", one["decision_id"]
    )
    store = Store(tmp_path / "r.sqlite")
    assert store.answered("first") is None
    with pytest.raises(Damaged):
        store.answered("second")
    store.close()

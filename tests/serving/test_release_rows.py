"""The rows of releases in the record: their format, their damage, and records of earlier versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.record.record_schema import (
    FORMAT,
    Damaged,
    Decision,
    Person,
    Release,
    Session,
    decoded,
    encoded,
)
from recsys_rl.serving.record.snapshot import Snapshot, champion_in
from recsys_rl.serving.record.store import Store
from tests.serving.servers import recommend, serving
from tests.serving.test_record import At

START = Release(3, 5.0, "start", "a" * 64, "b" * 64, 0.25, "session", "a try", "")


def format_of(db: Path) -> int:
    with sqlite3.connect(db) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_the_champion_is_written_with_a_release(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    store = Store(db, {})
    store.write([Person(1, "ann"), Session(2, 1, 0, 0.0, -1, (), 1.0, 1.0)], durable=False)
    assert store.releases() == []
    store.write([START], durable=True)
    promoted = msgspec.structs.replace(START, number=4, kind="promote", champion="b" * 64)
    store.write([promoted], durable=True)
    assert store.facts["champion"] == "b" * 64 == champion_in(db) and store.last == 4
    store.close()
    store = Store(db)
    assert store.releases() == [START, promoted] and store.last == 4
    store.close()


@pytest.mark.parametrize("earlier", [3, 4])
def test_a_record_of_an_earlier_version_is_read_and_gets_the_format_of_this_one(
    tmp_path: Path, earlier: int
) -> None:
    db = tmp_path / "r.sqlite"
    store = Store(db, {"platform": "satiation"})
    store.write([START], durable=True)
    store.close()
    with sqlite3.connect(db) as connection:
        connection.execute(f"PRAGMA user_version = {earlier}")
    connection.close()
    snapshot = Snapshot(db)
    assert snapshot.releases() == [START] and format_of(db) == earlier  # only a writer changes it
    snapshot.close()
    store = Store(db)
    assert store.releases() == [START] and store.facts["platform"] == "satiation" and format_of(db) == FORMAT
    store.close()


def test_a_decision_of_an_earlier_version_has_no_arm(checkpoint: At, tmp_path: Path) -> None:
    """It wrote rows without the last three fields."""
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        recommend(client, "3")
    with sqlite3.connect(db) as connection:
        [row] = [row for (row,) in connection.execute("SELECT row FROM decisions")]
    fields = msgspec.msgpack.decode(row)
    assert fields[-3:] == ["", 1.0, 0.0] and len(fields) == 21
    old = decoded(Decision, msgspec.msgpack.encode(fields[:-3]))
    assert (old.arm, old.arm_probability, old.new_items) == ("", 1.0, 0.0) and encoded(old) == row


def test_a_changed_release_is_found(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        recommend(client, "3")
    store = Store(db)
    row = msgspec.structs.replace(START, number=store.last + 1)
    store.write([row], durable=True)
    store.close()
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE releases SET row = ?", (encoded(msgspec.structs.replace(row, share=0.5)),))
    record = Record(db)
    with pytest.raises(Damaged):
        record.store.releases()
    with pytest.raises(UserError):
        check(record)
    record.store.close()

"""The record after a power cut: the quick cuts of benchmarks/serving_power.py, and single rules of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.power import Disk, compiled
from benchmarks.harness.said import checkpoint_in
from benchmarks.serving_power import power_cuts
from recsys_rl.serving.record.record_schema import Event, Person
from recsys_rl.serving.record.stock import Stock
from recsys_rl.serving.record.store import RESERVED, Lost, Store
from recsys_rl.serving.releases.arms import history_of
from tests.serving.writers import POSTS, RELEASES, Writers


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = compiled(tmp_path_factory.mktemp("library"))
    if found is None:
        pytest.skip("a disk that loses what was not synced needs Linux and a C compiler")
    return found


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(library, tmp_path / "disk", tmp_path / "synced")


@pytest.fixture(scope="module")
def writers(library: Path) -> Iterator[Writers]:
    made = Writers(library)
    yield made
    made.close()


def write(writers: Writers, disk: Disk, job: str, kill: tuple[int, str] | None = None) -> int:
    """The exit code of a process with this job, whose record is in a new folder of the disk."""
    return writers.run(job, disk.folder / "new" / "record.sqlite", disk.environment("", kill))


def test_the_disk_keeps_what_was_synced_and_nothing_else(disk: Disk, tmp_path: Path) -> None:
    code = """
import os, sys
folder = os.path.dirname(os.path.dirname(sys.argv[1]))
def write(name, text, sync):
    file = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT)
    os.write(file, text)
    if sync:
        os.fdatasync(file)
    return file
def names():
    os.fsync(os.open(folder, os.O_RDONLY))
os.mkdir(os.path.join(folder, "sub"))
first = write("a", b"synced", True)
os.pwrite(first, b"not synced, and longer", 0)
write("b", b"its name alone is synced", False)
write("deleted", b"there again", True)
names()
os.unlink(os.path.join(folder, "deleted"))
write("c", b"without its name", True)
"""
    path = str(disk.folder / "new" / "record.sqlite")
    subprocess.run([sys.executable, "-c", code, path], env=disk.environment(), check=True)
    disk.after_cut(tmp_path / "after")
    found = {x.name: x.read_bytes() if x.is_file() else None for x in (tmp_path / "after").iterdir()}
    assert found == {"a": b"synced", "b": b"", "deleted": b"there again", "sub": None}


@pytest.mark.proof
def test_an_answered_decision_and_an_acknowledged_event_survive(
    library: Path, small: Path, tmp_path: Path
) -> None:
    assert power_cuts(tmp_path, small, 2, fsync=True) == []


@pytest.mark.proof
def test_a_disk_that_ignores_syncs_is_noticed(library: Path, small: Path, tmp_path: Path) -> None:
    (wrong,) = power_cuts(tmp_path, small, 1, fsync=True, ignored="-wal")
    assert "holds no record" in wrong


def test_the_folder_of_a_new_record_survives(writers: Writers, disk: Disk, tmp_path: Path) -> None:
    assert write(writers, disk, "write_an_event") == 0
    disk.after_cut(tmp_path / "after")
    store = Store(tmp_path / "after/new/record.sqlite")
    assert store.people() == [Person(1, "ann")]
    store.close()


def after_each_cut(library: Path, writers: Writers, folder: Path, task: str) -> Iterator[Store]:
    """Two records for each sync of the task with a cut in its place: without and with a part of the unsynced.

    The last two are of the task without a cut.
    """
    ended, cut = -signal.SIGKILL, 0
    while ended == -signal.SIGKILL:
        cut += 1
        own = folder / str(cut)
        (own / "disk").mkdir(parents=True)
        disk = Disk(library, own / "disk", own / "synced")
        ended = write(writers, disk, task, kill=(cut, ""))
        for part, lottery in (("none", None), ("some", random.Random(cut))):
            disk.after_cut(own / part, lottery)
            store = Store(own / part / "new" / "record.sqlite", {})
            yield store
            store.close()
    assert ended == 0


def test_a_record_that_is_being_made_can_be_made_again(
    library: Path, writers: Writers, tmp_path: Path
) -> None:
    """The power is cut in place of each sync, with and without a part of what was not synced."""
    stores = 0
    for store in after_each_cut(library, writers, tmp_path, "write_an_event_and_close"):
        stores += 1
        assert store.integrity() == "ok"
        people = store.people()
        assert people in ([], [Person(1, "ann")])
    assert stores > 2 * 8 and people, "without a cut the row is there"


def test_a_release_that_is_cut_off_anywhere_left_whole_rows_and_their_champion(
    library: Path, writers: Writers, tmp_path: Path
) -> None:
    """The power is cut in place of each sync of five actions."""
    kept = set[int]()
    for store in after_each_cut(library, writers, tmp_path, "write_releases"):
        rows = store.releases()
        assert store.integrity() == "ok" and rows == RELEASES[: len(rows)]
        assert store.facts.get("champion") == (rows[-1].champion if rows else None)
        assert history_of(rows) == history_of(RELEASES[: len(rows)])
        kept.add(len(rows))
    assert kept == {0, 1, 2, 3, 4, 5}


@pytest.mark.proof
def test_a_post_of_items_that_is_cut_off_anywhere_is_there_as_a_whole_or_not_at_all(
    library: Path, writers: Writers, tmp_path: Path
) -> None:
    """The power is cut in place of each sync of two posts; what was answered stays."""
    kept = set[int]()
    for store in after_each_cut(library, writers, tmp_path, "write_items"):
        stock = store.stock()
        posts = len(stock.changes) // 3
        wanted = Stock().after([row for rows in POSTS[:posts] for row in rows])
        assert store.integrity() == "ok" and [*store.changed_rows()] == []
        assert stock == wanted and len(stock.changes) % 3 == 0
        kept.add(posts)
    assert kept == {0, 1, 2}


def test_an_event_that_a_killed_process_had_not_synced_is_synced_before_it_is_known(
    writers: Writers, disk: Disk, tmp_path: Path
) -> None:
    """Sent again it is a duplicate, and that is an acknowledgement."""
    assert write(writers, disk, "open_and_close") == 0
    killed = write(writers, disk, "write_an_event", kill=(2, "-wal"))  # the first is of the new log
    assert killed == -signal.SIGKILL
    disk.after_cut(tmp_path / "before")
    store = Store(tmp_path / "before/new/record.sqlite")
    assert store.event("=a") is None
    store.close()
    assert write(writers, disk, "find_the_event") == 0
    disk.after_cut(tmp_path / "after")
    store = Store(tmp_path / "after/new/record.sqlite")
    event = store.event("=a")
    assert isinstance(event, Event)
    assert event.value == 0.5
    store.close()


def test_numbers_of_lost_rows_are_not_given_again(writers: Writers, disk: Disk, tmp_path: Path) -> None:
    """Else an event of a decision that a power cut lost would find another one."""
    assert write(writers, disk, "write_one_row_durably_and_one_not") == 0
    disk.after_cut(tmp_path / "after")
    store = Store(tmp_path / "after/new/record.sqlite", {})
    assert store.people() == [Person(1, "ann")]
    assert store.last == 1 + RESERVED
    number = store.last + 1
    store.write([Person(number, "eve")], durable=False)
    store.close()
    store = Store(tmp_path / "after/new/record.sqlite", {})
    assert store.last == number, "after a clean end there is no gap"
    store.close()


def test_erasing_a_person_leaves_reserved_numbers_reserved(tmp_path: Path) -> None:
    """A process that ends without ``close`` gives none of them again."""
    store = Store(tmp_path / "record.sqlite", {})
    store.write([Person(1, "ann"), Person(2, "bob")], durable=True)
    store.erase("ann")
    shutil.copytree(tmp_path, tmp_path / "after")
    store.close()
    store = Store(tmp_path / "after/record.sqlite", {})
    assert store.people() == [Person(2, "bob")] and store.last == 2 + RESERVED
    store.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_in(tmp_path_factory.mktemp("power"))


@pytest.mark.proof_of("True")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_record_that_was_renamed_or_replaced_is_not_written_on(tmp_path: Path, replaced: bool) -> None:
    """Rows that were acknowledged are in the file under its new name, and not in a log of its old one."""
    path, moved = tmp_path / "record.sqlite", tmp_path / "moved.sqlite"
    store = Store(path, {})
    store.write([Person(1, "ann")], durable=True)
    path.rename(moved)
    if replaced:
        path.write_bytes(moved.read_bytes())
    with pytest.raises(Lost):
        store.write([Person(2, "bob")], durable=True)
    os.close(store._lock or 0)  # the process ends here, and closes nothing else
    assert "ann" in {x.name for x in Store(moved).people()}
    assert path.exists() == replaced and not path.with_name("record.sqlite-wal").stat().st_size

"""The counts of items while requests, changes of the champion and errors come together; a stub worker."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.work import item_report
from recsys_rl.serving.work.item_report import ItemCounts
from recsys_rl.serving.work.jobs import Moment
from recsys_rl.serving.work.maturing import Maturing
from recsys_rl.serving.work.worker import Worker

NOW = Moment(100.0, 1, None, None)


def version(name: str) -> Any:
    return SimpleNamespace(row=SimpleNamespace(sha256=name))


class StubWorker:
    def __init__(self) -> None:
        self.shared = SimpleNamespace(
            active=SimpleNamespace(version=version("a")),
            store=SimpleNamespace(path=Path("r.sqlite")),
            settings=SimpleNamespace(feedback_window=1.0),
        )

    def submit(self, task: object) -> asyncio.Future[Moment]:
        found = asyncio.get_running_loop().create_future()
        found.set_result(NOW)
        return found


class StubShown:
    """A look waits for ``go``, and then does ``then``, which says whether others are left."""

    then: Callable[[], bool]
    go: threading.Event
    looks: list[str]

    def __init__(self, record: Path, champion: Version, window: float) -> None:
        self.champion, self.all_read, self.impressions = champion.row.sha256, False, 0

    def read(self, moment: Moment) -> bool:
        assert type(self).go.wait(5)
        self.looks.append(self.champion)
        left = type(self).then()
        self.impressions += 1
        self.all_read = not left
        return left


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubShown]:
    class Fresh(StubShown):
        then, go, looks = staticmethod(lambda: False), threading.Event(), list[str]()

    monkeypatch.setattr(item_report, "Shown", Fresh)
    return Fresh


def counts() -> tuple[ItemCounts, Any]:
    worker = StubWorker()
    return ItemCounts(cast(Worker, worker)), worker.shared.active


def test_a_request_that_waits_is_answered_when_the_champion_changes(stub: type[StubShown]) -> None:
    async def play() -> None:
        items, active = counts()
        first = asyncio.create_task(items.now())
        await asyncio.sleep(0.02)
        active.version = version("b")
        second = asyncio.create_task(items.now())
        await asyncio.sleep(0.02)
        assert first.done() and (first.result().champion, first.result().all_read) == ("a", False)
        stub.go.set()
        found = await second
        assert (found.champion, found.all_read) == ("b", True)
        await items.close()

    asyncio.run(play())


def test_requests_after_a_change_of_the_champion_have_one_object(stub: type[StubShown]) -> None:
    async def play() -> None:
        items, active = counts()
        stub.go.set()
        await items.now()
        stub.go.clear()
        waits = asyncio.create_task(items.now())  # another pass, which the change ends
        await asyncio.sleep(0.02)
        active.version = version("b")
        both = [asyncio.create_task(items.now()) for _ in range(2)]
        await asyncio.sleep(0.02)
        stub.go.set()
        found = await asyncio.gather(waits, *both)
        assert found[1] is found[2] is items.shown and found[0] is not found[1]
        assert cast(Any, found[1]).impressions == 1 and found[1].all_read
        await items.close()

    asyncio.run(play())
    assert stub.looks.count("b") == 1


def test_an_error_after_the_answer_is_told_once_and_read_on(
    stub: type[StubShown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_report, "WAIT", 0.02)
    complaints: list[Any] = []

    def fail() -> bool:
        raise Damaged("a row")

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        items, _ = counts()
        stub.then = staticmethod(fail)
        assert not (await items.now()).all_read
        stub.go.set()
        await asyncio.sleep(0.05)
        stub.then = staticmethod(lambda: False)
        with pytest.raises(Damaged, match="a row"):
            await items.now()
        assert (await items.now()).all_read
        stub.then = staticmethod(fail)
        stub.go.clear()
        await items.now()
        stub.go.set()
        await asyncio.sleep(0.05)
        await items.close()  # nobody has asked again

    asyncio.run(play())
    gc.collect()
    assert not complaints


def test_counts_are_not_whole_while_another_pass_runs_and_looks_have_rests(
    stub: type[StubShown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_report, "WAIT", 0.05)
    monkeypatch.setattr(item_report, "REST", 60.0)

    async def play() -> None:
        items, _ = counts()
        stub.go.set()
        assert (await items.now()).all_read
        stub.go.clear()
        assert not (await items.now()).all_read
        stub.then = staticmethod(lambda: True)
        stub.go.set()
        assert not (await items.now()).all_read
        assert not (await items.now()).all_read
        await items.close()

    asyncio.run(play())
    assert len(stub.looks) == 2


class StubSnapshot:
    """The numbers of sessions."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def sessions(self, above: int, below: int, most: int) -> list[int]:
        return [number for number in self.numbers if above < number < below][:most]


def test_sessions_are_found_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the past are due at once; later ones a window after the look that came before them."""
    monkeypatch.setattr("recsys_rl.serving.work.maturing.MOST", 4)
    maturing = Maturing(cast(Any, None), 2, 10.0)
    monkeypatch.setattr(maturing, "_read", lambda store, numbers, now, take: None)
    store = cast(Snapshot, StubSnapshot(range(1, 30)))
    found, left = list[int](), list[bool]()
    for now in (100.0, 101.0, 102.0):
        found += maturing.scan(store, Moment(now, 12, None, None))
        assert len(maturing.due) <= 4
        left.append(maturing.read(store, now, lambda lost, over: None))
    assert found == [*range(3, 12)] and left == [True, True, False]
    assert maturing.scan(store, Moment(105.0, 14, None, None)) == [12, 13]
    assert maturing.due == [(112.0, 12), (112.0, 13)]
    assert not maturing.read(store, 111.0, lambda lost, over: None) and len(maturing.due) == 2

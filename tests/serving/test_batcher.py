"""The inference thread: each ask is answered once, also if a draw hangs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from recsys_rl.serving.draw.batcher import Batcher
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult

ASK = DrawRequest(0, None, -1, (), 12.0, None, (), 12.0, (0.5,))  # type: ignore[arg-type]


def numbered(count: int) -> list[DrawRequest]:
    return [replace(ASK, number=number) for number in range(count)]


class Hanging:
    """``draw`` of which the first call waits for ``go_on``."""

    def __init__(self) -> None:
        self.go_on, self.calls, self.answers = threading.Event(), 0, Counter[int]()

    def draw(self, asks: Sequence[DrawRequest]) -> list[DrawResult]:
        self.calls += 1
        if self.calls == 1:
            self.go_on.wait(30)
        return [DrawResult(items=[ask.number]) for ask in asks]

    def done(self, asks: Sequence[DrawRequest], found: Sequence[DrawResult]) -> None:
        self.answers.update(ask.number for ask in asks)

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + 10
        while self.answers.total() < count and time.monotonic() < end:
            time.sleep(0.01)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    found = Hanging()
    monkeypatch.setattr("recsys_rl.serving.draw.batcher.draw", found.draw)
    yield found
    found.go_on.set()


def given_up(batcher: Batcher) -> list[DrawRequest]:
    """The asks of the batch that hangs, as soon as it does."""
    end = time.monotonic() + 10
    while not (asks := batcher.give_up(0.05)) and time.monotonic() < end:
        time.sleep(0.01)
    return asks


def test_asks_behind_a_batch_that_hangs_are_drawn_by_the_next_thread(hanging: Hanging) -> None:
    batcher = Batcher(hanging.done)
    batcher.add(numbered(100))
    asks = given_up(batcher)
    assert len(asks) == 64
    batcher.add(asks)
    hanging.wait_for(100)
    assert hanging.answers == Counter(range(100))
    batcher.stop()


def test_a_thread_that_was_given_up_ends_without_an_answer(hanging: Hanging) -> None:
    batcher = Batcher(hanging.done)
    first = batcher.thread
    batcher.add(numbered(3))
    batcher.add(given_up(batcher))
    hanging.wait_for(3)
    hanging.go_on.set()
    first.join(10)
    assert not first.is_alive() and hanging.answers == Counter(range(3))
    batcher.stop()
    assert not batcher.thread.is_alive()


def test_a_stop_that_was_taken_with_a_batch_that_hangs_ends_the_next_thread(hanging: Hanging) -> None:
    batcher = Batcher(hanging.done)
    batcher.waiting.put(numbered(100))
    batcher.waiting.put(None)
    batcher.add(asks := given_up(batcher))
    assert len(asks) == 64
    hanging.wait_for(36)
    batcher.thread.join(10)
    assert not batcher.thread.is_alive() and hanging.answers == Counter(range(64, 100))

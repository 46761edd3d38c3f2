"""The thread that draws: it takes the requests that wait, at most MOST, and draws for all of them at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

import torch

from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult, draw
from recsys_rl.serving.draw.rule import LATE, RAISED

MOST = 64  # requests of a batch
WAIT = 1e-3  # seconds that a batch waits for more requests


class Batcher:
    """One inference thread at a time. ``done`` is called in it with the requests and their results.

    A thread that is given up may go on in its draw for long. It holds an old ``generation`` then, and changes
    nothing any more: the requests that it had taken and not begun wait in ``rest`` for the next thread.
    """

    def __init__(self, done: Callable[[Sequence[DrawRequest], Sequence[DrawResult]], None]) -> None:
        self.waiting: queue.SimpleQueue[Sequence[DrawRequest] | None] = queue.SimpleQueue()
        self.done = done
        self.lock = threading.Lock()  # of the batch in progress and of the generation
        self.batch: list[DrawRequest] = []  # in progress
        self.since = 0.0  # when it began, by time.monotonic()
        self.generation = 0  # of the thread
        # Only the thread of this generation has the next two, and not while it draws.
        self.rest: list[DrawRequest] = []  # taken, for the next batch
        self.stopping = False
        self._start()

    def _start(self) -> None:
        self.generation += 1
        self.thread = threading.Thread(
            target=self._run, args=(self.generation,), name="inference", daemon=True
        )
        self.thread.start()

    def add(self, requests: Sequence[DrawRequest]) -> None:
        """Draw later."""
        self.waiting.put(requests)

    def stop(self) -> None:
        """End the thread when all requests so far are drawn."""
        self.waiting.put(None)
        self.thread.join(timeout=5)

    def give_up(self, seconds: float) -> list[DrawRequest]:
        """Give up a batch that takes longer than ``seconds``, and start another thread in its place.

        Returns its requests, none if there is no such batch.
        """
        with self.lock:
            batch = self.batch
            if not batch or time.monotonic() - self.since < seconds:
                return []
            self.batch = []
            self._start()
            return batch

    def _run(self, generation: int) -> None:
        torch.set_num_threads(1)
        while self.rest or not self.stopping:
            batch = self._next()
            if not batch:
                continue
            with self.lock:
                self.since, self.batch = time.monotonic(), batch
            results = _draw(batch)
            with self.lock:
                if self.generation != generation:  # given up in the meantime
                    return
                self.batch = []
            self.done(batch, results)

    def _next(self) -> list[DrawRequest]:
        """The next batch; the requests over MOST stay in ``rest``."""
        if not self.rest:
            self._take(None)
        # Alone, a request does not wait for company.
        patience = WAIT if len(self.rest) > 1 else 0.0
        while not self.stopping and len(self.rest) < MOST:
            before = len(self.rest)
            self._take(patience)
            if len(self.rest) == before:
                break
        batch, self.rest = self.rest[:MOST], self.rest[MOST:]
        return batch

    def _take(self, patience: float | None) -> None:
        """Add what comes within ``patience`` seconds to ``rest``, or learn that the thread is to end."""
        try:
            requests = self.waiting.get(timeout=patience) if patience != 0 else self.waiting.get_nowait()
        except queue.Empty:
            return
        self.rest += requests or ()
        self.stopping = requests is None


def _draw(batch: Sequence[DrawRequest]) -> list[DrawResult]:
    """The results; a request after its deadline is not drawn."""
    now = time.monotonic()
    results = [DrawResult(error=LATE) for _ in batch]
    in_time = [at for at, request in enumerate(batch) if request.deadline > now]
    if not in_time:
        return results
    try:
        drawn = draw([batch[at] for at in in_time])
    except Exception:  # one request must not fail the others
        drawn = []
        for at in in_time:
            try:
                drawn += draw([batch[at]])
            except Exception:
                drawn.append(DrawResult(error=RAISED))
    for at, result in zip(in_time, drawn, strict=True):
        results[at] = result
    return results

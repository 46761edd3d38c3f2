"""The thread that draws: it takes what waits, at most MOST asks, and draws for all of them at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

import torch

from recsys_rl.serve.inference import Ask, Drawn, draw
from recsys_rl.serve.rule import LATE, RAISED

MOST = 64  # asks of a batch
COMPANY = 1e-3  # seconds that a batch waits for more asks


class Batcher:
    """One inference thread at a time. ``done`` is called in it with the asks and their draws.

    A thread that is given up may go on in its draw for long. It holds an old ``generation`` then, and changes
    nothing any more: what it has taken and not begun waits in ``rest`` for the thread in its place.
    """

    def __init__(self, done: Callable[[Sequence[Ask], Sequence[Drawn]], None]) -> None:
        self.waiting: queue.SimpleQueue[Sequence[Ask] | None] = queue.SimpleQueue()
        self.done = done
        self.lock = threading.Lock()  # of the batch in progress and of the generation
        self.batch: list[Ask] = []  # in progress
        self.since = 0.0  # when it began, by time.monotonic()
        self.generation = 0  # of the thread
        # Only the thread of this generation has the next two, and not while it draws.
        self.rest: list[Ask] = []  # taken, for the next batch
        self.stopping = False
        self._start()

    def _start(self) -> None:
        self.generation += 1
        self.thread = threading.Thread(
            target=self._run, args=(self.generation,), name="inference", daemon=True
        )
        self.thread.start()

    def ask(self, asks: Sequence[Ask]) -> None:
        """Draw later."""
        self.waiting.put(asks)

    def stop(self) -> None:
        """End the thread when all asks before are drawn."""
        self.waiting.put(None)
        self.thread.join(timeout=5)

    def given_up(self, seconds: float) -> list[Ask]:
        """The asks of a batch that takes longer than ``seconds``: another thread has taken its place."""
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
            found = _draw(batch)
            with self.lock:
                if self.generation != generation:  # given up in the meantime
                    return
                self.batch = []
            self.done(batch, found)

    def _next(self) -> list[Ask]:
        """The next batch; the asks over MOST stay in ``rest``."""
        if not self.rest:
            self._take(None)
        # Alone, a request does not wait for company.
        patience = COMPANY if len(self.rest) > 1 else 0.0
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
            asks = self.waiting.get(timeout=patience) if patience != 0 else self.waiting.get_nowait()
        except queue.Empty:
            return
        self.rest += asks or ()
        self.stopping = asks is None


def _draw(batch: Sequence[Ask]) -> list[Drawn]:
    """The draws; an ask after its deadline is not drawn."""
    now = time.monotonic()
    found = [Drawn(error=LATE) for _ in batch]
    going = [at for at, ask in enumerate(batch) if ask.deadline > now]
    if not going:
        return found
    try:
        drawn = draw([batch[at] for at in going])
    except Exception:  # one ask must not fail the others
        drawn = []
        for at in going:
            try:
                drawn += draw([batch[at]])
            except Exception:
                drawn.append(Drawn(error=RAISED))
    for at, result in zip(going, drawn, strict=True):
        found[at] = result
    return found

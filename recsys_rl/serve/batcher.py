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
SMOOTHING = 0.1  # of the mean seconds of an ask


class Batcher:
    """One inference thread at a time. ``done`` is called in it with the asks and their draws."""

    def __init__(self, done: Callable[[Sequence[Ask], Sequence[Drawn]], None]) -> None:
        self.waiting: queue.SimpleQueue[Sequence[Ask] | None] = queue.SimpleQueue()
        self.done = done
        self.seconds = 1e-3  # of an ask, smoothed
        self.batch: list[Ask] = []  # in progress
        self.since = 0.0  # when it began, by time.monotonic()
        self._start()

    def _start(self) -> None:
        self.thread = threading.Thread(target=self._run, name="inference", daemon=True)
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
        batch = self.batch
        if not batch or time.monotonic() - self.since < seconds:
            return []
        self.batch = []
        self._start()
        return batch

    def _run(self) -> None:
        torch.set_num_threads(1)
        rest: list[Ask] = []
        stop = False
        while rest or not stop:
            if not rest:
                stop = self._take(rest, None)
            # Alone, a request does not wait for company.
            patience = COMPANY if len(rest) > 1 else 0.0
            while not stop and len(rest) < MOST:
                before = len(rest)
                stop = self._take(rest, patience)
                if len(rest) == before:
                    break
            batch, rest = rest[:MOST], rest[MOST:]
            if not batch:
                continue
            self.since, self.batch = time.monotonic(), batch
            found = _draw(batch)
            if self.batch is not batch:  # given up in the meantime
                if rest:
                    self.waiting.put(rest)
                return
            self.batch = []
            each = (time.monotonic() - self.since) / len(batch)
            self.seconds += SMOOTHING * (each - self.seconds)
            self.done(batch, found)

    def _take(self, batch: list[Ask], patience: float | None) -> bool:
        """Add what comes within ``patience`` seconds. True if the thread is to end."""
        try:
            asks = self.waiting.get(timeout=patience) if patience != 0 else self.waiting.get_nowait()
        except queue.Empty:
            return False
        batch += asks or ()
        return asks is None


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

"""The first moments of a server: which policy it serves, and a stop that comes before it is ready."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from recsys_rl.serve.server import ServeConfig, serve

At = Callable[[str], Path]


@pytest.fixture
def main_thread() -> Iterator[None]:
    """What a server changes in its process is as before after the test."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("moment", ["said", "run"])
def test_a_stop_in_the_first_moments_is_heard(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main_thread: None, moment: str
) -> None:
    """From "serving at" on a script may send it."""
    own, missed = uvicorn.Server.run, list[bool]()

    def said(*text: Any, **options: Any) -> None:
        assert "serving at" in text[0]
        if moment == "said":
            signal.raise_signal(signal.SIGTERM)

    def run(self: uvicorn.Server, sockets: Any) -> None:
        def end() -> None:
            missed.append(True)
            self.should_exit = True

        watch = threading.Timer(3, end)
        watch.start()
        if moment == "run":
            signal.raise_signal(signal.SIGTERM)
        own(self, sockets)
        watch.cancel()

    monkeypatch.setattr("recsys_rl.serve.server.print", said, raising=False)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    serve(ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), port=0))
    assert not missed

"""A server at a port of loopback, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_rl.serving.http.app import App
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import application
from recsys_rl.serving.work.limits import limited
from tests.serving.servers import SLOW


@dataclass
class Live:
    app: App
    port: int
    tasks: set[asyncio.Task[None]]  # requests under way, also those that have not arrived

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def live(checkpoint: Path, db: Path, **options: Any) -> Iterator[Live]:
    """A server that ends with the block."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    app = application(ServeConfig(str(checkpoint), db=str(db), **{"deadline_ms": SLOW, "seed": 0, **options}))
    protocol = limited(HttpToolsProtocol)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, args=([place],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Live(app, place.getsockname()[1], server.server_state.tasks)
    finally:  # else a test that fails waits for the thread for ever
        server.should_exit = True
        thread.join()
        place.close()

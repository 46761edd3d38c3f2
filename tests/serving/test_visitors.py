"""Simulated visitors: each session of theirs is one of the server, and a wrong server is refused."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from recsys_rl.checkpoint import load
from recsys_rl.errors import UserError
from recsys_rl.serving.loop import client as workflow
from recsys_rl.serving.loop.client import Client
from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors
from tests.serving.live import live

At = Callable[[str], Path]
OTHER = {"decision_id": "1", "items": [{"item_id": "no such item"}], "degraded": None}


def test_more_visitors_at_a_time_than_users_play_whole_sessions(checkpoint: At, tmp_path: Path) -> None:
    """Two sessions of one user at a time would be one session of the server."""
    path, db = checkpoint("satiation"), tmp_path / "r.sqlite"
    users = len(load(path).population.heldout)
    with live(path, db) as server:
        found = visitors(VisitorsConfig(server.url, str(path), sessions=2 * users, width=4 * users))
        with sqlite3.connect(db) as raw:
            [(sessions,)] = raw.execute("SELECT count(*) FROM sessions")
    assert (found.refused, len(found.returns), sessions) == (0, 2 * users, 2 * users)


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that answers each request with these bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("other", [b"<html>", b"[]", json.dumps(OTHER).encode()], indirect=True)
def test_another_server_is_refused(checkpoint: At, other: str) -> None:
    with pytest.raises(UserError):
        visitors(VisitorsConfig(other, str(checkpoint("satiation")), sessions=1, width=1))


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "https://localhost", "localhost"])
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        Client(url, None)


def test_visitors_wait_for_a_server_that_has_just_been_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # refuses connections until it listens
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", None)
        later = threading.Timer(0.4, server.listen)
        later.start()
        started = time.monotonic()
        client.wait()
        later.join()
        assert 0.3 < time.monotonic() - started < 10
        client.wait()  # at once
    monkeypatch.setattr(workflow, "STARTING", 0.3)
    client.wait()
    with pytest.raises(UserError):
        client.recommend({})

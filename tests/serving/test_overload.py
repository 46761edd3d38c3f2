"""More requests than the server can answer in time: refused at little cost, and nothing else is."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys_rl.serving.messages import Problem
from recsys_rl.serving.work.limits import FIRST, LEAST, Admission
from tests.serving.live import Live, live

ASK = b'{"user_id": "3"}'


def request(body: bytes, path: str = "/v1/recommend", more: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


def test_as_many_are_admitted_as_can_be_answered_in_half_of_the_deadline() -> None:
    admission = Admission(deadline=0.2)
    while not admission.too_many(admission.under_way):
        admission.enter()
    # 0.4 ms each: 250 take 100 ms, and those behind 251 would wait longer.
    assert admission.under_way == 251 and admission.wait == pytest.approx(251 * 4e-4)
    with pytest.raises(Problem) as found:
        admission.enter()
    assert (found.value.status, admission.refused) == (503, 1)
    admission.leave()
    assert admission.enter()[0] == 251


def test_the_time_between_answers_is_measured_where_many_wait() -> None:
    now = 10.0
    admission = Admission(deadline=1.0, clock=lambda: now)
    entered = [admission.enter() for _ in range(100)]
    now += 0.2
    admission.measure(entered[30])  # the 31st: too few waited
    assert admission.seconds == FIRST
    admission.measure(entered[99])
    assert admission.seconds == pytest.approx(FIRST + 0.02 * (2e-3 - FIRST))


def test_a_batch_may_always_wait_so_that_a_pause_is_forgotten() -> None:
    now = 0.0
    admission = Admission(deadline=0.1, clock=lambda: now)
    admission.seconds = 5.0  # after a pause of the machine
    for _ in range(20):
        entered = list[tuple[int, float]]()
        while not admission.too_many(len(entered)):
            entered.append(admission.enter())
        assert len(entered) >= LEAST
        now += 0.02
        for each in entered:
            admission.measure(each)
            admission.leave()
        if admission.seconds < 1e-3:  # from here on more and more may wait
            break
    assert admission.seconds < 1e-3


@pytest.fixture(scope="module")
def server(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(checkpoint("satiation"), tmp_path_factory.mktemp("overload") / "r.sqlite") as found:
        yield found


@pytest.fixture
def full(server: Live) -> Iterator[Live]:
    """The server while as many wait as may."""
    admission = server.app.worker.shared.admission
    admission.under_way += 1_000_000
    yield server
    admission.under_way -= 1_000_000


def parts(server: Live, *data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer to these packets on one connection, one answer for each."""
    found = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        for part in data:
            raw.sendall(part)
            reply = http.client.HTTPResponse(raw)
            reply.begin()
            found.append((reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()))
    return found


def test_a_refusal_is_a_problem_and_the_connection_serves_on(full: Live) -> None:
    admission = full.app.worker.shared.admission
    before = admission.refused
    first, second = parts(full, request(ASK), request(ASK))
    assert first == second and admission.refused == before + 2
    status, headers, body = first
    assert (status, json.loads(body)["title"], headers["retry-after"]) == (503, "busy", "400")
    assert headers["content-type"] == "application/problem+json"
    admission.under_way -= 1_000_000
    try:
        refused, answered = parts(full, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n", request(ASK))
    finally:
        admission.under_way += 1_000_000
    assert (refused[0], answered[0]) == (200, 200)


def test_feedback_and_bodies_that_look_like_requests_are_read(full: Live) -> None:
    inner = request(ASK)
    head = request(b"", "/v1/feedback").replace(b"Length: 0", f"Length: {len(inner)}".encode())
    with socket.create_connection(("127.0.0.1", full.port), timeout=20) as raw:
        raw.sendall(head)
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        raw.settimeout(20)
        raw.sendall(inner)  # the body, which looks like a request
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        assert (reply.status, json.loads(reply.read())["title"]) == (400, "not-json")
    event = b'{"events": [{"decision_id": "1", "signal": "engagement"}]}'
    [(status, _, body)] = parts(full, request(event, "/v1/feedback"))
    assert status == 200 and json.loads(body)["results"][0]["code"] == "unknown-decision"


def test_requests_that_have_not_arrived_keep_no_recommendation_out(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client could hold the door shut with the heads of some posts."""
    monkeypatch.setattr(server.app.worker.shared.admission, "deadline", 1e-3)
    with contextlib.ExitStack() as stack:
        for path in ("/v1/feedback", "/v1/recommend"):
            for _ in range(LEAST):
                slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                slow.sendall(request(ASK, path)[:-1])
        waiting = server.app.worker.shared.admission
        while len(server.tasks) < 2 * LEAST:
            time.sleep(0.01)
        assert waiting.under_way == 0
        [(status, _, _)] = parts(server, request(ASK))
    assert status == 200

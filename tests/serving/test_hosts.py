"""A page of another site that points its name at 127.0.0.1 is refused by its Host."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from recsys_rl.serving.http.app import Tokens, is_local
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import application, url_of
from tests.serving.live import Live, live
from tests.serving.servers import serving

LOCAL = ("localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.8.9.1:80", "[::1]", "[::1]:8000")
FOREIGN = (
    *("other.example", "other.example:8000", "localhost.other.example", "127.0.0.1.other.example:8000"),
    *("10.0.0.1", "128.0.0.1:8000", "0.0.0.0", "[::2]", "::1", "[127.0.0.1]", "2130706433", "127.1", ""),
    *("localhost:80:80", "localhost:x", "user@localhost", "localhost/", "[::1", "\xff", ":8000", "other:1@"),
)
PATHS = (
    "/",
    "/page.js",
    "/release.js",
    "/v1/decisions",
    "/v1/decisions/1",
    "/v1/policies",
    "/metrics",
    "/healthz",
    "/nowhere",
)


@pytest.mark.parametrize("host", [*LOCAL, *FOREIGN])
def test_only_names_and_addresses_of_loopback_are_local(host: str) -> None:
    assert is_local(host.encode("latin-1")) == (host in LOCAL)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")])
def test_host_of_the_printed_address_is_local(host: str, url: str) -> None:
    assert url_of(host, 80) == url and is_local(url.removeprefix("http://").encode())


def test_no_door_opens_for_a_name_of_another_site(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        for method, path in (
            *(("GET", path) for path in PATHS),
            *(("POST", f"/v1/{name}") for name in ("recommend", "feedback", "release/alias", "decisions")),
        ):
            body = {"user_id": "3"} if method == "POST" else None
            found = client.request(method, path, headers={"host": "other.example:8000"}, json=body)
            assert (found.status_code, found.json()["title"]) == (421, "wrong-host"), path
            assert found.headers["content-type"] == "application/problem+json"
            assert "localhost" in found.json()["detail"] and found.json()["status"] == 421
        assert client.get("/v1/decisions").json()["decisions"] == []
        for host in LOCAL:
            answer = client.post("/v1/recommend", json={"user_id": "3"}, headers={"host": host})
            assert answer.status_code == 200 and client.get("/", headers={"host": host}).status_code == 200
        assert "nowhere" not in client.get("/metrics").text


def test_tokens_protect_under_any_name(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"decide {hashlib.sha256(b'word').hexdigest()}")
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), deadline_ms=30_000)
    app = application(options, Tokens(tmp_path / "tokens"))
    with TestClient(app, "https://shop.example") as client:
        assert client.post("/v1/recommend", json={"user_id": "3"}).status_code == 401
        token = {"authorization": "Bearer word"}
        assert client.post("/v1/recommend", json={"user_id": "3"}, headers=token).status_code == 200
        for method in ("GET", "POST"):  # a redirect would name whatever Host the caller sent
            found = client.request(method, "/v1/policies/", follow_redirects=False)
            assert found.status_code == 404 and "location" not in found.headers
        twice = [*token.items(), ("host", "shop.example"), ("host", "shop.example")]
        assert client.post("/v1/recommend", json={"user_id": "3"}, headers=twice).status_code == 400


@pytest.fixture(scope="module")
def server(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(checkpoint("satiation"), tmp_path_factory.mktemp("hosts") / "r.sqlite") as found:
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"", 421),
        (b"Host: other.example\r\n", 421),
        (b"Host:\r\n", 421),
        (b"hOST:   127.0.0.1:8000  \r\n", 200),
        (b"Host: [::1]:8000\r\n", 200),
        (b"Host: other.example\r\nHost: localhost\r\n", 400),
        (b"Host: localhost\r\nhost: localhost\r\n", 400),
    ],
)
def test_over_a_socket_both_kinds_of_doors_read_the_host(server: Live, host: bytes, status: int) -> None:
    body = b'{"user_id": "3"}'
    requests = (
        b"POST /v1/recommend HTTP/1.1\r\n" + host + b"content-length: %d\r\n\r\n" % len(body) + body,
        b"GET /v1/decisions HTTP/1.1\r\n" + host + b"\r\n",
        b"HEAD /v1/decisions HTTP/1.1\r\n" + host + b"\r\n",
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        for data in requests:  # on one connection: a refusal leaves it as it was
            raw.sendall(data)
            reply = http.client.HTTPResponse(raw, method=data.split()[0].decode())
            reply.begin()
            text = reply.read()
            assert reply.status == status
            if status != 200 and text:
                assert json.loads(text)["title"] == {421: "wrong-host", 400: "two-hosts"}[status]

"""What the server refuses, and how it says so; tokens, faults of a policy, versions."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from recsys_rl.agents.ppo import PPO
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.parts import read_decisions
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult, draw
from recsys_rl.serving.http.app import Tokens
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import application, serve
from recsys_rl.types import Obs
from tests.serving.servers import begun, event, recommend, send, serving, trained

At = Callable[[str], Path]


@pytest.mark.parametrize(
    ("body", "status", "title"),
    [
        ("{", 400, "not-json"),
        ('{"user_id": "1", "n": NaN}', 400, "not-json"),
        ("[" * 100_000, 422, "wrong-field"),
        ('{"user_id": "1", "exclude": ' + "[" * 5_000, 422, "wrong-field"),
        ('{"n": 1}', 422, "wrong-field"),
        ('{"user_id": 1}', 422, "wrong-field"),
        ('{"user_id": ""}', 422, "wrong-field"),
        ('{"user_id": "1", "surprise": 1}', 422, "wrong-field"),
        ('{"user_id": "1", "n": 0}', 422, "wrong-field"),
        ('{"user_id": "1", "n": 6}', 422, "wrong-n"),
        ('{"user_id": "1", "context": {"hour": 3}}', 422, "no-hour"),
        ('{"user_id": "1", "context": {"hour": 1e999}}', 422, "wrong-field"),
        ('{"user_id": "1", "candidates": ["none"]}', 422, "unknown-item"),
        ('{"user_id": "1", "likes": ["none"]}', 422, "unknown-item"),
        ('{"user_id": "1", "candidates": []}', 422, "wrong-field"),
        ('{"user_id": "1", "candidates": ["3"], "exclude": ["3"]}', 422, "too-few-items"),
        ('{"user_id": "1", "session_id": "5"}', 409, "session-over"),
        ('{"user_id": "1", "exclude": ["' + "x" * (1 << 20) + '"]}', 413, "too-large"),
    ],
)
def test_wrong_requests_are_problems(client: TestClient, body: str, status: int, title: str) -> None:
    found = client.post("/v1/recommend", content=body, headers={"content-type": "application/json"})
    assert (found.status_code, found.json()["title"]) == (status, title)
    assert found.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in found.text and "\n" not in found.json()["detail"]


@pytest.fixture(scope="module")
def client(checkpoint: At, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(checkpoint("satiation"), tmp_path_factory.mktemp("routes") / "r.sqlite") as client:
        yield client


def test_other_routes(client: TestClient) -> None:
    assert client.get("/nowhere").json()["title"] == "not-found"
    for method, path, allowed in (
        ("GET", "/v1/recommend", "POST"),
        ("PUT", "/v1/feedback", "POST"),
        ("POST", "/v1/decisions", "GET, HEAD"),
        ("TRACE", "/v1/decisions/3", "GET, HEAD"),
    ):
        other = client.request(method, path)
        assert (other.status_code, other.json()["title"]) == (405, "wrong-method")
        assert sorted(other.headers["allow"].split(", ")) == allowed.split(", ")
    assert (
        client.post("/v1/recommend", content="user_id=1", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    for id_ in ("1e5", "-1", "99999999999999999999999", "99999"):
        assert client.get(f"/v1/decisions/{id_}").status_code == 404
    assert client.get("/healthz").text == "ok\n" and client.get("/readyz").text == "ready\n"
    recommend(client, "2")
    assert 'recsys_rl_total{what="decisions"}' in client.get("/metrics").text
    seconds = 'recsys_rl_request_seconds_{}{{door="/v1/recommend"'.format
    counts = [
        float(line.split()[-1])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith((seconds("bucket"), seconds("count")))
    ]
    assert counts == sorted(counts) and counts[-1] == counts[-2] >= 1  # cumulative; all; the count
    schema = client.get("/openapi.json").json()
    assert {*schema["paths"]} >= {"/v1/recommend", "/v1/feedback"}
    wanted = schema["components"]["schemas"]["RecommendRequest"]
    assert wanted["additionalProperties"] is False and wanted["required"] == ["user_id"]


def test_slates_come_whole_and_hours_only_where_they_are_seen(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("long-video"), tmp_path / "long.sqlite") as client:
        one = recommend(client, "1")
        assert len({x["item_id"] for x in one["items"]}) == 6
        found = client.post("/v1/recommend", json={"user_id": "1", "n": 3})
        assert found.status_code == 422 and found.json()["title"] == "wrong-n"
        other = event(one, "completion", left=recommend(client, "2")["items"][0]["item_id"])
        mine = event(one, "completion", 0.5, left=one["items"][2]["item_id"])
        codes = send(client, other, mine, event(one, "clicked", position=6))
        assert codes[1:] == ["accepted", "unknown-position"] and codes[0] in ("not-shown", "accepted")
    with serving(checkpoint("short-video"), tmp_path / "short.sqlite") as client:
        one = recommend(client, "1", context={"hour": 20.5})
        assert client.get(f"/v1/decisions/{one['decision_id']}").json()["replayed"]


def test_strangers_can_be_refused(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite", strangers=False) as client:
        assert client.post("/v1/recommend", json={"user_id": "nobody"}).status_code == 404
        recommend(client, "3")


def test_tokens_open_the_routes_of_their_scopes(checkpoint: At, tmp_path: Path) -> None:
    lines = [
        f"{scope} {hashlib.sha256(scope.encode()).hexdigest()}"
        for scope in ("decide,feedback", "read", "admin")
    ]
    (tmp_path / "tokens").write_text("# tokens\n\n" + "\n".join(lines))
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"))
    scope_of = {
        ("POST", "/v1/recommend"): "decide,feedback",
        ("POST", "/v1/feedback"): "decide,feedback",
        ("GET", "/v1/decisions/1"): "read",
        ("GET", "/v1/policies"): "read",
        ("GET", "/metrics"): "read",
        ("POST", "/v1/release/alias"): "admin",
    }
    with TestClient(application(options, Tokens(tmp_path / "tokens"))) as client:
        for (method, path), scope in scope_of.items():
            for token in ("decide,feedback", "read", "admin", "wrong", None):
                headers = {} if token is None else {"authorization": f"Bearer {token}"}
                status = client.request(
                    method, path, headers=headers, json={} if method == "POST" else None
                ).status_code
                expected = {scope}, 401 if token in ("wrong", None) else 403
                assert (status not in (401, 403)) if token in expected[0] else status == expected[1]
        assert client.get("/healthz").status_code == 200
    for text in ("", "read abc", "write " + 64 * "0", "read"):
        (tmp_path / "wrong").write_text(text)
        with pytest.raises(UserError):
            Tokens(tmp_path / "wrong")


def test_token_in_two_lines_has_the_scopes_of_both(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"one").hexdigest()
    (tmp_path / "tokens").write_text(f"read {digest}\nadmin,feedback {digest}\n")
    tokens = Tokens(tmp_path / "tokens")
    for scope in ("read", "admin", "feedback"):
        tokens.check("Bearer one", scope)
    with pytest.raises(Problem) as found:
        tokens.check("Bearer one", "decide")
    assert found.value.status == 403


def test_a_bind_beyond_loopback_needs_tokens_and_a_port_that_is_free(checkpoint: At, tmp_path: Path) -> None:
    path, db = str(checkpoint("satiation")), str(tmp_path / "r.sqlite")
    with pytest.raises(UserError):
        serve(ServeConfig(path, db=db, host="0.0.0.0"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError):
            serve(ServeConfig(path, db=db, port=taken.getsockname()[1]))
    assert not Path(db).exists()


def test_a_checkpoint_that_can_not_be_served_leaves_no_record(tmp_path: Path) -> None:
    lives = trained(tmp_path, "short-video", "--visits", "3", "--max-episode-steps", "6")
    db = tmp_path / "r.sqlite"
    for path in (lives, tmp_path / "none.pt", tmp_path):
        assert main(["serve", "--checkpoint", str(path), "--db", str(db), "--port", "0"]) == 2
    assert not db.exists()


@pytest.mark.parametrize("fault", ["raised", "not-finite"])
def test_popularity_answers_where_the_policy_fails(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        if fault == "raised":
            raise ZeroDivisionError
        return torch.full((obs.num_rows, 24), torch.nan)

    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        with monkeypatch.context() as patch:
            patch.setattr(PPO, "scores", scores)
            one = recommend(client, "3", exclude=["0"])
            assert one["degraded"] == fault and one["policy"]["name"] == "popularity"
            assert 0 < one["items"][0]["propensity"] < 1 and one["items"][0]["item_id"] != "0"
        two = recommend(client, "3")
        assert two["degraded"] is None
        assert all(client.get(f"/v1/decisions/{x['decision_id']}").json()["replayed"] for x in (one, two))
        with monkeypatch.context() as patch:
            patch.setattr(PPO, "scores", scores)
            for user in "4567":
                assert recommend(client, user)["degraded"]
        # Three in a row: popularity stays, and the server says that it is not ready.
        assert recommend(client, "8")["degraded"] and client.get("/readyz").status_code == 503
    assert main(["log", "check", "--db", str(db)]) == 0


def test_popularity_answers_where_the_policy_hangs(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, hang = PPO.scores, threading.Event()

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        if not hang.is_set():
            hang.wait(20)
        return own(self, obs)

    with serving(checkpoint("satiation"), tmp_path / "r.sqlite", deadline_ms=100.0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(PPO, "scores", scores)
            start = time.monotonic()
            one = recommend(client, "3")
            assert one["degraded"] == "late" and time.monotonic() - start < 10
            assert send(client, event(one, "engagement")) == ["accepted"]
            hang.set()
        found = [client.post("/v1/recommend", json={"user_id": "3"}) for _ in range(3)]
        assert any(x.status_code == 200 and x.json()["degraded"] is None for x in found)


def test_a_request_is_refused_where_popularity_hangs_too(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, threads = threading.Event(), threading.active_count()

    def hanging(asks: Sequence[DrawRequest]) -> list[DrawResult]:
        hang.wait(20)
        return draw(asks)

    with serving(checkpoint("satiation"), tmp_path / "r.sqlite", deadline_ms=50.0) as client:
        with monkeypatch.context() as patch:
            patch.setattr("recsys_rl.serving.draw.batcher.draw", hanging)
            start = time.monotonic()
            found = client.post("/v1/recommend", json={"user_id": "3"})
            assert (found.status_code, found.json()["title"]) == (503, "busy")
            assert time.monotonic() - start < 10
            assert threading.active_count() <= threads + 8  # no further one for each new try
            hang.set()
        assert client.app.worker.recommendations.pending == {}  # type: ignore[attr-defined]


def test_versions_are_swapped_after_a_check_and_share_a_log(
    checkpoint: At, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    shutil.copy(checkpoint("drift"), folder / "other.pt")
    sha = {x.name: hashlib.sha256(x.read_bytes()).hexdigest() for x in folder.iterdir()}
    with serving(begun(folder / "a.pt", db), db) as client:
        first = recommend(client, "3")
        send(client, event(first, "engagement", 0.5))
        assert first["policy"]["sha256"] == sha["a.pt"]
        swap = client.post("/v1/release/alias", json={"sha256": sha["b.pt"]})
        assert swap.status_code == 200
        assert swap.json()["champion"] == sha["b.pt"] and swap.json()["challenger"] is None
        policies = client.get("/v1/policies").json()["policies"]
        assert [x["file"] for x in policies if x["champion"]] == ["b.pt"]
        second = recommend(client, "3")
        assert second["policy"]["sha256"] == sha["b.pt"] and second["session"]["step"] == 1
        for wrong, status in ((sha["other.pt"], 409), ("0" * 64, 404)):
            answer = client.post("/v1/release/alias", json={"sha256": wrong})
            assert answer.status_code == status
            assert recommend(client, "4")["policy"]["sha256"] == sha["b.pt"]
        both = [client.get(f"/v1/decisions/{x['decision_id']}").json() for x in (first, second)]
        assert all(x["replayed"] for x in both)
    with serving(folder, db) as client:  # the alias is in the record
        assert recommend(client, "5")["policy"]["sha256"] == sha["b.pt"]
    now = time.time
    monkeypatch.setattr("recsys_rl.serving.record.store_reader.time.time", lambda: now() + 5402)
    out = tmp_path / "log.parquet"
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    log = read_decisions(out)
    assert len(log.header.loggers) == 2 and log.logger_logprobs is not None
    assert bool((log.logger_logprobs.diff(dim=1).abs() > 1e-6).any())

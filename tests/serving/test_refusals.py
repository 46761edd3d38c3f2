"""What is refused leaves the server as it was: it goes on for all others, and after a start."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from httpx import Response
from starlette.testclient import TestClient
from starlette.types import Message

from recsys_rl.agents.ppo import PPO
from recsys_rl.errors import UserError
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult, draw
from recsys_rl.serving.http.app import read_body
from recsys_rl.serving.messages import FeedbackAnswer, FeedbackEvent, Problem, RecommendRequest
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.server import application
from recsys_rl.serving.work.feedback import take_feedback
from recsys_rl.serving.work.jobs import Call, Recommend
from recsys_rl.serving.work.worker import Worker
from recsys_rl.types import Obs
from tests.serving.servers import SLOW, begun, event, recommend, send, serving

At = Callable[[str], Path]


def held_worker(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Worker, threading.Event]:
    """The worker of a server whose policy draws nothing until the event is set."""
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), deadline_ms=SLOW)
    worker = application(options).worker
    own, go = PPO.scores, threading.Event()

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        go.wait(20)
        return own(self, obs)

    monkeypatch.setattr(PPO, "scores", scores)
    return worker, go


def test_all_requests_that_wait_for_one_person_are_answered(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, go = held_worker(checkpoint, tmp_path, monkeypatch)

    async def ask() -> list[object]:
        # The second and the third are refused at once when their turn comes: a session has five steps.
        asked = [Recommend(RecommendRequest("3", n=n), str(n)) for n in (1, 50, 50, 1)]
        replies = [worker.submit(x) for x in asked]
        go.set()
        done, _ = await asyncio.wait(replies, timeout=10)
        return [x.exception() if x in done else "no answer" for x in replies]

    try:
        found = asyncio.run(ask())
    finally:
        worker.close()
    assert [x.code if isinstance(x, Problem) else x for x in found] == [None, "wrong-n", "wrong-n", None]


def test_feedback_before_its_decision_is_written_is_of_an_unknown_one(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number could be guessed. Draw and event come to the worker in one round here."""
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), deadline_ms=SLOW)
    worker = application(options).worker
    scores, latest = PPO.scores, Store.latest
    draw_now, looking, look_now = threading.Event(), threading.Event(), threading.Event()

    def slow_scores(self: PPO, obs: Obs) -> torch.Tensor:
        draw_now.wait(20)
        return scores(self, obs)

    def slow_latest(self: Store, number: int) -> object:
        looking.set()
        look_now.wait(20)
        return latest(self, number)

    async def until(true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)

    async def play() -> tuple[bytes, list[FeedbackAnswer]]:
        answer = worker.submit(Recommend(RecommendRequest("3"), ""))
        await until(lambda: worker.recommendations.pending)
        [number] = worker.recommendations.pending
        looked = worker.submit(Call(lambda shared: shared.store.latest(1)))
        await until(looking.is_set)
        draw_now.set()
        await until(worker.queue.qsize)
        about = Call(partial(take_feedback, events=[FeedbackEvent(str(number), "engagement", 0.5)]))
        early = worker.submit(about)
        look_now.set()
        await looked
        return await answer, [await early, await worker.submit(about)]

    monkeypatch.setattr(PPO, "scores", slow_scores)
    monkeypatch.setattr(Store, "latest", slow_latest)
    try:
        answer, (early, later) = asyncio.run(play())
    finally:
        worker.close()
    assert b"decision_id" in answer
    assert (early.results[0].code, later.results[0].status) == ("unknown-decision", "accepted")


def test_one_person_can_not_fill_the_queue(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, go = held_worker(checkpoint, tmp_path, monkeypatch)

    async def ask() -> list[object]:
        replies = [worker.submit(Recommend(RecommendRequest("3"), "")) for _ in range(20)]
        refused = (await asyncio.wait(replies, timeout=20, return_when=asyncio.FIRST_COMPLETED))[0]
        assert 0 < len(refused) <= 3  # one is drawn, sixteen wait
        go.set()
        found: list[object] = await asyncio.gather(*replies, return_exceptions=True)
        return found

    try:
        found = asyncio.run(ask())
    finally:
        worker.close()
    assert [x.code for x in found if isinstance(x, Problem)] == ["busy"] * 3
    assert all(isinstance(x, bytes) for x in found if not isinstance(x, Problem))


@pytest.mark.parametrize(
    ("name", "signal", "sound", "wrong"),
    [
        ("satiation", "engagement", [0.0, 1.0], [1e39, -1e39, 1e30, 1.01, -0.01]),
        ("drift", "match", [-3.5, 1e9], [1e39, -1e39, 1e30]),  # without bounds
        ("short-video", "watch_ratio", [5.0], [5.5, 1e39]),
    ],
)
def test_a_value_beyond_its_signal_is_rejected_and_the_policy_serves_on(
    checkpoint: At, tmp_path: Path, name: str, signal: str, sound: list[float], wrong: list[float]
) -> None:
    with serving(checkpoint(name), tmp_path / "r.sqlite") as client:
        for value in wrong:
            one = recommend(client, "3")
            assert one["degraded"] is None
            assert send(client, event(one, signal, value)) == ["value-out-of-range"]
            answer = client.post("/v1/feedback", json={"events": [event(one, signal, value)]})
            assert signal in answer.json()["results"][0]["detail"]
        for value in sound:
            assert send(client, event(recommend(client, "4"), signal, value)) == ["accepted"]
        assert recommend(client, "4")["degraded"] is None and client.get("/readyz").status_code == 200


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def swap(client: TestClient, path: Path) -> Response:
    body = {"sha256": sha256(path)}
    found: Response = client.post("/v1/release/alias", json=body)
    return found


def champion(client: TestClient) -> list[str]:
    return [x["file"] for x in client.get("/v1/policies").json()["policies"] if x["champion"]]


def test_a_swap_that_can_not_be_written_is_not_made(two: Path, tmp_path: Path) -> None:
    with serving(begun(two / "a.pt", tmp_path / "r.sqlite"), tmp_path / "r.sqlite") as client:
        raw = client.app.worker.shared.store._db  # type: ignore[attr-defined]
        raw.execute("PRAGMA query_only = ON")  # writes fail with SQLITE_READONLY
        found = swap(client, two / "b.pt")
        raw.execute("PRAGMA query_only = OFF")
        assert (found.status_code, found.json()["title"]) == (503, "record-full")
        assert champion(client) == ["a.pt"]
        assert recommend(client, "3")["policy"]["sha256"] == sha256(two / "a.pt")
        assert swap(client, two / "b.pt").status_code == 200 and champion(client) == ["b.pt"]
        assert raw.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL: it was on the disk


def test_a_version_that_failed_does_not_serve_again_after_a_start(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        raise ZeroDivisionError

    db = tmp_path / "r.sqlite"
    with serving(begun(two / "a.pt", db), db) as client:
        assert swap(client, two / "b.pt").status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(PPO, "scores", scores)
            assert all(recommend(client, user)["degraded"] for user in "456")
        assert champion(client) == ["a.pt"]
    with serving(two, db) as client:
        assert champion(client) == ["a.pt"]
        assert recommend(client, "7")["policy"]["sha256"] == sha256(two / "a.pt")


@pytest.mark.parametrize("parts", [0, 1])
def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    left = [{"type": "http.request", "body": b"{", "more_body": True}] * parts

    async def receive() -> Message:
        if left:
            return left.pop()
        return await asyncio.Future[Message]()

    monkeypatch.setattr("recsys_rl.serving.http.app.SLOWEST", 0.05)
    with pytest.raises(Problem) as found:
        asyncio.run(asyncio.wait_for(read_body({}, receive, 100), 5))
    assert found.value.status == 408


@pytest.mark.parametrize("fault", ["raises", "too-few-items"])
def test_a_version_that_fails_on_a_stored_request_does_not_become_champion(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def failing(asks: Sequence[DrawRequest]) -> list[DrawResult]:
        if fault == "raises":
            raise IndexError("no such row")
        return [*draw(asks[:1]), *(DrawResult(error=fault) for _ in asks[1:])]

    with serving(begun(two / "a.pt", tmp_path / "r.sqlite"), tmp_path / "r.sqlite") as client:
        recommend(client, "3")
        monkeypatch.setattr("recsys_rl.serving.releases.active_version.draw", failing)
        found = swap(client, two / "b.pt")
        assert (found.status_code, found.json()["title"]) == (409, "policy-fails")
        assert champion(client) == ["a.pt"]


def test_a_damaged_session_does_not_keep_versions_from_being_swapped(two: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(two / "a.pt", db) as client:
        send(client, event(recommend(client, "3"), "engagement", 0.5))
        recommend(client, "4")
    with sqlite3.connect(db) as raw:
        raw.execute("DELETE FROM events")
    with serving(two, db) as client:
        assert client.post("/v1/recommend", json={"user_id": "3"}).json()["title"] == "record-damaged"
        assert swap(client, two / "b.pt").status_code == 200 and champion(client) == ["b.pt"]


def test_requests_of_one_person_that_are_late_hinder_no_other(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, go = held_worker(checkpoint, tmp_path, monkeypatch)
    ask, drawn = worker.batcher.add, list[int]()

    def counted(asks: Sequence[DrawRequest]) -> None:
        drawn.append(len(asks))
        ask(asks)

    async def play() -> list[object]:
        replies = [worker.submit(Recommend(RecommendRequest("3"), "")) for _ in range(6)]
        async with asyncio.timeout(20):
            while "3" not in worker.shared.memory.people or len(worker.shared.memory.people["3"].waiting) < 5:
                await asyncio.sleep(0.01)
        for job in [*worker.shared.memory.people["3"].waiting][:4]:
            job.deadline = 0.0
        go.set()
        return list(await asyncio.gather(*replies, return_exceptions=True))

    monkeypatch.setattr(worker.batcher, "add", counted)
    try:
        found = asyncio.run(play())
    finally:
        worker.close()
    assert [x.code for x in found if isinstance(x, Problem)] == ["busy"] * 4
    assert [isinstance(x, bytes) for x in found] == [True, *[False] * 4, True] and drawn == [1, 1]


def test_another_site_posts_nothing_from_a_browser(checkpoint: At, tmp_path: Path) -> None:
    body, site = b'{"user_id": "3"}', {"origin": "http://other.example"}
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        assert client.post("/v1/recommend", content=body, headers=site).json()["title"] == "not-json"
        assert client.options("/v1/recommend", headers=site).status_code == 405  # so JSON isn't sent either
        assert client.post("/v1/recommend", json={"user_id": "3"}, headers=site).status_code == 200
        assert client.post("/v1/recommend", content=body).status_code == 200


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE decisions SET row = x'c1' WHERE number = {one}",
        "UPDATE decisions SET row = 'text' WHERE number = {one}",
        "UPDATE events SET row = x'c1'",
        "UPDATE people SET name = x'c1' WHERE name = '3'",
        "DELETE FROM people WHERE name = '3'",
    ],
)
def test_a_decision_that_can_not_be_read_is_named_and_hinders_no_swap(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    db = tmp_path / "r.sqlite"
    with serving(two / "a.pt", db) as client:
        one, other = recommend(client, "3"), recommend(client, "4")
        assert send(client, event(one, "engagement", 0.5)) == ["accepted"]
    number = one["decision_id"]
    with sqlite3.connect(db) as raw:
        raw.execute(damage.format(one=number))
    with serving(two, db) as client:
        rows = client.get("/v1/decisions").json()
        assert [x["decision_id"] for x in rows["decisions"]] == [other["decision_id"]]
        assert rows["unreadable"] == [number]
        assert swap(client, two / "b.pt").status_code == 200 and champion(client) == ["b.pt"]
        assert f"without decision {number}," in capsys.readouterr().err


def test_a_record_whose_latest_pages_can_not_be_read_hinders_no_swap(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def latest(self: Store, number: int) -> None:
        raise Damaged("database disk image is malformed")

    with serving(begun(two / "a.pt", tmp_path / "r.sqlite"), tmp_path / "r.sqlite") as client:
        recommend(client, "3")
        monkeypatch.setattr(Store, "latest", latest)
        assert swap(client, two / "b.pt").status_code == 200 and champion(client) == ["b.pt"]
        assert "malformed" in capsys.readouterr().err
        assert client.get("/v1/decisions").json()["title"] == "record-damaged"


def test_files_are_hashed_once_and_not_in_the_event_loop(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[tuple[str, bool]] = []  # the name, and whether an event loop waited for it

    def counted(path: Path) -> str:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            hashed.append((path.name, True))
            return sha256(path)
        hashed.append((path.name, False))
        return sha256(path)

    folder = tmp_path / "policies"
    shutil.copytree(two, folder)
    with serving(begun(folder / "a.pt", tmp_path / "r.sqlite"), tmp_path / "r.sqlite") as client:
        monkeypatch.setattr("recsys_rl.serving.draw.versions.sha256_of", counted)
        assert [champion(client) for _ in range(3)] == [["a.pt"]] * 3
        assert sorted(hashed) == [("a.pt", False), ("b.pt", False)]
        shutil.copy(two / "b.pt", folder / "c.pt")
        (folder / "b.pt").unlink()
        files = [x["file"] for x in client.get("/v1/policies").json()["policies"]]
        assert files == ["a.pt", "c.pt"] and len(hashed) == 4


@pytest.mark.parametrize("user", ["3", "a stranger"])
def test_an_unknown_item_in_likes_is_refused_also_within_a_session(
    checkpoint: At, tmp_path: Path, user: str
) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        recommend(client, user)
        found = client.post("/v1/recommend", json={"user_id": user, "likes": ["none"]})
        assert (found.status_code, found.json()["title"]) == (422, "unknown-item")
        assert recommend(client, user, likes=["3"])["session"]["step"] == 1


def test_a_policy_that_fails_does_not_start(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(PPO, "scores", scores)
    with pytest.raises(UserError), serving(checkpoint("satiation"), tmp_path / "r.sqlite"):
        pass

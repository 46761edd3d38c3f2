"""Decisions of an application over HTTP: recorded, answered by feedback, exported, learned from, judged."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from benchmarks.harness.forked import Forked
from benchmarks.harness.served import Connection
from recsys_rl.cli import main
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe as observations
from recsys_rl.recommender import Event, load
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.export_log import export
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.messages import ObserveRequest, RecommendRequest
from recsys_rl.serving.work.jobs import Observe, Recommend
from tests.doors import SERVED
from tests.serving.servers import event, recommend, send, serving
from tests.serving.test_refusals import held_worker

At = Callable[[str], Path]
LATER = 6000.0  # seconds after which sessions that have ended are mature


def observe(client: TestClient, user: str, *items: str, **fields: Any) -> dict[str, Any]:
    """The answer to a decision that is taken."""
    found = client.post("/v1/observe", json={"user_id": user, "items": [*items], **fields})
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def report(client: TestClient, decision: dict[str, Any]) -> Any:
    return client.get(f"/v1/decisions/{decision['decision_id']}").json()


def test_the_session_goes_on_as_if_we_had_shown_the_items(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        one = observe(client, "3", "5", propensity=0.25)
        assert one == {
            "decision_id": one["decision_id"],
            "items": [{"item_id": "5", "title": "item 5", "propensity": 0.25}],
            "propensity": 0.25,
            "policy": {"name": "application", "version": 0, "sha256": ""},
            "session": {"id": one["session"]["id"], "step": 0},
            "degraded": None,
            "unknown": [],
        }
        assert send(client, event(one, "engagement", 0.5), event(one, "engagement", 0.5)) == [
            "accepted",
            "duplicate",
        ]
        two = recommend(client, "3")
        assert two["session"] == {"id": one["session"]["id"], "step": 1}
        seen = report(client, two)["seen"]
        assert (seen["history"], seen["signals"], seen["excluded"]) == (["5"], [{"engagement": 0.5}], 1)
        assert report(client, two)["replayed"] is True
        other = next(x for x in ("7", "8") if x != two["items"][0]["item_id"])
        three = observe(client, "3", other, policy="rules", session_id=one["session"]["id"])
        assert three["propensity"] is None and three["items"][0]["propensity"] is None
        found = report(client, three)
        assert found["seen"]["history"] == ["5", two["items"][0]["item_id"]] and found["replayed"] is None
        assert found["decision"] == three and len(found["alternatives"]) == 10
        rows = client.get("/v1/decisions").json()["decisions"]
        assert [x["propensity"] for x in rows] == [None, two["propensity"], 0.25]
        counts = client.get("/metrics").text
        assert 'recsys_rl_total{what="observed"} 2.0' in counts
        assert 'recsys_rl_total{what="decisions"} 1.0' in counts
        assert 'recsys_rl_request_seconds_count{door="/v1/observe"} 2.0' in counts
        schema = client.get("/openapi.json").json()
        assert "/v1/observe" in schema["paths"]
        assert schema["components"]["schemas"]["ObserveRequest"]["required"] == ["user_id", "items"]


def test_a_policy_sees_the_same_after_its_own_decisions_and_after_those_of_an_application(
    checkpoint: At, tmp_path: Path
) -> None:
    """Two servers with one seed: where the first draws, the second is told."""
    path, shown = checkpoint("satiation"), []
    with serving(path, tmp_path / "a.sqlite") as client:
        for step in range(3):
            shown.append(recommend(client, "ann", likes=["3"]))
            send(client, event(shown[-1], "engagement", 0.25 * step))
        expected = report(client, recommend(client, "ann"))
    with serving(path, tmp_path / "b.sqlite") as client:
        for step, answer in enumerate(shown):
            told = observe(client, "ann", answer["items"][0]["item_id"], likes=["3"])
            send(client, event(told, "engagement", 0.25 * step))
        found = report(client, recommend(client, "ann"))
    assert found["seen"] == expected["seen"] and found["alternatives"] == expected["alternatives"]
    events = [Event(int(x["items"][0]["item_id"]), {"engagement": 0.25 * at}) for at, x in enumerate(shown)]
    (best,) = load(path).recommend(likes=[3], history=events, k=1)  # without a server
    likeliest = expected["alternatives"][0]
    assert likeliest["item_id"] == str(best.item)
    assert likeliest["expected"] == pytest.approx(best.expected, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "status", "title", "name"),
    [
        ({"items": []}, 422, "wrong-field", "items"),
        ({"items": ["none"]}, 422, "unknown-item", "items"),
        ({"items": ["1", "1"]}, 422, "item-twice", "items"),
        ({"items": [str(x) for x in range(6)]}, 422, "wrong-n", "items"),
        ({"items": ["9"]}, 422, "not-showable", "items"),
        ({"candidates": ["2"]}, 422, "not-showable", "items"),
        ({"candidates": []}, 422, "wrong-field", "candidates"),
        ({"candidates": ["none", "nor"]}, 422, "unknown-item", "candidates"),
        ({"propensity": 0}, 422, "wrong-field", "propensity"),
        ({"propensity": 1.5}, 422, "wrong-field", "propensity"),
        ({"propensity": "0.5"}, 422, "wrong-field", "propensity"),
        ({"propensity": [0.5, 0.5]}, 422, "wrong-propensity", "propensity"),
        ({"items": ["1", "2"], "propensity": 0.5}, 422, "wrong-propensity", "propensity"),
        ({"policy": ""}, 422, "wrong-field", "policy"),
        ({"policy": "a\nb"}, 422, "wrong-field", "policy"),
        ({"policy": "NaN"}, 422, "wrong-policy", "policy"),
        ({"likes": ["none"]}, 422, "unknown-item", "likes"),
        ({"context": {"hour": 3}}, 422, "no-hour", "context"),
        ({"n": 1}, 422, "wrong-field", "n"),
        ({"user_id": ""}, 422, "wrong-field", "user_id"),
        ({"session_id": "999"}, 409, "session-over", "session_id"),
    ],
)
def test_each_wrong_field_is_named(
    client: TestClient, fields: dict[str, Any], status: int, title: str, name: str
) -> None:
    before = client.get("/v1/decisions").json()
    found = client.post("/v1/observe", json={"user_id": "1", "items": ["1"], **fields})
    assert (found.status_code, found.json()["title"]) == (status, title), found.text
    assert name in found.json()["detail"] and "\n" not in found.json()["detail"]
    assert client.get("/v1/decisions").json() == before


@pytest.fixture(scope="module")
def client(checkpoint: At, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(checkpoint("satiation"), tmp_path_factory.mktemp("observe") / "r.sqlite") as client:
        observe(client, "1", "9")  # it can't be shown again in this session
        yield client


def test_a_repeated_request_gives_the_same_bytes_also_after_a_start(checkpoint: At, tmp_path: Path) -> None:
    body = {"user_id": "3", "items": ["4"], "propensity": 0.5, "request_id": "a"}
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        first = client.post("/v1/observe", json=body)
        assert client.post("/v1/observe", json=body).content == first.content
    with serving(checkpoint("satiation"), db) as client:
        assert client.post("/v1/observe", json=body).content == first.content
        for path, other in (
            ("/v1/observe", {**body, "propensity": 0.25}),
            ("/v1/recommend", {"user_id": "3", "request_id": "a"}),
        ):
            found = client.post(path, json=other)
            assert (found.status_code, found.json()["title"]) == (409, "other-request")
        assert observe(client, "3", "5")["session"]["step"] == 1
        assert send(client, event(first.json(), "engagement", 0.5)) == ["accepted"]
        assert report(client, first.json())["events"][0]["value"] == 0.5


def test_a_decision_waits_for_a_draw_of_its_person(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, go = held_worker(checkpoint, tmp_path, monkeypatch)

    async def ask() -> list[dict[str, Any]]:
        replies = [
            worker.submit(Recommend(RecommendRequest("3", exclude=["5"]), "")),
            worker.submit(Observe(ObserveRequest("3", ["5"]), "")),
            worker.submit(Observe(ObserveRequest("4", ["5"]), "")),
        ]
        last = await asyncio.wait_for(replies[2], 10)  # another person's does not wait
        assert not replies[1].done()
        go.set()
        return [json.loads(await asyncio.wait_for(x, 10)) for x in replies[:2]] + [json.loads(last)]

    try:
        answers = asyncio.run(ask())
    finally:
        worker.close()
    assert [x["session"]["step"] for x in answers] == [0, 1, 0]
    assert answers[0]["session"]["id"] == answers[1]["session"]["id"]


def test_a_check_repeats_the_draws_beside_such_decisions(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        recommend(client, "3")
        observe(client, "3", "5")
    record = Record(db)
    found = check(record)
    record.store.close()
    assert (found.decisions, found.observed, found.replayed, found.not_replayed) == (2, 1, 1, "")


def exported(db: Path, out: Path, now: float = LATER) -> Any:
    record = Record(db)
    export(record, out, interval_of(record, now=time.time() + now))
    record.store.close()
    return read_decisions(out)


@pytest.mark.parametrize("platform", SERVED)
def test_the_export_has_what_was_shown_on_every_platform(
    checkpoint: At, tmp_path: Path, platform: str
) -> None:
    """Decisions of an application and of the policy, each in sessions of its own, and a session of both."""
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint(platform)
    rows: list[tuple[str, float, list[str]]] = []
    with serving(path, db) as client:
        slate = client.get("/v1/platform").json()["slate_size"]
        for user, who in enumerate(("application", "rules", "policy", "both")):
            for step in range(3):
                if who == "policy" or (who == "both" and step == 1):
                    answer = recommend(client, str(user))
                    rows.append(("ppo", answer["propensity"], [x["item_id"] for x in answer["items"]]))
                    continue
                before = [x for row in rows[3 * user :] for x in row[2]]
                items = [x for x in map(str, range(24)) if x not in before][:slate]
                known = {} if who == "rules" else {"propensity": 0.25}
                name = "rules" if who == "rules" else "application"
                answer = observe(client, str(user), *items, policy=name, **known)
                rows.append((name, known.get("propensity", math.nan), items))
            assert send(client, event(answer, "leave")) == ["accepted"]
    log, recommender = exported(db, out), load(path)
    names, ids = log.header.loggers, [str(x) for x in recommender.catalogue.item_ids.tolist()]
    assert set(names) == {"application", "rules", "ppo"}
    assert set(log.header.applications) == {"application", "rules"} and log.logger_logprobs is None
    assert [names[x] for x in log.loggers.tolist()] == [name for name, _, _ in rows]
    assert [[ids[x] for x in row] for row in log.items.tolist()] == [items for _, _, items in rows]
    expected = torch.tensor([chance for _, chance, _ in rows], dtype=torch.float64)
    torch.testing.assert_close(log.logprobs.exp(), expected, equal_nan=True)
    assert log.known_sessions.sessions.unique().numel() == 3 and not log.has_propensities
    again = recommender.agent.place_logprobs(observations(log, recommender.catalogue), log.items).sum(1)
    drawn = log.loggers == names.index("ppo")
    torch.testing.assert_close(again[drawn], log.logprobs[drawn], atol=1e-4, rtol=0)
    # What the application showed could be shown, but for slates that fit no pattern of the policy.
    assert recommender.checkpoint.interface.patterns or bool(again.isfinite().all())


def test_a_list_has_a_probability_of_each_place_and_takes_a_step_for_each(
    checkpoint: At, tmp_path: Path
) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    with serving(checkpoint("satiation"), db) as client:
        answer = observe(client, "3", "5", "7", propensity=[0.5, 0.25], candidates=["5", "6", "7"])
        assert answer["propensity"] == pytest.approx(0.125)
        assert [x["propensity"] for x in answer["items"]] == pytest.approx([0.5, 0.25])
        send(client, event(answer, "engagement", 0.75, position=1), event(answer, "leave"))
    log = exported(db, out)
    assert log.items.tolist() == [[5], [7]] and log.steps.tolist() == [0, 1]
    assert log.logprobs.exp().tolist() == pytest.approx([0.5, 0.25])
    assert log.signals.flatten().tolist() == [0.0, 0.75]
    assert log.candidates.tolist() == [[5, 6, 7], [6, 7, -1]]


def test_an_application_with_the_name_of_a_policy_has_another_one_in_the_log(
    checkpoint: At, tmp_path: Path
) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    with serving(checkpoint("satiation"), db) as client:
        send(client, event(observe(client, "1", "5", policy="ppo"), "leave"))
        send(client, event(recommend(client, "2"), "leave"))
    log = exported(db, out)
    assert log.header.loggers == ("ppo (application)", "ppo")
    assert log.header.applications == ("ppo (application)",)


def test_a_killed_server_has_what_it_answered(checkpoint: At, tmp_path: Path) -> None:
    db, path = tmp_path / "r.sqlite", checkpoint("satiation")
    body = {"user_id": "ann", "items": ["5"], "propensity": 0.5, "request_id": "a"}
    server = Forked(path, db)
    try:
        status, first = Connection(server.port).post("/v1/observe", body)
        assert status == 200
        assert Connection(server.port).feedback([event(json.loads(first), "engagement", 0.5)]) == ["accepted"]
        status, second = Connection(server.port).post("/v1/observe", {"user_id": "ann", "items": ["6"]})
        assert status == 200
    finally:
        server.kill()
    with serving(path, db) as client:
        assert client.post("/v1/observe", json=body).content == first
        three = recommend(client, "ann")
        assert three["session"] == {**json.loads(second)["session"], "step": 2}
        seen = report(client, three)["seen"]
        assert (seen["history"], seen["signals"]) == (["5", "6"], [{"engagement": 0.5}, {"engagement": 0.0}])


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export comes when sessions that have ended are mature, and users are fitted in few steps."""
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
    now = time.time
    monkeypatch.setattr("recsys_rl.serving.record.store_reader.time.time", lambda: now() + LATER)


def rule(user: int, step: int) -> str:
    """An application's choice: one of three items, which depends on the step and now and then on the user."""
    return str((7 * step + (user % 5 == 0)) % 24)


def observed(client: TestClient, users: range, **fields: Any) -> None:
    """Sessions of three decisions by ``rule``; an even item is liked."""
    for user in users:
        for step in range(3):
            answer = observe(client, str(user), rule(user, step), **fields)
            send(client, event(answer, "engagement", 1.0 - int(rule(user, step)) % 2))
        assert send(client, event(answer, "leave")) == ["accepted"]


def test_bc_learns_what_the_application_does_and_a_candidate_is_judged_beside_it(
    checkpoint: At, tmp_path: Path, later: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any probability: they are estimated."""
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    with serving(path, db) as client:
        observed(client, range(30))
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    assert "90 decisions of 'application' without a probability" in capsys.readouterr().err
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name", "bc", "--eval-interval", "1000"]
    learn = ["--total-timesteps", "6400", "--batch-size", "64", "--gradient-steps", "20", "--lr", "0.01"]
    options = ["--checkpoint", str(path), "--log", str(out), *learn, *runs]
    assert main(["train", "--algo", "bc", *options]) == 0
    clone, log = load(tmp_path / "runs" / "bc" / "bc.pt"), read_decisions(out)
    obs = observations(log, clone.catalogue)
    agreement = (clone.agent.act(obs, greedy=True).items == log.items).float().mean()
    before = (load(path).agent.act(obs, greedy=True).items == log.items).float().mean()
    assert float(agreement) > 0.6 > 0.35 > float(before)
    capsys.readouterr()
    assert main(["data", "describe", str(out)]) == 0
    ope = [
        "ope",
        "--log",
        str(out),
        "--checkpoint",
        str(path),
        "--policy",
        "ppo",
        "--policy",
        "logged",
        "--no-world",
    ]
    assert main(ope) == 0
    said = capsys.readouterr()
    assert "propensities are estimated" in said.out and "logged" in said.out
    assert main(["train", "--algo", "reinforce", *options, "--name", "reinforce"]) == 2
    assert "propensities" in capsys.readouterr().err


def test_ope_leaves_sessions_without_propensities_out(
    checkpoint: At, tmp_path: Path, later: None, capsys: pytest.CaptureFixture[str]
) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    with serving(path, db) as client:
        observed(client, range(12), propensity=0.5)
        observed(client, range(12, 18))
        for user in range(18, 30):
            for _ in range(2):
                answer = recommend(client, str(user))
            send(client, event(answer, "leave"))
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    log = read_decisions(out)
    assert (log.num_rows, log.known_sessions.num_rows) == (78, 60)
    capsys.readouterr()
    command = ["ope", "--log", str(out), "--checkpoint", str(path), "--policy", "random", "--no-world"]
    assert main([*command, "--json", str(tmp_path / "ope.json")]) == 0
    assert "6 sessions of 'application' without propensities left out" in capsys.readouterr().err
    found = json.loads((tmp_path / "ope.json").read_text())
    about = found["about"]
    assert (about["decisions"], about["sessions"], found["propensities"]) == (60, 24, None)
    # Each row is weighed by the propensity of its own logger: of a uniform policy (1/24, 1/23, 1/22) / 0.5^3.
    [random] = [x for x in found["rows"] if (x["policy"], x["estimator"]) == ("random", "pdis")]
    known = log.known_sessions
    sessions = known.sessions.unique().tolist()
    expected = 0.0
    for session in sessions:
        own = known.sessions == session
        weight, total = 1.0, 0.0
        for step, (logprob, signal) in enumerate(
            zip(known.logprobs[own].tolist(), known.signals[own].flatten().tolist(), strict=True)
        ):
            weight *= 1 / (24 - step) / math.exp(logprob)
            total += weight * signal
        expected += total / len(sessions)
    assert random["value"] == pytest.approx(expected, rel=1e-6)
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name", "one", "--total-timesteps", "64"]
    options = ["--checkpoint", str(path), "--log", str(out), "--batch-size", "16", "--gradient-steps", "2"]
    assert main(["train", "--algo", "reinforce", *options, *runs]) == 0
    said = capsys.readouterr()
    assert "without propensities left out" in said.out + said.err

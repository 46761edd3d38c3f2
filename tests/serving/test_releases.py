"""Releases over HTTP: each action, what it refuses, and the same state after a start."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import torch
from starlette.testclient import TestClient

from benchmarks.harness.forked import Forked
from benchmarks.harness.served import Connection
from recsys_rl.agents.ppo import PPO
from recsys_rl.serving.at_rest.check import check, wrong_arms
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.draw.versions import open_version
from recsys_rl.serving.http.release_routes import ACTIONS
from recsys_rl.serving.record.facts import facts_of
from recsys_rl.serving.record.record_schema import Decision, Release
from recsys_rl.serving.record.store import Full, Store
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.types import Obs
from tests.serving.servers import begun, recommend, serving, trained
from tests.serving.test_refusals import champion, sha256, swap

At = Callable[[str], Path]


def act(client: httpx.Client, action: str, status: int = 200, **fields: Any) -> dict[str, Any]:
    """The answer to an action; a promotion is of the present challenger unless another one is named."""
    if action == "promote" and "challenger" not in fields:
        fields["challenger"] = client.get("/v1/release").json()["challenger"] or "0" * 64
    found = client.post(f"/v1/release/{action}", json=fields)
    assert found.status_code == status, found.text
    answer: dict[str, Any] = found.json()
    return answer


def state(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/v1/release").json()
    return answer


def kinds(client: TestClient) -> list[str]:
    return [row["kind"] for row in client.get("/v1/release/history").json()]


def decisions(db: Path) -> list[Decision]:
    record = Record(db)
    found = [decision for rows in record.sessions() for decision in rows.decisions]
    record.store.close()
    return found


def test_a_release_splits_sessions_and_each_keeps_its_arm_also_after_a_start(
    two: Path, tmp_path: Path
) -> None:
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    people = [str(at) for at in range(24)]
    with serving(begun(two / "a.pt", db), db) as client:
        before = recommend(client, "before")
        started = act(client, "start", sha256=b, share=0.5, reason="a try")
        assert (started["champion"], started["challenger"], started["share"]) == (a, b, 0.5)
        first = {one: recommend(client, one)["policy"]["sha256"] for one in people}
        assert {*first.values()} == {a, b}
        assert act(client, "share", share=0.9)["share"] == 0.9
        assert {one: recommend(client, one)["policy"]["sha256"] for one in people} == first
        assert recommend(client, "before")["policy"]["sha256"] == a
        known = state(client)
    with serving(two, db) as client:
        again = state(client)
        assert {name: again[name] for name in ("champion", "challenger", "share", "unit", "since")} == {
            name: known[name] for name in ("champion", "challenger", "share", "unit", "since")
        }
        assert {one: recommend(client, one)["policy"]["sha256"] for one in people} == first
        more = [recommend(client, f"more {at}")["policy"]["sha256"] for at in range(20)]
        assert more.count(b) > 12  # of nine in ten
        assert act(client, "back", reason="enough", challenger=b)["challenger"] is None
        assert {recommend(client, one)["policy"]["sha256"] for one in people} == {a}
        assert kinds(client) == ["start", "share", "back"] and champion(client) == ["a.pt"]
    rows = {decision.number: decision for decision in decisions(db)}
    assert rows[int(before["decision_id"])].arm == ""
    split = [decision for decision in rows.values() if decision.arm]
    assert len(split) == 3 * len(people) + 20
    halves = [decision for decision in split if decision.arm_probability == 0.5]
    assert len(halves) == 3 * len(people)
    assert {decision.arm_probability for decision in split} - {1 - 0.9} == {0.5, 0.9}  # few have that one
    record = Record(db)
    checked, sessions = check(record), [*record.sessions()]
    other = msgspec.structs.replace(record.store.releases()[0], share=0.99)
    assert wrong_arms(record.store, record.policies, sessions) == []
    record.store.releases = lambda: [other]  # type: ignore[method-assign]
    assert len(wrong_arms(record.store, record.policies, sessions)) == len(split)
    record.store.close()
    assert checked.replayed == len(rows) and checked.not_replayed == ""


def test_a_challenger_is_promoted_after_the_canary_or_all_the_same_and_taken_back(
    two: Path, tmp_path: Path
) -> None:
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
        assert act(client, "promote", 409)["title"] == "no-canary"
        verdict = {"challenger": b, "champion": a, "answer": "no harm seen"}
        assert act(client, "back", 409, challenger=a)["title"] == "no-release"
        act(client, "back", challenger=b)
        act(client, "start", sha256=b, share=0.5, verdict=verdict)
        assert act(client, "promote", 409)["title"] == "no-canary"
        other = {"challenger": a, "without_gate": True}  # of a release that ended meanwhile
        assert act(client, "promote", 409, **other)["title"] == "no-release"
        promoted = act(client, "promote", without_gate=True, reason="we want to")
        assert (promoted["champion"], promoted["challenger"]) == (b, None)
        assert act(client, "promote", 409, without_gate=True)["title"] == "no-release"
        last = client.get("/v1/release/history").json()[-1]
        assert (last["kind"], last["champion"], last["reason"]) == ("promote", b, "we want to")
        assert last["verdict"]["without_gate"] and last["verdict"]["gate"]["answer"] == "no harm seen"
        assert last["verdict"]["canary"]["answer"] == "can't tell"
        assert recommend(client, "3")["policy"]["sha256"] == b
    with serving(two, db) as client:
        assert champion(client) == ["b.pt"]
        assert act(client, "back", 409, challenger=b)["title"] == "no-release"  # its release has ended
        assert act(client, "back", 409, promotion=a)["title"] == "nothing-to-take-back"
        assert act(client, "back", promotion=b)["champion"] == a
        assert recommend(client, "3")["policy"]["sha256"] == a
        assert act(client, "back", 409, promotion=b)["title"] == "nothing-to-take-back"
    with serving(two, db) as client:
        assert champion(client) == ["a.pt"]
        assert kinds(client) == ["start", "back", "start", "promote", "back"]


def test_an_alias_is_a_row_and_no_promotion_before_it_can_be_taken_back(two: Path, tmp_path: Path) -> None:
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
        assert act(client, "alias", 409, sha256=b)["title"] == "release-under-way"
        act(client, "promote", without_gate=True)
        assert act(client, "alias", sha256=a, reason="at once")["champion"] == a
        assert act(client, "back", 409, promotion=a)["title"] == "nothing-to-take-back"
        assert recommend(client, "3")["policy"]["sha256"] == a
        last = client.get("/v1/release/history").json()[-1]
        assert (last["kind"], last["champion"], last["challenger"]) == ("alias", a, "")
        assert (last["share"], last["reason"], last["verdict"]) == (1.0, "at once", None)
    with serving(two, db) as client:
        assert champion(client) == ["a.pt"]
        act(client, "start", sha256=b, share=0.5)
        assert kinds(client) == ["start", "promote", "alias", "start"]
        assert {recommend(client, str(at))["policy"]["sha256"] for at in range(24)} == {a, b}
    record = Record(db)
    assert check(record).not_replayed == ""
    record.store.close()


def test_a_way_back_that_is_repeated_takes_no_earlier_promotion_back(two: Path, tmp_path: Path) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    a, b = sha256(folder / "a.pt"), sha256(folder / "b.pt")
    with serving(begun(folder / "a.pt", db), db) as client:
        for challenger in (b, a):
            act(client, "start", sha256=challenger, share=0.5)
            act(client, "promote", without_gate=True)
        assert act(client, "back", promotion=a)["champion"] == b
        assert act(client, "back", 409, promotion=a)["title"] == "nothing-to-take-back"
        act(client, "start", sha256=a, share=0.5)
        assert act(client, "back", 409, promotion=b)["title"] == "release-under-way"
        assert act(client, "back", challenger=a)["champion"] == b
        assert act(client, "back", 409, challenger=a)["title"] == "no-release"
        assert champion(client) == ["b.pt"]


def test_a_version_that_was_taken_back_does_not_serve_after_faults(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Popularity answers in place of the champion, and nobody the version that was not wanted."""
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
        act(client, "promote", without_gate=True)
        act(client, "back", promotion=b)

        def failing(self: PPO, obs: Obs) -> torch.Tensor:
            raise ZeroDivisionError

        monkeypatch.setattr(PPO, "scores", failing)
        assert all(recommend(client, str(at))["degraded"] for at in range(6))
        assert champion(client) == ["a.pt"] and state(client)["champion"] == a


def test_the_way_back_takes_less_than_a_second(two: Path, tmp_path: Path) -> None:
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    seconds = []
    with serving(begun(two / "a.pt", db), db) as client:
        for drill in range(4):
            act(client, "start", sha256=b, share=0.5)
            if drill % 2:
                act(client, "promote", without_gate=True)
                assert recommend(client, "3")["policy"]["sha256"] == b
            ended: dict[str, Any] = {"promotion" if drill % 2 else "challenger": b}
            began = time.monotonic()
            act(client, "back", **ended)
            assert recommend(client, "3")["policy"]["sha256"] == a
            seconds.append(time.monotonic() - began)
    assert sorted(seconds)[1] < 1  # a busy machine may hold one or two of them up


def test_a_refused_action_leaves_the_champion_serving(checkpoint: At, two: Path, tmp_path: Path) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    shutil.copy(checkpoint("drift"), folder / "other.pt")
    a, b = sha256(folder / "a.pt"), sha256(folder / "b.pt")
    with serving(begun(folder / "a.pt", db), db) as client:
        for share in (0, 1, 1.5, -0.1, 1e-320, 0.0009):
            assert act(client, "start", 422, sha256=b, share=share)["title"] == "wrong-field"
        unknown = act(client, "start", 404, sha256="0" * 64, share=0.1)
        assert unknown["title"] == "unknown-policy" and str(folder) in unknown["detail"]
        assert act(client, "start", 409, sha256=a, share=0.1)["title"] == "is-champion"
        other = sha256(folder / "other.pt")
        assert act(client, "start", 409, sha256=other, share=0.1)["title"] == "not-possible"
        for about in (
            {"challenger": a, "champion": a},
            {"challenger": b, "champion": b},
            {"champion": a},
            {},
        ):
            wrong = {**about, "answer": "better"}
            assert act(client, "start", 409, sha256=b, share=0.1, verdict=wrong)["title"] == "other-verdict"
        for action in ("share", "promote", "freeze"):
            fields = {"share": 0.5} if action == "share" else {}
            assert act(client, action, 409, **fields)["title"] == "no-release"
        assert act(client, "back", 409, promotion=a)["title"] == "nothing-to-take-back"
        for named in ({}, {"challenger": b, "promotion": a}):
            assert act(client, "back", 422, **named)["title"] == "wrong-field"
        assert kinds(client) == []
        act(client, "start", sha256=b, share=0.5)
        assert act(client, "start", 409, sha256=b, share=0.5)["title"] == "release-under-way"
        assert swap(client, folder / "b.pt").json()["title"] == "release-under-way"
        for share in (0.5, 0.4):
            assert act(client, "share", 409, share=share)["title"] == "not-larger"
        act(client, "freeze", reason="wait")
        assert act(client, "freeze")["frozen"]
        assert act(client, "share", 409, share=0.4)["title"] == "not-larger"
        assert {recommend(client, str(at))["policy"]["sha256"] for at in range(12)} == {a}
        assert kinds(client) == ["start", "freeze"]
        thawed = act(client, "share", share=0.5)
        assert (thawed["frozen"], thawed["share"]) == (False, 0.5)
        assert {recommend(client, str(at))["policy"]["sha256"] for at in range(12)} == {a}  # as before
        assert {recommend(client, f"new {at}")["policy"]["sha256"] for at in range(12)} == {a, b}
        openapi = client.get("/openapi.json").json()
        described, answer = openapi["paths"], openapi["components"]["schemas"]["ReleaseAnswer"]
        assert {*answer["properties"]} - {*answer["required"]} == {"band", "one_file"}
        assert described["/v1/release/history"]["get"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ] == {"type": "array", "items": {"$ref": "#/components/schemas/ReleaseRow"}}
        for of in ACTIONS:
            body = described[f"/v1/release/{of.name}"]["post"]["requestBody"]["content"]["application/json"]
            assert body["schema"] == {"$ref": f"#/components/schemas/{of.request.__name__}"}
    record = Record(db)
    assert wrong_arms(record.store, record.policies, [*record.sessions()]) == []
    record.store.close()


@pytest.mark.parametrize("staged_champion", [False, True])
def test_a_policy_of_two_stages_takes_no_part(checkpoint: At, tmp_path: Path, staged_champion: bool) -> None:
    db, plain = tmp_path / "r.sqlite", checkpoint("satiation")
    staged = trained(
        tmp_path, "satiation", "--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25"
    )
    plain = Path(shutil.copy(plain, staged.with_name("plain.pt")))
    old, new = (staged, plain) if staged_champion else (plain, staged)
    with serving(begun(old, db), db) as client:
        assert act(client, "start", 409, sha256=sha256(new), share=0.1)["title"] == "two-stages"
        assert kinds(client) == [] and champion(client) == [old.name]
        assert act(client, "alias", sha256=sha256(new))["champion"] == sha256(new)
        assert kinds(client) == ["alias"] and champion(client) == [new.name]


def test_a_version_whose_file_is_gone_never_becomes_the_champion(two: Path, tmp_path: Path) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    a, b = sha256(folder / "a.pt"), sha256(folder / "b.pt")
    away, other = tmp_path / "away", (folder / "a.pt").read_bytes()
    with serving(begun(folder / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
        (folder / "b.pt").rename(away)
        for action, fields in (("promote", {"without_gate": True}), ("share", {"share": 0.9})):
            assert act(client, action, 409, **fields)["title"] == "no-file"
        (folder / "b.pt").write_bytes(other)  # the name is there, with another content
        assert act(client, "promote", 409, without_gate=True)["title"] == "no-file"
        away.replace(folder / "b.pt")
        assert act(client, "promote", without_gate=True)["champion"] == b
        (folder / "a.pt").rename(away)
        assert act(client, "back", 409, promotion=b)["title"] == "no-file"
        body = {"sha256": a}
        assert client.post("/v1/release/alias", json=body).json()["title"] == "no-file"
        assert act(client, "start", 409, sha256=a, share=0.5)["title"] == "no-file"
    with serving(folder, db) as client:
        assert champion(client) == ["b.pt"] and kinds(client)[-1] == "promote"
        away.replace(folder / "a.pt")
        assert act(client, "back", promotion=b)["champion"] == a


def test_an_action_that_can_not_be_written_is_not_made(two: Path, tmp_path: Path) -> None:
    db, b = tmp_path / "r.sqlite", sha256(two / "b.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        raw = client.app.worker.shared.store._db  # type: ignore[attr-defined]

        def without_room(action: str, **fields: Any) -> None:
            raw.execute("PRAGMA query_only = ON")  # writes fail with SQLITE_READONLY
            assert act(client, action, 503, **fields)["title"] == "record-full"
            raw.execute("PRAGMA query_only = OFF")

        without_room("start", sha256=b, share=0.5)
        assert state(client)["challenger"] is None and kinds(client) == []
        act(client, "start", sha256=b, share=0.5)
        without_room("promote", without_gate=True)
        without_room("back", challenger=b)
        assert state(client)["challenger"] == b and champion(client) == ["a.pt"]
        assert act(client, "promote", without_gate=True)["champion"] == b


def test_a_version_that_is_gone_gets_no_new_sessions(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    a, b = sha256(folder / "a.pt"), sha256(folder / "b.pt")
    people = [str(at) for at in range(12)]
    monkeypatch.setattr("recsys_rl.serving.work.watch.EVERY", 0.02)
    with serving(begun(folder / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
        first = {one: recommend(client, one)["policy"]["sha256"] for one in people}
        (folder / "b.pt").rename(tmp_path / "b.pt")
        until(lambda: state(client)["frozen"])
        assert {one: recommend(client, one)["policy"]["sha256"] for one in people} == first
        assert {recommend(client, f"more {at}")["policy"]["sha256"] for at in range(8)} == {a}
        assert "gone" in client.get("/v1/release/history").json()[-1]["reason"]
    with serving(folder, db) as client:  # now it can't answer at all
        assert {recommend(client, one)["policy"]["sha256"] for one in people} == {a}
        assert kinds(client) == ["start", "freeze"]
        assert act(client, "promote", 409, without_gate=True)["title"] == "no-file"
        assert act(client, "share", 409, share=0.5)["title"] == "no-file"
        assert act(client, "back", challenger=b)["challenger"] is None


def test_a_champion_that_fails_on_a_full_disk_leaves_no_arms(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, a = tmp_path / "r.sqlite", sha256(two / "a.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        assert swap(client, two / "b.pt").status_code == 200
        act(client, "start", sha256=a, share=0.5)
        active = client.app.worker.shared.active  # type: ignore[attr-defined]
        failing, scores, write = active.version.agent, PPO.scores, Store.write

        def no_scores(self: PPO, obs: Obs) -> torch.Tensor:
            if self is failing:
                raise ZeroDivisionError
            return scores(self, obs)

        def no_room(self: Store, rows: list[Any], durable: bool) -> None:
            if any(isinstance(row, Release) for row in rows):
                raise Full("no room")
            write(self, rows, durable)

        monkeypatch.setattr(PPO, "scores", no_scores)
        monkeypatch.setattr(Store, "write", no_room)
        before = [recommend(client, str(at))["degraded"] for at in range(24)]
        assert len([why for why in before if why]) == 3 and kinds(client) == ["alias", "start"]
        more = [recommend(client, f"more {at}") for at in range(8)]
        assert {answer["policy"]["sha256"] for answer in more} == {a}
    record = Record(db)
    assert wrong_arms(record.store, record.policies, [*record.sessions()]) == []
    record.store.close()
    last = sorted(decisions(db), key=lambda decision: decision.number)[-8:]
    assert {decision.arm for decision in last} == {""}


def test_a_server_that_starts_with_another_version_ends_the_release(two: Path, tmp_path: Path) -> None:
    db, b = tmp_path / "r.sqlite", sha256(two / "b.pt")
    with serving(begun(two / "a.pt", db), db) as client:
        act(client, "start", sha256=b, share=0.5)
    with serving(two / "b.pt", db) as client:
        assert state(client)["challenger"] is None and state(client)["champion"] == b
        assert kinds(client) == ["start", "stop"]


def test_versions_that_do_not_serve_are_closed_but_the_latest(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.serving.releases.active_version.LATEST", 1)
    a, b = sha256(two / "a.pt"), sha256(two / "b.pt")
    policies = PolicyFiles(two, facts_of(open_version(two / "a.pt", 0).checkpoint))
    serves = policies.version(a)
    assert policies.version(b) is policies.version(b) and policies.version(a) is serves
    gc.collect()
    assert {*policies.versions} == {a}
    policies.version(b)
    del serves
    gc.collect()
    assert {*policies.versions} == {b}


def test_a_killed_server_starts_again_in_the_state_of_its_last_action(two: Path, tmp_path: Path) -> None:
    db, a, b = tmp_path / "r.sqlite", sha256(two / "a.pt"), sha256(two / "b.pt")
    begun(two / "a.pt", db)
    expected = [("start", a, b), ("promote", b, None), ("back", a, None)]
    bodies = [{"sha256": b, "share": 0.5}, {"challenger": b, "without_gate": True}, {"promotion": b}]
    server = Forked(two, db)
    for (action, serving_now, challenger), body in zip(expected, bodies, strict=True):
        assert Connection(server.port).post(f"/v1/release/{action}", body)[0] == 200
        server.kill()
        server = Forked(two, db)
        found = json.loads(Connection(server.port).get("/v1/release")[1])
        assert (found["champion"], found["challenger"]) == (serving_now, challenger)
        served = {Connection(server.port).recommend(str(at))["policy"]["sha256"] for at in range(12)}
        assert served == {serving_now, challenger} - {None}
    server.stop()


def until(found: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)

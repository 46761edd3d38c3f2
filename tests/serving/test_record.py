"""The record: what is accepted once, what is found again, and what becomes a log."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe
from recsys_rl.recommender import load
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.record.record_schema import Session
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.work.jobs import clock_from_now
from recsys_rl.types import Interface
from recsys_rl.utils.files import sha256_of
from tests.serving.servers import begun, event, recommend, send, serving, trained

At = Callable[[str], Path]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export comes an hour and a half later, when sessions that have ended are mature.

    Users are fitted in few steps where a log is judged.
    """
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
    now = time.time
    monkeypatch.setattr("recsys_rl.serving.record.store_reader.time.time", lambda: now() + 5402)


def test_an_event_counts_once_and_the_first_content_wins(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        one = recommend(client, "3")
        assert send(client, event(one, "engagement", 0.5), event(one, "engagement", 0.5)) == [
            "accepted",
            "duplicate",
        ]
        assert send(client, event(one, "engagement", 0.75)) == ["conflict"]
        assert send(client, event(one, "engagement", 0.5, event_id="a")) == ["accepted"]
        assert send(client, event(one, "engagement", 0.25, event_id="a")) == ["conflict"]
        report = client.get(f"/v1/decisions/{one['decision_id']}").json()
        assert [x["value"] for x in report["events"]] == [0.5, 0.5]
        two = recommend(client, "3")
        seen = client.get(f"/v1/decisions/{two['decision_id']}").json()["seen"]
        assert seen["history"] == [one["items"][0]["item_id"]] and seen["signals"] == [{"engagement": 0.5}]


def test_events_that_can_not_be_are_rejected_with_a_code(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        one = recommend(client, "3")
        two = recommend(client, "3")
        assert send(
            client,
            event(one, "likes"),
            event(one, "engagement", position=1),
            event(one, "leave"),
            event(two, "engagement", left=one["items"][0]["item_id"]),
            event(two, "engagement", left="no such item"),
            {"decision_id": "999999", "signal": "engagement"},
            {"decision_id": "eleven", "signal": "engagement"},
            event(two, "leave"),
        ) == [
            "unknown-signal",
            "unknown-position",
            "not-the-last",
            "no-items-are-left",
            "unknown-item",
            "unknown-decision",
            "unknown-decision",
            "accepted",
        ]


def test_the_same_request_id_gives_the_same_bytes_also_after_a_start(checkpoint: At, tmp_path: Path) -> None:
    body, db = {"user_id": "3", "request_id": "a", "likes": ["1"]}, tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        first = client.post("/v1/recommend", json=body)
        assert client.post("/v1/recommend", json=body).content == first.content
    with serving(checkpoint("satiation"), db) as client:
        assert client.post("/v1/recommend", json=body).content == first.content
        other = client.post("/v1/recommend", json={**body, "user_id": "4"})
        assert other.status_code == 409 and other.json()["title"] == "other-request"
        assert recommend(client, "3")["session"]["step"] == 1


def test_a_session_goes_on_after_a_start_and_ends_by_leaving_by_its_last_step_or_by_time(
    checkpoint: At, tmp_path: Path
) -> None:
    db, path = tmp_path / "r.sqlite", checkpoint("satiation")
    with serving(path, db) as client:
        one = recommend(client, "ann", likes=["3", "5"])
        send(client, event(one, "engagement", 0.5))
    with serving(path, db) as client:
        two = recommend(client, "ann")
        assert two["session"] == {"id": one["session"]["id"], "step": 1}
        report = client.get(f"/v1/decisions/{two['decision_id']}").json()
        assert report["replayed"] and report["seen"]["signals"] == [{"engagement": 0.5}]
        assert sum(abs(x) for x in report["seen"]["context"]["profile"]) > 0  # folded in from the likes
        assert send(client, event(two, "leave")) == ["accepted"]
        three = recommend(client, "ann")
        assert three["session"]["id"] != one["session"]["id"] and three["session"]["step"] == 0
        wrong = client.post("/v1/recommend", json={"user_id": "ann", "session_id": one["session"]["id"]})
        assert wrong.status_code == 409
        last = [recommend(client, "ann", session_id=three["session"]["id"]) for _ in range(4)][-1]
        assert last["session"]["step"] == 4  # of five
        assert recommend(client, "ann")["session"]["step"] == 0
    with serving(path, db, session_timeout=1e-3) as client:
        assert recommend(client, "bob")["session"]["step"] == 0
        assert recommend(client, "bob")["session"]["step"] == 0


def test_a_clock_that_is_set_changes_nothing_while_the_server_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = iter((100.0, 109.0, 2100.0))
    monkeypatch.setattr(time, "clock_gettime", lambda _: next(steady))
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    wall = iter((1.8e9, 0.0, 9e9))
    clock = clock_from_now(lambda: next(wall))
    assert [clock(), clock()] == [1.8e9 + 9, 1.8e9 + 2000]


def test_sessions_of_a_server_whose_clock_was_ahead_have_ended(checkpoint: At, tmp_path: Path) -> None:
    db, path = tmp_path / "r.sqlite", checkpoint("satiation")
    for now, step in ((1.8e9 + 3e8, 0), (1.8e9, 0), (1.8e9 + 9, 1), (1.8e9 + 9 - 1000, 2), (1.8e9 - 7200, 0)):
        with serving(path, db) as client:
            client.app.worker.shared.clock = lambda now=now: now  # type: ignore[attr-defined]
            assert recommend(client, "eve")["session"]["step"] == step


def test_a_session_that_is_over_stays_over() -> None:
    """Its rows are of a process whose clock was ahead."""
    row = Session(
        number=1, person=1, visit=0, began=9000.0, population_row=0, likes=(), timeout=1800.0, window=3600.0
    )
    visit = SessionState(row, Interface((), (9,), session_length=5), latest=9000.0)
    assert visit.ended(7300.0) is None and visit.ended(7100.0) == 10_800 == visit.ended(8000.0)


def test_a_stranger_is_known_by_what_he_consumed(checkpoint: At, tmp_path: Path) -> None:
    path = checkpoint("satiation")
    with serving(path, tmp_path / "r.sqlite") as client:
        one, two = (recommend(client, "ann") for _ in range(2))
        send(client, event(one, "engagement", 0.75), event(two, "engagement", 0.25), event(two, "leave"))
        three = recommend(client, "ann")
        seen = [client.get(f"/v1/decisions/{x['decision_id']}").json()["seen"] for x in (two, three)]
    recommender = load(path)
    liked = recommender.fold_in([recommender.row_of_item[int(one["items"][0]["item_id"])]])[0]
    assert seen[0]["context"]["profile"] == [0.0] * len(liked)
    assert seen[1]["context"]["profile"] == pytest.approx(liked.tolist())


def play(client: Any, user: str, steps: int, leave: bool = True, **fields: Any) -> list[dict[str, Any]]:
    """A session whose engagements are its steps over ten."""
    answers = []
    for step in range(steps):
        answers.append(recommend(client, user, **fields))
        assert send(client, event(answers[-1], "engagement", step / 10)) == ["accepted"]
    if leave:
        send(client, event(answers[-1], "leave"))
    return answers


def test_finished_sessions_become_a_log_whose_observations_are_those_of_the_server(
    checkpoint: At, tmp_path: Path, capsys: pytest.CaptureFixture[str], later: None
) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    with serving(path, db) as client:
        first = play(client, "3", 3)
        second = play(client, "ann", 5, leave=False, likes=["2"])  # to the last step
        limited = play(client, "4", 1, exclude=["0", "1"])
        unanswered = recommend(client, "5")  # ended by time, without an answer
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    log, recommender = read_decisions(out), load(path)
    assert log.steps.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 0]
    assert log.terminated.tolist() == [False, False, True, *[False] * 5, True, True]
    assert log.truncated.tolist() == [*[False] * 7, True, False, False]
    answers = [*first, *second, *limited, unanswered]
    items = [str(recommender.catalogue.id_of(x)) for x in log.items[:, 0].tolist()]
    assert items == [x["items"][0]["item_id"] for x in answers]
    torch.testing.assert_close(
        log.logprobs.exp(), torch.tensor([x["propensity"] for x in answers], dtype=torch.float64)
    )
    assert log.signals[:, 0, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0, 0.1, 0.2, 0.3, 0.4, 0, 0])
    # The reader's observations give the recorded probabilities under the same policy.
    again = recommender.agent.place_logprobs(observe(log, recommender.catalogue), log.items).sum(1)
    torch.testing.assert_close(again, log.logprobs, atol=1e-5, rtol=0)
    assert main(["log", "check", "--db", str(db)]) == 0
    assert "10 draws repeated" in capsys.readouterr().out
    assert main(["data", "describe", str(out)]) == 0
    ope = ["ope", "--log", str(out), "--checkpoint", str(path), "--policy", "ppo", "--policy", "random"]
    assert main(ope) == 0
    assert "ppo" in capsys.readouterr().out


def test_lists_exploration_and_candidates_are_in_the_log(checkpoint: At, tmp_path: Path, later: None) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    with serving(path, db, explore=0.25) as client:
        [answer] = play(client, "3", 1, n=3)
        assert len({x["item_id"] for x in answer["items"]}) == 3
        play(client, "6", 2, candidates=[str(x) for x in range(7)])
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    log, recommender = read_decisions(out), load(path)
    assert log.header.loggers == ("0.75 ppo + 0.25 random",)
    assert log.steps.tolist() == [0, 1, 2, 0, 1]
    chances = torch.tensor([x["propensity"] for x in answer["items"]], dtype=torch.float64)
    torch.testing.assert_close(log.logprobs[:3].exp(), chances)
    assert chances[0] > 0.25 / 24  # at least its share of the uniform choice
    assert set(log.items[3:, 0].tolist()) <= {recommender.row_of_item[x] for x in range(7)}
    assert main(["log", "check", "--db", str(db)]) == 0


def test_damage_is_found(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        play(client, "3", 2)
    with sqlite3.connect(db) as raw:
        raw.execute("DELETE FROM events WHERE number = (SELECT max(number) FROM events)")
    assert main(["log", "check", "--db", str(db)]) == 2
    with serving(checkpoint("satiation"), db) as client:
        found = client.post("/v1/recommend", json={"user_id": "3"})
        assert found.status_code == 503 and found.json()["title"] == "record-damaged"
        assert recommend(client, "4")["session"]["step"] == 0


def test_a_full_disk_refuses_and_forgets_what_was_not_written(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        one = recommend(client, "3")
        send(client, event(one, "engagement", 0.5))
        raw = client.app.worker.shared.store._db  # type: ignore[attr-defined]
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages}")
        answers = [client.post("/v1/recommend", json={"user_id": f"{x}" * 99}) for x in range(60)]
        full = [x for x in answers if x.status_code == 503]
        assert full and {x.json()["title"] for x in full} == {"record-full"}
        assert "retry-after" in full[0].headers and client.get("/readyz").status_code == 503
        lost = client.post(
            "/v1/feedback", json={"events": [event(one, "engagement", event_id="a" * 200)] * 1}
        )
        raw.execute("PRAGMA max_page_count = 1000000")
        two = recommend(client, "3")
        assert two["session"] == {"id": one["session"]["id"], "step": 1}
        assert client.get("/readyz").status_code == 200
        again = send(client, event(one, "engagement", event_id="a" * 200))
        assert again == (["accepted"] if lost.status_code == 503 else ["duplicate"])
    assert main(["log", "check", "--db", str(db)]) == 0


def test_a_disk_that_can_not_be_written_refuses_and_serves_on_when_it_can(
    checkpoint: At, tmp_path: Path
) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        one = recommend(client, "3")
        raw = client.app.worker.shared.store._db  # type: ignore[attr-defined]
        raw.execute("PRAGMA query_only = ON")  # writes fail with SQLITE_READONLY
        posts = [
            client.post("/v1/recommend", json={"user_id": "3"}),
            client.post("/v1/feedback", json={"events": [event(one, "engagement", 0.5)]}),
        ]
        assert [(x.status_code, x.json()["title"]) for x in posts] == [(503, "record-full")] * 2
        assert client.get("/readyz").status_code == 503
        raw.execute("PRAGMA query_only = OFF")
        assert send(client, event(one, "engagement", 0.5)) == ["accepted"]
        assert recommend(client, "3")["session"] == {"id": one["session"]["id"], "step": 1}
        assert client.get("/readyz").status_code == 200
    assert main(["log", "check", "--db", str(db)]) == 0


def test_a_user_is_forgotten_with_all_rows(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        one = play(client, "a-secret-name", 2)[0]
        play(client, "4", 1)
    assert main(["log", "forget", "--db", str(db), "--user", "a-secret-name"]) == 0
    assert b"a-secret-name" not in db.read_bytes()
    assert main(["log", "check", "--db", str(db)]) == 0
    assert main(["log", "forget", "--db", str(db), "--user", "a-secret-name"]) == 2
    with serving(checkpoint("satiation"), db) as client:
        assert client.get(f"/v1/decisions/{one['decision_id']}").status_code == 404
        assert send(client, event(one, "engagement")) == ["unknown-decision"]


def test_a_user_whose_rows_can_not_be_deleted_stays_whole(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Store, name: str, value: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        play(client, "4", 1)
    with monkeypatch.context() as patch:
        patch.setattr("recsys_rl.serving.record.store._write_fact", failing)
        assert main(["log", "forget", "--db", str(db), "--user", "4"]) == 2
    assert main(["log", "check", "--db", str(db)]) == 0
    assert main(["log", "forget", "--db", str(db), "--user", "4"]) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_old_rows_that_stay_in_the_log_of_sqlite_are_an_error(
    fails: bool, checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program reads the file, or the log of SQLite can't be emptied."""

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if fails and "wal_checkpoint" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *values)

    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        play(client, "a-secret-name", 1)
        play(client, "4", 1)
    reader = sqlite3.connect(db)
    reader.execute("PRAGMA wal_autocheckpoint = 0")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM people").fetchall()  # what it reads must stay
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Failing))
        assert main(["log", "forget", "--db", str(db), "--user", "a-secret-name"]) == 2
    reader.close()
    assert main(["log", "check", "--db", str(db)]) == 0
    left = b"".join(x.read_bytes() for x in tmp_path.iterdir())
    assert b"a-secret-name" not in left and b"sqlite" in left.lower()


def test_numbers_of_a_user_who_was_forgotten_are_not_given_again(checkpoint: At, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        recommend(client, "4")
        erased = recommend(client, "3")
    assert main(["log", "forget", "--db", str(db), "--user", "3"]) == 0
    for user in "56":  # the second start has the number from the record
        with serving(checkpoint("satiation"), db) as client:
            assert int(recommend(client, user)["decision_id"]) > int(erased["decision_id"])
            assert send(client, event(erased, "engagement")) == ["unknown-decision"]
    assert main(["log", "check", "--db", str(db)]) == 0


def test_a_record_is_of_one_process_of_one_catalogue_and_of_our_format(
    checkpoint: At, tmp_path: Path
) -> None:
    db = tmp_path / "r.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        recommend(client, "3")
        with pytest.raises(UserError, match="process"):  # its id is named
            Store(db)
    with pytest.raises(UserError), serving(checkpoint("drift"), db):
        pass
    with sqlite3.connect(db) as raw:
        for version in (99, 2, 1):
            raw.execute(f"PRAGMA user_version = {version}")
            raw.commit()
            with pytest.raises(UserError, match=f"format {version}, and .* 3 to 6"):
                Store(db)
    for name, content in (("text.sqlite", b"not a database" * 99), ("empty.sqlite", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            Store(tmp_path / name)
    with sqlite3.connect(tmp_path / "other.sqlite") as raw:
        raw.execute("CREATE TABLE other (x)")
    with pytest.raises(UserError):
        Store(tmp_path / "other.sqlite")
    with pytest.raises(UserError):  # a name that is too long
        Store(tmp_path / ("a" * 300) / "r.sqlite", {})


def test_a_checkpoint_of_other_users_can_not_take_over(checkpoint: At, tmp_path: Path) -> None:
    """Sessions name users by their rows, and these are other people there."""
    db, folder = tmp_path / "r.sqlite", tmp_path / "both"
    folder.mkdir()
    one = Path(shutil.copy(checkpoint("satiation"), folder / "1.pt"))
    two = Path(shutil.copy(trained(tmp_path, "satiation", "--num-users", "20"), folder / "2.pt"))
    with serving(begun(one, db), db) as client:
        recommend(client, "25")
        body = {"sha256": sha256_of(two)}
        found = client.post("/v1/release/alias", json=body)
        assert found.status_code == 409
        assert recommend(client, "25")["session"]["step"] == 1
    with pytest.raises(UserError), serving(two, db):
        pass
    with serving(one, db) as client:
        assert recommend(client, "25")["session"]["step"] == 2


def test_feedback_to_a_person_out_of_memory_is_seen_by_the_next_request(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.serving.work.jobs.MOST_PEOPLE", 2)
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        first = recommend(client, "3")
        for user in "456789":
            recommend(client, user)
        assert len(client.app.worker.shared.memory.people) <= 3  # type: ignore[attr-defined]
        assert send(client, event(first, "engagement", 0.5)) == ["accepted"]
        two = recommend(client, "3")
        assert two["session"] == {"id": first["session"]["id"], "step": 1}
        report = client.get(f"/v1/decisions/{two['decision_id']}").json()
        assert report["seen"]["signals"] == [{"engagement": 0.5}] and report["replayed"]


def test_strange_ids_are_kept_as_they_are(checkpoint: At, tmp_path: Path) -> None:
    names = ["<script>", "a\x00b", "'; DROP TABLE people; --", "\u202e", "ü" * 200, " ", "3 "]
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        sessions = {name: recommend(client, name)["session"]["id"] for name in names}
        assert len({*sessions.values()}) == len(names)
        assert {name: recommend(client, name)["session"]["id"] for name in names} == sessions
        half = client.post(
            "/v1/recommend", content=b'{"user_id": "\\ud800"}', headers={"content-type": "application/json"}
        )
        assert half.status_code in (400, 422)


def test_a_policy_learns_from_the_log_of_a_server(checkpoint: At, tmp_path: Path, later: None) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    with serving(path, db) as client:
        for user in range(30):
            play(client, str(user), 3)
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    options = ["--checkpoint", str(path), "--log", str(out), "--total-timesteps", "64", "--batch-size", "16"]
    runs = ["--gradient-steps", "2", "--runs-dir", str(tmp_path / "runs"), "--name", "bc"]
    assert main(["train", "--algo", "bc", *options, *runs]) == 0
    assert (tmp_path / "runs" / "bc" / "bc.pt").is_file()


def test_a_stream_of_hidden_signals_can_not_be_weighed(checkpoint: At, tmp_path: Path, later: None) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("short-video")
    with serving(path, db) as client:
        for user in range(12):
            one = recommend(client, str(user), context={"hour": 12.0})
            send(client, event(one, "watch_ratio", 1.5), event(one, "liked"), event(one, "leave"))
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    ope = ["ope", "--log", str(out), "--checkpoint", str(path), "--policy", "ppo"]
    assert main(ope) == 2
    assert main([*ope, "--weights", "like=1", "watch=0", "skip=0"]) == 0


def test_candidates_of_a_first_stage_are_in_the_record(tmp_path: Path, later: None) -> None:
    path = trained(
        tmp_path, "satiation", "--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25"
    )
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    with serving(path, db) as client:
        answers = [x for user in range(8) for x in play(client, str(user), 2)]
        reports = [client.get(f"/v1/decisions/{x['decision_id']}").json() for x in answers]
        assert all(x["replayed"] for x in reports)
        assert all(len(x["alternatives"]) <= 8 for x in reports)
        assert client.post("/v1/recommend", json={"user_id": "1", "n": 2}).json()["title"] == "wrong-n"
    assert main(["log", "check", "--db", str(db)]) == 0
    assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    log = read_decisions(out)
    assert log.candidates is not None and log.header.candidates.startswith("8 candidates")
    assert bool((log.candidates == log.items).any(1).all())
    assert main(["ope", "--log", str(out), "--checkpoint", str(path), "--policy", "ppo"]) == 0

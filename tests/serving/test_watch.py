"""The watch over a release: sessions that mature join the canary, and what harms stops by itself."""

from __future__ import annotations

import heapq
import re
import sqlite3
import time
from contextlib import closing
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch

from recsys_rl.agents.ppo import PPO
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.loop.release import status_lines
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.releases.canary import CanarySettings, Look
from recsys_rl.serving.releases.outcomes import Outcomes
from recsys_rl.serving.work.jobs import Call, Moment, ReadMoment
from recsys_rl.serving.work.maturing import Maturing, Take
from recsys_rl.serving.work.release_changes import end, start
from recsys_rl.serving.work.watch import Followed, Watch
from recsys_rl.types import Obs
from tests.serving.servers import begun, event, recommend, send, serving
from tests.serving.test_refusals import champion, sha256
from tests.serving.test_releases import act, kinds, state, until

SOON = {"feedback_window": 1e-3}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.serving.work.watch.EVERY", 0.02)
    monkeypatch.setattr("recsys_rl.serving.work.watch.CanarySettings", lambda: CanarySettings(learned=10))


def of_a(two: Path, tmp_path: Path) -> Path:
    """A new record that a.pt serves."""
    begun(two / "a.pt", tmp_path / "r.sqlite")
    return tmp_path / "r.sqlite"


def visits(
    client: httpx.Client, two: Path, number: int, gain: float, first: int = 0, spread: float = 0.01
) -> None:
    """Sessions of one decision; the challenger's items are engaged with by ``gain`` more."""
    b = sha256(two / "b.pt")
    for at in range(first, first + number):
        answer = recommend(client, f"person {at}")
        value = 0.5 + gain * (answer["policy"]["sha256"] == b) + spread * (at % 3)
        replies = send(client, event(answer, "engagement", value), event(answer, "leave"))
        assert replies == ["accepted", "accepted"]


def matured(client: httpx.Client) -> int:
    return sum(count["sessions"] for count in state(client)["counts"].values())


def test_outcomes_are_counted_by_arm_and_again_after_a_start(two: Path, tmp_path: Path) -> None:
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        visits(client, two, 12, 0.0, spread=0.2)
        time.sleep(0.05)  # until all of them have matured
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 40, 0.3, first=100)
        until(lambda: matured(client) == 40)
        before = state(client)
        counts, found = before["counts"], before["canary"]
        assert counts["challenger"]["mean"] == pytest.approx(0.81, abs=0.1)
        assert counts["champion"]["mean"] == pytest.approx(0.51, abs=0.1)
        gain = counts["challenger"]["mean"] - counts["champion"]["mean"]
        assert found["difference"] == pytest.approx(gain) == pytest.approx(0.3, abs=0.1)
        assert found["low"] <= found["difference"] <= found["high"]
        assert before["band"][-1] == [40, found["low"], found["high"]] and found["sessions"] == 40
        text, count = client.get("/metrics").text, counts["challenger"]["sessions"]
        assert f'recsys_rl_session_return_count{{arm="challenger",version="{b[:12]}"}} {count:.1f}' in text
        assert "recsys_rl_challenger_share 0.5" in text
        [total] = re.findall(r'session_return_sum{arm="challenger",version="\w+"} (\S+)', text)
        assert float(total) / count == pytest.approx(0.81, abs=0.01)  # of the returns as they are
    with serving(two, db, **SOON) as client:
        until(lambda: matured(client) == 40)
        assert state(client) == before


def test_a_challenger_that_harms_stops_by_itself_and_one_that_gains_is_promoted(
    two: Path, tmp_path: Path
) -> None:
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 120, -0.5)
        until(lambda: state(client)["challenger"] is None)
        last = client.get("/v1/release/history").json()[-1]
        assert last["kind"] == "stop" and "return less" in last["reason"]
        assert last["verdict"]["answer"] == "worse" and champion(client) == ["a.pt"]
        verdict = {"challenger": b, "champion": sha256(two / "a.pt"), "answer": "can't tell"}
        act(client, "start", sha256=b, share=0.5, verdict=verdict)
        visits(client, two, 120, 0.45, first=200)
        until(lambda: state(client)["canary"]["answer"] == "better")
        assert act(client, "promote")["champion"] == b and champion(client) == ["b.pt"]
        assert kinds(client) == ["start", "stop", "start", "promote"]
        verdict = client.get("/v1/release/history").json()[-1]["verdict"]
        assert (verdict["gate"]["answer"], verdict["canary"]["answer"]) == ("can't tell", "better")
        assert not verdict["without_gate"]


def test_a_challenger_whose_gain_has_faded_is_not_promoted(two: Path, tmp_path: Path) -> None:
    """100 sessions with 0.45 more, and then 80 with 0.3 less: of all 180 its mean is still higher."""
    db, a, b = of_a(two, tmp_path), sha256(two / "a.pt"), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        verdict = {"challenger": b, "champion": a, "answer": "better"}
        act(client, "start", sha256=b, share=0.5, verdict=verdict)
        visits(client, two, 100, 0.45)
        until(lambda: state(client)["canary"]["answer"] == "better")
        assert state(client)["canary"]["doubt"] == ""
        visits(client, two, 80, -0.3, first=200)
        until(lambda: matured(client) == 180 and state(client)["canary"]["doubt"])
        canary = state(client)["canary"]
        assert canary["answer"] == "can't tell" and canary["doubt"] and canary["difference"] > 0
        printed = next(line for line in status_lines(state(client)) if line.startswith("canary"))
        assert canary["doubt"] in printed
        refused = act(client, "promote", 409)
        assert refused["title"] == "no-canary" and canary["doubt"] in refused["detail"]
        assert champion(client) == ["a.pt"]


def test_the_share_of_the_most_shown_item_that_is_too_much_is_an_option(two: Path, tmp_path: Path) -> None:
    with serving(begun(two / "a.pt", tmp_path / "r.sqlite"), tmp_path / "r.sqlite", most_shown=0.4) as client:
        assert client.app.services.watch.settings.top == 0.4  # type: ignore[attr-defined]


def test_a_clock_that_is_set_back_neither_matures_sessions_nor_holds_them_up(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, b, now = of_a(two, tmp_path), sha256(two / "b.pt"), time.time
    with serving(two, db, session_timeout=3600.0, feedback_window=0.3) as client:
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 10, 0.0)
        open_one = recommend(client, "open")
        monkeypatch.setattr(time, "time", lambda: now() - 7200)
        visits(client, two, 10, 0.0, first=50)
        until(lambda: matured(client) == 10)
        assert matured(client) == 10  # the open session began before the others
        send(client, event(open_one, "leave"))
        until(lambda: matured(client) == 21)


def test_one_session_that_stays_open_does_not_hold_up_the_others_for_ever(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts with what came until its end, also when it is read again after a start."""
    monkeypatch.setattr(
        "recsys_rl.serving.work.watch.CanarySettings", lambda: CanarySettings(learned=10, longest=2.0)
    )
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, session_timeout=4.0, feedback_window=0.01) as client:
        act(client, "start", sha256=b, share=0.5)
        open_one, began = recommend(client, "open"), time.time()
        send(client, event(open_one, "engagement", 0.25))
        visits(client, two, 10, 0.0)
        while time.time() < began + 6.0:
            send(client, event(open_one, "engagement", 0.25))
            time.sleep(0.5)
            assert matured(client) in (0, 11)
        until(lambda: matured(client) == 11)
        time.sleep(0.1)
        send(client, event(open_one, "engagement", 1.0))  # too late
        before = state(client)
    with serving(two, db, session_timeout=4.0, feedback_window=0.01) as client:
        until(lambda: matured(client) == 11)
        assert state(client) == before


def test_a_look_that_fails_loses_no_session(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 sessions are found at one look, of which the second batch can't be read once."""
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    monkeypatch.setattr("recsys_rl.serving.work.maturing.BATCH", 5)
    read, ready, calls = Maturing._read, list[bool](), list[int]()

    def failing(self: Maturing, store: Snapshot, numbers: list[int], now: float, take: Take) -> None:
        if not ready:
            for number in numbers:
                heapq.heappush(self.due, (now, number))
            return
        calls.append(len(numbers))
        if len(calls) == 2:
            raise sqlite3.OperationalError("disk I/O error")
        read(self, store, numbers, now, take)

    monkeypatch.setattr(Maturing, "_read", failing)
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 20, 0.0)
        ready.append(True)
        until(lambda: len(calls) > 1)
        until(lambda: matured(client) == 20)


def test_reads_that_fail_now_and_then_freeze_nothing_and_those_that_always_fail_say_why(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    monkeypatch.setattr("recsys_rl.serving.work.watch.TRIES", 3)
    look, looks, dead = Followed.now, list[bool](), list[bool]()

    def failing(self: Followed, moment: Moment) -> Look:
        looks.append(len(looks) % 3 != 2)  # two of three fail
        if looks[-1] or dead:
            raise sqlite3.OperationalError("disk I/O error")
        return look(self, moment)

    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 20, 0.0)
        time.sleep(0.05)
        monkeypatch.setattr(Followed, "now", failing)
        until(lambda: looks.count(False) > 2)
        assert kinds(client) == ["start"]
        dead.append(True)
        until(lambda: kinds(client) == ["start", "freeze"])
        last = client.get("/v1/release/history").json()[-1]
        assert "disk I/O error" in last["reason"] and "3 times" in last["reason"]
        monkeypatch.setattr(Followed, "now", look)
        frozen = state(client)
        assert frozen["frozen"] and frozen["why_frozen"] == last["reason"]
        assert not act(client, "share", share=0.5)["frozen"] and matured(client) == 20


def test_a_canary_that_is_behind_catches_up_although_reads_fail(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look reads five of 40 sessions, and every third look fails: at a read of sessions, or of people."""
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        visits(client, two, 40, 0.3)
        until(lambda: matured(client) == 40)
        before = state(client)
    monkeypatch.setattr("recsys_rl.serving.work.maturing.MOST", 5)
    monkeypatch.setattr("recsys_rl.serving.work.maturing.BATCH", 2)
    begin, looks, reads = Followed.now, list[int](), list[int]()
    failures, whole = list[str](), list[bool]()

    def looking(self: Followed, moment: Moment) -> Look:
        looks.append(0)
        reads.clear()
        return begin(self, moment)

    def failing(name: str) -> None:
        read, nth = getattr(Snapshot, name), 2 if name == "whole_sessions" else 1

        def one(self: Snapshot, *given: object) -> object:
            if name == "latest_sessions" and len(given) < 3:  # of all people, before the first look
                return read(self, *given)
            reads.append(0)
            odd = (len(looks) // 3) % 2 == (name == "whole_sessions")
            if len(looks) % 3 == 0 and len(reads) >= nth and odd and not whole:
                failures.append(name)
                raise sqlite3.OperationalError("database is locked")
            return read(self, *given)

        monkeypatch.setattr(Snapshot, name, one)

    monkeypatch.setattr(Followed, "now", looking)
    failing("whole_sessions")
    failing("latest_sessions")
    with serving(two, db, **SOON) as client:
        watch = client.app.services.watch  # type: ignore[attr-defined]

        def counted() -> int:
            counts = watch.followed.canary.counts if watch.followed is not None else {}
            return sum(count.sessions for count in counts.values())

        until(lambda: counted() == 40)
        whole.append(True)
        assert len(looks) >= 10 and {*failures} == {"whole_sessions", "latest_sessions"}
        assert state(client) == before and kinds(client) == ["start"]


def test_failed_looks_of_another_release_do_not_count(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks at a release fail, then another one begins at once, and its first look fails."""
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    monkeypatch.setattr("recsys_rl.serving.work.watch.TRIES", 3)
    look, failed, good = Watch.now, list[int](), list[int]()
    with serving(two, db, **SOON) as client:
        worker = client.app.worker  # type: ignore[attr-defined]

        async def failing(self: Watch) -> int:
            release = worker.shared.active.history.under_way
            if len(failed) < 3:
                failed.append(release.start.number)
                if len(failed) == 2:
                    moment: Moment = await worker.submit(ReadMoment())
                    assert moment.challenger is not None
                    await worker.submit(Call(partial(end, challenger=b, reason="")))
                    again = partial(start, version=moment.challenger, share=0.5, unit="session")
                    await worker.submit(Call(again))
                raise sqlite3.OperationalError("disk I/O error")
            good.append(await look(self))
            return good[-1]

        monkeypatch.setattr(Watch, "now", failing)
        act(client, "start", sha256=b, share=0.5)
        until(lambda: len(good) > 0)
        assert failed[0] == failed[1] != failed[2]
        assert kinds(client) == ["start", "back", "start"] and not state(client)["frozen"]


def test_a_release_that_has_ended_is_no_longer_followed(two: Path, tmp_path: Path) -> None:
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        watch = client.app.services.watch  # type: ignore[attr-defined]
        act(client, "start", sha256=b, share=0.5)
        until(lambda: watch.followed is not None)
        act(client, "back", challenger=b)
        until(lambda: watch.followed is None)


def test_people_are_centred_by_their_sessions_before_the_prior_ones(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last 12 sessions before the release are of others; eleven people have three sessions before."""
    monkeypatch.setattr(
        "recsys_rl.serving.work.watch.CanarySettings", lambda: CanarySettings(learned=10, prior=12)
    )
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        for _ in range(3):
            visits(client, two, 11, 0.0, spread=0.2)
        visits(client, two, 12, 0.0, first=50, spread=0.2)
        time.sleep(0.05)
        act(client, "start", sha256=b, share=0.5, unit="user")
        visits(client, two, 11, 0.0, spread=0.2)  # the same as before: each is its own mean
        until(lambda: matured(client) == 11)
        found = state(client)["canary"]
        assert found["sessions"] == 11 and found["difference"] == pytest.approx(0.0, abs=1e-6)


def test_sessions_that_are_under_way_when_a_release_begins_are_not_prior(two: Path, tmp_path: Path) -> None:
    """Three are over; of two that go on one has later rows, in time and after its end."""
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        visits(client, two, 3, 0.0)
        stays, goes = recommend(client, "stays"), recommend(client, "goes")
        for one in (stays, goes):
            assert send(client, event(one, "engagement", 0.9)) == ["accepted"]
        time.sleep(0.05)
        act(client, "start", sha256=b, share=0.5)
        time.sleep(0.05)
        assert send(client, event(goes, "leave")) == ["accepted"]
        active = client.app.worker.shared.active  # type: ignore[attr-defined]
        outcomes = Outcomes([active.version, active.challenger], 3600.0)
        start, settings = active.history.under_way.start, CanarySettings(learned=3)
        canary = Followed(db, start, outcomes, settings, SOON["feedback_window"]).canary
    assert canary.centres.all[0] == canary.learned == 3
    assert canary.centres.all[1] == pytest.approx(0.5 + 0.51 + 0.52)


def test_the_sessions_before_a_release_are_read_once_for_each_person(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, people = Snapshot.latest_sessions, list[int]()

    def latest(self: Snapshot, below: int, most: int, person: int | None = None) -> list[int]:
        people.extend([] if person is None else [person])
        return read(self, below, most, person)

    monkeypatch.setattr(Snapshot, "latest_sessions", latest)
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        for _ in range(3):
            visits(client, two, 4, 0.0)
        until(lambda: matured(client) == 12)
    assert len(people) == len({*people}) == 4


def test_a_look_reads_one_moment_of_the_record(two: Path, tmp_path: Path) -> None:
    db = of_a(two, tmp_path)
    with serving(two, db, **SOON) as client:
        visits(client, two, 3, 0.0)
        active = client.app.worker.shared.active  # type: ignore[attr-defined]
        outcomes = Outcomes([active.version], 3600.0)
        with closing(Snapshot(db)) as reader:
            numbers = reader.sessions()
            visits(client, two, 3, 0.0, first=50)
            assert reader.sessions() == numbers and len(numbers) == 3
            assert len(outcomes.states(reader.whole_sessions(numbers))) == 3
        with closing(Snapshot(db)) as reader:
            assert len(reader.sessions()) == 6
            assert reader.sessions(numbers[0]) == reader.latest_sessions(1 << 62, 5)
            assert reader.sessions(0, numbers[2]) == numbers[:2] == reader.latest_sessions(numbers[2], 9)


def test_returns_are_by_the_weights_for_which_the_champion_was_trained(two: Path, tmp_path: Path) -> None:
    db = of_a(two, tmp_path)
    with serving(two, db, **SOON) as client:
        visits(client, two, 3, 0.0)
        version = client.app.worker.shared.active.version  # type: ignore[attr-defined]
    recommender, config = copy(version.recommender), version.checkpoint.config
    trained = replace(config, train_config=replace(config.train_config, weights=("engagement=2",)))
    recommender.checkpoint = replace(version.checkpoint, config=trained)
    rewards = []
    for champion_ in (version, Version(version.row, recommender)):
        outcomes = Outcomes([champion_, version], 3600.0)
        with closing(Snapshot(db)) as reader:
            found = outcomes.states(reader.whole_sessions(reader.sessions()))
        rewards.append([outcome.reward for outcome in outcomes.of([*found.values()])])
    assert rewards[0] == pytest.approx([0.5, 0.51, 0.52])
    assert rewards[1] == pytest.approx([1.0, 1.02, 1.04])


def test_a_challenger_that_fails_three_times_stops(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        challenger, scores = client.app.worker.shared.active.challenger.agent, PPO.scores  # type: ignore[attr-defined]

        def failing(self: PPO, obs: Obs) -> torch.Tensor:
            if self is challenger:
                raise ZeroDivisionError
            return scores(self, obs)

        monkeypatch.setattr(PPO, "scores", failing)
        answers = [recommend(client, str(at)) for at in range(20)]
        assert sum(answer["degraded"] is not None for answer in answers) == 3
        assert kinds(client) == ["start", "stop"] and champion(client) == ["a.pt"]
        assert client.get("/readyz").status_code == 200


def test_a_record_that_can_not_be_read_now_is_no_mistake_of_the_caller(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.serving.work.watch.TRIES", 1_000)  # a freeze would be written
    db, b = of_a(two, tmp_path), sha256(two / "b.pt")
    with serving(two, db, **SOON) as client:
        act(client, "start", sha256=b, share=0.5)
        db.rename(tmp_path / "away")
        try:
            assert client.get("/v1/release").status_code == 503
        finally:
            (tmp_path / "away").rename(db)
        assert state(client)["challenger"] == b

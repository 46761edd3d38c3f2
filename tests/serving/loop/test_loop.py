"""The loop beside a server: what it refuses, where it waits; and a kill in each phase changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.checkpoint import load, save
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.record_interval import IN_FLIGHT
from recsys_rl.serving.loop.client import Refused
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.rounds import Round, write_round
from recsys_rl.serving.loop.take_turns import LOCK, UNFIT, LoopConfig, _Place, loop
from recsys_rl.serving.loop.turn import Judge, Start, Wait
from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors
from recsys_rl.utils.files import sha256_of
from recsys_rl.utils.locks import lock
from tests.doors import SATIATION, assert_names, start, train_in
from tests.serving.live import Live, live
from tests.serving.servers import begun

WINDOW = 2.0  # seconds in which feedback counts: also that of a busy machine


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one policy that learned next to nothing."""
    folder = tmp_path_factory.mktemp("loop")
    (folder / "policies").mkdir()
    checkpoint = train_in(folder / "run", *SATIATION, "--total-timesteps", "48")
    shutil.copy(checkpoint, folder / "policies" / "first.pt")
    return folder / "policies"


@pytest.fixture(scope="module")
def server(policies: Path) -> Iterator[Live]:
    with live(policies, policies.parent / "record.sqlite", feedback_window=WINDOW) as running:
        yield running


def settings(server: Live, policies: Path, **other: Any) -> LoopConfig:
    record = policies.parent / "record.sqlite"
    return LoopConfig(db=str(record), policies=str(policies), url=server.url, quiet=True, **other)


def test_loop_waits_for_sessions_and_changes_nothing(server: Live, policies: Path) -> None:
    before = sorted(policies.rglob("*"))
    visitors(VisitorsConfig(server.url, str(policies / "first.pt"), sessions=20, width=4))
    time.sleep(WINDOW + IN_FLIGHT)
    steps = loop(settings(server, policies, sessions=21))
    assert steps == [Wait("20 of the 21 new sessions that a round needs")]
    assert {*policies.rglob("*")} - {*before} <= {policies / LOCK}


def test_release_that_ends_leaves_the_new_sessions_new(server: Live, policies: Path) -> None:
    """Those that a round has learned from are not new; a release changes nothing of that."""
    of, releases = settings(server, policies, sessions=10**6), Releases(server.url)
    visitors(VisitorsConfig(server.url, str(policies / "first.pt"), sessions=3, width=3))
    time.sleep(WINDOW + IN_FLIGHT)
    (before,) = loop(of)
    first, other = load(policies / "first.pt"), policies / "other.pt"
    save(other, dataclasses.replace(first, info={**first.info, "note": "another file"}))
    number = policies / "rounds/1/round.json"
    try:
        releases.act("start", sha256=sha256_of(other), share=0.5)
        releases.act("back", challenger=sha256_of(other))
        assert loop(of) == [before] and before != Wait("0 of the 1,000,000 new sessions that a round needs")
        until = max(row["number"] for row in releases.history())
        number.parent.mkdir(parents=True)
        write_round(policies, Round(1, "f" * 64, 0, until, ("e" * 64,)))
        assert loop(of) == [Wait("0 of the 1,000,000 new sessions that a round needs")]
    finally:
        other.unlink()
        shutil.rmtree(policies / "rounds", ignore_errors=True)


def test_two_loops_at_once_are_refused(server: Live, policies: Path) -> None:
    (policies / LOCK).touch()
    descriptor = lock(policies / LOCK)
    assert descriptor is not None
    try:
        with pytest.raises(UserError):
            loop(settings(server, policies))
    finally:
        os.close(descriptor)
    assert isinstance(loop(settings(server, policies))[-1], Wait)


def test_server_that_is_away_is_one_sentence(server: Live, policies: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(UserError):
            loop(LoopConfig(db=str(policies.parent / "record.sqlite"), policies=str(policies), url=url))


@pytest.mark.parametrize("sessions", [0, 3])
def test_server_of_one_file_is_refused_before_anything_is_learned(
    policies: Path, tmp_path: Path, sessions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    db, before = tmp_path / "one.sqlite", {*policies.rglob("*")}
    with live(policies / "first.pt", db, feedback_window=0.1) as server:
        assert Releases(server.url).status()["one_file"] == "first.pt"
        if sessions:
            visitors(VisitorsConfig(server.url, str(policies / "first.pt"), sessions=sessions, width=1))
            time.sleep(IN_FLIGHT + 0.2)
        words = ["--db", str(db), "--policies", str(policies), "--url", server.url, "--sessions", "1"]
        capsys.readouterr()
        assert main(["loop", *words]) == 2
        assert_names(capsys.readouterr().err, "first.pt", f"--checkpoint {policies}", f"--db {db}")
    assert {*policies.rglob("*")} - before <= {policies / LOCK}
    with live(policies, db, feedback_window=WINDOW) as server:  # as the sentence says
        assert Releases(server.url).status()["one_file"] == ""
        assert isinstance(loop(LoopConfig(str(db), str(policies), url=server.url))[-1], Wait)


def test_release_that_began_with_a_folder_goes_on_with_one_file(
    server: Live, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {**Releases(server.url).status(), "one_file": "first.pt"}
    other = {**status, "challenger": "f" * 64}
    answers(monkeypatch, status=other)
    steps = loop(settings(server, policies))
    assert steps == [Wait("a challenger that no round of this folder learned is serving")]


def test_folder_that_is_not_there_is_refused(server: Live, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        loop(settings(server, tmp_path / "nowhere"))


def test_champion_with_a_first_stage_is_refused_before_anything_is_learned(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    checkpoint = train_in(tmp_path / "run", *SATIATION, "--total-timesteps", "48", "--candidates", "8")
    first = Path(shutil.copy(checkpoint, tmp_path / "policies" / "first.pt"))
    begun(first, tmp_path / "r.sqlite")
    with pytest.raises(UserError) as refused:
        loop(LoopConfig(db=str(tmp_path / "r.sqlite"), policies=str(first.parent), url="http://127.0.0.1:9"))
    assert "first stage" in str(refused.value)


def answers(monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """A server that gives these answers in place of its own."""
    for name, answer in given.items():
        monkeypatch.setattr(Releases, name, lambda *_, answer=answer, **__: answer)


def test_record_of_another_server_is_refused(
    server: Live, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = Releases(server.url).status()
    answers(monkeypatch, status={**status, "champion": "f" * 64})
    with pytest.raises(UserError):
        loop(settings(server, policies))
    answers(monkeypatch, status=status, history=[{"number": 10**6, "challenger": "f" * 64}])
    with pytest.raises(UserError):
        loop(settings(server, policies))


def test_record_of_another_server_with_the_same_policy_is_refused(
    server: Live, policies: Path, tmp_path: Path
) -> None:
    """Both have had no release; only what they decided differs."""
    visitors(VisitorsConfig(server.url, str(policies / "first.pt"), sessions=2, width=1))
    with live(policies, tmp_path / "other.sqlite", feedback_window=WINDOW) as other:
        for sessions in (0, 1):
            if sessions:
                visitors(VisitorsConfig(other.url, str(policies / "first.pt"), sessions=1, width=1))
            with pytest.raises(UserError):
                loop(settings(other, policies))
        options = settings(other, policies, sessions=10**6)
        assert loop(dataclasses.replace(options, db=str(tmp_path / "other.sqlite")))


@pytest.mark.parametrize("share", [0.0, 0.0009, 1.0])
def test_share_that_the_server_would_refuse(server: Live, policies: Path, share: float) -> None:
    with pytest.raises(UserError):
        settings(server, policies, share=share)


@pytest.mark.parametrize("line", [[], ["--token", "typed"]])
def test_token_of_the_environment(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = list[str | None]()
    monkeypatch.setenv("RECSYS_RL_TOKEN", "secret")
    monkeypatch.setattr(
        "recsys_rl.serving.loop.take_turns.loop", lambda options: tokens.append(options.token)
    )
    assert main(["loop", "--policies", "policies", *line]) == 0
    assert tokens == ["typed" if line else "secret"]


def test_candidate_that_the_server_refuses_is_not_offered_again(server: Live, policies: Path) -> None:
    """Its file is lost: the server does not know it. A new judgement would try it again."""
    lost = "e" * 64
    path = policies / f"{lost}.gate.json"
    place = _Place(settings(server, policies), policies)
    champion = Releases(server.url).status()["champion"]
    path.write_text(
        json.dumps({"challenger": lost, "champion": champion, "answer": "better", "difference": 2})
    )
    try:
        (said,) = place.do(Start(lost, 0.05))
        assert said.startswith("eeeeeeee can't serve")
        verdict = place._verdicts(Round(1, champion, 0, 9, (lost,)))[lost]
        assert verdict.answer == "better" and "SHA-256" in verdict.refused
        with pytest.raises(Refused) as refused:  # that one serves already: no fault of its own
            Releases(server.url).act("start", sha256=champion, share=0.1)
        assert refused.value.code == "is-champion" and refused.value.code not in UNFIT
        with pytest.raises(UserError):
            list(place.do(Judge((lost,))))
    finally:
        path.unlink()


def test_verdicts_about_another_champion_do_not_count(tmp_path: Path) -> None:
    """A promotion came in between: the candidate of the same round must be judged beside the new champion."""
    old, now, one, two = "a" * 64, "b" * 64, "c" * 64, "d" * 64
    for name, champion in ((one, now), (two, old)):
        verdict = {"challenger": name, "champion": champion, "answer": "better", "difference": 2.0}
        (tmp_path / f"{name}.gate.json").write_text(json.dumps(verdict))
    place = _Place(LoopConfig(policies=str(tmp_path)), tmp_path)
    assert {*place._verdicts(Round(1, now, 0, 9, (one, two)))} == {one}
    assert {*place._verdicts(Round(1, old, 0, 9, (one, two)))} == {two}
    assert place._verdicts(None) == {}


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_kill_in_each_phase_ends_with_the_same_versions_and_verdicts(tmp_path: Path) -> None:
    """Three turns on a world of 50 items: undisturbed, and killed (SIGKILL) once in each phase."""
    process = start(tmp_path, "benchmarks.loop_kills", "--phases")
    out, err = process.communicate(timeout=880)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "killed in 8 of 8 phases; releases: start, share, " in out
    assert "differences: 0" in out

"""The exported log against the record: the same policy gives the probabilities with which it drew."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.errors import UserError
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe
from recsys_rl.recommender import load
from recsys_rl.serving.at_rest.export_log import _id_of, export
from recsys_rl.serving.at_rest.export_survey import Logger, logger_names, times_of
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult, draw
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.record.record_schema import Decision, ServedPolicy, Session
from recsys_rl.types import Interface
from recsys_rl.utils.files import sha256_of
from recsys_rl.utils.user_hashes import number_of
from tests.doors import SERVED
from tests.serving.servers import begun, event, recommend, send, serving, trained

At = Callable[[str], Path]
LATER = 6000.0  # seconds after which sessions that have ended are mature


def test_loggers_of_one_name_have_different_names() -> None:
    old, new = ServedPolicy(1, "ppo", "a" * 64, "a.pt"), ServedPolicy(2, "ppo", "b" * 64, "b.pt")
    drawn: dict[Logger, ServedPolicy | None] = {
        ("ppo", 0.0): None,
        (1, 0.0): old,
        (2, 0.0): new,
        (1, 0.25): old,
        (0, 0.0): new,
    }
    assert list(logger_names(drawn).items()) == [
        (("ppo", 0.0), "ppo (application)"),
        ((1, 0.0), "ppo"),
        ((2, 0.0), "ppo (bbbbbbbb)"),
        ((1, 0.25), "0.75 ppo + 0.25 random"),
        ((0, 0.0), "popularity-drawn"),
    ]


def test_times_of_a_session_do_not_fall() -> None:
    """The clock was set back by two seconds after the second decision."""
    session = SessionState(Session(1, 1, 0, 0.0, -1, (), 1.0, 1.0), Interface((), (3,)))
    rest = (1, "", "", 12.0, (0,), (0.0,), (0.5,), 0.0, None, (), "", b"")
    times = {4: 10.0, 6: 12.5, 7: 10.5, 9: 13.0}
    session.decisions = [
        Decision(number, 1, step, at, *rest) for step, (number, at) in enumerate(times.items())
    ]
    assert times_of(session) == {4: 10_000, 6: 12_500, 7: 12_500, 9: 13_000}


@pytest.mark.parametrize("platform", SERVED)
def test_a_policy_gives_the_logged_probabilities_on_every_platform(
    checkpoint: At, tmp_path: Path, platform: str
) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint(platform)
    lists = load_checkpoint(path).interface.slate_size == 1
    with serving(path, db) as client:
        by_hour = client.get("/v1/platform").json()["by_hour"]
        for user in range(6):
            for step in range(4):
                hour = {"context": {"hour": 12 + step / 10}} if by_hour else {}
                more = {"n": 2} if lists and step == 1 else {}
                answer = recommend(client, str(user), **hour, **more)
                if platform == "social-feed":
                    send(client, event(answer, "followed"))
            assert send(client, event(answer, "leave")) == ["accepted"]
    export(record := Record(db), out, interval_of(record, now=time.time() + LATER))
    log, recommender = read_decisions(out), load(path)
    assert log.num_rows == (30 if lists else 24)
    again = recommender.agent.place_logprobs(observe(log, recommender.catalogue), log.items).sum(1)
    torch.testing.assert_close(again, log.logprobs, atol=1e-4, rtol=0)


def test_a_policy_with_a_first_stage_shares_no_log(checkpoint: At, tmp_path: Path) -> None:
    """The record has no candidates that its first stage proposed where another policy decided."""
    db, out, folder = tmp_path / "r.sqlite", tmp_path / "log.parquet", tmp_path / "both"
    folder.mkdir()
    staged = ("--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25")
    first = Path(shutil.copy(trained(tmp_path, "satiation", *staged), folder / "1.pt"))
    other = Path(shutil.copy(checkpoint("satiation"), folder / "2.pt"))
    with serving(begun(first, db), db) as client:
        for user in "12":
            send(client, event(recommend(client, user), "leave"))
            if user == "1":
                body = {"sha256": sha256_of(other)}
                assert client.post("/v1/release/alias", json=body).status_code == 200
    with pytest.raises(UserError):
        export(record := Record(db), out, interval_of(record, now=time.time() + LATER))
    assert not out.exists()


def test_sessions_in_which_popularity_answered_for_a_first_stage_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    path = trained(
        tmp_path, "satiation", "--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25"
    )
    with serving(path, db) as client:
        send(client, event(recommend(client, "1"), "leave"))
        with monkeypatch.context() as patch:
            patch.delattr("recsys_rl.serving.draw.rule._scores")
            answer = recommend(client, "2")
        assert answer["degraded"] == "raised"
        send(client, event(answer, "leave"))
    survey, number = export(record := Record(db), out, interval_of(record, now=time.time() + LATER))
    assert (len(survey.sessions), survey.without_candidates, number) == (1, 1, 1)
    assert read_decisions(out).logger_logprobs is None


def test_popularity_has_its_own_name_in_a_log_and_each_row_its_own_logger(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(asks: Sequence[DrawRequest]) -> list[DrawResult]:
        """Draws on another processor, with other last digits."""
        return [replace(x, logprobs=[y + 1e-6 for y in x.logprobs]) for x in draw(asks)]

    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint("satiation")
    answers = []
    with serving(path, db) as client:
        for fails in (False, True, False):
            with monkeypatch.context() as patch:
                if fails:
                    patch.delattr("recsys_rl.serving.draw.rule._scores")
                answers.append(recommend(client, "3"))
        send(client, event(answers[-1], "leave"))
    monkeypatch.setattr("recsys_rl.serving.at_rest.export_log.draw", elsewhere)
    export(record := Record(db), out, interval_of(record, now=time.time() + LATER))
    log, recommender = read_decisions(out), load(path)
    assert log.header.loggers == ("ppo", "popularity-drawn") and log.loggers.tolist() == [0, 1, 0]
    assert [x["policy"]["name"] for x in answers] == ["ppo", "popularity", "ppo"]
    own = recommender.agent.place_logprobs(observe(log, recommender.catalogue), log.items).sum(1)
    popular = (recommender.catalogue.popularity + 1e-3).log().expand(3, -1).clone()
    for step, row in enumerate(popular):
        row[log.items[:step, 0]] = -torch.inf
    popular = popular.log_softmax(1).gather(1, log.items).squeeze(1)
    assert log.logger_logprobs is not None
    expected = torch.stack([own, popular], 1).double()
    torch.testing.assert_close(log.logger_logprobs, expected, atol=1e-5, rtol=0)
    # Of its own logger a row has the number of the record.
    assert log.logprobs.exp().tolist() == pytest.approx([x["propensity"] for x in answers], rel=1e-12)
    assert torch.equal(log.logprobs, log.logger_logprobs.gather(1, log.loggers.unsqueeze(1)).squeeze(1))


def test_a_stranger_keeps_the_id_that_later_data_know(checkpoint: At, tmp_path: Path) -> None:
    """A number after those of the data would be another person's in a grown population."""
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    own = {"3": 3, "205": 205, "30": 30, "0": 0, str(2**63 - 1): 2**63 - 1}
    made = ["ann", "007", "3.0", " 3", str(2**63), "\u0663", "-4", str(-(2**63)), str(-(2**63) - 1), "-0"]
    made += ["9" * 19, "-" + "9" * 19, "9" * 200]
    with serving(checkpoint("satiation"), db) as client:
        for user in (*own, *made):
            send(client, event(recommend(client, user), "leave"))
    export(record := Record(db), out, interval_of(record, now=time.time() + LATER))
    users = read_decisions(out).users.tolist()
    assert users == [*own.values(), *map(number_of, made)] and len({*users}) == len(users)
    assert min(map(number_of, made)) >= 0 and number_of("ann") == 5088345978781694418
    assert _id_of("205", texts=True) == number_of("205")  # there 205 is the row of somebody

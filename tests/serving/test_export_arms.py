"""The arms of a release in an export: the probability of a session under both together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.errors import UserError
from recsys_rl.functional.patterns import Patterns
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.recommender import load
from recsys_rl.serving.at_rest.export_arms import _mixed
from recsys_rl.serving.at_rest.export_record import Exported, export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.draw import rule
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Session, SessionRows
from recsys_rl.types import Obs
from recsys_rl.utils.files import sha256_of
from tests.own_logs import policy, sessions
from tests.serving.servers import begun, event, recommend, send, serving, trained
from tests.serving.test_releases import act
from tests.serving.test_snapshot import decision

At = Callable[[str], Path]
LATER = 9000.0
SHARE = 0.4  # of the challenger


def exported(db: Path, out: Path) -> Exported:
    record = open_snapshot(db)
    try:
        return export_record(record, out, interval_of(record, now=time.time() + LATER))
    finally:
        record.store.close()


def of_sessions(log: DecisionLog, logprobs: torch.Tensor) -> torch.Tensor:
    """(G,) the probability of each session."""
    number = (log.steps == 0).cumsum(0) - 1
    return torch.zeros(log.num_sessions, dtype=torch.float64).index_add(0, number, logprobs.double()).exp()


def test_the_mixture_by_hand() -> None:
    """A list of two items, one that popularity gave as it was late, one more, and one after the release."""
    own, other = ((0.5, 0.2), (0.25,), (0.3,), (0.9,)), {1: (0.1, 0.4), 3: (0.8,)}
    made = [
        msgspec.structs.replace(
            decision(number, 9, number, 0.0),
            logprobs=tuple(map(math.log, chances)),
            application="",
            arm="" if number == 4 else "challenger",
            arm_probability=0.25,
            degraded="late" if number == 2 else "",
        )
        for number, chances in zip((1, 2, 3, 4), (own[0], own[1], own[2], own[3]), strict=True)
    ]
    rows = SessionRows(Session(9, 8, 0, 0.0, -1, (), 1.0, 1.0), made, [])
    mixed = _mixed(rows, {number: [*map(math.log, chances)] for number, chances in other.items()}).decisions
    found = [tuple(map(math.exp, row.logprobs)) for row in mixed]
    first = 0.25 * 0.5 + 0.75 * 0.1  # .2
    second = (0.25 * 0.5 * 0.2 + 0.75 * 0.1 * 0.4) / first  # .055 / .2
    third = (0.25 * 0.5 * 0.2 * 0.3 + 0.75 * 0.1 * 0.4 * 0.8) / (first * second)
    assert found == [pytest.approx(row) for row in ((first, second), own[1], (third,), own[3])]
    assert math.prod(found[0] + found[2]) == pytest.approx(0.25 * 0.03 + 0.75 * 0.032)


def test_the_product_over_a_session_is_the_sum_over_the_arms(two: Path, tmp_path: Path) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    champion, challenger = two / "a.pt", two / "b.pt"
    with serving(begun(champion, db), db, explore=0.1) as client:
        act(client, "start", sha256=sha256_of(challenger), share=SHARE)
        seen = set[str]()
        for user in range(24):
            for step in range(3):
                answer = recommend(client, str(user), **({"exclude": ["1", "2"]} if step == 1 else {}))
                send(client, event(answer, "engagement", step / 4))
            seen.add(answer["policy"]["sha256"])
            send(client, event(answer, "leave"))
        assert len(seen) == 2
        for user in range(8):
            recommend(client, f"open {user}")
        act(client, "back", challenger=sha256_of(challenger))  # from here on the champion answers all
        for user in range(8):
            send(client, event(recommend(client, f"open {user}"), "leave"))
    done = exported(db, out)
    log, catalogue = read_decisions(out), load(champion).catalogue
    assert done.sessions == log.num_sessions == 32 and log.num_rows == 24 * 3 + 8 * 2
    assert len(log.header.loggers) == 1 and log.logger_logprobs is None
    obs, each = observe(log, catalogue), []
    for path in (champion, challenger):
        own = load(path).agent.place_logprobs(obs, log.items).sum(1).double().exp()
        showable = obs.showable(catalogue.num_items).sum(1)
        each.append((0.9 * own + 0.1 / showable).log())
    after = log.sessions.unique_consecutive(return_inverse=True)[1] >= 24
    after &= log.steps == 1  # these were made after the release
    each[1] = torch.where(after, each[0], each[1])
    expected = (1 - SHARE) * of_sessions(log, each[0]) + SHARE * of_sessions(log, each[1])
    torch.testing.assert_close(of_sessions(log, log.logprobs), expected, rtol=1e-4, atol=0)
    # By hand: the first decision has the plain mixture, the second one by what the first one showed.
    first, second = each[0][:2].exp().tolist(), each[1][:2].exp().tolist()
    mixed = (1 - SHARE) * first[0] + SHARE * second[0]
    weight = SHARE * second[0] / mixed
    assert log.logprobs[:2].exp().tolist() == pytest.approx(
        [mixed, (1 - weight) * first[1] + weight * second[1]], rel=1e-4
    )
    assert not torch.allclose(each[0], each[1], atol=0.01)


def test_an_arm_whose_policy_fails_has_the_probability_of_popularity(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenger fails at each second step, whichever arm has the session."""
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    champion, challenger = two / "a.pt", two / "b.pt"
    scores_of = rule._scores

    def failing(version: Version, obs: Obs) -> tuple[Obs, torch.Tensor, Patterns | None]:
        obs, scores, slates = scores_of(version, obs)
        if version.row.sha256 == sha256_of(challenger) and obs.history is not None:
            scores = scores.masked_fill(((obs.history >= 0).sum(1) == 1).unsqueeze(1), math.nan)
        return obs, scores, slates

    monkeypatch.setattr(rule, "_scores", failing)
    degraded = {}
    with serving(begun(champion, db), db) as client:
        act(client, "start", sha256=sha256_of(challenger), share=SHARE)
        for user in range(16):
            for step in range(3):
                answer = recommend(client, str(user))
                degraded[user, step] = answer["degraded"]
            send(client, event(answer, "leave"))
    failed = [of for of, why in degraded.items() if why == "not-finite"]
    assert 0 < len(failed) < 16 and {step for _, step in failed} == {1}
    exported(db, out)
    log, catalogue = read_decisions(out), load(champion).catalogue
    obs, each = observe(log, catalogue), []
    popular = (catalogue.popularity + 1e-3).log().expand(log.num_rows, -1)
    popular = popular.masked_fill(~obs.showable(catalogue.num_items), -math.inf).log_softmax(1)
    for path in (champion, challenger):
        each.append(load(path).agent.place_logprobs(obs, log.items).sum(1).double())
    each[1] = torch.where(log.steps == 1, popular.gather(1, log.items).squeeze(1).double(), each[1])
    expected = (1 - SHARE) * of_sessions(log, each[0]) + SHARE * of_sessions(log, each[1])
    torch.testing.assert_close(of_sessions(log, log.logprobs), expected, rtol=1e-4, atol=0)


def test_a_table_of_an_own_place_has_the_arms_together(tmp_path: Path) -> None:
    db, out, folder = tmp_path / "r.sqlite", tmp_path / "log.parquet", tmp_path / "policies"
    folder.mkdir()
    table, weights = sessions(tmp_path / "s.csv"), {"weights": ("clicked=1", "dwell=0.5")}
    paths = [
        policy(folder / "a.pt", table, "reinforce", seed=0, **weights),
        policy(folder / "b.pt", table, "reinforce", seed=1, **weights),
    ]
    with serving(begun(paths[0], db), db) as client:
        act(client, "start", sha256=sha256_of(paths[1]), share=SHARE)
        for user in range(16):
            for _ in range(3):
                answer = recommend(client, f"u{user}", context={"age": 20 + user})
                send(client, event(answer, "clicked", user % 2))
            send(client, event(answer, "leave"))
    exported(db, out)
    read = pl.read_parquet(out)
    assert (read["policy"].n_unique(), read["version"].n_unique()) == (1, 2)
    each = []
    for path in paths:
        known = load_checkpoint(path)
        tables = known.config.platform.tables
        assert tables is not None
        source = tables.open_log(
            (str(out),), known.config.data_config, known.config.env_config, known.catalogue
        )
        log = concatenate([*source.parts(10**6)])
        with torch.no_grad():
            each.append(agent_of(known).logprob(observe(log, known.catalogue), log.items).double())
    expected = (1 - SHARE) * of_sessions(log, each[0]) + SHARE * of_sessions(log, each[1])
    torch.testing.assert_close(of_sessions(log, log.logprobs), expected, rtol=1e-4, atol=0)
    assert not torch.allclose(each[0], each[1], atol=0.01)


def test_an_arm_with_a_first_stage_shares_no_log(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "log.parquet"
    staged = ("--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25")
    first = trained(tmp_path, "satiation", *staged)
    other = first.with_name("other.pt")
    other.write_bytes(checkpoint("satiation").read_bytes())
    with monkeypatch.context() as earlier, serving(begun(other, db), db) as client:
        earlier.setattr(Version, "two_stages", False)  # an earlier version of the server took it
        act(client, "start", sha256=sha256_of(first), share=0.01)
        for user in range(5):
            send(client, event(recommend(client, str(user)), "leave"))
    with pytest.raises(UserError):
        exported(db, out)
    assert not out.exists()

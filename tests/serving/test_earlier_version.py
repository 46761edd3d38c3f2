"""A record of an earlier version, whose policies this one can't load, is exported all the same."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from recsys_rl.checkpoint import sealed
from recsys_rl.errors import UserError
from recsys_rl.logs.parts import read_decisions
from recsys_rl.recommender import load
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.record.record_schema import ServedPolicy, decoded, digest, encoded
from recsys_rl.utils.files import sha256_of
from tests.own_logs import policy, sessions
from tests.serving.servers import begun, event, recommend, send, serving, trained
from tests.serving.test_releases import act

LATER = 9000.0  # seconds after which sessions are mature
STAGED = ("--head", "two-tower", "--candidates", "8", "--explore-rate", "0.25")


def exported(db: Path, out: Path) -> pl.DataFrame:
    record = Record(db)
    try:
        export_record(record, out, interval_of(record, now=time.time() + LATER))
    finally:
        record.store.close()
    return pl.read_parquet(out).drop("version", strict=False)  # of an own place: the SHA-256


def with_another_head(texts: dict[str, Any], tensors: dict[str, Any]) -> None:
    texts["config"]["model_config"]["head"] = "of-long-ago"


def with_towers_that_expect_no_rewards(texts: dict[str, Any], tensors: dict[str, Any]) -> None:
    texts["config"]["model_config"]["head"] = "two-tower"
    tensors["agent.model.head.votes"] = tensors.pop("agent.model.value_head.weight")
    tensors.pop("agent.model.head.expected.scale", None)


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def as_of_an_earlier_version(path: Path, db: Path, change: Change) -> None:
    """The checkpoint as an earlier version had written it, under its SHA-256 in the record, too."""
    texts, tensors = sealed.read(path)
    change(texts, tensors)
    served = sha256_of(path)
    sealed.write(path, {name: texts[name] for name in texts if name not in ("sha256", "format")}, tensors)
    sealed.previous(path).unlink()  # the refusal of a file looks at it, too
    connection = sqlite3.connect(db)
    for number, row in connection.execute("SELECT number, row FROM policies").fetchall():
        policy = decoded(ServedPolicy, row)
        if policy.sha256 == served:
            row = encoded(msgspec.structs.replace(policy, sha256=sha256_of(path)))
            values = (row, digest(row), number)
            connection.execute("UPDATE policies SET row = ?, digest = ? WHERE number = ?", values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("own", with_another_head),
        ("satiation", with_another_head),
        ("satiation", with_towers_that_expect_no_rewards),
        ("staged", with_another_head),
        ("shop-coupons", with_another_head),
        ("social-feed", with_another_head),
    ],
)
def test_an_export_needs_no_networks(tmp_path: Path, place: str, change: Change) -> None:
    db, context = tmp_path / "r.sqlite", {"age": 30.0} if place == "own" else {}
    if place == "own":
        path = policy(
            tmp_path / "p.pt", sessions(tmp_path / "sessions.csv"), "reinforce", weights=("clicked=1",)
        )
    else:
        path = trained(tmp_path, *(("satiation", *STAGED) if place == "staged" else (place,)))
    with serving(path, db, explore=0.2) as client:
        interface, single = load(path).checkpoint.interface, place in ("own", "satiation")
        items = [item["item_id"] for item in client.get("/v1/items").json()["items"]]
        for user in range(4):
            more: dict[str, Any] = {"exclude": items[:2]} if user == 1 else {}
            if user == 2 and single:
                more["candidates"] = items[-8:]
            for step in range(2):
                n = {"n": 2} if user == 3 and step and single else {}
                answer = recommend(client, str(user), **more, **n, context=context)
                send(client, event(answer, interface.signals[0]))
            assert send(client, event(answer, "leave")) == ["accepted"]
    before = exported(db, tmp_path / "before.parquet")
    as_of_an_earlier_version(path, db, change)
    with pytest.raises(UserError):
        load(path)
    after = exported(db, tmp_path / "after.parquet")
    assert before.height >= 8 and before.equals(after)
    if place != "own":
        headers = [read_decisions(tmp_path / f"{when}.parquet").header for when in ("before", "after")]
        assert headers[0] == headers[1]
    record = Record(db)
    assert check(record).not_replayed  # a draw needs the networks
    record.store.close()


def test_the_arms_of_a_release_need_their_networks(two: Path, tmp_path: Path) -> None:
    db, policies = tmp_path / "r.sqlite", Path(shutil.copytree(two, tmp_path / "policies"))
    with serving(begun(policies / "a.pt", db), db) as client:
        act(client, "start", sha256=sha256_of(policies / "b.pt"), share=0.5)
        send(client, event(recommend(client, "1"), "leave"))
    assert exported(db, tmp_path / "before.parquet").height == 1
    as_of_an_earlier_version(policies / "b.pt", db, with_another_head)
    with pytest.raises(UserError):
        exported(db, tmp_path / "after.parquet")

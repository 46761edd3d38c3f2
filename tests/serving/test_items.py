"""Items of a team's own place come, change and go while a server answers."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import torch

from benchmarks.harness.forked import Forked
from benchmarks.harness.served import Connection
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import over
from recsys_rl.cli import main
from recsys_rl.data.tables.item_encoding import StockItem, items_of
from recsys_rl.data.timeline import STOCK
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.replay import replay
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log, over_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.contexts import given_context
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import Record, open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.loop.gate_compare import unjudged
from recsys_rl.serving.record.record_schema import FORMAT, Row
from recsys_rl.serving.record.store import Full, Store
from tests.own_logs import clicks, policy, write_csv
from tests.serving.servers import event, recommend, send, serving

LATER = 9000.0  # seconds after which sessions are mature
CONTEXT = {"age": 30.5, "device": "desk", "v": [0.5, -0.25]}
ITEMS = [{"item_id": f"i{x}", "features": {"brand": "ab"[x % 2], "price": 1.5 * x}} for x in range(4)]
NEW = {"item_id": "n1", "title": "New", "features": {"brand": "c", "price": 2.0}}


def items_file(path: Path) -> Path:
    rows = [[f"i{x}", "ab"[x % 2], 1.5 * x] for x in range(4)]
    return write_csv(path, ["item", "brand", "price"], rows)


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    items = items_file(folder / "items.csv")
    return policy(folder / "p.pt", clicks(folder / "clicks.csv"), "reinforce", items=str(items))


@pytest.fixture(scope="module")
def by_id(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ids")
    return policy(folder / "p.pt", clicks(folder / "clicks.csv"), "reinforce")


def post(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    found = client.post("/v1/items", json=fields)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def exported(db: Path, out: Path, until: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The log, and its items."""
    record = open_snapshot(db)
    try:
        export_record(record, out, interval_of(record, 0, until, now=time.time() + LATER))
    finally:
        record.store.close()
    return pl.read_parquet(out), pl.read_parquet(out.with_name(f"{out.stem}.items.parquet"))


def shown(client: httpx.Client, draws: int, **fields: Any) -> set[str]:
    return {
        place["item_id"]
        for user in range(draws)
        for place in recommend(client, f"u{user}", context=CONTEXT, **fields)["items"]
    }


def test_items_come_change_and_go(one_step: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(one_step, db, explore=0.5) as client:
        assert client.get("/v1/platform").json()["features"] == {"brand": "text", "price": "number"}
        same = post(client, items=ITEMS)
        assert same == {
            "added": 0, "changed": 0, "withdrawn": 0, "unchanged": 4,
            "items": 4, "stock": 4, "unknown_values": 0, "incomplete": [], "not_showable": 0,
        }  # fmt: skip
        change = {"items": [NEW, {**ITEMS[1], "features": {"brand": "a"}}], "withdraw": ["i0"]}
        answer = post(client, **change)
        assert (answer["added"], answer["changed"], answer["withdrawn"]) == (1, 1, 1)
        repeated = post(client, **change)  # as of a caller who lost the answer
        assert (repeated["unchanged"], repeated["withdrawn"], repeated["stock"]) == (3, 0, answer["stock"])
        assert (answer["items"], answer["unknown_values"]) == (4, 1)
        assert shown(client, 80) == {"n1", "i1", "i2", "i3"}
        found = {x["item_id"]: x["available"] for x in client.get("/v1/items?q=").json()["items"]}
        assert found == {"i0": False, "i1": True, "i2": True, "i3": True, "n1": True}
        assert client.get("/v1/platform").json()["items"] == 4
    with serving(one_step, db, explore=0.5) as client:  # the stock is that of the record
        again = post(client, items=[NEW], withdraw=[])
        assert again["unchanged"] == 1 and again["stock"] == answer["stock"]
        assert shown(client, 80) == {"n1", "i1", "i2", "i3"}
        back = post(client, items=[ITEMS[0]])
        assert (back["added"], back["items"]) == (1, 5)
        decision = recommend(client, "u0", context=CONTEXT, candidates=["i0", "gone"])
        assert decision["items"][0]["item_id"] == "i0" and decision["unknown"] == ["gone"]
        assert client.get(f"/v1/decisions/{decision['decision_id']}").json()["replayed"] is True
    record = Record(db)
    try:
        assert check(record).replayed == 161
    finally:
        record.store.close()


def test_only_is_the_whole_stock(one_step: Path, tmp_path: Path) -> None:
    with serving(one_step, tmp_path / "r.sqlite") as client:
        first = post(client, items=[NEW, *ITEMS[2:]], only=True)
        assert (first["added"], first["withdrawn"], first["unchanged"], first["items"]) == (1, 2, 2, 3)
        again = post(client, items=[NEW, *ITEMS[2:]], only=True)
        assert (again["added"], again["withdrawn"], again["unchanged"]) == (0, 0, 3)
        assert again["stock"] == first["stock"]


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"items": [{"item_id": "x", "features": {"colour": "red"}}]}, 422, "wrong-item", "colour"),
        ({"items": [{"item_id": "x", "features": {"price": "dear"}}]}, 422, "wrong-item", "price"),
        ({"items": [{"item_id": "x", "features": {"brand": 3}}]}, 422, "wrong-item", "brand"),
        ({"items": [{"item_id": "x", "features": {"price": 1e30}}]}, 422, "wrong-item", "price"),
        ({"items": [{"item_id": "x", "features": {"price": True}}]}, 422, "wrong-field", "features"),
        ({"items": [{"item_id": " nan "}]}, 422, "wrong-item", "gap"),
        ({"items": [NEW, NEW]}, 422, "item-twice", "n1"),
        ({"items": [ITEMS[0]], "withdraw": ["i0"]}, 422, "item-twice", "i0"),
        ({"items": [NEW], "withdraw": ["i7"]}, 422, "unknown-item", "i7"),
        ({"withdraw": ["i0", "i1", "i2"]}, 409, "too-few-items", "1 item "),
        ({"items": [NEW], "only": True}, 409, "too-few-items", "1 item "),
        ({"items": [{"item_id": "x", "color": 1}]}, 422, "wrong-field", "color"),
    ],
)
def test_a_wrong_post_changes_nothing(
    one_step: Path, tmp_path: Path, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    with serving(one_step, tmp_path / "r.sqlite") as client:
        found = client.post("/v1/items", json=body)
        assert (found.status_code, found.json()["title"]) == (status, code) and said in found.json()["detail"]
        assert post(client, items=ITEMS)["stock"] == 4


def test_a_dense_head_shows_what_it_knows(by_id: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(by_id, db, explore=0.5) as client:
        answer = post(client, items=[{"item_id": "n1"}], withdraw=["i2"])
        assert (answer["items"], answer["not_showable"]) == (4, 1)
        assert shown(client, 60) == {"i0", "i1", "i3"}
        found = client.post("/v1/items", json={"items": [{"item_id": "n2"}], "withdraw": ["i0", "i1", "i3"]})
        assert found.json()["title"] == "policy-fails"
        assert shown(client, 60) == {"i0", "i1", "i3"}
    _, items = exported(db, tmp_path / "log.parquet")
    assert items["item"].to_list() == ["i0", "i1", "i2", "i3", "n1"]
    assert items["stock_to"].to_list() == [None, None, 5, None, None]


def test_an_item_that_changes_is_shown_once_in_a_session(tmp_path: Path) -> None:
    rows = [
        [user, f"s{user}", step, f"i{(user + step) % 4}", 1, 0.25, 30.0]
        for user in range(20)
        for step in range(2)
    ]
    header = ["user", "session", "step", "item", "clicked", "propensity", "context.age"]
    log = write_csv(tmp_path / "log.csv", header, rows)
    first = policy(tmp_path / "p.pt", log, "reinforce", items=str(items_file(tmp_path / "items.csv")))
    db, context = tmp_path / "r.sqlite", {"age": 30.0}
    with serving(first, db, explore=1.0) as client:
        for user in range(30):
            one = recommend(client, f"u{user}", context=context)["items"][0]["item_id"]
            features = {"brand": "ab"[user % 2], "price": user / 7}
            post(client, items=[{"item_id": one, "features": features}])
            two = recommend(client, f"u{user}", context=context)["items"][0]["item_id"]
            assert one != two
    record = Record(db)
    try:
        assert check(record).replayed == 60
    finally:
        record.store.close()


def assert_probabilities_are_those_of_the_log(checkpoint: Path, log: Path, uniform: float) -> None:
    """The policy over the items of the log has a share of 1 where only it decides; all items add to 1."""
    policy = over_log(load_at_home(checkpoint), (str(log),))
    (part,) = open_log((str(log),), policy).parts(PART)
    obs = observe(part, policy.catalogue)
    shown = obs.showable(policy.catalogue.num_items)
    assert bool(shown.gather(1, part.items).all())
    chances = agent_of(policy).item_probabilities(obs, policy.catalogue.num_items)
    assert bool((chances[~shown] == 0).all())
    torch.testing.assert_close(chances.sum(1), torch.ones(len(chances), dtype=torch.float64))
    assert shown.sum(1).tolist()[:2] == [4, 4] and part.logprobs[0].exp() == pytest.approx(uniform)
    # A row of an item that has changed has the features of then.
    prices = {"i1": 1.5}
    assert prices["i1"] in {item.features.get("price") for item in items_of(policy.catalogue)}


@pytest.mark.parametrize("known", [True, False])
def test_the_log_has_the_probabilities_of_the_policy(
    one_step: Path, by_id: Path, tmp_path: Path, known: bool
) -> None:
    """Weights of the policy that decided are 1, whatever came and went in between."""
    db, checkpoint = tmp_path / "r.sqlite", one_step if known else by_id
    with serving(checkpoint, db) as client:
        for turn in range(6):
            for user in range(15):
                answer = recommend(client, f"{turn}-{user}", context={**CONTEXT, "age": 1.0 + user})
                send(client, event(answer, "leave"))
            features = {"brand": "abc"[turn % 3], "price": turn / 3} if known else {}
            post(
                client,
                items=[{"item_id": f"n{turn % 3}", "features": features}],
                withdraw=[f"i{turn}"][turn > 1 :],
            )
            if turn == 3:  # the last change before a decision is a withdrawal
                post(client, withdraw=["i3"])
    exported(db, tmp_path / "log.parquet")
    policy = over_log(load_at_home(checkpoint), (str(tmp_path / "log.parquet"),))
    (part,) = open_log((str(tmp_path / "log.parquet"),), policy).parts(PART)
    mine = agent_of(policy).place_logprobs(observe(part, policy.catalogue), part.items).sum(1)
    torch.testing.assert_close(mine, part.logprobs, atol=1e-5, rtol=0)

    # Of the draws among the items of now, the share of ids that were not there at the decision.
    of = replay(part, policy.catalogue, torch.zeros(len(mine)), 1.0, torch.Generator().manual_seed(0))
    agent, now, ids = agent_of(policy), policy.catalogue.available, policy.catalogue.item_names
    obs = dataclasses.replace(observe(part, policy.catalogue), mask=now.expand(len(mine), -1))
    chances = agent.scores(obs).double().softmax(1)
    since, until = (policy.catalogue.attributes[name] for name in STOCK)
    assert part.stock is not None
    could = [
        {id_ for id_, a, b in zip(ids, since, until, strict=True) if int(a) <= m < int(b)}
        for m in part.stock.tolist()
    ]
    then = [[id_ in some for id_ in ids] for some in could]
    share = float((chances * ~torch.tensor(then)).sum(1).mean())
    assert unjudged(of, agent) == pytest.approx(share, abs=1e-6) and (share > 0.2) is known


def test_the_export_says_what_each_decision_could_show(one_step: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(one_step, db, explore=1.0) as client:
        for user in range(40):
            answer = recommend(client, f"a{user}", context=CONTEXT)
            send(client, event(answer, "clicked"), event(answer, "leave"))
        middle = post(
            client, items=[NEW, {**ITEMS[1], "features": {"brand": "b", "price": 7.5}}], withdraw=["i0"]
        )
        for user in range(60):
            answer = recommend(client, f"b{user}", context=CONTEXT, exclude=["i3"] if user == 59 else [])
            send(client, event(answer, "leave"))
    log, items = exported(db, tmp_path / "log.parquet")
    assert log["stock"].to_list() == [4] * 40 + [middle["stock"]] * 60
    assert items["item"].to_list() == ["i0", "i1", "i2", "i3", "n1", "i1"]
    assert items["price"].to_list() == [0.0, 1.5, 3.0, 4.5, 2.0, 7.5]
    ends = middle["stock"]
    assert items["stock_from"].to_list() == [1, 2, 3, 4, ends - 1, ends]
    assert items["stock_to"].to_list() == [ends - 3, ends - 2, None, None, None, None]
    assert set(log["candidates"][99]) == {"i1", "i2", "n1"} and set(log["candidates"][0]) == {
        "i0",
        "i1",
        "i2",
        "i3",
    }
    assert log["propensity"].to_list()[:99] == pytest.approx([0.25] * 99)
    assert_probabilities_are_those_of_the_log(one_step, tmp_path / "log.parquet", 0.25)

    first = (tmp_path / "log.parquet").read_bytes(), (tmp_path / "log.items.parquet").read_bytes()
    record = open_snapshot(db)
    until = interval_of(record, now=time.time() + LATER).until
    record.store.close()
    with serving(one_step, db) as client:  # items come, and the interval is exported again
        post(client, items=[{"item_id": "n2", "features": {"brand": "a"}}], withdraw=["n1"])
        exported(db, tmp_path / "again" / "log.parquet", until)
    again = [(tmp_path / "again" / name).read_bytes() for name in ("log.parquet", "log.items.parquet")]
    assert first == tuple(again)


def test_a_record_of_an_earlier_version_is_refused(one_step: Path, tmp_path: Path) -> None:
    import sqlite3

    db = tmp_path / "r.sqlite"
    with serving(one_step, db):
        pass
    with sqlite3.connect(db) as connection:
        connection.execute("INSERT INTO facts VALUES ('items', ?)", (json.dumps(["i0"]),))
        connection.execute(f"PRAGMA user_version = {FORMAT - 1}")
        connection.execute("DROP TABLE items")
    with pytest.raises(UserError, match="earlier version"), serving(one_step, db):
        pass
    assert main(["log", "check", "--db", str(db)]) == 2


def test_a_platform_keeps_its_items(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        found = client.post("/v1/items", json={"items": [NEW]})
        assert (found.status_code, found.json()["title"]) == (409, "fixed-catalogue")
        assert client.get("/v1/platform").json()["features"] is None


@pytest.mark.parametrize("known", [True, False])
def test_new_items_get_their_share(one_step: Path, by_id: Path, tmp_path: Path, known: bool) -> None:
    """(1 - e) pi + e [a in N] / |N|, also of what a request leaves; the draws are as often."""
    db, share = tmp_path / "r.sqlite", 0.3
    checkpoint = one_step if known else by_id
    features = {"brand": "b", "price": 1.0} if known else {}
    fresh = ["n1", "n2", "n3"]
    with serving(checkpoint, db, new_items=share, seed=3) as client:
        posted = post(client, items=[{"item_id": id_, "features": features} for id_ in fresh])
        assert posted["not_showable"] == 0
        answers = [recommend(client, f"u{user}", context=CONTEXT) for user in range(400)]
        shown_first = [answer["items"][0]["item_id"] for answer in answers]
        others = [
            recommend(client, f"v{user}", context=CONTEXT, exclude=[id_])
            for user, id_ in enumerate(shown_first[:40])
        ]
    policy = load_at_home(checkpoint)
    stock = [*items_of(policy.catalogue), *(StockItem(id_, id_, features) for id_ in fresh)]
    laid = Recommender(over(policy, stock))
    given = given_context(laid.checkpoint, CONTEXT)
    obs = (
        laid.visit(laid._nobody(32))
        .with_context({x: y.expand(32, -1) for x, y in given.items()})
        .observe(torch.ones(32, len(stock), dtype=torch.bool))
    )
    with torch.no_grad():
        pi = laid.agent.scores(obs).double().softmax(1)[0]
    ids = [str(item.id) for item in stock]
    new = torch.tensor([id_ in fresh for id_ in ids])
    wanted = (1 - share) * pi + share * new / 3
    assert float(wanted.sum()) == pytest.approx(1)
    counts = torch.zeros(len(ids), dtype=torch.float64)
    for answer, id_ in zip(answers, shown_first, strict=True):
        counts[ids.index(id_)] += 1
        assert answer["propensity"] == pytest.approx(float(wanted[ids.index(id_)]), rel=1e-4)
    for answer, id_ in zip(others, shown_first, strict=False):
        left, again = pi.clone(), new & (torch.arange(len(ids)) != ids.index(id_))
        left[ids.index(id_)] = 0
        then = (1 - share) * left / left.sum() + share * again / again.sum()
        other = ids.index(answer["items"][0]["item_id"])
        assert answer["propensity"] == pytest.approx(float(then[other]), rel=1e-3)
    chi2 = float(((counts - 400 * wanted) ** 2 / (400 * wanted)).sum())
    assert chi2 < 22.5  # 6 degrees of freedom: 0.1 % above
    record = Record(db)
    try:
        assert check(record).replayed == 440
    finally:
        record.store.close()
    with serving(checkpoint, tmp_path / "other.sqlite") as client:
        more = post(client, items=[{"item_id": "n1", "features": features}])
        assert more["not_showable"] == (0 if known else 1)


@pytest.mark.proof
def test_a_server_that_is_killed_while_items_come_has_whole_posts(one_step: Path, tmp_path: Path) -> None:
    """Seven times at another moment of a post; each post replaces the items of the one before."""
    db, moments = tmp_path / "r.sqlite", (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4)
    turn, last = 0, -1
    for seconds in moments:
        server, answered = Forked(one_step, db), list[int]()

        def ask(port: int, first: int, answered: list[int] = answered) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                connection = Connection(port)
                for number in range(first, first + 1000):
                    items = [
                        {"item_id": f"t{number}-{x}", "features": {"brand": "b", "price": x}}
                        for x in range(40)
                    ]
                    if connection.post("/v1/items", {"items": items, "only": True})[0] != 200:
                        return
                    answered.append(number)

        thread = threading.Thread(target=ask, args=(server.port, turn))
        thread.start()
        while not answered and thread.is_alive():
            time.sleep(0.002)
        time.sleep(seconds)
        server.kill()
        thread.join()
        store = open_snapshot(db).store
        there = {*store.stock().row_of}
        store.close()
        (now,) = {int(id_[1:].partition("-")[0]) for id_ in there}
        assert len(there) == 40 and now in (answered[-1], answered[-1] + 1) and now > last
        turn, last = now + 1, now


def test_a_full_disk_changes_nothing(one_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(one_step, tmp_path / "r.sqlite", explore=1.0) as client:
        whole = Store.write

        def full(store: Store, rows: Sequence[Row], durable: bool) -> None:
            raise Full("no room")

        monkeypatch.setattr(Store, "write", full)
        found = client.post("/v1/items", json={"items": [NEW], "withdraw": ["i0"]})
        assert (found.status_code, found.json()["title"]) == (503, "record-full")
        monkeypatch.setattr(Store, "write", whole)
        assert shown(client, 40) == {"i0", "i1", "i2", "i3"}
        assert post(client, items=[NEW], withdraw=["i0"])["items"] == 4


def test_an_item_has_its_rows_and_its_counts(one_step: Path, tmp_path: Path) -> None:
    """Of a record before the server started, too; what has not matured does not count."""
    db = tmp_path / "r.sqlite"
    with serving(one_step, db, feedback_window=0.5, explore=1.0) as client:
        began = time.time()
        post(client, items=[{**NEW, "item_id": "a/b c"}])
        post(client, items=[{**NEW, "item_id": "a/b c", "title": "Newer"}], withdraw=["i0"])
        shown = dict[str, list[float]]()
        for user in range(30):
            answer = recommend(client, f"u{user}", context=CONTEXT)
            shown.setdefault(answer["items"][0]["item_id"], []).append(float(user % 3 == 0))
            send(client, *[event(answer, "clicked")][user % 3 :], event(answer, "leave"))
    time.sleep(0.6)
    with serving(one_step, db, feedback_window=0.5) as client:
        recommend(client, "open", context=CONTEXT)  # its window is open
        for id_, clicks_ in shown.items():
            found = client.get(f"/v1/items/{id_.replace('/', '%2F')}").json()
            assert found["impressions"] == len(clicks_) and found["all_read"]
            assert found["mean_reward"] == pytest.approx(sum(clicks_) / len(clicks_))
        found = client.get("/v1/items/a%2Fb%20c").json()
        rows = [(row["kind"], row["title"]) for row in found["rows"]]
        assert rows == [("add", "New"), ("withdraw", ""), ("add", "Newer")] and found["available"]
        assert found["rows"][0]["features"] == NEW["features"] and found["title"] == "Newer"
        assert began <= found["rows"][0]["time"] <= found["rows"][1]["time"] <= time.time()
        gone = client.get("/v1/items/i0").json()
        assert [row["kind"] for row in gone["rows"]] == ["add", "withdraw"] and not gone["available"]
        missing = client.get("/v1/items/nobody")
        assert (missing.status_code, missing.json()["title"]) == (404, "unknown-item")
        # More sessions come, and are counted at the next look.
        time.sleep(0.6)
        again = [
            client.get(f"/v1/items/{id_}").json()["impressions"] for id_ in ("a%2Fb%20c", "i1", "i2", "i3")
        ]
        assert sum(again) + gone["impressions"] == 31


def test_a_long_record_is_counted_in_parts(
    one_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer does not wait for all of it."""
    monkeypatch.setattr("recsys_rl.serving.work.maturing.MOST", 2)
    db = tmp_path / "r.sqlite"
    with serving(one_step, db, feedback_window=1e-3) as client:
        for user in range(12):
            send(client, event(recommend(client, f"u{user}", context=CONTEXT), "leave"))
    monkeypatch.setattr("recsys_rl.serving.work.item_report.WAIT", 0.0)
    monkeypatch.setattr("recsys_rl.serving.work.item_report.REST", 0.0)
    with serving(one_step, db, feedback_window=1e-3) as client:
        assert not client.get("/v1/items/i0").json()["all_read"]
        monkeypatch.setattr("recsys_rl.serving.work.item_report.WAIT", 20.0)
        found = [client.get(f"/v1/items/i{x}").json() for x in range(4)]
        assert all(one["all_read"] for one in found)
        assert sum(one["impressions"] for one in found) == 12

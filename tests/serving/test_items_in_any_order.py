"""Items, decisions, releases and starts in any order: the stock of the rows is the stock in memory."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from starlette.testclient import TestClient

from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.opened_record import Record, open_snapshot
from recsys_rl.utils.files import sha256_of
from tests.own_logs import policy, write_csv
from tests.serving.servers import event, send, serving

pytestmark = pytest.mark.proof
HEADER = ["user", "session", "step", "item", "clicked", "propensity", "context.age"]
IDS = [f"i{x}" for x in range(8)]


@functools.cache
def policies() -> Path:
    """Two policies of sessions of three steps, in which no item is shown twice."""
    folder = Path(tempfile.mkdtemp())
    made = folder / "policies"
    made.mkdir()
    known = [[f"i{x}", "ab"[x % 2], x] for x in range(5)]
    items = write_csv(folder / "items.csv", ["item", "brand", "price"], known)
    for name, brands in (("a", 2), ("b", 3)):
        rows = [
            [user, f"s{user}", step, f"i{(user + step) % 5}", user % brands, 0.2, 20.0 + user]
            for user in range(20)
            for step in range(3)
        ]
        log = write_csv(folder / f"{name}.csv", HEADER, rows)
        policy(made / f"{name}.pt", log, "reinforce", items=str(items))
    return made


class Place(RuleBasedStateMachine):
    """A server, and what is known of its items without it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.policies, self.db = policies(), self.folder / "r.sqlite"
        self.stack = contextlib.ExitStack()
        self.client: TestClient = self.stack.enter_context(
            serving(self.policies / "a.pt", self.db, new_items=0.2, explore=0.2)
        )
        self.restart()
        self.items: dict[str, dict[str, Any]] = {
            f"i{x}": {"brand": "ab"[x % 2], "price": float(x)} for x in range(5)
        }
        self.known = {*self.items}  # all that were ever there
        self.shown: dict[str, list[str]] = {}  # by session
        self.answers: list[dict[str, Any]] = []
        self.challenger = False

    def restart(self) -> None:
        self.stack.close()
        self.client = self.stack.enter_context(serving(self.policies, self.db, new_items=0.2, explore=0.2))

    @rule(
        given=st.dictionaries(
            st.sampled_from(IDS), st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=4
        ),
        gone=st.sets(st.sampled_from(IDS), max_size=2),
    )
    def post(self, given: dict[str, tuple[str, int]], gone: set[str]) -> None:
        features = {id_: {"brand": brand, "price": float(price)} for id_, (brand, price) in given.items()}
        body = {
            "items": [{"item_id": id_, "features": of} for id_, of in features.items()],
            "withdraw": sorted(gone),
        }
        found = self.client.post("/v1/items", json=body)
        unknown, again = gone - self.known, gone & (self.known - self.items.keys())
        left = {id_: of for id_, of in (self.items | features).items() if id_ not in gone}
        if gone & given.keys() or unknown:
            assert found.json()["title"] in ("item-twice", "unknown-item")
        elif len(left) < 2:
            assert found.json()["title"] == "too-few-items"
        else:
            answer = found.json()
            assert found.status_code == 200, answer
            assert answer["added"] == len(features.keys() - self.items.keys())
            same = sum(self.items.get(id_) == of for id_, of in features.items())
            assert answer["unchanged"] == same + len(again)
            assert answer["withdrawn"] == len(gone - again)
            self.items, self.known = left, self.known | left.keys()

    @rule(user=st.integers(0, 4), leave=st.booleans())
    def recommend(self, user: int, leave: bool) -> None:
        body = {"user_id": f"u{user}", "context": {"age": 30.0}}
        found = self.client.post("/v1/recommend", json=body)
        if found.status_code != 200:  # all that is there was shown in this session
            assert found.json()["title"] == "too-few-items"
            return
        answer = found.json()
        self._note(answer)
        self.answers.append(answer)
        send(self.client, event(answer, "clicked"))
        if leave:
            send(self.client, event(answer, "leave"))

    @rule(user=st.integers(0, 4), item=st.sampled_from(IDS))
    def observe(self, user: int, item: str) -> None:
        body = {"user_id": f"u{user}", "items": [item], "context": {"age": 30.0}}
        found = self.client.post("/v1/observe", json=body)
        if found.status_code == 200:
            self._note(found.json())
        else:
            assert found.json()["title"] in ("unknown-item", "not-showable")

    def _note(self, answer: dict[str, Any]) -> None:
        (id_,) = (place["item_id"] for place in answer["items"])
        assert id_ in self.items, "no withdrawn item is shown"
        before = self.shown.setdefault(answer["session"]["id"], [])
        assert id_ not in before, "none twice in a session"
        before.append(id_)

    @precondition(lambda self: not self.challenger)
    @rule()
    def release(self) -> None:
        champion = self.client.get("/v1/release").json()["champion"]
        other = next(x for x in (sha256_of(f) for f in self.policies.glob("*.pt")) if x != champion)
        found = self.client.post("/v1/release/start", json={"sha256": other, "share": 0.5})
        assert found.status_code == 200, found.text
        self.challenger = True

    @precondition(lambda self: self.challenger)
    @rule(promote=st.booleans())
    def end(self, promote: bool) -> None:
        challenger = self.client.get("/v1/release").json()["challenger"]
        body = {"challenger": challenger} | ({"without_gate": True} if promote else {})
        action = "promote" if promote else "back"
        found = self.client.post(f"/v1/release/{action}", json=body)
        assert found.status_code == 200, found.text
        self.challenger = False

    @rule()
    def start_again(self) -> None:
        self.restart()

    @invariant()
    def the_stock_of_the_rows_is_the_stock_in_memory(self) -> None:
        record = open_snapshot(self.db)
        stock = record.store.stock()
        record.store.close()
        assert {id_: stock.added[row].features for id_, row in stock.row_of.items()} == self.items
        found = self.client.get("/v1/items?q=").json()["items"]
        assert {item["item_id"] for item in found if item["available"]} == {*self.items}

    def teardown(self) -> None:
        self.stack.close()
        record = Record(self.db, self.policies)
        try:
            checked = check(record)
            assert checked.replayed == len(self.answers) and not checked.not_replayed
        finally:
            record.store.close()
        shutil.rmtree(self.folder)


Place.TestCase.settings = settings(
    max_examples=3,
    stateful_step_count=24,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[*HealthCheck],
)
TestItems = Place.TestCase

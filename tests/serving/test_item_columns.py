"""The columns of posted items: the team's own names, what stays of a partial change, and what is checked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from recsys_rl.cli import main
from recsys_rl.data.tables.item_encoding import EMBEDDING, GENRES, ItemEncoding, StockItem
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.http.item_changes import Columns, Plan, _check_number, _item, _tried
from recsys_rl.serving.loop import post_items
from recsys_rl.serving.messages import ItemGiven, Problem
from recsys_rl.serving.record.stock import Change, Stock, changes_of
from recsys_rl.serving.releases.active_version import PolicyFiles
from tests.own_logs import clicks, policy, write_csv
from tests.serving.servers import recommend, serving
from tests.serving.test_items import CONTEXT, exported, post


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of items with a column `category`, some with two tags."""
    folder = tmp_path_factory.mktemp("tagged")
    rows = [[f"i{x}", ("tea|coffee", "tea", "coffee", "cups")[x], 1.5 * x] for x in range(4)]
    items = write_csv(folder / "items.csv", ["item", "category", "price"], rows)
    return policy(folder / "p.pt", clicks(folder / "clicks.csv"), "reinforce", items=str(items))


class Door:
    """The client of the loop's commands, to a server in this process."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str) -> Any:
        return self.client.get(path).json()

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(path, json=body).json()


def test_the_column_of_tags_has_the_teams_name(
    tagged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the platform, in a post, in its refusals, in a file, and in the export."""
    with serving(tagged, tmp_path / "record.sqlite") as client:
        known = client.get("/v1/platform").json()["features"]
        assert known == {"price": "number", "category": "names"}
        answer = post(
            client, items=[{"item_id": "n1", "features": {"category": ["tea", "cups"], "price": 2}}]
        )
        assert (answer["added"], answer["incomplete"]) == (1, [])
        assert post(client, items=[{"item_id": "n2", "features": {"category": "tea"}}])["unknown_values"] == 0
        refused = client.post(
            "/v1/items", json={"items": [{"item_id": "n3", "features": {"genres": ["tea"]}}]}
        )
        assert refused.status_code == 422 and "category" in refused.json()["detail"]
        file = write_csv(tmp_path / "new.csv", ["item", "category", "price"], [["n4", "tea|cups", 3.0]])
        monkeypatch.setattr(post_items, "Client", lambda *_: Door(client))
        assert main(["items", str(file)]) == 0
        assert "1 added" in capsys.readouterr().out
        recommend(client, "u1", context=CONTEXT)
    _, items = exported(tmp_path / "record.sqlite", tmp_path / "log.parquet")
    by_id = dict(items.select("item", "category").iter_rows())
    assert by_id["n1"] == ["tea", "cups"] and by_id["n2"] == ["tea"] and by_id["n4"] == ["tea", "cups"]


def latest(client: httpx.Client, item: str) -> Any:
    """The features in the latest row of an item."""
    return client.get(f"/v1/items/{item}").json()["rows"][-1]["features"]


def test_a_partial_change_keeps_the_rest(tagged: Path, tmp_path: Path) -> None:
    with serving(tagged, tmp_path / "record.sqlite") as client:
        price = {"item_id": "i1", "features": {"price": 9.0}}
        assert post(client, items=[price])["changed"] == 1
        assert client.get("/v1/items/i1").json()["rows"][-1]["features"] == {
            "price": 9.0,
            "category": ["tea"],
        }
        post(client, withdraw=["i1"])
        back = post(client, items=[{"item_id": "i1"}])
        assert (back["added"], back["incomplete"]) == (1, [])
        assert client.get("/v1/items/i1").json()["rows"][-1]["features"] == {
            "price": 9.0,
            "category": ["tea"],
        }
        cleared = post(client, items=[{"item_id": "i1", "features": {"price": None, "category": []}}])
        assert (cleared["changed"], cleared["incomplete"]) == (1, ["i1"])
        assert post(client, items=[{"item_id": "n1"}, price])["incomplete"] == ["n1"]
        again = post(client, items=[price])
        assert (again["unchanged"], again["incomplete"]) == (1, [])


ENCODING = ItemEncoding(genres=("a",), vector=2, genres_column="category")
KINDS = {GENRES: "names", EMBEDDING: "list"}


def test_an_item_without_its_embedding_is_refused() -> None:
    place = Columns(KINDS, ENCODING, 2)
    known = _item(ItemGiven("x", features={EMBEDDING: [0.5, 1.0], "category": "a"}), place, Stock())
    assert known.features == {GENRES: ["a"], EMBEDDING: [0.5, 1.0]}
    for features in ({}, {EMBEDDING: None}, {EMBEDDING: [0.5]}):
        with pytest.raises(Problem, match="2 numbers"):
            _item(ItemGiven("x", features=cast(Any, features)), place, Stock())
    stock = Stock().after(changes_of(Stock(), Change([known], []), iter([1]).__next__, 0.0))
    assert _item(ItemGiven("x"), place, stock).features == known.features


@pytest.mark.parametrize(
    ("places", "left", "fine"), [(1, 2, True), (1, 1, False), (3, 3, True), (3, 2, False)]
)
def test_a_slate_needs_an_item_for_each_place(places: int, left: int, fine: bool) -> None:
    interface = SimpleNamespace(slate_size=places)
    version = cast(Version, SimpleNamespace(checkpoint=SimpleNamespace(interface=interface)))
    if fine:
        _check_number(left, left, version)
        return
    with pytest.raises(Problem, match=f"{max(2, places)} are needed"):
        _check_number(left, left, version)


def test_a_post_is_tried_on_both_arms() -> None:
    class Files:
        def __init__(self) -> None:
            self.laid: list[object] = []
            self.tries: list[str] = []

        def over(self, stock: Stock, versions: list[object]) -> Files:
            assert stock.num_rows == 1
            self.laid = versions
            return self

        def tried(self, sha256: str, rows: list[object]) -> None:
            self.tries.append(sha256)

    arms = [SimpleNamespace(row=SimpleNamespace(sha256=name), decides=True) for name in ("one", "two")]
    files, plan = Files(), Plan(Change([StockItem("x", "x", {})], []), 1, 0, 0, 0)
    serving_now = cast(Any, (arms[0], arms[1]))
    assert _tried(plan, Stock(), serving_now, cast(PolicyFiles, files)) is cast(Any, files)
    assert files.laid == arms and files.tries == ["one", "two"]

"""A server without a policy: it records what a team's application shows, until a version is there."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from starlette.testclient import TestClient

from recsys_rl.cli import main
from recsys_rl.cli.serve import serve_options
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.intervals import files_in_order
from recsys_rl.recommender import Visit, load
from recsys_rl.serving.at_rest.export_table import export_table
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.record.facts import facts_of
from recsys_rl.serving.server import place_of
from recsys_rl.utils.files import sha256_of
from tests.docs.test_docs import ROOT
from tests.serving.live import live
from tests.serving.servers import event, send, serving

LATER = 6000.0
SECTIONS = ["politics", "sport", "science", "culture"]
SCHEMA = """
[age]
kind = "number"
low = 0
high = 100

[device]
kind = "text"
values = ["desk", "phone"]

[taste]
kind = "list"
size = 2
"""
CONTEXT = {"age": 30, "device": "desk", "taste": [0.5, -0.5]}


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """The options of a server of a place with four sections."""
    rows = "\n".join(f"{name},Section {name}" for name in SECTIONS)
    (tmp_path / "items.csv").write_text(f"item,title\n{rows}\n")
    (tmp_path / "schema.toml").write_text(SCHEMA)
    return {
        "observe_only": True,
        "items": str(tmp_path / "items.csv"),
        "signals": ("clicked", "minutes"),
        "context": str(tmp_path / "schema.toml"),
    }


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, place: dict[str, Any]) -> Serve:
    def start(**options: Any) -> Any:
        return serving(tmp_path / "policies", tmp_path / "r.sqlite", **{**place, **options})

    return start


def observe(client: TestClient, user: str, *items: str, **fields: Any) -> dict[str, Any]:
    body = {"user_id": user, "items": [*items], "context": CONTEXT, **fields}
    found = client.post("/v1/observe", json=body)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def exported(folder: Path) -> Any:
    record = Record(folder / "r.sqlite")
    try:
        return export_table(record, folder / "log.parquet", interval_of(record, now=time.time() + LATER))
    finally:
        record.store.close()


def test_decisions_are_recorded_and_nobody_recommends(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        refused = client.post("/v1/recommend", json={"user_id": "ann"})
        assert (refused.status_code, refused.json()["title"]) == (409, "no-policy")
        one = observe(client, "ann", "sport", propensity=0.25)
        assert one["items"] == [{"item_id": "sport", "title": "Section sport", "propensity": 0.25}]
        assert send(client, event(one, "clicked"), event(one, "minutes", 2.5)) == ["accepted", "accepted"]
        assert send(client, event(one, "likes")) == ["unknown-signal"]
        two = observe(client, "ann", "sport", policy="rules")  # a section may come again
        assert two["session"] == {"id": one["session"]["id"], "step": 1}
        report = client.get(f"/v1/decisions/{two['decision_id']}").json()
        assert report["seen"]["history"] == ["sport"] and report["replayed"] is None
        assert report["seen"]["signals"] == [{"clicked": 1.0, "minutes": 2.5}]
        assert report["seen"]["context"]["device"] == [1.0, 0.0, 0.0]
        platform = client.get("/v1/platform").json()
        assert (platform["items"], platform["full"]) == (4, {"clicked": 1.0, "minutes": 1.0})
        assert client.get("/v1/items?q=culture").json()["items"][0]["item_id"] == "culture"
        assert client.get("/v1/policies").json() == {"policies": []}
        assert client.get("/readyz").status_code == 200
    with serve() as client:  # the session goes on after a start
        three = observe(client, "ann", "culture")
        assert three["session"] == {"id": one["session"]["id"], "step": 2}
    assert main(["log", "check", "--db", str(tmp_path / "r.sqlite")]) == 0


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({}, "age"),
        ({"age": 30, "device": "desk"}, "taste"),
        ({**CONTEXT, "age": "old"}, "age"),
        ({**CONTEXT, "age": 101}, "from 0 to 100"),
        ({**CONTEXT, "age": -1}, "from 0 to 100"),
        ({**CONTEXT, "taste": [0.5]}, "taste"),
        ({**CONTEXT, "taste": [0.5, 7]}, "taste"),
        ({**CONTEXT, "device": 3}, "device"),
        ({**CONTEXT, "hour": 3}, "hour"),
    ],
)
def test_a_wrong_piece_of_the_context_is_named(serve: Serve, context: dict[str, Any], said: str) -> None:
    with serve() as client:
        found = client.post("/v1/observe", json={"user_id": "a", "items": ["sport"], "context": context})
        assert (found.status_code, found.json()["title"]) == (422, "wrong-context")
        assert said in found.json()["detail"] and client.get("/v1/decisions").json()["decisions"] == []
        observe(client, "a", "sport", context={**CONTEXT, "device": "watch"})  # an unknown text is "other"


def test_a_user_whose_id_is_a_gap_in_a_table_is_refused(serve: Serve) -> None:
    """One such row would make the whole export unreadable."""
    with serve() as client:
        for user in ("NaN", "null", " "):
            body = {"user_id": user, "items": ["sport"], "context": CONTEXT}
            assert client.post("/v1/observe", json=body).json()["title"] == "wrong-user"
        observe(client, "007", "sport")


def test_the_export_is_a_table_with_the_columns_that_people_know(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        for user, item in (("ann", "sport"), ("bob", "politics")):
            one = observe(client, user, item, propensity=0.25, candidates=["politics", "sport"])
            send(client, event(one, "clicked"), event(one, "minutes", 2.5), event(one, "leave"))
        two = observe(client, "ann", "science", propensity=0.5, policy="rules")
        send(client, event(two, "leave"))
    done = exported(tmp_path)
    assert (done.sessions, done.unknown, done.never_shown) == (3, 0, 1)
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert frame.drop("session", "time", "version").to_dict(as_series=False) == {
        "user": ["ann", "bob", "ann"],
        "policy": ["application", "application", "rules"],
        "item": ["sport", "politics", "science"],
        "propensity": [0.25, 0.25, 0.5],
        "stock": [4] * 3,
        "candidates": [["politics", "sport"]] * 2 + [["culture", "politics", "science", "sport"]],
        "signal.clicked": [1.0, 1.0, 0.0],
        "signal.minutes": [2.5, 2.5, 0.0],
        "context.age": [30.0] * 3,
        "context.device": ["desk"] * 3,
        "context.taste": [[0.5, -0.5]] * 3,
    }
    table = read_table(tmp_path / "log.parquet")
    assert table.items == ("culture", "politics", "science", "sport")
    assert sorted(table.log.logprobs.exp().tolist()) == pytest.approx([0.25, 0.25, 0.5])


def test_sessions_without_propensities_get_a_table_beside_the_others(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        one = observe(client, "ann", "sport", propensity=0.25)
        send(client, event(one, "leave"))
        send(client, event(observe(client, "bob", "sport"), "leave"))
    beside = tmp_path / "no-propensity" / "log.parquet"
    assert exported(tmp_path).files == {beside: 1, tmp_path / "log.parquet": 1}
    assert [*files_in_order(tmp_path)] == [tmp_path / "log.parquet"]
    assert "propensity" in pl.read_parquet(tmp_path / "log.parquet").columns
    assert "propensity" not in pl.read_parquet(beside).columns


def test_slates_are_rows_with_lists(serve: Serve, tmp_path: Path) -> None:
    with serve(slate_size=2, context=None) as client:
        body = {"user_id": "ann", "items": ["sport", "science"], "propensity": 0.125}
        one = client.post("/v1/observe", json=body).json()
        send(client, event(one, "clicked", position=1), event(one, "leave"))
        found = client.post("/v1/observe", json={"user_id": "ann", "items": ["sport"]})
        assert found.json()["title"] == "wrong-n"
    exported(tmp_path)
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert frame["items"].to_list() == [["sport", "science"]]
    assert frame["signal.clicked"].to_list() == [[0.0, 1.0]]
    assert frame["propensity"].to_list() == pytest.approx([0.125])


def test_a_version_that_learned_from_the_record_serves_on_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Observe, export, clone and its agreement, the judge, and only then a version in the same server."""
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
    later = time.time() + LATER
    monkeypatch.setattr("recsys_rl.serving.record.store_reader.time.time", lambda: later)
    options = {"context": None, "signals": ("clicked",)}
    with serve(**options) as client:
        for user in range(60):
            item = "science" if user % 6 == 0 else "sport"
            body = {"user_id": str(user), "items": [item], "propensity": 1 / 6 if user % 6 == 0 else 5 / 6}
            one = client.post("/v1/observe", json=body).json()
            send(client, event(one, "clicked", float(item == "science")), event(one, "leave"))
    log = tmp_path / "log.parquet"
    assert main(["log", "export", "--db", str(tmp_path / "r.sqlite"), "--out", str(log)]) == 0
    assert "never shown: 2 items of the place" in capsys.readouterr().err
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name", "bc", "--total-timesteps", "1280"]
    learn = ["--batch-size", "64", "--gradient-steps", "20", "--lr", "0.01"]
    assert main(["train", "--algo", "bc", "--log", str(log), *learn, *runs]) == 0
    made = tmp_path / "runs" / "bc" / "bc.pt"
    assert main(["ope", "--log", str(log), "--policy", "random"]) == 0
    (tmp_path / "policies").mkdir()
    version = made.rename(tmp_path / "policies" / "1.pt")
    with serve(**options) as client:
        body = {"sha256": sha256_of(version)}
        swapped = client.post("/v1/release/alias", json=body)
        assert swapped.status_code == 200, swapped.text
        answer = client.post("/v1/recommend", json={"user_id": "3"}).json()
        assert answer["items"][0]["item_id"] in SECTIONS and answer["policy"]["name"] == "bc"
        goes_on = client.post("/v1/observe", json={"user_id": "3", "items": ["sport"]}).json()
        assert goes_on["session"]["step"] == 0  # this version knows sessions of one step
    with serve(**options) as client:  # the version goes on after a start
        assert client.post("/v1/recommend", json={"user_id": "4"}).status_code == 200
    with serving(tmp_path / "policies", tmp_path / "r.sqlite") as client:  # and needs no option any more
        assert client.post("/v1/recommend", json={"user_id": "5"}).status_code == 200
    exported(tmp_path)
    assert {*pl.read_parquet(log)["policy"].to_list()} == {"application", "bc"}


def test_items_with_features_are_known_to_a_version_though_nobody_was_shown_them(
    serve: Serve, place: dict[str, Any], tmp_path: Path
) -> None:
    """They join from the file of items, so no row names them as candidates."""
    rows = "\n".join(f"{name},{len(name)},{len(name) % 3}" for name in SECTIONS)
    (tmp_path / "items.csv").write_text(f"item,length,depth\n{rows}\n")
    with serve() as client:
        for user in range(24):
            one = observe(client, str(user), SECTIONS[user % 2], context={**CONTEXT, "age": 20 + user})
            send(client, event(one, "clicked"), event(one, "leave"))
    assert exported(tmp_path).never_shown == 2
    assert "candidates" not in pl.read_parquet(tmp_path / "log.parquet").columns
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name", "bc", "--total-timesteps", "64"]
    learn = ["--batch-size", "16", "--gradient-steps", "2", "--weights", "clicked=1"]
    log = ["--log", str(tmp_path / "log.parquet"), "--items", str(place["items"])]
    assert main(["train", "--algo", "bc", *log, *learn, *runs]) == 0
    made = load(tmp_path / "runs" / "bc" / "bc.pt").checkpoint
    here = place_of(place["items"], place["signals"], place["context"], 1).checkpoint
    assert facts_of(made) == facts_of(here)


@pytest.mark.parametrize(
    "change",
    [
        {"items": None},
        {"signals": ()},
        {"items": "nowhere.csv"},
        {"context": "nowhere.toml"},
        {"slate_size": 5},
        {"observe_only": False},
    ],
)
def test_wrong_options_are_refused_and_leave_no_record(
    serve: Serve, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UserError), serve(**change):
        pass
    assert not (tmp_path / "r.sqlite").exists()


def test_a_record_is_of_one_place(serve: Serve, place: dict[str, Any]) -> None:
    with serve():
        pass
    for change in ({"signals": ("clicked",)}, {"context": None}, {"slate_size": 2}):
        with pytest.raises(UserError), serve(**change):
            pass
    with serve() as client:
        observe(client, "ann", "sport")


def test_a_piece_that_is_named_hour_is_not_the_clock(place: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text('[hour]\nkind = "number"\nlow = 0\nhigh = 24\n')
    checkpoint = place_of(place["items"], place["signals"], place["context"], 1).checkpoint
    visit = Visit.begin(checkpoint, torch.zeros(1, checkpoint.population.profile.shape[1])).at(5.0)
    assert visit.pieces()["hour"].tolist() == [[0.0]]
    assert visit.observe().context.shape == (1, 2)  # with the clock of the session


def test_the_folder_of_versions_to_come_has_a_default() -> None:
    options = ["--observe-only", "--items", "items.csv", "--signals", "clicked"]
    assert serve_options(options).checkpoint == "policies"
    assert serve_options([*options, "--checkpoint", "mine"]).checkpoint == "mine"


def test_the_application_of_the_example_tells_what_it_showed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "observed_decisions.py"))
    example["write_files"](tmp_path)
    options = {
        "observe_only": True,
        "items": str(tmp_path / "items.csv"),
        "signals": ("clicked",),
        "context": str(tmp_path / "schema.toml"),
    }
    with live(tmp_path / "policies", tmp_path / "r.sqlite", **options) as server:
        example["main"](server.url, 30)
        example["main"](server.url, 31)  # the first thirty are known by their request_id
    assert "30 visits" in capsys.readouterr().out
    assert exported(tmp_path).sessions == 31
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert {*frame["item"].to_list()} <= {*example["SECTIONS"]} and max(frame["propensity"].to_list()) < 1
    assert frame.columns[-3:] == ["context.age", "context.device", "context.hour"]

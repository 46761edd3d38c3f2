"""A policy of a team's own log behind HTTP: contexts of requests, the record, and the log that comes back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from starlette.testclient import TestClient

from benchmarks.harness.forked import Forked
from benchmarks.harness.served import Connection
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import concatenate
from recsys_rl.logs.platform import load_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.export_table import TableExport, export_table
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.utils.files import sha256_of
from tests.own_logs import clicks, policy, sessions, write_csv
from tests.serving.servers import event, recommend, send, serving

LATER = 9000.0  # seconds after which sessions are mature
CONTEXT = {"age": 30.5, "device": "desk", "v": [0.5, -0.25]}


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return policy(folder / "p.pt", clicks(folder / "clicks.csv"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    log = sessions(folder / "sessions.csv")
    return policy(folder / "p.pt", log, "reinforce", weights=("clicked=1", "dwell=0.5"))


def exported(db: Path, out: Path) -> TableExport:
    record = Record(db)
    try:
        return export_table(record, out, interval_of(record, now=time.time() + LATER))
    finally:
        record.store.close()


def assert_judged_as_drawn(checkpoint: Path, log: Path, rows: int, explore: float = 0.0) -> None:
    """The propensities of the export are the policy's probabilities of the log, as `ope` computes them."""
    known, config = load(checkpoint), load(checkpoint).config
    assert config.platform.tables is not None
    source = config.platform.tables.open_log(
        (str(log),), config.data_config, config.env_config, known.catalogue
    )
    read = concatenate([*source.parts(10**6)])
    with torch.no_grad():
        own = agent_of(known).logprob(observe(read, known.catalogue), read.items).double().exp()
    expected = own
    if explore:
        number = known.catalogue.num_items
        possible = number if read.candidates is None else (read.candidates >= 0).sum(1)
        expected = (1 - explore) * own + explore / possible
    assert read.num_rows == rows
    torch.testing.assert_close(read.logprobs.exp(), expected, atol=1e-6, rtol=1e-6)


# The whole circle, with a table as a team writes it: its own names of columns, an item that is a number.


def articles(path: Path, rows: int, seed: int) -> Path:
    drawn = random.Random(seed)
    header = ["visitor", "article", "pscore", "click", "context.age", "context.device", "context.taste"]
    lines = []
    for _ in range(rows):
        age, device, article = drawn.randint(16, 80), drawn.choice(["desk", "phone"]), drawn.randrange(4)
        taste = f"{drawn.random():.2f}|{drawn.random():.2f}"
        click = int(drawn.random() < (0.6 if article == int(age > 45) else 0.2))
        lines.append([drawn.randrange(rows // 4), 100 + article, 0.25, click, age, device, taste])
    return write_csv(path, header, lines)


@pytest.mark.proof
def test_train_serve_export_train_again_and_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, db, out = articles(tmp_path / "old.csv", 400, 0), tmp_path / "r.sqlite", tmp_path / "served.parquet"
    short = ["--total-timesteps", "1280", "--batch-size", "64", "--gradient-steps", "20", "--threads", "1"]
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name"]
    assert main(["train", "--algo", "reinforce", "--log", str(old), *short, *runs, "first"]) == 0
    checkpoint = tmp_path / "runs" / "first" / "reinforce.pt"
    server = Forked(checkpoint, db, "--session-timeout", "5")
    try:
        client, answers = Connection(server.port), []
        for user in range(60):
            context = {"age": 20 + user, "device": "phone", "taste": [0.5, user / 100]}
            limits: dict[str, Any] = {"exclude": ["100"]} if user % 3 == 0 else {}
            limits |= {"candidates": ["100", "101", "103"]} if user % 5 == 0 else {}
            answers.append(client.recommend(f"v{user}", context=context, **limits))
            assert user % 3 or answers[-1]["items"][0]["item_id"] != "100"
        event = {"decision_id": answers[0]["decision_id"], "signal": "click"}
        assert client.feedback([event, event]) == ["accepted", "duplicate"]
        status, said = client.post("/v1/recommend", {"user_id": "v1", "context": {"age": 20}})
        assert status == 422 and "device" in json.loads(said)["detail"]
    finally:
        server.kill()
    server = Forked(checkpoint, db)  # after the crash all is there
    try:
        client = Connection(server.port)
        assert client.feedback([event]) == ["duplicate"]
        report = json.loads(client.get(f"/v1/decisions/{answers[7]['decision_id']}")[1])
        assert report["replayed"] and report["decision"] == answers[7]
        assert report["context"] == {"age": 27.0, "device": "phone", "taste": [0.5, 0.07]}
    finally:
        assert server.stop() == 0
    assert main(["log", "check", "--db", str(db)]) == 0
    later = time.time() + LATER
    monkeypatch.setattr("recsys_rl.serving.record.store_reader.time.time", lambda: later)
    for _ in range(2):  # the same record, the same bytes
        before = out.read_bytes() if out.exists() else b""
        assert main(["log", "export", "--db", str(db), "--out", str(out)]) == 0
    assert out.read_bytes() == before
    frame = pl.read_parquet(out)
    assert {*frame.columns} == {
        *pl.read_csv(old).columns,
        *("candidates", "stock", "time", "policy", "version"),
    }
    assert frame["article"].dtype == pl.Int64 and frame["visitor"].to_list() == [f"v{x}" for x in range(60)]
    assert frame["click"].to_list() == [1.0] + [0.0] * 59
    assert frame["context.age"].to_list() == [float(20 + user) for user in range(60)]
    assert frame["context.taste"][7].to_list() == [0.5, 0.07]
    assert frame["pscore"].to_list() == pytest.approx([answer["propensity"] for answer in answers])
    assert frame["candidates"][15].to_list() == [101, 103] and len(frame["candidates"][1]) == 4
    assert {*frame["version"]} == {sha256_of(checkpoint)[:12]} and {*frame["policy"]} == {"reinforce"}
    assert_judged_as_drawn(checkpoint, out, 60)
    both = ["--log", str(old), "--log", str(out)]
    assert main(["train", "--algo", "reinforce", *both, *short, *runs, "second"]) == 0
    assert main(["ope", "--log", str(out), "--checkpoint", str(checkpoint)]) == 0
    with serving(checkpoint.parent, db) as again:  # the second version serves on the same record
        new = checkpoint.parent / "second.pt"
        new.write_bytes((tmp_path / "runs" / "second" / "reinforce.pt").read_bytes())
        body = {"sha256": sha256_of(new)}
        swapped = again.post("/v1/release/alias", json=body)
        assert swapped.status_code == 200, swapped.text
        context = {"age": 30, "device": "phone", "taste": [0.5, 0.5]}
        assert recommend(again, "v1", context=context)["policy"]["sha256"] == sha256_of(new)


def test_people_with_sessions_go_on_after_a_crash(several: Path, tmp_path: Path) -> None:
    """The history of a session is that of its rows, with the latest context; its end begins another."""
    db, out = tmp_path / "r.sqlite", tmp_path / "out.parquet"
    server = Forked(several, db, "--explore", "0.2")
    try:
        client, shown = Connection(server.port), []
        for step in range(2):
            shown.append(client.recommend("ann", context={"age": 20.0 + step}))
            client.feedback([event(shown[-1], "dwell", 0.25)])
    finally:
        server.kill()
    server = Forked(several, db, "--explore", "0.2")
    try:
        client = Connection(server.port)
        for step in range(2, 5):
            shown.append(client.recommend("ann", context={"age": 20.0 + step}))
        report = json.loads(client.get(f"/v1/decisions/{shown[3]['decision_id']}")[1])
        assert report["seen"]["history"] == [x["items"][0]["item_id"] for x in shown[:3]]
        assert [x["dwell"] for x in report["seen"]["signals"]] == [0.25, 0.25, 0.0]
        assert report["context"] == {"age": 23.0} and report["seen"]["context"]["clock"] == [0.75]
    finally:
        server.stop()
    assert [x["session"]["step"] for x in shown] == [0, 1, 2, 3, 0]
    assert shown[0]["session"]["id"] == shown[3]["session"]["id"] != shown[4]["session"]["id"]
    assert exported(db, out).sessions == 2
    frame = pl.read_parquet(out)
    assert frame["session"].n_unique() == 2 and frame["signal.dwell"].to_list()[:2] == [0.25, 0.25]
    assert_judged_as_drawn(several, out, 5, explore=0.2)


@pytest.mark.parametrize(
    ("fields", "status", "title", "said"),
    [
        ({"context": {}}, 422, "wrong-context", "age"),
        ({"context": {**CONTEXT, "age": "old"}}, 422, "wrong-context", "from 1"),
        ({"context": {**CONTEXT, "age": 1e300}}, 422, "wrong-context", "age"),
        ({"context": {**CONTEXT, "age": True}}, 422, "wrong-context", "age"),
        ({"context": {**CONTEXT, "age": None}}, 422, "wrong-context", "age"),
        ({"context": {**CONTEXT, "v": None}}, 422, "wrong-context", "v"),
        ({"context": {**CONTEXT, "v": [0.5, None]}}, 422, "wrong-field", "context"),
        ({"context": {**CONTEXT, "v": [0.5]}}, 422, "wrong-context", "2 numbers"),
        ({"context": {**CONTEXT, "v": 0.5}}, 422, "wrong-context", "v"),
        ({"context": {**CONTEXT, "device": 3}}, 422, "wrong-context", "desk"),
        ({"context": {**CONTEXT, "device": None}}, 422, "wrong-context", "device"),
        ({"context": {**CONTEXT, "device": "null"}}, 422, "wrong-context", "device"),
        ({"context": {**CONTEXT, "hour": 3}}, 422, "wrong-context", "hour"),
        ({"context": CONTEXT, "likes": ["i1"]}, 422, "no-likes", "likes"),
        ({"context": CONTEXT, "n": 2}, 422, "wrong-n", "n"),
        ({"context": CONTEXT, "user_id": "NaN"}, 422, "wrong-user", "user_id"),
        ({"context": CONTEXT, "candidates": ["none"]}, 422, "unknown-item", "candidates"),
        ({"context": CONTEXT, "exclude": ["i0", "i1", "i2", "i3"]}, 422, "too-few-items", ""),
    ],
)
@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/observe"])
def test_a_wrong_request_is_named_and_not_recorded(
    ask: Callable[..., Any], path: str, fields: dict[str, Any], status: int, title: str, said: str
) -> None:
    if path == "/v1/observe":
        if fields.keys() & {"n", "exclude", "candidates"}:
            return
        fields = {"items": ["i1"], **fields}
    found, recorded = ask(path, {"user_id": "ann", **fields})
    assert (found.status_code, found.json()["title"], recorded) == (status, title, 0)
    assert said in found.json()["detail"]


@pytest.fixture
def ask(client: TestClient) -> Callable[..., Any]:
    def post(path: str, body: dict[str, Any]) -> tuple[Any, int]:
        before = client.get("/v1/decisions").json()["decisions"]
        found = client.post(path, json=body)
        return found, len(client.get("/v1/decisions").json()["decisions"]) - len(before)

    return post


@pytest.fixture(scope="module")
def client(one_step: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(one_step, tmp_path_factory.mktemp("asked") / "r.sqlite") as client:
        yield client


def test_each_request_is_a_session_of_one_step(client: TestClient) -> None:
    one, two = (recommend(client, "bob", context=CONTEXT) for _ in range(2))
    assert one["session"]["id"] != two["session"]["id"] and two["session"]["step"] == 0
    assert send(client, event(one, "clicked"), event(two, "likes")) == ["accepted", "unknown-signal"]
    found = client.post("/v1/observe", json={"user_id": "bob", "items": ["i1"], "context": CONTEXT})
    assert found.status_code == 200 and found.json()["session"]["step"] == 0
    same = [recommend(client, "bob", context=CONTEXT, request_id="a") for _ in range(2)]
    assert same[0] == same[1]
    other = {"user_id": "bob", "context": {**CONTEXT, "age": 31}, "request_id": "a"}
    assert client.post("/v1/recommend", json=other).status_code == 409


@pytest.mark.parametrize("text", ["watch, maybe", "7", "007", "true", "1|2"])
def test_a_text_that_the_log_never_had_is_another(client: TestClient, text: str) -> None:
    answer = recommend(client, "eve", context={**CONTEXT, "device": text})
    report = client.get(f"/v1/decisions/{answer['decision_id']}").json()
    assert report["seen"]["context"]["device"] == [0.0, 0.0, 0.0, 1.0]
    assert report["context"]["device"] == text and report["replayed"]


def test_texts_that_look_like_numbers_come_back_as_texts(one_step: Path, tmp_path: Path) -> None:
    """Also where the export has no other text."""
    texts = ["7", "007", "true", "1,5"]
    with serving(one_step, tmp_path / "r.sqlite", session_timeout=5) as client:
        for user, text in enumerate(texts):
            recommend(client, f"v{user}", context={**CONTEXT, "device": text})
    assert exported(tmp_path / "r.sqlite", tmp_path / "served.parquet").sessions == 4
    assert_judged_as_drawn(one_step, tmp_path / "served.parquet", 4)
    logs = [str(clicks(tmp_path / "clicks.csv")), str(tmp_path / "served.parquet")]
    shape = load_log({"log": tuple(logs)}).settings["env_config"]["shape"]
    [device] = [piece for piece in json.loads(shape)["pieces"] if piece["name"] == "device"]
    assert device["kind"] == "text" and {*device["values"]} <= {*texts, "desk", "phone", "tv"}
    assert {*device["values"]} & {*texts}  # those of the training side


def test_true_and_false_are_numbers_at_both_doors(tmp_path: Path) -> None:
    rows = [[f"u{k}", "ab"[k % 2], str(k % 3 == 0).lower(), 0.5, ["true", "False"][k % 2]] for k in range(40)]
    log = write_csv(tmp_path / "log.csv", ["user", "item", "clicked", "propensity", "context.member"], rows)
    made = policy(tmp_path / "p.pt", log)
    with serving(made, tmp_path / "r.sqlite", session_timeout=5) as client:
        for value, number in ((True, 1.0), (False, 0.0), (0.25, 0.25)):
            answer = recommend(client, "ann", context={"member": value})
            report = client.get(f"/v1/decisions/{answer['decision_id']}").json()
            assert report["seen"]["context"]["member"] == [number] == [report["context"]["member"]]
            assert send(client, event(answer, "clicked", value in (True, 0.25))) == ["accepted"]
    exported(tmp_path / "r.sqlite", tmp_path / "served.parquet")
    frame = pl.read_parquet(tmp_path / "served.parquet")
    assert frame["context.member"].to_list() == [1.0, 0.0, 0.25] and frame["clicked"].to_list() == [1, 0, 1]
    for text in ("true", "0.5"):
        asked = ["recommend", "--checkpoint", str(made), "--context", f"member={text}"]
        assert main([*asked, "--k", "1"]) == 0


def test_the_description_and_the_page_know_the_pieces(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("RecommendRequest", "ObserveRequest"):
        context = schemas[name]["properties"]["context"]
        assert [*context["properties"]] == ["age", "device", "v"] == context["required"]
        assert "context" in schemas[name]["required"]
        assert (context["properties"]["v"]["minItems"], context["properties"]["v"]["maxItems"]) == (2, 2)
        assert client.post("/v1/recommend", json={"user_id": "x", "context": example(context)}).is_success
    platform = client.get("/v1/platform").json()
    assert platform["people"] == [] and not platform["likes"]
    age, device, vector = platform["context"]
    assert 20 < age["example"] < 60  # the median: an age of the log, which has one decimal
    assert age["example"] == pytest.approx(round(age["example"], 1), abs=1e-9)
    assert device["values"] == ["desk", "phone", "tv"] and vector["size"] == 2
    answer = recommend(client, "x", context={x["name"]: x["example"] for x in (age, device, vector)})
    assert answer["degraded"] is None


def example(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: piece["examples"][0] for name, piece in schema["properties"].items()}


def test_a_faulty_policy_leaves_the_record_whole(one_step: Path, tmp_path: Path) -> None:
    """Popularity answers in place of a policy that raises; its decisions are another logger's."""
    db = tmp_path / "r.sqlite"
    with serving(one_step, db) as client:
        version = client.app.worker.shared.active.version  # type: ignore[attr-defined]
        version.agent.scores = None
        answer = recommend(client, "ann", context=CONTEXT)
    assert answer["degraded"] == "raised"
    record = Record(db)
    assert check(record).decisions == 1
    record.store.close()
    exported(db, tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["policy"].to_list() == ["popularity-drawn"]
    assert frame["propensity"].to_list() == pytest.approx([answer["propensity"]])


def test_no_strangers_and_visitors_are_refused_without_a_population(one_step: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError), serving(one_step, tmp_path / "r.sqlite", strangers=False):
        pass
    assert not (tmp_path / "r.sqlite").exists()
    options = ["--url", "http://127.0.0.1:9", "--checkpoint", str(one_step)]
    assert main(["visitors", *options]) == 2

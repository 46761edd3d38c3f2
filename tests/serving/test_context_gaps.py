"""Gaps in the context over HTTP: null or no field, the record, its export, and what learns from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.logs.platform import load_log
from recsys_rl.logs.source import heldout_strangers
from recsys_rl.serving.server import place_of
from recsys_rl.utils.files import sha256_of
from recsys_rl.utils.user_hashes import number_of
from tests.own_logs import clicks, policy
from tests.serving.servers import begun, recommend, serving
from tests.serving.test_own_log import assert_judged_as_drawn, exported
from tests.serving.test_releases import act

FULL = {"age": 30.5, "device": "desk", "v": [0.5, -0.25]}


def with_gaps(path: Path, **places: int) -> Path:
    """The log of ``clicks`` without a value in each n-th row of a column."""
    with clicks(path).open() as file:
        rows = [*csv.reader(file)]
    for name, every in places.items():
        column = rows[0].index(f"context.{name}")
        for row in rows[1::every]:
            row[column] = ""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def training_ages(log: Path) -> list[float]:
    """The known ages of users who are not held out."""
    frame = (pl.read_csv if log.suffix == ".csv" else pl.read_parquet)(log)
    heldout = heldout_strangers(torch.tensor([number_of(user) for user in frame["user"]]), 0.2, 0)
    known = frame.filter(pl.Series(~heldout.numpy()))["context.age"].cast(pl.Float64)
    ages: list[float] = known.drop_nulls().to_list()
    return ages


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A log with gaps, and a policy of it."""
    folder = tmp_path_factory.mktemp("gaps")
    log = with_gaps(folder / "log.csv", age=3, device=4, v=5)
    return log, policy(folder / "p.pt", log)


def test_null_and_a_left_out_field_are_taken_and_come_back(gaps: tuple[Path, Path], tmp_path: Path) -> None:
    log, made = gaps
    db, out = tmp_path / "r.sqlite", tmp_path / "served.parquet"
    contexts: list[dict[str, Any]] = [
        FULL,
        {**FULL, "age": None},
        {"device": "desk", "v": [0.5, -0.25]},
        {"age": 30.5, "device": None, "v": None},
        {},
        {"age": 30.5, "device": "", "v": []},
    ]
    seen = []
    with serving(made, db, session_timeout=5) as client:
        for number, context in enumerate(contexts):
            answer = recommend(client, f"v{number}", context=context)
            report = client.get(f"/v1/decisions/{answer['decision_id']}").json()
            assert report["replayed"]
            seen.append(report["seen"]["context"])
        for wrong in ({"agee": 3}, {**FULL, "age": "old"}, {**FULL, "v": [0.5]}):
            found = client.post("/v1/recommend", json={"user_id": "x", "context": wrong})
            assert (found.status_code, found.json()["title"]) == (422, "wrong-context")
        context = client.get("/openapi.json").json()["components"]["schemas"]["RecommendRequest"][
            "properties"
        ]["context"]
        assert context["required"] == [] and context["properties"]["age"]["type"] == ["number", "null"]
        assert [piece["gaps"] for piece in client.get("/v1/platform").json()["context"]] == [True] * 3
    ages = training_ages(log)
    mean, deviation = sum(ages) / len(ages), torch.tensor(ages).double().std(correction=0).item()
    assert seen[0]["age"] == pytest.approx([(30.5 - mean) / deviation, 0.0], abs=1e-6)
    assert seen[1]["age"] == seen[2]["age"] == seen[4]["age"] == [0.0, 1.0]
    assert seen[3]["device"] == seen[5]["device"] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert seen[3]["v"] == seen[5]["v"] == seen[4]["v"] == [0.0, 0.0]
    assert seen[1] == seen[2] and seen[3] == seen[5]
    assert main(["log", "check", "--db", str(db)]) == 0
    assert exported(db, out).sessions == 6
    frame = pl.read_parquet(out)
    assert frame["context.age"].to_list() == [30.5, None, None, 30.5, None, 30.5]
    assert frame["context.device"].to_list() == ["desk", "desk", "desk", None, None, None]
    assert frame["context.v"].to_list() == [[0.5, -0.25]] * 3 + [None] * 3
    assert_judged_as_drawn(made, out, 6)
    known = json.loads(load_log({"log": (str(log), str(out))}).settings["env_config"]["shape"])["pieces"]
    both = [*ages, *training_ages(out)]
    assert known[0]["gaps"] and known[0]["mean"] == pytest.approx([sum(both) / len(both)])


def test_a_version_without_gaps_serves_on_a_record_that_has_some(
    gaps: tuple[Path, Path], tmp_path: Path
) -> None:
    """It refuses gaps, and the sessions of before are exported."""
    _, made = gaps
    folder, db = tmp_path / "policies", tmp_path / "r.sqlite"
    folder.mkdir()
    (folder / "a.pt").write_bytes(made.read_bytes())
    strict = policy(folder / "b.pt", clicks(tmp_path / "clicks.csv"))
    with serving(folder / "a.pt", db, session_timeout=5) as client:
        recommend(client, "ann", context={})
        body = {"user_id": "eve", "items": ["i1"], "propensity": 0.5, "context": {}}
        observed = client.post("/v1/observe", json=body).json()
    with serving(folder / "a.pt", db, session_timeout=5):
        pass
    with serving(folder, db, session_timeout=5) as client:
        swapped = client.post("/v1/release/alias", json={"sha256": sha256_of(strict)})
        assert swapped.status_code == 200, swapped.text
        assert client.post("/v1/recommend", json={"user_id": "bob", "context": {}}).status_code == 422
        recommend(client, "bob", context=FULL)
        assert client.get(f"/v1/decisions/{observed['decision_id']}").status_code == 200
    assert exported(db, tmp_path / "out.parquet").sessions == 3


def test_versions_of_one_release_take_the_same_gaps(gaps: tuple[Path, Path], tmp_path: Path) -> None:
    """Else one arm would refuse the requests that the other one answers."""
    _, made = gaps
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.pt").write_bytes(made.read_bytes())
    strict = policy(folder / "b.pt", clicks(tmp_path / "clicks.csv"))
    list_alone = policy(folder / "c.pt", with_gaps(tmp_path / "list.csv", age=3, device=4))
    alike = policy(folder / "d.pt", with_gaps(tmp_path / "alike.csv", age=5, device=6, v=7))
    for champion in (made, strict):
        db = tmp_path / f"{champion.stem}.sqlite"
        with serving(begun(folder / ("a.pt" if champion == made else "b.pt"), db), db) as client:
            others = (strict, list_alone) if champion == made else (alike, list_alone)
            for other in others:
                refused = act(client, "start", 409, sha256=sha256_of(other), share=0.5)
                assert refused["title"] == "other-gaps" and "--checkpoint" in refused["detail"]
            assert client.get("/v1/release").json()["challenger"] is None
            if champion == made:
                act(client, "start", sha256=sha256_of(alike), share=0.5)
                for at in range(20):
                    recommend(client, f"u{at}", context={})


def test_a_place_that_describes_gaps_takes_them(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item\na\nb\n")
    (tmp_path / "schema.toml").write_text(
        '[age]\nkind = "number"\nlow = 16\nhigh = 100\nmissing = true\n\n[device]\nkind = "text"\n'
        'values = ["desk"]\n'
    )
    options: dict[str, Any] = {
        "observe_only": True, "items": str(tmp_path / "items.csv"), "signals": ("clicked",),
        "context": str(tmp_path / "schema.toml"), "session_timeout": 5,
    }  # fmt: skip
    db = tmp_path / "r.sqlite"
    with serving(tmp_path / "none", db, **options) as client:
        body = {"user_id": "ann", "items": ["a"], "propensity": 0.5}
        for context, status in (
            ({"device": "desk"}, 200),
            ({"age": None, "device": "7"}, 200),
            ({"age": 16, "device": "tv"}, 200),
            ({"age": 15, "device": "tv"}, 422),
            ({"age": 16}, 422),
            ({"age": 16, "device": None}, 422),
        ):
            found = client.post("/v1/observe", json={**body, "context": context})
            assert found.status_code == status, found.text
        decision = client.get("/v1/decisions").json()["decisions"][-1]["decision_id"]
        report = client.get(f"/v1/decisions/{decision}").json()
        assert (
            report["context"] == {"age": None, "device": "desk"} and report["seen"]["context"]["age"][1] == 1
        )
    exported(db, tmp_path / "log.parquet")
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert frame["context.age"].to_list() == [None, None, 16.0]
    assert frame["context.device"].to_list() == ["desk", '"7"', "tv"]
    place = place_of(options["items"], ("clicked",), options["context"], 1)
    assert [piece.size for piece in place.pieces] == [2, 2]


@pytest.mark.proof
def test_commands_take_what_the_server_takes(
    gaps: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, made = gaps
    asked = ["recommend", "--checkpoint", str(made), "--k", "4"]
    answers = []
    for context in (
        ["age=", "device=desk", "v=0.5|-0.25"],
        ["device=desk", "v=[0.5, -0.25]"],
        ["v=0.5;-0.25"],
    ):
        assert main([*asked, *(word for piece in context for word in ("--context", piece))]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]
    (tmp_path / "people.csv").write_text(
        'context.age,context.device,context.v\n,desk,"[0.5, -0.25]"\n,,0.5;-0.25\n'
    )
    out = tmp_path / "out.csv"
    assert main([*asked, "--contexts", str(tmp_path / "people.csv"), "--out", str(out)]) == 0
    frame = pl.read_csv(out)
    for row in (1, 2):
        rows = frame.filter(pl.col("row") == row)
        text = answers[0] if row == 1 else answers[2]
        assert [text.index(item) for item in rows["item"]] == sorted(
            text.index(item) for item in rows["item"]
        )
    assert main(["ope", "--log", str(log), "--checkpoint", str(made)]) == 0
    assert main(["ope", "--log", str(log), "--checkpoint", str(made), "--missing", "refuse"]) == 2
    pieces = load(made).config.env_config.log_shape.pieces
    assert [piece.gaps for piece in pieces] == [True] * 3

"""Gaps in the context: the same numbers from a table, a request and a description, worked out by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.context_rows import ContextRows
from recsys_rl.data.tables.pieces import Piece, merged, pieces_text, read_pieces, seen_pieces
from recsys_rl.logs.decision_columns import Table
from recsys_rl.logs.decision_log import concatenate
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.own_log import NO_VALUE, users_of
from recsys_rl.logs.platform import OwnLogConfig, OwnLogData, load_log, open_own_log
from recsys_rl.logs.source import heldout_rows, heldout_strangers
from recsys_rl.recommender.drawn import drawn_contexts
from recsys_rl.types import UserError
from recsys_rl.utils.user_hashes import number_of
from tests.own_tables import SHORT, decisions, table

TEXTS = {
    "age": ["20", "", "40", "90", "null"],  # the known ones: mean 50, variance (30^2 + 10^2 + 40^2) / 3
    "mood": ["0.5", "1", "-0.75", "", "0.25"],  # as it is; the mean is .25
    "device": ["desk", "phone", "", "desk", "\\N"],
    "taste": ["1|200", "[]", "0|600", "", "0.5|400"],
}
STEPS = ["--total-timesteps", "160"]
DEVIATION = (2600 / 3) ** 0.5
DESK, PHONE, NONE = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]  # the third is other


def cells(texts: dict[str, list[str]]) -> Cells:
    return Cells("log.csv", pl.DataFrame({f"context.{name}": values for name, values in texts.items()}))


def pieces() -> dict[str, Piece]:
    return {name: seen.piece(name)[0] for name, seen in seen_pieces(cells(TEXTS), fill=True).items()}


def test_a_missing_number_is_the_mean_a_text_a_kind_and_a_list_zeros() -> None:
    known = pieces()
    assert {name: piece.size for name, piece in known.items()} == {
        "age": 2, "mood": 2, "device": 4, "taste": 2,
    }  # fmt: skip
    encoded = {name: piece.tensor(cells(TEXTS)) for name, piece in known.items()}
    age = torch.tensor([[-30, 0], [0, 1], [-10, 0], [40, 0], [0, 1]]) / torch.tensor([DEVIATION, 1])
    torch.testing.assert_close(encoded["age"], age)
    assert encoded["mood"].tolist() == [[0.5, 0], [1, 0], [-0.75, 0], [0.25, 1], [0.25, 0]]
    assert encoded["device"].tolist() == [DESK, PHONE, NONE, DESK, NONE]
    assert encoded["taste"][[1, 3]].tolist() == [[0, 0], [0, 0]]
    large = torch.tensor([-200, 200, 0]) / (80_000 / 3) ** 0.5
    torch.testing.assert_close(encoded["taste"][[0, 2, 4], 1], large)
    assert known["device"].unknown(cells(TEXTS | {"device": ["tv", "", "desk", "", "tv"]})) == 2


def test_requests_and_settings_have_the_numbers_of_the_table() -> None:
    known = list(pieces().values())
    assert list(read_pieces(pieces_text(known))) == known
    contexts = ContextRows(known)
    requests: list[dict[str, object]] = [
        {"age": 20, "mood": 0.5, "device": "desk", "taste": [1, 200]},
        {"age": None, "mood": 1, "device": "phone", "taste": []},
        {"age": 40, "mood": -0.75, "taste": (0, 600)},
        {"age": 90, "mood": None, "device": "desk", "taste": None},
        {"mood": 0.25, "device": "nan", "taste": [0.5, 400]},
    ]
    made = contexts.tensors([contexts.row(request) for request in requests])
    for piece in known:
        assert torch.equal(made[piece.name], piece.tensor(cells(TEXTS))), piece.name
    for wrong in ({"age": ""}, {"age": "old"}, {"height": 3}, {"taste": [1]}, {"taste": [None, 1]}):
        with pytest.raises(UserError):
            contexts.row({**requests[4], **wrong})
    strict = ContextRows([seen_pieces(cells({"age": ["2", "4"]}))["age"].piece("age")[0]])
    for none in ({}, {"age": None}):
        with pytest.raises(UserError):
            strict.row(none)
        # Another version took it. Of two values the lower one is the median.
        assert strict.row(none, recorded=True) == (2.0,)


def test_the_mean_is_that_of_the_known_values_of_all_files_and_a_file_may_have_none() -> None:
    none, more = cells({"age": [None, None]}), cells({"age": ["10", "", "30"]})  # type: ignore[list-item]
    first = cells({"age": ["80", "80"]})
    for order in ((none, more, first), (first, more, none), (more, none, first)):
        [seen] = merged([(f"{k}.csv", seen_pieces(file, fill=True)) for k, file in enumerate(order)]).values()
        piece, _ = seen.piece("age")
        assert seen.gaps == 3 and piece.gaps and piece.mean == (50.0,)
    [seen] = merged([("a.csv", seen_pieces(none, fill=True))]).values()
    with pytest.raises(UserError):
        seen.piece("age")


def test_a_wrong_value_is_named_by_its_row_in_the_file() -> None:
    for name, values in (
        ("age", ["", "20", "old", "30"]),
        ("taste", ["[]", "1|2", "1", "2|3"]),
        ("age", ["", "20", "1e31", "30"]),
        ("taste", ["[]", "1|2", "1|x", "2|3"]),
    ):
        with pytest.raises(UserError, match="row 3"):
            seen_pieces(cells({name: values}), fill=True)
    with pytest.raises(UserError, match="row 3"):
        pieces()["age"].tensor(cells({"age": ["", "20", "1e30", "30"]}))


def test_drawn_contexts_have_gaps_of_the_same_encoding() -> None:
    known = pieces()
    drawn = drawn_contexts(list(known.values()), 200, torch.Generator().manual_seed(0))
    gone = drawn["age"][:, 1] == 1
    assert 20 < gone.sum() < 60 and (drawn["age"][gone, 0] == 0).all()  # the mean is encoded as 0
    assert set(drawn["age"][:, 1].tolist()) == {0.0, 1.0}
    assert 20 < (drawn["taste"] == 0).all(1).sum() < 60


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_with_gaps_is_described_judged_and_refused_on_demand(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = decisions(400)
    rows = pl.int_range(pl.len())
    frame = frame.with_columns(
        pl.when(rows % 4 > 0).then("context.age").alias("context.age"),
        pl.when(rows % 10 > 0).then("context.device").alias("context.device"),
    )
    path = table(tmp_path / f"log{ending}", frame)
    found = describe(path)
    assert found.problems == () and found.learnable is not None
    assert [(x.column, x.gaps, x.size) for x in found.learnable.context] == [
        ("context.mood", 0, 1),
        ("context.age", 100, 2),
        ("context.device", 40, 3),
    ]
    assert main(["data", "describe", path, "--json", str(tmp_path / "d.json")]) == 0
    said = capsys.readouterr().out
    assert "context.age in 100 rows" in said and "context.device in 40 rows" in said
    described = json.loads((tmp_path / "d.json").read_text())["learnable"]["context"]
    assert [piece["gaps"] for piece in described] == [0, 100, 40]
    read = read_table(path).log.given
    assert {name: x.shape[1] for name, x in read.items()} == {"mood": 1, "age": 2, "device": 4}
    assert (int(read["age"][:, 1].sum()), int(read["device"][:, 3].sum())) == (100, 40)
    assert main(["ope", "--log", path, "--policy", "random", "--no-world", "--draws", "1"]) == 0
    capsys.readouterr()
    train = ["train", "--algo", "reinforce", "--log", path, "--runs-dir", str(tmp_path / "runs"), *SHORT]
    for command in (["ope", "--log", path], train):
        assert main([*command, "--missing", "refuse"]) == 2
        error = capsys.readouterr().err
        assert "'context.age'" in error and "100 rows" in error
    assert not (tmp_path / "runs").exists()


def test_a_column_without_any_value_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "log.csv", decisions(40).with_columns(pl.lit("").alias("context.age")))
    assert main(["train", "--algo", "bc", "--log", path, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "context.age" in capsys.readouterr().err
    assert [x.text for x in describe(path).problems] == ["column 'context.age' has no value"]


def with_holes(frame: pl.DataFrame) -> pl.DataFrame:
    """Every third age and every fifth device is missing."""
    rows = pl.int_range(pl.len())
    return frame.with_columns(
        pl.when(rows % 3 > 0).then("context.age").alias("context.age"),
        pl.when(rows % 5 > 0).then("context.device").alias("context.device"),
    )


@pytest.mark.parametrize("whose", ["user", "context"])
def test_the_mean_is_that_of_the_training_side(tmp_path: Path, whose: str) -> None:
    """Without users the hash of the context holds rows out, also of those with gaps."""
    frame = with_holes(decisions(300)).drop([] if whose == "user" else ["user"])
    path = table(tmp_path / "log.parquet", frame)
    given = {"log": (path,), "seed": 3, "heldout_fraction": 0.3}
    brought = load_log(given)
    env = OwnLogConfig(**brought.settings["env_config"])
    log = concatenate([*open_own_log((path,), OwnLogData(data=path), env, brought.world.catalogue).parts(40)])
    training = ~heldout_rows(log, brought.world.population, 0.3, 3).numpy()
    assert 150 < training.sum() < 260
    ages = frame["context.age"].to_numpy()  # float64, NaN in the gaps
    known = ages[training & ~np.isnan(ages)]
    pieces = {piece.name: piece for piece in env.log_shape.pieces}
    assert pieces["age"].mean == pytest.approx((known.mean(),), rel=1e-12) and pieces["device"].gaps
    assert float(log.given["age"][:, 1].sum()) == 100 and not pieces["mood"].gaps
    if whose == "user":
        held = frame.with_columns(
            pl.when(pl.Series(~training) & pl.col("context.age").is_not_null()).then(9_999)
            .otherwise("context.age").alias("context.age")
        )  # fmt: skip
        other = load_log({**given, "log": (table(tmp_path / "other.parquet", held),)})
        assert json.loads(other.settings["env_config"]["shape"]) == json.loads(env.shape)


def test_a_table_with_gaps_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "log.csv", with_holes(decisions(200)))
    assert main(["train", "--algo", "bc", "--log", path, "--name", "a", *SHORT, *STEPS]) == 0
    checkpoint = str(tmp_path / "runs/a/bc.pt")
    assert [piece.gaps for piece in load(checkpoint).config.env_config.log_shape.pieces] == [
        False,
        True,
        True,
    ]
    asked = ["recommend", "--checkpoint", checkpoint, "--k", "1", "--context"]
    assert main([*asked, "mood=2"]) == 0 and main([*asked, "age=2"]) == 2


def test_a_gap_of_a_held_out_row_gives_the_indicator_and_nothing_else(tmp_path: Path) -> None:
    frame = decisions(200, users=40)
    users = torch.tensor([number_of(name) for name in frame["user"]])
    row = int(heldout_strangers(users, 0.2, 0).int().argmax())
    gap = pl.when(pl.int_range(pl.len()) != row).then("context.age").alias("context.age")
    paths = [
        table(tmp_path / f"{name}.parquet", of) for name, of in (("a", frame), ("b", frame.with_columns(gap)))
    ]
    shapes = [OwnLogConfig(**load_log({"log": (path,)}).settings["env_config"]).log_shape for path in paths]
    without, with_gap = ({piece.name: piece for piece in shape.pieces} for shape in shapes)
    age = with_gap["age"]
    assert age.gaps and not without["age"].gaps and age.size == without["age"].size + 1
    assert replace(age, gaps=False, mean=()) == without["age"]
    assert {**with_gap, "age": None} == {**without, "age": None}


def test_a_row_is_on_the_same_side_in_parts_of_any_size(tmp_path: Path) -> None:
    """Without users rows are held out by their context; a part may hold no list at all."""
    frame = decisions(90, users=9).drop("user")
    lists = [[1.0, float(row)] if row < 30 else None for row in range(90)]
    log = table(tmp_path / "log.parquet", frame.with_columns(pl.Series("context.v", lists)))
    made = load_log({"log": (log,)})
    source = open_own_log(
        (log,), OwnLogData(), OwnLogConfig(**made.settings["env_config"]), made.world.catalogue
    )
    sides = [torch.cat([part.users for part in source.parts(rows)]) for rows in (1000, 40, 7)]
    assert torch.equal(sides[0], sides[1]) and torch.equal(sides[0], sides[2])
    read = cells({"a": ["1", "2", ""], "v": ["3|4", "", ""]})
    bits = np.array([1, 3, 4, 2], np.float32).view(np.int32).astype(np.int64)
    rows = [bits[:3], [bits[3], NO_VALUE], [NO_VALUE, NO_VALUE]]
    by_hand = [
        int.from_bytes(hashlib.blake2b(np.array(row, np.int64).tobytes(), digest_size=8).digest(), "big") >> 1
        for row in rows
    ]
    of_rows = users_of(
        Table(read.name, read.frame, {}, False),
        {"a": "number", "v": "list"},
        None,
        torch.arange(3),
        "log.csv",
    )
    assert of_rows.tolist() == by_hand

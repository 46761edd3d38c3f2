"""Columns of texts in which some values look like numbers: cities, postal codes, search queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from recsys_rl import cli
from recsys_rl.data.tables.values import are_numbers
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.survey import describe

CITIES = ["Bonn", "1,5", "Foo, Bar", "Ulm"]
ZIPS = ["80331", "10115", "10115", "80331"]


def log(folder: Path, ending: str, city: Sequence[object] = CITIES, postal: Sequence[object] = ZIPS) -> Path:
    """A log of four decisions, five times, with these texts."""
    rows = [
        {"user": n, "item": "ab"[n % 2], "reward": n % 3 == 0, "propensity": 0.5}
        | {"context.city": city[n % 4], "context.zip": postal[n % 4]}
        for n in range(20)
    ]
    path = folder / f"log.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == "csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


def sizes(path: Path, text_column: str | None = None) -> dict[str, int]:
    given = read_table(path, {"text": text_column}).log.given
    return {name: values.shape[1] for name, values in given.items()}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_string_of_a_typed_file_is_a_text(tmp_path: Path, ending: str) -> None:
    """Codes of four cities and two postal codes, and of another text each."""
    path = log(tmp_path, ending)
    assert sizes(path) == {"city": 5, "zip": 3}
    learnable = describe(path).learnable
    assert learnable is not None
    assert [(piece.column, piece.size, piece.odd) for piece in learnable.context] == [
        ("context.city", 4, ""),
        ("context.zip", 2, ""),
    ]


def test_most_values_of_a_text_file_tell_its_kind(tmp_path: Path) -> None:
    path = log(tmp_path, "csv")
    assert sizes(path) == {"city": 5, "zip": 1}
    assert sizes(path, "zip") == {"city": 5, "zip": 3}
    assert sizes(path, "context.zip, city") == {"city": 5, "zip": 3}
    learnable = describe(path).learnable
    assert learnable is not None
    city = learnable.context[0]
    assert (city.size, city.of_texts) == (4, True)
    assert "5 of 20" in city.odd and "1,5" in city.odd
    assert any("5 of 20" in note for note in read_table(path).notes)
    by_name = describe(path, given={"text": "zip"}).learnable
    assert by_name is not None and [piece.size for piece in by_name.context] == [4, 2]


def test_a_text_among_numbers_is_refused_with_its_line(tmp_path: Path) -> None:
    """Three of four rows hold one number, so the fourth is wrong, and not a list."""
    path = log(tmp_path, "csv", city=["7", "8", "9", "Foo, Bar"])
    with pytest.raises(UserError, match=r"context\.city is 'Foo, Bar' in line 5, .*--text-column city"):
        read_table(path)
    assert sizes(path, "city") == {"city": 5, "zip": 1}


def test_strings_beside_numbers_in_json(tmp_path: Path) -> None:
    """A column of both kinds is judged as one of a text file: no type tells."""
    assert sizes(log(tmp_path, "jsonl", city=[7, 8, 9.5, "10"])) == {"city": 1, "zip": 3}
    assert sizes(log(tmp_path, "jsonl", city=["x", "y", "z", 10])) == {"city": 5, "zip": 3}


def test_unknown_text_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(log(tmp_path, "csv"))
    for command in (["data", "describe", path], ["train", "--algo", "bc", "--log", path]):
        assert cli.main([*command, "--text-column", "town"]) == 2
        assert "context.town" in capsys.readouterr().err


def test_train_and_ope_read_texts_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy knows the six texts, and a newer log may have none that looks like a number."""
    monkeypatch.chdir(tmp_path)
    path = log(tmp_path, "csv")
    words = ["--total-timesteps", "512", "--text-column", "zip", "--quiet", "--name", "mine"]
    assert cli.main(["train", "--algo", "bc", "--log", str(path), *words]) == 0
    newer = log(tmp_path, "jsonl", city=["Rome"] * 4)
    words = ["--checkpoint", "runs/mine/bc.pt", "--json", "ope.json"]
    assert cli.main(["ope", "--log", str(newer), *words]) == 0
    assert json.loads((tmp_path / "ope.json").read_text())["about"]["decisions"] > 0


def test_lists_of_numbers_and_texts() -> None:
    texts = pl.Series(["1", " 2.5", "1|2", "[1, 2]", "1,5", "a", "1|a", "", "true", "007"])
    found = are_numbers(texts).to_list()
    assert found == [True, True, True, True, True, False, False, False, True, True]

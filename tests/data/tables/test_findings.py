"""Lines of text files in messages: as an editor counts them, with headers, quoted fields and blank lines."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import polars as pl
import pytest

from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.findings import TableError, found, in_words, names_of, words_of, wrong
from recsys_rl.data.tables.read import HEADLESS, open_table
from recsys_rl.logs.decision_table import read_table
from recsys_rl.types import UserError

TEXTS = {  # the line of each row
    "plain.csv": ("user,item\n1,2\n3,4\n", [2, 3]),
    "windows.csv": ("user,item\r\n1,2\r\n\r\n3,4\r\n", [2, 3, 4]),
    "quoted.csv": ('user,item\n1,"two\nlines"\n\n"a ""b""\n\nc",4\n5,6\n', [2, 4, 5, 8]),
    "bare.tsv": ("1\t2\n3\t4\n", [1, 2]),
    "bare.csv": ('1,2\n3,"4\n4"\n5,6\n', [1, 2, 4]),
    "colons.dat": ("1::2\n3::4\n", [1, 2]),
    "apostrophe.tsv": ('user\titem\n1\t"x\n2\ty\n', [2, 3]),  # no quotation marks in a file with tabs
}


@pytest.mark.parametrize("name", TEXTS)
def test_each_row_has_its_line(tmp_path: Path, name: str) -> None:
    text, lines = TEXTS[name]
    (tmp_path / name).write_bytes(text.encode())
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        table = open_table(path, headless=HEADLESS)
        assert table.rows(table.names).height == len(lines)
        assert [table.line(row) for row in range(1, len(lines) + 1)] == lines


def test_places_of_a_sentence_get_the_words_of_the_file() -> None:
    words = names_of({"row": lambda row: f"line {row + 10}"}, ["a", "b"], ["s-0", "s-1"], ["ann", "bob"])
    for finding, plain, named in (
        (found("{rows} have one user", rows=(1, 4)), "rows 1 and 4 have", "lines 11 and 14 have"),
        (found("{item} of {row}, {value!r}", item=1, row=2, value="row 3"), "item 1 of row 2, 'row 3'", ""),
        (
            found("{item} of {row}, {value!r}", item=1, row=2, value="row 3"),
            "",
            "item 'b' of line 12, 'row 3'",
        ),
        (found("{session}: {users}", session=1, users=[0, 1]), "session 1: users 0 and 1", "'ann' and 'bob'"),
        (found("at {decision}", decision=(2, 0)), "at step 2 of session 0", "at step 2 of session 's-0'"),
        (found("it is {value:g}", value=0.5), "it is 0.5", "it is 0.5"),
    ):
        assert plain in finding.said() and named in finding.said(words)
    rows = names_of({"row": lambda row: f"line {row + 10}"}, [], None)
    assert found("at {decision}", decision=(0, 4)).said(rows) == "at line 15"  # each row is a session


def test_errors_get_words_where_they_have_none() -> None:
    error = wrong("", "{session} at {row}", session=0, row=3)
    assert str(error) == "Session 0 at row 3."
    inner = error.by({"row": lambda row: f"line {row}"})
    outer = inner.by({"row": lambda row: "no", "session": lambda number: f"session 's{number}'"}, "log.csv")
    assert str(outer) == "log.csv: session 's0' at line 3."
    several = TableError(
        "log.csv", found("{row} is bad", row=1), found("{row} too", row=2), mends=("mend it",)
    )
    assert str(several) == "log.csv has 2 problems: row 1 is bad; row 2 too: mend it."
    copied = pickle.loads(pickle.dumps(several))  # noqa: S301
    assert type(copied) is UserError and str(copied) == str(several)


def test_rows_of_parquet_stay_rows(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    for name, start, said in (("parquet", 0, "row 1"), ("parquet", 5, "row 6"), ("csv", 0, "line 2")):
        words = words_of(open_table(tmp_path / f"log.{name}"), start)
        with pytest.raises(UserError, match=f"^x: {said} is bad.$"), in_words(words):
            raise wrong("x", "{row} is bad", row=1)


def test_the_name_of_the_file_stays(tmp_path: Path) -> None:
    """Two rows, of which the second is wrong, in files and folders that are named after rows."""
    (tmp_path / "row 7").mkdir()
    for name, said in (("row 2.csv", "row 2.csv"), ("row 7/log.csv", "log.csv")):
        (tmp_path / name).write_text("user,item,rating\n1,2,3\n1,3,bad\n")
        with pytest.raises(UserError, match=f"^{said}: column 'rating' has 'bad' in line 3: "):
            read_log(tmp_path / name)
        (tmp_path / name).write_text("item,propensity,reward\na,0.5,1\nb,1.5,1\n")
        with pytest.raises(UserError, match=f"^{tmp_path / name}: propensity is 1.5 in line 3: "):
            read_table(tmp_path / name)

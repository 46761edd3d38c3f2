"""Lines of text files in messages: as an editor counts them, with headers, quoted fields and blank lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.lines import about, in_lines, lines_of
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


def test_numbers_of_rows_become_those_of_lines() -> None:
    for text, said in (
        ("column 'user' has no value in 2 rows (the first is row 5)", "(the first is line 15)"),
        ("rows 1 and 4 have the same user", "lines 11 and 14 have the same user"),
        ("Row 3 of the log has an empty place", "Line 13 of the log"),
        ("the first is row 1,990) and is kept", "the first is line 2,000) and is kept"),
        ("2 cells in row 1, column 2", "2 cells in line 11, column 2"),
        (
            "item 'row 3' of row 2 is not among the row's candidates: its places'",
            "item 'row 3' of line 12 is",
        ),
        ("has 5 rows and the log 7: give a row for each", "has 5 rows and the log 7: give a row for each"),
    ):
        assert said in in_lines(text, lambda row: row + 10)


def test_rows_of_parquet_stay_rows(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    parquet, text = open_table(tmp_path / "log.parquet"), open_table(tmp_path / "log.csv")
    assert about(parquet, "row 1 is bad") == "row 1 is bad" and about(text, "row 1 is bad") == "line 2 is bad"
    for table, said in ((parquet, "^row 1 is bad$"), (text, "^line 2 is bad$")):
        with pytest.raises(UserError, match=said), lines_of(table):
            raise UserError("row 1 is bad")


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

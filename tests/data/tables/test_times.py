"""Times that begin with the day or the month, and files of MovieLens's kind."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.times import TimeFormat, format_in, seconds
from recsys_rl.data.tables.values import on
from recsys_rl.errors import UserError
from recsys_rl.logs.describe.description import Problem
from recsys_rl.logs.describe.survey import describe

LAST = 1609459140  # 2020-12-31 23:59 UTC


def times_of(texts: list[str]) -> tuple[list[float | None], TimeFormat]:
    column = pl.Series(texts)
    form = format_in(column)
    return on(column, seconds, form).to_list(), form


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("31.12.2020 23:59", LAST),
        ("31.12.2020", LAST - 23 * 3600 - 59 * 60),
        ("31/12/2020 23:59:30", LAST + 30),
        ("12/31/2020 23:59", LAST),
        ("12/31/2020 11:59 PM", LAST),
        ("12/31/2020, 12:59 AM", LAST - 23 * 3600),
        ("12-31-2020 23:59 +01:00", LAST - 3600),
        ("1.2.2021", 1612137600),  # with points the day is first: 2021-02-01
        ("2020-12-31T23:59Z", LAST),
    ],
)
def test_times_of_people(text: str, expected: int) -> None:
    assert times_of([text])[0] == [expected]


@pytest.mark.parametrize("text", ["1970-13-01", "1970-01-01T25:00:00Z", "yesterday", "01/02/1970"])
def test_impossible_times_are_null(text: str) -> None:
    assert times_of(["1970-01-01", text])[0][1] is None


def test_one_row_shows_the_order_of_a_whole_column() -> None:
    found, form = times_of(["01/02/2021", "13/02/2021"])
    assert found == [1612137600, 1613174400] and form.note == "times read as day first"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (["01/02/2021", "03/04/2021"], "no row shows which: write them as 2024-05-01"),
        (["13/02/2021", "02/13/2021"], "some of these times begin with the day and others with the month"),
        (["31.12.2020", "31.02.2020"], "has '31.02.2020' in line 3"),
        (["12/31/2020 25:00", "12/31/2020 13:00 PM"], "(and 1 more rows)"),
    ],
)
def test_unclear_times_are_refused_in_one_sentence(tmp_path: Path, rows: list[str], complaint: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,date\n" + "".join(f"a,x{k},{text}\n" for k, text in enumerate(rows)))
    with pytest.raises(UserError) as error:
        read_log(path)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_pieces_of_a_file_are_read_in_the_order_that_the_whole_file_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    days = ["01/02/2021", "02/02/2021", "13/02/2021", "14/02/2021"]
    path.write_text("user,item,date\n" + "".join(f"u{k},x{k},{text}\n" for k, text in enumerate(days)))
    assert describe(path).times == (1612137600.0, 1613260800.0)
    path.write_text("user,item,date\na,x,01/02/2021\nb,y,02/02/2021\n")
    (problem,) = describe(path).problems
    assert problem.count == 2 and "no row shows which" in problem.text


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_unit_of_numbers_is_that_of_the_whole_column_in_each_piece(tmp_path: Path, ending: str) -> None:
    """Of the first 5 times most are below 1e11, of all 12 most are above."""
    path = tmp_path / f"log.{ending}"
    counter = [k * 25_000_000_000 for k in range(12)]
    frame = pl.DataFrame({"user": range(12), "item": range(12), "time": counter})
    frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
    found = describe(path)
    assert found.times == (0.0, 275e6) and found.time_unit == "milliseconds"
    dates = "1970-01-01 00:00:00 UTC to 1978-09-18 20:53:20 UTC"
    assert f"time: {dates} (numbers of milliseconds)" in found.lines()
    assert read_log(path).times.tolist() == [x // 1000 for x in counter]


def test_numbers_beyond_the_years_of_people_are_no_dates(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"a,x{k},{k}0000000000\n" for k in range(12)))
    assert "time: 0 to 1.1e+11 (no dates: numbers of steps or rows)" in describe(path).lines()


def test_a_column_is_of_dates_or_of_numbers(tmp_path: Path) -> None:
    """The piece without a date is read as those of the whole column are: a number is not a date."""
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\na,x,2020-12-31\nb,y,2021-01-01\nc,z,5\nd,w,6\n")
    (problem,) = describe(path).problems
    assert problem == Problem("column 'time' has no time", 2, 3)


@pytest.mark.parametrize("name", ["u.data", "u.data.gz"])
def test_files_of_movielens_need_no_option(tmp_path: Path, name: str) -> None:
    text = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    log = read_log(tmp_path / name)
    assert log.user_ids.tolist() == [22, 186, 196] and log.ratings.tolist() == [1, 3, 3]
    assert log.times.tolist() == [878887116, 891717742, 881250949]

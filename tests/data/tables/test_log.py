"""Logs from columns and files: literal results, permuted rows, and bad input."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_rl.data.tables.events import make_log, read_log
from recsys_rl.types import InteractionLog, UserError
from recsys_rl.utils import download

SHARED = Path(__file__).parents[4] / "shared" / "data"


def write(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def assert_equal(a: InteractionLog, b: InteractionLog) -> None:
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
        elif field.name != "attributes":
            assert left == right
    for name in a.attributes.keys() | b.attributes.keys():
        torch.testing.assert_close(a.attributes[name], b.attributes[name], rtol=0, atol=0, equal_nan=True)


def test_rows_follow_ascending_ids_and_events_follow_user_and_time() -> None:
    log = make_log([9, 4, 9, 4], [70, 50, 50, 60], [3, 8, 1, 2], [1.0, 2.0, 3.0, 4.0], source="x")
    assert log.user_ids.tolist() == [4, 9]
    assert log.item_ids.tolist() == [50, 60, 70]
    assert log.users.tolist() == [0, 0, 1, 1]
    assert log.items.tolist() == [1, 0, 0, 2]
    assert log.times.tolist() == [2, 8, 1, 3]
    assert log.ratings.tolist() == [4.0, 2.0, 3.0, 1.0]
    assert log.titles == ("item 50", "item 60", "item 70")
    assert log.rating_range == (1.0, 4.0)
    assert log.attributes["genres"].shape == (3, 0) and log.features[0].values == ()
    assert torch.isnan(log.attributes["year"]).all()
    assert log.source == "x"


def test_titles_genres_and_years_are_looked_up_by_source_id() -> None:
    log = make_log(
        [1, 1],
        [8, 7],
        source="x",
        titles={7: "Seven"},
        genres={7: ["War", "Drama"], 8: ["Drama"], 99: ["Unseen"]},
        years={8: 1999.0},
    )
    assert log.titles == ("Seven", "item 8")
    assert log.features[0].values == ("Drama", "War")
    assert log.attributes["genres"].tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert math.isnan(log.attributes["year"][0]) and log.attributes["year"][1] == 1999.0


def test_log_without_times_and_ratings_draws_an_order_and_counts_likes(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "user,item\n2,5\n1,5\n2,3\n"))
    assert log.users.tolist() == [0, 1, 1] and not log.timed
    assert log.ratings.tolist() == [1.0, 1.0, 1.0]
    assert log.rating_range == (0.0, 1.0)
    said = "log.csv (columns: user, item; it has no column 'rating', so each row counts as a like)"
    assert log.source == said
    assert read_log(write(tmp_path, "user,item,time\n2,5,1\n")).timed


@pytest.mark.parametrize("name", ["{}", "no number {}"])
def test_order_without_times_is_of_user_and_item_alone(name: str) -> None:
    """Not of the order of the rows, nor of other users; and it has nothing to do with the items' order."""
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(200), 10), np.tile(np.arange(10), 200)

    def orders(rows: np.ndarray) -> dict[int | str, list[int]]:
        ids = [name.format(item) for item in items[rows]]
        log = make_log(users[rows], ids, source="x")
        ranks = log.items.view(-1, 10).tolist()
        return dict(zip(log.ids_of_users, ranks, strict=True))

    whole, shuffled = orders(np.arange(2000)), orders(rng.permutation(2000))
    assert whole == shuffled
    assert orders(np.arange(500, 1000)) == {user: whole[user] for user in range(50, 100)}
    places = np.array([np.argsort(order) for order in whole.values()])  # (U, I): place of each item
    # A uniform place has the mean 4.5 and the deviation 2.87, and of 200 the mean deviates by 0.2.
    assert np.abs(places.mean(0) - 4.5).max() < 5 * 0.203
    assert np.abs(np.corrcoef(places[::2].T.ravel(), places[1::2].T.ravel())[0, 1]) < 5 / 1000**0.5


def test_string_ids_become_ranks_and_titles() -> None:
    log = make_log(["bo", "al", "bo"], ["B0X", "0001", "0001"], source="x")
    assert log.user_ids.tolist() == [0, 1]
    assert log.users.tolist() == [0, 1, 1]
    assert log.items.tolist() == [0, 1, 0]
    assert log.item_ids.tolist() == [0, 1]
    assert log.titles == ("0001", "B0X")


def test_categorical_ids_are_strings() -> None:
    users = pl.Series("user", ["bo", "al"], dtype=pl.Categorical)
    log = make_log(users, [1, 2], source="x")
    assert (log.users.tolist(), log.items.tolist()) == ([0, 1], [1, 0])  # "al" comes first


def test_string_ids_of_digits_are_not_merged() -> None:
    assert make_log([1, 1], ["007", "7"], source="x").titles == ("007", "7")


def test_named_columns_of_csv_gzip_and_parquet(tmp_path: Path) -> None:
    text = "extra,uid,iid,when,stars\nq,2,5,9,4.5\nq,1,6,8,3\n"
    names = ("uid", "iid", "when", "stars")
    expected = make_log([2, 1], [5, 6], [9, 8], [4.5, 3.0], source="")
    table = pl.DataFrame({"uid": [2, 1], "iid": [5, 6], "when": [9, 8], "stars": [4.5, 3.0]})
    table.write_parquet(tmp_path / "log.parquet")
    write(tmp_path, text)
    write(tmp_path, gzip.compress(text.encode()), "log.csv.gz")
    for name in ("log.csv", "log.csv.gz", "log.parquet"):
        log = read_log(tmp_path / name, *names)
        assert_equal(dataclasses.replace(log, source=""), expected)


def test_largest_id_and_zero_are_accepted() -> None:
    log = make_log([0, 2**63 - 1], [str(2**63 - 1), "0"], source="x")
    assert log.user_ids.tolist() == [0, 2**63 - 1]
    assert log.item_ids.tolist() == [0, 2**63 - 1]


def test_fractions_of_a_second_only_order_events() -> None:
    log = make_log([1, 1, 1], [5, 6, 5], [9.75, 9.5, 9.25], source="x")
    assert log.items.tolist() == [0, 1, 0]
    assert log.times.tolist() == [9, 9, 9]


def test_dates_are_seconds_since_1970() -> None:
    log = make_log(
        [1, 1], [5, 6], [datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 1, 0, 1)], source="x"
    )
    assert log.times.tolist() == [60, 86400]


def test_single_rating_value_has_a_range() -> None:
    assert make_log([1, 2], [5, 6], None, [5.0, 5.0], source="x").rating_range == (0.0, 5.0)
    assert make_log([1, 2], [5, 6], None, [0.0, 0.0], source="x").rating_range == (0.0, 1.0)


def test_same_pair_at_another_time_is_another_event() -> None:
    assert make_log([1, 1], [5, 5], [1, 2], source="x").times.tolist() == [1, 2]


events = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30, unique=True
)


@settings(max_examples=50, deadline=None)
@given(rows=events, data=st.data())
def test_permuting_the_rows_of_the_file_gives_the_same_log(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    lines = [f"{user},{item},{time},{(user + 2 * item + time) % 5}\n" for user, item, time in rows]
    folder = tmp_path_factory.mktemp("logs")
    header = "user,item,timestamp,rating\n"
    log = read_log(write(folder, header + "".join(lines)))
    permuted = read_log(write(folder, header + "".join(data.draw(st.permutations(lines)))))
    assert_equal(log, permuted)
    back = zip(
        log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), log.times.tolist(), strict=True
    )
    assert sorted(back) == sorted(rows)


HEADER = "user,item,timestamp,rating\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ""),
        (HEADER, ""),
        (
            "person,item\n1,2\n",
            "",
        ),
        (HEADER + "1,2,3,4\n\0,2,3,4\n", ""),
        (HEADER + f"1,2,3,4\n{2**63},2,3,4\n", "line 3"),
        (HEADER + f"1,{2**64},3,4\n", "line 2"),
        (HEADER + "1,2,3,4\n1.5,2,3,4\n", "line 3"),
        (HEADER + "1,-2,3,4\n", "line 2"),
        (
            HEADER + "1,2,3,4\n1,nan,3,4\n",
            "line 3",
        ),
        (HEADER + "1,2,3,4\n,2,3,4\n", "line 3"),
        (HEADER + "a,2,3,4\n  ,2,3,4\n", "line 3"),
        (HEADER + "1,2,3,4\n1,3,3,NaN\n", "line 3"),
        (HEADER + "1,2,3,inf\n", "line 2"),
        (HEADER + "1,2,3,good\n", "line 2"),
        (HEADER + "1,2,3,\n", ""),
        (HEADER + "1,2,yesterday,4\n", "line 2"),
        (HEADER + "1,2,nan,4\n", ""),
        (HEADER + f"1,2,{2**63},4\n", "line 2"),
        (HEADER + "1,2,3,4\n7,8,9,1\n7,8,9,1\n1,2,3,5\n", "lines 2 and 5"),
        ("user,item\n1,2\n3,4\n1,2\n", "lines 2 and 4"),
        (HEADER + "1,2,3,4,5,6\n", ""),
        ("1,2,3,4,5\n", ""),  # no header, and too many columns for one
        (",".join(f"c{number}" for number in range(10_000)) + "\n", ""),
        ("user,item\n1,-" + "9" * 10_000 + "\n", "line 2"),
        (
            'user,item\n1,"2\n\n3,4\n',
            "",
        ),
        ('user,item\n1,"2\n' + "3,4\n" * 99, ""),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path: Path, text: str | bytes, place: str) -> None:
    with pytest.raises(UserError) as caught:
        read_log(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "log.csv" in str(caught.value) and place in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("header", ["user,item,user", "user,item,item", "user,user,user,item"])
def test_repeated_column_is_an_error(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header + "\n" + ",".join("123456"[: header.count(",") + 1]) + "\n")
    with pytest.raises(UserError):
        read_log(path)


def test_repeated_unused_column_is_allowed(tmp_path: Path) -> None:
    assert read_log(write(tmp_path, "user,note,note,item\n1,a,b,2\n")).item_ids.tolist() == [2]


def test_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"user,item\n" + b"\n" * 2_000_000
    path = write(tmp_path, gzip.compress(text), "log.csv.gz")  # a thousandth
    monkeypatch.setattr(download, "FREE", 1_000)
    with pytest.raises(UserError):
        read_log(path)
    monkeypatch.setattr(download, "FREE", len(text))
    with pytest.raises(UserError):
        read_log(path)


def test_named_column_must_exist(tmp_path: Path) -> None:
    path = write(tmp_path, "user,item\n1,2\n")
    with pytest.raises(UserError):
        read_log(path, time_column="when", rating_column="stars")


def test_damaged_files_are_user_errors(tmp_path: Path) -> None:
    pl.DataFrame({"user": range(100), "item": range(100)}).write_parquet(tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    for broken in (whole[:-20], whole[20:], b"PAR1"):
        with pytest.raises(UserError):
            read_log(write(tmp_path, broken, "broken.parquet"))
    packed = gzip.compress(b"user,item\n" + b"1,2\n" * 50)
    with pytest.raises(UserError):
        read_log(write(tmp_path, packed[:-12], "log.csv.gz"))


@pytest.mark.parametrize("column", [[2**63], [2**200], [1.5], [[1]], [1, "a"], [1, 2], []])
def test_bad_columns_are_user_errors(column: list[Any]) -> None:
    with pytest.raises(UserError):
        make_log(column, [5], source="x")


def test_movielens_1m_pairs() -> None:
    path = SHARED / "movielens-1m-implicit" / "ratings_user_movie.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    log = read_log(path, user_column="user_id", item_column="movie_id")
    assert (len(log.users), len(log.user_ids), len(log.item_ids)) == (1_000_209, 6_040, 3_706)
    likes = torch.bincount(log.items)  # (I,)
    assert (log.item_ids[likes.argmax()].item(), likes.max().item()) == (2858, 3_428)
    assert (torch.bincount(log.users).min().item(), torch.bincount(log.users).max().item()) == (20, 2_314)

"""Files as people have them: formats, headers, times, gaps, repeats; whole commands on ordinary files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.catalogue import about_likes
from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.items import encoded, read_items
from recsys_rl.data.tables.read import open_table
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.writer import KEY
from recsys_rl.types import InteractionLog, UserError
from tests.doors import assert_names

ROWS = [("2", "5", "4.5", "9"), ("1", "6", "3", "8"), ("1", "5", "1", "7")]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def table(header: Sequence[str], separator: str, rows: Sequence[Sequence[str]] = ROWS) -> str:
    lines = [separator.join(row) for row in ([header] if header else []) + list(rows)]
    return "\n".join(lines) + "\n"


NAMES = ("user", "item", "rating", "timestamp")
TYPED = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", table(NAMES, ",")),
        ("log.csv", table(NAMES, ";")),
        ("log.csv.gz", table(NAMES, "|")),
        ("log.csv", "\ufeff" + table(NAMES, ",").replace("\n", "\r\n")),
        ("log.tsv", table(NAMES, "\t")),
        ("log.tsv", table([f'"{name}"' for name in NAMES], "\t")),
        ("log.txt.gz", table(NAMES, " ")),
        ("log.inter", table(TYPED, "\t")),
        ("log.inter.gz", table(TYPED, ",")),
        ("ratings.dat", table((), "::")),
        ("u.txt", table((), "\t")),
        ("log.dat.gz", table(("UserID", "MovieID", "Rating", "Timestamp"), "::")),
        ("log.csv", table(("Customer-ID", "product_id", "stars", "event time"), ",")),
    ],
)
def test_formats_give_the_same_events(tmp_path: Path, name: str, text: str) -> None:
    log = read_log(write(tmp_path, name, text))
    assert log.user_ids.tolist() == [1, 2] and log.item_ids.tolist() == [5, 6]
    assert log.users.tolist() == [0, 0, 1]
    assert log.items.tolist() == [0, 1, 0]
    assert log.times.tolist() == [7, 8, 9]
    assert log.ratings.tolist() == [1.0, 3.0, 4.5]


def test_given_separator_replaces_the_found_one(tmp_path: Path) -> None:
    text = "user/item\n1/5,6\n2/5,6\n"
    assert read_log(write(tmp_path, "log.txt", text), separator="/").item_names == ("5,6",)
    tabs = write(tmp_path, "log.tsv", "user\titem,x\n1\t5\n2\t6\n")
    assert read_log(tabs, item_column="item,x", separator="tab").item_ids.tolist() == [5, 6]


def test_columns_that_are_read_are_stated(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "log.csv", "userId,movieId,rating\n1,2,3\n"))
    assert log.source == "log.csv (columns: user = userId, item = movieId, rating)"


def test_columns_that_are_not_read_are_stated(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "log.csv", "user,item,time,rating,count,watch\n1,2,3,4,5,6\n"))
    assert log.source == "log.csv (columns: user, item, time, rating; not read: 'count', 'watch')"


@pytest.mark.parametrize("header", ["user_id,customer,item", "user,item,date,ts", "user,thing"])
def test_ambiguous_and_missing_columns_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(UserError):
        read_log(write(tmp_path, "log.csv", f"{header}\n{'1,' * header.count(',')}1\n"))


def test_headless_file_is_read_by_the_order_of_its_columns_and_a_note_names_them(tmp_path: Path) -> None:
    path = write(tmp_path, "log.tsv", "7\t3\t5\t1700000000\n8\t3\t4\t1700000001\n")
    words = "without a header, so its columns are taken as user, item, rating, timestamp"
    assert words in read_log(path).source
    assert f"the file is {words}" in list(describe(path).lines())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:05Z", 86405),
        ("1970-01-02T01:00:00+01:00", 86400),
        ("1970-01-01 19:30:00-0430", 86400),
        ("1970-01-02 00:00:01.75 UTC", 86401),
        ("1970-01-02", 86400),
        ("1970/1/2 00:01", 86460),
        ("1700000000123", 1_700_000_000),
        ("1700000000123456", 1_700_000_000),
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000),
    ],
)
def test_times_become_seconds(tmp_path: Path, text: str, seconds: int) -> None:
    path = write(tmp_path, "log.csv", f"user,item,timestamp\n1,2,{text}\n1,3,{text}\n")
    assert read_log(path).times.tolist() == [seconds, seconds]


def test_unit_of_times_is_stated(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,rating,timestamp\n1,2,3,1700000000123\n")
    assert (
        read_log(path).source
        == "log.csv (columns: user, item, time = timestamp, rating; times in milliseconds)"
    )


PROBLEMS = (
    "user,item,timestamp,rating\n"
    "a,x,5,1\n,x,6,1\nb,x,7,\na,x,5,2\nc,y,8,good\nnull,y,9,1\na,x,5,3\nd,y,soon,bad\ne,z,10,5\n"
)


def test_problems_of_a_file_are_refused_together_with_counts_and_first_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_log(write(tmp_path, "log.csv", PROBLEMS))
    said, *ways = str(caught.value).split(": ", 1)[1].split(": fill")
    found = said.split("; ")
    columns = ("'user'", "'rating'", "'timestamp'", "'rating'", "user, item, time")
    details = ("2 rows", "1 row ", "'soon'", "'good'", "lines 2 and 5")
    rows = ("line 3", "line 4", "line 9", "line 6 (and 1 more", "(and 1 more")
    assert str(caught.value).startswith("log.csv has 5 problems: ") and len(found) == 5
    for line, *names in zip(found, columns, details, rows, strict=True):
        assert_names(line, *names)
    assert_names(*ways, "--missing drop", "64 bits", "--duplicates sum", "--duplicates keep-first")


MENDED = PROBLEMS.replace("good", "4").replace("soon", "11").replace("bad", "2")


def test_gaps_are_dropped_and_repeats_merged_by_options(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", MENDED)
    log = read_log(path, missing="drop", duplicates="sum")
    assert log.user_names == ("a", "c", "d", "e") and log.item_names == ("x", "y", "z")
    assert log.ratings.tolist() == [2.0, 4.0, 2.0, 5.0]  # the mean of 1, 2 and 3 first
    assert log.weights is not None and log.weights.tolist() == [3.0, 1.0, 1.0, 1.0]
    assert log.source == (
        "log.csv (columns: user, item, time = timestamp, rating; 3 rows dropped (2 without a user, 1 "
        "without a rating); 2 repeated rows merged into others)"
    )
    first = read_log(path, missing="drop", duplicates="keep-first")
    assert first.ratings.tolist() == [1.0, 4.0, 2.0, 5.0] and first.weights is None
    assert "2 repeated rows dropped" in first.source


def test_a_row_without_two_values_is_dropped_and_counted_once(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,time,rating\n1,2,3,4\n1,,,4\n2,3,4,5\n2,,5,5\n")
    log = read_log(path, missing="drop")
    assert (
        log.source
        == "log.csv (columns: user, item, time, rating; 2 rows dropped (2 without an item, 1 without a time))"
    )
    path = write(tmp_path, "log.csv", "user,item,time,rating\n1,2,3,4\n1,,3,4\n")
    assert read_log(path, missing="drop").source.endswith("rating; 1 row without an item dropped)")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("log.csv", 'user,item\n1,2\n"a, b",3\n1,2,3\n1,2,3,4\n', 4),
        ("log.csv", 'user,item\n1,"2\n2"\n\n1,2,3\n', 5),
        ("log.tsv", "1\t2\t3\n1\t2\t3\t4\n", 2),  # without a header
    ],
)
def test_a_row_with_too_many_fields_is_named(tmp_path: Path, name: str, text: str, line: int) -> None:
    fields = 3 if name == "log.csv" else 4
    with pytest.raises(
        UserError, match=f"line {line} has {fields} fields, and the header names {fields - 1}"
    ):
        read_log(write(tmp_path, name, text))


def test_a_column_given_for_a_role_is_taken_for_no_other(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "log.tsv", "1\t2\t30\n1\t3\t40\n"), weight_column="rating")
    assert log.weights is not None and log.weights.tolist() == [30.0, 40.0]
    assert log.ratings.tolist() == [1.0, 1.0] and "each row counts as a like" in log.source


@pytest.mark.parametrize("rating", ["1", "5"])
def test_constant_ratings_are_a_warning(tmp_path: Path, rating: str) -> None:
    log = read_log(write(tmp_path, "log.csv", f"user,item,rating\n1,2,{rating}\n1,3,{rating}\n"))
    assert log.source.endswith(f"; warning: all ratings are {rating}, so each row counts as a like)")
    assert about_likes(log, float(rating)) == "2 events, each a like"


def test_repeated_ids_and_years_that_are_none_are_stated(tmp_path: Path) -> None:
    items = "id,title,year\n5,one,1999\n6,two,x\n5,three,2001\n7,four,\n"
    log = read_log(
        write(tmp_path, "log.csv", "user,item\n1,5\n1,6\n"), items=write(tmp_path, "items.csv", items)
    )
    assert log.titles == ("one", "two") and log.attributes["year"][0] == 1999
    said = "3 items in items.csv (repeated ids: 1, the first row is kept; unreadable years: 1, such as 'x')"
    assert said in log.source


def test_a_log_of_decisions_is_refused_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1], "items": [[2]]}).write_parquet(path, metadata={KEY: "{}"})
    assert main(["train", "--data", str(path)]) == 2
    assert f"{path} is a log of decisions" in capsys.readouterr().err


def test_like_threshold_without_ratings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "log.tsv", "user\titem\tplays\n1\t2\t3\n")
    assert main(["train", "--data", str(path), "--like-threshold", "3"]) == 2
    assert "--like-threshold" in capsys.readouterr().err


def test_counts_in_the_place_of_ratings_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [(u, i, rng.integers(1, 200)) for u in range(80) for i in rng.permutation(60)[:15]]
    Path("plays.tsv").write_text("".join(f"u{u}\ti{i}\t{n}\n" for u, i, n in rows))
    assert main(["train", "--data", "plays.tsv", "--heldout-fraction", "0.0001", *RUN]) == 2
    said = capsys.readouterr().err
    assert "(ratings of at least 1" in said and " of 1..199): none of " in said
    assert "--weight-column" in said
    Path("likes.tsv").write_text("user\titem\n" + "".join(f"u{u}\ti{i}\n" for u, i, n in rows))
    assert main(["train", "--data", "likes.tsv", "--heldout-fraction", "0.0001", *RUN]) == 2
    assert "users with at least 5 likes: none of 80 is a held-out user" in capsys.readouterr().err
    assert main(["train", "--data", "plays.tsv", "--weight-column", "rating", *RUN]) == 0
    assert "1,200 events, each a like" in capsys.readouterr().err


def test_ids_with_a_zero_fraction_are_whole_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item\n1.0,7\n,8\n2.0,9\n")
    assert read_log(path, missing="drop").user_ids.tolist() == [1, 2]


def test_weights_are_positive(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,plays\n1,2,3\n1,3,0\n")
    with pytest.raises(UserError, match=r"column 'plays' has '0' in line 3: weights .* above 0"):
        read_log(path)


ITEMS = (
    "movieId,title,genres,year,length,studio\n"
    "5,The  Sea,Drama|War,1999,90,B\n6,Sky,,,,A\n7,New,War,2020,60,A\n"
)


def test_items_file_brings_titles_genres_years_and_attributes(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "userId,movieId\n1,5\n1,6\n1,8\n")
    log = read_log(path, items=write(tmp_path, "items.csv", ITEMS))
    assert log.titles == ("The Sea", "Sky", "item 8")
    assert log.features[0].values == ("Drama", "War")
    assert log.attributes["genres"].tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert log.attributes["year"][0] == 1999 and log.attributes["year"][1:].isnan().all()
    assert log.attributes["length"].tolist() == [90.0, 90.0, 90.0]  # the mean of one
    assert log.attributes["studio"].tolist() == [2, 1, 0]  # "", A, B
    assert "3 items in items.csv" in log.source


@pytest.mark.parametrize("column", ["genres", "category"])
def test_column_of_categories_keeps_its_name_in_the_file(tmp_path: Path, column: str) -> None:
    facts = read_items(write(tmp_path, "items.csv", f"item,{column}\n5,hot\n6,cold\n"), "item", False)
    assert facts.genres == {5: ["hot"], 6: ["cold"]} and facts.genres_column == column


def test_gaps_in_attributes_are_told_and_filled(tmp_path: Path) -> None:
    """Item 6 has no duration, and item 7 is not in the file; no item has a price."""
    items = "item,duration,kind,price\n5,10,clip,\n6,,clip,\n8,30,film,\n"
    path = write(tmp_path, "log.csv", "user,item\n1,5\n1,6\n1,7\n1,8\n")
    log = read_log(path, items=write(tmp_path, "items.csv", items))
    assert "items without a value: duration (2), kind (1), filled with the mean of the others" in log.source
    assert log.attributes["duration"].tolist() == [10.0, 20.0, 20.0, 30.0]
    log = read_log(path, items=write(tmp_path, "items.csv", items.replace("6,,", "6,9,") + "7,5,clip,\n"))
    assert "without a value" not in log.source


def test_texts_that_nearly_each_item_has_alone_are_no_attributes(tmp_path: Path) -> None:
    lines = ["item,link,brand,price,code"]
    lines += [f"{k},https://x.org/{k},b{k % 3},{k}.5,{k:05}" for k in range(40)]
    facts = read_items(write(tmp_path, "items.csv", "\n".join(lines) + "\n"), "item", text_ids=False)
    assert list(facts.attributes) == ["brand", "price", "code"]
    assert "no attributes, as nearly each item has a text of its own: 'link'" in facts.note
    few = write(tmp_path, "few.csv", "\n".join(lines[:21]) + "\n")
    assert "link" in read_items(few, "item", text_ids=False).attributes
    half = [f"{k},https://x.org/{k // 2},b,1,1" for k in range(60)]
    shared = read_items(write(tmp_path, "half.csv", "\n".join(lines[:1] + half) + "\n"), "item", False)
    assert "link" in shared.attributes


def test_headless_items_file_of_movielens_layout(tmp_path: Path) -> None:
    ratings = write(tmp_path, "ratings.dat", table((), "::"))
    items = write(tmp_path, "movies.dat", "5::Sea (1999)::Drama|War\n6::Sky (2001)::War\n")
    log = read_log(ratings, items=items)
    assert log.titles == ("Sea (1999)", "Sky (2001)") and log.attributes["year"].tolist() == [1999.0, 2001.0]
    assert log.features[0].values == ("Drama", "War")


def test_large_ids_find_their_own_items(tmp_path: Path) -> None:
    large = 2**53 + 1  # as a float it would be 2**53
    items = write(
        tmp_path, "items.csv", f"id,title,price\n{large - 1},one,1\n{large},two,NULL\n5.5,three,4\n"
    )
    log = read_log(write(tmp_path, "log.csv", f"user,item\n1,{large}\n1,{large - 1}\n1,5\n"), items=items)
    assert log.titles == ("item 5", "one", "two")
    assert log.attributes["price"].tolist() == [1.0, 1.0, 1.0]  # NULL is a gap and not the name of a class


def test_text_that_is_not_utf8_is_read_as_latin1(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("id;title;genres\n5;Amélie, la fée;Comédie|Drame\n".encode("latin-1"))
    log = read_log(write(tmp_path, "log.csv", "user,item\n1,5\n"), items=path)
    assert log.titles == ("Amélie, la fée",) and log.features[0].values == ("Comédie", "Drame")
    assert "1 items in items.csv (read as Latin-1, as it is not UTF-8)" in log.source
    path.write_bytes("user,item\nÉva,é1\n".encode("latin-1"))
    log = read_log(path)
    assert log.user_names == ("Éva",) and "read as Latin-1" in log.source


def test_items_of_other_ids_are_refused(tmp_path: Path) -> None:
    items = write(tmp_path, "items.csv", "id,title\n5,one\n")
    with pytest.raises(UserError):
        read_log(write(tmp_path, "log.csv", "user,item_id\n1,6\n"), items=items)


def test_spaces_around_names_are_no_part_of_them(tmp_path: Path) -> None:
    assert read_log(write(tmp_path, "log.csv", "user,item\nu1, a\nu1 ,b\n")).user_names == ("u1",)


def by_item(log: InteractionLog) -> list[float]:
    """The ratings in the order of users and items: without times, a hash orders the rows of a user."""
    rows = zip(log.users.tolist(), log.items.tolist(), log.ratings.tolist(), strict=True)
    return [rating for _, _, rating in sorted(rows)]


def test_true_and_false_are_one_and_zero(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "log.csv", "user,item,rating\n1,5,true\n1,6,FALSE\n2,5, False\n2,6,0.5\n"))
    assert by_item(log) == [1.0, 0.0, 0.0, 0.5]


def test_decimal_commas_are_read_where_they_are_clear(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, "log.csv", "user;item;rating\n1;5;3,5\n1;6;4\n1;7;0,125\n"))
    assert by_item(log) == [3.5, 4.0, 0.125] and "decimal commas read as points" in log.source
    for rating in ("1,234", "1.234,5"):
        path = write(tmp_path, "log.csv", f"user;item;rating\n1;5;{rating}\n1;6;2\n")
        with pytest.raises(UserError, match=f"'{rating}' in line 2: .* without commas between digits"):
            read_log(path)


def test_separator_may_be_any_text(tmp_path: Path) -> None:
    assert len(read_log(write(tmp_path, "log.csv", "user§item\n1§2\n"), separator="§").users) == 1


def test_numbers_of_creators_are_classes() -> None:
    assert encoded(["12", None, "7"]).tolist() == [12.0, 9.5, 7.0]
    assert encoded(["12", None, "7"], classes=True).tolist() == [1, 0, 2]


# Whole commands.

SIZES = ["--num-items", "20", "--embedding-dim", "4", "--max-episode-steps", "5", "--cache-dir", "cache"]
RUN = [
    *SIZES,
    "--n-steps",
    "8",
    "--num-envs",
    "8",
    "--total-timesteps",
    "64",
    "--eval-interval",
    "0",
    "--batch-size",
    "32",
]


def camps(num_users: int = 40, num_items: int = 30, plays: int = 12) -> list[tuple[int, int, int]]:
    """Events (user, item, count) of two kinds of users; each likes the items of its kind."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        for item in rng.permutation(num_items)[:plays]:
            rows.append((user, int(item), int(rng.geometric(0.02 if (user + item) % 2 else 0.3))))
    return rows


def ordinary(kind: str) -> tuple[str, str, list[str]]:
    """The name and the text of an ordinary file, and the options of its first run."""
    rows = camps()
    if kind == "plays":
        lines = [f"u{user:03}\tartist {item}\t{count}" for user, item, count in rows]
        return "plays.tsv", "\n".join(["userID\tartistID\tplaycount", *lines]), []
    if kind == "typed":
        lines = [f"{u},{i},{min(n, 5)},{1_700_000_000_000 + 60 * at}" for at, (u, i, n) in enumerate(rows)]
        return "ml.inter", "\n".join(["user_id:token,item_id:token,rating:float,timestamp:float", *lines]), []
    if kind == "gaps":
        lines = [
            f"u_{u:06x};B{i:04};2024-03-01T{at % 24:02}:00:00+02:00" for at, (u, i, _) in enumerate(rows)
        ]
        lines[5:5] = [";B0001;2024-03-01T00:00:00Z", "u_00;;2024-03-01T00:00:00Z", "u_01;B0002;"]
        return "shop.csv", "\n".join(["visitor_id;product_id;event_time", *lines]), ["--missing", "drop"]
    clicks = [f"{user}|{item}" for user, item, count in rows for _ in range(min(count, 3))]
    return "clicks.txt", "\n".join(["user|item", *clicks]), ["--duplicates", "sum"]


@pytest.mark.parametrize("kind", ["plays", "typed", "gaps", "clicks"])
def test_ordinary_file_trains_with_one_command(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, text, options = ordinary(kind)
    Path(name).write_text(text + "\n", encoding="utf-8")
    assert main(["train", "--data", name, *options, *RUN]) == 0
    said = capsys.readouterr().err
    assert f"data: {name} (" in said
    checkpoint = load("checkpoints/ppo.pt")
    assert checkpoint.catalogue.num_items == 20
    assert set(checkpoint.catalogue.factors) == {"norm", "gram"}
    if options:
        assert main(["train", "--data", name, *RUN]) == 2
        refused = capsys.readouterr().err
        assert options[0] in refused and refused.count("\n") == 1


def test_string_ids_are_shown_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, text, options = ordinary("gaps")
    Path(name).write_text(text + "\n", encoding="utf-8")
    assert main(["train", "--data", name, *options, *RUN, "--env", "satiation"]) == 0
    population = load("checkpoints/ppo.pt").population
    user = population.id_of(int(population.heldout[0]))
    assert isinstance(user, str) and user.startswith("u_00")
    capsys.readouterr()
    assert main(["recommend", "--user", user, "--k", "3"]) == 0
    assert capsys.readouterr().out.count("(id B0") == 3
    assert main(["recommend", "--like", "B0003", "--k", "3"]) == 0
    assert main(["recommend", "--user", "28"]) == 2
    assert "no user with the id '28'" in capsys.readouterr().err
    assert main(["recommend", "--users", "all", "--out", "lists.parquet", "--k", "2"]) == 0
    lists = pl.read_parquet("lists.parquet")
    assert lists["user"].dtype == pl.String and lists["item"].str.starts_with("B0").all()
    Path("ids.txt").write_text("B0003\n", encoding="utf-8")
    Path("users.txt").write_text(f"\ufeff{user}\n", encoding="utf-8")  # as some programs begin a file
    assert (
        main(["recommend", "--users", "users.txt", "--out", "one.parquet", "--block", "ids.txt", "--k", "19"])
        == 0
    )
    one = pl.read_parquet("one.parquet")
    assert one["user"].unique().to_list() == [user] and "B0003" not in one["item"].to_list()
    assert main(["evaluate", "--report", "report.html", "--max-users", "2"]) == 0
    assert f"<h3>User {user}</h3>" in Path("report.html").read_text(encoding="utf-8")


def likes_of(name: str, text: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    Path(name).write_text(text + "\n", encoding="utf-8")
    assert main(["train", "--data", name, *options, *RUN]) == 0
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("data: "))


def test_data_line_counts_likes_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = camps()
    counts = "\n".join(["user,item,rating", *(f"{u},{i},{n}" for u, i, n in rows)])
    fitting = likes_of("a.csv", counts, capsys)
    most = max(n for _, _, n in rows)
    assert "480 events, " in fitting and f"of 1..{most}; " in fitting and "warning" not in fitting
    share = sum(n >= 2 for _, _, n in rows) / 480
    assert 0.8 < share < 0.95
    nearly_all = likes_of("b.csv", counts, capsys, "--like-threshold", "1")
    assert f"480 events, 480 likes (100%) at rating >= 1 of 1..{most} (warning: nearly all" in nearly_all


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.parquet"])
def test_a_file_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / name, tmp_path / "a1.parquet"
    rows = {"user": [1, 2, 1, 2], "item": [5, 6, 6, 5], "timestamp": [1, 2, 3, 4], "reward": [1.0] * 4}
    pl.DataFrame(rows).write_parquet(path)
    pl.DataFrame(rows | {"item": [7, 8, 9, 7], "reward": [0.0] * 4}).write_parquet(other)
    assert read_log(path).item_ids.tolist() == [5, 6]
    assert describe(path).items == 2
    assert read_table(path).log.signals.mean() == 1
    assert read_items(path, "item", text_ids=False).ids == [5, 6]


def test_the_first_of_two_columns_of_one_name_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "items.csv", "item,title,title,tags\n5,Tea,x,hot\n6,Milk,y,cold\n")
    facts = read_items(path, "item", text_ids=False)
    assert facts.titles == {5: "Tea", 6: "Milk"} and facts.genres == {5: ["hot"], 6: ["cold"]}


def test_the_type_of_a_text_column_needs_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = open_table(write(tmp_path, "log.csv", table(NAMES, ",")))
    monkeypatch.setattr(pl, "read_csv", None)
    assert text.text("user").meta.eq(pl.col("user"))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("read", [read_log, describe, read_table, read_decisions])
def test_a_pipe_as_a_log_is_refused_at_once(
    tmp_path: Path, ending: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / f"log{ending}"
    os.mkfifo(path)
    with pytest.raises(UserError):
        read(path)

"""A team's own tables as the log of a run: rows in any order, held-out sides, several files, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.experience.sides import Sides
from recsys_rl.logs.ope.part import judged_parts
from recsys_rl.logs.own_log import LogFiles, OwnLog
from recsys_rl.logs.own_log_survey import survey
from recsys_rl.logs.platform import OwnLogConfig, OwnLogData, before_a_log, load_log, open_own_log
from recsys_rl.logs.source import heldout_rows
from recsys_rl.types import UserError
from tests.own_tables import ITEMS, decisions, table


def opened(*paths: str, of: tuple[str, ...] | None = None, **data: Any) -> OwnLog:
    """The log of ``paths``, read as by a run on the log ``of`` (None: on these)."""
    brought = load_log({"log": of or paths})
    env = OwnLogConfig(**brought.settings["env_config"])
    return open_own_log(paths, OwnLogData(data=paths[0], **data), env, brought.world.catalogue)


def read(log: OwnLog, rows: int = 10**6) -> DecisionLog:
    return concatenate(list(log.parts(rows)))


def heldout(log: OwnLog) -> set[int]:
    """The users who are held out."""
    rows = read(log)
    population = load_log({"log": log.tables.paths}).world.population
    return set(rows.users[heldout_rows(rows, population, 0.3, 0)].tolist())


def test_another_order_of_rows_and_columns_is_the_same_log(tmp_path: Path) -> None:
    frame = decisions(80)
    first = table(tmp_path / "a.csv", frame)
    mixed = frame.select(sorted(frame.columns, reverse=True)).sample(fraction=1, shuffle=True, seed=1)
    second = table(tmp_path / "b.csv", mixed)
    one, two = read(opened(first)), read(opened(second, of=(first,)))
    order = [mixed.row(number) for number in range(80)]
    place = torch.tensor([order.index(row) for row in frame.select(mixed.columns).iter_rows()])
    assert torch.equal(one.items, two.items[place]) and torch.equal(one.users, two.users[place])
    assert torch.equal(one.signals, two.signals[place]) and torch.equal(one.logprobs, two.logprobs[place])
    assert {name: x.tolist() for name, x in one.given.items()} == {
        name: x[place].tolist() for name, x in two.given.items()
    }
    assert one.logprobs.exp().tolist() == pytest.approx(frame["propensity"].to_list())


@pytest.mark.parametrize("without", [(), ("user",)])
def test_a_user_keeps_their_side_when_a_log_is_added(tmp_path: Path, without: tuple[str, ...]) -> None:
    """Where there are no users, the side of a context is kept, in any order of the columns."""
    frame = decisions(150).drop(without)
    more = pl.concat([frame.head(50), decisions(100, seed=1).drop(without)])
    first = table(tmp_path / "a.csv", frame)
    second = table(tmp_path / "b.parquet", more.select(sorted(more.columns)))
    alone, both = opened(first), opened(first, second)
    assert alone.unit == ("context" if without else "user")
    sides = heldout(alone)
    assert 0 < len(sides) < len(set(read(alone).users.tolist()))
    assert heldout(both) & set(read(alone).users.tolist()) == sides
    reordered = opened(second)
    assert heldout(reordered) <= heldout(both)


@pytest.mark.parametrize("role", ["user", "session"])
@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64, pl.String])
def test_a_user_is_the_same_person_in_a_column_of_any_type(tmp_path: Path, role: str, kind: Any) -> None:
    """Programs write whole numbers of a column with gaps as 1.0, in Parquet as floats, in CSV as text."""
    numbers = decisions(60).with_columns(user=pl.int_range(60) // 4)
    frame = numbers.rename({"user": role})
    first = table(tmp_path / "a.csv", frame)
    typed = frame.with_columns(pl.col(role).cast(kind))
    if kind == pl.String:
        typed = frame.with_columns(pl.col(role).cast(pl.Float64).cast(pl.String))
    second = read(opened(table(tmp_path / "b.parquet", typed), of=(first,)))
    expected = read(opened(first)).users
    if role == "user":
        assert expected.tolist() == numbers["user"].to_list()
    order = [second.sessions.tolist(), read(opened(first)).sessions.tolist()]
    assert order[0] == order[1] and torch.equal(second.users, expected)


def test_two_files_follow_each_other(tmp_path: Path) -> None:
    frame = decisions(60)
    first, second = table(tmp_path / "a.csv", frame.head(25)), table(tmp_path / "b.parquet", frame.tail(35))
    whole = read(opened(table(tmp_path / "whole.csv", frame)))
    log = opened(first, second)
    both = read(log)
    assert log.num_rows == 60 and log.fingerprint() != opened(second, first).fingerprint()
    assert both.sessions.tolist() == list(range(60))
    for name in ("items", "users", "logprobs", "signals"):
        assert torch.equal(getattr(both, name), getattr(whole, name))
    assert all(torch.equal(both.given[name], values) for name, values in whole.given.items())
    in_parts = read(log, rows=10)
    assert torch.equal(in_parts.items, both.items) and torch.equal(in_parts.sessions, both.sessions)


def test_new_texts_are_counted_once_however_often_the_log_is_read(tmp_path: Path) -> None:
    frame = decisions(40)
    first = table(tmp_path / "a.csv", frame)
    device = pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("watch")).otherwise(pl.col("context.device"))
    newer = opened(table(tmp_path / "b.csv", frame.with_columns(device.alias("context.device"))), of=(first,))
    assert newer.others == {}
    for _ in range(2):
        assert read(newer).given["device"][:, 2].sum() == 3
    assert newer.others == {"device": 3}


def test_the_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", decisions(20))
    shutil.copy(first, tmp_path / "b.csv")
    assert opened(first).fingerprint() == opened(str(tmp_path / "b.csv")).fingerprint()
    with (tmp_path / "b.csv").open("a") as file:
        file.write("u1,ale,1,0.25,0.5,30,desk\n")
    assert opened(first).fingerprint() != opened(str(tmp_path / "b.csv")).fingerprint()


def test_sessions_of_the_survey(tmp_path: Path) -> None:
    """Two sessions of 3 and 1 steps, by hand."""
    frame = decisions(4).with_columns(session=pl.Series(["x", "x", "y", "x"]), step=pl.Series([0, 1, 0, 2]))
    frame = frame.with_columns(user=pl.Series(["u", "u", "v", "u"]), item=pl.Series(["a", "b", "a", "c"]))
    found = survey(LogFiles((table(tmp_path / "a.csv", frame),), {}))
    assert (found.shape.session_length, found.sessions, found.rows) == (3, 2, 4)
    assert found.ids == ("a", "b", "c") and found.shares.tolist() == [0.5, 0.25, 0.25]
    assert not found.shape.repeats and found.shape.history_length == 3
    log = read(opened(str(tmp_path / "a.csv")))
    assert log.steps.tolist() == [0, 1, 2, 0]
    assert log.truncated.tolist() == [False, False, True, False] and log.terminated.tolist()[3]


def test_an_item_twice_in_a_session_is_no_repeated_row(tmp_path: Path) -> None:
    """The survey reads few columns, in which such rows are equal."""
    frame = decisions(4).with_columns(session=pl.Series(["x", "x", "y", "y"]), item=pl.Series(list("aaab")))
    frame = frame.with_columns(user=pl.Series(["u", "u", "v", "v"]))
    found = survey(LogFiles((table(tmp_path / "a.csv", frame),), {}))
    assert found.shape.repeats and not any("repeat" in note for note in found.notes)


def column(name: str, **rows: object) -> Any:
    """A change of a frame: the values of a column in these rows, as ``r7``."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values: list[str | None] = (
            [str(value) for value in frame[name].to_list()] if name in frame.columns else [""] * len(frame)
        )
        for row, value in rows.items():
            values[int(row[1:])] = None if value is None else str(value)
        return frame.with_columns(pl.Series(name, values, dtype=pl.String))

    return change


@pytest.mark.parametrize(
    "change",
    [
        column("propensity", r7=0),
        column("propensity", r7=1.5),
        column("propensity", r7=None),
        column("item", r3=""),
        lambda frame: frame.with_columns(pl.lit("[1, 2]").alias("context.v")).pipe(
            column("context.v", r20="[1, 2, 3]")
        ),
        lambda frame: frame.with_columns(item=pl.lit("ale")),
        lambda frame: frame.with_columns(user=pl.lit("u")),
        lambda frame: frame.drop("clicked"),
        lambda frame: frame.head(0),
        lambda frame: frame.rename({"context.mood": "context.a[b]"}),
    ],
)
def test_a_log_that_can_not_be_read_is_refused(tmp_path: Path, change: Any) -> None:
    path = table(tmp_path / "a.csv", change(decisions(30)))
    with pytest.raises(UserError):
        read(opened(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("context.mood"),
        lambda frame: frame.drop("propensity"),
        lambda frame: frame.drop("user"),
        lambda frame: frame.rename({"clicked": "bought"}),
        lambda frame: frame.with_columns(pl.lit("[1, 2]").alias("context.mood")),
        lambda frame: frame.with_columns(item=pl.lit("[ale, bun]")).rename({"item": "items"}),
    ],
)
def test_a_second_file_with_other_columns_is_refused(tmp_path: Path, change: Any) -> None:
    paths = table(tmp_path / "a.csv", decisions(30)), table(tmp_path / "b.csv", change(decisions(30, seed=1)))
    with pytest.raises(UserError):
        read(opened(*paths))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("context.device"),
        lambda frame: frame.drop("clicked"),
        lambda frame: frame.with_columns(pl.lit("[1, 2]").alias("context.mood")),
        lambda frame: frame.with_columns(pl.lit("x").alias("context.mood")),
        column("item", r4="elk"),
        lambda frame: frame.with_columns(user=pl.lit("u"), session=pl.lit("s")),
    ],
)
def test_a_newer_log_that_does_not_fit_the_run_is_refused(tmp_path: Path, change: Any) -> None:
    first = table(tmp_path / "a.csv", decisions(30))
    newer = table(tmp_path / "b.csv", change(decisions(30, seed=1)))
    with pytest.raises(UserError):
        read(opened(newer, of=(first,)))


@pytest.mark.parametrize("name", ["clicked [0/1]", "", " ", "a b\n", "a" * 101])
def test_a_signal_whose_name_no_checkpoint_may_hold_is_refused(tmp_path: Path, name: str) -> None:
    frame = decisions(30)
    signal = table(tmp_path / "a.parquet", frame.rename({"clicked": f"signal.{name}"}))
    reward = table(tmp_path / "b.parquet", frame.rename({"clicked": name}))
    with pytest.raises(UserError):
        survey(LogFiles((signal,), {}))
    with pytest.raises(UserError):
        survey(LogFiles((reward,), {"reward": name}))


@pytest.mark.parametrize("signals", [["a", "a"], ["a", "b[0]"], [" "]])
def test_signals_of_a_place_without_a_log_are_names_of_columns(tmp_path: Path, signals: list[str]) -> None:
    items = table(tmp_path / "items.csv", pl.DataFrame({"item": ["ale", "bun"], "kind": ["x", "y"]}))
    before_a_log(items, ["a", "b"], (), 1)
    with pytest.raises(UserError):
        before_a_log(items, signals, (), 1)


def test_a_file_twice_and_items_without_features_are_refused(tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", decisions(30))
    with pytest.raises(UserError):
        opened(first, str(tmp_path / "." / "a.csv"))
    items = table(tmp_path / "items.csv", pl.DataFrame({"id": ["ale", "bun"], "kind": ["x", "y"]}))
    with pytest.raises(UserError):
        load_log({"log": (first,), "items": items})


def test_a_session_shorter_than_the_longest_ended_as_its_user_left(tmp_path: Path) -> None:
    """Without columns that tell the ends: the sessions have 3, 1 and 2 steps."""
    frame = decisions(6).drop("user").with_columns(session=pl.Series([0, 0, 0, 1, 2, 2]))
    rows = read(opened(table(tmp_path / "a.csv", frame)))
    assert rows.terminated.tolist() == [False, False, False, True, False, True]
    assert rows.truncated.tolist() == [False, False, True, False, False, False]
    told = frame.with_columns(terminated=pl.Series([False] * 6))
    rows = read(opened(table(tmp_path / "b.csv", told)))
    assert not rows.terminated.any() and rows.truncated.tolist() == [False, False, True, True, False, True]


def complaint(log: OwnLog, rows: int = 10**6) -> str:
    with pytest.raises(UserError) as error:
        read(log, rows)
    return str(error.value)


def test_messages_name_the_ids_of_the_file(tmp_path: Path) -> None:
    """Item bun, session s9 and the users x and y: not their numbers."""
    frame = decisions(6).with_columns(item=pl.Series(["ale", "bun", "cod"] * 2))
    offered = frame.with_columns(candidates=pl.Series(["[ale, bun]"] * 4 + ["[ale, cod]"] * 2))
    assert "item 'cod' of line 4" in complaint(opened(table(tmp_path / "a.csv", offered)))
    sessions = frame.with_columns(
        user=pl.Series(list("vvvxyv")), session=pl.Series(["s1", "s1", "s1", "s9", "s9", "s3"])
    )
    said = complaint(opened(table(tmp_path / "b.csv", sessions)))
    assert "session 's9' is of the users 'x' and 'y' (line 6)" in said


def test_rows_are_counted_from_the_begin_of_the_file(tmp_path: Path) -> None:
    """Whatever finds the mistake, in a part that begins with row 21."""
    frame = decisions(30)
    first = table(tmp_path / "a.parquet", frame)
    for change, said in (
        (column("item", r24="elk"), "row 25"),
        (column("propensity", r24=2), "row 25"),
        (lambda x: x.with_columns(candidates=pl.Series([ITEMS] * 24 + [["ale"]] * 6)), "row 25"),
    ):
        changed = change(frame.with_columns(item=pl.lit("bun")))
        newer = opened(table(tmp_path / "b.parquet", changed), of=(first,))
        assert said in complaint(newer, rows=20)


@pytest.mark.parametrize("reward", ["1e300", "-1e39", "[1e300, 0]"])
def test_a_reward_that_overflows_is_refused_with_its_line(tmp_path: Path, reward: str) -> None:
    """Numbers of a reward have 32 bits."""
    frame = column("clicked", r7=reward)(decisions(30).sample(fraction=1, shuffle=True, seed=1))
    if reward.startswith("["):
        frame = frame.with_columns(pl.lit("[ale, bun]").alias("items")).drop("item")
        frame = frame.with_columns(
            clicked=pl.when(pl.col("clicked").str.contains(",")).then("clicked").otherwise(pl.lit("[0, 1]"))
        )
    with pytest.raises(UserError, match="in line 9"):
        opened(table(tmp_path / "a.csv", frame))


@pytest.mark.parametrize("as_list", [True, False])
def test_an_item_that_no_decision_shows_has_no_probability(tmp_path: Path, as_list: bool) -> None:
    """The file of items adds ``app`` and ``egg``, before and after the four items of the log."""
    every = {"ale": 0.4, "bun": 0.3, "cod": 0.2, "dal": 0.1}
    frame = decisions(30).drop("propensity")
    if as_list:
        frame = frame.with_columns(pl.lit("0.4|0.3|0.2|0.1").alias("probabilities"))
    else:
        frame = frame.with_columns(pl.lit(share).alias(f"probability.{id_}") for id_, share in every.items())
    path = table(tmp_path / "a.csv", frame)
    facts = pl.DataFrame({"id": [*every, "app", "egg"], "kind": list("xyxyxy")})
    brought = load_log({"log": (path,), "items": table(tmp_path / "items.csv", facts)})
    assert brought.world.catalogue.num_items == 6
    env = OwnLogConfig(**brought.settings["env_config"])
    rows = read(open_own_log((path,), OwnLogData(data=path), env, brought.world.catalogue))
    assert rows.logprobs.exp().tolist() == pytest.approx([every[id_] for id_ in frame["item"]])


def test_the_ends_of_a_file_are_the_same_beside_other_files(tmp_path: Path) -> None:
    """The first file tells no ends: its session of 1 step is left, that of 3 steps is cut off."""
    silent = decisions(4).drop("user").with_columns(session=pl.Series(["a", "a", "a", "b"]))
    telling = decisions(2).drop("user").with_columns(session=pl.lit("c"), terminated=pl.Series([False] * 2))
    first, second = table(tmp_path / "a.csv", silent), table(tmp_path / "b.csv", telling)
    assert read(opened(first)).terminated.tolist() == [False, False, False, True]
    both = read(opened(first, second))
    assert both.terminated.tolist() == [False, False, False, True, False, False]
    assert both.truncated.tolist() == [False, False, True, False, False, True]
    assert any(
        "a.csv" in note and "terminated" in note for note in survey(LogFiles((first, second), {})).notes
    )


def test_rows_without_users_and_context_are_apart_in_each_file(tmp_path: Path) -> None:
    """Three files of 20, 20 and 10 rows, two of them with one name: 50 decisions, held out one by one."""
    frame = decisions(50).select("item", "clicked")
    (tmp_path / "new").mkdir()
    paths = (
        table(tmp_path / "a.csv", frame.head(20)),
        table(tmp_path / "b.parquet", frame.slice(20, 20)),
        table(tmp_path / "new" / "a.csv", frame.tail(10)),
    )
    log = opened(*paths)
    rows = read(log)
    assert log.unit == "decision" and len(rows.users.unique()) == 50
    sides = Sides(log.unit)
    sides.add(rows, torch.arange(50) < 8)
    assert sides.text == "42 decisions for training, 8 decisions held out"
    assert torch.equal(read(opened(paths[1])).users, rows.users[20:40])
    assert torch.equal(read(log, rows=7).users, rows.users)


@pytest.mark.parametrize(("without", "noun"), [((), "user"), (("user",), "context")])
def test_a_side_without_decisions_is_named_by_who_is_held_out(
    tmp_path: Path, without: tuple[str, ...], noun: str
) -> None:
    """Two contexts, or two users: in the training and in `ope`."""
    frame = decisions(40).drop("user", "context.mood", "context.age")
    user = pl.when(pl.col("context.device") == "desk").then(pl.lit("u1")).otherwise(pl.lit("u2"))
    log = opened(table(tmp_path / "a.csv", frame.with_columns(user.alias("user")).drop(without)))
    rows = read(log)
    sides = Sides(log.unit)
    sides.add(rows, torch.ones(40, dtype=torch.bool))
    with pytest.raises(UserError, match=f"all its {noun}s are held out.* more {noun}s"):
        sides.check("a.csv")
    sides.add(rows, torch.zeros(40, dtype=torch.bool))
    sides.check("a.csv")
    population = load_log({"log": log.tables.paths}).world.population
    data, run = SimpleNamespace(heldout_fraction=0.0), SimpleNamespace(seed=0)
    checkpoint: Any = SimpleNamespace(
        population=population, info={}, config=SimpleNamespace(data_config=data, train_config=run)
    )
    with pytest.raises(UserError, match=f"give a log of more {noun}s"):
        list(judged_parts(log, [checkpoint], 100))

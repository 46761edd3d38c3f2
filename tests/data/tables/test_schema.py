"""The table of columns and the rules of rows: reading refuses what describing counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.data.tables.cells import Cells, numbers
from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.schema import BY_NAME, BY_START, COLUMNS, ITEMS, NO_COLUMN, column_of
from recsys_rl.logs.checks import OF_FACTORS, OF_LISTS, OF_SESSIONS, broken
from recsys_rl.logs.decision_table import read_table
from recsys_rl.types import UserError

VALUES: dict[str, tuple[list[Any], list[Any]]] = {  # values that follow the rule, and values that break it
    "step": ([0, 3, "2", 4.0], [-1, "1.5", "x", 0.5]),
    "propensity": ([0.5, 1, "1e-9"], [0, -0.1, 1.01, float("inf"), "x"]),
    "logprob": ([0.0, -3.5, "-2", 1e-6], [0.1, -float("inf"), "x"]),
    "propensity.old": ([0.0, 1.0], [-0.1, 1.1]),
    "probability.tea": ([0.0, 0.3], [-0.1]),
    "logger_logprobs": ([0.0, -float("inf")], [0.2]),
    "signal.click": ([0, -3.5, "7", "true"], [float("inf"), "x"]),
    "context.age": ([0.0, -1], [float("inf"), "old"]),
    "terminated": ([True, "false", 1, "0"], ["perhaps", 2]),
    "user": ([7, "7", 7.0], ["x", 0.5]),
}


@pytest.mark.parametrize("name", VALUES)
def test_each_value_follows_or_breaks_its_rule(name: str) -> None:
    for values, wrong in zip(VALUES[name], (False, True), strict=True):
        for value in values:
            series = pl.Series(name, [value])
            assert numbers(series, column_of(name))[1].to_list() == [wrong], value
            cells = Cells("log.csv", series.to_frame())
            if wrong:
                with pytest.raises(UserError, match=rf"log\.csv: .*{re.escape(name)}.*row 1"):
                    cells.values(name)
            else:
                number = {"true": 1.0, "false": 0.0}.get(str(value).lower(), value)
                assert float(cells.values(name)) == pytest.approx(float(number))


def test_gaps_break_no_rule_and_are_refused() -> None:
    series = pl.Series("step", [1, None])
    assert not numbers(series, COLUMNS["step"])[1].any()
    with pytest.raises(UserError, match="'step' has no value in 1 row"):
        Cells("log.csv", series.to_frame()).values("step")


def test_a_required_column_cannot_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = Path("log.csv")
    log.write_text("user,item,reward,propensity\n1,2,1,0.5\n2,3,0,0.5\n")
    assert main(["data", "compare", "log.csv", "log.csv", "--user-column", NO_COLUMN]) == 2
    assert "it has no column for the user" in capsys.readouterr().err
    with pytest.raises(UserError, match="no column for the user"):
        read_log(log, user_column=NO_COLUMN)
    with pytest.raises(UserError, match="no column for the item"):
        read_table(log, {"item": NO_COLUMN})


SESSIONS: dict[str, list[Any]] = {
    "session": [0, 0, 0, 1, 1],
    "step": [0, 1, 2, 0, 1],
    "user": [5, 5, 5, 6, 6],
    "time": [1, 2, 2, 0, 9],
    "terminated": [False, False, True, False, False],
    "truncated": [False, False, False, False, True],
    "list_place": [0, 1, 0, 0, 1],
    "row": [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize(
    ("column", "place", "value", "rules"),
    [
        ("step", 1, 0, [0, 1]),  # then the next step is one too far
        ("step", 3, 1, [0, 1]),
        ("step", 4, 3, [1]),
        ("user", 2, 9, [2]),
        ("time", 1, 0, [3]),
        ("terminated", 0, True, [4, 5]),
        ("truncated", 4, False, [5]),
        ("truncated", 2, True, [5]),
        ("list_place", 1, 2, [6]),
        ("list_place", 3, 1, [6]),
    ],
)
def test_each_mistake_of_a_session_breaks_its_rule(
    column: str, place: int, value: Any, rules: list[int]
) -> None:
    assert not list(broken(pl.DataFrame(SESSIONS), OF_SESSIONS))
    values = list(SESSIONS[column])
    values[place] = value
    frame = pl.DataFrame(SESSIONS | {column: values})
    found = [rule for rule, _ in broken(frame, OF_SESSIONS)]
    expected = [OF_SESSIONS[rule] for rule in rules]
    assert set(map(id, found)) <= set(map(id, expected)) and found
    for rule, wrong in broken(frame, OF_SESSIONS):
        sentence = rule.finding(frame, wrong).said()
        assert "row" in sentence and "session" in sentence


def test_rules_of_lists_name_the_item() -> None:
    frame = pl.DataFrame(
        {
            "row": [1, 2, 3, 4],
            "items": [[1, 2], [1, 9], [3, 3], [5, 6]],
            "candidates": [[1, 2, 3], [1, 2, 3], [1, 2, 3], [5, 6]],
            "exclude": [[7], [7], [], [5]],
            "slate": [1, 2, 3, 4],
        }
    )
    found = {rule.problem: wrong.to_list() for rule, wrong in broken(frame, OF_LISTS)}
    assert found == {
        "items that the row excludes": [False, False, False, True],
        "items that are not among the candidates of their row": [False, True, False, False],
        "slates that show an item twice": [False, False, True, False],
    }
    named = {rule.problem: rule.finding(frame, wrong).said() for rule, wrong in broken(frame, OF_LISTS)}
    assert named["items that the row excludes"].startswith("item 5 of row 4 ")
    assert named["items that are not among the candidates of their row"].startswith("item 9 of row 2 ")


def test_factors_add_up() -> None:
    frame = pl.DataFrame(
        {
            "row": [1, 2],
            "logprob": [-1.5, -1.5],
            "place_logprobs": [[-1.0, -0.5], [-1.0, -0.4]],
            "logger": [0, 1],
            "logger_logprobs": [[-1.5, -2.0], [-1.5, -2.0]],
        }
    )
    assert [wrong.to_list() for _, wrong in broken(frame, OF_FACTORS)] == [[False, True], [False, True]]


def test_docs_list_the_columns_of_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs/09_logs.md").read_text()
    recorded, own = text.split("## Read it")[0], text.split("needs no checkpoint and no header of ours")[1]
    for name in COLUMNS.keys() - {"item", "rating", "weight", "event", *ITEMS}:  # of events, in docs/data.md
        plain = f"{name}NAME" if name.endswith(".") else name
        of_tables = ("probability.", "propensity.", "probabilities", "policy", "reward", "stock")
        if name in (*of_tables, *BY_START[2:]):
            assert name in own, name
        else:
            assert f"`{plain}`" in recorded, name
    assert set(BY_NAME) <= set(COLUMNS) and set(BY_START) <= set(COLUMNS)

"""The facts of a training's rows are those of the file, and what rules an algorithm out is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.experience.dealt import Decisions
from recsys_rl.logs.experience.log_facts import LogFacts, check_facts, facts_of
from recsys_rl.types import UserError

ITEMS = ("a", "b", "c")


def facts(path: Path, columns: dict[str, Any], parts: int = 3) -> LogFacts:
    """The facts of a log with these columns, from its rows in parts."""
    pl.DataFrame(columns).write_parquet(path / "log.parquet")
    log = read_table(path / "log.parquet").log
    pieces = [log.rows(rows) for rows in log.sessions.argsort(stable=True).chunk(parts)]
    return facts_of(Decisions(piece, piece.signals[:, 0, 0]) for piece in pieces)


def drawn(chances: list[float], propensity: float, **columns: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shown = rng.choice(3, size=600, p=chances)
    return {
        "user": np.arange(600) // 5,
        "item": [ITEMS[item] for item in shown],
        "reward": rng.integers(2, size=600),
        "propensity": [propensity] * 600,
        **columns,
    }


def test_a_constant_propensity_is_judged_as_by_describe(tmp_path: Path) -> None:
    """Item a has 60 % of the rows, each with a propensity of a third."""
    log = facts(tmp_path, drawn([0.6, 0.2, 0.2], 1 / 3))
    assert log.shown is not None and log.rows == 600
    here = log.shown.propensities(600, ITEMS)
    described = describe(tmp_path / "log.parquet").learnable
    assert described is not None and described.propensities is not None
    there = described.propensities.excess
    assert here.excess is not None and there is not None
    assert here.excess.item == there.item == "a"
    assert here.excess.share == pytest.approx(there.share)
    assert here.excess.possible == pytest.approx(there.possible) == pytest.approx(1 / 3)
    with pytest.raises(UserError):
        check_facts("log.parquet", "reinforce", log, ("propensities", "rewards"), ITEMS)
    check_facts("log.parquet", "cql", log, ("rewards",), ITEMS)


def test_a_uniform_logger_is_right(tmp_path: Path) -> None:
    log = facts(tmp_path, drawn([1 / 3, 1 / 3, 1 / 3], 1 / 3))
    assert log.shown is not None and log.shown.propensities(600, ITEMS).constant == pytest.approx(1 / 3)
    check_facts("log.parquet", "reinforce", log, ("propensities", "rewards"), ITEMS)


def test_rows_of_a_user_may_show_what_was_drawn_once(tmp_path: Path) -> None:
    """Ten users keep the item of one draw for 60 rows each: seven of them a, five times the rest."""
    shown = [item for item in "aaaaaaabbc" for _ in range(60)]
    columns = drawn([1, 0, 0], 1 / 3, item=shown, user=np.arange(600) // 60)
    assert facts(tmp_path, columns).shown.propensities(600, ITEMS).excess is None  # type: ignore[union-attr]
    alone = columns | {"user": np.arange(600)}
    assert facts(tmp_path, alone).shown.propensities(600, ITEMS).excess is not None  # type: ignore[union-attr]


def test_an_item_is_compared_with_the_rows_that_could_show_it(tmp_path: Path) -> None:
    """a is a candidate of every other row: half of these may show it with 0.5, and not all."""
    candidates = [["a", "b"], ["b", "c"]] * 300
    shown = facts(tmp_path, drawn([1, 0, 0], 0.5, item=list("acbb") * 150, candidates=candidates)).shown
    assert shown is not None and shown.rows.tolist() == [150, 300, 150]
    assert shown.possible.tolist() == [300, 600, 300]
    assert shown.propensities(600, ITEMS).excess is None
    shown = facts(tmp_path, drawn([1, 0, 0], 0.5, item=list("acab") * 150, candidates=candidates)).shown
    assert shown is not None
    excess = shown.propensities(600, ITEMS).excess
    assert excess is not None and (excess.item, excess.share, excess.possible) == ("a", 0.5, 0.25)


@pytest.mark.parametrize(
    ("columns", "needs"),
    [
        ({"item": ["a"] * 599 + ["a"]}, ()),
        ({"reward": [1] * 600}, ("rewards",)),
        ({}, ("steps",)),
    ],
)
def test_check_facts_refuses_a_log_that_lacks_a_need(
    tmp_path: Path, columns: dict[str, Any], needs: tuple[Any, ...]
) -> None:
    log = facts(tmp_path, drawn([1 / 3, 1 / 3, 1 / 3], 1 / 3, **columns))
    with pytest.raises(UserError):
        check_facts("log.parquet", "mine", log, needs, ITEMS)


def test_a_log_without_propensities_has_none_in_any_part(tmp_path: Path) -> None:
    columns = drawn([1 / 3, 1 / 3, 1 / 3], 1 / 3)
    del columns["propensity"]
    columns["signal.click"] = columns.pop("reward")
    log = facts(tmp_path, columns)
    assert log.shown is None
    with pytest.raises(UserError):
        check_facts("log.parquet", "mine", log, ("propensities",), ITEMS)
    check_facts("log.parquet", "mine", log, ("rewards",), ITEMS)


@pytest.mark.parametrize("user", ["u", "v", "w"])
def test_training_refuses_a_log_of_one_user(
    tmp_path: Path, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On whichever side of the split this user is."""
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(drawn([1 / 3, 1 / 3, 1 / 3], 1 / 3, user=[user] * 600)).write_csv("log.csv")
    assert main(["train", "--algo", "bc", "--log", "log.csv", "--total-timesteps", "1024"]) == 2
    assert "of one user" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]

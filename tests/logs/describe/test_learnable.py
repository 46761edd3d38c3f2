"""What can be learned from a log of decisions: facts worked by hand, faults, and the whole command."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.agents import AGENTS
from recsys_rl.cli import main
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe import context_survey, learnable
from recsys_rl.logs.describe.learnable import (
    BestItem,
    DecisionFacts,
    Propensities,
    check_needs,
    fault_for,
    lacks_candidates,
    missing_most,
)
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.ope import diagnostics
from recsys_rl.logs.writer import write_decisions
from recsys_rl.settings.names import learners_from_logs
from recsys_rl.types import UserError
from tests.logs.two_steps import two_steps

Rows = dict[str, Any]
LEARNERS = {"bc", "cql", "bcq", "iql", "reinforce", "dt", "direct"}
UNWEIGHED = LEARNERS - {"reinforce", "dt"}


def rows() -> Rows:
    """Four decisions of three users between two items."""
    return {
        "user": ["u", "u", "v", "w"],
        "item": ["a", "a", "a", "b"],
        "click": [0, 1, 0, 1],
        "propensity": [0.5, 0.5, 0.8, 0.2],
    }


def facts(path: Path, columns: Rows, **given: str) -> DecisionFacts:
    """The facts of a log with these columns."""
    pl.DataFrame(columns).write_parquet(path / "log.parquet")
    found = describe(path / "log.parquet", given=given).learnable
    assert found is not None
    return found


def propensities(path: Path, columns: Rows) -> Propensities:
    found = facts(path, columns).propensities
    assert found is not None
    return found


def can_learn(log: DecisionFacts) -> set[str]:
    return {name for name, x in learners_from_logs().items() if fault_for(log, x.needs) is None}


def test_propensities_by_hand(tmp_path: Path) -> None:
    found = propensities(tmp_path, rows())
    # 1 / (2 p) is 1, 1, 0.625, 2.5
    assert found.mean_inverse == pytest.approx(5.125 / 4)
    assert found.uniform_ess == pytest.approx(5.125**2 / (1 + 1 + 0.625**2 + 2.5**2))
    # Sums of users: 2, 0.625 and 2.5 in 2, 1 and 1 rows, so 2 - 2 x 1.28125 = -0.5625, and so on.
    assert found.low is not None and found.high is not None
    error = np.std(np.array([-0.5625, -0.65625, 1.21875]) / (4 / 3), ddof=1) / 3**0.5
    # Student's t with 2 degrees: sqrt(2 x^2 / (1 - x^2)) for the two-sided level x
    assert (found.high - found.low) / 2 == pytest.approx(error * (2 * 0.9999**2 / (1 - 0.9999**2)) ** 0.5)
    assert found.constant is None and found.excess is None and found.session_ess is None
    assert found.rows == 4


def test_best_item_by_hand(tmp_path: Path) -> None:
    """With mean reward 0.5, a is worth (-1 + 1 - 0.625) / 4 and b 2.5 / 4 more than the logger."""
    assert propensities(tmp_path, rows()).best_item == BestItem("b", 1, 1.0)


def test_a_lucky_row_makes_no_best_item(tmp_path: Path) -> None:
    """c has the highest estimate, 0.46 + 0.54, by one row: its lower end is 0.46 - 0.51, that of a 0.38."""
    columns: Rows = {
        "item": ["a"] * 70 + ["b"] * 29 + ["c"],
        "reward": [1] * 35 + [0] * 35 + [1] * 10 + [0] * 19 + [1],
        "propensity": [0.7] * 70 + [0.29] * 29 + [0.01],
    }
    assert propensities(tmp_path, columns).best_item == BestItem("a", 70, pytest.approx(70.0))  # type: ignore[arg-type]
    # Of a policy without chance, no item could be shown in half of the rows.
    columns = {"item": ["a", "b", "c"], "reward": [0, 1, 1], "propensity": [1.0] * 3}
    assert propensities(tmp_path, columns).best_item is None


def test_intervals_and_weights_are_those_of_ope(tmp_path: Path) -> None:
    """The weights of the uniform policy are 1 / (items x propensity): ope's own report of them agrees."""
    rng = np.random.default_rng(0)
    users, chances = rng.integers(40, size=300), np.array([0.5, 0.3, 0.15, 0.05])
    items = rng.choice(4, size=300, p=chances)
    columns: Rows = {"user": users, "item": items, "reward": rng.random(300), "propensity": chances[items]}
    found = propensities(tmp_path, columns)
    report = diagnostics.weigh(torch.from_numpy(1 / (4 * chances[items])), torch.from_numpy(users))
    assert found.mean_inverse == pytest.approx(report.mean, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((report.mean_low, report.mean_high), rel=1e-9)
    assert found.uniform_ess == pytest.approx(report.ess, rel=1e-9)
    assert report.holds_one and not found.too_small and not found.too_large
    del columns["user"]
    report = diagnostics.weigh(torch.from_numpy(1 / (4 * chances[items])))
    found = propensities(tmp_path, columns)
    assert (found.low, found.high) == pytest.approx((report.mean_low, report.mean_high), rel=1e-9)


def test_levels_are_those_of_ope() -> None:
    assert (learnable.SURE, learnable.ROUNDING, learnable.FEW) == (
        diagnostics.SURE,
        diagnostics.ROUNDING,
        diagnostics.FEW,
    )


@pytest.mark.parametrize(("factor", "too_small", "too_large"), [(0.5, True, False), (1.6, False, True)])
def test_wrong_propensities_are_seen(tmp_path: Path, factor: float, too_small: bool, too_large: bool) -> None:
    rng = np.random.default_rng(1)
    chances = np.array([0.6, 0.4])
    items = rng.choice(2, size=400, p=chances)
    columns: Rows = {"item": items, "reward": rng.random(400), "propensity": chances[items] * factor}
    found = propensities(tmp_path, columns)
    assert (found.too_small, found.too_large) == (too_small, too_large)


@pytest.mark.parametrize("order", ["step", "time", ""])
def test_a_session_without_repeats_can_not_show_an_item_again(tmp_path: Path, order: str) -> None:
    """Each step is drawn uniformly from what is left: all weights are 1. With an item twice they are not."""
    rng = np.random.default_rng(0)
    shown = np.array([rng.permutation(4)[:3] for _ in range(50)])
    columns: Rows = {
        "user": np.repeat(np.arange(50), 3),
        "session": np.repeat(np.arange(50), 3),
        "step": np.tile(np.arange(3), 50),
        "item": shown.ravel(),
        "click": rng.integers(0, 2, 150),
        "propensity": np.tile([1 / 4, 1 / 3, 1 / 2], 50),
    }
    if order != "step":
        steps = columns.pop("step")
        columns |= {"time": 1_700_000_000 + 9 * steps} if order else {}
    backwards = {name: values[::-1] if order else values for name, values in columns.items()}
    log = facts(tmp_path, backwards)
    assert log.propensities is not None and log.propensities.mean_inverse == pytest.approx(1)
    assert not lacks_candidates(log)
    columns["item"][1] = columns["item"][0]
    again = propensities(tmp_path, columns)
    assert again.mean_inverse == pytest.approx((4 + 3 + 2) / 3 / 4)


def test_the_number_of_choices_is_that_of_the_candidates(tmp_path: Path) -> None:
    """The first row has two candidates, the second four (one of them twice in the list): weights 1 and 1."""
    columns: Rows = {
        "item": [5, 6],
        "reward": [0.0, 1.0],
        "propensity": [0.5, 0.25],
        "candidates": [[5, 6, -1], [5, 6, 7, 8, 8]],
    }
    found = propensities(tmp_path, columns)
    assert found.mean_inverse == 1.0 and found.uniform_ess == 2.0
    (text := pl.DataFrame(columns | {"candidates": ["5|6", "5|6|7|8"]})).write_csv(tmp_path / "log.csv")
    assert text.height == 2
    described = describe(tmp_path / "log.csv").learnable
    assert described is not None and described.propensities is not None
    assert described.propensities.mean_inverse == 1.0


def test_a_place_of_a_list_has_fewer_choices(tmp_path: Path) -> None:
    """Three of four items, one after another, none twice: weights 1, 1 and 1."""
    columns: Rows = {
        "session": ["s", "s", "s", "t"],
        "step": [0, 1, 2, 0],
        "item": ["a", "b", "c", "d"],
        "reward": [0.0, 1.0, 1.0, 0.0],
        "propensity": [1 / 4, 1 / 3, 1 / 2, 1 / 4],
        "list_place": [0, 1, 2, 0],
    }
    assert propensities(tmp_path, columns).mean_inverse == pytest.approx(1)


def test_sessions_multiply_their_weights(tmp_path: Path) -> None:
    """1 / (2 p) of the sessions' steps: 1 x 2.5, 0.625 x 1; ess (3.125)^2 / (6.25 + 0.390625)."""
    columns: Rows = {
        "session": ["s", "s", "t", "t"],
        "step": [0, 1, 0, 1],
        "item": ["a", "b", "a", "b"],
        "reward": [0.0, 1.0, 1.0, 0.0],
        "propensity": [0.5, 0.2, 0.8, 0.5],
    }
    log = facts(tmp_path, columns)
    assert log.longest == 2 and log.propensities is not None
    assert log.propensities.session_ess == pytest.approx(3.125**2 / (2.5**2 + 0.625**2))
    assert can_learn(log) == LEARNERS


def recorded(path: Path, repeats: bool) -> DecisionFacts:
    """A log of two steps, whose policy draws uniformly among what is left of six items."""
    rows, left = 40, torch.tensor([5, 4] if not repeats else [5, 5]).repeat(20)
    log = two_steps(
        rows,
        6,
        repeats,
        logprobs=-left.double().log(),
        given={"profile": torch.tensor([[0.0, 1.0]]).repeat(rows, 1) * torch.arange(rows).unsqueeze(1)},
        exclude=torch.full((rows, 1), 5),
    )
    write_decisions(path, log)
    found = describe(path).learnable
    assert found is not None and found.propensities is not None
    return found


@pytest.mark.parametrize("repeats", [True, False])
def test_a_recorded_log_has_the_choices_of_its_header(tmp_path: Path, repeats: bool) -> None:
    """Of six items one is excluded, and one was shown in the step before where none may repeat."""
    found = recorded(tmp_path / "log.parquet", repeats)
    assert found.propensities is not None and found.propensities.mean_inverse == pytest.approx(1.0)
    assert found.derived and found.constant_share == 0.5 and found.longest == 2


@pytest.mark.parametrize("columns", ["probability.ID", "propensity.NAME"])
def test_propensities_in_other_columns(tmp_path: Path, columns: str) -> None:
    changed = rows()
    chances = changed.pop("propensity")
    if columns == "probability.ID":
        changed["probability.a"] = [0.5, 0.5, 0.8, 0.8]
        changed["probability.b"] = [0.5, 0.5, 0.2, 0.2]
    else:
        changed["policy"] = ["old", "new", "old", "new"]
        changed |= {"propensity.old": [0.5, 0.1, 0.8, 0.1], "propensity.new": [0.9, 0.5, 0.9, 0.2]}
    found = propensities(tmp_path, changed)
    assert found.rows == 4 and found.mean_inverse == pytest.approx(5.125 / 4)
    logged = read_table(tmp_path / "log.parquet").log.logprobs.exp()
    assert logged.tolist() == pytest.approx(chances)


def uniform(number: int, chances: list[float], propensity: float) -> Rows:
    """A log whose items are drawn with these chances, with one propensity in each row."""
    rng = np.random.default_rng(2)
    items = rng.choice(len(chances), size=number, p=chances)
    return {"item": items, "reward": rng.random(number).round(2), "propensity": [propensity] * number}


def test_a_constant_propensity_has_to_fit_the_items(tmp_path: Path) -> None:
    columns = uniform(500, [0.6, 0.2, 0.2], 1 / 3)
    log = facts(tmp_path, columns)
    assert log.propensities is not None and log.propensities.excess is not None
    excess = log.propensities.excess
    assert excess.item == "0" and excess.share == (columns["item"] == 0).mean()
    assert excess.possible == pytest.approx(1 / 3)
    assert excess.first == f"row {int((columns['item'] == 0).argmax()) + 1}"
    assert can_learn(log) == UNWEIGHED
    assert not facts(tmp_path, uniform(500, [1 / 3] * 3, 1 / 3)).propensities.excess  # type: ignore[union-attr]


def test_a_constant_propensity_of_unlike_items_may_be_right(tmp_path: Path) -> None:
    """A coin between two of four items, other ones for each kind of user; and a policy without chance."""
    rng = np.random.default_rng(3)
    kind = rng.random(600) < 0.9
    items = np.where(kind, rng.integers(2, size=600), 2 + rng.integers(2, size=600))
    columns: Rows = {"item": items, "reward": rng.random(600), "propensity": [0.5] * 600}
    found = propensities(tmp_path, columns)
    assert found.constant == 0.5 and found.excess is None and found.too_large
    found = propensities(tmp_path, columns | {"propensity": [1.0] * 600})
    assert found.constant == 1.0 and found.excess is None


def test_an_item_that_is_seldom_a_candidate_is_compared_with_those_rows(tmp_path: Path) -> None:
    """Item 0 is shown in half of its 300 rows, a quarter of all; with p = 0.5 that is right."""
    rng = np.random.default_rng(4)
    with_zero = np.arange(600) < 300
    items = np.where(with_zero, rng.integers(2, size=600), 2 + rng.integers(2, size=600))
    lists = [[0, 1] if x else [2, 3] for x in with_zero]
    columns: Rows = {"item": items, "reward": rng.random(600), "candidates": lists}
    assert propensities(tmp_path, columns | {"propensity": [0.5] * 600}).excess is None
    wrong = propensities(tmp_path, columns | {"propensity": [0.3] * 600}).excess
    assert wrong is not None and wrong.possible == pytest.approx(0.15)


def test_context_by_hand(tmp_path: Path) -> None:
    """1 + 3 + 2 + 1 numbers, of which the list's second and the text of one kind never change."""
    columns = rows() | {
        "context.age": [0.1, 0.2, 0.3, 0.4],
        "context.taste": [[0.0, 1.0, 2.0], [1.0, 1.0, 2.0], [2.0, 1.0, 3.0], [3.0, 1.0, 2.0]],
        "context.device": ["phone", "desk", "phone", "phone"],
        "context.country": ["xy"] * 4,
    }
    log = facts(tmp_path, columns)
    assert [(x.column, x.size, x.constant, x.of_texts) for x in log.context] == [
        ("context.age", 1, 0, False),
        ("context.taste", 3, 1, False),
        ("context.device", 2, 0, True),
        ("context.country", 1, 1, True),
    ]
    assert log.constant_share == pytest.approx(2 / 7)
    read = read_table(tmp_path / "log.parquet").log.given
    assert {name: x.shape[1] for name, x in read.items()} == {
        "age": 1, "taste": 3, "device": 3, "country": 2,  # with one for other texts
    }  # fmt: skip
    as_text = columns | {"context.taste": ["|".join(map(str, x)) for x in columns["context.taste"]]}
    pl.DataFrame(as_text).write_csv(tmp_path / "log.csv")
    described = describe(tmp_path / "log.csv").learnable
    assert described is not None and described.context == log.context


@pytest.mark.parametrize(
    ("column", "values", "problem", "count", "first"),
    [
        ("age", [None, None, None, None], "has no value", 4, 1),
        ("age", [0.1, 0.2, math.inf, 0.4], "has no finite number", 1, 3),
        ("age", ["0.1", "0.2", "0.3", "old"], "has no finite number", 1, 4),
        ("taste", [[1.0, 2.0], [1.0], [1.0, 2.0], [1.0, 2.0]], "holds another number of values", 1, 2),
        ("taste", [[1.0, 2.0], [1.0, 2.0], [1.0, None], [1.0, 2.0]], "has no finite number", 1, 3),
        ("device", ["", "", None, "nan"], "has no value", 4, 1),
    ],
)
def test_a_context_that_ope_refuses_is_a_problem(
    tmp_path: Path, column: str, values: list[Any], problem: str, count: int, first: int
) -> None:
    known = rows()
    frame = pl.DataFrame({**known, f"context.{column}": values}, strict=False)
    path = tmp_path / "log.parquet"
    if "0.1" in values:  # where strings may be numbers
        path = path.with_suffix(".csv")
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    found = describe(path)
    (only,) = [x for x in found.problems if "repeat" not in x.text]
    assert only.text.startswith(f"column 'context.{column}' {problem}")
    assert (only.count, only.first_row) == (count, first)
    assert found.learnable is not None and not found.learnable.sound
    assert missing_most(found.learnable).startswith("rows without the problems above") != (len(values) > 50)
    with pytest.raises(UserError):
        read_table(path)


def test_a_number_that_the_reader_refuses_is_a_problem(tmp_path: Path) -> None:
    """It breaks no rule of the column, but is too large to learn from: the reader's own sentence says so."""
    pl.DataFrame(rows() | {"context.age": [0.1, 0.2, 1e31, 0.4]}).write_parquet(tmp_path / "log.parquet")
    (only,) = describe(tmp_path / "log.parquet").problems
    assert "1e+31" in only.text and (only.count, only.first_row) == (1, 3)
    with pytest.raises(UserError, match=r"1e\+31 in row 3"):
        read_table(tmp_path / "log.parquet")


def test_a_context_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_survey, "PART", 3)
    ages = {"context.age": [None, None, None, 0.4], "context.device": ["a", "b", "a", "c"]}
    log = facts(tmp_path, rows() | ages)
    assert [(x.column, x.size, x.constant, x.gaps) for x in log.context] == [
        ("context.age", 2, 1, 3),
        ("context.device", 3, 0, 0),
    ]
    changing = ["1", "2", "3", "old"]
    pl.DataFrame(rows() | {"context.age": changing}).write_csv(tmp_path / "log.csv")
    (only,) = describe(tmp_path / "log.csv").problems
    assert (only.count, only.first_row) == (1, 4)


def changed(**columns: Any) -> Rows:
    """A log of 400 decisions that lacks nothing, with other columns; None leaves one out."""
    rng = np.random.default_rng(5)
    every = {
        "user": np.arange(400) // 4,
        "item": rng.integers(2, size=400),
        "reward": rng.integers(2, size=400),
        "propensity": [0.5] * 400,
        "context.age": rng.random(400),
    } | columns
    return {name: x for name, x in every.items() if x is not None}


@pytest.mark.parametrize(
    ("columns", "learners", "missing"),
    [
        ({}, LEARNERS - {"dt"}, "nothing"),
        ({"session": np.arange(400) // 2}, LEARNERS, "nothing"),
        (
            {"propensity": None, "signal.click": [0, 1] * 200},
            LEARNERS - {"reinforce", "dt"},
            "it has no prop",
        ),
        ({"item": [1] * 400}, set(), "all rows from row 1 on show the same"),
        ({"user": [7] * 400}, set(), "all rows from row 1 on are of one user"),
        ({"reward": [0.5] * 400}, {"bc"}, "reward is 0.5 in all rows from row 1 on"),
        ({"reward": None}, {"bc"}, "it has no column of rewards"),
        (
            {"propensity": [0.25] * 400},
            LEARNERS - {"reinforce", "dt"},
            "the propensity in column 'propensity'",
        ),
        ({"propensity": [0.5, 0.001] * 200}, LEARNERS - {"dt"}, "right propensities"),
        ({"propensity": [1e-6] + [0.5] * 399}, LEARNERS - {"dt"}, "chance"),
        ({"propensity": [1.0] * 400}, LEARNERS - {"dt"}, "a column candidates"),
        ({"context.age": None}, LEARNERS - {"dt"}, "what the policy knew"),
        ({"context.age": [1.0] * 400}, LEARNERS - {"dt"}, "context that differs"),
        ({"user": None}, LEARNERS - {"dt"}, "a column of users"),
    ],
)
def test_description_names_the_learners_and_the_data_that_are_missing(
    tmp_path: Path, columns: Rows, learners: set[str], missing: str
) -> None:
    log = facts(tmp_path, changed(**columns))
    assert can_learn(log) == learners
    assert missing_most(log).startswith(missing)
    for name, algorithm in learners_from_logs().items():
        if name in learners:
            check_needs("log.parquet", name, log, algorithm.needs)
        else:
            with pytest.raises(UserError):
                check_needs("log.parquet", name, log, algorithm.needs)


def test_learners_are_the_records_that_learn_from_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(learners_from_logs()) == LEARNERS
    monkeypatch.setitem(AGENTS, "mine", AGENTS["reinforce"])
    assert learners_from_logs()["mine"].needs == ("propensities", "rewards")


def test_the_reward_is_what_ope_takes(tmp_path: Path) -> None:
    """Signals come before a column of rewards, unless the user names it."""
    columns = rows() | {"signal.click": [1, 1, 1, 1]}
    assert facts(tmp_path, columns).rewards == {"signal.click": (1.0, 1.0)}
    assert facts(tmp_path, columns, reward="click").rewards == {"click": (0.0, 1.0)}


def test_slates_are_not_weighed(tmp_path: Path) -> None:
    columns: Rows = {
        "user": ["u", "v", "w"],
        "items": [["a", "b"], ["b", "c"], ["c", "a"]],
        "signal.click": [[0, 1], [0, 0], [1, 1]],
        "propensity": [0.5, 0.25, 0.25],
    }
    log = facts(tmp_path, columns)
    assert log.propensities == Propensities("the propensity in column 'propensity'", 3)
    assert not log.same_items and can_learn(log) == {"bc", "reinforce"}
    assert facts(tmp_path, columns | {"items": [["a", "b"]] * 3}).same_items


def test_command_prints_and_writes_what_can_be_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(rows() | {"context.age": [1, 2, 3, 4], "age": [1, 2, 3, 4]}).write_csv("clicks.csv")
    assert main(["data", "describe", "clicks.csv", "--json", "facts.json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "columns: user, item, reward = click, propensity"
    at = said.index("to learn from this log:")
    assert said[at + 1] == "  context: 1 number in 1 column, 0.0% of them the same in all rows"
    assert said[at + 2].startswith("  propensities: in all rows; mean of 1 / (propensity x items) 1.281 [")
    assert said[at + 3] == (
        "  effective sample size: uniform policy 3 of 4 rows; best single item, 'b', 1 of the 1 that show it"
    )
    assert said[at + 4 : at + 6] == [
        "  can learn: bc, cql, bcq, iql, reinforce, direct",
        "  can't learn: dt (no session has more than one decision)",
    ]
    assert said[at + 6].startswith("  missing most: chance: these rows are worth 3 of a uniform policy")
    written = json.loads(Path("facts.json").read_text())
    assert written["learners"] == dict.fromkeys(["bc", "cql", "bcq", "iql", "reinforce", "direct"], "") | {
        "dt": "no session has more than one decision"
    }
    assert written["learnable"]["propensities"]["mean_inverse"] == pytest.approx(5.125 / 4)
    assert written["missing_most"].startswith("chance")


def test_lines_of_a_text_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    pl.DataFrame(changed(reward=[1] * 400)).write_csv(path)
    assert main(["data", "describe", str(path)]) == 0
    assert "reward is 1 in all rows from line 2 on" in capsys.readouterr().out


def test_events_have_no_such_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plays.csv").write_text("user,item\na,x\nb,y\n")
    assert main(["data", "describe", str(tmp_path / "plays.csv")]) == 0
    assert "learn" not in capsys.readouterr().out
    assert describe(tmp_path / "plays.csv").learnable is None


def test_a_log_of_anybody_without_doubt() -> None:
    log = DecisionFacts(1, None, 1, False, {"r": (0.0, 1.0)}, None)
    assert can_learn(log) == UNWEIGHED
    assert can_learn(dataclasses.replace(log, longest=2)) == LEARNERS - {"reinforce"}


def test_a_missing_column_of_candidates_is_named_as_the_likely_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row could show two of four items: a half each, so that 1 / (4 p) is a half."""
    rng, number = np.random.default_rng(0), 2_000
    pair = rng.integers(4, size=number)
    items = [("abcd"[k], "abcd"[(k + 1) % 4]) for k in pair]
    columns: Rows = {
        "item": [of[x] for of, x in zip(items, rng.integers(2, size=number), strict=True)],
        "reward": rng.integers(2, size=number),
        "propensity": [0.5] * number,
    }
    known = {"candidates": ["|".join(of) for of in items]}
    for name, more, likely in (("bare.csv", {}, True), ("told.csv", known, False)):
        path = tmp_path / name
        pl.DataFrame(columns | more).write_csv(path)
        log = describe(path).learnable
        assert log is not None and log.propensities is not None
        assert log.propensities.mean_inverse == pytest.approx(0.5 if likely else 1.0)
        assert lacks_candidates(log) == log.propensities.too_large == likely
        assert main(["data", "describe", str(path)]) == 0
        assert ("column candidates" in capsys.readouterr().out) == likely
        judged = ["ope", "--log", str(path), "--policy", "random", "--verdict", "random", "--no-world"]
        assert (main([*judged, "--json", str(tmp_path / "ope.json")]) == 5) == likely
        reason = json.loads((tmp_path / "ope.json").read_text())["verdict"]["reason"]
        assert ("column candidates" in reason) == likely
        capsys.readouterr()

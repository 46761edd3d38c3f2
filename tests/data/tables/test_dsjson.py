"""Logs of Vowpal Wabbit as tables: what is read, what is left out, and broken lines."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.data.tables.items import read_items
from recsys_rl.data.tables.read import TableFile, open_table
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.data import describe
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.platform import load_log
from tests.data.tables.test_json_lines import lines
from tests.own_logs import clicks

Line = dict[str, Any]
GENRES = ("news", "sport", "art")


def event(number: int, chosen: int = 0, cost: float = -1.0, **more: Any) -> Line:
    """An event of three actions: the chosen one has the probability .5, the others .25."""
    order = [chosen, *(place for place in range(3) if place != chosen)]
    return {
        "_label_cost": cost,
        "_label_probability": 0.5,
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "Timestamp": f"2026-11-01T10:{number // 60:02d}:{number % 60:02d}.0000000Z",
        "EventId": f"e{number}",
        "a": [place + 1 for place in order],
        "c": {
            "user": {"age": 20 + number % 7, "city": "Bonn" if number % 2 else "7", "v": [1, number % 5]},
            "_multi": [
                {"_tag": name, "action": {"genre": name, "price": 1.5 * k}} for k, name in enumerate(GENRES)
            ],
        },
        "p": [0.5, 0.25, 0.25],
        **more,
    }


def opened(folder: Path, rows: list[Any], name: str = "log.dsjson") -> TableFile:
    return open_table(lines(folder / name, rows))


def column(table: TableFile, name: str) -> list[Any]:
    return table.rows([name])[name].to_list()


def test_an_event_is_a_decision(tmp_path: Path) -> None:
    table = opened(tmp_path, [event(0, 2, -1), event(1, 0, 0.25)])
    assert table.is_dsjson
    assert column(table, "item") == ["art", "news"] and column(table, "reward") == [1.0, -0.25]
    assert column(table, "propensity") == [0.5, 0.5] and column(table, "session") == ["e0", "e1"]
    assert column(table, "candidates") == [[*GENRES]] * 2
    assert column(table, "context.user.age") == [20.0, 21.0] and column(table, "context.user.v") == [
        [1, 0],
        [1, 1],
    ]
    assert column(table, "context.user.city") == ['"7"', "Bonn"]  # a text, although it looks like a number
    assert table.items is not None
    facts = read_items(table.items, "item", True)
    assert facts.attributes["action_price"] == {"news": 0.0, "sport": 1.5, "art": 3.0}


def test_the_log_is_judged_with_its_probabilities(tmp_path: Path) -> None:
    read = read_table(lines(tmp_path / "log.json.gz", [event(n, n % 3, -(n % 2)) for n in range(40)]))
    assert torch.equal(read.log.logprobs, torch.full((40,), 0.5, dtype=torch.float64).log())
    assert read.items == ("art", "news", "sport") and float(read.log.signals.sum()) == 20
    assert read.catalogue.embedding.shape == (3, 7)  # three genres, other, a price, and two zeros
    assert read.log.given["user.v"].shape == (40, 2)


def test_the_feature_that_names_the_user_is_no_input(tmp_path: Path) -> None:
    log = lines(tmp_path / "log.dsjson", [event(n, n % 3, -(n % 2)) for n in range(60)])
    named = {"user": "context.user.age"}  # seven users
    read = read_table(log, named)
    assert [*read.log.given] == ["user.city", "user.v"] and len(read.log.users.unique()) == 7
    brought = load_log({"log": (str(log),), "user_column": "context.user.age"})
    pieces = json.loads(brought.settings["env_config"]["shape"])["pieces"]
    assert [piece["name"] for piece in pieces] == ["user.city", "user.v"]
    found = describe(log=(str(log),), user_column="context.user.age").learnable
    assert found is not None
    assert [piece.column for piece in found.context] == ["context.user.city", "context.user.v"]


def test_features_of_the_actions_are_those_of_the_items_in_training(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.dsjson", [event(n, n % 3, -(n % 2)) for n in range(60)])
    later = [event(100 + n, n % 3) for n in range(60)]
    for row in later:
        row["c"]["_multi"].append({"_tag": "food", "action": {"genre": "food", "price": 9.0}})
        row["a"], row["p"] = [*row["a"], 4], [0.5, 0.25, 0.125, 0.125]
    two = lines(tmp_path / "two.dsjson", later)
    brought = load_log({"log": (str(one), str(two))})
    assert brought.world.catalogue.item_names == ("art", "food", "news", "sport")
    price = brought.world.catalogue.embedding[:, -3]
    assert price.argsort().tolist() == [2, 3, 0, 1]
    table = clicks(tmp_path / "clicks.csv")
    assert main(["train", "--algo", "bc", "--log", str(one), "--log", str(table)]) == 2


def test_ids_of_actions_without_a_tag(tmp_path: Path) -> None:
    def of(*actions: Line) -> Any:
        row = {**event(0), "c": {"_multi": list(actions)}, "p": [1.0], "a": [1]}
        row["p"], row["a"] = ([0.5, 0.5], [1, 2]) if len(actions) == 2 else ([1.0], [1])
        return column(opened(tmp_path, [row]), "candidates")[0]

    assert of({"i": {"id": "pasta", "constant": 1}}) == ["pasta"]
    assert of({"t": {"topic": "skiing"}}) == ["skiing"]
    assert of({"t": {"topic": "skiing", "price": 2}}) == ["t.price=2 t.topic=skiing"]
    first, second = of({"t": {f"f{k}": k for k in range(30)}}, {"t": {f"f{k}": k for k in range(31)}})
    assert first != second and len(first) <= 60


def test_an_action_that_stands_twice_has_both_probabilities(tmp_path: Path) -> None:
    row = event(0)
    row["c"]["_multi"][2] = row["c"]["_multi"][0]
    table = opened(tmp_path, [row])
    assert column(table, "propensity") == [0.75] and column(table, "candidates") == [["news", "sport"]]


def test_left_out_lines_are_counted(tmp_path: Path) -> None:
    rows = [event(n) for n in range(300)]
    rows[3]["_skipLearn"] = True
    rows[4] = {"ActionTaken": True, "EventId": "e1"}
    rows[5] = {"RewardValue": 2.0, "EventId": "e1"}
    del rows[6]["_label_cost"]
    rows[7]["c"]["_multi"][0]["action"]["price"] = 2.0
    table = opened(tmp_path, rows)
    assert len(column(table, "item")) == 296 and column(table, "reward")[1] == 1.0
    for words in ("1 with _skipLearn", "2 that are not decisions", "action.price"):
        assert words in table.note
    assert table.line(4) == 8
    assert table.items is not None and table.items.names == ("item", "action.genre")


def test_events_that_were_dropped_with_pdrop_count_alike(tmp_path: Path) -> None:
    """Half of the lines are of a time that dropped three of four events: a quarter of the rest stays."""
    rows = [event(n, cost=-float(n < 2000), pdrop=0.75 if n < 2000 else 0.0) for n in range(4000)]
    rewards = column(opened(tmp_path, rows), "reward")
    kept = len(rewards) - 2000
    assert sum(rewards) == 2000 and abs(kept - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)
    assert rewards == column(opened(tmp_path, rows, "again.dsjson"), "reward")
    alike = opened(tmp_path, [event(n, pdrop=0.9) for n in range(50)], "alike.dsjson")
    assert len(column(alike, "item")) == 50


def slots(number: int, first: int = 0, second: int = 1) -> Line:
    """An event of two slots: the first action has .5, .25, .25, the second one .75 among the other two."""
    row = {name: x for name, x in event(number).items() if name in ("Timestamp", "EventId", "c")}
    one = [first, *(place for place in range(3) if place != first)]
    two = [second, *(place for place in one[1:] if place != second)]
    row["c"] = {**row["c"], "_slots": [{"_id": "top", "s": {"size": 2}}, {"_id": "low"}]}
    outcomes = [
        {"_label_cost": -2, "_a": one, "_p": [0.5, 0.25, 0.25]},
        {"_label_cost": 1, "_a": two, "_p": [0.75, 0.25]},
    ]
    return {**row, "_outcomes": outcomes}


def test_slots_are_places_of_a_slate(tmp_path: Path) -> None:
    table = opened(tmp_path, [slots(0), slots(1, 2, 0)])
    assert column(table, "items") == [["news", "sport"], ["art", "news"]]
    assert column(table, "reward") == [[2.0, -1.0]] * 2
    assert column(table, "place_logprobs")[0] == [math.log(0.5), math.log(0.75)]
    assert "slots" in table.note
    read = read_table(table.path)
    assert read.log.signals[0, :, 0].tolist() == [2.0, -1.0]
    assert torch.allclose(read.log.logprobs.exp(), torch.full((2,), 0.375, dtype=torch.float64))


def test_a_slot_without_a_cost_costs_nothing(tmp_path: Path) -> None:
    rows = [slots(n) for n in range(3)]
    del rows[0]["_outcomes"][1]["_label_cost"]
    for outcome in rows[2]["_outcomes"]:
        del outcome["_label_cost"]
    table = opened(tmp_path, rows)
    assert column(table, "reward") == [[2.0, 0.0], [2.0, -1.0]] and "1 without an outcome" in table.note


def test_rewards_of_places_are_summed_where_a_line_has_one_for_the_whole(tmp_path: Path) -> None:
    rows = [slots(0), {**slots(1), "_label_cost": -3}]
    for outcome in rows[1]["_outcomes"]:
        del outcome["_label_cost"]
    assert column(opened(tmp_path, rows), "reward") == [1.0, 3.0]


def test_features_of_slots_break_no_line(tmp_path: Path) -> None:
    row = slots(0)
    row["c"]["_slots"][0] = {"s": {"size": 10**400}, "s.size": 1}
    table = opened(tmp_path, [row])
    assert len(column(table, "items")) == 1 and "broken" not in table.note


def test_an_empty_list_is_no_value_of_the_context(tmp_path: Path) -> None:
    rows = [event(n) for n in range(3)]
    for row in rows:
        row["c"]["none"] = []
    rows[1]["c"]["user"]["v"] = []
    table = opened(tmp_path, rows)
    assert "context.none" not in table.names
    assert column(table, "context.user.v") == [[1, 0], None, [1, 2]]


def test_actions_of_own_slots(tmp_path: Path) -> None:
    """VW's slates: each slot has actions of its own, and the slate has one cost."""
    row = slots(0)
    row["c"]["_multi"] = [
        {**of, "_slot_id": slot} for of, slot in zip(row["c"]["_multi"], (0, 1, 1), strict=True)
    ]
    row["_label_cost"] = -3
    row["_outcomes"] = [{"_a": [0], "_p": [1.0]}, {"_a": [1, 0], "_p": [0.4, 0.6]}]
    table = opened(tmp_path, [row])
    assert column(table, "items") == [["news", "art"]] and column(table, "reward") == [3.0]
    assert column(table, "logprob") == [math.log(0.4)] and "which action" in table.note


def changed(path: str, value: Any, of: Callable[[int], Line] = event) -> Callable[[int], Line]:
    """An event in which the value at a path such as ``c._multi.0`` is another."""

    def made(number: int) -> Line:
        row = copy.deepcopy(of(number))
        *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        place: Any = row
        for part in way:
            place = place[part]
        place[last] = value
        return row

    return made


BROKEN: dict[str, Callable[[int], Any]] = {
    "cut in half": lambda n: json.dumps(event(n))[:200],
    "cut at its end": lambda n: json.dumps(event(n))[:-1],
    "two objects": lambda n: json.dumps(event(n)) * 2,
    "a list": lambda n: [event(n)],
    "a number": lambda n: "7",
    "a text": lambda n: '"x"',
    "no quotes": lambda n: "{a: 1}",
    "deep": lambda n: '{"c":' * 5000,
    "half a character": lambda n: json.dumps(event(n)).replace("Bonn", r"\ud800").replace('"7"', r'"\ud800"'),
    "no actions": changed("c/_multi", []),
    "an action that is a text": changed("c/_multi/1", "sport"),
    "an action without anything": changed("c/_multi/1", {}),
    "a cost that is a text": changed("_label_cost", "-1"),
    "a cost that is a truth": changed("_label_cost", True),
    "an infinite cost": lambda n: json.dumps(event(n)).replace("-1.0", "-1e999", 1),
    "a cost that is no number": lambda n: json.dumps(changed("_label_cost", math.nan)(n)),
    "no probability": changed("_label_probability", 0.0),
    "a probability above 1": changed("_label_probability", 1.5),
    "a negative probability": changed("_label_probability", -0.5),
    "a probability that is a text": changed("_label_probability", "0.5"),
    "probabilities that sum to .9": changed("p", [0.5, 0.25, 0.15]),
    "probabilities that sum to 1.002": changed("p", [0.5, 0.25, 0.252]),
    "a negative one among them": changed("p", [0.5, 0.75, -0.25]),
    "too few probabilities": changed("p", [0.5, 0.5]),
    "too many probabilities": changed("p", [0.25] * 4),
    "no list of probabilities": changed("p", 0.5),
    "an action that is not there": changed("a", [4, 1, 2]),
    "action 0": changed("a", [0, 1, 2]),
    "an action twice": changed("a", [1, 1, 2]),
    "two chosen actions": changed("_labelIndex", 2),
    "a chosen action that is not there": lambda n: {
        **changed("_labelIndex", 7)(n),
        "_label_Action": 8,
        "a": None,
    },
    "a chosen action that is a fraction": changed("_label_Action", 1.5),
    "a huge cost": changed("_label_cost", 10**400),
    "a huge feature": changed("c/user/age", 10**400),
    "a chosen action that is an object": changed("_labelIndex", {"place": 0}),
    "a chosen action that is a list": changed("_labelIndex", [0]),
    "fewer actions than probabilities": lambda n: {
        **changed("c/_multi/1", event(n)["c"]["_multi"][0])(n),
        "a": [1, 2],
    },
    "two values for a feature": changed("c/user.age", 1),
    "two values for a feature of an action": changed("c/_multi/1/i", [{"x": 1}, {"x": 2}]),
    "pdrop 1": changed("pdrop", 1),
    "a pdrop that is a text": changed("pdrop", "0.5"),
    "an event twice": changed("EventId", "e0"),
    "outcomes that are no list": changed("_outcomes", {}, slots),
    "an outcome too few": lambda n: {**slots(n), "_outcomes": slots(n)["_outcomes"][:1]},
    "a slot without a chosen action": changed("_outcomes/1/_a", [], slots),
    "a slot whose probabilities sum to 2": changed("_outcomes/1/_p", [1.5, 0.5], slots),
    "an item at two places": changed("_outcomes/1/_a", [0, 1], slots),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_is_named_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    rows = [event(n) for n in range(99)]
    rows.insert(50, BROKEN[kind](200))
    table = opened(tmp_path, rows)
    assert len(column(table, "item")) == 99 and "1 broken line of 100 (line 51 " in table.note
    assert {table.line(row) for row in range(1, 100)} == {*range(1, 101)} - {51}


def test_many_broken_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [event(n) for n in range(1000)]
    for place, kind in enumerate(BROKEN):
        rows.insert(20 * place + 20, BROKEN[kind](2000 + place))
    file = lines(tmp_path / "log.dsjson", rows)
    for command in (["data", "describe", str(file)], ["ope", "--policy", "random", "--log", str(file)]):
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert len(BROKEN) == 47 and "47 broken lines of 1,047" in said and "line 21 " in said


def test_broken_lines_bring_no_items(tmp_path: Path) -> None:
    rows = [event(n) for n in range(300)]
    rows[7] = {**event(7), "p": [1.0]}  # broken, with another price and an item that no sound line has
    rows[7]["c"]["_multi"][1:] = [{"_tag": "sport", "action": {"price": 7}}, {"_tag": "food"}]
    table = opened(tmp_path, rows)
    assert table.items is not None and table.items.names == ("item", "action.genre", "action.price")
    assert table.items.rows(["item"])["item"].to_list() == [*GENRES]


def test_lines_without_an_event_or_a_time(tmp_path: Path) -> None:
    table = opened(tmp_path, [event(n, EventId=None, Timestamp=None) for n in range(4)])
    assert len(column(table, "item")) == 4 and not {"session", "time"} & {*table.names}


def test_a_file_without_outcomes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [changed("_label_cost", None)(n) for n in range(5)]
    assert main(["data", "describe", str(lines(tmp_path / "log.dsjson", rows))]) == 2
    assert "5 without an outcome" in capsys.readouterr().err


def test_actions_that_differ_from_line_to_line(tmp_path: Path) -> None:
    """Three of six actions are offered each time, and drawn uniformly: the log is the random policy's own."""
    drawn, rows = random.Random(0), []
    for number in range(400):
        offered = drawn.sample(range(6), 3)
        actions = [{"_tag": f"i{k}", "action": {"size": k}} for k in offered]
        row = event(number, cost=-drawn.random(), _label_probability=1 / 3, p=[1 / 3] * 3)
        rows.append({**row, "c": {"user": row["c"]["user"], "_multi": actions}})
    result = ope(log=lines(tmp_path / "log.dsjson", rows), policy="random", world=False)
    by_name = {row.estimator: row for row in result.rows}
    earned = -sum(row["_label_cost"] for row in rows) / 400
    assert by_name["ips"].value == pytest.approx(earned) == by_name["snips"].value
    assert by_name["ips"].weights is not None and by_name["ips"].weights.ess == pytest.approx(400)

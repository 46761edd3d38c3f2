"""Values of signals: one that was 0 or 1 in a team's log takes no other, an amount may be larger than any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.logs.decision_log import concatenate
from recsys_rl.logs.log_shape import LogShape, SignalRange, read_shape
from recsys_rl.logs.ope.reward_bounds import reward_bounds
from recsys_rl.logs.parts import PART
from recsys_rl.logs.platform import load_log
from recsys_rl.logs.source import open_log
from recsys_rl.make import make_user_model
from recsys_rl.serving.loop.gate_compare import bench, within
from recsys_rl.types import UserError
from tests.own_logs import policy, sessions, write_csv
from tests.serving.servers import event, recommend, serving

CONTEXT = {"age": 30.5}


def shape_of(*logs: Path, weights: tuple[str, ...] = ()) -> LogShape:
    brought = load_log({"log": tuple(map(str, logs)), "weights": weights})
    return read_shape(brought.settings["env_config"]["shape"], 4)[0]


def single(path: Path, values: list[float], rows: int = 120) -> Path:
    """Uniform single decisions whose rewards are these values, in turn."""
    lines = [
        [f"u{row}", f"i{row % 3}", values[row // 3 % len(values)], 1 / 3, row % 7] for row in range(rows)
    ]
    return write_csv(path, ["user", "item", "reward", "propensity", "context.x"], lines)


def test_the_range_of_each_signal_is_found_in_the_log(tmp_path: Path) -> None:
    found = shape_of(sessions(tmp_path / "a.csv"), weights=("clicked=1",)).ranges
    assert found["clicked"] == SignalRange(0.0, 1.0, True)
    assert 0 <= found["dwell"].low < 0.1 and 0.9 < found["dwell"].high <= 1 and not found["dwell"].binary
    cases: list[tuple[list[float], SignalRange]] = [
        ([0, 1], SignalRange(0.0, 1.0, True)),
        ([1, 1], SignalRange(1.0, 1.0)),  # nobody knows whether it may be 0
        ([0, 1, 0.5], SignalRange(0.0, 1.0)),
        ([0, 1, 7], SignalRange(0.0, 7.0)),
    ]
    for values, expected in cases:
        log = single(tmp_path / "b.csv", values)
        assert shape_of(log).ranges == {"reward": expected}
    both = shape_of(single(tmp_path / "c.csv", [0, 0]), single(tmp_path / "d.csv", [1, 1]))
    assert both.ranges == {"reward": SignalRange(0.0, 1.0, True)}


def test_other_values_than_0_and_1_are_refused_and_amounts_are_not(tmp_path: Path) -> None:
    made = policy(tmp_path / "p.pt", sessions(tmp_path / "log.csv"), weights=("clicked=1", "dwell=0.5"))
    with serving(made, tmp_path / "r.sqlite") as client:
        answer = recommend(client, "ann", context=CONTEXT)
        sent = [("clicked", x) for x in (0.5, 3, -7, 1, 0, True)] + [("dwell", 250.0), ("dwell", -2e9)]
        events = [event(answer, name, x, event_id=str(number)) for number, (name, x) in enumerate(sent)]
        found = client.post("/v1/feedback", json={"events": events}).json()["results"]
        assert [x["code"] or x["status"] for x in found] == [
            *["value-out-of-range"] * 3, *["accepted"] * 4, "value-out-of-range",
        ]  # fmt: skip
        assert "0 or 1" in found[0]["detail"]
        report = client.get(f"/v1/decisions/{answer['decision_id']}").json()
        assert [x["value"] for x in report["events"]] == [1.0, 0.0, 1.0, 250.0]


def test_the_gate_keeps_its_bound_and_cuts_amounts(tmp_path: Path) -> None:
    """Also of a record from before a policy served, which took any value."""
    clicked = load(policy(tmp_path / "p.pt", single(tmp_path / "log.csv", [0, 1])))
    served = single(tmp_path / "served.csv", [0, 1, 0.5, 3, -7])
    log = concatenate([*open_log((str(served),), clicked).parts(PART)])
    on = bench(served, log, clicked)
    assert on.bounds == (0.0, 1.0) and "48 values" in on.cut
    assert sorted(set(on.of.rewards.tolist())) == [0.0, 0.5, 1.0]
    users = make_user_model(clicked.config, clicked.world)
    assert reward_bounds(log, clicked.config, users, torch.ones(1)) is None  # not cut: outside

    paid = load(policy(tmp_path / "q.pt", single(tmp_path / "amounts.csv", [0, 2.5, 30])))
    log = concatenate(
        [*open_log((str(single(tmp_path / "large.csv", [0, 2.5, 1e9, -4])),), paid).parts(PART)]
    )
    cut, said = within(log, paid.config)
    assert sorted(set(cut.signals.flatten().tolist())) == [0.0, 2.5, 30.0] and "60 values" in said
    assert bench(tmp_path, log, paid).bounds is None  # an item that nobody saw may pay less than 0
    same, said = within(replace(log, signals=log.signals.clamp(0, 30)), paid.config)
    assert said == "" and torch.equal(same.signals, log.signals.clamp(0, 30))


@pytest.mark.parametrize(
    "text", ['{"ranges": {"a": [0]}}', '{"ranges": [1]}', '{"ranges": {"a": ["x", 1, true]}}']
)
def test_a_shape_with_wrong_ranges_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        read_shape(text, 1)

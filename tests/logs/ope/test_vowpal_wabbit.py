"""Our reader of dsjson beside Vowpal Wabbit itself, on logs of a small application that it decides for."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.data.tables.read import open_table
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope

vw: Any = pytest.importorskip("vowpalwabbit", reason="vowpalwabbit, of the extra peers, is not installed")

GENRES = ("news", "sport", "art", "food")


def context(drawn: random.Random) -> dict[str, Any]:
    user = {"age": drawn.choice([20, 40, 60]) / 50, "segment": drawn.choice("ab")}
    return {
        "user": user,
        "_multi": [{"action": {"genre": name, "price": 0.5 * k}} for k, name in enumerate(GENRES)],
    }


def log_of_application(path: Path, events: int, pdrop: float = 0.0) -> list[str]:
    """A log of an application whose clicks depend on the segment; VW decides, and learns from each click."""
    drawn, application, lines = (
        random.Random(0),
        vw.Workspace("--cb_explore_adf --epsilon 0.2 --quiet --json"),
        [],
    )
    for number in range(events):
        seen = context(drawn)
        chances = application.predict(json.dumps(seen))
        chosen = drawn.choices(range(4), chances)[0]
        best = 0 if seen["user"]["segment"] == "a" else 2
        cost = -float(drawn.random() < (0.6 if chosen == best else 0.2))
        order = [chosen, *(place for place in range(4) if place != chosen)]
        label = {
            "_label_cost": cost,
            "_label_probability": chances[chosen],
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
        }
        line = {
            **label,
            "o": [{"v": -cost, "EventId": f"e{number}"}],
            "Timestamp": f"2026-11-{1 + number // 100:02d}T10:{number % 60:02d}:00.0000000Z",
            "Version": "1",
            "EventId": f"e{number}",
            "a": [place + 1 for place in order],
            "c": seen,
            "p": [chances[place] for place in order],
            **({"pdrop": pdrop} if pdrop else {}),
        }
        application.learn(json.dumps({**seen, **label}))
        lines.append(json.dumps(line))
    application.finish()
    path.write_text("".join(f"{line}\n" for line in lines))
    return lines


@pytest.mark.parametrize("pdrop", [0.0, 0.75])
def test_ips_is_its_own_average(tmp_path: Path, pdrop: float) -> None:
    """The average loss that VW reports of a policy on a log is minus our `ips` of that policy."""
    log, model = tmp_path / "log.dsjson", str(tmp_path / "policy.vw")
    lines = log_of_application(log, 1200, pdrop)
    learner = vw.Workspace(f"--cb_explore_adf --epsilon 0.1 --dsjson -q ua --quiet -d {log} -f {model}")
    learner.finish()
    policy = vw.Workspace(f"--dsjson -i {model} -t --quiet")
    with (tmp_path / "target.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["session", "propensity"])
        for line in lines:
            event, example = json.loads(line), policy.parse(line)
            rows.writerow([event["EventId"], policy.predict(example)[event["_labelIndex"]]])
            policy.finish_example(example)
    average = policy.get_sum_loss() / policy.get_weighted_examples()
    target = str(tmp_path / "target.csv")
    result = ope(OpeConfig(log=(str(log),), target=target, world=False))
    ips = next(row for row in result.rows if row.estimator == "ips")
    assert ips.value == pytest.approx(-average, rel=1e-5) and 0.3 < ips.value < 0.8


def labels(workspace: Any, line: str, kind: Any) -> list[str]:
    """The labels of the examples that VW makes of a line, as texts."""
    examples = workspace.parse(line)
    texts = [str(example.get_label(kind)) for example in examples]
    workspace.finish_example(examples)
    return texts


def test_the_slots_are_read_as_it_reads_them(tmp_path: Path) -> None:
    """Of each slot VW's label holds the chosen action, its cost, and its probability."""
    drawn, lines = random.Random(1), []
    for number in range(50):
        seen = {**context(drawn), "_slots": [{"_id": "top"}, {"_id": "low", "s": {"size": 1}}]}
        rest, outcomes = [0, 1, 2, 3], []
        for size in (4, 3):
            chances = [0.4, *[0.6 / (size - 1)] * (size - 1)]
            order = drawn.sample(rest, size)
            outcomes.append({"_label_cost": drawn.choice([-1.0, 0.0, 0.5]), "_a": order, "_p": chances})
            rest = order[1:]
        lines.append(json.dumps({"EventId": f"e{number}", "c": seen, "_outcomes": outcomes}))
    (tmp_path / "log.dsjson").write_text("\n".join(lines))
    table = open_table(tmp_path / "log.dsjson")
    assert table.items is not None
    ids, frame = table.items.rows(["item"])["item"].to_list(), table.rows(table.names)
    reader = vw.Workspace("--ccb_explore_adf --dsjson --quiet -t")
    for line, row in zip(lines, frame.to_dicts(), strict=True):
        slots = [
            text
            for text in labels(reader, line, vw.LabelType.CONDITIONAL_CONTEXTUAL_BANDIT)
            if "slot" in text
        ]
        for place, text in enumerate(slots):
            action, cost, chance = text.split()[2].split(",")[0].split(":")
            assert row["items"][place] == ids[int(action)] and row["reward"][place] == -float(cost)
            assert float(chance) == pytest.approx(0.4) and row["logprob"] == pytest.approx(
                sum(row["place_logprobs"])
            )

"""A newer log of items that the policy does not know: weights by hand, and the file that tells of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import load, save
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.ope.result import OpeResult
from recsys_rl.logs.source import heldout_strangers
from recsys_rl.utils.user_hashes import number_of
from tests.own_logs import clicks, items_file, policy, sessions, write_csv

CONTEXT = ("context.age", "context.device", "context.v")
NAMES = [f"n{number}" for number in range(60)]
HELD = heldout_strangers(torch.tensor([*map(number_of, NAMES)]), 0.1, 0)
USERS = [name for name, held in zip(NAMES, HELD.tolist(), strict=True) if held]  # the policy did not learn of


def uniform(path: Path) -> Path:
    """The policy with weights of 0: it shows each item that it may show with the same probability."""
    made = load(path)
    agent = {
        name: values * 0 if values.is_floating_point() else values for name, values in made.agent.items()
    }
    save(path, dataclasses.replace(made, agent=agent))
    return path


def by_features(folder: Path) -> Path:
    items = items_file(folder / "items.csv")
    return uniform(policy(folder / "p.pt", clicks(folder / "old.csv"), "reinforce", items=str(items)))


def single(path: Path, rows: Sequence[tuple[int, str, str, float, int]]) -> Path:
    """Decisions of users by number: the item, the candidates, the propensity and the click."""
    header = [
        "user",
        "item",
        "candidates",
        "propensity",
        "clicked",
        *("context.age", "context.device", "context.v"),
    ]
    return write_csv(path, header, [[USERS[user], *rest, 30.5, "desk", "0.5|0.5"] for user, *rest in rows])


TINY = [
    (0, "i0", "i0|i1|x1|x2", 0.25, 1),  # of two known items: 1/2 over 1/4
    (0, "x1", "i0|i1|x1|x2", 0.25, 1),  # 0
    (1, "i1", "i0|i1|x1", 0.5, 0),  # 1
    (1, "i2", "i0|i1|i2", 0.2, 1),  # 1/3 over 1/5, and nothing unknown
    (2, "i0", "i0|i3|x2", 0.25, 1),  # 2
    (2, "x2", "x1|x2", 0.5, 1),  # no known item: left out
]


def value(result: OpeResult, estimator: str) -> float:
    return next(row.value for row in result.rows if row.estimator == estimator)


def judged(path: Path, checkpoint: Path, **options: Any) -> OpeResult:
    return ope(log=str(path), checkpoint=str(checkpoint), world=False, **options)


@pytest.mark.parametrize("known", [True, False])
def test_a_row_of_an_unknown_item_has_weight_0(tmp_path: Path, known: bool) -> None:
    """Of items that are known by their ids alone the head has a logit each, and none for others."""
    old = clicks(tmp_path / "old.csv")
    checkpoint = by_features(tmp_path) if known else uniform(policy(tmp_path / "p.pt", old, "reinforce"))
    log = single(tmp_path / "new.csv", TINY)
    found = judged(log, checkpoint, json=str(tmp_path / "ope.json"))
    assert value(found, "ips") == pytest.approx((2 + 0 + 0 + 5 / 3 + 2) / 5)
    assert value(found, "snips") == pytest.approx((2 + 5 / 3 + 2) / (2 + 1 + 5 / 3 + 2))
    written = json.loads((tmp_path / "ope.json").read_text())["unknown"]
    assert written["policies"] == {"reinforce": pytest.approx((2 + 0 + 1 + 2) / (2 + 1 + 5 / 3 + 2))}
    assert {name: written[name] for name in ("items", "rows", "showing", "listing", "left_out", "share")} == {
        "items": 2, "rows": 5, "showing": 1, "listing": 4, "left_out": 1, "share": 0.2,
    }  # fmt: skip
    assert ("--items" in written["text"]) is known
    rows = [(user, f"i{user % 2}", "i0|i1", 0.5, 1) for user in range(3)]
    assert judged(single(tmp_path / "known.csv", rows), checkpoint).unknown is None


def test_without_candidates_the_policy_chooses_among_its_own_items(tmp_path: Path) -> None:
    """Drawn from six items, of which the policy knows four: 1/4 over 1/6, and all of it beside new ones."""
    checkpoint = by_features(tmp_path)
    header = ["user", "item", "propensity", "clicked", *CONTEXT]
    rows = [
        [USERS[x % 3], item, 1 / 6, 1, 30.5, "desk", "0.5|0.5"]
        for x, item in enumerate(["i0", "x1", "x2", "i3"])
    ]
    found = judged(write_csv(tmp_path / "new.csv", header, rows), checkpoint)
    assert value(found, "ips") == pytest.approx((1.5 + 1.5) / 4)
    assert found.unknown is not None and found.unknown.policies == {"reinforce": 1.0}


def test_a_file_tells_of_them(tmp_path: Path) -> None:
    """With --items the policy knows them by their features: uniform among all that could be shown."""
    checkpoint, log = by_features(tmp_path), single(tmp_path / "new.csv", TINY)
    more = write_csv(
        tmp_path / "more.csv",
        ["id", "title", "genres", "price"],
        [["x1", "New 1", "a", 3.5], ["x2", "New 2", "c", 0.5]],
    )
    found = judged(log, checkpoint, items=str(more))
    assert found.unknown is None
    weights = [0.25 / 0.25, 0.25 / 0.25, (1 / 3) / 0.5, (1 / 3) / 0.2, (1 / 3) / 0.25, 0.5 / 0.5]
    clicked = [row[4] for row in TINY]
    assert value(found, "ips") == pytest.approx(sum(w * r for w, r in zip(weights, clicked, strict=True)) / 6)
    write_csv(more, ["id", "title", "genres", "price"], [["x1", "New 1", "a", 3.5]])
    some = judged(log, checkpoint, items=str(more)).unknown
    assert some is not None and (some.items, some.rows, some.showing, some.left_out) == (1, 6, 1, 0)
    with pytest.raises(UserError, match="dense head"):
        judged(log, policy(tmp_path / "ids.pt", clicks(tmp_path / "old.csv")), items=str(more))


def test_the_rest_of_a_session_has_weight_0_too(tmp_path: Path) -> None:
    items = items_file(tmp_path / "items.csv")
    weights = ("clicked=1", "dwell=0")
    checkpoint = uniform(
        policy(
            tmp_path / "p.pt", sessions(tmp_path / "old.csv"), "reinforce", items=str(items), weights=weights
        )
    )
    header = [
        "user",
        "session",
        "step",
        "item",
        "candidates",
        "propensity",
        "signal.clicked",
        "signal.dwell",
        "context.age",
    ]
    steps = [
        (0, 0, "i0", "i0|i1|x1", 0.5, 1),  # 1/2 over 1/2
        (0, 1, "x1", "i1|i2|x1", 0.25, 1),  # 0
        (0, 2, "i2", "i2|i3", 0.5, 1),  # and so here
        (1, 0, "i1", "i1|i2", 0.25, 1),  # 2
        (1, 1, "i3", "i3|x1|x2", 0.5, 1),  # 2 x 2
        (2, 0, "i2", "i2|i0", 0.5, 1),  # 1
        (2, 0, "i2", "i2|i0", 0.5, 0),  # 1, a session of its own
    ]
    rows = [
        [USERS[user], f"s{number if number == 6 else user}", *rest, 0.5, 30.5]
        for number, (user, *rest) in enumerate(steps)
    ]
    found = judged(write_csv(tmp_path / "new.csv", header, rows), checkpoint)
    assert value(found, "pdis") == pytest.approx((1 + (2 + 4) + 1 + 0) / 4)
    unknown = found.unknown
    assert unknown is not None
    assert (unknown.items, unknown.rows, unknown.showing, unknown.listing) == (2, 7, 1, 3)
    assert unknown.policies == {"reinforce": pytest.approx((1 + 0 + 4) / (1 + 2 + 4 + 1 + 1))}

"""The whole circle of single decisions: served, learned from, judged, let in and promoted."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.logs.decision_log import concatenate
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.serving.at_rest.record_interval import IN_FLIGHT
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.client import Client
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.take_turns import LoopConfig, loop
from recsys_rl.serving.loop.turn import Judge, Learn, Promote, Raise, Start, Wait
from tests.own_logs import clicks, policy, write_csv
from tests.serving.live import Live, live

WINDOW = 2.0  # seconds in which feedback counts: also that of a busy machine
LIKED = {"desk": "i0", "phone": "i1", "tv": "i2"}
CLICKS = 0.1, 0.9  # how often an item is bought, and the one that is liked
PAID = 2  # for an item


def visit(server: Live, number: int, seed: int) -> None:
    """People come with their device, and buy."""
    drawn, client = random.Random(seed), Client(server.url, None)
    for _ in range(number):
        device = drawn.choice([*LIKED])
        context = {"age": drawn.uniform(1, 80), "device": device, "v": [drawn.random(), 0.0]}
        answer, _ = client.recommend({"user_id": f"u{drawn.randrange(200)}", "context": context})
        is_liked = answer["items"][0]["item_id"] == LIKED[device]
        value = float(PAID * (drawn.random() < CLICKS[is_liked]))
        event = {"decision_id": answer["decision_id"], "signal": "purchase", "value": value}
        assert client.feedback([event]) == (1, 0)
    time.sleep(WINDOW + 2 * IN_FLIGHT)


def value_of(file: Path, truth: Path) -> float:
    """The true share of purchases of a policy, from a table with the item that is liked in each context."""
    made = load(file)
    rows = concatenate([*open_log((str(truth),), made).parts(PART)])
    with torch.no_grad():
        right = agent_of(made).logprob(observe(rows, made.catalogue), rows.items).exp()
    return CLICKS[0] + (CLICKS[1] - CLICKS[0]) * float(right.mean())


def liked(path: Path) -> Path:
    """A table of contexts with the item that is liked there."""
    drawn = random.Random(2)
    header = ["user", "item", "purchase", "propensity", "context.age", "context.device", "context.v"]
    pairs = [*LIKED.items()] * 50
    rows = [
        [f"t{at}", item, 1, 1.0, drawn.uniform(1, 80), device, "0.5|0.0"]
        for at, (device, item) in enumerate(pairs)
    ]
    return write_csv(path, header, rows)


@pytest.mark.timeout(300)
@pytest.mark.proof
def test_single_decisions_go_all_the_way_round(tmp_path: Path) -> None:
    """A purchase pays an amount, whose ends the gate doesn't know: it can't tell, and the canary decides."""
    log, policies, record = tmp_path / "shop.csv", tmp_path / "policies", tmp_path / "r.sqlite"
    header, *rows = clicks(tmp_path / "clicks.csv").read_text().splitlines()
    lines = [row.split(",") for row in rows]
    paid = [[*row[:2], str(PAID * int(row[2])), *row[3:]] for row in lines]
    write_csv(log, header.replace("clicked", "purchase").split(","), paid)
    policies.mkdir()
    first = policy(policies / "first.pt", log, "reinforce", reward_column="purchase")
    with live(policies, record, feedback_window=WINDOW) as server:
        options = LoopConfig(
            db=str(record),
            policies=str(policies),
            url=server.url,
            quiet=True,
            sessions=500,
            canary=1000,
            decisions=12_800,
        )
        visit(server, 500, seed=0)
        steps = loop(options)
        assert [type(step) for step in steps] == [Learn, Judge, Start, Wait]
        verdicts = [json.loads(path.read_text()) for path in policies.glob("*.gate.json")]
        assert {(verdict["answer"], verdict["by"]) for verdict in verdicts} == {("can't tell", "dr")}
        challenger = Releases(server.url).status()["challenger"]
        groups = 0
        while Releases(server.url).status()["champion"] != challenger:
            groups += 1
            assert groups < 10
            visit(server, 110, seed=groups)
            found = loop(options)[0]
            # The server itself needs no more than what its canary says.
            assert found == Promote(challenger) or isinstance(found, Raise | Wait)
        kinds = [(row["kind"], row["share"]) for row in Releases(server.url).history()]
        shares = [("start", 0.05), ("share", 0.2), ("share", 0.5)]
        assert kinds == [*shares[: len(kinds) - 1], ("promote", 1.0)] and len(kinds) > 2
    truth, better = liked(tmp_path / "liked.csv"), files_in(policies)[challenger]
    assert value_of(first, truth) == pytest.approx(0.3, abs=0.05)  # it draws about uniformly from four items
    assert value_of(better, truth) > 0.5

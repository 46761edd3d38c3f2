"""The gate judges both policies among the items of a decision that are there now."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch

from benchmarks.ope_stocks import BRANDS, Shop, Tabled, judged, logged, shop, value
from recsys_rl.checkpoint import save
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.data.timeline import ALWAYS, NEVER, ItemTimeline
from recsys_rl.logs.decision_log import DecisionHeader, assemble, concatenate
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log, over_log
from recsys_rl.make import agent_of
from recsys_rl.serving.loop.gate_compare import bench, compare, of_now
from recsys_rl.types import Interface
from tests.own_logs import clicks, policy
from tests.serving.loop.test_gate_lower import drawing
from tests.serving.servers import event, recommend, send, serving
from tests.serving.test_items import CONTEXT, exported

ROWS = 2_000


def of_items(until: list[int]) -> Shop:
    """As many items as ends; the first one earns most, the last one least."""
    noise = torch.Generator().manual_seed(0)
    found = shop(torch.full((len(until),), ALWAYS), torch.tensor(until), noise)
    charm = torch.linspace(0.6, 0.0, len(until), dtype=torch.float64)
    return dataclasses.replace(
        found, brands=torch.full((len(until),), BRANDS), cheap=torch.zeros(len(until)), charm=charm
    )


def test_a_policy_that_is_better_by_a_gone_item_is_not() -> None:
    """Item 0 earns .65, and is gone; then the champion prefers 1 (.45), the challenger 2 (.25)."""
    of = of_items([ROWS, NEVER, NEVER, NEVER])
    new, old = (
        Tabled(torch.tensor([logits]).double().expand(BRANDS, -1))
        for logits in ([3.0, -3.0, 2.0, -3.0], [0.0, 2.0, 0.0, 0.0])
    )
    catalogue = of.catalogue()
    log = logged(of, catalogue, dataclasses.replace(old, uniform=0.3), ROWS, torch.Generator().manual_seed(1))
    now, kept, text = of_now(catalogue, log)
    assert kept.num_rows == ROWS and "1 item" in text
    assert ItemTimeline.of(now).available_at(torch.tensor([0])).tolist() == [[False, True, True, True]]
    differences = []
    for laid in (catalogue, now):
        (mine, mean), (theirs, _) = judged(kept, laid, [new, old])
        assert mean == pytest.approx(1, abs=0.15)
        differences.append(float((mine["ips"] - theirs["ips"]).mean()))
    truth = [
        value(of, new, mask) - value(of, old, mask)
        for mask in (torch.ones(1, 4) > 0, ItemTimeline.of(now).available_at(torch.zeros(1)))
    ]
    assert differences == pytest.approx(truth, abs=0.1)
    assert truth[0] > 0.1 and truth[1] < -0.1


def test_an_item_that_is_known_otherwise_is_not_gone() -> None:
    of = of_items([10, NEVER, NEVER])
    catalogue = dataclasses.replace(of.catalogue(), item_names=("a", "b", "a"))  # with another price
    log = logged(of, catalogue, Tabled(torch.zeros(BRANDS, 3).double()), 20, torch.Generator())
    assert of_now(catalogue, log) == (catalogue, log, "")


def test_sessions_that_could_show_gone_items_alone_are_left_out() -> None:
    of = of_items([8, 8, NEVER])
    of = dataclasses.replace(of, since=torch.tensor([ALWAYS, ALWAYS, 5]))
    catalogue = of.catalogue()
    log = logged(of, catalogue, Tabled(torch.zeros(BRANDS, 3).double()), 12, torch.Generator())
    now, kept, text = of_now(catalogue, log)
    assert kept.sessions.tolist() == list(range(5, 12)) and "5 sessions" in text
    there = ItemTimeline.of(now).available_at(torch.arange(4, 6))
    assert there.tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(("gone", "kept"), [(1, 4), (2, 0)])
def test_a_session_without_repeats_needs_items_for_each_step(gone: int, kept: int) -> None:
    """Two steps showed the item that is gone and another one: another policy may begin with what is left."""
    of = of_items([10] * gone + [NEVER] * (3 - gone))
    interface = Interface((("taste", BRANDS),), (3,), repeats=False, session_length=2, profile=False)
    log = assemble(
        DecisionHeader(("logger",), interface, ("click",)),
        users=torch.arange(4).repeat_interleave(2),
        sessions=torch.arange(4).repeat_interleave(2),
        steps=torch.arange(8) % 2,
        items=torch.tensor([[0], [2]] * 4),
        signals=torch.zeros(8, 1, 1),
        given={"taste": torch.zeros(8, BRANDS)},
    )
    log = dataclasses.replace(log, stock=torch.arange(8))
    _, left, text = of_now(of.catalogue(), log)
    assert left.num_sessions == kept and ("4 sessions" in text) is (kept == 0)


PAYS, OLD, NEW = (0.6, 0.6, 0.0, 1.0), (0.3, 0.3, 0.2, 0.2), (0.02, 0.02, 0.36, 0.6)


@pytest.mark.proof
def test_the_gate_does_not_pay_for_an_item_that_was_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenger is better by i3 alone: .62 against .56. Without it .06 is left, of .45."""
    made, log = (
        load_at_home(policy(tmp_path / "p.pt", clicks(tmp_path / "clicks.csv"))),
        tmp_path / "log.parquet",
    )
    save(tmp_path / "old.pt", drawing(made, OLD))
    drawn, db = random.Random(0), tmp_path / "r.sqlite"
    with serving(tmp_path / "old.pt", db, seed=1) as client:
        for user in range(300):
            answer = recommend(client, f"u{user}", context=CONTEXT)
            click = drawn.random() < PAYS[int(answer["items"][0]["item_id"][1])]
            send(client, *[event(answer, "clicked")] * click, event(answer, "leave"))
        gone = client.post("/v1/items", json={"withdraw": ["i3"]}).json()
        assert gone["withdrawn"] == 1
        send(client, event(recommend(client, "last", context=CONTEXT), "leave"))
    exported(db, log)
    old, new = (over_log(drawing(made, chances), (str(log),)) for chances in (OLD, NEW))
    decisions = concatenate([*open_log((str(log),), old).parts(PART)])
    on = bench(log, decisions, old)
    assert on.of.log.num_rows == 301 and "1 item" in on.gone
    found = compare(on, agent_of(new))
    assert float((found.new - found.old).mean()) == pytest.approx(0.06 - 0.45, abs=0.15)
    monkeypatch.setattr("recsys_rl.serving.loop.gate_compare.of_now", lambda of, log: (of, log, ""))
    then = compare(bench(log, decisions, old), agent_of(new))
    assert float((then.new - then.old).mean()) > 0

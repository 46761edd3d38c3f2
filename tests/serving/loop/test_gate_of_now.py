"""The gate judges both policies among the items of a decision that are there now."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.ope_stocks import BRANDS, Shop, Tabled, judged, logged, shop, value
from recsys_rl.data.tables.item_encoding import ALWAYS, NEVER, there
from recsys_rl.serving.loop.gate_compare import of_now

ROWS = 4_000


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
    assert there(now, torch.tensor([0])).tolist() == [[False, True, True, True]]
    differences = []
    for laid in (catalogue, now):
        (mine, mean), (theirs, _) = judged(kept, laid, [new, old])
        assert mean == pytest.approx(1, abs=0.15)
        differences.append(float((mine["ips"] - theirs["ips"]).mean()))
    truth = [
        value(of, new, mask) - value(of, old, mask)
        for mask in (torch.ones(1, 4) > 0, there(now, torch.zeros(1)))
    ]
    assert differences == pytest.approx(truth, abs=0.06)
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
    assert there(now, torch.arange(4, 6)).tolist() == [[False] * 3, [False, False, True]]

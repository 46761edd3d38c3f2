"""The benchmark of logs whose items come and go, in small form."""

from __future__ import annotations

import pytest
import torch

from benchmarks.ope_stocks import Tabled, mask, stocks


def test_a_policy_has_its_chances_among_the_items_that_are_there() -> None:
    logits = torch.tensor([[0.0, 0.0, 5.0, -torch.inf]]).double()
    there = torch.tensor([[True, True, False, True]])
    assert Tabled(logits, 0.5).chances(torch.tensor([0]), there).tolist() == [[0.5, 0.5, 0, 0]]


@pytest.mark.proof
def test_intervals_hold_the_truth_where_items_come_and_go() -> None:
    """Of 60 intervals at 95 %, 50 or more cover with probability 0.999; weights have a mean of 1."""
    rows = stocks(60, 500, 1)
    assert len(rows) == 8
    for row in rows:
        assert row["covered"] >= 50, row
        assert row["mean_weight"] == pytest.approx(1, abs=0.02), row


@pytest.mark.proof
def test_items_that_are_gone_mislead_the_mask_of_then() -> None:
    """Of the 16 logs of each case."""
    rows = {(row["case"], row["mask"]): row for row in mask(16, 1_000, 2)}
    case = "50% go: shown most"
    assert rows[case, "then and now"]["covered"] >= 13
    assert rows[case, "then and now"]["error"] < rows[case, "then"]["error"]

"""An export of a shop whose items came, changed and went, read without a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys_rl.logs.describe.learnable import lacks_candidates
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.ope.ope import ope
from tests.own_logs import clicks, policy
from tests.serving.servers import event, recommend, send, serving
from tests.serving.test_items import CONTEXT, ITEMS, NEW, exported, items_file, post


def test_an_export_is_judged_and_described_without_a_policy(tmp_path: Path) -> None:
    """The server draws uniformly from what is there, 4 items and then 3: `random` has a weight of 1."""
    items = items_file(tmp_path / "items.csv")
    first = policy(tmp_path / "p.pt", clicks(tmp_path / "clicks.csv"), "reinforce", items=str(items))
    with serving(first, tmp_path / "r.sqlite", explore=1.0) as client:
        for user in range(100):
            if user == 40:
                changed = {**ITEMS[1], "features": {"brand": "b", "price": 7.5}}
                post(client, items=[NEW, changed], withdraw=["i0", "i2"])
            answer = recommend(client, f"u{user}", context=CONTEXT)
            send(client, *[event(answer, "clicked")][user % 5 :], event(answer, "leave"))
    log, stock = exported(tmp_path / "r.sqlite", tmp_path / "log.parquet")
    assert "candidates" not in log.columns and stock["item"].to_list().count("i1") == 2
    found = ope(log=str(tmp_path / "log.parquet"), policy="random")
    ips = next(row for row in found.rows if (row.policy, row.estimator) == ("random", "ips"))
    assert ips.weights is not None and ips.weights.ess == pytest.approx(100)
    assert ips.value == pytest.approx(0.2)
    facts = describe(tmp_path / "log.parquet").learnable
    assert facts is not None and facts.propensities is not None and not lacks_candidates(facts)
    assert facts.propensities.mean_inverse == pytest.approx(1) and facts.has_candidates

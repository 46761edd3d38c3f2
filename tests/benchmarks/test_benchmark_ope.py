"""The benchmarks of off-policy evaluation in small form: coverage of intervals, and large catalogues."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ope as benchmark
from benchmarks.ope_catalogue import catalogue
from benchmarks.ope_coverage import CASES, Simulator, Softmax, coverage
from recsys_rl.logs.users import fit as user_fit


@pytest.mark.proof
def test_intervals_cover_the_truth_and_the_case_without_overlap_is_warned_of() -> None:
    """Of 40 intervals at 95 %, 34 or more cover with probability 0.99."""
    for case in CASES:
        rows = coverage(case, logs=40, sessions=500, truth_sessions=20_000, seed=3)
        sure = [row for row in rows if row["promise"] == "student-t"]
        for row in sure:
            if case.name.startswith("no overlap"):
                assert row["warned"] == 40 and row["covered"] < 37, row
            else:
                assert row["covered"] >= 34, row
        if case.steps == 1:
            assert len(sure) == 4
            kinds = {row["estimator"]: row["promise"] for row in rows if row not in sure}
            assert kinds.pop("dm") == "model"
            assert kinds.pop("mips") == kinds.pop("offcem") == "cluster"
            assert set(kinds.values()) == {"clip"} and len(kinds) == 2


def test_softmax_policies_give_nothing_to_items_already_shown() -> None:
    affinity = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    allowed = torch.tensor([[True, False, True, True]] * 3)
    p = Softmax(1.0).probabilities(affinity, allowed)
    assert (p[:, 1] == 0).all() and p.sum(1).tolist() == pytest.approx([1, 1, 1])


def test_weights_of_simulated_sessions_average_to_one() -> None:
    simulator = Simulator(20, 3)
    log = simulator.play(20_000, Softmax(0.5), Softmax(1.0), torch.Generator().manual_seed(0))
    weights = log.ratios.cumprod(1).mean(0)
    assert weights.tolist() == pytest.approx([1, 1, 1], abs=0.03)


def test_cluster_weights_beat_item_weights_where_a_clusters_items_are_alike() -> None:
    rows = catalogue(2_000, 8, (0.1,), seed=0, num_items=500)
    over = {row["estimator"]: row["over_ips"] for row in rows if row["logger_sd"] == 1.5}
    assert over["ips"] == 1
    assert over["mips"] < 1 / 3 and over["offcem"] < 1 / 3


@pytest.mark.proof
def test_benchmark_writes_a_row_for_each_estimator_and_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 10)
    monkeypatch.setattr(sys, "argv", ["ope", "--smoke", "--json", str(out)])
    benchmark.main()
    rows = json.loads(out.read_text())["rows"]
    assert {row["question"] for row in rows} == {"coverage", "catalogue", "selection"}
    of_one = {row["estimator"] for row in rows if row.get("case") == "1 step"}
    assert {"dm", "ips", "sndr", "dros"} <= of_one and len(of_one) == 9

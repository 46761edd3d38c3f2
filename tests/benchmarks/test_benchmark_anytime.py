"""The benchmark of bounds that are looked at always: its smoke run, its terms and its tables."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import anytime
from tests.doors import benchmark_here


def written(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / "anytime.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    benchmark_here(anytime.main, tmp_path, "--smoke", "--threads", "1", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    parts = {part: [row for row in rows if row["part"] == part] for part in anytime.PARTS}
    assert {row["bound"] for row in parts["logs"]} == {"t", "asymptotic", "asymptotic, enough", "bernstein"}
    assert {(row["unit"], row["share"]) for row in parts["aa"] if not row["how"]} == {
        (unit, share) for unit in ("session", "user") for share in (0.1, 0.5)
    }
    assert len(parts["effects"]) == 2 * 2 * 3 * 2


@pytest.mark.parametrize("policy", [anytime.light, anytime.heavy])
def test_terms_of_equal_policies_have_mean_0_and_lie_within_their_bounds(policy: object) -> None:
    found = [policy(4_000, anytime.generator_of(run)) for run in range(20)]  # type: ignore[operator]
    bounded = torch.stack([of.terms(1 / of.largest) for of in found])
    least, most = found[0].bounds
    assert float(bounded.min()) >= least and float(bounded.max()) <= most
    for terms in (bounded, torch.stack([of.terms() for of in found])):
        assert abs(float(terms.mean())) < 4 * float(terms.std()) / terms.numel() ** 0.5


def test_only_counted_sessions_change_the_answer() -> None:
    answers, counted = torch.tensor([False, True]), torch.tensor([False, True, False, True, False])
    assert anytime.each_session(answers, counted).tolist() == [False, False, False, True, True]
    assert anytime.first(torch.tensor([False, True, True])) == 2


def test_centring_by_the_record_by_hand() -> None:
    """Two sessions in the record are too few: minus the mean of earlier outcomes, 5 and (5 + 1 + 6) / 3."""
    outcomes, means = torch.tensor([5.0, 1.0, 6.0, 7.0]), torch.tensor([4.0, 9.0, 2.0, math.nan])
    found = anytime.centred_by_record(outcomes, means, torch.tensor([3, 2, 10, 0]))
    assert found.tolist() == pytest.approx([5 - 4, 1 - 5, 6 - 2, 7 - 12 / 3])
    first = anytime.first_rows(torch.tensor([7, 8, 7, 9, 8, 7]))
    assert first.tolist() == [True, True, False, True, False, False]


def test_tables_are_of_the_newest_rows(tmp_path: Path) -> None:
    about = {"date": "2026-11-30", "commit": "abc", "runs": 4, "rows": 1_000}
    written(
        tmp_path,
        [
            {**about, "part": "logs", "weights": "heavy", "bound": "bernstein", "wrong": 0.01, "width": 1.9},
            *(
                {
                    **about,
                    "part": "aa",
                    "unit": "user",
                    "how": "",
                    "share": share,
                    "bound": "t",
                    "wrong": share,
                }
                for share in (0.1, 0.5)
            ),
            {
                **about,
                "part": "effects",
                "unit": "user",
                "share": 0.1,
                "effect": -0.1,
                "bound": "canary",
                "wrong": 0,
                "median": 1234.5,
                "within_2000": 0.75,
                "within_all": 1,
            },
        ],
    )
    assert "| heavy | empirical Bernstein sequence, doubly robust terms | 1.0 | 1.90 |" in anytime.log_text(
        tmp_path
    )
    assert "| user | t-interval | 10.0 | 50.0 |" in anytime.aa_text(tmp_path)
    row = "| -10% | user | 10% | a server's canary | 1,234 | 75.0 | 100.0 | 0.0 |"
    assert row in anytime.effects_text(tmp_path)

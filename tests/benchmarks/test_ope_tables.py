"""The tables of docs/09 from small results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.ope_tables import clusters, coverage, selection
from benchmarks.open_bandit import errors as open_bandit
from benchmarks.open_bandit import weights as open_bandit_weights
from tests.benchmarks.test_written_tables import write_rows

ABOUT = {"date": "2026-11-28", "commit": "b", "seed": 0}


def test_coverage_names_the_promise_of_each_interval(tmp_path: Path) -> None:
    kinds = {"dr": "student-t", "dr, bernstein": "bernstein", "dm": "model", "dros": "clip"}
    kinds["dros, slope"] = "clip"
    about = ABOUT | {"question": "coverage", "ess": 1112.0, "pareto_k": 0.2216, "logs": 1000, "warned": 999}
    rows = [
        about | {"case": case, "estimator": name, "promise": kind, "covered": 900 + place}
        for case in ("5 steps", "1 step", "1 step, heavier weights", "no overlap", "5 steps, earlier users")
        for place, (name, kind) in enumerate(kinds.items())
    ]
    rows[0:5] = [row | {"commit": "a"} for row in rows[0:5]]  # a case that was not measured again
    old = rows[5] | {"commit": "a", "covered": 1}
    text = coverage(write_rows(tmp_path, "ope", [old, *rows]))
    lines = text.splitlines()
    assert lines[2] == "| five steps | 1,112, 0.22 | Student's t | `dr` 900 |"
    assert lines[3] == "| | | Bernstein | `dr` 901 |"
    assert lines[4:6] == ["| | | none | `dm` 902, `dros` 903 |", "| | | none, `--clip slope` | `dros` 904 |"]
    assert len(lines) == 2 + 4 * 4 + 3 and "the command warned in 999" in text
    assert lines[-1].endswith("--only coverage`, commit a, 2026-11-28; commit b, 2026-11-28.")


def test_errors_of_clusters_stand_by_logger_and_spread(tmp_path: Path) -> None:
    rows = [
        ABOUT | {"question": "catalogue", "logger_sd": sd, "spread": spread, "estimator": name, "over_ips": x}
        for sd, x in ((1.5, 0.126), (0.5, 7.214))
        for spread in (0.1, 0.0)
        for name in ("ips", "snips", "mips", "offcem")
    ]
    lines = clusters(write_rows(tmp_path, "ope", rows)).splitlines()
    assert lines[0] == "| spread within a cluster | 0 | 0.1 |"
    assert lines[2] == "| logger with strong preferences for no reason: `snips` | 0.13 | 0.13 |"
    assert lines[6] == "| `mips` | 7.21 | 7.21 |"


def test_selection_has_the_range_of_the_logs_and_the_largest_error(tmp_path: Path) -> None:
    about = ABOUT | {"question": "selection", "env": "short-video", "sessions": 2000}
    rows: list[dict[str, Any]] = [about | {"policy": "ppo", "truth": 14.0}]
    rows += [about | {"policy": "random", "truth": 1.6}]
    for log, (worst, error) in enumerate(((-0.5, 0.125), (0.25, 0.0625))):
        known: dict[str, Any] = {"log": log, "spearman": 0.9, "spearman_of_five": log, "regret": 0.01 * log}
        known |= {"error": error, "worst_error": worst, "worst_of": "mmr"}
        rows += [about | known | {"estimator": name} for name in ("wdr", "world")]
    other = about | {"env": "satiation", "commit": "c", "estimator": "world"}
    text = selection(write_rows(tmp_path, "ope", [*rows, other]), "short-video")
    assert "| `wdr` | 0.90 | 0.00 to 1.00 | 0 to 1 % | 6 to 12 % | -50 % (mmr) |" in text
    assert "2 logs of 2,000 sessions; the ten policies earn 1.6 to 14.0." in text.replace("\n", " ")
    assert "--env short-video`, commit b, 2026-11-28." in text


def test_published_errors_are_in_the_papers_order(tmp_path: Path) -> None:
    rows = [ABOUT | {"estimator": name, "relative_error": 0.1, "mean_weight": 0.953, "ess": 1643} for name in
            ("dm", "ips", "sg")]  # fmt: skip
    results = write_rows(tmp_path, "open_bandit", rows)
    assert open_bandit(results) == "ips 0.100, dm 0.100"
    assert open_bandit_weights(results) == "mean weight is 0.953, and the effective sample size 1,643"

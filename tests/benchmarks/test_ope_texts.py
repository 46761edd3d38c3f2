"""The tables of docs/09 and the alternative texts of pictures, from small results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.ope_texts import coverage, open_bandit, open_bandit_weights, selection
from benchmarks.harness.picture_texts import categories, million
from recsys_rl.report.categories import categories_svg
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


def test_alternative_text_has_the_numbers_of_the_picture(tmp_path: Path) -> None:
    """The picture is drawn by the report, so that another form of its texts shows here."""

    def policy(name: str, shares: dict[str, list[float]], alive: list[float]) -> dict[str, Any]:
        means = {row: sum(values) / len(values) for row, values in shares.items()}
        return {
            "policy": name, "users": 40, "length_mean": 9.5, "shares": shares, "mean": means, "present": alive
        }  # fmt: skip

    long = {
        "A & B": [0.5, 0.3, 0.1],
        "Drama": [0.3, 0.3, 0.31],
        "Crime": [0.1, 0.2, 0.3],
        "others": [0.1] * 3,
    }
    short = {"A & B": [0.5], "Drama": [0.2], "Crime": [0.2], "others": [0.1]}
    picture = {
        "names": list(long),
        "length": 6,
        "visits": False,
        "parts": [(1, 2), (3, 4), (5, 6)],
        "policies": [policy("ppo", long, [1.0, 0.9, 0.8]), policy("myopic", short, [1.0])],
    }
    (tmp_path / "categories-x.svg").write_text(categories_svg(picture))
    text = categories(tmp_path, "x", "videos", images=tmp_path)
    assert text.startswith(
        '<img src="images/categories-x.svg" width="100%" alt="Share of four categories among'
    )
    assert (
        "ppo: A &amp; B from 50 to 10 %, Crime from 10 to 30 %; 80 % of the users stay to the last." in text
    )
    assert "myopic: A &amp; B from 50 to 50 %" in text
    assert text.endswith('fewer than a tenth of the users stay beyond steps 1 to 2.">')


def test_curve_of_a_million_items_is_in_its_alternative_text(tmp_path: Path) -> None:
    rows = [
        ABOUT | {"dials": f"seed {seed}", "step": step, "greedy_share_of_oracle": share + 0.02 * seed}
        for seed in range(2)
        for step, share in ((0, 0.3), (8192, 0.9), (16384, 0.95), (24576, 0.96), (98304, 0.98))
    ]
    text = million(write_rows(tmp_path, "million", rows))
    assert "mean of 2 seeds: 0.31 after 0 steps, 0.91 after 8,192 steps, 0.96 after 16,384" in text
    assert text.endswith('0.99 after 98,304 steps.">')

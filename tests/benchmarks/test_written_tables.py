"""The figures of README.md and docs/ equal benchmarks/results, and the command that writes them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from benchmarks import write_tables
from benchmarks.harness.newest import read
from benchmarks.harness.returns import Runs
from benchmarks.harness.tables import RESULTS, ROOT
from benchmarks.learning_tables import (
    CLAIMS,
    DRAWN,
    SHORT,
    claims,
    first_rows,
    gain_over_yardstick,
    gains_by_seed,
    platform,
    share_of_way,
)
from benchmarks.write_tables import FIGURES, TABLES, pages, rewritten


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.name)
def test_the_figures_of_a_page_are_not_stale(page: Path) -> None:
    assert rewritten(page, RESULTS) == page.read_text(encoding="utf-8"), "python -m benchmarks.write_tables"


def test_every_table_and_figure_has_a_place() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages(ROOT))
    assert [name for name in TABLES if f"<!-- table:{name} -->" not in text] == []
    assert [name for name in FIGURES if f"<!-- figure:{name} -->" not in text] == []


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def run(policy: str, seed: int, value: float, **more: Any) -> dict[str, Any]:
    about = {"date": "2026-11-25", "commit": "b", "task": "make-train", "train_seconds": 90.0}
    return about | {"policy": policy, "seed": seed, "return_mean": value, "length_mean": 20.0} | more


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds: 12 and 16 of ppo-greedy between rule (10) and planner (20), and an older, better commit."""
    rows = [run("ppo-greedy", 0, 99, commit="a"), run("a new row", 0, 1)]
    for seed, value in ((0, 12), (1, 16)):
        rows += [run("planner", seed, 20, coverage=0.25), run("ppo-greedy", seed, value)]
        rows += [run("rule", seed, 10), run("random", seed, 2 + seed)]
    return write_rows(tmp_path, "learning", rows)


def test_newest_rows_are_those_of_the_last_commit_of_each_key(results: Path) -> None:
    assert {row["commit"] for row in read(results, "learning")} == {"b"}
    by_policy = read(results, "learning", ("policy",))
    assert [row["return_mean"] for row in by_policy if row["policy"] == "ppo-greedy"] == ["12", "16"]
    write_rows(results, "x", [run("ppo", 0, 1), run("a2c", 0, 2, commit="c")])
    assert len(read(results, "x", ("policy",))) == 2 and len(read(results, "x")) == 1


def test_means_shares_and_gains_are_over_seeds(results: Path) -> None:
    # Shares 0.2 and 0.6, gains 0.2 and 0.6; Student's t with one degree of freedom is 12.706.
    runs = Runs(results, "make-train")
    assert runs.yardstick == "rule" and runs.mean("ppo-greedy").mean == 14
    for found in (runs.share(), runs.gain()):
        assert (found.mean, found.high) == pytest.approx((0.4, 0.4 + 12.706 * 0.2), abs=1e-3)


def test_each_seed_has_its_own_yardstick_and_measured_shares_go_first(tmp_path: Path) -> None:
    rows = []
    for seed, rule, mf in ((0, 10, 8), (1, 5, 8)):
        rows += [run("rule", seed, rule), run("mf", seed, mf), run("planner", seed, 18)]
        rows += [run("ppo-greedy", seed, 12, share=0.7 + 0.1 * seed)]
    runs = Runs(write_rows(tmp_path, "learning", rows), "make-train")
    assert runs.yardsticks().tolist() == [10, 8]
    assert runs.gain().mean == pytest.approx((0.2 + 0.5) / 2)
    assert runs.share().mean == pytest.approx(0.75)
    assert (gain_over_yardstick(tmp_path), share_of_way(tmp_path)) == ("35 %", "75 %")
    assert gains_by_seed(tmp_path, "make-train", "ppo-greedy") == "20 and 50 %"


def test_rows_without_a_training_join_the_newest_runs(tmp_path: Path) -> None:
    """An older row is left out, and so is one of a seed without a run; the newest of two counts."""
    rows = [run("expert", 0, 99, train_seconds="", date="2026-11-24")]
    rows += [run("ppo-greedy", seed, 12) for seed in (0, 1)]
    rows += [run("expert", 0, value, train_seconds="", commit=f"c{value}") for value in (15, 16)]
    rows += [run("expert", seed, 24, train_seconds="", date="2026-11-26") for seed in (1, 2)]
    runs = Runs(write_rows(tmp_path, "learning", rows), "make-train")
    assert (runs.seeds, runs.alone, runs.seconds) == (["0", "1"], ["expert"], 90)
    assert runs.values("expert") == [16, 24] and runs.values("ppo-greedy") == [12, 12]
    assert runs.origin == "commit b, c16, 2026-11-26"
    assert claims(tmp_path).splitlines()[2].startswith("| `satiation` | – | – | -37.5 % (")
    end = platform(tmp_path, "make-train").splitlines()[-1]
    assert end.endswith("`python -m benchmarks.learning_rows make-train --rows expert`.")


def test_a_table_names_the_yardstick_and_the_gain_over_it(results: Path) -> None:
    lines = platform(results, "make-train").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == [
        "**ppo-greedy**",
        "rule (linear, searched)",
    ]
    assert lines[-2].startswith("The yardstick is rule: ppo-greedy earns 40 %")


def test_a_table_before_the_rows_are_defined_is_short(results: Path) -> None:
    assert len(SHORT) <= 8
    lines = platform(results, "make-train", only=SHORT).splitlines()
    shown = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert shown == ["**ppo-greedy**", "rule (linear, searched)", "random", "planner (simulates to the end)"]
    assert len(platform(results, "make-train").splitlines()) == len(lines) + 1  # "a new row"
    chapter = (ROOT / "docs/02_rl_formulation.md").read_text(encoding="utf-8")
    marks = ("table:satiation-short", "## The policies of the comparison", "table:satiation ", "table:drift ")
    places = [chapter.index(mark) for mark in marks]
    assert places == sorted(places)


def test_claims_have_intervals_and_the_worst_seed(tmp_path: Path) -> None:
    """PPO earns 12 and 11, the rule 10 and 10: +20 and +10 %, mean 15, Student's t 12.706 times 5."""
    rows = []
    for task in CLAIMS:
        for seed, value in ((0, 12), (1, 11)):
            rows += [run("ppo-greedy", seed, value, task=task), run("ppo", seed, 10, task=task)]
            rows += [run("rule", seed, 10, task=task), run("searched", seed, 10 + seed, task=task)]
    text = claims(write_rows(tmp_path, "learning", rows)).splitlines()
    assert text[0] == "| `ppo-greedy` | over `rule` | over `searched` | over `expert` |"
    assert text[2] == (
        "| `satiation` | +15.0 % (-48.5 to +78.5), worst +10.0 | +10.0 % (-117.1 to +137.1), worst +0.0 | – |"
    )
    assert len(text) == 2 + len(CLAIMS) + len(DRAWN) + 2 and "mean over two seeds" in text[-1]


def test_the_first_table_has_means_the_single_runs_and_what_ppo_gains(tmp_path: Path) -> None:
    """PPO earns 12 and 11, the linear score 10 and 10, the formula 16 and 11: +20 and +10, -25 and 0 %."""
    rows = []
    for seed, value in enumerate((12, 11)):
        rows += [run(name, seed, 10, task="make-train") for name in ("mf", "searched", "ppo")]
        rows += [run("ppo-greedy", seed, value, task="make-train")]
        rows += [run("expert", seed, (16, 11)[seed], task="make-train")]
    text = first_rows(write_rows(tmp_path, "learning", rows))
    assert "| **PPO** | **11.50** | 11.00 – 12.00 | 20.0 |" in text
    assert "15.0 % more than the linear score and 12.5 % less than the formula." in text
    assert "two seeds" in text


def test_marked_places_are_written_and_the_rest_is_kept(tmp_path: Path) -> None:
    page, before = tmp_path / "page.md", "It is <!-- figure:dense-best -->9<!-- /figure -->.\n"
    page.write_text(f"{before}\n<!-- table:drift -->\nold\n<!-- /table -->\nEnd.\n")
    text = rewritten(page, RESULTS)
    assert text.startswith(before.replace("9", "0.80") + "\n<!-- table:drift -->\n| `drift`, ")
    assert text.endswith("\n<!-- /table -->\nEnd.\n") and "old" not in text
    page.write_text(text)
    assert rewritten(page, RESULTS) == text


def test_the_command_checks_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text("At <!-- figure:dense-best -->9<!-- /figure -->.")
    monkeypatch.setattr(write_tables, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["write_tables", "--check"])
    with pytest.raises(SystemExit, match="1"):
        write_tables.main()
    assert capsys.readouterr().out == "README.md: stale\n" and ">9<" in page.read_text()
    monkeypatch.setattr("sys.argv", ["write_tables"])
    write_tables.main()
    assert capsys.readouterr().out == "README.md: written\n" and ">0.80<" in page.read_text()

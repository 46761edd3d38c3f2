"""The figures of README.md and docs/ equal benchmarks/results, and the command that writes them."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import write_tables
from benchmarks.calibration_tables import ERROR, FIT, long_video, short_video
from benchmarks.harness.newest import read, table
from benchmarks.harness.returns import EFFECTS, Runs
from benchmarks.harness.tables import RESULTS, ROOT
from benchmarks.learning import SENSITIVITY, TASKS
from benchmarks.learning_tables import (
    CLAIMS,
    COSTS,
    EFFECT_ROWS,
    GAINS,
    OWN,
    claims,
    effects,
    first_rows,
    gain_over_yardstick,
    gains_by_seed,
    platform,
    sensitivity,
    share_of_way,
    share_with_interval,
)
from benchmarks.speed_tables import times_of
from benchmarks.watch import log_a2c, log_ppo, short, watch
from benchmarks.write_tables import FIGURES, TABLES, pages, rewritten
from recsys_rl.types import UserError
from tests.doors import finish, start


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
    about = {"date": "2026-11-25", "commit": "b", "task": "satiation", "train_seconds": 90.0}
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
    runs = Runs(results, "satiation")
    assert runs.yardstick == "rule" and runs.mean("ppo-greedy").mean == 14
    for found in (runs.share(), runs.gain()):
        assert (found.mean, found.high) == pytest.approx((0.4, 0.4 + 12.706 * 0.2), abs=1e-3)


def test_each_seed_has_its_own_yardstick_and_measured_shares_go_first(tmp_path: Path) -> None:
    rows = []
    for seed, rule, mf in ((0, 10, 8), (1, 5, 8)):
        rows += [run("rule", seed, rule), run("mf", seed, mf), run("planner", seed, 18)]
        rows += [run("ppo-greedy", seed, 12, share=0.7 + 0.1 * seed)]
    runs = Runs(write_rows(tmp_path, "learning", rows), "satiation")
    assert runs.yardsticks().tolist() == [10, 8]
    assert runs.gain().mean == pytest.approx((0.2 + 0.5) / 2)
    assert runs.share().mean == pytest.approx(0.75)
    assert (gain_over_yardstick(tmp_path), share_of_way(tmp_path)) == ("35 %", "75 %")
    assert gains_by_seed(tmp_path, "satiation", "ppo-greedy") == "20 and 50 %"


def test_times_of_another_system_are_those_of_both_dials(tmp_path: Path) -> None:
    about = {"date": "2026-11-26", "commit": "b"}
    rows = [
        about | {"system": system, "dials": dials, "ours_over_it": x}
        for system, dials, x in (
            ("recsys_rl", "batched", 1.0),
            ("stable-baselines3", "batched", 4.28),
            ("stable-baselines3", "original", 4.0),
            ("sbx", "batched", 2.9),
        )
    ]
    assert times_of(write_rows(tmp_path, "throughput", rows), "throughput") == "4.3 and 4.0 times"


def test_effects_name_the_seeds_and_commits_of_their_rows(tmp_path: Path) -> None:
    rows = []
    for task in EFFECTS:
        about = {"task": task, "commit": "five" if task == "satiation-stranger" else "one", "share": 0.5}
        for seed in range(5 if task == "satiation-stranger" else 1):
            rows += [run(policy, seed, 10, **about) for policy in EFFECT_ROWS]
    before = {"task": "satiation-well-known", "commit": "old", "date": "2026-11-24"}
    rows = [row for row in rows if row["task"] != before["task"]]
    rows += [run(policy, 0, 10, **before) for policy in EFFECT_ROWS]
    *lines, said = effects(write_rows(tmp_path, "learning", rows)).splitlines()
    assert len(lines) == 2 + len(EFFECTS) - 1 + 1  # without the row of before
    assert said == (
        "Each row has 600,000 steps, the searched rules as well: seed 0, commit one, 2026-11-25; "
        "seeds 0, 1, 2, 3, 4, commit five, 2026-11-25."
    )


def test_the_table_of_satiation_has_all_rows_in_order(results: Path) -> None:
    lines = platform(results, "satiation").splitlines()
    assert lines[0] == "| policy | return | 95 % interval | worst seed | session length | coverage |"
    assert [line.split("|")[1].strip() for line in lines[2:7]] == [
        "**ppo-greedy**",
        "rule (linear, searched)",
        "random",
        "planner (simulates to the end)",
        "a new row",
    ]
    assert lines[2] == "| **ppo-greedy** | **14.00** | -11.41 – 39.41 | 12.00 | 20.0 | |"
    assert lines[5].endswith("| 20.00 | 20.0 | 25% |")
    assert lines[-2].startswith("The yardstick is rule: ppo-greedy earns 40 % (95 % interval")
    assert "Two seeds" in lines[-4] and "commit b, 2026-11-25; 1 min 30 s of training a seed." in lines[-3]


def test_the_first_table_is_of_the_command_above_it(tmp_path: Path) -> None:
    """One seed has intervals over its users; the steps are those of `make train`."""
    ends = {"return_low": 13.5, "return_high": 14.5}
    over = {"over_searched": 0.4, "over_searched_low": 0.3, "over_searched_high": 0.5}
    rows = [run("ppo-greedy", 0, 14, **ends, **over), run("searched", 0, 10, **ends), run("mf", 0, 5, **ends)]
    text = first_rows(write_rows(tmp_path, "learning", [{**row, "task": "make-train"} for row in rows]))
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()[2:5]]
    assert [row[0] for row in cells] == ["5.00", "10.00", "**14.00**"]
    assert cells[2][1:] == ["13.50 – 14.50", "20.0"]
    assert "+40.0 % (+30.0 to +50.0) over" in text
    (steps,) = re.findall(r"^STEPS_ppo := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert TASKS["make-train"] == ("ppo", ["--env", "satiation", *steps.split()])


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
    assert len(text) == 2 + len(CLAIMS) + 2 and "mean over two seeds" in text[-1]


def test_sensitivity_has_the_settings_that_were_measured(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    over = {"over_rule": 0.5, "over_rule_low": 0.4, "over_rule_high": 0.6}
    rows += [run("ppo-greedy", 0, 15, task="satiation-all-effects", **over)]
    rows += [run("ppo-greedy", 0, 11, task="satiation-catchiness-1-cost-0.25")]
    rows += [run("ppo-greedy", 0, 12, task="satiation-no-patience", date="2026-11-24")]  # of before
    rows += [run("rule", 0, 10, task=row["task"], date=row["date"]) for row in rows]
    lines = sensitivity(write_rows(tmp_path, "learning", rows)).splitlines()
    assert lines[2] == "| 1 | 0.25 | – | 10.00 | – | 11.00 | – | +10.0 % | – |"
    assert lines[3] == "| 3 (own) | 0.5 | – | 10.00 | – | 15.00 | – | +50.0 % (+40.0 to +60.0) | – |"
    assert len(lines) == 6
    assert lines[-1].endswith("has its 95 % interval over users: seed 0, commit b, 2026-11-25.")
    assert set(SENSITIVITY) == {
        f"catchiness-{gain}-cost-{cost}" for gain in GAINS for cost in COSTS if (gain, cost) != OWN
    }


def test_rule_has_another_name_beside_searched(tmp_path: Path) -> None:
    rows = [run(name, 0, 1) for name in ("rule", "searched", "expert", "ppo-greedy", "planner")]
    lines = platform(write_rows(tmp_path, "learning", rows), "satiation").splitlines()
    assert [line.split("|")[1].strip().split(" (")[0] for line in lines[2:7]] == [
        "**ppo-greedy**",
        "searched",
        "rule",
        "expert",
        "planner",
    ]
    assert "| rule (linear, seven weights, searched) |" in lines[4]


def test_numbers_of_a_log_have_no_exponent() -> None:
    shown = [short(value) for value in (17.57, 0.354, 0.0179, 0.00031, 0.00001, -0.168, None)]
    assert shown == ["17.6", "0.35", "0.018", "0.0003", "0", "-0.17", "–"]


def test_tables_of_logs_hold_the_first_update_a_tenth_and_the_last(tmp_path: Path) -> None:
    about = {"date": "2026-11-25", "commit": "b", "name": "entropy"}
    tasks = ("drift", "satiation", "drift-a2c", "drift-a2c-no-bonus")
    places = ((10, 6.9), (100, 3.0), (500, 2.0), (1000, 0.5))
    rows = [about | {"task": task, "step": step, "value": value} for task in tasks for step, value in places]
    write_rows(tmp_path, "logs", rows)
    assert "| `entropy` | 6.9, 3.0, 0.50 | 6.9, 3.0, 0.50 |" in log_ppo(tmp_path)
    assert log_a2c(tmp_path).splitlines()[2] == "| the defaults | 10 | 6.9 | – | – |"


def test_the_million_items_end_where_the_curve_ends(tmp_path: Path) -> None:
    about = {"date": "2026-11-25", "commit": "b"}
    curve = ((0, 0.0, 0.3), (98304, 20.0, 0.98))
    rows = [about | {"step": step, "seconds": s, "greedy_share_of_oracle": x} for step, s, x in curve]
    write_rows(tmp_path, "million", [*rows, *(row | {"greedy_share_of_oracle": 1.0} for row in rows)])
    assert FIGURES["million-greedy"](tmp_path) == "0.99"
    assert FIGURES["million-seconds"](tmp_path) == "20 seconds"


def test_the_share_of_another_policy_has_its_own_interval(results: Path) -> None:
    found = share_with_interval(results, "satiation", "random")
    assert found == "-75 % (-139 to -11 %)"  # 2 and 3 between 10 and 20: shares -0.8 and -0.7


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", ""]]) == "| a | b |\n|---|---:|\n| 1 | |"


def test_marked_places_are_written_and_the_rest_is_kept(tmp_path: Path) -> None:
    page, before = tmp_path / "page.md", "It is <!-- figure:dense-best -->9<!-- /figure -->.\n"
    page.write_text(f"{before}\n<!-- table:drift -->\nold\n<!-- /table -->\nEnd.\n")
    text = rewritten(page, RESULTS)
    assert text.startswith(before.replace("9", "0.80") + "\n<!-- table:drift -->\n| `drift`, ")
    assert text.endswith("run.\n<!-- /table -->\nEnd.\n") and "old" not in text
    page.write_text(text)
    assert rewritten(page, RESULTS) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- table:nobody -->\n<!-- /table -->", "has the mark table:nobody: it must be one of satiation"),
        ("a <!-- figure:dense-best -->0.8", "without its end"),
        ("a <!-- figure:dense-best -->0.8<!-- /table -->", "without its end"),
        ("<!-- figure:dense-best --><!-- /figure -->", "begins a line"),
    ],
)
def test_a_wrong_mark_is_refused(tmp_path: Path, text: str, said: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=said):
        rewritten(page, RESULTS)


def test_watch_keeps_the_first_and_the_last_update(tmp_path: Path) -> None:
    rows = watch("drift-a2c", ["--total-timesteps", "4096"])
    assert {row["task"] for row in rows} == {"drift-a2c"}
    steps = sorted({row["step"] for row in rows})
    assert steps[0] == 256 and steps[-1] > 3500
    assert {"entropy", "return_mean"} <= {row["name"] for row in rows if row["step"] == steps[-1]}


def test_watch_refuses_unknown_tasks(tmp_path: Path) -> None:
    code, out, err = finish(start(tmp_path, "benchmarks.watch", "drift", "nobody"))
    assert (
        code == 2 and out == "" and err.startswith("There is no task nobody: name some of drift, satiation")
    )


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


def test_a_picture_needs_a_report(tmp_path: Path) -> None:
    code, out, err = finish(start(tmp_path, "benchmarks.pictures", "--page", "report.html"))
    assert code == 2 and out == "" and err.startswith("report.html is not a file: write it with")


def test_calibration_has_a_table_for_visits_and_one_of_settings_beside_estimates(tmp_path: Path) -> None:
    about = {"date": "2026-11-28", "commit": "b", "source": "KuaiRand, explicit feedback", "note": ""}
    single = {
        "statistic": "ratio",
        "real": "0.4",
        "simulated": "0.0625",
        "distance": "0.0021",
        "limit": "0.05",
    }
    visit = {"statistic": "D7", "source": "none", "real": "", "simulated": "0.4079", "note": "assumed"}
    setting = {"statistic": FIT + "none", "real": "3.5", "simulated": "3.487", "distance": "0.0038"}
    rows: list[dict[str, Any]] = [
        about | {"platform": "short-video", "passed": "False"} | single,
        about | {"platform": "short-video", "passed": "", "distance": "", "limit": ""} | visit,
        about | {"platform": "long-video", "limit": "0.05", "passed": "True"} | setting,
        about | {"platform": "other", "commit": "c"},  # newer rows of one platform leave the others
    ]
    rows[2]["note"] = ERROR + "0.0064"
    write_rows(tmp_path, "calibration", rows)
    assert short_video(tmp_path).splitlines()[2] == (
        "| ratio | KuaiRand | 0.4 | 0.062 | 0.0021 | 0.05 | **no** |"
    )
    assert short_video(tmp_path, visits=True).splitlines()[2] == "| D7 | | | 0.408 | | | assumed |"
    lines = long_video(tmp_path).splitlines()
    assert lines[2].endswith("| 3.5 | 3.487 | 0.0038 | 0.05 | yes | 0.0064 |")
    assert lines[-1] == "Commit b, 2026-11-28; `python -m benchmarks.calibration`."

"""`recsys-rl ope` on people's own logs: named columns, no checkpoint and no header of ours."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.decision_table import DecisionTable, read_table
from recsys_rl.logs.ope import replay
from recsys_rl.logs.ope.compare import about_model, difference
from recsys_rl.logs.ope.estimators import ESTIMATORS, SLATE
from recsys_rl.logs.ope.result import WorldCheck
from recsys_rl.logs.target import Ids, Target, read_target
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.writer import write_decisions
from recsys_rl.types import Interface

ITEMS = ("tea", "coffee", "milk", "water")
RATES = np.array([0.1, 0.4, 0.2, 0.05])
LOGGING, POLICY = np.array([0.4, 0.2, 0.2, 0.2]), np.array([0.1, 0.6, 0.2, 0.1])


SMALL: dict[str, list[Any]] = {
    "session_id": ["b", "c", "a", "d"],
    "item": ["tea", "milk", "tea", "milk"],
    "reward": [1, 0, 0, 1],
    "propensity": [0.6, 0.4, 0.6, 0.4],
}


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of the world's optimiser: how near it comes is tested in test_ope_world.py."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    monkeypatch.setattr("recsys_rl.logs.ope.world.EPOCHS", 2)


def clicks(rows: int = 4000, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(4, size=rows, p=LOGGING)
    return {
        "visitor": [f"u_{k % 500}" for k in range(rows)],
        "sku": [ITEMS[k] for k in chosen],
        "date": [f"{1 + k % 28:02d}.11.2026 12:{k % 60:02d}" for k in range(rows)],
        "clicked": (rng.random(rows) < RATES[chosen]).astype(int),
        "pscore": LOGGING[chosen],
        "context.age": rng.random(rows),
    }


def target(log: dict[str, Any], every: bool = False) -> pl.DataFrame:
    chosen = [ITEMS.index(x) for x in log["sku"]]
    columns = {"propensity": POLICY[chosen]}
    if every:
        columns |= {f"probability.{x}": np.full(len(chosen), POLICY[k]) for k, x in enumerate(ITEMS)}
    return pl.DataFrame(columns)


def judged(folder: Path, log: Path, *words: str) -> dict[str, Any]:
    assert main(["ope", "--log", str(log), "--json", str(folder / "out.json"), *words]) == 0
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def refusal(capsys: pytest.CaptureFixture[str], log: Path, *words: str) -> str:
    assert main(["ope", "--log", str(log), *words]) == 2
    text = capsys.readouterr().err
    assert text.splitlines()[-1].startswith("error: ") and text.count("error: ") == 1
    return text


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A CSV log and the file of a policy with the probability of every item."""
    log = clicks()
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "target.csv")
    return tmp_path / "log.csv", tmp_path / "target.csv"


def test_checkpoints_of_loggers_are_for_recorded_logs(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "column probabilities" in refusal(capsys, files[0], "--policy", "random", "--logger", "old.pt")


def test_rewards_may_be_true_or_false(tmp_path: Path) -> None:
    log = clicks(rows=40)
    words = ["true" if x else "False" for x in log["clicked"]]
    pl.DataFrame(log | {"clicked": words}).write_csv(tmp_path / "log.csv")
    pl.DataFrame(log | {"clicked": [x == 1 for x in log["clicked"]]}).write_parquet(tmp_path / "log.parquet")
    for name in ("log.csv", "log.parquet"):
        found = read_table(tmp_path / name).log.signals[:, 0, 0].tolist()
        assert found == [float(x) for x in log["clicked"]]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_csv_and_parquet_of_clicks_are_judged_against_what_the_log_earned(
    tmp_path: Path, ending: str
) -> None:
    log = clicks()
    path, mine = tmp_path / f"log.{ending}", tmp_path / f"mine.{ending}"
    for frame, file in ((pl.DataFrame(log), path), (target(log, every=True), mine)):
        if ending == "parquet":
            frame.write_parquet(file)
        else:
            frame.write_csv(file, separator="," if ending == "csv" else "\t")
    found = judged(tmp_path, path, "--target", str(mine), "--compare", "target", "logged")
    rows = {(row["policy"], row["estimator"]): row for row in found["rows"]}
    truth = float(POLICY @ RATES)  # 0.295
    for name in ("ips", "snips", "dr", "sndr"):
        row = rows[f"target mine.{ending}", name]
        assert row["low"] < truth < row["high"] and row["high"] - row["low"] < 0.06
    assert rows[f"target mine.{ending}", "dr"]["recommended"]
    assert rows["logged", "mean"]["value"] == pytest.approx(np.mean(log["clicked"]))
    assert found["about"]["users"] == 500 and found["about"]["items"] == 4
    assert found["about"]["checkpoint"] is None
    assert found["compare"]["text"].startswith("target minus logged by dr: ")
    assert "target is better" in found["compare"]["text"]


def test_each_missing_estimator_has_one_reason(files: tuple[Path, Path], tmp_path: Path) -> None:
    log, mine = files
    pl.read_csv(mine).select("propensity").write_csv(tmp_path / "short.csv")
    both_words = ("--compare", "target", "random")
    both = judged(tmp_path, log, "--target", str(tmp_path / "short.csv"), *both_words)
    assert both["compare"]["estimator"] == "snips" and "target is better" in both["compare"]["text"]
    why = "by snips (as dr can't be computed, and the weights are good enough for it): "
    assert why in both["compare"]["text"] and both["compare"]["missing"] == "dr"
    pl.read_csv(log).head(150).write_csv(tmp_path / "few.csv")  # too few for an answer
    pl.read_csv(tmp_path / "short.csv").head(150).write_csv(tmp_path / "first.csv")
    few = judged(tmp_path, tmp_path / "few.csv", "--target", str(tmp_path / "first.csv"), *both_words)
    assert few["compare"]["estimator"] == "snips" and few["compare"]["low"] > 0
    assert "by snips (as dr can't be computed): " in few["compare"]["text"]
    assert "]: no answer. Do not trust this" in few["compare"]["text"]
    found = judged(tmp_path, log, "--target", str(tmp_path / "short.csv"))
    present = {row["estimator"] for row in found["rows"]}
    assert present == {"ips", "snips", "clipped-ips", "mean"}
    reasons = {x: part["reason"] for part in found["not_computed"] for x in part["estimators"]}
    assert len(reasons) == sum(len(part["estimators"]) for part in found["not_computed"])
    every = {"dm", "ips", "clipped-ips", "snips", "dr", "sndr", "dros", "mips", "offcem"}
    every |= {
        "pdis",
        "wpdis",
        "sdr",
        "wdr",
        "fqe",
        "world",
        "sips",
        "iips",
        "rips",
        "cascade-dr",
        "pi",
        "mean",
    }
    assert present | set(reasons) == every and not present & set(reasons)
    assert reasons["dr"] == "the target file has no probabilities of every item"
    assert reasons["rips"] == "for slates of several items"


def test_items_of_a_file_are_clustered_for_mips_where_the_logger_is_known(tmp_path: Path) -> None:
    log = clicks()
    log |= {f"probability.{x}": [LOGGING[k]] * len(log["sku"]) for k, x in enumerate(ITEMS)}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "target.csv")
    kinds = ["hot", "hot", "cold", "cold"]
    pl.DataFrame({"sku": ITEMS, "kind": kinds}).write_csv(tmp_path / "items.csv")
    words = ("--target", str(tmp_path / "target.csv"), "--items", str(tmp_path / "items.csv"))
    found = judged(tmp_path, tmp_path / "log.csv", *words)
    rows = {row["estimator"]: row for row in found["rows"] if row["policy"] != "logged"}
    assert found["about"]["clusters"].startswith("2 clusters")
    hot = np.array([x in ("tea", "coffee") for x in log["sku"]])
    w = np.where(hot, (0.1 + 0.6) / (0.4 + 0.2), (0.2 + 0.1) / (0.2 + 0.2))
    assert rows["mips"]["value"] == pytest.approx(float(np.mean(w * np.array(log["clicked"]))))
    assert rows["mips"]["largest_weight"] == pytest.approx(0.7 / 0.6)
    assert rows["mips"]["ess"] > rows["ips"]["ess"] and "offcem" in rows


def test_share_of_clusters_that_rows_could_not_show_is_their_mean_and_doubts_mips(tmp_path: Path) -> None:
    """In a quarter of the rows only tea and coffee had a chance; the target gives the others .3."""
    log = clicks(400)
    hot = [x in ("tea", "coffee") for x in log["sku"]]
    narrow = np.array(hot) & (np.cumsum(hot) <= 100)
    chances = np.where(narrow[:, None], np.array([0.4, 0.6, 0.0, 0.0]), LOGGING)  # (E, I)
    log["pscore"] = chances[np.arange(400), [ITEMS.index(x) for x in log["sku"]]]
    log |= {f"probability.{x}": chances[:, k] for k, x in enumerate(ITEMS)}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "target.csv")
    pl.DataFrame({"sku": ITEMS, "kind": ["hot", "hot", "cold", "cold"]}).write_csv(tmp_path / "items.csv")
    words = ("--target", str(tmp_path / "target.csv"), "--items", str(tmp_path / "items.csv"))
    found = judged(tmp_path, tmp_path / "log.csv", *words)
    (mips,) = (x for x in found["rows"] if x["policy"] != "logged" and x["estimator"] == "mips")
    assert mips["unsupported"] == pytest.approx(0.3 * 100 / 400)


def test_new_estimator_is_one_entry(
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its row has the interval and the warnings of its kind, and its needs decide where it is computed."""
    log, mine = files
    ips = ESTIMATORS["ips"]
    half = replace(ips, name="half", score=lambda of: ips.score(of) / 2)
    monkeypatch.setitem(ESTIMATORS, "half", half)
    monkeypatch.setitem(ESTIMATORS, "of-slates", replace(half, name="of-slates", needs=(SLATE,)))
    found = judged(tmp_path, log, "--target", str(mine))
    rows = {row["estimator"]: row for row in found["rows"]}
    assert rows["half"]["value"] == pytest.approx(rows["ips"]["value"] / 2)
    assert rows["half"]["ess"] == rows["ips"]["ess"] and rows["half"]["interval"] == "student-t"
    missing = next(part for part in found["not_computed"] if "sips" in part["estimators"])
    assert "of-slates" in missing["estimators"] and "half" in capsys.readouterr().out


def test_own_log_without_propensities_is_judged_by_estimated_ones(tmp_path: Path) -> None:
    log = clicks()
    log.pop("pscore")
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log).write_csv(tmp_path / "target.csv")
    found = judged(tmp_path, tmp_path / "log.csv", "--target", str(tmp_path / "target.csv"))
    row = next(row for row in found["rows"] if row["estimator"] == "snips")
    assert row["propensities"] == "estimated" and "they were estimated" in row["warning"]
    assert row["low"] < float(POLICY @ RATES) < row["high"]


@pytest.mark.parametrize("words", [("--policy", "random"), ("--target",)])
def test_direct_method_averages_over_every_item_whatever_the_draws(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = clicks(rows=300)
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "t.csv")
    words = (*words, str(tmp_path / "t.csv")) if words == ("--target",) else words

    def values(draws: int) -> list[float]:
        found = judged(tmp_path, tmp_path / "log.csv", *words, "--no-world", "--draws", str(draws))
        return [row["value"] for row in found["rows"] if row["estimator"] in ("dm", "dr", "sndr")]

    assert len(values(1)) == 3 and values(1) == values(50)
    exact = values(8)
    monkeypatch.setattr(replay, "PAIRS", 300)  # rows times items are 1,200: the items are drawn
    assert values(8) != values(50) and values(2000) == pytest.approx(exact, abs=2e-3)


def test_logistic_reward_model_is_for_rewards_in_0_to_1_of_one_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = clicks(rows=900)
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "t.csv")
    words = ("--target", str(tmp_path / "t.csv"), "--q")
    dm = {
        q: {row["estimator"]: row for row in judged(tmp_path, tmp_path / "log.csv", *words, q)["rows"]}["dm"]
        for q in ("ridge", "logistic")
    }
    assert dm["logistic"]["value"] != dm["ridge"]["value"]
    assert dm["logistic"]["value"] == pytest.approx(float(POLICY @ RATES), abs=0.05)
    dear = pl.DataFrame(log | {"clicked": [5 * k for k in log["clicked"]]})
    dear.write_csv(tmp_path / "dear.csv")
    text = refusal(capsys, tmp_path / "dear.csv", "--policy", "random", "--q", "logistic")
    assert "dear.csv has the reward 5, but --q logistic predicts numbers in 0..1" in text
    steps = {"session": [f"s{k // 2}" for k in range(900)], "step": [k % 2 for k in range(900)]}
    steps["visitor"] = [f"u{k // 2 % 90}" for k in range(900)]
    pl.DataFrame(log | steps).write_csv(tmp_path / "steps.csv")
    text = refusal(capsys, tmp_path / "steps.csv", "--policy", "random", "--q", "logistic")
    assert "steps.csv has sessions of several steps" in text


SLATES = np.array(list(permutations(range(4), 2)))  # (12, 2)


def test_networks_of_rare_clicks_predict_their_rate_on_other_users(tmp_path: Path) -> None:
    """Squared errors also give numbers below 0, which are cut: their mean was 1.5 to 2 times the rate."""
    rng = np.random.default_rng(0)
    rows = 12_000
    items, users = rng.integers(20, size=rows), rng.integers(3000, size=rows)
    columns: dict[str, Any] = {
        "user": users,
        "item": [f"i{k}" for k in items],
        "propensity": np.full(rows, 1 / 20),
    }
    taste = rng.normal(size=(3000, 30))
    columns |= {f"context.c{k}": taste[users, k] for k in range(30)}
    score = 0.5 * taste[users, 0] + rng.normal(size=20)[items] - 5.7
    columns["click"] = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int)
    log = tmp_path / "log.parquet"
    pl.DataFrame(columns).write_parquet(log)
    rate = float(np.mean(columns["click"]))
    assert 0.003 < rate < 0.008
    found = judged(tmp_path, log, "--policy", "random", "--q", "mlp", "--no-world")
    dm = next(row for row in found["rows"] if row["estimator"] == "dm")
    assert dm["value"] == pytest.approx(rate, rel=0.15)  # the standard error of the rate is 0.13 of it


def slates(folder: Path, rows: int = 6000) -> Path:
    """Uniform slates of two of four items; a click on place k has the rate of its item over k."""
    rng = np.random.default_rng(1)
    shown = SLATES[rng.integers(12, size=rows)]  # (E, 2)
    clicked = (rng.random((rows, 2)) < RATES[shown] / [1, 2]).astype(int)
    frame = pl.DataFrame(
        {
            "user": [k % 700 for k in range(rows)],
            "items": ["|".join(ITEMS[x] for x in row) for row in shown],
            "signal.click": ["|".join(map(str, row)) for row in clicked],
            "propensity": [1 / 12] * rows,
            "place_logprobs": [f"{np.log(1 / 4)}|{np.log(1 / 3)}"] * rows,
        }
    )
    frame.write_csv(folder / "slates.csv")
    return folder / "slates.csv"


def test_uniform_slates_have_all_estimators_of_slates(tmp_path: Path) -> None:
    found = judged(tmp_path, slates(tmp_path), "--policy", "random", "--draws", "2")
    rows = {row["estimator"]: row for row in found["rows"] if row["policy"] == "random"}
    mean = next(row["value"] for row in found["rows"] if row["policy"] == "logged")
    for name in ("sips", "rips", "iips", "pi"):  # its weights are 1, exactly
        assert rows[name]["value"] == pytest.approx(mean, rel=1e-6)
        assert rows[name]["ess"] == pytest.approx(6000, rel=1e-6)
    assert {"dm", "dr", "snips"} <= set(rows)


def test_unknown_logger_of_own_slates_has_no_hint_to_an_option(tmp_path: Path) -> None:
    frame = pl.read_csv(slates(tmp_path, 300)).drop("place_logprobs")
    frame.with_columns(propensity=pl.lit(0.1)).write_csv(tmp_path / "slates.csv")
    found = judged(tmp_path, tmp_path / "slates.csv", "--policy", "random", "--no-world")
    reasons = {x: part["reason"] for part in found["not_computed"] for x in part["estimators"]}
    assert reasons["pi"].endswith("its slates are not uniform")


def test_slates_of_a_target_have_the_estimators_that_its_columns_allow(tmp_path: Path) -> None:
    path = slates(tmp_path)
    log = read_table(path).log
    logits = np.log(POLICY)[np.argsort(ITEMS)]  # items are in alphabetical order
    first = np.exp(logits)[log.items[:, 0]]
    second = np.exp(logits)[log.items[:, 1]] / (1 - first)
    file = pl.DataFrame({"propensity": first * second, "place_logprobs": np.log([first, second]).T.tolist()})
    file.write_parquet(tmp_path / "mine.parquet")
    found = judged(tmp_path, path, "--target", str(tmp_path / "mine.parquet"))
    rows = {row["estimator"]: row for row in found["rows"] if row["policy"] != "logged"}
    assert {"sips", "rips"} <= set(rows) and not {"iips", "pi"} & set(rows)
    p = np.array([POLICY[a] * POLICY[b] / (1 - POLICY[a]) for a, b in SLATES])
    truth = float(p @ (RATES[SLATES] / [1, 2]).sum(1))
    for name in ("sips", "rips"):
        assert rows[name]["low"] < truth < rows[name]["high"]
    reasons = {x: part["reason"] for part in found["not_computed"] for x in part["estimators"]}
    assert "no policy to draw slates from" in reasons["iips"]


def test_sessions_with_text_ids_and_times_have_the_estimators_of_sessions(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = [
        {"user": f"u{s % 90}", "session": f"s{s}", "item": int(rng.integers(3)), "time": f"2026-11-0{t + 1}"}
        for s in range(600)
        for t in range(3)
    ]
    frame = pl.DataFrame(rows).with_columns(propensity=pl.lit(1 / 3))
    frame = frame.with_columns(reward=(pl.col("item") == 2).cast(pl.Int64)).sample(
        fraction=1.0, shuffle=True, seed=1
    )
    frame.write_csv(tmp_path / "log.csv")
    probability = np.array([0.2, 0.2, 0.6])
    columns = {f"probability.{k}": [probability[k]] * frame.height for k in range(3)}
    pl.DataFrame({"propensity": probability[frame["item"].to_numpy()]} | columns).write_csv(
        tmp_path / "t.csv"
    )
    found = judged(tmp_path, tmp_path / "log.csv", "--target", str(tmp_path / "t.csv"))
    rows_of = {row["estimator"]: row for row in found["rows"] if row["policy"] != "logged"}
    assert set(rows_of) == {"pdis", "wpdis", "sdr", "wdr", "fqe"}
    for row in rows_of.values():
        assert row["value"] == pytest.approx(3 * 0.6, abs=0.2)
    log = read_table(tmp_path / "log.csv").log
    assert log.steps.tolist()[:3] == [0, 1, 2] and bool((log.times[1:3] > log.times[:2]).all())


def test_several_loggers_share_their_probabilities_by_the_balance_heuristic(tmp_path: Path) -> None:
    log = clicks()
    rows = len(log["sku"])
    log["policy"] = ["old" if k % 2 else "new" for k in range(rows)]
    chosen = [ITEMS.index(x) for x in log["sku"]]
    log |= {"propensity.old": LOGGING[chosen], "propensity.new": LOGGING[chosen]}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log).write_csv(tmp_path / "t.csv")
    found = judged(tmp_path, tmp_path / "log.csv", "--target", str(tmp_path / "t.csv"))
    assert found["about"]["loggers"] == ["new", "old"]
    row = next(row for row in found["rows"] if row["estimator"] == "ips")
    assert row["largest_weight"] == pytest.approx(0.6 / 0.2)


def test_propensity_that_is_not_that_of_the_rows_own_policy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = clicks(40)
    chosen = LOGGING[[ITEMS.index(x) for x in log["sku"]]]
    other = chosen.copy()
    other[3] = 0.9
    log |= {"policy": ["old", "new"] * 20, "propensity.old": chosen, "propensity.new": other}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    said = refusal(capsys, tmp_path / "log.csv", "--policy", "random")
    assert (
        f"line 5 has the propensity {chosen[3]:g} by the column pscore, but 0.9 by 'propensity.new'" in said
    )


def bad(column: str, row: int, value: Any) -> dict[str, Any]:
    log = {name: list(values) for name, values in clicks(40).items()}
    log[column][row] = value
    return log


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("pscore", 0.0, "pscore is 0 in line 4: a probability is above 0"),
        ("pscore", -0.5, "pscore is -0.5 in line 4"),
        ("pscore", 1.5, "pscore is 1.5 in line 4"),
        ("pscore", None, "column 'pscore' has no value in 1 row (the first is line 4)"),
        ("clicked", None, "column 'clicked' has no value in 1 row (the first is line 4)"),
        ("date", "31.02.2026", "column 'date' has '31.02.2026' in line 4"),
        ("sku", None, "column 'sku' has no value"),
    ],
)
def test_wrong_cells_are_refused_with_their_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: Any, complaint: str
) -> None:
    pl.DataFrame(bad(column, 2, value)).write_csv(tmp_path / "log.csv")
    assert complaint in refusal(capsys, tmp_path / "log.csv", "--policy", "random")


def test_logarithms_as_probabilities_and_the_reverse_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = clicks(40)
    values = log.pop("pscore")
    for name, column in (("propensity", np.log(values)), ("logprob", values)):
        pl.DataFrame(log | {name: column}).write_csv(tmp_path / "log.csv")
        text = refusal(capsys, tmp_path / "log.csv", "--policy", "random")
        assert f"name the column {'logprob' if name == 'propensity' else 'propensity'}" in text


def test_own_logs_that_do_not_fit_are_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, mine = files
    assert "give --target FILE" in refusal(capsys, log)
    assert "Policy 'ppo' needs a log with a checkpoint" in refusal(capsys, log, "--policy", "ppo")
    assert "x.pt does not exist" in refusal(capsys, log, "--checkpoint", "x.pt", "--policy", "random")
    assert "give --target FILE" in refusal(capsys, log, "--compare", "target", "logged")
    pl.read_csv(mine).head(10).write_csv(tmp_path / "short.csv")
    assert "has 10 rows and the log 4,000" in refusal(capsys, log, "--target", str(tmp_path / "short.csv"))
    pl.read_csv(mine).drop("probability.tea").write_csv(tmp_path / "part.csv")
    text = refusal(capsys, log, "--target", str(tmp_path / "part.csv"))
    assert "no column probability.tea" in text
    frame = pl.read_csv(log)
    frame.drop("clicked").write_csv(tmp_path / "bad.csv")
    assert "no column of rewards" in refusal(capsys, tmp_path / "bad.csv", "--policy", "random")
    frame.with_columns(pl.col("clicked").alias("signal.a"), pl.col("clicked").alias("signal.b")).write_csv(
        tmp_path / "bad.csv"
    )
    assert "say what counts" in refusal(capsys, tmp_path / "bad.csv", "--policy", "random")
    frame.with_columns(sku=pl.lit("tea")).write_csv(tmp_path / "bad.csv")
    text = refusal(capsys, tmp_path / "bad.csv", "--policy", "random")
    assert "bad.csv: the log has one item in every row" in text and "chose among several" in text
    frame.with_columns(visitor=pl.lit("u")).write_csv(tmp_path / "bad.csv")
    text = refusal(capsys, tmp_path / "bad.csv", "--policy", "random")
    assert "bad.csv: the log has one user" in text
    frame.with_columns(visitor=pl.int_range(pl.len()) % 2).write_csv(tmp_path / "bad.csv")
    text = refusal(capsys, tmp_path / "bad.csv", "--policy", "random")
    assert "bad.csv: the log has 2 users" in text and "add users" in text
    frame.with_columns(candidates=pl.lit("milk|water")).write_csv(tmp_path / "bad.csv")
    assert "is not among the row's candidates" in refusal(capsys, tmp_path / "bad.csv", "--policy", "random")


def test_repeated_rows_are_a_loud_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.DataFrame(clicks(300))
    pl.concat([frame, frame.head(2)]).write_csv(tmp_path / "log.csv")
    judged(tmp_path, tmp_path / "log.csv", "--policy", "random", "--no-world")
    assert (
        "2 rows repeat another in every column (the first is line 302) and count twice"
        in capsys.readouterr().err
    )


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    log = own(tmp_path, {"time": [1, 2, 3, 4], "age": [1, 2, 3, 4], "p": [1.0] * 4, "context.x": [0] * 4})
    assert log.notes == (
        "columns: item, time, session = session_id, reward, propensity",
        "not read: 'age', 'p' (what a policy knew is read from columns context.NAME)",
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, SMALL["propensity"]) for name in ("prob", "action_prob", "Action Probability")),
        *((name, np.log(SMALL["propensity"])) for name in ("log_propensity", "log_prob", "LogProb")),
    ],
)
def test_common_names_of_propensities_are_known(tmp_path: Path, name: str, values: Any) -> None:
    rows = {column: x for column, x in SMALL.items() if column != "propensity"}
    pl.DataFrame(rows | {name: values}).write_csv(tmp_path / "log.csv")
    log = read_table(tmp_path / "log.csv")
    assert log.log.logprobs.exp().tolist() == pytest.approx([0.6, 0.6, 0.4, 0.4])  # sessions a, b, c, d
    assert not any("not read" in note for note in log.notes)


def test_a_repeated_row_of_single_decisions_is_a_warning(tmp_path: Path) -> None:
    pl.DataFrame(SMALL).write_csv(tmp_path / "log.csv")
    assert not read_table(tmp_path / "log.csv").notes[1:]  # beside the names of the columns
    frame = pl.DataFrame(SMALL)
    pl.concat([frame, frame[1:2]]).write_csv(tmp_path / "log.csv")
    log = read_table(tmp_path / "log.csv")
    assert log.log.steps.tolist() == [0, 0, 0, 1, 0]  # of the sessions a, b, c, c, d
    (warning,) = [note for note in log.notes if "warning" in note]
    assert "1 row repeats another in every column (line 6)" in warning
    assert "counts twice, as a further step of its session: remove copies" in warning


def test_without_steps_and_times_a_note_says_that_the_order_of_the_rows_counts(tmp_path: Path) -> None:
    rows = SMALL | {"session_id": ["a", "a", "b", "b"]}
    for more, said in (({}, 1), ({"step": [0, 1, 0, 1]}, 0), ({"time": [1, 2, 3, 4]}, 0)):
        pl.DataFrame({**rows, **more}).write_csv(tmp_path / "log.csv")
        notes = [x for x in read_table(tmp_path / "log.csv").notes if "in the file's order" in x]
        assert len(notes) == said, more


@pytest.mark.parametrize(
    "step",
    [
        "1.5",
        "0.01",
        "1e300",
    ],
)
def test_steps_with_a_fraction_are_refused(tmp_path: Path, step: str) -> None:
    rows = SMALL | {"session_id": ["a", "a", "b", "b"], "step": ["0", step, "0", "1"]}
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError):
        read_table(tmp_path / "log.csv")


def test_wrong_probabilities_of_the_logger_are_refused(tmp_path: Path) -> None:
    log = clicks(40)
    log |= {f"probability.{x}": [0.3] * 40 for x in ITEMS}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError):
        read_table(tmp_path / "log.csv")


def test_errors_about_sessions_have_the_ids_of_the_file(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, mine = files
    wrong = pl.read_csv(mine).select("propensity")["propensity"].to_list()
    wrong[5] = -1.0
    pl.DataFrame({"propensity": wrong}).write_csv(tmp_path / "t.csv")
    text = refusal(capsys, log, "--target", str(tmp_path / "t.csv"))
    assert "propensity is -1 in line 7" in text
    rows = [("ann", "s-a", 0, "x"), ("ann", "s-a", 1, "y"), ("bob", "s-b", 0, "x"), ("cy", "s-b", 1, "y")]
    frame = pl.DataFrame(rows, schema=["user", "session", "step", "item"], orient="row")
    frame = frame.with_columns(propensity=pl.lit(0.5), reward=pl.lit(1.0))
    frame.write_csv(tmp_path / "log.csv")
    text = refusal(capsys, tmp_path / "log.csv", "--policy", "random")
    assert "session 's-b' is of the users 'bob' and 'cy' (line 5)" in text


def own(folder: Path, more: dict[str, list[Any]] | None = None, name: str = "log.csv") -> DecisionTable:
    pl.DataFrame(SMALL | (more or {})).write_csv(folder / name)
    return read_table(folder / name)


def read(folder: Path, log: DecisionTable, **columns: list[Any]) -> Target:
    pl.DataFrame(columns).write_csv(folder / "t.csv")
    ids = Ids(log.items, log.rows, log.sessions, log.session_column)
    return read_target(folder / "t.csv", log.log, ids)


def test_target_rows_are_found_by_any_common_name_of_the_session(tmp_path: Path) -> None:
    log = own(tmp_path)  # its sessions are ordered a, b, c, d
    shares = [0.1, 0.2, 0.3, 0.4]
    for name in ("session", "session_id", "Session ID"):
        columns: dict[str, list[Any]] = {name: ["d", "c", "b", "a"], "propensity": shares}
        found = read(tmp_path, log, **columns)
        assert found.logprobs.exp().tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    by_row = read(tmp_path, log, propensity=shares)  # of b, c, a, d
    assert by_row.logprobs.exp().tolist() == pytest.approx([0.3, 0.1, 0.2, 0.4])
    with pytest.raises(UserError, match="'visit_id', 'episode' may all hold the session: name one of them"):
        read(tmp_path, log, visit_id=["a"] * 4, episode=["a"] * 4, propensity=shares)


def test_an_item_that_the_log_lacks_is_named_before_the_sums(tmp_path: Path) -> None:
    log, half = own(tmp_path), [0.5] * 4
    columns = {f"probability.{x}": [0.5 / len(log.items)] * 4 for x in log.items}
    with pytest.raises(UserError, match=r"has the column probability\.d: .* name it in the log's column"):
        read(tmp_path, log, propensity=half, **columns, **{"probability.d": half})


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("propensity", ["0.1", "0.2", "x", "0.4"]),
        ("propensity", ["0.1", None, "0.3", None]),
        ("probability.tea", ["0.1", "?1", "0.3", "0.4"]),
        ("step", ["0", "0", "0.7", "0"]),
        ("step", ["0", "0", "0", "first"]),
        ("propensity", ["-0.1", "-0.2", "-3", "0"]),
        ("logprob", ["0.1", "0.2", "0.3", "0.4"]),
    ],
)
def test_wrong_cells_of_a_target_are_refused_with_their_row(
    tmp_path: Path, column: str, values: list[str | None]
) -> None:
    columns: dict[str, list[Any]] = {} if column == "logprob" else {"propensity": [0.1] * 4}
    if column.startswith("probability."):
        columns["probability.milk"] = [0.5] * 4
    with pytest.raises(UserError) as refused:
        read(tmp_path, own(tmp_path), **columns | {column: values})
    assert "t.csv" in str(refused.value)


def test_sessions_and_steps_of_a_target_are_whole_numbers(tmp_path: Path) -> None:
    pl.DataFrame(SMALL).drop("session_id").write_csv(tmp_path / "log.csv")
    log = read_table(tmp_path / "log.csv").log
    shares, zeros = [0.1, 0.2, 0.3, 0.4], [0.0] * 4
    columns = {"session": [3.0, 2.0, 1.0, 0.0], "step": zeros, "propensity": shares}
    pl.DataFrame(columns).write_csv(tmp_path / "t.csv")
    assert read_target(tmp_path / "t.csv", log).logprobs.exp().tolist() == pytest.approx(shares[::-1])
    pl.DataFrame(columns | {"session": [3.0, 2.9, 1.0, 0.0]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError):
        read_target(tmp_path / "t.parquet", log)


def test_target_without_sessions_is_refused_if_its_steps_are_others(tmp_path: Path) -> None:
    log = own(tmp_path, {"session_id": ["a", "a", "b", "b"], "step": [1, 0, 0, 1]})
    shares = [0.1, 0.2, 0.3, 0.4]
    right = read(tmp_path, log, step=[1, 0, 0, 1], propensity=shares)
    assert right.logprobs.exp().tolist() == pytest.approx([0.2, 0.1, 0.3, 0.4])
    with pytest.raises(UserError):
        read(tmp_path, log, step=[0, 1, 0, 1], propensity=shares)


def test_network_as_reward_model_learns_what_differs_between_places(tmp_path: Path) -> None:
    """Tea is clicked at the left place alone, and coffee at the right one alone."""
    log, rng = clicks(rows=3000), np.random.default_rng(1)
    left = rng.random(3000) < 0.5
    tea, coffee = (np.array(log["sku"]) == name for name in ("tea", "coffee"))
    log["clicked"] = (rng.random(3000) < np.where(left, 0.5 * tea, 0.5 * coffee)).astype(int)
    log["context.place"] = np.where(left, "left", "right")
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    target(log, every=True).write_csv(tmp_path / "target.csv")
    words = ("--target", str(tmp_path / "target.csv"), "--no-world")
    plain, curved = (
        {row["estimator"]: row for row in judged(tmp_path, tmp_path / "log.csv", *words, *more)["rows"]}
        for more in ((), ("--q", "mlp"))
    )
    truth = float(POLICY[:2].sum()) * 0.5 / 2
    assert curved["dm"]["value"] == pytest.approx(truth, abs=0.02)
    assert curved["dm"]["q_slope"] == pytest.approx(1, abs=0.1)
    width = {name: x["dr"]["high"] - x["dr"]["low"] for name, x in (("plain", plain), ("curved", curved))}
    assert width["curved"] < 0.9 * width["plain"] and curved["ips"] == plain["ips"]


def test_lists_of_numbers_in_text_files_are_read(tmp_path: Path) -> None:
    log = own(tmp_path, {"context.seen": ["1|0.5", "0|2", "[3, 4]", "5;6"]})
    assert log.log.given["seen"].tolist() == [[3.0, 4.0], [1.0, 0.5], [0.0, 2.0], [5.0, 6.0]]
    found = read(tmp_path, log, propensity=[0.3, 0.7, 0.3, 0.7], probabilities=["0.7|0.3"] * 4)
    assert found.every is not None and found.every.tolist() == [[0.7, 0.3]] * 4  # milk, tea
    with pytest.raises(UserError):
        own(tmp_path, {"context.seen": ["1|0.5", "0|2", "3|x", "5|6"]})
    with pytest.raises(UserError):
        read(tmp_path, log, propensity=[0.3, 0.7, 0.3, 0.7], probabilities=["0.7|x"] * 4)


def test_texts_of_the_context_are_one_hot_encoded(tmp_path: Path) -> None:
    columns = {
        "context.device": ["tv", "phone ", "tv", "web"],
        "context.city": ["Bonn, DE", "Ulm", "Ulm", "Ulm"],
    }
    log = own(tmp_path, columns | {"context.n": ["1", "2", "3", "4"]})
    given = log.log.given  # the rows are ordered by session: a, b, c, d
    assert given["device"].tolist() == [  # phone, tv, web, other
        [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0],
    ]  # fmt: skip
    assert given["city"].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert given["n"].tolist() == [[3], [1], [2], [4]]
    note = "texts that are one-hot encoded: context.device ('phone', 'tv', 'web'), context.city ("
    assert any(x.startswith(note) for x in log.notes)


def test_the_rarest_of_many_texts_are_other_and_texts_among_numbers_are_refused(tmp_path: Path) -> None:
    rows = clicks(60) | {"context.link": [f"x.org/{k:02}" for k in range(60)]}
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    given = read_table(tmp_path / "log.csv").log.given["link"]
    assert given.shape == (60, 51) and given[:, 50].sum() == 10
    with pytest.raises(UserError):
        own(tmp_path, {"context.x": ["1", "2", "old", "4"]})


def test_a_text_of_the_context_tells_the_reward_model_about_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = clicks(2000)
    log["context.device"] = ["tv" if k % 2 else "phone" for k in range(2000)]
    log["clicked"] = [k % 2 for k in range(2000)]  # every click is on a tv
    target(log, every=True).write_csv(tmp_path / "target.csv")
    values = {}
    for name in ("context.device", "device"):
        frame = pl.DataFrame(log).rename({"context.device": name})
        frame.write_csv(tmp_path / "log.csv")
        found = judged(tmp_path, tmp_path / "log.csv", "--target", str(tmp_path / "target.csv"))
        values[name] = next(row["value"] for row in found["rows"] if row["estimator"] == "dr")
        said = "one-hot encoded: context.device ('phone', 'tv')"
        assert (said in capsys.readouterr().err) == (name == "context.device")
    assert abs(values["context.device"] - 0.5) < 0.001 < abs(values["device"] - 0.5)


def test_place_logprobs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"items": ["tea|milk", "milk|tea"], "reward": [0, 1], "propensity": [0.5, 0.5]}).write_csv(
        tmp_path / "log.csv"
    )
    log = read_table(tmp_path / "log.csv")
    half = "-0.6931|0"
    found = read(tmp_path, log, propensity=[0.5, 0.0], place_logprobs=[half, "-1|-inf"])
    assert found.places is not None and found.places[1].tolist() == [-1.0, -np.inf]
    for wrong in ("nan|-inf", "-1|0"):  # of a slate with probability 0
        with pytest.raises(UserError):
            read(tmp_path, log, propensity=[0.5, 0.0], place_logprobs=[half, wrong])


def test_probabilities_of_every_item_give_and_check_the_propensities(tmp_path: Path) -> None:
    shares: dict[str, list[Any]] = {"probability.tea": [0.6] * 4, "probability.milk": [0.3] * 4}
    shares["probability.rum"] = [0.1] * 4  # never shown, and yet an item of the log
    with pytest.raises(UserError):
        own(tmp_path, shares)
    frame = pl.DataFrame(SMALL | shares).drop("propensity")
    frame.write_csv(tmp_path / "log.csv")
    log = read_table(tmp_path / "log.csv")
    assert log.items == ("milk", "rum", "tea") and log.log.header.num_items == 3
    assert log.log.logprobs.exp().tolist() == pytest.approx([0.6, 0.6, 0.3, 0.3])  # of a, b, c, d
    frame.with_columns(pl.lit(0).alias("probability.milk"), pl.lit(0.4).alias("probability.rum")).write_csv(
        tmp_path / "log.csv"
    )
    with pytest.raises(UserError):
        read_table(tmp_path / "log.csv")


def test_empty_ids_in_lists_are_refused_with_their_row(tmp_path: Path) -> None:
    shown = {"items": [["tea", "rum"], ["tea", None]], "reward": [1, 0], "propensity": [0.5, 0.5]}
    pl.DataFrame(shown).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError):
        read_table(tmp_path / "log.parquet")
    with pytest.raises(UserError):
        own(tmp_path, {"candidates": ["tea", "milk", "tea|", "milk"]})


def test_given_column_of_rewards_comes_before_signals(tmp_path: Path) -> None:
    both = own(tmp_path, {"signal.view": [7, 7, 7, 7]})
    assert both.log.header.signals == ("view",) and "reward is not" in " ".join(both.notes)
    given = read_table(tmp_path / "log.csv", {"reward": "reward"})
    assert given.log.header.signals == ("reward",)
    assert given.log.signals.flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_errors_keep_the_name_of_the_file_and_have_the_ids_of_items(tmp_path: Path) -> None:
    name = "session 99 of item 77.csv"
    with pytest.raises(UserError):
        own(tmp_path, {"candidates": ["milk|rum", "milk", "tea", "milk"]}, name)
    with pytest.raises(UserError):
        own(tmp_path, {"step": [1, 0, 0, 0]}, name)
    pl.DataFrame(SMALL | {"step": [0, 0, 0, 0]}).drop("session_id").write_csv(tmp_path / name)
    with pytest.raises(UserError):
        read_table(tmp_path / name)


def test_items_that_the_logger_never_shows_and_equal_rewards_are_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chosen = rng.choice(2, size=900)
    log = {"user": np.arange(900) % 200, "item": chosen, "candidates": ["0|1|2"] * 900}
    log |= {"propensity": np.full(900, 0.5), "reward": np.ones(900)}
    log |= {f"probability.{k}": np.full(900, p) for k, p in enumerate((0.5, 0.5, 0.0))}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    columns = {f"probability.{k}": np.full(900, p) for k, p in enumerate((0.3, 0.3, 0.4))}
    pl.DataFrame({"propensity": np.full(900, 0.3)} | columns).write_csv(tmp_path / "t.csv")
    found = judged(tmp_path, tmp_path / "log.csv", "--target", str(tmp_path / "t.csv"))
    row = next(row for row in found["rows"] if row["estimator"] == "ips")
    assert row["unsupported"] == pytest.approx(0.4)
    assert "40% of the policy's choices were impossible for the logging policy" in row["warning"]
    assert "Every reward of the log is 1" in row["warning"]


def test_policy_that_a_log_without_chance_does_not_cover_is_never_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five items in turn, each with propensity 1: no row shows what one item for everybody would earn."""
    clicked = [int(k % 5 == 4 or k % 7 == 0) for k in range(2000)]
    rows = {"user": [k % 60 for k in range(2000)], "item": [f"i{k % 5}" for k in range(2000)]}
    pl.DataFrame(rows | {"click": clicked, "propensity": [1.0] * 2000}).write_csv(tmp_path / "log.csv")
    always = {f"probability.i{k}": [float(k == 4)] * 2000 for k in range(5)}
    pl.DataFrame({"propensity": [float(k % 5 == 4) for k in range(2000)]} | always).write_csv(
        tmp_path / "t.csv"
    )
    words = ("--target", str(tmp_path / "t.csv"), "--compare", "target", "logged")
    found = judged(tmp_path, tmp_path / "log.csv", *words)
    assert not any(row["recommended"] for row in found["rows"])
    answer = found["compare"]["text"]
    assert "Do not trust this" in answer
    assert "80% of the policy's choices were impossible" in answer
    assert found["compare"]["low"] > 0 and "]: no answer, and more rows like these" in answer
    assert "is better" not in answer
    out = capsys.readouterr().out
    last = "Do not trust this. See the warnings above."
    assert out.endswith(f"that one of the two takes. {last}\n") and found["compare"]["brief"] in out
    assert out.count("80% of the policy's choices were impossible") == 1
    found = judged(tmp_path, tmp_path / "log.csv", "--policy", "random", "--compare", "random", "logged")
    assert not any(row["recommended"] for row in found["rows"])  # nor a model: these are single decisions
    world = next(row for row in found["rows"] if row["estimator"] == "world")
    assert "No row is recommended" in capsys.readouterr().out
    assert world["warning"].startswith("Model-based, no promise of coverage")
    # No row shows the rewards of these choices, so a learned model has to guess them.
    lost = [row["unsupported"] for row in found["rows"] if row["policy"] == "random"]
    assert lost == pytest.approx([0.8] * len(lost))
    assert "80% of the policy's choices were impossible for the logging policy" in world["warning"]
    assert "was not fitted on, as none of the policies that logged can be played" in world["warning"]
    assert "needs a log of recsys-rl record by two policies, with its --checkpoint" in world["warning"]
    assert found["compare"]["more_rows"] is None
    assert "more rows like these would not settle it" in found["compare"]["text"]


def test_answer_of_an_unchecked_model_says_so_at_once() -> None:
    log = torch.arange(6)
    terms = (torch.ones(6) + 0.01 * log, torch.zeros(6))
    plain, doubted = (
        difference(("a", "b"), name, *terms, log, 6, doubt="Why.", model=model)
        for name, model in (("wdr", ""), ("world", "a model that was NOT checked on another policy"))
    )
    assert plain.sentence.endswith("]: a is better. Why.")
    answer = "]: a is better, by a model that was NOT checked on another policy: don't rely on it."
    assert doubted.sentence.endswith(f"{answer} Why.") and doubted.settled
    assert doubted.brief.endswith(f"{answer} See the warnings above.")
    checks = [WorldCheck("x", 9.0, 1.0, 0.5, 1.5), WorldCheck("y", 1.0, 1.0, 0.5, 1.5)]
    assert about_model([]) == "a model that was NOT checked on another policy"
    assert about_model(checks) == "a model that FAILED 1 of 2 checks on other policies"
    assert about_model(checks[1:]) == ""


def test_heavy_weights_of_a_uniform_log_are_not_taken_for_missing_actions(tmp_path: Path) -> None:
    """300 sessions of 20 steps, and rewards that no item changes: the true difference is 0."""
    rng = np.random.default_rng(1)
    steps = [(s, t) for s in range(300) for t in range(20)]
    items, policy = rng.integers(10, size=6000), np.array([0.55, *[0.05] * 9])
    rows: dict[str, Any] = {"user": [f"u{s}" for s, _ in steps], "session": [f"s{s}" for s, _ in steps]}
    rows |= {"step": [t for _, t in steps], "item": [f"i{k}" for k in items], "propensity": [0.1] * 6000}
    pl.DataFrame(rows | {"click": rng.integers(2, size=6000)}).write_csv(tmp_path / "log.csv")
    columns = {f"probability.i{k}": [policy[k]] * 6000 for k in range(10)}
    pl.DataFrame({"propensity": policy[items]} | columns).write_csv(tmp_path / "t.csv")
    words = ("--target", str(tmp_path / "t.csv"), "--compare", "target", "logged")
    found = judged(tmp_path, tmp_path / "log.csv", *words)
    row = next(row for row in found["rows"] if row["estimator"] == "wdr")
    assert row["ess"] < 20 and row["mean_weight_high"] < 1 and row["unsupported"] == 0
    assert "or the sessions are too few for weights as heavy as these" in row["warning"]
    assert f"the log is worth {row['ess']:.0f} sessions for this policy" in row["warning"]
    assert found["compare"]["estimator"] == "wdr" and found["compare"]["covered"]
    assert "]: no answer. Do not trust this: no estimator is" in found["compare"]["text"]
    assert found["compare"]["more_rows"] is None and not found["compare"]["trusted"]


def test_huge_weights_are_warned_of_and_infinite_ones_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.9 / 0.1 over 200 steps is 7e190, whose square is not finite."""
    steps = [(s, t) for s in range(60) for t in range(200)]
    rows: dict[str, Any] = {"user": [f"u{s % 20}" for s, _ in steps], "session": [f"s{s}" for s, _ in steps]}
    rows |= {"step": [t for _, t in steps], "item": [f"i{(s * 7 + t) % 10}" for s, t in steps]}
    log = pl.DataFrame(rows | {"click": [k % 3 // 2 for k in range(12_000)]})
    log.with_columns(propensity=pl.lit(0.1)).write_csv(tmp_path / "log.csv")
    target = log.select("session", "step").with_columns(
        propensity=pl.when(pl.col("session") == "s7").then(0.9).otherwise(0.1)
    )
    target.write_csv(tmp_path / "t.csv")
    words = ("--target", str(tmp_path / "t.csv"))
    found = {row["estimator"]: row for row in judged(tmp_path, tmp_path / "log.csv", *words)["rows"]}
    assert found["pdis"]["ess"] == pytest.approx(1) and found["pdis"]["high"] > 1e180
    assert "Do not trust this" in found["pdis"]["warning"]
    assert max(map(len, capsys.readouterr().out.splitlines())) < 400  # no number of 190 digits
    log.with_columns(propensity=pl.lit(0.01)).write_csv(tmp_path / "log.csv")
    text = refusal(capsys, tmp_path / "log.csv", *words)
    assert "log.csv: the weight of session 's7' is inf, too large to estimate with, as its 200 steps" in text


def test_tiny_propensity_is_blamed_for_its_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = bad("pscore", 2, 1e-310)
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    text = refusal(capsys, tmp_path / "log.csv", "--policy", "random")
    assert "log.csv: the weight of line 4 is inf, too large" in text
    assert "as its propensity is 1e-310: correct the propensity" in text


def test_comparison_on_estimated_propensities_is_doubted(tmp_path: Path) -> None:
    log = clicks(900)
    log.pop("pscore")
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    found = judged(tmp_path, tmp_path / "log.csv", "--compare", "random", "logged", "--no-world")
    assert found["compare"]["estimator"] == "dr"
    assert "they were estimated" in found["compare"]["doubt"]


def test_log_with_our_header_but_no_platform_needs_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, rng = 900, torch.Generator().manual_seed(0)
    interface = Interface(
        context=(("profile", 4),), action_sizes=(3,), repeats=True, signals=("click",), session_length=1
    )
    items = torch.randint(3, (rows, 1), generator=rng)
    log = DecisionLog(
        header=DecisionHeader(loggers=("uniform",), interface=interface, signals=("click",)),
        users=torch.arange(rows) % 100,
        sessions=torch.arange(rows),
        steps=torch.zeros(rows, dtype=torch.int64),
        times=torch.arange(rows),
        items=items,
        logprobs=torch.full((rows,), 1 / 3, dtype=torch.float64).log(),
        signals=(items == 2).float().unsqueeze(2),
        terminated=torch.ones(rows, dtype=torch.bool),
        truncated=torch.zeros(rows, dtype=torch.bool),
        loggers=torch.zeros(rows, dtype=torch.int64),
        given={"profile": torch.randn(rows, 4, generator=rng)},
    )
    path = tmp_path / "log.parquet"
    write_decisions(path, log)
    policy = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    columns = {f"probability.{k}": [float(policy[k])] * rows for k in range(3)}
    keys = {"session": range(rows), "step": [0] * rows, "propensity": policy[items[:, 0]].tolist()}
    pl.DataFrame(keys | columns).write_csv(tmp_path / "t.csv")
    found = judged(tmp_path, path, "--target", str(tmp_path / "t.csv"))
    row = next(row for row in found["rows"] if row["estimator"] == "dr")
    assert row["value"] == pytest.approx(0.6, abs=0.02) and row["recommended"]
    text = refusal(
        capsys,
        path,
        "--target",
        str(tmp_path / "t.csv"),
        "--items",
        "a.csv",
        "--missing",
        "refuse",
        "--user-column",
        "u",
    )
    options = " (only for a log of your own), ".join(["--user-column", "--items", "--missing"])
    assert f"error: This run can't use {options} (" in text and text.endswith("leave them out.\n")
    text = refusal(capsys, path, "--target", str(tmp_path / "t.csv"), "--logger", "old.pt")
    assert "--logger needs --checkpoint FILE" in text
    seen = replace(log.header, interface=replace(interface, context=(("profile", 4), ("last_item", 8))))
    write_decisions(path, replace(log, header=seen))
    text = refusal(capsys, path, "--target", str(tmp_path / "t.csv"))
    assert "needs the embeddings of the items" in text


def test_progress_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.csv"
    pl.DataFrame(clicks()).write_csv(log)
    assert main(["ope", "--log", str(log), "--policy", "random"]) == 0
    lines = capsys.readouterr().err.splitlines()
    at = [
        lines.index(line) for line in (f"reading {log}", "fitting the world model", "judging random (1 of 1)")
    ]
    assert at == sorted(at)

"""`ope --check`: right logs, wrong propensities, the truth of thinned logs, and what can't be tried."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.ope import check_judge as module
from recsys_rl.logs.ope.check_judge import Check, Trial, check_judge
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.ope.replay import ReplayedLog, replay
from recsys_rl.types import UserError
from tests.own_logs import sessions
from tests.own_tables import DEVICES, ITEMS, best_of, decisions, table


@pytest.fixture(autouse=True)
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPLITS", 5)
    monkeypatch.setattr(module, "TRIALS", 10)


def best_items(frame: pl.DataFrame) -> Any:
    """(E,): the item with the most clicks in each row."""
    return np.array(ITEMS)[best_of(frame["context.mood"].to_numpy(), frame["context.device"].to_numpy())]


def of_two(rows: int, seed: int = 0, factor: float = 1.0) -> pl.DataFrame:
    """A log of two policies, of which the second one shows the best item more often; clicks as in own_tables.

    ``factor``: by which the probabilities of the second are wrong in the log.
    """
    one, two = decisions(rows, seed), decisions(rows, seed + 1, loyal=0.5)
    parts = []
    for name, frame in (("old", one), ("new", two)):
        hit = frame["item"].to_numpy() == best_items(frame)
        new = np.where(hit, 0.5, 0.5 / 3) * factor
        known = frame.drop("propensity").with_columns(policy=pl.lit(name))
        parts.append(
            known.with_columns(pl.lit(0.25).alias("propensity.old"), pl.Series("propensity.new", new))
        )
    return pl.concat(parts)


def answer(frame: pl.DataFrame, folder: Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of the command."""
    log = table(folder / "log.parquet", frame)
    code = main(["ope", "--check", "--log", log, "--json", str(folder / "check.json")])
    return code, json.loads((folder / "check.json").read_text())


def test_a_right_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, values = answer(decisions(3_000), tmp_path)
    assert code == 0 and values["estimator"] == "dr" and not values["broken"]
    promised = [trial for trial in values["trials"] if trial["promised"]]
    assert values["promised"] == len(promised) >= 12
    assert values["held"] == sum(abs(trial["error"]) <= 1.96 for trial in promised) >= 0.8 * len(promised)
    assert values["error"] == pytest.approx(math.sqrt(sum(x["error"] ** 2 for x in promised) / len(promised)))
    assert values["error"] < 2
    out = capsys.readouterr().out
    assert out == values["text"] + "\n" and f"{values['held']} of {values['promised']} trials" in out


def test_the_truth_is_that_of_the_made_up_policy(tmp_path: Path) -> None:
    """The first one shows each item by its share of the log, whatever the context."""
    frame = decisions(4_000, loyal=0.4)
    values = answer(frame, tmp_path)[1]
    best = np.array(ITEMS)[best_of(frame["context.mood"].to_numpy(), frame["context.device"].to_numpy())]
    truth = 0.1 + 0.8 * sum(
        np.mean(frame["item"].to_numpy() == name) * np.mean(best == name) for name in ITEMS
    )
    found = [trial["truth"] for trial in values["trials"] if trial["policy"] == "made-up policy 1"]
    assert len(found) == 5 and abs(np.mean(found) - truth) < 0.02
    assert len(DEVICES) == 2 and {trial["policy"][-1] for trial in values["trials"]} == {"1", "2", "3"}


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_wrong_propensities_are_a_broken_log(tmp_path: Path, factor: float) -> None:
    frame = decisions(3_000).with_columns(pl.col("propensity") * factor)
    code, values = answer(frame, tmp_path)
    assert code == 5 and values["broken"] and values["wrong_weights"] > len(values["trials"]) / 2


def test_each_policy_is_judged_on_the_rows_of_the_other(tmp_path: Path) -> None:
    code, values = answer(of_two(2_000), tmp_path)
    assert code == 0 and values["estimator"] == "ips" and len(values["trials"]) == 10
    truths = {
        name: np.mean([x["truth"] for x in values["trials"] if x["policy"] == name])
        for name in ("old", "new")
    }
    assert truths["old"] == pytest.approx(0.3, abs=0.03) and truths["new"] == pytest.approx(0.5, abs=0.03)
    assert answer(of_two(2_000, factor=1.25), tmp_path)[0] == 5


def test_an_error_beyond_chance_is_a_broken_log() -> None:
    """Trials of 3 and -1 standard errors have the root mean square sqrt(5) > 2."""

    def of(*errors: float, promised: bool = True) -> Check:
        trials = tuple(Trial("a", 0.0, 0.0, error, promised, False) for error in errors)
        return Check("log", "dr", trials, 0)

    assert of(3, -1).broken and of(3, -1).exit_code == 5 and of(3, -1).held == 1
    assert not of(2.5, -1).broken and of(2.5, -1).exit_code == 0 and of(2.5, -1).held == 1
    assert not of(9, promised=False).broken


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "random"], "--policy"),
        (["--verdict", "random"], "--verdict"),
        (["--jobs", "2"], "--jobs"),
    ],
)
def test_options_without_effect(
    tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = table(tmp_path / "log.csv", decisions(100))
    assert main(["ope", "--check", "--log", log, *options]) == 2
    assert words in capsys.readouterr().err


def test_logs_that_can_not_be_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = table(tmp_path / "few.csv", decisions(300))
    none = table(tmp_path / "none.csv", decisions(3_000).drop("propensity"))
    steps = sessions(tmp_path / "steps.csv", 400)
    weights = ["--weights", "clicked=1", "--weights", "dwell=0"]
    for log, words, more in (
        (few, "too few", []),
        (none, "propensities", []),
        (str(steps), "single", weights),
    ):
        assert main(["ope", "--check", "--log", log, *more, "--json", str(tmp_path / "check.json")]) == 2
        said = capsys.readouterr()
        assert words in said.err.splitlines()[-1] and not said.out
    assert not (tmp_path / "check.json").exists()


@pytest.mark.parametrize("users", [3, 4])
def test_halves_of_few_users_are_skipped(tmp_path: Path, users: int) -> None:
    """A trial needs three users in each half, and some halves have none."""
    for frame in (
        decisions(3_000, users=users),
        of_two(1_500).with_columns(user=pl.int_range(3_000) % users),
    ):
        with pytest.raises(UserError, match="0 of"):
            check_judge(log=table(tmp_path / "log.parquet", frame))


def test_a_policy_with_one_item_is_no_log_to_estimate_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the rows of `new` nothing is known about `old`, so that half of the trials are skipped."""
    monkeypatch.setattr(module, "TRIALS", 1)
    frame = of_two(2_000).with_columns(
        item=pl.when(pl.col("policy") == "new").then(pl.lit("ale")).otherwise("item")
    )
    values = answer(frame, tmp_path)[1]
    assert values["skipped"] == 5 and {trial["policy"] for trial in values["trials"]} == {"new"}


def replayed(path: str) -> ReplayedLog:
    read = read_log(OpeConfig(log=(path,), policy=("random",)))
    return replay(read.log, read.catalogue, read.rewards(read.log.feedback), 1.0, torch.Generator())


def test_estimates_are_from_the_half_that_has_no_truth(tmp_path: Path) -> None:
    """Of one policy the other half; of several those rows of it that another policy logged."""
    one = replayed(table(tmp_path / "one.parquet", decisions(600)))
    two = replayed(table(tmp_path / "two.parquet", of_two(300))).log
    half = one.log.users % 2 == 0
    for tried in module._thinned(one, half, torch.Generator()):
        assert torch.equal(tried.rows, ~half) and bool(half[tried.truth].all()) and tried.truth.any()
    half = two.users % 2 == 0
    for number, tried in enumerate(module._loggers(two, half)):
        own = two.loggers == number
        assert torch.equal(tried.rows, ~half & ~own) and torch.equal(tried.truth, half & own)


def test_rows_are_thinned_by_the_largest_weight_of_their_half(tmp_path: Path) -> None:
    """It stays for certain, however large the weights of the other half are."""
    frame = decisions(600)
    log = replayed(table(tmp_path / "log.parquet", frame.with_columns(propensity=pl.lit(0.25)))).log
    half = log.users % 2 == 0
    logprobs = log.logprobs.where(half, math.log(1e-6))
    whole = replayed(str(tmp_path / "log.parquet"))
    whole = dataclasses.replace(whole, log=dataclasses.replace(log, logprobs=logprobs))
    for tried in module._thinned(whole, half, torch.Generator().manual_seed(0)):
        weights = (tried.target(torch.arange(log.num_rows)).logprobs - logprobs).exp().where(half, 0.0)
        assert bool(tried.truth[weights.argmax()]) and int(tried.truth.sum()) > 50


def test_a_data_frame_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPLITS", 1)
    monkeypatch.setattr(module, "TRIALS", 1)
    frame = decisions(2_500)
    file = table(tmp_path / "log.parquet", frame)
    mine, theirs = check_judge(log=frame, seed=3), check_judge(log=file, seed=3)
    assert mine.trials == theirs.trials != check_judge(log=frame).trials

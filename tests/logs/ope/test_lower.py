"""The lower bound of single decisions in verdicts and comparisons: its numbers, and where it is silent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.cli import main
from recsys_rl.logs.ope.compare import by_lower_bound
from recsys_rl.logs.ope.lower import SingleDecisions, lower_terms
from recsys_rl.logs.ope.result import Verdict
from recsys_rl.logs.ope.rows import plain_row
from recsys_rl.logs.ope.verdict import Estimates, read_verdicts, verdict_on

ROWS = 2_000
HEAVY = 100.0
"""The weight of the rows that show the policy's item, every hundredth."""


def heavy(rewards_of_it: float, others: float = 0.1) -> tuple[Tensor, Tensor]:
    """Weights and rewards (N,): 20 of 2,000 rows have the weight 100, the others 0. Rewards are 0 and 1."""
    weights, rewards = torch.zeros(2, ROWS, dtype=torch.float64)
    mine = torch.arange(0, ROWS, 100)
    weights[mine] = HEAVY
    rewards[torch.arange(ROWS) % 100 < round(100 * others) + 1] = 1.0
    rewards[mine] = 0.0
    rewards[mine[: round(len(mine) * rewards_of_it)]] = 1.0
    return weights, rewards


def verdict_of(weights: Tensor, rewards: Tensor, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Verdict:
    users, terms = torch.arange(len(rewards)), weights * rewards
    rows = [
        plain_row("logged", "mean", rewards),
        plain_row("mine", "dr", terms, weights=weights, residuals=rewards),
    ]
    every = {"logged": {"mean": rewards}, "mine": {"dr": terms}}
    single = None if bounds is None else SingleDecisions(rewards, bounds, {"mine": weights})
    return verdict_on(Estimates(rows, every, users, len(rewards), "dr", single=single), "mine")


def bottou(weights: Any, rewards: Any, alpha: float = 0.05) -> tuple[float, float]:
    """Mean and lower end of min(w, sqrt N) r - r, in numpy.

    Bottou et al. 2013, section 4.4, and the mixture radius of Howard et al. 2021 at 1,000 expected terms.
    """
    number = len(rewards)
    terms = np.minimum(weights, math.sqrt(number)) * rewards - rewards
    level = 2 * math.log(1 / alpha)
    rho = 1000 / (level + math.log(1 + level))
    radius = math.sqrt((number + rho) / number**2 * math.log((number + rho) / (rho * alpha**2)))
    return float(terms.mean()), float(terms.mean() - terms.std(ddof=1) * radius)


def test_the_lower_bound_is_that_of_bottou() -> None:
    """All 20 rows of weight 100, cut at sqrt 2,000 = 44.7, pay: .447 at least, where the log earns .1."""
    weights, rewards = heavy(1.0)
    verdict = verdict_of(weights, rewards)
    mean, low = bottou(weights.numpy(), rewards.numpy())
    earned = float(rewards.mean())
    assert mean == pytest.approx(20 * math.sqrt(2_000) / 2_000 - earned) and low > 0
    assert (verdict.answer, verdict.by, verdict.estimator) == ("better", "lower-bound", "dr")
    assert verdict.difference is not None and not verdict.promise
    assert verdict.difference == pytest.approx((mean, low, math.inf))
    assert verdict.value == pytest.approx(1.0)  # by `dr`, without a promise


def test_the_weights_of_both_are_cut() -> None:
    """Four rows, so that c = 2: least + min(w, 2) (r - least), and most - min(w', 2) (most - r)."""
    new, old, rewards = torch.tensor([[5.0, 1, 0, 0.5], [8.0, 1, 0, 3], [0.5, 1, 0, 0.25]]).double()
    challenger, champion = lower_terms(new, old, rewards, 0.0, 1.0)
    assert challenger.tolist() == [1.0, 1.0, 0.0, 0.125]
    assert champion.tolist() == [0.0, 1.0, 1.0, -0.5]


def test_a_lower_bound_below_0_is_no_answer() -> None:
    """One of the 20 rows pays: .022 at least, less than the log."""
    verdict = verdict_of(*heavy(0.05))
    assert (verdict.answer, verdict.by) == ("can't tell", "")
    assert verdict.difference is not None and verdict.difference[2] < math.inf


def test_a_worse_policy_has_the_bound_of_the_log_minus_the_policy() -> None:
    """100 rows of weight 20 pay nothing, the others 1: the policy earns 1 - 20 * 100 / 2,000 = 0 at most."""
    weights, rewards = torch.zeros(2, ROWS, dtype=torch.float64)
    weights[::20], rewards[:] = 20.0, 1.0
    rewards[::20] = 0.0
    verdict = verdict_of(weights, rewards)
    assert (verdict.answer, verdict.by, verdict.promise) == ("worse", "lower-bound", False)
    value, low, high = verdict.difference or (0.0, 0.0, 0.0)
    # Terms r - 0 of the log minus 1 - w (1 - r): 1 - 1 where it pays, and 0 + 19 where it does not.
    terms = np.where(np.arange(ROWS) % 20 == 0, 19.0, 0.0)
    assert value == pytest.approx(-terms.mean()) and low == -math.inf and value < high < 0


def test_without_ends_of_the_reward_there_is_no_lower_bound() -> None:
    assert verdict_of(*heavy(1.0), bounds=None).answer == "can't tell"


def test_weights_that_are_too_large_have_no_lower_bound() -> None:
    """Each weight is 2: probabilities of half of the right size."""
    rewards = (torch.arange(ROWS) % 2).double()
    single = SingleDecisions(rewards, (0.0, 1.0), {"mine": torch.full((ROWS,), 2.0, dtype=torch.float64)})
    assert single.terms_of("mine", "logged", torch.arange(ROWS)) is None
    assert by_lower_bound(("a", "b"), ("mine", "logged"), single, torch.arange(ROWS), ROWS) is None


def test_two_policies_are_compared_from_both_sides() -> None:
    """a always shows what pays and b what does not; both have weights of 2."""
    rewards = (torch.arange(ROWS) % 2).double()
    single = SingleDecisions(rewards, (0.0, 1.0), {"a": 2 * rewards, "b": 2 * (1 - rewards)})
    users = torch.arange(ROWS)
    for pair, sign in ((("a", "b"), 1), (("b", "a"), -1)):
        found = by_lower_bound(pair, pair, single, users, ROWS)
        assert found is not None and found.settled and found.value == pytest.approx(sign * 1.0)
        assert math.isinf(found.high if sign > 0 else found.low)
        assert "a is better" in found.sentence


def test_json_keeps_an_end_without_a_number() -> None:
    table = [verdict_of(*heavy(1.0))]
    text = json.dumps([row.values() for row in table], allow_nan=False)
    assert json.loads(text)[0]["difference"][2] is None and read_verdicts(json.loads(text)) == table


LOGGING, POLICY = np.array([0.005, 0.3, 0.3, 0.395]), np.array([0.97, 0.01, 0.01, 0.01])
RATES = np.array([0.9, 0.1, 0.1, 0.1])


def files(folder: Path, rows: int, values: tuple[float, float] = (0, 1)) -> tuple[str, str]:
    """A log whose rare item pays most, and a policy that shows it: weights up to 194."""
    rng = np.random.default_rng(3)
    shown = rng.choice(4, size=rows, p=LOGGING)
    paid = (rng.random(rows) < RATES[shown]).astype(int)
    log = {
        "item": [f"i{k}" for k in shown],
        "reward": [values[k] for k in paid],
        "propensity": LOGGING[shown],
    }
    log["context.x"] = rng.random(rows).tolist()
    every = {f"probability.i{k}": np.full(rows, POLICY[k]) for k in range(4)}
    pl.DataFrame(log).write_csv(folder / "log.csv")
    pl.DataFrame({"propensity": POLICY[shown], **every}).write_csv(folder / "target.csv")
    return str(folder / "log.csv"), str(folder / "target.csv")


@pytest.mark.parametrize(("values", "code"), [((0, 1), 0), ((1, 3), 4)])
def test_the_command_says_better_by_the_lower_bound(
    tmp_path: Path, values: tuple[float, float], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of rewards of 1 and 3 nobody knows the ends."""
    log, target = files(tmp_path, 4_000, values)
    words = ["--target", target, "--compare", "target", "logged", "--json", str(tmp_path / "out.json")]
    assert main(["ope", "--log", log, *words, "--verdict", "target", "--no-world"]) == code
    found = json.loads((tmp_path / "out.json").read_text())
    row = next(row for row in found["rows"] if row["estimator"] == "dr")
    assert row["ess"] < 200 and not row["recommended"]
    if code:
        assert found["verdict"]["by"] == "" and "more decisions would settle it" in found["verdict"]["reason"]
        return
    frame, weights = pl.read_csv(log), POLICY / LOGGING
    mean, low = bottou(weights[[int(x[1:]) for x in frame["item"]]], frame["reward"].to_numpy())
    verdict, compared = found["verdict"], found["compare"]
    assert verdict["answer"] == "better" and verdict["by"] == compared["estimator"] == "lower-bound"
    assert verdict["difference"] == [pytest.approx(mean), pytest.approx(low), None]
    assert (compared["value"], compared["low"], compared["high"]) == (
        pytest.approx(mean),
        pytest.approx(low),
        None,
    )
    assert "is better" in capsys.readouterr().out

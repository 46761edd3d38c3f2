"""The small table of a log: its answers against numbers by hand, and what is no answer."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from recsys_rl.logs.ope.compare import enough
from recsys_rl.logs.ope.diagnostics import WeightReport, largest_move
from recsys_rl.logs.ope.parts import Totals
from recsys_rl.logs.ope.result import LOGGED, Estimate, Verdict
from recsys_rl.logs.ope.rows import plain_row
from recsys_rl.logs.ope.verdict import Estimates, about_log, read_verdicts, verdict_lines, verdict_on
from recsys_rl.types import UserError

ROWS = 1_000
USERS = torch.arange(ROWS)
EARNED = (torch.arange(ROWS) % 2).double()  # mean .5
GOOD = torch.ones(ROWS, dtype=torch.float64)  # an effective sample size of 1,000


def row(policy: str, estimator: str, terms: torch.Tensor, weights: torch.Tensor | None = None) -> Estimate:
    return plain_row(policy, estimator, terms, USERS, weights=weights)


def table_of(terms: torch.Tensor, weights: torch.Tensor, same: tuple[str, ...] = ()) -> Verdict:
    """The verdict on a policy with these terms of `dr`."""
    noise = torch.linspace(0, 1, ROWS, dtype=torch.float64)
    rows = [row("logged", "mean", EARNED), row("mine", "dm", noise), row("mine", "dr", terms, weights)]
    of = {"mine": {"dr": terms, "dm": noise}, "logged": {"mean": EARNED}}
    known = Estimates(rows, of, USERS, ROWS, "dr", same)
    logged, mine = verdict_on(known, "logged"), verdict_on(known, "mine")
    assert (logged.policy, logged.value, logged.answer) == ("logged", 0.5, "")
    return mine


def test_better_and_worse_are_by_the_difference_on_the_same_rows() -> None:
    """The difference is .1 in each row, so that its interval has no width, wide as those of the two are."""
    better, worse = table_of(EARNED + 0.1, GOOD), table_of(EARNED - 0.1, GOOD)
    assert (better.answer, worse.answer) == ("better", "worse") and better.promise
    assert better.difference == pytest.approx((0.1, 0.1, 0.1)) and better.value == pytest.approx(0.6)
    assert better.low < 0.6 < better.high and better.ess == pytest.approx(ROWS)


def test_a_difference_within_its_interval_is_no_answer() -> None:
    """Differences of +1 and -1 in turn, and .01: half a width is that of 1,000 users at any time, .0960.

    rho = 1,000 / (5.991 + log 6.991) = 126.0, and sqrt(1,126 log(1,126 / (126 * .0025))) / 1,000 = .0960.
    """
    signs = torch.where(torch.arange(ROWS) % 4 < 2, 1.0, -1.0).double()
    verdict = table_of(EARNED + signs + 0.01, GOOD)
    assert verdict.answer == "can't tell" and verdict.promise
    assert verdict.difference is not None and verdict.difference[2] == pytest.approx(0.01 + 0.096, abs=1e-3)
    # At 129,533 users: sqrt(129,659 log(129,659 / (126 * .0025))) / 129,533 = .0100.
    assert verdict.reason.startswith("about 128,53")


def test_dead_weights_are_no_answer_however_large_the_difference() -> None:
    weights = torch.zeros(ROWS, dtype=torch.float64)
    weights[:10] = 100.0
    verdict = table_of(EARNED + 0.4, weights)
    assert (verdict.answer, verdict.promise, verdict.estimator) == ("can't tell", False, "dr")
    assert verdict.ess == pytest.approx(10) and "10 decisions" in verdict.reason


def verdict_with(terms: torch.Tensor, **weights: float) -> Verdict:
    """The verdict on a policy whose weights have these numbers, and else a mean that is surely 1.25."""
    good = {"ess": 900.0, "mean": 1.25, "mean_low": 1.2, "mean_high": 1.3, "largest": 2.0}
    report = WeightReport(**{**good, "largest_share": 0.002, "pareto_k": 0.1, **weights})
    mine = replace(row("mine", "dr", terms, GOOD), weights=report)
    of = {"mine": {"dr": terms}, "logged": {"mean": EARNED}}
    return verdict_on(Estimates([row("logged", "mean", EARNED), mine], of, USERS, ROWS, "dr"), "mine")


def test_only_many_light_weights_show_that_the_propensities_are_wrong() -> None:
    """Of few effective rows, or where a few of the weights hold the sum, the mean may be off by chance."""
    assert verdict_with(EARNED + 0.1).answer == "the log is broken"
    assert verdict_with(EARNED + 0.1, mean_low=0.98).answer == "better"  # its interval holds 1
    few, heavy = {"ess": 199.0}, {"largest": 400.0, "largest_share": 0.4, "pareto_k": 0.9}
    for weights in (few, heavy):
        assert verdict_with(EARNED + 0.1, **weights).answer == "can't tell"


@pytest.mark.parametrize(("copies", "broken"), [(0, False), (10, False), (11, True), (100, True)])
def test_copies_of_more_than_one_of_a_hundred_sessions_break_the_log(copies: int, broken: bool) -> None:
    none = torch.empty(0, dtype=torch.int64)
    of = Totals(2_000, 1_000, 3, (0.0, 1.0), none, none, none, none, copies)
    assert (about_log(of) != "") == broken


def reason_of(
    ess: float, move: float = 0.0, unsupported: float = 0.0, rarest: float = 0.0, difference: float = 0.4
) -> str:
    """Of 1,000 decisions, with a difference that is the same in each row."""
    terms = EARNED + difference
    found = row("mine", "dr", terms, GOOD)
    assert found.weights is not None
    found = replace(found, weights=replace(found.weights, ess=ess), move=move, unsupported=unsupported)
    of = {"mine": {"dr": terms}, "logged": {"mean": EARNED}}
    known = Estimates([row("logged", "mean", EARNED), found], of, USERS, ROWS, "dr", rarest=rarest)
    verdict = verdict_on(known, "mine")
    assert verdict.answer == "can't tell" and not verdict.promise
    return verdict.reason


@pytest.mark.parametrize(
    ("ess", "move", "rarest", "more"),
    [
        (10.0, 0.0, 0.0, "19,000"),  # 1,000 * 200 / 10 - 1,000
        (199.0, 0.0, 0.0, "5"),
        (200.0, 2.0, 0.0, "3,000"),  # what one row could move falls with the root of their number
        (100.0, 2.0, 0.0, "3,000"),
        (1.0, 0.0, 0.01, "19,000"),  # at most 200 / 0.01, as no weight is above 100
        (1.0, 0.0, 0.0005, "199,000"),  # at most 400,000, and the one weight says 200,000
    ],
)
def test_verdict_names_the_missing_number_of_decisions(
    ess: float, move: float, rarest: float, more: str
) -> None:
    assert reason_of(ess, move, rarest=rarest).endswith(f": about {more} more decisions would settle it")


def test_verdict_that_no_number_of_decisions_would_settle() -> None:
    assert "no log of the policy that logged ever will" in reason_of(1_000.0, unsupported=0.02)
    assert "give it a part of the users" in reason_of(1.0)  # one weight, and no bound of the others is known


@pytest.mark.parametrize(("ess", "move", "promise"), [(200, 1, True), (199.9, 1, False), (200, 1.001, False)])
def test_the_borders_of_a_promise_whatever_pareto_k(ess: float, move: float, promise: bool) -> None:
    found = row("mine", "dr", EARNED, GOOD)
    assert found.weights is not None
    assert enough(replace(found, weights=replace(found.weights, ess=ess, pareto_k=2.0), move=move)) == promise


def test_one_row_could_move_an_estimate_by_its_largest_weight_and_residual() -> None:
    """Weights of 0 and 10, and rewards of 0 and 1: 10 / 4 where the standard error is sqrt(100 / 12) / 2."""
    weights, rewards = torch.tensor([10.0, 0, 0, 0]).double(), torch.tensor([0.0, 1, 0, 0]).double()
    terms = torch.tensor([10.0, 0, 10, 0]).double()  # variance 100 / 3
    error = math.sqrt(100 / 3 / 4)
    assert largest_move(weights, rewards, terms) == pytest.approx(10 / 4 / error)
    found = plain_row("a", "ips", terms, weights=weights, residuals=-rewards)
    assert found.move == pytest.approx(10 / 4 / error) and found.row()["move"] == found.move


@pytest.mark.parametrize("paid", [0.0, 0.1])
def test_rewards_that_are_all_alike_promise_nothing(paid: float) -> None:
    """A reward model knows them: each term is the same. The log of the same policy still has its mean."""
    rewards = torch.full((400,), paid, dtype=torch.float64)
    for weights, promise in ((torch.tensor([0.8, 1.2]).double().repeat(200), False), (torch.ones(400), True)):
        found = plain_row("a", "dr", rewards, weights=weights, residuals=torch.zeros(400))
        assert enough(found) == promise and bool(found.warning) != promise
        assert found.move == (0 if promise else math.inf)
    users = torch.arange(400)
    varied = plain_row("a", "dr", rewards, weights=torch.tensor([0.8, 1.2]).double().repeat(200))
    known = Estimates(
        [plain_row(LOGGED, "mean", rewards), varied],
        {LOGGED: {"mean": rewards}, "a": {"dr": rewards}},
        users,
        400,
        "dr",
    )
    verdict = verdict_on(known, "a")
    assert verdict.answer == "can't tell" and not verdict.promise
    assert "no number of rows" not in verdict.sentence and "inf" not in verdict.sentence


def test_sessions_with_dead_weights_show_the_model_without_a_promise() -> None:
    weights = torch.zeros(ROWS, dtype=torch.float64)
    weights[:10] = 100.0
    rows = [
        row("logged", "mean", EARNED),
        row("mine", "wdr", EARNED, weights),
        row("mine", "world", EARNED + 1),
    ]
    terms = {"mine": {"wdr": EARNED, "world": EARNED + 1}, "logged": {"mean": EARNED}}
    verdict = verdict_on(Estimates(rows, terms, USERS, 3 * ROWS, "wdr"), "mine")
    assert (verdict.estimator, verdict.promise, verdict.answer) == ("world", False, "can't tell")
    assert verdict.value == 1.5 and "no promise" in verdict_lines([verdict], "mine")[1]


def test_the_policy_that_logged_is_not_better_than_itself() -> None:
    verdict = table_of(EARNED + 0.1, GOOD, same=("mine",))
    assert verdict.answer == "can't tell" and verdict.reason


def test_json_gives_the_table_again() -> None:
    table = [table_of(EARNED + 0.1, GOOD), Verdict("logged", "mean", 0.5, 0.4, 0.6)]
    assert read_verdicts(json.loads(json.dumps([entry.values() for entry in table]))) == table
    lines = verdict_lines(table, "mine")
    assert "better by 0.100 [0.100, 0.100]" in lines[1] and "<- this policy" in lines[1]


@pytest.mark.parametrize("values", [None, [], [{}], [{"policy": 1}], {"a": 1}, [["x"]]])
def test_other_values_are_refused(values: object) -> None:
    with pytest.raises(UserError):
        read_verdicts(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("answer", "splendid"), ("answer", ["better"]), ("answer", None), ("promise", "no"), ("promise", 1)],
)
def test_a_row_with_another_answer_or_promise_is_refused(field: str, value: object) -> None:
    row = table_of(EARNED + 0.1, GOOD).values()
    assert read_verdicts([row])[0].answer == "better"
    assert read_verdicts([row | {"by": "clipped-ips"}])[0].by == "lower-bound"  # of an earlier version
    with pytest.raises(UserError):
        read_verdicts([row | {field: value}])


@pytest.mark.parametrize(("unit", "move"), [("rows", 1.5), ("sessions", 1.0)])
def test_sessions_of_light_weights_are_not_doubted_for_one_large_reward(unit: str, move: float) -> None:
    """Weights around 1, so k is below 0.5; one row could move the estimate by 1.5 standard errors."""
    weights = 1 + 0.1 * torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = torch.linspace(-1, 1, 400, dtype=torch.float64)
    error = float(terms.std() / 20)
    residuals = torch.full((400,), 1.5 * 400 * error / float(weights.max()), dtype=torch.float64)
    found = plain_row("a", "wdr", terms, weights=weights, residuals=residuals, unit=unit)
    assert found.weights is not None and found.weights.pareto_k < 0.5
    assert found.move == pytest.approx(move)

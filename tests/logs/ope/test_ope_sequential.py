"""Estimators of sessions, against all sessions of a tiny MDP and the linear solve of its values."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from benchmarks.harness.evidence import rows_at
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.estimators import ESTIMATORS, STEPS, Evidence
from recsys_rl.logs.ope.replay import balanced
from recsys_rl.logs.ope.reward_model import fit_q, ridge
from tests import tiny_sessions as tiny

F64 = torch.float64
SEQUENTIAL = {name: x.score for name, x in ESTIMATORS.items() if STEPS in x.needs}
sdr = SEQUENTIAL["sdr"]


def expected(name: str) -> float:
    """The expectation of one session's estimate; its terms don't depend on the other sessions."""
    known = list(tiny.paths())
    terms = SEQUENTIAL[name](tiny.batch(known))
    return sum(path.probability * float(term) for path, term in zip(known, terms, strict=True))


def test_probabilities_of_all_sessions_sum_to_one() -> None:
    assert sum(path.probability for path in tiny.paths()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["pdis", "sdr"])
def test_unbiased_estimators_have_the_value_as_expectation(name: str) -> None:
    assert expected(name) == pytest.approx(tiny.VALUE, abs=1e-10)


def test_expected_weight_of_each_step_is_one() -> None:
    known = list(tiny.paths())
    mean = torch.tensor([path.probability for path in known], dtype=F64) @ tiny.batch(known).weights
    assert mean.tolist() == pytest.approx([1.0] * tiny.STEPS, abs=1e-12)


def by_hand(log: Evidence, doubly: bool) -> float:
    """wpdis or wdr of a log, with loops and the weights of the paper."""
    total = 0.0
    number = len(log.rewards)
    for t in range(tiny.STEPS):
        share = log.weights[:, t] / log.weights[:, t].sum()
        before = (
            log.weights[:, t - 1] / log.weights[:, t - 1].sum()
            if t
            else torch.full((number,), 1 / number, dtype=F64)
        )
        for n in range(number):
            total += tiny.GAMMA**t * float(share[n] * log.rewards[n, t])
            if doubly:
                assert log.q is not None and log.v is not None
                total -= tiny.GAMMA**t * float(share[n] * log.q[n, t] - before[n] * log.v[n, t])
    return total


@pytest.mark.parametrize(("name", "doubly"), [("wpdis", False), ("wdr", True)])
def test_normalised_estimators_agree_with_the_papers_sums(name: str, doubly: bool) -> None:
    known = list(tiny.paths())
    for chosen in ([0, 5, 9], [1, 2, 3, 30, 41], list(range(len(known)))):
        log = tiny.batch([known[k] for k in chosen])
        assert float(SEQUENTIAL[name](log).mean()) == pytest.approx(by_hand(log, doubly), abs=1e-12)


def test_sdr_with_the_true_values_is_exact_for_deterministic_steps() -> None:
    """With the true Q, only the moves are random: the expectation over them alone gives each V_0."""
    q = tiny.solved_q()
    v = (tiny.POLICY * q).sum(2)  # (T, 2)
    known = list(tiny.paths())
    log = tiny.batch(known)
    right_q, right_v = torch.zeros_like(log.rewards), torch.zeros_like(log.rewards)
    for n, path in enumerate(known):
        for t, (x, a) in enumerate(zip(path.states, path.actions, strict=True)):
            right_q[n, t], right_v[n, t] = q[t, x, a], v[t, x]
    right, wrong = sdr(replace(log, q=right_q, v=right_v)), sdr(log)
    p = torch.tensor([path.probability for path in known], dtype=F64)
    assert float(p @ right) == pytest.approx(tiny.VALUE, abs=1e-10)
    assert float(p @ (right - tiny.VALUE) ** 2) < float(p @ (wrong - tiny.VALUE) ** 2)


def one_hot(state: Tensor, action: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(state * 2 + action, 4).double()


def test_fqe_equals_the_linear_solve_of_the_empirical_mdp() -> None:
    """A log that holds each session as often as its probability says has the MDP as its empirical one."""
    known = list(tiny.paths())
    copies = [max(1, round(path.probability * 2_000)) for path in known]
    chosen = [path for path, count in zip(known, copies, strict=True) for _ in range(count)]
    log = tiny.batch(chosen)
    states, actions = torch.zeros(2, *log.rewards.shape, dtype=torch.int64)
    for n, path in enumerate(chosen):
        states[n, : len(path.states)] = torch.tensor(path.states)
        actions[n, : len(path.actions)] = torch.tensor(path.actions)

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = states[rows, t]
        every = one_hot(x.unsqueeze(1), torch.arange(2).unsqueeze(0))  # (B, 2, 4)
        return every, tiny.POLICY[x]

    # One model for all: every session in fold 0 of two, fitted on its copy in fold 1.
    twice = torch.arange(len(chosen)).repeat(2)
    folds = torch.tensor([0, 1]).repeat_interleave(len(chosen))
    states, actions = states.repeat(2, 1), actions.repeat(2, 1)
    found, _ = fit_q(rows_at(log, twice), one_hot(states, actions), alternatives, ridge(0.0), folds)

    # The empirical MDP differs by step, as counts are rounded: solve it backwards from the counts.
    after, value = torch.zeros(2, dtype=F64), torch.zeros(tiny.STEPS, 2, 2, dtype=F64)
    for t in reversed(range(tiny.STEPS)):
        for x, a in product(range(2), range(2)):
            here = log.alive[:, t] & (states[: len(chosen), t] == x) & (actions[: len(chosen), t] == a)
            earned = log.rewards[here, t]
            if t + 1 < tiny.STEPS:
                goes_on = log.alive[here, t + 1]
                earned = earned + tiny.GAMMA * goes_on * after[states[: len(chosen)][here, t + 1]]
            value[t, x, a] = earned.mean()
        after = (tiny.POLICY * value[t]).sum(1)
    assert found.q is not None and found.v is not None
    expected_q = value[torch.arange(tiny.STEPS), states, actions]
    assert torch.allclose(found.q[found.alive], expected_q[found.alive], atol=1e-8)
    assert torch.allclose(value, tiny.solved_q(), atol=0.05)
    assert float(found.v[:, 0].mean()) == pytest.approx(tiny.VALUE, abs=0.03)


def test_q_is_clipped_to_the_reward_that_the_steps_left_can_earn() -> None:
    log = Evidence(torch.ones(6, 2).double(), torch.full((6, 2), 5.0).double(), torch.ones(6, 2).bool(), 0.5)
    features = torch.ones(6, 2, 1).double()
    folds = torch.arange(6) % 3

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(len(rows), 1, 1).double(), torch.ones(len(rows), 1).double()

    found, _ = fit_q(log, features, alternatives, ridge(), folds, bounds=(0.0, 2.0))
    assert found.q is not None and found.v is not None
    assert found.q[0].tolist() == [3.0, 2.0] and found.v[0].tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    ("bounds", "least"),
    [
        ((-2.0, 1.0), [-3.0, -2.0]),  # -2 at each of two steps, the second discounted by 0.5
        ((0.2, 1.0), [0.2, 0.2]),  # a session may end at once, so that no more than 0.2 is sure
    ],
)
def test_q_is_not_below_the_least_that_the_steps_left_can_earn(
    bounds: tuple[float, float], least: list[float]
) -> None:
    log = Evidence(torch.ones(6, 2).double(), torch.full((6, 2), -9.0).double(), torch.ones(6, 2).bool(), 0.5)

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(len(rows), 1, 1).double(), torch.ones(len(rows), 1).double()

    found, _ = fit_q(
        log, torch.ones(6, 2, 1).double(), alternatives, ridge(), torch.arange(6) % 3, bounds=bounds
    )
    assert found.q is not None and found.v is not None
    assert found.q[0].tolist() == pytest.approx(least) and found.v[0].tolist() == pytest.approx(least)


def test_one_step_gives_the_formulas_of_decisions() -> None:
    w, r, q, v = torch.rand(4, 20, generator=torch.Generator().manual_seed(0)).double()
    log = Evidence(w[:, None], r[:, None], torch.ones(20, 1).bool(), 0.7, q[:, None], v[:, None])

    def ratio(x: Tensor) -> float:
        return float(w @ x / w.sum())

    expected = {
        "pdis": float((w * r).mean()),
        "wpdis": ratio(r),
        "sdr": float((v + w * (r - q)).mean()),
        "wdr": float(v.mean()) + ratio(r - q),
        "fqe": float(v.mean()),
    }
    for name, value in expected.items():
        assert float(SEQUENTIAL[name](log).mean()) == pytest.approx(value, rel=1e-12), name


def test_balance_heuristic_is_unbiased_for_a_log_of_two_loggers() -> None:
    """Half of the sessions by each of two loggers, one of which is the policy itself."""
    mixed = 0.0
    shares = torch.tensor([0.5, 0.5], dtype=F64)
    for logging in (tiny.LOGGING, tiny.POLICY):
        known = list(tiny.paths(logging))
        log = tiny.batch(known, logging)
        states, actions = torch.zeros(2, *log.rewards.shape, dtype=torch.int64)
        for n, path in enumerate(known):
            states[n, : len(path.states)] = torch.tensor(path.states)
            actions[n, : len(path.actions)] = torch.tensor(path.actions)
        chosen = torch.stack([p[states, actions].log() for p in (tiny.LOGGING, tiny.POLICY)], 2)  # (N, T, 2)
        weights = balanced(chosen[:, :, 1], chosen, log.alive, shares)
        assert float(weights.max()) <= 2 + 1e-12  # never above 1 / the policy's own share
        p = torch.tensor([path.probability for path in known], dtype=F64)
        for name in ("pdis", "sdr"):
            mixed += 0.5 * float(p @ SEQUENTIAL[name](replace(log, weights=weights))) / 2
    assert mixed == pytest.approx(tiny.VALUE, abs=1e-10)


def test_estimates_do_not_depend_on_the_order_of_sessions() -> None:
    known = list(tiny.paths())
    log = tiny.batch(known)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    for name, estimate in SEQUENTIAL.items():
        assert float(estimate(rows_at(log, order)).mean()) == pytest.approx(float(estimate(log).mean())), name


def test_estimator_that_needs_a_model_is_refused_without_one() -> None:
    log = replace(tiny.batch(list(tiny.paths())), q=None, v=None)
    with pytest.raises(UserError):
        sdr(log)

"""The rule of the gate, on terms made by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import t

from recsys_rl.logs.ope.lower import LOWER, lower_terms
from recsys_rl.serving.loop.gate import _look, other_split
from recsys_rl.serving.loop.gate_card import card
from recsys_rl.serving.loop.gate_compare import other_objective
from recsys_rl.serving.loop.gate_rule import Compared, GateVerdict, alpha_of, chi2_most, decide
from recsys_rl.serving.loop.rounds import Candidate, write_candidate
from recsys_rl.types import Stream
from tests.tiny_bandits import VALUE, WEIGHT, rows

NEW, OLD = "a" * 64, "b" * 64


def compared(
    difference: float, spread: float, users: int, champion: float = 10.0, **more: object
) -> Compared:
    """One session a user; half of the differences are ``spread`` above ``difference``, half below."""
    terms = difference + spread * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(users // 2)
    old = torch.full((users,), champion, dtype=torch.float64)
    given = {"logged": champion, "steps": 20.0, "chi2": 0.16, **more}
    return Compared("world", old + terms, old, torch.arange(users), **given)  # type: ignore[arg-type]


def judged(of: Compared, round: int = 1) -> GateVerdict:
    return decide(of, NEW, OLD, (0, 900), round)


def test_all_judgements_together_spend_alpha_once() -> None:
    assert alpha_of(1) == pytest.approx(0.05 * 6 / math.pi**2)
    assert sum(map(alpha_of, range(1, 200_000))) == pytest.approx(0.05, abs=1e-6)


def test_weights_of_4000_sessions_of_20_steps_judge_a_chi2_of_0_16() -> None:
    assert chi2_most(4000, 20) == pytest.approx(20 ** (1 / 20) - 1) == pytest.approx(0.1616, abs=1e-4)
    assert chi2_most(199, 20) == 0
    verdict = judged(compared(0.0, 1.0, 4000))
    assert verdict.effective == pytest.approx(4000 / 1.16**20)


def test_the_interval_is_over_users_at_the_level_of_the_round() -> None:
    verdict = judged(compared(2.0, 3.0, 1000), round=2)
    half = t.ppf(1 - alpha_of(2) / 2, 999) * 3.0 * math.sqrt(1000 / 999) / math.sqrt(1000)
    assert verdict.difference == pytest.approx(2.0)
    assert verdict.low == pytest.approx(2 - half) and verdict.high == pytest.approx(2 + half)


@pytest.mark.parametrize(
    ("difference", "spread", "users", "champion", "answer"),
    [
        (1.5, 3.0, 1000, 10.0, "better"),
        (1.1, 3.0, 1000, 10.0, "no harm seen"),  # the lower bound is 0.9, and 1 is needed
        (1.5, 1.0, 400, 10.0, "no harm seen"),  # too few sessions to be better
        (-0.2, 3.0, 1000, 10.0, "no harm seen"),  # down to -0.41
        (-0.5, 3.0, 1000, 10.0, "worse"),
        (-0.27, 2.0, 1000, 10.0, "worse"),  # from -0.41 to -0.13: a loss that is seen, though a small one
        (-0.4, 6.0, 1000, 10.0, "can't tell"),
        (-0.2, 3.0, 1000, -10.0, "no harm seen"),  # costs are negative returns
        (-1.0, 3.0, 1000, -10.0, "worse"),
        (0.0, 0.0, 10, 10.0, "no harm seen"),  # the champion under another name
    ],
)
def test_answers(difference: float, spread: float, users: int, champion: float, answer: str) -> None:
    verdict = judged(compared(difference, spread, users, champion))
    assert verdict.answer == answer
    text = card(verdict, "ppo-1.pt", "champion.pt")
    assert f"ppo-1.pt against champion.pt: {answer}" in text and f"{users:,} held-out users" in text


def test_the_card_names_the_chance_that_each_policy_leaves() -> None:
    verdict = judged(compared(1.5, 3.0, 1000, items=(1.05, 3.25)))
    assert (verdict.items, verdict.champion_items) == (1.05, 3.25)
    text = card(verdict, "ppo-1.pt", "champion.pt")
    assert "challenger | 1.05 |" in text and "champion | 3.25 |" in text
    assert "effective number" not in card(judged(compared(1.5, 3.0, 1000)), "ppo-1.pt", "champion.pt")


def test_a_broken_log_or_an_unknown_difference_is_never_better() -> None:
    assert judged(compared(5.0, 1.0, 1000, broken="copies", doubt="no")).answer == "the log is broken"
    verdict = judged(compared(5.0, 1.0, 1000, doubt="no world model predicts slates", chi2=math.nan))
    assert verdict.answer == "can't tell" and "slates" in verdict.reason
    assert verdict.values()["chi2"] is None and verdict.values()["to"] == 900
    assert "unknown" in card(verdict, "ppo-1.pt", "champion.pt", ["The record shows one item."])


def test_a_record_without_chance_shows_nothing_better() -> None:
    """A model that must guess all answers but those to the champion's own choices."""
    of = compared(1.5, 3.0, 1000)
    verdict = decide(of, NEW, OLD, (0, 900), 1, certain=True)
    assert (judged(of).answer, verdict.answer) == ("better", "no harm seen")
    assert decide(compared(-0.5, 3.0, 1000), NEW, OLD, (0, 900), 1, certain=True).answer == "worse"


def test_heavy_weights_have_a_lower_end_alone() -> None:
    """They show no harm at best, and never that a challenger is worse."""
    heavy = "a few large weights decide"
    verdict = judged(compared(1.5, 3.0, 1000, heavy=heavy))
    plain = judged(compared(1.5, 3.0, 1000))
    assert (plain.answer, verdict.answer) == ("better", "no harm seen")
    assert (verdict.low, verdict.high) == (plain.low, math.inf) and verdict.values()["high"] is None
    verdict = judged(compared(-5.0, 3.0, 1000, heavy=heavy))
    assert verdict.answer == "can't tell" and heavy in verdict.reason


def test_the_card_of_a_lower_bound_calls_its_numbers_ends() -> None:
    of = dataclasses.replace(compared(1.5, 3.0, 1000, heavy="a few large weights decide"), by=LOWER)
    text = card(judged(of), "bc-1.pt", "champion.pt")
    assert "at most 10.000 on average" in text and "at least 1.500 on average" in text
    assert "interval | from 1." in text and "inf" not in text
    plain = card(judged(compared(1.5, 3.0, 1000)), "bc-1.pt", "champion.pt")
    assert "on average" not in plain and " to 1." in plain


def test_lower_terms_by_hand() -> None:
    """Four decisions, so weights are cut at 2. Rewards are from -1 to 1."""
    new, old = torch.tensor([[0.0, 0.5, 1.0, 6.0], [1.0, 1.0, 0.0, 3.0]], dtype=torch.float64)
    rewards = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    found = lower_terms(new, old, rewards, -1.0, 1.0)
    assert [terms.tolist() for terms in found] == [[-1.0, 0.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0]]


@pytest.mark.parametrize("copies", [1, 3])
def test_lower_terms_bound_the_truth_on_average(copies: int) -> None:
    """Over the twelve possible decisions of a small log, whose weights are up to 5.

    Of twelve decisions weights are cut at 3.5; of three times as many at 6, and the bounds are the truth.
    """
    columns = (torch.tensor(x * copies) for x in zip(*rows(), strict=True))
    chances, context, action, rewards = columns
    weights, mean = WEIGHT[context, action], chances.double() / copies
    new, old = (float(terms @ mean) for terms in lower_terms(weights, weights, rewards.double(), 0.0, 1.0))
    cut = 5 - 12**0.5 if copies == 1 else 0.0  # of the second context's first item: a weight of 5, in 6 %
    assert new == pytest.approx(VALUE - 0.06 * 0.9 * cut)  # it pays 1 in 90 %
    assert old == pytest.approx(VALUE + 0.06 * 0.1 * cut)


def test_one_user_can_not_tell() -> None:
    of = compared(5.0, 0.0, 1000)
    verdict = judged(dataclasses.replace(of, users=torch.zeros(1000, dtype=torch.long)))
    assert (verdict.answer, verdict.users, verdict.exit_code) == ("can't tell", 1, 4)
    assert verdict.values()["low"] is None and verdict.values()["high"] is None
    assert "1 held-out user," in card(verdict, "ppo-1.pt", "champion.pt")


def test_the_card_says_when_earlier_sessions_were_left_out() -> None:
    verdict = judged(compared(1.5, 3.0, 1000, left_out=4321))
    assert verdict.values()["left_out"] == 4321
    assert "4,321 earlier sessions" in card(verdict, "ppo-1.pt", "champion.pt")
    assert "earlier" not in card(judged(compared(1.5, 3.0, 1000)), "ppo-1.pt", "champion.pt")


def test_the_card_says_what_was_another_objective_or_split(tmp_path: Path) -> None:
    streams = (Stream("watch"), Stream("revenue", 0.5))
    on: Any = SimpleNamespace(streams=streams, weights=torch.tensor([1.0, 0.5]))

    def of(*weights: str) -> Any:
        train, data = SimpleNamespace(weights=weights, seed=1), SimpleNamespace(heldout_fraction=0.2)
        return SimpleNamespace(config=SimpleNamespace(train_config=train, data_config=data), info={})

    assert other_objective(on, of(), "ppo-1.pt") == other_objective(on, of("revenue=0.5"), "ppo-1.pt") == ""
    assert "--weights revenue=2" in other_objective(on, of("revenue=2"), "ppo-1.pt")
    on.weights = torch.tensor([1.0, 2.0])  # the champion's
    assert other_objective(on, of("revenue=2"), "ppo-1.pt") == "" != other_objective(on, of(), "ppo-1.pt")
    known = Candidate(NEW, "ppo-1.pt", "ppo", OLD, 1, (0, 9), "hash", 1, 0.2, 90)
    write_candidate(tmp_path, known)
    assert other_split(tmp_path, of()) == ""
    write_candidate(tmp_path, dataclasses.replace(known, sha256="c" * 64, seed=7))
    assert "seed 7, 20%" in other_split(tmp_path, of())


def test_each_judgement_in_a_folder_spends_its_own_part(tmp_path: Path) -> None:
    """Both candidates of a round, one of them again on more sessions, and a policy of nobody's."""

    def judge(challenger: str, until: int, champion: str = OLD) -> int:
        look = _look(tmp_path, challenger, champion, (0, until))
        verdict = decide(compared(1.5, 3.0, 1000), challenger, champion, (0, until), 1, look)
        assert verdict.alpha == alpha_of(look)
        (tmp_path / f"{challenger}.gate.json").write_text(json.dumps(verdict.values()))
        return look

    assert [judge(NEW, 900), judge("c" * 64, 900), judge(NEW, 900)] == [1, 2, 1]
    assert [judge(NEW, 1800), judge("d" * 64, 1800), judge("d" * 64, 1800, NEW)] == [3, 4, 5]
    (tmp_path / f"{'d' * 64}.gate.json").write_text("{")
    assert judge("e" * 64, 1800) == 4


def test_a_challenger_of_items_that_no_session_could_show_is_not_better() -> None:
    """A canary judges what the record can't: a tenth of the draws at most may be of such items."""
    answers = [judged(compared(2.0, 1.0, 2000, unjudged=share)).answer for share in (0.0, 0.1, 0.11)]
    assert answers == ["better", "better", "no harm seen"]

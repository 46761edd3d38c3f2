"""The canary: centres by hand, its answers on streams whose truth is known, and what stops a release."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from recsys_rl.logs.ope.anytime import arm_terms
from recsys_rl.serving.record.record_schema import Unit
from recsys_rl.serving.releases.canary import Canary, CanarySettings, Count, Look
from recsys_rl.serving.releases.outcomes import Outcome


def outcome(number: int, person: int, arm: str, reward: float, share: float = 0.5, **fields: Any) -> Outcome:
    probability = {"": 1.0, "champion": 1 - share, "challenger": share}[arm]
    known = {"degraded": 0.0, "early": 0.0, "shown": (number % 7,), **fields}
    return Outcome(number, person, arm, probability, reward, **known)  # type: ignore[arg-type]


def outcomes(
    number: int, gain: float, share: float = 0.5, people: int = 200, seed: int = 0, **challenger: Any
) -> list[Outcome]:
    """Returning people, who differ more than their sessions do (3.4 and 1.6, as on `satiation`)."""
    generator = torch.Generator().manual_seed(seed)
    means = (8 + 3.4 * torch.randn(people, generator=generator)).tolist()
    who = torch.randint(people, (number,), generator=generator).tolist()
    noise = (1.6 * torch.randn(number, generator=generator)).tolist()
    chosen = (torch.rand(number, generator=generator) < share).tolist()
    rows = zip(who, noise, chosen, strict=True)
    return [
        outcome(at, one, "challenger", means[one] + error + gain, share, **challenger)
        if is_challenger
        else outcome(at, one, "champion", means[one] + error, share)
        for at, (one, error, is_challenger) in enumerate(rows)
    ]


def prior(number: int = 400, people: int = 200) -> list[Outcome]:
    return [
        outcome(-number + at, x.person, "", x.reward) for at, x in enumerate(outcomes(number, 0.0, seed=9))
    ]


def seen(rows: Sequence[Outcome], unit: Unit = "session", before: Sequence[Outcome] | None = None) -> Canary:
    canary = Canary(unit, prior() if before is None else before)
    for row in rows:
        canary.add(row)
    return canary


def test_the_difference_is_that_of_outcomes_minus_what_was_known_of_their_people() -> None:
    before = [outcome(1, 1, "", 2.0), outcome(2, 1, "", 4.0), outcome(3, 2, "", 9.0)]
    rows = [
        outcome(4, 1, "challenger", 5.0, 0.25),  # 5 - 3
        outcome(5, 2, "champion", 8.0, 0.25),  # 8 - 9
        outcome(6, 3, "champion", 6.0, 0.25),  # 6 - (2 + 4 + 9 + 5 + 8) / 5
        outcome(7, 1, "champion", 4.0, 0.25),  # 4 - (2 + 4 + 5) / 3
    ]
    canary = Canary("session", before, CanarySettings(learned=3))
    for row in rows:
        canary.add(row)
    centres = torch.tensor([3.0, 9.0, 28 / 5, 11 / 3], dtype=torch.float64)
    values = torch.tensor([5.0, 8.0, 6.0, 4.0], dtype=torch.float64) - centres
    arms = torch.tensor([True, False, False, False])
    terms = arm_terms(arms, torch.full((4,), 0.25, dtype=torch.float64), values)
    assert canary.look().difference == pytest.approx(float(terms.mean()), abs=1e-12)
    assert canary.look().difference == pytest.approx((4 * 2 - (-1 + 0.4 + 1 / 3) / 0.75) / 4, abs=1e-12)
    # The means of the returns are 5 and 6, of other people; these are the mean of the centres, 5.317, and
    # what each arm has above it: 4 * 2 / 4 and (-1 + 0.4 + 1 / 3) / 0.75 / 4.
    counts = canary.counts
    assert (counts["challenger"].sessions, counts["champion"].sessions) == (1, 3)
    assert counts["challenger"].mean == pytest.approx(5.316667 + 2.0, abs=1e-6)
    assert counts["champion"].mean == pytest.approx(5.316667 - 0.088889, abs=1e-6)


def test_by_user_the_first_session_counts_minus_what_earlier_ones_let_expect() -> None:
    """Sessions of person 1 have the variance 1, all of them 50 / 3 before the 5, and 50.8 / 4 after it."""
    before = [outcome(at, 1, "", float(at)) for at in (1, 2, 3)] + [outcome(4, 2, "", 10.0)]
    rows = [
        outcome(5, 1, "challenger", 5.0),
        outcome(6, 1, "challenger", 50.0),  # the second session of this person
        outcome(7, 2, "champion", 6.0),
    ]
    canary = Canary("user", before, CanarySettings(learned=4))
    for row in rows:
        canary.add(row)
    look = canary.look()
    assert look.sessions == 2 and canary.counts["challenger"].sessions == 2
    between = [50 / 3 - 1, 50.8 / 4 - 1]
    own = [3 * between[0] / (3 * between[0] + 1), between[1] / (between[1] + 1)]
    first, second = (
        own[0] * 2 + (1 - own[0]) * 4,  # the means: of the person, and of (1, 2, 3, 10)
        own[1] * 10 + (1 - own[1]) * 21 / 5,  # and of these and the 5
    )
    assert look.difference == pytest.approx((2 * (5 - first) - 2 * (6 - second)) / 2, abs=1e-12)


def test_people_who_do_not_differ_are_centred_by_all_together() -> None:
    """Two people with the same mean: what differs is chance, and one session of a person says nothing."""
    before = [outcome(at, at % 2, "", float(at // 2 % 2)) for at in range(40)]
    canary = Canary("user", before, CanarySettings(learned=4))
    canary.add(outcome(41, 0, "challenger", 0.9), [outcome(0, 0, "", 0.0)])
    assert canary.look().difference == pytest.approx(2 * (0.9 - 0.5))


def test_a_better_challenger_is_found_and_a_worse_one_stops() -> None:
    better = seen(outcomes(1500, 1.6)).look()
    assert better.answer == "better" and better.harm == ""
    assert better.low is not None and better.high is not None and better.low < 1.6 < better.high
    assert better.band[-1] == (1500, better.low, better.high) and better.band[0][0] < 100
    lows, highs = [low for _, low, _ in better.band], [high for _, _, high in better.band]
    assert lows == sorted(lows) and highs == sorted(highs, reverse=True)
    worse = seen(outcomes(1500, -1.6)).look()
    assert worse.answer == "worse" and worse.harm
    assert seen(outcomes(1500, 0.0)).look().answer == "can't tell"


@pytest.mark.parametrize("unit", ["session", "user"])
def test_the_means_of_the_arms_differ_by_the_difference(unit: Unit) -> None:
    """Also where a return is further off than any before, and counts as less; before, they are of all."""
    canary = seen([*outcomes(600, 0.5, share=0.2), outcome(600, 7, "challenger", 500.0, 0.2)], unit)
    look, counts = canary.look(), canary.counts
    assert look.difference == pytest.approx(counts["challenger"].mean - counts["champion"].mean, rel=1e-9)
    early = seen([outcome(0, 1, "champion", 4.0), outcome(1, 1, "champion", 7.0)], before=[])
    assert early.look().difference is None
    assert early.counts == {"champion": Count(2, 5.5), "challenger": Count(0, 0.0)}


def fading(number: int, good: int, seed: int) -> list[Outcome]:
    """The challenger has 25 % more in the first ``good`` sessions, and 40 % less afterwards."""
    return [
        replace(x, reward=x.reward * (1.25 if x.number < good else 0.6)) if x.arm == "challenger" else x
        for x in outcomes(number, 0.0, seed=seed)
    ]


def test_of_twelve_challengers_whose_gain_fades_none_can_be_promoted() -> None:
    """800 sessions of the gain, and 600 after it: nearly all were *better* by then, and none is any more."""
    before, known = 0, prior()
    for seed in range(12):
        canary = Canary("session", known)
        for row in fading(1_400, 800, seed):
            canary.add(row)
            if row.number == 799:
                before += canary.look().answer == "better"
            elif row.number in (1_099, 1_399):
                assert canary.look().answer != "better"
    assert before >= 10


def test_a_challenger_that_is_worse_after_it_was_better_stops() -> None:
    rows, canary = fading(1_600, 300, seed=0), Canary("session", prior())
    for row in rows[:300]:
        canary.add(row)
    assert (canary.look().answer, canary.look().harm, canary.look().doubt) == ("better", "", "")
    for row in rows[300:]:
        canary.add(row)
    assert canary.look().answer == "worse" and canary.look().harm
    assert seen(rows).look() == canary.look()


def test_better_needs_a_last_third_that_is_not_below_0_and_bounds_that_leave_a_difference() -> None:
    """Each pair of sessions has the difference ``gain``: champion and challenger in turn, 0 and the gain."""

    def looks(*parts: tuple[int, float]) -> list[Look]:
        """After each of the parts: a number of sessions, and their gain."""
        canary, found = Canary("session", [outcome(-at, 0, "", 0.0) for at in range(100)]), list[Look]()
        canary.span = 1.0
        for number, gain in parts:
            for _ in range(number // 2):
                at = len(canary.people)
                canary.add(outcome(at, 1 + at, "champion", 0.0), [outcome(0, 1 + at, "", 0.0)])
                canary.add(outcome(at, 2 + at, "challenger", gain), [outcome(0, 2 + at, "", 0.0)])
            found.append(canary.look())
        return found

    whole, third, fades = looks((200, 0.5), (100, 0.0), (2, -0.01))
    assert [(look.answer, look.doubt) for look in (whole, third)] == [("better", "")] * 2
    assert (fades.answer, fades.harm) == ("can't tell", "") and "100" in fades.doubt  # 302 sessions
    assert fades.difference == pytest.approx((200 * 0.5 - 2 * 0.01) / 302) and fades.low and fades.high
    assert 0 < fades.low <= fades.high
    small, large = looks((600, 0.25), (600, 0.9))
    assert (small.answer, small.doubt) == ("better", "")
    assert large.low and large.high and 0 < large.high < large.low  # no difference is left
    assert (large.answer, large.harm) == ("can't tell", "") and large.doubt


def test_few_sessions_give_no_bound_before_the_range_is_learned() -> None:
    canary = seen(outcomes(99, 5.0), before=[])
    assert canary.look().low is None and canary.look().answer == "can't tell"
    canary.add(outcomes(100, 5.0)[-1])
    canary.add(outcomes(101, 5.0)[-1])
    assert canary.look().sessions == 1 and canary.look().low is not None


def test_the_same_sessions_give_the_same_look_in_one_pass_or_in_many() -> None:
    rows, canary = outcomes(600, 0.5), Canary("session", prior())
    for at, row in enumerate(rows):
        canary.add(row)
        if at % 50 == 0:
            canary.look()
    again = seen(rows)
    assert canary.look() == again.look() and canary.counts == again.counts


@pytest.mark.parametrize(
    ("name", "fields"), [("degraded", {"degraded": 0.2}), ("early", {"early": 1.0}), ("top", {"shown": (1,)})]
)
def test_guardrails_stop_a_challenger_that_does_no_worse(name: str, fields: dict[str, Any]) -> None:
    look = seen(outcomes(1000, 0.0, **fields)).look()
    assert look.guardrails[name].harms and look.harm and look.answer == "can't tell"
    assert [guard for guard, value in look.guardrails.items() if value.harms] == [name]
    assert not any(x.harms for x in seen(outcomes(1000, 0.0)).look().guardrails.values())


def test_popularity_may_answer_for_the_challenger_up_to_twice_as_often() -> None:
    """Of the champion's decisions a tenth is by popularity, of the challenger's 1.5 or 3 times as many."""
    for share, harms in ((0.15, False), (0.3, True)):
        rows = [
            replace(x, degraded=share if x.arm == "challenger" else 0.1) for x in outcomes(2_000, 0.0, seed=4)
        ]
        assert seen(rows).look().guardrails["degraded"].harms == harms


def test_the_most_shown_item_is_that_of_the_sessions_before() -> None:
    """Each session shows a new item most; of the one that was shown most before it has 0, 1 / 4, 2 / 8."""
    canary = Canary("session", prior())
    for at, shown in enumerate([(1,), (2, 2, 2, 1), (3, 3, 3, 3, 3, 2, 2, 1)]):
        canary.add(outcome(at, at, "challenger", 8.0, shown=shown))
    assert canary.look().guardrails["top"].challenger == pytest.approx((0 + 1 / 4 + 2 / 8) / 3)


def test_a_split_that_was_wrong_stays_wrong_however_right_the_next_sessions_are() -> None:
    """40 sessions of the challenger at a share of a half, and then as many of each arm."""
    canary = Canary("session", prior())
    for at in range(40):
        canary.add(outcome(at, at % 7, "challenger", 8.0))
    assert canary.look().answer == "the log is broken"
    for at in range(40, 1_000):
        canary.add(outcome(at, at % 7, "challenger" if at % 2 else "champion", 8.0))
        if at % 50 == 0:
            assert canary.look().answer == "the log is broken"
    assert canary.look().harm == "the arms have other shares than they were given"
    later = [outcome(at, at % 7, "challenger" if at % 2 else "champion", 8.0) for at in range(960)]
    assert seen(later).look().answer == "can't tell"


def test_wrong_shares_break_the_log() -> None:
    rows = [x for x in outcomes(1500, 0.0) if x.arm == "challenger" or x.number % 3]  # champions are lost
    look = seen(rows).look()
    assert look.answer == "the log is broken" and look.harm


def test_a_share_that_grows_takes_no_answer_back_and_narrows_the_bound() -> None:
    canary = seen(outcomes(600, 2.4, share=0.5))
    before = canary.look()
    assert before.answer == "better"
    for row in outcomes(60, 2.4, share=0.9, seed=1):
        canary.add(row)
    after = canary.look()
    assert after.answer == "better" and after.low is not None and before.low is not None
    assert after.low >= before.low
    assert not any(guard.harms for guard in after.guardrails.values())

    def width(first: float, then: float) -> float:
        look = seen(outcomes(200, 0.0, share=first) + outcomes(800, 0.0, share=then, seed=2)).look()
        assert look.high is not None and look.low is not None
        return look.high - look.low

    assert width(0.1, 0.5) < 0.7 * width(0.1, 0.1)


def test_a_constant_added_to_all_returns_changes_nothing() -> None:
    for before in (prior(), []):
        looks = []
        for shift in (0.0, 100.0):
            moved = [
                [replace(x, reward=x.reward + shift) for x in rows] for rows in (outcomes(900, -1.6), before)
            ]
            looks.append(seen(moved[0], before=moved[1]).look())
        assert looks[0].answer == looks[1].answer == "worse"
        for name in ("difference", "low", "high", "sessions"):
            assert getattr(looks[0], name) == pytest.approx(getattr(looks[1], name), rel=1e-9)


def test_people_are_centred_by_their_sessions_in_the_whole_record() -> None:
    """Without the prior sessions of the last days; the distance of people is not in the difference then."""
    rows, plain = outcomes(800, 0.0, people=800), Canary("user", prior())
    known = Canary("user", prior())
    means = {x.person: x.reward for x in outcomes(4000, 0.0, people=800)}
    for row in rows:
        plain.add(row)
        known.add(row, [outcome(-at, row.person, "", means[row.person]) for at in (1, 2, 3)])
    widths = [float(look.high or 0) - float(look.low or 0) for look in (plain.look(), known.look())]
    assert widths[1] < 0.8 * widths[0]
    canary = Canary("session", [outcome(1, 1, "", 2.0), outcome(2, 2, "", 4.0)], CanarySettings(learned=2))
    canary.add(outcome(3, 7, "challenger", 6.0), [outcome(0, 7, "", 5.0)])  # 6 - 5
    canary.add(outcome(4, 7, "challenger", 7.0), [])  # 7 - (5 + 6) / 2: the record was read before
    assert canary.look().difference == pytest.approx((2 * 1 + 2 * 1.5) / 2)


def test_the_bounds_share_one_alpha() -> None:
    """Half of it is of the difference, on two sides; the guardrails and the shares have the rest."""
    settings, canary = CanarySettings(), Canary("session", [])
    difference = 2 * math.exp(-canary.difference.threshold)
    guards = sum(math.exp(-guard.threshold) for guard in canary.guards)
    assert difference == pytest.approx(settings.alpha / 2)
    assert difference + guards + settings.shares_alpha == pytest.approx(settings.alpha)


def test_a_look_costs_what_is_new() -> None:
    """20,000 sessions, and then ten looks that find ten sessions more each."""
    rows, canary = outcomes(20_100, 0.1, share=0.1, people=3_000), Canary("session", prior())
    for row in rows[:20_000]:
        canary.add(row)
    canary.look()
    began = time.process_time()
    for at in range(20_000, 20_100, 10):
        for row in rows[at : at + 10]:
            canary.add(row)
        assert canary.look().low is not None
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("unit", ["session", "user"])
def test_equal_arms_are_told_apart_in_at_most_one_of_twenty_releases(unit: Unit) -> None:
    """60 releases of 300 sessions of 60 people who come again and again, with a look after each session."""
    # One look at the end: an answer, or a harm, that was found once stays.
    looks = [
        seen(outcomes(300, 0.0, people=60, seed=seed), unit, prior(people=60)).look() for seed in range(60)
    ]
    assert sum(look.answer != "can't tell" or look.harm != "" for look in looks) <= 3

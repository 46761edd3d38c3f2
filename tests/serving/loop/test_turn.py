"""The steps of a turn: a table of situations, and turns that are killed and started again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from recsys_rl.serving.loop.gate_rule import Answer
from recsys_rl.serving.loop.rounds import Round
from recsys_rl.serving.loop.turn import (
    Back,
    Judge,
    Learn,
    Patience,
    Promote,
    Raise,
    Situation,
    Start,
    Step,
    Verdict,
    Wait,
    best_candidate,
    next_step,
)

OLD, ONE, TWO, OTHER = "a" * 64, "b" * 64, "c" * 64, "d" * 64
PATIENCE = Patience(sessions=2000, canary=9000, share=0.5)
OPEN, LEARNED = Round(3, OLD, 10, 20), Round(3, OLD, 10, 20, (ONE, TWO))
GOOD, FINE, BAD = Verdict("better", 2.0), Verdict("no harm seen", 3.0), Verdict("worse", -1.0)
UNFIT = Verdict("better", 3.0, "The policy failed on a new visitor.")
UNSURE, BROKEN = Verdict("can't tell", 0.0), Verdict("the log is broken", 5.0)
HOPEFUL = Verdict("can't tell", 4.0)


def serving(share: float, served: int, **more: Any) -> Situation:
    """The canary of the first candidate, at a share for so many sessions."""
    return Situation(OLD, 0, ONE, share=share, served=served, round=LEARNED, **more)


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        # No round yet, or none of this champion: one begins when there is enough to learn from.
        (Situation(OLD, 1999), Wait),
        (Situation(OLD, 2000), Learn(1)),
        (Situation(OTHER, 2000, round=LEARNED), Learn(4)),
        (Situation(OTHER, 1999, round=OPEN), Wait),
        # A round under way goes on, whatever came in meanwhile.
        (Situation(OLD, 0, round=OPEN), Learn(3)),
        (Situation(OLD, 9999, round=OPEN), Learn(3)),
        (Situation(OLD, 0, round=LEARNED), Judge((ONE, TWO))),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: BAD}), Judge((TWO,))),
        (Situation(OLD, 0, round=LEARNED, verdicts={TWO: GOOD}), Judge((ONE,))),
        # The stronger answer serves first, then the greater difference.
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: BAD, TWO: FINE}), Start(TWO, 0.05)),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD, TWO: FINE}), Start(ONE, 0.05)),
        (
            Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD, TWO: Verdict("better", 2.5)}),
            Start(TWO, 0.05),
        ),
        # Also one of which the gate can't tell, if it seems to gain.
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: BROKEN, TWO: HOPEFUL}), Start(TWO, 0.05)),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: HOPEFUL, TWO: FINE}), Start(TWO, 0.05)),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: HOPEFUL, TWO: UNSURE}), Start(ONE, 0.05)),
        # Nobody got through the gate: the next round needs new sessions.
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: UNSURE, TWO: BROKEN}), Wait),
        (Situation(OLD, 2000, round=LEARNED, verdicts={ONE: UNSURE, TWO: BAD}), Learn(4)),
        # Each candidate has one canary, however it ended, and whoever ended it; then the next one may try.
        (
            Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD, TWO: FINE}, tried=frozenset({ONE})),
            Start(TWO, 0.05),
        ),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD, TWO: BAD}, tried=frozenset({ONE})), Wait),
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD}, tried=frozenset({ONE})), Judge((TWO,))),
        (
            Situation(OLD, 2000, round=LEARNED, verdicts={ONE: GOOD, TWO: GOOD}, tried=frozenset({ONE, TWO})),
            Learn(4),
        ),
        # A challenger gets its next share after a tenth of the canary's sessions, unless harm was seen.
        (serving(0.05, 899), Wait),
        (serving(0.05, 900), Raise(ONE, 0.2)),
        (serving(0.2, 8999), Raise(ONE, 0.5)),
        (serving(0.5, 8999), Wait),
        (serving(0.3, 900), Raise(ONE, 0.5)),  # somebody has raised it
        (serving(0.05, 900, frozen=True), Wait),
        (serving(0.05, 900, canary="worse"), Back(ONE, "canary: worse")),
        (serving(0.05, 900, canary="better"), Promote(ONE)),
        (serving(0.05, 900, verdicts={ONE: BAD}), Wait),  # somebody has started it all the same
        (serving(0.05, 900, verdicts={ONE: BROKEN}), Wait),
        (serving(0.05, 900, verdicts={ONE: HOPEFUL}), Raise(ONE, 0.2)),
        # The canary decides; a frozen one and that of somebody else are left alone.
        (Situation(OLD, 0, ONE, round=LEARNED, judged=8999), Wait),
        (
            Situation(OLD, 0, ONE, round=LEARNED, judged=9000),
            Back(ONE, "canary: no difference seen in 9,000 sessions"),
        ),
        (Situation(OLD, 0, ONE, round=LEARNED, canary="better"), Promote(ONE)),
        (Situation(OLD, 0, ONE, round=LEARNED, canary="worse"), Back(ONE, "canary: worse")),
        (
            Situation(OLD, 0, ONE, round=LEARNED, canary="the log is broken"),
            Back(ONE, "canary: the log is broken"),
        ),
        (Situation(OLD, 0, ONE, frozen=True, round=LEARNED, canary="better"), Wait),
        (Situation(OLD, 0, ONE, frozen=True, round=LEARNED, canary="worse"), Wait),
        (Situation(OLD, 9999, OTHER, round=LEARNED, canary="better"), Wait),
        (Situation(OLD, 9999, OTHER, canary="worse"), Wait),
        # One of an earlier round is the loop's own: somebody has learned a round meanwhile.
        (Situation(OLD, 0, OTHER, True, round=LEARNED, canary="better"), Promote(OTHER)),
        (Situation(OLD, 0, OTHER, True, round=OPEN, canary="worse"), Back(OTHER, "canary: worse")),
        (Situation(OLD, 0, OTHER, True, True, round=OPEN, canary="worse"), Wait),
        # Whom the server can't let serve makes room for the other one.
        (Situation(OLD, 0, round=LEARNED, verdicts={ONE: UNFIT, TWO: FINE}), Start(TWO, 0.05)),
        (Situation(OLD, 1999, round=LEARNED, verdicts={ONE: UNFIT, TWO: BAD}), Wait),
    ],
)
def test_next_step(now: Situation, wanted: Step | type[Wait]) -> None:
    found = next_step(now, PATIENCE)
    assert type(found) is Wait if wanted is Wait else found == wanted


def test_each_situation_has_a_step_that_keeps_the_champion() -> None:
    """Nothing but a canary's "better" promotes, and nothing but the gate's let-through starts a canary."""
    answers: list[Answer | None] = [
        "better",
        "no harm seen",
        "worse",
        "can't tell",
        "the log is broken",
        None,
    ]
    canaries: list[Answer] = ["better", "worse", "can't tell", "the log is broken"]
    for number, challenger, frozen, canary, judged, round, one, two, fresh in itertools.product(
        *(range(2), ("", ONE, OTHER), (False, True), canaries, (0, 9000)),
        *((None, OPEN, LEARNED, replace(LEARNED, champion=OTHER)), answers, answers, (0, 2000)),
    ):
        verdicts = {name: Verdict(a, 1.0) for name, a in ((ONE, one), (TWO, two)) if a is not None}
        tried = frozenset({challenger, *([TWO] if number else [])} - {""})
        now = Situation(
            OLD,
            fresh,
            challenger,
            frozen=frozen,
            share=0.05,
            served=fresh,
            canary=canary,
            judged=judged,
            round=round,
            verdicts=verdicts,
            tried=tried,
        )
        step = next_step(now, PATIENCE)
        if isinstance(step, Promote):
            assert canary == "better" and not frozen and step.challenger == challenger == ONE
        elif isinstance(step, Start):
            assert verdicts[step.candidate].answer in ("better", "no harm seen", "can't tell")
            assert not challenger and step.candidate not in tried and round == LEARNED
        elif isinstance(step, Back):
            assert challenger == ONE and not frozen and (canary != "can't tell" or judged == 9000)
        elif isinstance(step, Raise):
            assert challenger == ONE and not frozen and canary == "can't tell" and fresh == 2000
            assert one not in ("worse", "the log is broken") and step.share == 0.2
        elif isinstance(step, Learn):
            assert not challenger and (step.round == 3 or fresh == 2000)


def test_a_wait_names_what_the_gate_said() -> None:
    step = next_step(Situation(OLD, 7, round=LEARNED, verdicts={ONE: UNFIT, TWO: BROKEN}), PATIENCE)
    assert isinstance(step, Wait)
    assert step.reason.startswith("7 of the 2,000") and "the log is broken" in step.reason
    assert "failed on a new visitor" in step.reason


@pytest.mark.parametrize(
    ("highest", "shares"),
    [(0.5, (0.05, 0.2, 0.5)), (0.1, (0.05, 0.1)), (0.01, (0.01,)), (0.9, (0.05, 0.2, 0.5, 0.9))],
)
def test_the_shares_of_a_challenger(highest: float, shares: tuple[float, ...]) -> None:
    patience = Patience(2000, 20_000, highest)
    assert (patience.shares, patience.of_a_share) == (shares, 2000)
    assert next_step(Situation(OLD, 0, round=LEARNED, verdicts={ONE: GOOD, TWO: BAD}), patience) == Start(
        ONE, shares[0]
    )


def test_best_candidate_without_any_that_passed() -> None:
    assert best_candidate([ONE, TWO], {ONE: BAD, TWO: UNSURE}) is None


@dataclass
class Place:
    """Record, folder and server in a few fields. A step changes one of them, at one moment."""

    champion: str = OLD
    challenger: str = ""
    share: float = 0.0
    fresh: int = 2500
    round: Round | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    def look(self) -> Situation:
        tried = frozenset(line.split()[1] for line in self.history if line.startswith("start"))
        return Situation(
            self.champion,
            self.fresh,
            self.challenger,
            share=self.share,
            served=10**6,
            canary="better" if self.share == PATIENCE.share else "can't tell",
            round=self.round,
            verdicts=self.verdicts,
            tried=tried,
        )

    def do(self, step: Step) -> None:
        match step:
            case Learn(number) if self.round is None:  # killed before there are candidates
                self.round, self.fresh = Round(number, self.champion, 0, 100), 0
            case Learn() if self.round is not None:
                self.round = replace(self.round, candidates=(ONE, TWO))
            case Judge(candidates):  # killed after the first of them
                self.verdicts[candidates[0]] = GOOD if candidates[0] == ONE else BAD
            case Start(candidate, share):
                self.challenger, self.share = candidate, share
                self.history.append(f"start {candidate}")
            case Raise(challenger, share):
                self.share = share
                self.history.append(f"share {challenger} {share}")
            case Promote(challenger):
                self.champion, self.challenger, self.fresh = challenger, "", 0
                self.history.append(f"promote {challenger}")
            case Back(challenger, _):
                self.challenger = ""
                self.history.append(f"back {challenger}")


def test_turn_that_is_killed_at_any_step_ends_as_one_that_is_not() -> None:
    """Each kill falls before or after the moment at which a step takes effect."""
    whole = Place()
    while not isinstance(step := next_step(whole.look(), PATIENCE), Wait):
        whole.do(step)
    raised = [f"share {ONE} 0.2", f"share {ONE} 0.5"]
    assert whole.history == [f"start {ONE}", *raised, f"promote {ONE}"] and whole.champion == ONE
    for kills in itertools.product([False, True], repeat=9):
        place, at = Place(), 0
        while True:
            step = next_step(place.look(), PATIENCE)  # a new process knows nothing but what it reads
            killed_before = kills[at] if at < len(kills) else False
            at += 1
            if isinstance(step, Wait):
                break
            if not killed_before:
                place.do(step)
        assert place == whole


def test_the_doubt_of_a_canary_is_named() -> None:
    doubt = "it was better, but in the last 100 sessions, a third of all, its mean is lower"
    for now, kind in (
        (serving(0.05, 100, judged=200, doubt=doubt), Wait),
        (serving(0.5, 100, judged=200, doubt=doubt), Wait),
        (serving(0.5, 9000, judged=9000, doubt=doubt), Back),
    ):
        found: Any = next_step(now, PATIENCE)
        assert isinstance(found, kind) and f"{now.judged:,} sessions ({doubt})" in found.reason
        without: Any = next_step(replace(now, doubt=""), PATIENCE)
        assert without.reason == found.reason.replace(f" ({doubt})", "")

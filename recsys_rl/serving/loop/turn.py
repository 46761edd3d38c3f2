"""One turn of the loop: from what is known of the release and of the round to what is done next.

A round learns candidates from what was served, judges them on held-out sessions (the gate), and lets the
best serve beside the champion (the canary), at first a small share of the sessions, and a larger one while no
harm is seen; if that one goes back, the next one may try. ``next_step`` is a
pure function of a ``Situation``, which is read anew before each step: a turn that was killed goes on where it
was, whichever step that was, and where nothing is left to do a turn changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recsys_rl.errors import one_line
from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL
from recsys_rl.serving.loop.gate_rule import Answer
from recsys_rl.serving.loop.rounds import Round

MAY_START: tuple[Answer, ...] = ("better", "no harm seen", CANT_TELL)
"""Answers of the gate after which a candidate may serve, the strongest first; the last one needs an estimate
above 0."""
HARMFUL: tuple[Answer, ...] = ("worse", BROKEN)
"""Answers of a canary that end it."""
SHARES = (0.05, 0.2, 0.5)
"""Shares of the sessions that a challenger gets, one after another, below the highest."""
TENTH = 10
"""The part of the canary's sessions after which a challenger gets its next share."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found about one candidate."""

    answer: Answer
    difference: float  # estimated return of a session, the candidate's minus the champion's
    refused: str = ""  # why the server can't let it serve


@dataclass(frozen=True)
class Situation:
    """All that decides the next step."""

    champion: str  # SHA-256
    fresh: int  # sessions that have matured and that no round has learned from
    challenger: str = ""  # SHA-256 of the policy that serves beside the champion
    ours: bool = False  # a round of this folder learned it
    frozen: bool = False  # the release, by somebody or by the server
    share: float = 0.0  # of the challenger
    served: int = 0  # sessions that have matured since the challenger got this share
    canary: Answer = CANT_TELL  # about the challenger, from the sessions of both arms
    judged: int = 0  # these sessions
    doubt: str = ""  # why the canary's answer is not *better* now, though that was found
    round: Round | None = None  # the latest
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)  # of the gate, by SHA-256
    tried: frozenset[str] = frozenset()  # all that have ever been a challenger
    why_frozen: str = ""


@dataclass(frozen=True)
class Patience:
    """How many sessions a turn waits for, and how many a challenger may get."""

    sessions: int  # that are new, before a round begins
    canary: int  # of both arms, after which a canary without an answer ends
    share: float  # the highest of a challenger

    @property
    def shares(self) -> tuple[float, ...]:
        """Those that a challenger gets, one after another."""
        return (*(share for share in SHARES if share < self.share), self.share)

    @property
    def of_a_share(self) -> int:
        """Sessions, after which a challenger gets its next share."""
        return max(1, self.canary // TENTH)


@dataclass(frozen=True)
class Learn:
    """Learn the candidates of the round of this number, a new one or one that was begun."""

    round: int


@dataclass(frozen=True)
class Judge:
    """Judge candidates on held-out sessions, all of them on the same ones."""

    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """Let a candidate serve a share of the sessions beside the champion."""

    candidate: str
    share: float


@dataclass(frozen=True)
class Raise:
    """Let the challenger serve a larger share."""

    challenger: str
    share: float


@dataclass(frozen=True)
class Promote:
    """Let the challenger serve alone."""

    challenger: str


@dataclass(frozen=True)
class Back:
    """Let the champion serve alone."""

    challenger: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing is left to do in this turn."""

    reason: str


Step = Learn | Judge | Start | Raise | Promote | Back | Wait


def next_step(now: Situation, patience: Patience) -> Step:
    """The next step of a turn; ``Wait`` ends it."""
    if now.challenger:
        return _of_canary(now, patience)
    round, nobody = now.round, ""
    if round is not None and round.champion == now.champion:
        if not round.candidates:
            return Learn(round.number)
        left = [name for name in round.candidates if name not in now.tried]
        not_judged = tuple(name for name in left if name not in now.verdicts)
        if not_judged:
            return Judge(not_judged)
        best = best_candidate(left, now.verdicts)
        if best is not None:
            return Start(best, patience.shares[0])
        if left:
            nobody = f"; the gate let none of round {round.number} through: {_answers(left, now.verdicts)}"
    if now.fresh < patience.sessions:
        return Wait(f"{now.fresh:,} of the {patience.sessions:,} new sessions that a round needs{nobody}")
    return Learn(1 if round is None else round.number + 1)


def _of_canary(now: Situation, patience: Patience) -> Step:
    if not now.ours and (now.round is None or now.challenger not in now.round.candidates):
        return Wait("a challenger that no round of this folder learned is serving")
    if now.frozen:
        why = f" ({one_line(now.why_frozen)})" if now.why_frozen else ""
        return Wait(f"the release is frozen{why}: recsys-rl release share, promote or back ends that")
    if now.canary == "better":
        return Promote(now.challenger)
    if now.canary in HARMFUL:
        return Back(now.challenger, f"canary: {now.canary}")
    if now.judged >= patience.canary:
        return Back(now.challenger, f"canary: no difference seen in {_of_sessions(now)}")
    return _at_next_share(now, patience) or Wait(f"the canary can't tell after {_of_sessions(now)}")


def _at_next_share(now: Situation, patience: Patience) -> Raise | Wait | None:
    """The next share, or the wait for it; None if the challenger has the highest one."""
    larger = next((share for share in patience.shares if share > now.share), None)
    if larger is None:
        return None
    gate, left = now.verdicts.get(now.challenger), patience.of_a_share - now.served
    if gate is not None and gate.answer in HARMFUL:
        return Wait(f"the gate's answer is {gate.answer}, so the challenger's share stays")
    if left > 0:
        share = f"the challenger's share is {100 * larger:g} % after {left:,} more"
        return Wait(f"the canary can't tell after {_of_sessions(now)}; {share}")
    return Raise(now.challenger, larger)


def _of_sessions(now: Situation) -> str:
    """The sessions that the canary has judged, and why a difference of theirs is not enough."""
    return f"{now.judged:,} sessions" + (f" ({one_line(now.doubt)})" if now.doubt else "")


def best_candidate(candidates: Sequence[str], verdicts: Mapping[str, Verdict]) -> str | None:
    """The one with the strongest answer of the gate, then the greatest difference; None if none may serve.

    *better* comes before *no harm seen*, also where that one has the greater difference, as this difference
    is less sure: its interval reaches further down, or it is the lower bound of heavy weights, which holds
    only if the recorded probabilities and the ends of the reward are right, and nobody can see whether they
    are. The choice costs a round at most: the next one learns both kinds of candidates again.
    """
    passed = [name for name in candidates if _may_serve(verdicts[name])]
    if not passed:
        return None
    return max(passed, key=lambda name: (-MAY_START.index(verdicts[name].answer), verdicts[name].difference))


def _may_serve(verdict: Verdict) -> bool:
    gains = verdict.answer != CANT_TELL or verdict.difference > 0
    return verdict.answer in MAY_START and gains and not verdict.refused


def _answers(candidates: Sequence[str], verdicts: Mapping[str, Verdict]) -> str:
    """What was found about each candidate."""
    found = [verdicts[name] for name in candidates]
    return ", ".join(one_line(of.refused) if of.refused else of.answer for of in found)

"""The check of the estimator `world`: its prediction for a logger whose sessions it was not fitted on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from recsys_rl.ope.estimate import Estimate
from recsys_rl.ope.intervals import student_t
from recsys_rl.ope.judging import Judgement
from recsys_rl.ope.printing import number
from recsys_rl.ope.world import world
from recsys_rl.workflows.ope_bench import Bench

OFF = 0.1
"""Error of the prediction, as a share of what the logger earned, above which the check warns."""


@dataclass(frozen=True)
class WorldCheck:
    """A logger's return, predicted by a world of the other loggers' sessions."""

    logger: str
    predicted: float
    earned: float  # mean return of the logger's own sessions
    low: float  # of the interval of `earned`
    high: float

    @property
    def wrong(self) -> bool:
        """True if the prediction lies outside the interval, or is off by more than OFF."""
        off = abs(self.predicted - self.earned)
        return not self.low <= self.predicted <= self.high or off > OFF * abs(self.earned)

    @property
    def sentence(self) -> str:
        off = self.predicted - self.earned
        size = f"{abs(off / self.earned):.0%}" if self.earned else number(abs(off))
        text = (
            f"world without the sessions of {self.logger} predicts {number(self.predicted)} for it; it "
            f"earned {number(self.earned)} [{number(self.low)}, {number(self.high)}]: {size} too "
            f"{'high' if off > 0 else 'low'}."
        )
        return f"Do not trust this: {text}" if self.wrong else text


def with_checks(bench: Bench, judged: dict[str, Judgement]) -> tuple[dict[str, Judgement], list[WorldCheck]]:
    """The judgements whose rows of `world` hold the check in their warnings, and the checks."""
    if not any(row.estimator == "world" for x in judged.values() for row in x.estimates):
        return judged, []
    checks = world_checks(bench)
    texts = tuple(x.sentence for x in checks) or (_not_checked(bench),)

    def marked(row: Estimate) -> Estimate:
        if row.estimator != "world":
            return row
        return dataclasses.replace(row, warnings=(*row.warnings, *texts))

    return {
        name: dataclasses.replace(x, estimates=[marked(row) for row in x.estimates])
        for name, x in judged.items()
    }, checks


def _not_checked(bench: Bench) -> str:
    """The sentence for a world without a check: the reason, and what the check needs."""

    def sentence(reason: str, needed: str) -> str:
        return (
            f"The model was not checked on a policy that it was not fitted on, {reason}: the check needs "
            f"{needed}."
        )

    if bench.behaviours is None:
        return sentence(
            "as none of the policies that logged can be played without a checkpoint",
            "a log of recsys-rl record by two policies, with its --checkpoint",
        )
    if bench.fitted is not None:
        return sentence(
            "as the propensities are estimated, so that no logger can be recognised by them",
            "a log with propensities",
        )
    if len(bench.prepared.log.loggers.unique()) < 2:
        return sentence(
            "as one policy logged all sessions",
            "sessions of a second policy (record --policy A --policy B)",
        )
    return sentence(
        "as no logger's policy can be played with this checkpoint, or too few users are left without its "
        "sessions",
        "the checkpoint of the loggers, and sessions of more users",
    )


def world_checks(bench: Bench) -> list[WorldCheck]:
    """A check by each logger whose policy can be played."""
    of, names = bench.prepared, bench.prepared.log.header.loggers
    discounts = of.gamma ** torch.arange(of.grid.shape[1], dtype=torch.float64)
    found = []
    for place in of.log.loggers.unique().tolist():
        others = of.log.loggers != place
        policy = bench.loggers.behaviour(place) if bool(others.any()) else None
        if policy is None:  # unknown, or a policy of the same name, of another checkpoint
            continue
        # The model of a fold needs rows of another one.
        if len(of.folds[others].unique()) < 2 or (worlds := bench.worlds(others)) is None:
            continue
        mine = of.log.loggers[of.grid[:, 0]] == place
        returns = of.on_grid(of.rewards)[mine] @ discounts
        if len(of.users[mine].unique()) < 2:
            continue
        low, high = student_t(returns, of.users[mine])
        predicted = float(world(worlds, policy).mean())
        found.append(WorldCheck(names[place], predicted, float(returns.mean()), low, high))
    return found

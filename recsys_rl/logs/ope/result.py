"""The result of `recsys-rl ope`: typed rows, what was not computed, the comparison; and their JSON."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from recsys_rl.logs.ope.answer import EXIT_CODES, Answer
from recsys_rl.logs.ope.diagnostics import LOST, PROMISES, Calibration, WeightReport
from recsys_rl.logs.ope.propensities import PropensityFit
from recsys_rl.logs.ope.unknown import UnknownItems

LOGGED = "logged"
"""The name of the log's own policies, whose row is what they earned."""


def number(value: float) -> str:
    """Three decimals, or three digits if the value is small or huge: click rates are a few thousandths."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


@dataclass(frozen=True)
class Estimate:
    """One row of the table: an estimated return, and what it rests on."""

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    interval: str  # a key of diagnostics.PROMISES
    weights: WeightReport | None  # of the weights that it rests on; None: it uses none
    unsupported: float = 0.0  # share of the policy's mass where the log has none
    calibration: Calibration | None = None  # of its reward model
    clip: float | None = None
    warnings: tuple[str, ...] = ()
    recommended: bool = False
    estimated_propensities: bool = False  # True if the log has none, and a model filled them in
    move: float = 0.0  # the standard errors by which one row could move it

    @property
    def promise(self) -> str:
        return PROMISES[self.interval]

    @property
    def warning(self) -> str:
        return " ".join(self.warnings)

    @property
    def covered(self) -> bool:
        """False if the logging policy can't make more than LOST of the policy's choices."""
        return self.unsupported <= LOST

    def row(self) -> dict[str, float | str | bool | list[str] | None]:
        """The values of a JSON row; None for a number that the row lacks."""
        of, q = self.weights, self.calibration
        return {
            "policy": self.policy,
            "estimator": self.estimator,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "interval": self.interval,
            "ess": None if of is None else of.ess,
            "mean_weight": None if of is None else of.mean,
            "mean_weight_low": None if of is None else of.mean_low,
            "mean_weight_high": None if of is None else of.mean_high,
            "largest_weight": None if of is None else of.largest,
            "largest_share": None if of is None else of.largest_share,
            "pareto_k": None if of is None else of.pareto_k,
            "move": self.move,
            "unsupported": self.unsupported,
            "mean_q": None if q is None else q.mean_q,
            "mean_reward": None if q is None else q.mean_reward,
            "q_slope": None if q is None else q.slope,
            "clip": self.clip,
            "propensities": "estimated" if self.estimated_propensities else "logged",
            "warning": self.warning,
            "warnings": list(self.warnings),
            "recommended": self.recommended,
        }


@dataclass(frozen=True)
class Difference:
    """The difference of two policies on the same log, by one estimator."""

    first: str
    second: str
    estimator: str
    value: float  # first minus second
    low: float  # infinite by a bound alone, as ``high``: then ``value`` is too near 0 on average
    high: float
    rows: int  # of the log
    # That would settle it, if the difference is as estimated; 0 if it is settled, infinite if none would or
    # if the estimate is too poor to tell.
    more_rows: float
    doubt: str = ""  # the warnings of the rows behind it
    covered: bool = True  # False if the log lacks actions that one of the two takes
    trusted: bool = True  # False if the estimator is not recommended: the interval may miss the truth
    model: str = ""  # in words: the learned model behind it, if it was not checked, or failed a check
    missing: str = ""  # the estimator that can't be computed, and in whose place ``estimator`` stands
    same: tuple[str, ...] = ()  # the policies that are the one that logged, where both are: 0 by construction

    @property
    def settled(self) -> bool:
        return self.trusted and (self.low > 0 or self.high < 0)

    @property
    def sentence(self) -> str:
        """The answer in one sentence, and ``doubt`` if there is any."""
        why = "Do not trust this: no estimator is recommended on this log."
        return " ".join(text for text in (self._answer, "" if self.trusted else why, self.doubt) if text)

    @property
    def brief(self) -> str:
        """The answer in one sentence, and that ``doubt`` is to be read elsewhere, if there is any."""
        text = self._answer if self.trusted else f"{self._answer} Do not trust this."
        return f"{text} See the warnings above." if self.doubt else text

    @property
    def _answer(self) -> str:
        if self.same:
            are, give = ("is", "it gives") if len(self.same) == 1 else ("are", "they give")
            return (
                f"{' and '.join(self.same)} {are} the policy that logged, as {give} the logged propensities "
                f"on every row: {self.first} minus {self.second} is 0 by construction."
            )
        by = self.estimator
        if self.missing:
            fit = ", and the weights are good enough for it" if self.trusted else ""
            by += f" (as {self.missing} can't be computed{fit})"
        better = self.first if self.value > 0 else self.second
        names = f"{self.first} minus {self.second} by {by}"
        if math.isinf(self.low) or math.isinf(self.high):
            least = self.low if self.value > 0 else self.high
            return f"{names}, which gives a bound alone: at {_most(least)} {least:.4g}: {better} is better."
        names += f": {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        if self.settled:
            model = f", by {self.model}: don't rely on it" if self.model else ""
            return f"{names}: {better} is better{model}."
        if not self.covered:
            return (
                f"{names}: no answer, and more rows like these would not settle it, as the log lacks actions "
                "that one of the two takes."
            )
        if not self.trusted:
            return f"{names}: no answer."
        if not math.isfinite(self.more_rows):
            return f"{names}: no difference was seen, and no number of rows would settle it."
        return f"{names}: not enough data; about {self.more_rows:,.0f} more rows like these would settle it."


def _most(bound: float) -> str:
    return "least" if bound > 0 else "most"


@dataclass(frozen=True)
class Verdict:
    """A row of the small table."""

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    ess: float | None = None  # effective sample size of its weights; None without weights
    promise: bool = True  # False: the interval promises no coverage
    answer: Answer | Literal[""] = ""  # against what the log earned, or another policy; "" for the log itself
    difference: tuple[float, float, float] | None = None  # from that, with its interval
    reason: str = ""  # why nobody can tell, or what is broken
    against: str = LOGGED
    by: str = ""  # the estimator of the answer and the difference, if it is a lower bound

    def values(self) -> dict[str, Any]:
        """The values of a JSON row; numbers that are not finite are null."""
        numbers = {name: finite(value) for name, value in vars(self).items()}
        between = None if self.difference is None else [finite(value) for value in self.difference]
        return {**numbers, "difference": between}

    def json(self) -> dict[str, Any]:
        """The values in the JSON file of ``ope``."""
        return {**self.values(), "text": self.sentence, "exit_code": EXIT_CODES[self.answer]}

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        other = "what the log earned" if self.against == LOGGED else self.against
        return f"verdict on {self.policy} against {other}: {self.words}"

    @property
    def words(self) -> str:
        """The answer with its number and its reason."""
        return f"{self.answer}{self._by}{self._why}"

    @property
    def _by(self) -> str:
        if self.answer not in ("better", "worse") or self.difference is None:
            return ""
        value, near, far = (number(abs(x)) for x in _ordered(self.difference))
        if self.by:
            return f" by at least {near} ({self.by})"
        return f" by {value} [{near}, {far}]"

    @property
    def _why(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return why if self.promise else f"{why} ({self.estimator}: no promise)"


def _ordered(of: tuple[float, float, float]) -> tuple[float, float, float]:
    """A difference with its interval, as amounts: the nearer end first."""
    value, low, high = of
    return (value, low, high) if value > 0 else (value, high, low)


OFF = 0.1
"""Error of the prediction, as a share of what the logger earned, above which the check warns."""


@dataclass(frozen=True)
class WorldCheck:
    """A logger's return, predicted by a world model of the other loggers' sessions."""

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


@dataclass(frozen=True)
class NotComputed:
    """Estimators that the log or a policy does not allow."""

    reason: str  # the end of a sentence
    estimators: tuple[str, ...]
    policies: tuple[str, ...]  # empty: whatever the policy


@dataclass(frozen=True)
class About:
    """The log and the settings of the estimates."""

    log: str | None
    checkpoint: str | None
    decisions: int
    sessions: int
    users: int
    items: int
    discount: float  # of the estimates
    log_discount: float  # with which the log's policy learned
    loggers: tuple[str, ...]
    q: str
    clusters: str  # the groups of items for mips and offcem, in words; "" without groups
    fitted: int  # decisions of the sessions on which models were fitted
    late_feedback: int = 0  # decisions of the whole log, as of logs/intervals.LATE


@dataclass(frozen=True)
class OpeResult:
    """All estimates of all policies on one log."""

    about: About
    rows: tuple[Estimate, ...]
    not_computed: tuple[NotComputed, ...]
    propensities: PropensityFit | None  # None: the log has its own
    world_checks: tuple[WorldCheck, ...]
    compare: Difference | None
    verdicts: tuple[Verdict, ...] = ()  # the small table
    verdict: Verdict | None = None  # of --verdict
    unknown: UnknownItems | None = None  # None: the policy knows all items of the log

    @property
    def promises(self) -> dict[str, str]:
        """The promise of each kind of interval of the rows."""
        return {kind: PROMISES[kind] for kind in sorted({row.interval for row in self.rows})}

    def to_frame(self) -> pl.DataFrame:
        """The rows of the table as a data frame, with all numbers of each estimate."""
        return pl.DataFrame([row.row() for row in self.rows], infer_schema_length=None)

    def json(self) -> dict[str, Any]:
        """The content of the JSON file. Numbers that are not finite are null."""
        of = dataclasses.asdict(self.about)
        of["promises"] = self.promises
        compare = None
        if self.compare is not None:
            compare = {name: finite(value) for name, value in dataclasses.asdict(self.compare).items()}
            compare |= {"text": self.compare.sentence, "brief": self.compare.brief}
        return {
            "about": of,
            "rows": [{name: finite(value) for name, value in row.row().items()} for row in self.rows],
            "not_computed": [dataclasses.asdict(missing) for missing in self.not_computed],
            "propensities": None if self.propensities is None else self.propensities.row(),
            "world_checks": [
                dataclasses.asdict(check) | {"wrong": check.wrong, "text": check.sentence}
                for check in self.world_checks
            ],
            "compare": compare,
            "verdict": None if self.verdict is None else self.verdict.json(),
            "unknown": None if self.unknown is None else self.unknown.json(),
        }


def finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

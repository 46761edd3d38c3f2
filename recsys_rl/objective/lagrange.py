"""Limits on streams, by Lagrange multipliers: maximise the reward subject to ads <= 0.1.

A limit is a stream, a side and a bound. The value of a stream is a ratio (limit_streams.py), so "value <=
bound" is the linear constraint E[amount - bound base] <= 0, and its Lagrangian is a reward at each step::

    c_jt = amount_jt - bound_j base_jt
    r'_t = (r_t - sum_j m_j s_j c_jt) / (1 + sum_j p_j)      s = 1 for <=, -1 for >=;  m_j = u_j p_j

m_j >= 0 is the price of one unit of the stream, in units of the reward. The divisor keeps the size of the
rewards while prices rise; it does not change which policy is best. A PI controller moves each price after
each rollout (Stooke et al. 2020, arXiv:2007.03964, algorithm 2, without the derivative)::

    e = s sum(c) / sum(base)      w = sqrt(sum(c^2) / sum(base))      u = sigma / w
    I <- clip(I + k_i / U e / w, 0, most)    p = clip(k_p e / w + I, 0, most)

sigma is the standard deviation of the rewards in the latest rollouts, and U the updates of the run. So
neither the size of the rewards nor that of the stream matters to the gains: ``|e / w|`` is at most
sqrt(n / sum(base)) for n steps with a base above 0 (Cauchy and Schwarz). That is 1 where each base is 0 or 1,
and more for slates of which few places count: 2 if each has one such place in four. With the price u the
limit has about the weight of all rewards in the advantages (Stooke et al. scale by the norms of both
gradients). A policy of a longer run moves less in each update, and so does I.

docs/ppo_details.md derives it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.errors import FieldError, one_line
from recsys_rl.objective.limit_streams import LimitStream
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.types import Rollout

FIELD = "train_config.limit"
TOLERANCE = 0.05  # of the bound, within which a limit counts as met at the end of a run
LATEST = 0.1  # weight of the latest rollout in moving means: of the values, and of the variance of rewards
EXAMPLE = '"ads<=0.1"'
OF_EACH = ("integral", "price", "deviation", "latest", "mean", "was_met")  # the state of each limit


@dataclass(frozen=True)
class Limit:
    """A bound on the value of a stream."""

    stream: str
    side: str  # "<=" or ">="
    bound: float

    @property
    def sign(self) -> float:
        return 1.0 if self.side == "<=" else -1.0

    @property
    def column(self) -> str:
        """The name of its multiplier in the log."""
        return f"multiplier_{self.stream}_{'max' if self.side == '<=' else 'min'}"

    def __str__(self) -> str:
        return f"{self.stream}{self.side}{self.bound:g}"

    def excess(self, value: float) -> float:
        """The amount by which ``value`` violates the limit; negative within it."""
        return self.sign * (value - self.bound)


def parse_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """The limits in texts such as ``("ads<=0.1", "watch>=0.5")``.

    Raises FieldError for another text, a bound that is not finite, a limit twice, and limits that exclude
    each other.
    """
    limits: dict[tuple[str, str], Limit] = {}
    for text in texts:
        parts = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            bound = float(parts[3]) if parts else math.nan
        except ValueError:
            bound = math.nan
        if parts is None or not math.isfinite(bound):
            raise FieldError(
                FIELD,
                f"{one_line(text)} is not a limit: give NAME<=NUMBER or NAME>=NUMBER in quotes, as "
                f"{EXAMPLE}.",
            )
        limit = Limit(parts[1], parts[2], bound)
        same = limits.setdefault((limit.stream, limit.side), limit)
        if same is not limit:
            raise FieldError(FIELD, f"names {one_line(limit.stream)}{limit.side} twice: give one bound.")
    for (stream, side), limit in limits.items():
        other = limits.get((stream, ">="))
        if side == "<=" and other is not None and other.bound > limit.bound:
            raise FieldError(
                FIELD, f"{limit} and {other} exclude each other: give one of them, or other bounds."
            )
    return tuple(limits.values())


def check_limits(limits: Sequence[Limit], streams: Mapping[str, LimitStream]) -> None:
    """Raise FieldError for a limit on a stream that does not exist, and for one that no policy can meet."""
    for limit in limits:
        stream = streams.get(limit.stream)
        if stream is None:
            raise FieldError(
                FIELD,
                f"names the stream {one_line(limit.stream)}, which this platform lacks: choose from "
                f"{', '.join(streams)}.",
            )
        if limit.excess(stream.low) > 0 and limit.excess(stream.high) > 0:
            raise FieldError(
                FIELD,
                f"{limit} can't be met, as {stream.name} lies in {stream.low:g} .. {stream.high:g}: give a "
                "bound within this range.",
            )


class Limits:
    """The objective of a run with limits. Its state: I, m, the values, and whether limits were ever met."""

    def __init__(
        self,
        limits: Sequence[Limit],
        streams: Mapping[str, LimitStream],
        config: TrainConfig,
        num_updates: int,
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """Raise FieldError as ``check_limits``.

        Args:
            num_updates: U.
            average: replaces a tensor by its mean over processes.
        """
        check_limits(limits, streams)
        self.limits, self.config, self.average = tuple(limits), config, average
        self.streams = [streams[limit.stream] for limit in limits]
        self.ki, count = config.limit_ki / num_updates, len(limits)
        self.unit = 0.0  # sigma; 0 until rewards differ
        self.integral, self.price = [0.0] * count, [0.0] * count  # I, p
        self.deviation = [1.0] * count  # w
        self.latest, self.mean = [math.nan] * count, [math.nan] * count  # NaN until the stream has a value
        self.was_met = [False] * count

    @property
    def multiplier(self) -> list[float]:
        """m of each limit."""
        return [(self.unit or 1.0) * p / w for p, w in zip(self.price, self.deviation, strict=True)]

    def apply(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        """Move the multipliers by the values of this rollout, and charge its rewards for the streams."""
        measured = [
            (stream.amounts(rollout).float(), stream.bases(rollout).float()) for stream in self.streams
        ]
        costs = [a - limit.bound * b for limit, (a, b) in zip(self.limits, measured, strict=True)]  # (T, N)
        pairs = zip(costs, measured, strict=True)
        sums = [tensor.double().sum() for c, (amount, base) in pairs for tensor in (amount, base, c.square())]
        totals = torch.stack([*sums, rollout.rewards.double().var(correction=0)])  # (3 J + 1,)
        if self.average is not None:
            self.average(totals)
        latest, before = totals[-1].item(), self.unit**2
        self.unit = math.sqrt(before + LATEST * (latest - before) if before else latest)
        for index, (amount, base, square) in enumerate(totals[:-1].view(-1, 3).tolist()):
            if base > 0:
                self._move(index, amount / base, math.sqrt(square / base))
        rewards = rollout.rewards
        for limit, stream, multiplier, cost, (amounts, _) in zip(
            self.limits, self.streams, self.multiplier, costs, measured, strict=True
        ):
            rewards = rewards - multiplier * limit.sign * (amounts if stream.of_sessions else cost)
        numbers = {
            f"limit_{limit.stream}": value for limit, value in zip(self.limits, self.latest, strict=True)
        }
        numbers |= {limit.column: m for limit, m in zip(self.limits, self.multiplier, strict=True)}
        numbers["limits_met"] = sum(map(self._is_met, range(len(self.limits)))) / len(self.limits)
        return dataclasses.replace(rollout, rewards=rewards / (1 + sum(self.price))), numbers

    def _move(self, index: int, value: float, deviation: float) -> None:
        """The PI controller of one limit.

        ``deviation``: w, which is 0 where each step is at the bound. The error e / w is 0 there, so that the
        price is I; if rounding makes e positive, the price stays.
        """
        limit, config = self.limits[index], self.config
        excess = limit.excess(value)
        if deviation > 0:
            error = excess / deviation
            integral = min(max(self.integral[index] + self.ki * error, 0.0), config.limit_most)
            self.integral[index] = integral
            self.price[index] = min(max(config.limit_kp * error + integral, 0.0), config.limit_most)
            self.deviation[index] = deviation
        elif excess <= 0:  # the limit is met exactly: no proportional part
            self.price[index] = self.integral[index]
        before = self.mean[index]
        self.latest[index] = value
        self.mean[index] = value if math.isnan(before) else before + LATEST * (value - before)
        self.was_met[index] |= excess <= TOLERANCE * abs(limit.bound)

    def _is_met(self, index: int) -> bool:
        """True if the moving mean of the value over the latest rollouts is within the bound, by TOLERANCE."""
        limit = self.limits[index]
        return limit.excess(self.mean[index]) <= TOLERANCE * abs(limit.bound)

    def verdict(self) -> str:
        """A sentence for each limit: its value at the end of the run, and what to do if it is not met."""
        sentences = []
        for index, (limit, mean) in enumerate(zip(self.limits, self.mean, strict=True)):
            if math.isnan(mean):
                sentences.append(f"The limit {limit} was not checked, as no session has ended: train longer.")
            elif self._is_met(index):
                sentences.append(
                    f"The limit {limit} is met: at the end {limit.stream} is {mean:.3g} with the multiplier "
                    f"{self.multiplier[index]:.3g}."
                )
            else:
                ever = "an earlier policy" if self.was_met[index] else "no policy"
                sentences.append(
                    f"The limit {limit} is not met: at the end {limit.stream} is {mean:.3g} with the "
                    f"multiplier {self.multiplier[index]:.3g}, and {ever} of this run met it; train longer, "
                    "raise --limit-ki, or give another bound."
                )
        return "\n".join(sentences)

    def state_dict(self) -> dict[str, Tensor]:
        """float64: (J,) each, and the unit ()."""
        names = ("unit", *OF_EACH)
        return {f"limit_{name}": torch.tensor(getattr(self, name), dtype=torch.float64) for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError or ValueError for a state of other limits."""
        states, unit = {name: state[f"limit_{name}"] for name in OF_EACH}, state["limit_unit"].item()
        if any(values.shape != (len(self.limits),) for values in states.values()):
            raise ValueError("multipliers of other limits")
        most = self.config.limit_most
        if not bool(((states["integral"] >= 0) & (states["integral"] <= most)).all()):
            raise ValueError("integrals outside their range")
        if not bool(((states["price"] >= 0) & (states["price"] <= most)).all()):
            raise ValueError("prices outside their range")
        if not 0 <= unit < math.inf or not bool(
            ((states["deviation"] > 0) & states["deviation"].isfinite()).all()
        ):
            raise ValueError("deviations that can't be")
        for name, values in states.items():
            setattr(self, name, values.tolist())
        self.was_met, self.unit = [bool(met) for met in self.was_met], unit

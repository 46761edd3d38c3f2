"""The numbers of the table, as plain values: rows, yardstick, paired differences, shares of the way.

The **yardstick** is the best policy that learns no network and sees only what the agent sees (YARDSTICKS),
by mean return over the users of the table. The **share** of a policy is its part of the way from the
yardstick to the upper reference (`planner`, or else `oracle`)::

    share = mean(policy - yardstick) / mean(reference - yardstick)

This is a ratio of two means over the same users, the users that the reference has played. Its 95 % interval
comes from the delta method (Casella and Berger 2002, section 5.5.4). With share s and d_n =
(policy - yardstick)_n - s (reference - yardstick)_n, the standard error of s is
std(d) / (sqrt(N) * mean(reference - yardstick)).

The **gain** of a policy over a rival (RIVALS) is mean(policy) / mean(rival) - 1 for the same users; its
interval comes from the same method.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.columns import numbers_of
from recsys_rl.experience.rollout import Sessions
from recsys_rl.records import TRADE
from recsys_rl.types import Catalogue, empty_world
from recsys_rl.utils.metrics import interval

YARDSTICKS = (
    "random",
    "popularity",
    "one-item",
    "static-list",
    "mf",
    "mmr",
    "linucb",
    "lints",
    "rule",
    "searched",
)
RIVALS = ("rule", "searched")
"""Rows that trials in the simulator find, as they find a policy: the gain over each is in the table."""
ORACLE = "oracle"  # it knows the best expected return; a planner only searches for it
REFERENCES = ("planner", ORACLE)
ROUNDING = 1e-5  # two mean returns with a smaller relative difference count as equal
Row = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """The sessions of one policy with some or all of the table's users."""

    sessions: Sessions
    places: Tensor  # (n,) int64, ascending: places of its users among the users of the table
    note: str = ""  # tuned values, or another fact about the row


def summarise(
    env: str,
    played: Mapping[str, Played],
    checkpoints: Sequence[str],
    policies: Sequence[str] = (),
    catalogue: Catalogue | None = None,
    foreign: bool = False,
) -> dict[str, Any]:
    """The table as plain values, as ``--json`` writes it.

    Args:
        env: the name of the environment.
        played: the rows in their order.
        checkpoints: names of the checkpoints; each has the rows ``name`` and ``name-greedy``.
        policies: names of the rows of the user's own policies.
        catalogue: of the items; None without items.
        foreign: it is an environment of Gymnasium, with episodes and seeds in place of sessions and users.

    Returns: ``env``; ``sessions``, the largest number of users of a row; ``rows`` (``policy``, ``users``,
    ``return_mean``, ``return_low``, ``return_high``, and the COLUMNS by their keys); ``yardstick``, "" if
    none was played; ``paired`` differences of each learned policy to it, and between the checkpoints
    (``policy``, ``versus``, ``mean``, ``low``, ``high``); ``shares`` (``policy``, ``from``, ``to``,
    ``share``, ``low``, ``high``); ``gains`` over the RIVALS (``policy``, ``versus``, ``gain``, ``low``,
    ``high``), each over the ``users`` that all of its rows have played; ``regret`` (``policy``, ``versus``,
    ``mean``, ``low``, ``high``), the cumulative regret of a session: the oracle's return minus the policy's
    for the same user, empty without an oracle; ``notes`` {row: text}; ``learned``, the names of the learned
    rows; and ``foreign`` if it is True.
    """
    yardstick = best_of(
        yardsticks(played), {name: player.sessions.returns.mean().item() for name, player in played.items()}
    )
    learned = [row for name in checkpoints for row in (name, f"{name}-greedy")]
    compared = [name for name in (*learned, *policies) if name in played and yardstick]
    pairs = [(name, yardstick) for name in compared]
    for other in checkpoints[1:]:
        pairs += [(checkpoints[0], other), (f"{checkpoints[0]}-greedy", f"{other}-greedy")]
    pairs = [(name, versus) for name, versus in pairs if name in played and versus in played]
    reference = next((name for name in REFERENCES if name in played), None)
    items = catalogue or empty_world().catalogue
    return {
        "env": env,
        "sessions": max(len(player.places) for player in played.values()),
        "rows": [_row(name, player, items) for name, player in played.items()],
        "yardstick": yardstick,
        "paired": [_compared(played, "mean", difference, n, {"versus": other}) for n, other in pairs],
        "shares": [
            _compared(played, "share", share_of_way, name, {"from": yardstick, "to": reference})
            for name in compared
            if reference is not None
        ],
        "gains": [
            _compared(played, "gain", relative_gain, name, {"versus": rival})
            for name in compared
            for rival in RIVALS
            if rival in played
        ],
        "regret": [
            _compared(played, "mean", lambda ours, best: difference(best, ours), name, {"versus": ORACLE})
            for name in played
            if ORACLE in played and name != ORACLE
        ],
        "notes": {name: player.note for name, player in played.items() if player.note},
        "learned": learned,
    } | ({"foreign": True} if foreign else {})


def yardsticks(policies: Iterable[str]) -> list[str]:
    """The names of YARDSTICKS, and of ``policies`` the heuristics of the platform."""
    return [*YARDSTICKS, *(name for name in policies if name.startswith(TRADE))]


def best_of(names: Sequence[str], means: Mapping[str, float]) -> str:
    """The name with the highest mean; the first one if several are equal up to rounding; "" without any."""
    there = [name for name in names if name in means]
    if not there:
        return ""
    highest = max(means[name] for name in there)
    return next(name for name in there if means[name] >= highest - ROUNDING * abs(highest))


def difference(policy: Tensor, other: Tensor) -> tuple[float, float, float]:
    """The mean difference of the returns (N,) of the same users, with its 95 % interval."""
    estimate = interval(policy - other)
    return estimate.mean, estimate.low, estimate.high


def share_of_way(policy: Tensor, start: Tensor, end: Tensor) -> tuple[float, float, float]:
    """The share of ``policy`` on the way from ``start`` to ``end``, with its 95 % interval.

    All three are returns (N,) of the same users. The share is NaN if ``end`` does not lie above ``start``.
    The bounds are NaN if the 95 % interval of ``end - start`` contains zero, as the ratio then has no finite
    interval.
    """
    gain, way = (policy - start).double(), (end - start).double()  # (N,) each
    if way.mean() <= ROUNDING * end.double().abs().mean():
        return math.nan, math.nan, math.nan
    share = (gain.mean() / way.mean()).item()
    spread = interval((gain - share * way) / way.mean())  # its mean is zero
    if not interval(way).low > 0:
        return share, math.nan, math.nan
    return share, share + spread.low, share + spread.high


def relative_gain(policy: Tensor, rival: Tensor) -> tuple[float, float, float]:
    """The gain of ``policy`` over ``rival``, with its 95 % interval; both are returns (N,) of the same users.

    It is NaN if the rival's mean is not above 0.
    """
    ours, theirs = policy.double(), rival.double()
    if theirs.mean() <= 0:
        return math.nan, math.nan, math.nan
    ratio = (ours.mean() / theirs.mean()).item()
    spread = interval((ours - ratio * theirs) / theirs.mean())  # its mean is zero
    return ratio - 1, ratio - 1 + spread.low, ratio - 1 + spread.high


def mean_over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One table from the tables of several seeds: means, and intervals (Student's t) over seeds.

    ``results`` are results of ``summarise``, or their JSON. Each seed has its own yardstick, the best row of
    that seed, and its differences and shares refer to this yardstick. ``yardstick`` is the best row by mean
    over seeds. ``notes`` are joined over seeds.
    """
    rows = mean_rows([result["rows"] for result in results])
    means = {str(row["policy"]): row["return_mean"] for row in rows}
    notes: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for name, note in result["notes"].items():
            notes[name].append(note)
    return {
        "env": results[0]["env"],
        "seeds": len(results),
        "sessions": sum(result["sessions"] for result in results),
        "rows": rows,
        "yardstick": best_of(yardsticks(means), means),
        "paired": _mean_values([result["paired"] for result in results], "versus", "mean"),
        "shares": _mean_values([result["shares"] for result in results], "from", "share"),
        "gains": _mean_values([result.get("gains", []) for result in results], "versus", "gain"),
        "regret": _mean_values(_common([result.get("regret", []) for result in results]), "versus", "mean"),
        "notes": {name: "; ".join(dict.fromkeys(texts)) for name, texts in notes.items()},
        **{key: results[0][key] for key in ("learned", "foreign") if key in results[0]},
    }


def mean_rows(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """The rows of several seeds as one table: means over seeds, ``worst`` seed, 95 % interval of the mean.

    ``users`` are added up, and every other number that a row of some seed has is averaged. A policy that is
    missing on one of the seeds is left out.
    """
    means = []
    for name in (row["policy"] for row in tables[0]):
        rows = [row for table in tables for row in table if row["policy"] == name]
        if len(rows) < len(tables):
            continue
        returns = [number(row["return_mean"]) for row in rows]
        mean = interval(torch.tensor(returns, dtype=torch.float64))
        bounds = {"return_mean": mean.mean, "return_low": mean.low, "return_high": mean.high}
        others = _means([{k: v for k, v in row.items() if k != "policy" and k not in bounds} for row in rows])
        means.append({"policy": name, **bounds, "worst": min(returns), **others})
    return means


def _means(rows: Sequence[Mapping[str, Any]]) -> Row:
    """The mean of each number, and of each number of a group; of ``users`` the sum. NaN if a row lacks it."""
    means: Row = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if any(isinstance(value, Mapping) for value in values):
            means[key] = _means([value or {} for value in values])
        else:
            means[key] = sum(map(number, values)) / (1 if key == "users" else len(rows))
    return means


def number(value: float | None) -> float:
    """A number of the table or of its JSON, in which NaN is null."""
    return math.nan if value is None else value


def _row(name: str, played: Played, catalogue: Catalogue) -> Row:
    mean = interval(played.sessions.returns)
    return {
        "policy": name,
        "users": len(played.places),
        "return_mean": mean.mean,
        "return_low": mean.low,
        "return_high": mean.high,
        **numbers_of(played.sessions, catalogue),
    }


def _returns(played: Mapping[str, Played], *names: str) -> list[Tensor]:
    """The returns of these policies, for the users that all of them have played."""
    common = played[names[0]].places
    for name in names[1:]:
        common = common[torch.isin(common, played[name].places)]
    return [played[name].sessions.returns[torch.isin(played[name].places, common)] for name in names]


def _compared(
    played: Mapping[str, Played],
    value: str,
    estimate: Callable[..., tuple[float, float, float]],
    name: str,
    others: Mapping[str, str],
) -> Row:
    """The ``estimate`` of the returns of ``name`` and of ``others``, rows by their keys in the result."""
    returns = _returns(played, name, *others.values())
    of_policy, low, high = estimate(*returns)
    return {"policy": name, **others, value: of_policy, "low": low, "high": high, "users": len(returns[0])}


def _common(tables: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """The rows of the policies that every table has, in the order of the first table."""
    by_name = [{row["policy"]: row for row in rows} for rows in tables]
    names = [row["policy"] for row in tables[0] if all(row["policy"] in rows for rows in by_name)]
    return [[rows[name] for name in names] for rows in by_name]


def _mean_values(tables: Sequence[Sequence[Row]], other: str, value: str) -> list[Row]:
    """The means of ``value`` over seeds, row by row, and the ``worst`` seed's.

    The policy in ``other`` may differ between seeds.
    """
    means = []
    for rows in zip(*tables, strict=True):
        values = [number(row[value]) for row in rows]
        mean = interval(torch.tensor(values, dtype=torch.float64))
        names = "/".join(dict.fromkeys(row[other] for row in rows))
        bounds = {value: mean.mean, "low": mean.low, "high": mean.high, "worst": min(values)}
        if all("users" in row for row in rows):
            bounds["users"] = sum(row["users"] for row in rows)
        means.append({**rows[0], other: names, **bounds})
    return means

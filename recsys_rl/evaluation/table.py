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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.exposure import exposure
from recsys_rl.evaluation.lives import life_columns
from recsys_rl.experience.rollout import Sessions
from recsys_rl.records import TRADE
from recsys_rl.types import Catalogue
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
    num_items: int = 0,
    catalogue: Catalogue | None = None,
) -> dict[str, Any]:
    """The table as plain values, as ``--json`` writes it.

    Args:
        env: the name of the environment.
        played: the rows in their order.
        checkpoints: names of the checkpoints; each has the rows ``name`` and ``name-greedy``.
        policies: names of the rows of the user's own policies.
        num_items: size of the catalogue; 0 without one, and then there is no coverage.
        catalogue: adds the columns of ``exposure`` to the rows.

    Returns: ``env``; ``sessions``, the largest number of users of a row; ``rows`` (``policy``, ``users``,
    ``return_mean``, ``return_low``, ``return_high``, ``length_mean``, ``distinct_mean``, ``coverage``; and
    ``streams`` {name: mean sum over a session, without weight} if there are several; and of lives the columns
    of ``life_columns``);
    ``yardstick``, "" if none was played; ``paired`` differences of each learned policy to it, and between the
    checkpoints (``policy``, ``versus``, ``mean``, ``low``, ``high``); ``shares`` (``policy``, ``from``,
    ``to``, ``share``, ``low``, ``high``); ``gains`` over the RIVALS (``policy``, ``versus``, ``gain``,
    ``low``, ``high``), each over the ``users`` that all of its rows have played; ``regret``
    (``policy``, ``versus``, ``mean``, ``low``, ``high``), the cumulative regret of a session: the oracle's
    return minus the policy's for the same user, empty without an oracle; ``notes`` {row: text};
    ``learned``, the names of the learned rows.
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
    return {
        "env": env,
        "sessions": max(len(player.places) for player in played.values()),
        "rows": [_row(name, player, num_items, catalogue) for name, player in played.items()],
        "yardstick": yardstick,
        "paired": [_difference(played, name, versus) for name, versus in pairs],
        "shares": [] if reference is None else [_share(played, n, yardstick, reference) for n in compared],
        "gains": [_gain(played, name, rival) for name in compared for rival in RIVALS if rival in played],
        "regret": _regrets(played),
        "notes": {name: player.note for name, player in played.items() if player.note},
        "learned": learned,
    }


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


def distinct_items(items: Tensor) -> Tensor:
    """The number of different items shown to each user: (T, N, K) with padding -1 -> (N,)."""
    ordered = items.transpose(1, 2).flatten(0, 1).sort(0).values  # (T K, N)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return (new & (ordered >= 0)).sum(0)


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
        "learned": results[0]["learned"],
    }


def mean_rows(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """The rows of several seeds as one table: means over seeds, ``worst`` seed, 95 % interval of the mean.

    ``users`` are added up. A policy that is missing on one of the seeds is left out.
    """
    means = []
    for name in (row["policy"] for row in tables[0]):
        rows = [row for table in tables for row in table if row["policy"] == name]
        if len(rows) < len(tables):
            continue
        returns = [number(row["return_mean"]) for row in rows]
        mean = interval(torch.tensor(returns, dtype=torch.float64))
        bounds = {"return_mean": mean.mean, "return_low": mean.low, "return_high": mean.high}
        others = {key: _mean_of(key, rows) for key in rows[0] if key != "policy" and key not in bounds}
        means.append({"policy": name, **bounds, "worst": min(returns), **others})
    return means


def _mean_of(key: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The mean of a column of the table, or of each number of a column of several; of ``users`` the sum."""
    values = [row[key] for row in rows]
    if isinstance(values[0], Mapping):
        return {name: _mean_of(name, values) for name in values[0]}
    return sum(map(number, values)) / (1 if key == "users" else len(rows))


def number(value: float | None) -> float:
    """A number of the table or of its JSON, in which NaN is null."""
    return math.nan if value is None else value


def _row(name: str, played: Played, num_items: int, catalogue: Catalogue | None) -> Row:
    sessions = played.sessions
    estimate = interval(sessions.returns)
    sums = {stream: values.sum(0).double().mean().item() for stream, values in sessions.streams.items()}
    return {
        "policy": name,
        "users": len(played.places),
        "return_mean": estimate.mean,
        "return_low": estimate.low,
        "return_high": estimate.high,
        "length_mean": sessions.lengths.double().mean().item(),
        "distinct_mean": distinct_items(sessions.items).double().mean().item(),
        "coverage": _coverage(sessions.items, num_items) if num_items else math.nan,
        **life_columns(sessions),
        **({} if catalogue is None else exposure(sessions, catalogue)),
    } | ({"streams": sums} if len(sums) > 1 else {})


def _coverage(items: Tensor, num_items: int) -> float:
    """Share of the catalogue that was shown to at least one user."""
    return len(items[items >= 0].unique()) / num_items


def _returns(played: Mapping[str, Played], *names: str) -> list[Tensor]:
    """The returns of these policies, for the users that all of them have played."""
    common = played[names[0]].places
    for name in names[1:]:
        common = common[torch.isin(common, played[name].places)]
    return [played[name].sessions.returns[torch.isin(played[name].places, common)] for name in names]


def _difference(played: Mapping[str, Played], name: str, versus: str) -> Row:
    ours, theirs = _returns(played, name, versus)
    estimate = interval(ours - theirs)
    bounds = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    return {"policy": name, "versus": versus, **bounds, "users": len(ours)}


def _regrets(played: Mapping[str, Played]) -> list[Row]:
    if ORACLE not in played:
        return []
    regrets = []
    for name in played:
        if name != ORACLE:
            row = _difference(played, ORACLE, name)
            regrets.append(row | {"policy": name, "versus": ORACLE})
    return regrets


def _common(tables: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """The rows of the policies that every table has, in the order of the first table."""
    by_name = [{row["policy"]: row for row in rows} for rows in tables]
    names = [row["policy"] for row in tables[0] if all(row["policy"] in rows for rows in by_name)]
    return [[rows[name] for name in names] for rows in by_name]


def _share(played: Mapping[str, Played], name: str, start: str, end: str) -> Row:
    returns = _returns(played, name, start, end)
    share, low, high = share_of_way(*returns)
    bounds = {"share": share, "low": low, "high": high}
    return {"policy": name, "from": start, "to": end, **bounds, "users": len(returns[0])}


def _gain(played: Mapping[str, Played], name: str, rival: str) -> Row:
    returns = _returns(played, name, rival)
    gain, low, high = relative_gain(*returns)
    bounds = {"gain": gain, "low": low, "high": high}
    return {"policy": name, "versus": rival, **bounds, "users": len(returns[0])}


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

"""Find the facts of learnable.py in a file of decisions, without holding its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_rl.data.tables.layout import ROW
from recsys_rl.data.tables.schema import COLUMNS, column_of, value
from recsys_rl.logs.describe.context_survey import ContextPiece
from recsys_rl.logs.describe.learnable import (
    SAME,
    SURE,
    BestItem,
    DecisionFacts,
    Excess,
    Propensities,
    lower_ends,
    too_often,
)
from recsys_rl.logs.describe.logged_choices import LoggedChoices
from recsys_rl.utils.metrics import interval


def survey_learnable(
    choices: LoggedChoices,
    rewards: Mapping[str, tuple[float, float]],
    users: int | None,
    context: tuple[ContextPiece, ...],
    sound: bool,
) -> DecisionFacts:
    """The facts of a log; the arguments as in ``DecisionFacts``."""
    longest = _longest(choices)
    return DecisionFacts(
        rows=choices.layout.rows,
        users=users,
        longest=longest,
        same_items=_same_items(choices),
        rewards=rewards,
        propensities=survey_propensities(choices, next(iter(rewards), None), longest),
        slate_size=choices.slate_size,
        context=context,
        derived=choices.header is not None,
        sound=sound,
        first=choices.layout.table.place(1),
        has_candidates=choices.has_candidates,
    )


def _longest(choices: LoggedChoices) -> int:
    """The decisions of the longest session; 1 without sessions."""
    name, layout = choices.roles.get("session"), choices.layout
    if name is None:
        return 1
    counts = layout.counts(layout.hash(name), layout.scan.filter(~layout.gap(name)))["count"]
    return int(counts.to_numpy().max(initial=1))


def _same_items(choices: LoggedChoices) -> bool:
    """True if each row shows the same; in a slate the order counts."""
    hashes = choices.layout.hash(choices.roles["item"])
    ends = choices.shown.select(least=hashes.min(), largest=hashes.max())
    least, largest = choices.layout.collect(ends).row(0)
    return bool(least == largest)


Sums = Mapping[str, NDArray[np.float64]]


def survey_propensities(choices: LoggedChoices, reward: str | None, longest: int) -> Propensities | None:
    """The propensities of a log; None if it has none.

    Args:
        reward: the column of the reward; None without one.
        longest: decisions of the longest session.
    """
    if choices.propensity is None:
        return None
    chance, words = choices.propensity
    known = int(choices.layout.collect(choices.layout.scan.select(chance.count())).item())
    if not known or choices.slate_size > 1:
        return Propensities(words, known)
    inverse = 1 / chance
    weight = inverse / pl.when(choices.number > 0).then(choices.number)
    sums, items = _by_item(choices, inverse, weight, reward)
    if not items:
        return Propensities(words, known)
    weights, rows = _by_user(choices, weight)
    mean = interval(_terms(weights, rows), SURE)
    least, largest = sums["least"].min(), sums["largest"].max()
    constant = float(1 / largest) if largest - least <= SAME * least else None
    return Propensities(
        column=words,
        rows=known,
        constant=constant,
        mean_inverse=_finite(mean.mean),
        low=_finite(mean.low),
        high=_finite(mean.high),
        uniform_ess=_effective(sums["u"].sum(), sums["uu"].sum()),
        session_ess=_of_sessions(choices, weight) if longest > 1 else None,
        best_item=None if reward is None else _best(choices, sums, items),
        excess=None if constant is None else _excess(choices, sums, items, constant, rows),
    )


def _by_item(
    choices: LoggedChoices, inverse: pl.Expr, weight: pl.Expr, reward: str | None
) -> tuple[Sums, list[int]]:
    """Sums over the rows that show an item, by name, and the hashes of the items; the most frequent first.

    r is the reward, w is 1 / propensity, and u the weight of the uniform policy.
    """
    scan = choices.shown.select(
        ROW, item=choices.item, r=_reward(choices, reward), w=inverse, u=weight
    ).drop_nulls()
    r, w, u = pl.col("r"), pl.col("w"), pl.col("u")
    sums = {
        "rows": pl.len(),
        "first": pl.col(ROW).min(),
        "least": w.min(),
        "largest": w.max(),
        "w": w.sum(),
        "ww": (w**2).sum(),
        "wr": (w * r).sum(),
        "wrr": (w * r**2).sum(),
        "u": u.sum(),
        "uu": (u**2).sum(),
    }
    frame = choices.layout.collect(scan.group_by("item").agg(**sums)).sort("rows", "item", descending=True)
    return {name: frame[name].cast(pl.Float64).to_numpy() for name in sums}, frame["item"].to_list()


def _reward(choices: LoggedChoices, name: str | None) -> pl.Expr:
    """The reward of a row; 0 without a column of rewards."""
    if name is None:
        return pl.lit(0.0)
    rule = COLUMNS["reward"] if name == choices.roles.get("reward") else column_of(name)
    cells = choices.layout.lists(name).list.first() if choices.layout.is_list(name) else pl.col(name)
    reward = value(cells, choices.kind(cells), rule).cast(pl.Float64)
    return pl.when(reward.is_finite()).then(reward)


def _by_user(choices: LoggedChoices, weight: pl.Expr) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of the weights of each user, and the number of rows, (U,) each; a row without users is one."""
    layout, user = choices.layout, choices.roles.get("user")
    scan = choices.shown.filter(weight.is_not_null())
    if user is None:
        frame = layout.collect(scan.select(weight=weight, rows=pl.lit(1.0)))
    else:
        rows = scan.select(user=layout.hash(user), weight=weight)
        groups = rows.group_by("user").agg(pl.col("weight").sum(), rows=pl.len())
        frame = layout.collect(groups).sort("user")  # sums of it have one order then
    return frame["weight"].to_numpy(), frame["rows"].cast(pl.Float64).to_numpy()


def _excess(
    choices: LoggedChoices, sums: Sums, items: list[int], constant: float, rows: NDArray[np.float64]
) -> Excess | None:
    """The most frequent item, if it is shown too often for a ``constant`` propensity; ``rows`` of users."""
    shown = float(sums["rows"][0] / sums["rows"].sum())
    mean = choices.could_show(items[0]).cast(pl.Float64).mean()
    possible = float(choices.layout.collect(choices.layout.scan.select(mean)).item())
    independent = rows.sum() ** 2 / (rows**2).sum()
    if not too_often(shown, possible, constant, independent, len(items)):
        return None
    first = choices.layout.table.place(int(sums["first"][0]))
    return Excess(choices.id_of(items[0]), shown, constant * possible, first)


def _of_sessions(choices: LoggedChoices, weight: pl.Expr) -> float | None:
    """The effective sample size of whole sessions; None if a propensity is missing."""
    name = choices.roles["session"]
    scan = choices.layout.scan.filter(~choices.layout.gap(name))
    logs = scan.select(session=choices.layout.hash(name), log=weight.log())
    known = pl.col("log").null_count() == 0
    products = logs.group_by("session").agg(pl.when(known).then(pl.col("log").sum()))
    column = choices.layout.collect(products).sort("session")["log"]  # groups come in any order
    if column.is_empty() or column.has_nulls():
        return None
    shares = np.exp(column.to_numpy() - column.to_numpy().max())  # products of many weights are not finite
    return _effective(shares.sum(), (shares**2).sum())


def _best(choices: LoggedChoices, sums: Sums, items: list[int]) -> BestItem | None:
    """The item with the best reward, by the rule of the rival that training shows (judges/best_item.py).

    None if no item could be shown in half of the rows: its mean weight would be 1 with a chance in each.
    """
    w, wr, ww, wrr = (torch.tensor(sums[name]) for name in ("w", "wr", "ww", "wrr"))
    lower = lower_ends(torch.stack([w, wr, ww]), torch.stack([w.sum(), wr.sum(), wrr.sum()]))
    possible = w >= sums["rows"].sum() / 2
    if not bool(possible.any()) or not bool(lower.isfinite().all()):
        return None
    best = int(lower.where(possible, -math.inf).argmax())
    ess = _effective(float(w[best]), float(ww[best]))
    return None if ess is None else BestItem(choices.id_of(items[best]), int(sums["rows"][best]), ess)


# (sum w)^2 / sum w^2: Kish 1965
def _effective(total: float, squares: float) -> float | None:
    """None where the weights are too large for numbers."""
    return _finite(float(total) ** 2 / float(squares)) if squares else 0.0


def _terms(sums: NDArray[np.float64], rows: NDArray[np.float64]) -> torch.Tensor:
    """(U,): a linearised term for each user, whose mean is that of all rows (logs/ope/diagnostics.py)."""
    mean = sums.sum() / rows.sum()
    return torch.from_numpy(mean + (sums - mean * rows) / rows.mean())


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

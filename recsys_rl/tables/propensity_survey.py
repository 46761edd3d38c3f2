"""What the propensities of a log of decisions add up to, in three scans of a few columns.

By item for the effective sample sizes and the best item, by user for intervals, by session for the products
of weights. The weight of the uniform policy is 1 / (propensity x items that could be shown).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_rl.tables.layout import ROW
from recsys_rl.tables.learnable import SURE, BestItem, Excess, Propensities, place
from recsys_rl.tables.logged_choices import LoggedChoices
from recsys_rl.tables.schema import COLUMNS, column_of, value
from recsys_rl.utils.metrics import Interval, interval

SAME = 1e-6
"""Share by which propensities may differ and still count as one."""
LOWER = 1.96
"""Standard errors below its estimate at which items are compared: a few lucky rows make no best item."""

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
    items, ids = _by_item(choices, inverse, weight, reward)
    if not ids:
        return Propensities(words, known)
    least, most = items["least"].min(), items["most"].max()
    constant = float(1 / most) if most - least <= SAME * least else None
    mean, excess = _by_user(choices, weight, constant, items, ids)
    return Propensities(
        words,
        known,
        constant,
        _finite(mean.mean),
        _finite(mean.low),
        _finite(mean.high),
        _effective(items["u"].sum(), items["uu"].sum()),
        _of_sessions(choices, weight) if longest > 1 else None,
        None if reward is None else _best(choices, items, ids),
        excess,
    )


def _by_item(
    choices: LoggedChoices, inverse: pl.Expr, weight: pl.Expr, reward: str | None
) -> tuple[Sums, list[int]]:
    """Sums over the rows that show an item, by name, and the hashes of the items; the most frequent first."""
    scan = choices.shown.select(
        ROW, item=choices.item, r=_reward(choices, reward), w=inverse, u=weight
    ).drop_nulls()
    r, w, u = pl.col("r"), pl.col("w"), pl.col("u")
    sums = {
        "rows": pl.len(),
        "first": pl.col(ROW).min(),
        "least": w.min(),
        "most": w.max(),
        "w": w.sum(),
        "ww": (w**2).sum(),
        "r": r.sum(),
        "wr": (w * r).sum(),
        "wwr": (w**2 * r).sum(),
        "wwrr": (w**2 * r**2).sum(),
        "u": u.sum(),
        "uu": (u**2).sum(),
    }
    found = choices.layout.collect(scan.group_by("item").agg(**sums)).sort("rows", "item", descending=True)
    return {name: found[name].cast(pl.Float64).to_numpy() for name in sums}, found["item"].to_list()


def _reward(choices: LoggedChoices, name: str | None) -> pl.Expr:
    """The reward of a row; 0 without a column of rewards."""
    if name is None:
        return pl.lit(0.0)
    rule = COLUMNS["reward"] if name == choices.roles.get("reward") else column_of(name)
    x = choices.layout.lists(name).list.first() if choices.layout.is_list(name) else pl.col(name)
    found = value(x, choices.kind(x), rule).cast(pl.Float64)
    return pl.when(found.is_finite()).then(found)


def _by_user(
    choices: LoggedChoices, weight: pl.Expr, constant: float | None, items: Sums, ids: list[int]
) -> tuple[Interval, Excess | None]:
    """The mean weight of the uniform policy, and the most frequent item if it is shown too often."""
    chance = choices.could_show(ids[0]) * (0.0 if constant is None else constant)
    shown = (choices.item == ids[0]).cast(pl.Float64)
    each = {"weight": weight, "chance": chance, "excess": shown - chance}
    layout, user = choices.layout, choices.roles.get("user")
    scan = choices.shown.filter(weight.is_not_null())
    if user is None:
        found = layout.collect(scan.select(**each, rows=pl.lit(1.0)))
    else:
        grouped = scan.select(user=layout.hash(user), **each).group_by("user")
        found = layout.collect(grouped.agg(pl.all().sum(), rows=pl.len()))
    sums = {name: found[name].cast(pl.Float64).to_numpy() for name in (*each, "rows")}
    mean = interval(_terms(sums["weight"], sums["rows"]), SURE)
    if constant is None:
        return mean, None
    level = 1 - (1 - SURE) / len(ids)  # the item is the most frequent of so many
    if not interval(_terms(sums["excess"], sums["rows"]), level).low > 0:
        return mean, None
    rows = float(sums["rows"].sum())
    first = place(layout.table, int(items["first"][0]))
    share, expected = float(items["rows"][0]) / rows, float(sums["chance"].sum()) / rows
    return mean, Excess(choices.id_of(ids[0]), first, share, expected)


def _of_sessions(choices: LoggedChoices, weight: pl.Expr) -> float | None:
    """The effective sample size of whole sessions; None if a propensity is missing."""
    name = choices.roles["session"]
    scan = choices.layout.scan.filter(~choices.layout.gap(name))
    each = scan.select(session=choices.layout.hash(name), log=weight.log())
    known = pl.col("log").null_count() == 0
    found = each.group_by("session").agg(pl.when(known).then(pl.col("log").sum()))
    logs = choices.layout.collect(found)["log"]
    if logs.is_empty() or logs.has_nulls():
        return None
    products = logs.to_numpy()
    shares = np.exp(products - products.max())  # products of many weights are not finite
    return _effective(shares.sum(), (shares**2).sum())


def _best(choices: LoggedChoices, sums: Sums, ids: list[int]) -> BestItem | None:
    """The item whose estimate, the mean of (r - mean r) / propensity, is highest at its lower end.

    None if no item could be shown in half of the rows: its mean weight would be 1 with a chance in each.
    """
    rows, w = sums["rows"].sum(), sums["w"]
    middle = sums["r"].sum() / rows
    mean = (sums["wr"] - middle * w) / rows
    square = (sums["wwrr"] - 2 * middle * sums["wwr"] + middle**2 * sums["ww"]) / rows
    lower = mean - LOWER * np.sqrt(np.maximum(square - mean**2, 0) / rows)
    possible = w >= rows / 2
    if not possible.any() or not np.isfinite(lower).all():
        return None
    best = int(np.where(possible, lower, -np.inf).argmax())
    ess = _effective(w[best], sums["ww"][best])
    return None if ess is None else BestItem(choices.id_of(ids[best]), int(sums["rows"][best]), ess)


# (sum w)^2 / sum w^2: Kish 1965
def _effective(total: float, squares: float) -> float | None:
    """None where the weights are too large for numbers."""
    return _finite(float(total) ** 2 / float(squares)) if squares else 0.0


def _terms(sums: NDArray[np.float64], rows: NDArray[np.float64]) -> torch.Tensor:
    """(U,): a linearised term for each user, whose mean is that of all rows, as in ope/diagnostics.py."""
    mean = sums.sum() / rows.sum()
    return torch.from_numpy(mean + (sums - mean * rows) / rows.mean())


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

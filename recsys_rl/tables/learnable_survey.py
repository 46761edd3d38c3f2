"""Find the facts of learnable.py in a file of decisions, without holding its rows.

What the rewards and the propensities of single items add up to is summed by session, by item and by user:
three scans of a few columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_rl.tables.context_survey import Piece
from recsys_rl.tables.decision_log import DecisionHeader
from recsys_rl.tables.layout import ROW, Layout
from recsys_rl.tables.learnable import SURE, BestItem, Excess, Learnable, Propensities
from recsys_rl.tables.schema import COLUMNS, column_of, follows, named, of_propensities, value
from recsys_rl.tables.values import as_texts, hashed, text
from recsys_rl.utils.metrics import Interval, interval

SAME = 1e-6
"""Share by which propensities may differ and still count as one."""
LOWER = 1.96
"""Standard errors below its estimate at which items are compared: a few lucky rows make no best item."""


class LearnableSurvey:
    """The survey of a log of decisions for those who want to learn from it."""

    def __init__(
        self,
        layout: Layout,
        items: int,
        slate_size: int,
        rewards: Mapping[str, tuple[float, float]],
        header: DecisionHeader | None = None,
    ) -> None:
        """
        Args:
            layout: of a log of decisions, with all its columns.
            items: that are shown; ``slate_size`` of them in a row.
            rewards: the least and the largest number of each column of rewards, by its name.
            header: that of a recorded log; None for another one.
        """
        self.layout, self.roles, self.names = layout, layout.roles, layout.table.names
        self.items, self.slate_size, self.rewards, self.header = items, slate_size, rewards, header

    def facts(self, users: int | None, context: tuple[Piece, ...], sound: bool) -> Learnable:
        """The facts; the arguments as in ``Learnable``."""
        sessions = self.sessions
        longest = 1 if sessions is None or sessions.is_empty() else int(sessions["rows"].to_numpy().max())
        return Learnable(
            rows=self.layout.rows,
            items=self.items,
            users=users,
            longest=longest,
            same_items=self._same_items(),
            sound=sound,
            rewards=self.rewards,
            context=context,
            derived=self.header is not None,
            propensities=self._propensities(longest),
            first=self._place(1),
        )

    def _place(self, row: int) -> str:
        """The words for a row, from 1."""
        table = self.layout.table
        return f"row {row:,}" if table.raw is None else f"line {table.line(row):,}"

    def _same_items(self) -> bool:
        shown = self.layout.hash(self.roles["item"])
        least, most = self.layout.collect(self._shown.select(a=shown.min(), b=shown.max())).row(0)
        return bool(least == most)

    @cached_property
    def propensity(self) -> tuple[pl.Expr, str] | None:
        """The propensity of the shown item, null where it is no probability, and the words for its column.

        None if the log has none. A list of the probabilities of all items is not looked into.
        """
        layout, types = self.layout, self.layout.types
        if "propensity" in self.roles:
            name = self.roles["propensity"]
            rule = of_propensities(name)
            found = value(pl.col(name), types[name], rule)
            known = pl.when(follows(found, rule)).then(found.exp() if rule.name == "logprob" else found)
            return known, f"the propensity in column {name!r}"
        of_items, of_policies = named(self.names, "probability."), named(self.names, "propensity.")
        role, columns, words = "item", of_items, "the propensity in columns probability.ID"
        if not of_items:
            role, columns, words = "policy", of_policies, "the propensity in columns propensity.NAME"
        if columns and role in self.roles and self.slate_size == 1:
            x = self._id if role == "item" else pl.col(self.roles[role])
            whose = text(x, layout.scan.select(x=x).collect_schema()["x"])
            each = [
                pl.when(whose == id_).then(value(pl.col(name), types[name], COLUMNS["propensity"]))
                for id_, name in columns.items()
            ]
            found = pl.coalesce(each)
            return pl.when(follows(found, COLUMNS["propensity"])).then(found), words
        if "probabilities" in self.names:
            return pl.lit(None, dtype=pl.Float64), "the propensity in column 'probabilities'"
        return None

    @cached_property
    def choices(self) -> pl.Expr:
        """The number of items that could be shown in a row."""
        layout = self.layout
        if "candidates" in self.roles:
            return layout.entries(self.roles["candidates"]).fill_null([]).list.n_unique()
        if self.header is None:
            return pl.lit(max(self.items, len(named(self.names, "probability."))))
        number = pl.lit(self.header.num_items)
        if not self.header.interface.repeats and "step" in self.names:
            number -= value(pl.col("step"), layout.types["step"], COLUMNS["step"])
        if "exclude" in self.names:
            number -= layout.entries("exclude").fill_null([]).list.len().cast(pl.Int64)
        return number

    @property
    def _id(self) -> pl.Expr:
        """The only item of a row; a recorded log has lists of one."""
        name = self.roles["item"]
        return self.layout.entries(name).list.first() if self.layout.slates else pl.col(name)

    @cached_property
    def _item(self) -> pl.Expr:
        kind = self.layout.scan.select(x=self._id).collect_schema()["x"]
        return hashed(self._id, kind)

    @property
    def _shown(self) -> pl.LazyFrame:
        return self.layout.scan.filter(~self.layout.gap(self.roles["item"]))

    @cached_property
    def _weighed(self) -> dict[str, pl.Expr]:
        """1 / propensity, and the weight of the uniform policy; {} for slates and without propensities."""
        if self.propensity is None or self.slate_size > 1:
            return {}
        inverse = 1 / self.propensity[0]
        return {"inverse": inverse, "weight": inverse / self.choices}

    @cached_property
    def sessions(self) -> pl.DataFrame | None:
        """Of each session its ``rows``, and ``log``, the logarithm of its weights' product, if known."""
        if "session" not in self.roles:
            return None
        name = self.roles["session"]
        weight = self._weighed.get("weight", pl.lit(None, dtype=pl.Float64))
        scan = self.layout.scan.filter(~self.layout.gap(name))
        each = scan.select(session=self.layout.hash(name), log=weight.log())
        log = pl.when(pl.col("log").null_count() == 0).then(pl.col("log").sum()).alias("log")
        return self.layout.collect(each.group_by("session").agg(pl.len().alias("rows"), log))

    def _propensities(self, longest: int) -> Propensities | None:
        if self.propensity is None:
            return None
        (chance, words), reward = self.propensity, self._reward()
        known = int(self.layout.collect(self.layout.scan.select(chance.count())).item())
        if not known or not self._weighed:
            return Propensities(words, known)
        r, inverse, weight = pl.col("r"), pl.col("inverse"), pl.col("weight")
        sums = {
            "rows": pl.len(),
            "first": pl.col(ROW).min(),
            "least": inverse.min(),
            "most": inverse.max(),
            "w": inverse.sum(),
            "ww": (inverse**2).sum(),
            "r": r.sum(),
            "wr": (inverse * r).sum(),
            "wwr": (inverse**2 * r).sum(),
            "wwrr": (inverse**2 * r**2).sum(),
            "u": weight.sum(),
            "uu": (weight**2).sum(),
        }
        scan = self._shown.select(ROW, item=self._item, r=reward, **self._weighed).drop_nulls()
        items = self.layout.collect(scan.group_by("item").agg(**sums)).sort("rows", "item", descending=True)
        least, most = float(items["least"].to_numpy().min()), float(items["most"].to_numpy().max())
        constant = 1 / most if most - least <= SAME * least else None
        mean, excess = self._by_user(items, constant)
        ordered = self.sessions is not None and longest > 1
        return Propensities(
            words,
            known,
            constant,
            mean.mean,
            None if math.isnan(mean.low) else mean.low,
            None if math.isnan(mean.high) else mean.high,
            _effective(items["u"].sum(), items["uu"].sum()),
            self._session_ess() if ordered else None,
            self._best(items) if self.rewards else None,
            excess,
        )

    def _reward(self) -> pl.Expr:
        """The first reward, 0 without one."""
        if not self.rewards:
            return pl.lit(0.0)
        name = next(iter(self.rewards))
        rule = COLUMNS["reward"] if name == self.roles.get("reward") else column_of(name)
        numbers = self.layout.lists(name).list.first() if self.layout.is_list(name) else pl.col(name)
        kind = self.layout.scan.select(x=numbers).collect_schema()["x"]
        found = value(numbers, kind, rule).cast(pl.Float64)
        return pl.when(found.is_finite()).then(found)

    def _by_user(self, items: pl.DataFrame, constant: float | None) -> tuple[Interval, Excess | None]:
        """The mean weight of the uniform policy, and the most frequent item if it is shown too often."""
        top, count, first = items.select("item", "rows", "first").row(0)
        layout = self.layout
        chance = self._could_be_shown(top) * (0.0 if constant is None else constant)
        each = {
            "weight": self._weighed["weight"],
            "chance": chance,
            "excess": (self._item == top).cast(pl.Float64) - chance,
        }
        scan, name = self._shown.filter(self._weighed["weight"].is_not_null()), self.roles.get("user")
        if name is None:
            sums = layout.collect(scan.select(**each, rows=pl.lit(1.0)))
        else:
            grouped = scan.select(user=layout.hash(name), **each).group_by("user")
            sums = layout.collect(grouped.agg(pl.all().sum(), rows=pl.len()))
        rows = sums["rows"].to_numpy().astype(np.float64)
        mean = interval(_terms(sums["weight"].to_numpy(), rows), SURE)
        if constant is None:
            return mean, None
        level = 1 - (1 - SURE) / items.height  # the top is the largest of so many
        found = interval(_terms(sums["excess"].to_numpy(), rows), level)
        if not found.low > 0:
            return mean, None
        share = float(sums["chance"].to_numpy().sum() / rows.sum())
        return mean, Excess(self._name_of(top), self._place(first), count / rows.sum(), share)

    def _could_be_shown(self, top: int) -> pl.Expr:
        """1 in the rows that could show the item with the hash ``top``, else 0."""
        if "candidates" not in self.roles:
            return pl.lit(1.0)
        lists = self.layout.entries(self.roles["candidates"]).fill_null([])
        kind = self.layout.scan.select(x=lists).collect_schema()["x"]
        same = as_texts(lists, kind).list.contains(text(pl.lit(self._name_of(top)), pl.String()))
        return same.cast(pl.Float64)

    def _name_of(self, item: int) -> str:
        """The id of the item with this hash."""
        found = self._shown.filter(self._item == item).select(self._id).head(1)
        return str(self.layout.collect(found).item())

    def _session_ess(self) -> float | None:
        assert self.sessions is not None
        logs = self.sessions["log"].drop_nulls().to_numpy()
        if len(logs) < self.sessions.height or not len(logs):
            return None
        shares = np.exp(logs - logs.max())  # products of many weights are not finite
        return _effective(shares.sum(), (shares**2).sum())

    def _best(self, sums: pl.DataFrame) -> BestItem | None:
        """The item whose estimate, the mean of (r - mean r) / propensity, is highest at its lower end.

        None if no item could be shown in half of the rows: its mean weight would be 1 with a chance in each.
        """
        rows = sums["rows"].sum()
        w, ww, wr, wwr, wwrr = (sums[x].to_numpy() for x in ("w", "ww", "wr", "wwr", "wwrr"))
        middle = sums["r"].sum() / rows
        mean = (wr - middle * w) / rows
        square = (wwrr - 2 * middle * wwr + middle**2 * ww) / rows
        lower = mean - LOWER * np.sqrt(np.maximum(square - mean**2, 0) / rows)
        possible = w >= rows / 2
        if not possible.any() or not np.isfinite(lower).all():
            return None
        best = int(np.where(possible, lower, -np.inf).argmax())
        ess = _effective(w[best], ww[best])
        return None if ess is None else BestItem(self._name_of(sums["item"][best]), sums["rows"][best], ess)


# (sum w)^2 / sum w^2: Kish 1965
def _effective(total: float, squares: float) -> float | None:
    """None where the weights are too large for numbers."""
    found = total**2 / squares if squares else 0.0
    return float(found) if math.isfinite(found) else None


def _terms(sums: NDArray[np.float64], rows: NDArray[np.float64]) -> torch.Tensor:
    """(U,): a linearised term for each user, whose mean is that of all rows, as in ope/diagnostics.py."""
    mean = sums.sum() / rows.sum()
    return torch.from_numpy(mean + (sums - mean * rows) / rows.mean())

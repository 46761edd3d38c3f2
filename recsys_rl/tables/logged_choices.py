"""The choices of a log of decisions, as expressions on its scan: an item, its propensity, among how many."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from recsys_rl.tables.decision_log import DecisionHeader
from recsys_rl.tables.layout import Layout
from recsys_rl.tables.schema import COLUMNS, follows, named, of_propensities, value
from recsys_rl.tables.values import Kind, as_texts, hashed, text


class LoggedChoices:
    """The choices of the logging policy, one item a row."""

    def __init__(self, layout: Layout, items: int, slate_size: int, header: DecisionHeader | None) -> None:
        """
        Args:
            layout: of a log of decisions, with all its columns.
            items: that are shown anywhere; ``slate_size`` of them in a row.
            header: that of a recorded log; None for another one.
        """
        self.layout, self.roles, self.names = layout, layout.roles, layout.table.names
        self.items, self.slate_size, self.header = items, slate_size, header

    @property
    def shown(self) -> pl.LazyFrame:
        """The scan of the rows with an item."""
        return self.layout.scan.filter(~self.layout.gap(self.roles["item"]))

    def kind(self, x: pl.Expr) -> Kind:
        """The type of an expression on the scan."""
        return self.layout.scan.select(x=x).collect_schema()["x"]

    @property
    def id(self) -> pl.Expr:
        """The item of a row; a recorded log has lists of one."""
        name = self.roles["item"]
        return self.layout.entries(name).list.first() if self.layout.slates else pl.col(name)

    @cached_property
    def item(self) -> pl.Expr:
        """The hash of the item."""
        return hashed(self.id, self.kind(self.id))

    def id_of(self, item: int) -> str:
        """The id of the item with this hash."""
        return str(self.layout.collect(self.shown.filter(self.item == item).select(self.id).head(1)).item())

    def could_show(self, item: int) -> pl.Expr:
        """1 in the rows that could show the item with this hash, else 0."""
        if "candidates" not in self.roles:
            return pl.lit(1.0)
        lists = self.layout.entries(self.roles["candidates"]).fill_null([])
        wanted = text(pl.lit(self.id_of(item)), pl.String())
        return as_texts(lists, self.kind(lists)).list.contains(wanted).cast(pl.Float64)

    @cached_property
    def propensity(self) -> tuple[pl.Expr, str] | None:
        """The propensity of what is shown, null where it is no probability, and the words for its column.

        None if the log has none. A list of the probabilities of all items is not looked into.
        """
        types = self.layout.types
        if "propensity" in self.roles:
            name = self.roles["propensity"]
            rule = of_propensities(name)
            found = value(pl.col(name), types[name], rule)
            known = pl.when(follows(found, rule)).then(found.exp() if rule.name == "logprob" else found)
            return known, f"the propensity in column {name!r}"
        of_items, of_policies = named(self.names, "probability."), named(self.names, "propensity.")
        if of_items and self.slate_size == 1:
            return self._among(self.id, of_items), "the propensity in columns probability.ID"
        if of_policies and "policy" in self.roles:
            chance = self._among(pl.col(self.roles["policy"]), of_policies)
            return chance, "the propensity in columns propensity.NAME"
        if "probabilities" in self.names:
            return pl.lit(None, dtype=pl.Float64), "the propensity in column 'probabilities'"
        return None

    def _among(self, whose: pl.Expr, columns: dict[str, str]) -> pl.Expr:
        """The propensity in the column of the item or policy ``whose``; ``columns`` by its id or name."""
        rule, names = COLUMNS["propensity"], text(whose, self.kind(whose))
        each = [
            pl.when(names == name).then(value(pl.col(column), self.layout.types[column], rule))
            for name, column in columns.items()
        ]
        found = pl.coalesce(each)
        return pl.when(follows(found, rule)).then(found)

    @cached_property
    def number(self) -> pl.Expr:
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

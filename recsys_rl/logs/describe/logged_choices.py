"""The choices of a log of decisions, as expressions on its scan: an item, its propensity, among how many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import polars as pl
import torch

from recsys_rl.data.tables.items import read_items
from recsys_rl.data.tables.layout import ROW, Layout
from recsys_rl.data.tables.schema import COLUMNS, follows, named, of_propensities, value
from recsys_rl.data.tables.times import seconds
from recsys_rl.data.tables.values import Kind, as_texts, hashed, text
from recsys_rl.data.timeline import ItemTimeline
from recsys_rl.logs.decision_log import DecisionHeader
from recsys_rl.logs.intervals import items_of_log


def timeline_beside(paths: Sequence[Path], layout: Layout) -> ItemTimeline | None:
    """The moments in the file of items beside an export of a record; None without one. Raises UserError."""
    items = items_of_log([*map(str, paths)])
    if items is None or "stock" not in layout.table.names or "item" not in layout.roles:
        return None
    facts = read_items(items, layout.roles["item"], True)
    return facts.timeline(facts.ids) if facts.clock == "stock" else None


class LoggedChoices:
    """The choices of the logging policy, one item a row."""

    def __init__(
        self,
        layout: Layout,
        items: int,
        slate_size: int,
        header: DecisionHeader | None,
        timeline: ItemTimeline | None = None,
    ) -> None:
        """
        Args:
            layout: of a log of decisions, with all its columns.
            items: that are shown anywhere; ``slate_size`` of them in a row.
            header: that of a recorded log; None for another one.
            timeline: of items that come and go.
        """
        self.layout, self.roles, self.names = layout, layout.roles, layout.table.names
        self.items, self.slate_size, self.header = items, slate_size, header
        self.timeline = timeline

    @property
    def has_candidates(self) -> bool:
        """True if the log tells the items that each row could show."""
        return "candidates" in self.roles or self.timeline is not None

    def kind(self, cells: pl.Expr) -> Kind:
        """The type of an expression on the scan."""
        return self.layout.scan.select(cells=cells).collect_schema()["cells"]

    @property
    def shown(self) -> pl.LazyFrame:
        """The scan of the rows with an item."""
        return self.layout.scan.filter(~self.layout.gap(self.roles["item"]))

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
        rows = self.shown.filter(self.item == item).select(self.id).head(1)
        return str(self.layout.collect(rows).item())

    def could_show(self, item: int) -> pl.Expr:
        """True in the rows that could show the item with this hash."""
        if "candidates" not in self.roles:
            of, mine = self.timeline, self.id_of(item)
            return pl.lit(True) if of is None or mine not in of.distinct else self._number_there(of, mine) > 0
        lists = self.layout.entries(self.roles["candidates"]).fill_null([])
        return as_texts(lists, self.kind(lists)).list.contains(text(pl.lit(self.id_of(item)), pl.String()))

    @cached_property
    def propensity(self) -> tuple[pl.Expr, str] | None:
        """The propensity of what is shown, null where it is not a probability, and the words for its column.

        None if the log has none. A list of the probabilities of all items is not looked into.
        """
        if "propensity" in self.roles:
            name = self.roles["propensity"]
            rule = of_propensities(name)
            logged = value(pl.col(name), self.layout.types[name], rule)
            chance = logged.exp() if rule.name == "logprob" else logged
            return pl.when(follows(logged, rule)).then(chance), f"the propensity in column {name!r}"
        of_items, of_policies = named(self.names, "probability."), named(self.names, "propensity.")
        if of_items and self.slate_size == 1:
            return self._among(self.id, of_items), "the propensity in columns probability.ID"
        if of_policies and "policy" in self.roles:
            chance = self._among(pl.col(self.roles["policy"]), of_policies)
            return chance, "the propensity in columns propensity.NAME"
        if "probabilities" in self.names:
            return pl.lit(None, dtype=pl.Float64), "the propensity in column 'probabilities'"
        return None

    def _among(self, owner: pl.Expr, columns: dict[str, str]) -> pl.Expr:
        """The propensity in the column of the item or policy ``owner``; ``columns`` by its id or name."""
        rule, names = COLUMNS["propensity"], text(owner, self.kind(owner))
        chance = pl.coalesce(
            pl.when(names == name).then(value(pl.col(column), self.layout.types[column], rule))
            for name, column in columns.items()
        )
        return pl.when(follows(chance, rule)).then(chance)

    @cached_property
    def number(self) -> pl.Expr:
        """The number of items that could be shown in a row."""
        layout = self.layout
        if "candidates" in self.roles:
            return layout.entries(self.roles["candidates"]).fill_null([]).list.n_unique()
        if self.header is None:
            listed = max(self.items, len(named(self.names, "probability.")))
            every = pl.lit(listed) if self.timeline is None else self._number_there(self.timeline)
            return every - (self._above if self._repeats else self._before)
        number = pl.lit(self.header.num_items)
        if self.header.interface.repeats:
            number -= self._above
        if not self.header.interface.repeats and "step" in self.names:
            number -= value(pl.col("step"), layout.types["step"], COLUMNS["step"])
        if "exclude" in self.names:
            number -= layout.entries("exclude").fill_null([]).list.len().cast(pl.Int64)
        return number

    def _number_there(self, timeline: ItemTimeline, alone: str | None = None) -> pl.Expr:
        """The number of items that were there at the moment of a row; of the one ``alone``, 0 or 1."""
        moment = value(pl.col("stock"), self.layout.types["stock"], COLUMNS["stock"])
        distinct = self.layout.scan.select(moment.alias("stock")).unique().drop_nulls()
        known = self.layout.collect(distinct)["stock"].to_list()
        there = timeline.ids_available_at(torch.tensor(known, dtype=torch.int64))
        counts = there.sum(1) if alone is None else there[:, timeline.distinct.index(alone)].long()
        return moment.replace_strict(known, counts.tolist(), default=None, return_dtype=pl.Int64)

    @cached_property
    def _repeats(self) -> bool:
        """True unless there are sessions of several rows, and none shows an item twice."""
        name = self.roles.get("session")
        if name is None:
            return True
        scan = self.shown.filter(~self.layout.gap(name))
        pairs = scan.select(session=self.layout.hash(name), item=self.item)
        most = pairs.group_by("session", "item").agg(rows=pl.len()).select(pl.col("rows").max())
        longest = pairs.group_by("session").agg(rows=pl.len()).select(pl.col("rows").max())
        return (self.layout.collect(most).item() or 1) > 1 or (self.layout.collect(longest).item() or 1) == 1

    @property
    def _before(self) -> pl.Expr:
        """The number of rows of the same session before a row; by times or by their order without steps."""
        if "step" in self.names:
            return value(pl.col("step"), self.layout.types["step"], COLUMNS["step"])
        name = self.roles["session"]
        form, order = self.layout.form, pl.col(ROW)
        if form is not None:
            time = self.roles["time"]
            order = seconds(pl.col(time), self.layout.types[time], form)
        return order.rank("ordinal").over(self.layout.hash(name)).cast(pl.Int64) - 1

    @property
    def _above(self) -> pl.Expr:
        """The number of rows of the same list before a row, whose items it can't show."""
        if "list_place" not in self.names:
            return pl.lit(0)
        return value(pl.col("list_place"), self.layout.types["list_place"], COLUMNS["list_place"])

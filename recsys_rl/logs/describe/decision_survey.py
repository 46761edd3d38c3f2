"""The survey of a log of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from recsys_rl.data.tables.layout import ROW, Count, Layout
from recsys_rl.data.tables.pieces import TextRule
from recsys_rl.data.tables.schema import (
    BY_NAME,
    BY_START,
    COLUMNS,
    DECISIONS,
    STORED,
    Column,
    column_of,
    follows,
    named,
    of_propensities,
    value,
)
from recsys_rl.data.tables.several import SeveralFiles
from recsys_rl.data.tables.values import EITHER, as_texts
from recsys_rl.logs.checks import OF_LISTS, OF_SESSIONS, broken
from recsys_rl.logs.describe.context_survey import survey_context
from recsys_rl.logs.describe.description import Description
from recsys_rl.logs.describe.event_survey import EventSurvey, spread

_NAMES = (*BY_NAME, *(of.name for of in STORED if of.form in ("ids", "loggers") and not of.common))
_COUNTED = [column.name for column in STORED if column.by_name and column.kind == "whole"]
_ENDS = [column.name for column in STORED if column.kind == "truth"]
_STARTS = (*BY_START, "event_")
_FILL = "fill them in, or leave these sessions out"


class DecisionSurvey(EventSurvey):
    """The survey of a log of decisions: the problems for which `recsys-rl ope` refuses it."""

    mend_gaps = _FILL
    needed = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates", "step")

    def __init__(self, layout: Layout, recorded: bool, texts: TextRule) -> None:
        """``recorded``: the file has a header of `recsys-rl record`; ``texts``: its columns of texts."""
        self.recorded, self.texts = recorded, texts
        names = layout.table.names
        roles = {role: name for role, name in layout.roles.items() if role in DECISIONS}
        if "session" in roles and "step" in names:
            roles["step"] = "step"
        self.by_step = "step" in roles
        self.ordinals = [name for name in _COUNTED if name in names and (name != "step" or self.by_step)]
        # A log without steps may show an item twice to a user: only a whole row can be a repeat.
        self.whole_rows = not self.by_step and bool({"session", "time"} & roles.keys())
        self.signals = list(named(names, "signal.").values())
        self.ends = [name for name in _ENDS if name in names]
        known = [name for name in names if name in _NAMES or name.startswith(_STARTS)]
        super().__init__(Layout(layout.table, roles, names if self.whole_rows else known))
        self.inverse: pl.Expr | None = None
        self.later: set[str] = set()  # texts of the checks that follow those of the lists
        self.slate_size = 1
        if self.layout.slates:
            self.sizes = self.layout.lists(roles["item"]).list.len()
            self.slate_size = self.layout.collect(self.layout.scan.head(1).select(self.sizes)).item() or 0

    def problems(self) -> dict[str, Count]:
        values, lists = super().problems(), self._wrong_lists()
        first = {text: values[text] for text in values if text not in self.later}
        self.context = survey_context(self.layout, not self.recorded, self.texts)
        problems = first | lists | values | self.context.problems | self._wrong_sessions()
        if "session" not in self.roles and "step" in self.layout.table.names:
            problems["steps, and no column of sessions: name it with --session-column"] = (self.rows, 1)
        return problems

    def rewards(
        self, ranges: Mapping[str, tuple[float, float, float]], given: bool
    ) -> dict[str, tuple[float, float]]:
        """The least and the largest number of each column that `ope` takes as a reward.

        ``ranges``: the facts. ``given``: the user named the column of rewards.
        """
        names = self.signals
        if "reward" in self.roles and (given or not names):
            names = [self.roles["reward"]]
        return {name: (ranges[name][0], ranges[name][2]) for name in names if name in ranges}

    def outcomes(self) -> None:
        """Check propensities, signals, rewards and steps."""
        if "propensity" in self.roles:
            self._propensities(self.roles["propensity"])
        if self.layout.slates:
            text = f"slates of another size than the first ({self.slate_size})"
            self.checks[text] = (self.sizes != self.slate_size).fill_null(False)
        earlier = set(self.checks)
        for name in self.signals:
            self.checks[f"column {name!r} has no value"] = self.layout.gap(name)
            self._outcome(name, column_of(name))
        if "reward" in self.roles:
            self._outcome(self.roles["reward"], COLUMNS["reward"])
        for name in self.ordinals:
            rule = COLUMNS[name]
            wrong = ~follows(self._value(name, rule), rule) & ~self.layout.gap(name)
            self.checks[f"column {name!r} {rule.problem}"] = wrong
        self.later = self.checks.keys() - earlier

    def _value(self, name: str, column: Column) -> pl.Expr:
        return value(pl.col(name), self.layout.types[name], column)

    def _propensities(self, name: str) -> None:
        rule = of_propensities(name)
        values = self._value(name, rule)
        known = values.is_finite().fill_null(False)
        self.checks[f"column {name!r} has no finite number"] = ~known & ~self.layout.gap(name)
        self.checks[f"column {name!r} {rule.problem}"] = known & ~follows(values, rule)
        chances = values.exp() if rule.name == "logprob" else values
        self.sums["propensity" if rule.name == "logprob" else name] = pl.when(known).then(chances)
        self.inverse = pl.when(known & follows(values, rule)).then(1 / chances)

    def _outcome(self, name: str, column: Column) -> None:
        """Check rewards or signals: a number a row, or a list of them."""
        if not self.layout.is_list(name):
            self.numbers(name, self._value(name, column), column)
            return
        unclear = self.layout.unclear(name)
        if unclear is not None:
            self.checks[f"column {name!r} has {EITHER}"] = unclear
            return
        lists, kind = self.layout.lists(name), self.layout.types[name]
        numbers = value(pl.element(), kind.inner if isinstance(kind, pl.List) else pl.String(), column)
        another = (lists.list.len() != self.slate_size).fill_null(False)
        self.checks[f"column {name!r} holds another number of values than the slate of its row"] = another
        wrong = lists.list.eval(~follows(numbers, column)).list.any()
        self.checks[f"column {name!r} {column.problem}"] = wrong & ~self.layout.gap(name)
        self.sums[name] = lists.list.eval(numbers.filter(follows(numbers, column)))

    def _wrong_lists(self) -> dict[str, Count]:
        """The rows whose items are not among their candidates, are excluded, or stand twice in a slate."""
        if "item" not in self.roles:
            return {}
        layout, item = self.layout, self.roles["item"]
        lists = {"items": layout.entries(item) if layout.slates else pl.concat_list(item)}
        if "candidates" in self.roles:
            lists["candidates"] = layout.entries(self.roles["candidates"]).fill_null([])
        if isinstance(layout.types.get("exclude"), pl.List):
            lists["exclude"] = layout.entries("exclude")
        kinds = layout.scan.select(**lists).collect_schema()
        if len(set(kinds.values())) > 1 or pl.List(pl.String) in kinds.values():
            lists = {name: as_texts(column, kinds[name]) for name, column in lists.items()}
        scan = layout.scan.select(ROW, gap=layout.gap(item), **lists)
        there = {*lists, *(["slate"] if layout.slates else [])}
        rules = [rule for rule in OF_LISTS if there >= set(rule.needs)]
        return layout.counted(
            {rule.problem: rule.broken.fill_null(False) & ~pl.col("gap") for rule in rules}, scan
        )

    def _wrong_sessions(self) -> dict[str, Count]:
        """The rows that break a rule of their session; all of them are compared together."""
        if "session" not in self.roles:
            return {}
        columns = {"session": self._known("session")}
        for name in self.ordinals:
            count = self._value(name, COLUMNS[name])
            columns[name] = pl.when(follows(count, COLUMNS[name])).then(count).cast(pl.Int32, strict=False)
        if self.by_step:
            columns |= {} if self.layout.form is None else {"time": self.layout.seconds.cast(pl.Float64)}
        if "user" in self.roles:
            columns["user"] = (self._known("user") % 2**32).cast(pl.UInt32)
        columns |= {name: self._value(name, COLUMNS[name]).fill_null(False) for name in self.ends}
        keys = ["session", "step"] if self.by_step else ["session"]
        frame = self.layout.collect(self.layout.scan.select(ROW, **columns)).drop_nulls(keys)
        frame = frame.sort(*keys, maintain_order=True)  # of two equal rows the later one is the repeat
        wrong = {rule.problem: rows for rule, rows in broken(frame, OF_SESSIONS) if rule.problem}
        if isinstance(self.layout.table, SeveralFiles):
            again = self.layout.table.goes_on(frame["session"], frame[ROW])
            wrong["rows of a session that began in another file"] = again
        return {
            text: (int(rows.sum()), int(frame[ROW].filter(rows).to_numpy().min()))
            for text, rows in wrong.items()
            if rows.any()
        }

    def _known(self, role: str) -> pl.Expr:
        """The hash of an id, null where there is none."""
        name = self.roles[role]
        return pl.when(~self.layout.gap(name)).then(self.layout.hash(name))

    def sessions(self) -> int | None:
        return self.layout.counts(self._known("session")).height if "session" in self.roles else None

    def repeats(self) -> dict[str, Count]:
        """Rows that repeat an earlier one in every column."""
        if not self.whole_rows:
            return {}
        text = "rows that repeat an earlier row in every column"
        self.mends[text] = "remove copies"
        count = self.layout.repeats(
            [self.layout.hash(name) for name in self.layout.table.names], pl.lit(False)
        )
        return {text: count} if count[0] else {}

    def facts(self) -> Description:
        facts, more = super().facts(), dict[str, Any](slate_size=self.slate_size or 1)
        if "candidates" in self.roles:
            lists = self.layout.entries(self.roles["candidates"])
            offered = self.layout.scan.select(item=lists).explode("item")
            shown = self.layout.counts(pl.first().hash(seed=7), offered.drop_nulls())
            more["shown_of_item"] = spread(shown)
            more["candidates_per_row"] = shown["count"].sum() / self.rows if shown.height else None
        if self.inverse is not None:
            more["inverse_propensity"] = self.layout.collect(
                self.layout.scan.select(self.inverse.mean())
            ).item()
        others = tuple(name for name in facts.others if name not in _NAMES and not name.startswith(_STARTS))
        return replace(facts, others=others, **more)

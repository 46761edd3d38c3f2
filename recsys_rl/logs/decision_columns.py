"""The columns of a table of decisions without a header of ours (logs/decision_table.py), by their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import Cells, tensor_of
from recsys_rl.data.tables.findings import Finding, found, wrong
from recsys_rl.data.tables.pieces import CONTEXT, TextRule, seen_pieces
from recsys_rl.data.tables.schema import BY_NAME, COLUMNS, ROUNDING, STORED, Column, named, of_propensities
from recsys_rl.data.tables.times import format_in, seconds
from recsys_rl.data.tables.values import id_text, lists_of, on
from recsys_rl.errors import amount, listed, short
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble
from recsys_rl.types import UserError

LISTS = ("items", "candidates")  # columns of several ids


def _repeated(rows: pl.Series, of_sessions: bool) -> Finding:
    """The warning about ``rows``, True for each that repeats another."""
    count, first = int(rows.sum()), int(rows.arg_true()[0]) + 1
    text = "warning: {count} repeat another in every column (the first is {row}) and count twice"
    if count == 1:
        text = "warning: {count} repeats another in every column ({row}) and counts twice"
    more = ", as a further step of its session: remove copies, or add a column step"
    return found(text + more * of_sessions, row=first, count=amount(count, "row"))


class Table(Cells):
    """The columns of a file by their roles. Each method raises UserError with the first wrong row."""

    def __init__(
        self, name: str, frame: pl.DataFrame, columns: Mapping[str, str], whole: bool = True
    ) -> None:
        """``columns``: the name of the column of each role; ``whole``: the frame has all of the file."""
        super().__init__(name, frame)
        self.columns = columns
        self.notes: list[Finding] = []
        if whole and {"time", "session"} & columns.keys() and "step" not in self:
            twice = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
            if twice.any():
                self.notes.append(_repeated(twice, "session" in columns))

    def ids(self, role: str) -> pl.Series:
        """(E,) lists of ids as text."""
        column = self.columns[role]
        series = self.filled(column)
        lists = lists_of(series) if column in LISTS or role == "candidates" else None
        if lists is None:
            lists = series.to_frame("x").select(pl.concat_list("x")).to_series()
        ids = lists.list.eval(pl.element().cast(pl.String).str.strip_chars())
        gap = ids.list.eval(pl.element().is_null() | (pl.element() == "")).list.any().arg_true()
        if gap.len():
            sentence = "column {column!r} has an empty id in {row}: give all ids"
            raise wrong(self.name, sentence, row=int(gap[0]) + 1, column=column)
        return ids

    def places(self, shown: pl.Series) -> int:
        """K, the same in each row."""
        lengths = shown.list.len()
        places = int(lengths[0])
        others = (lengths != places).arg_true()
        if not places or others.len():
            at = int(others[0]) if others.len() else 0
            sentence = "{column!r} holds {value} items in {row}, and {size} in the first row: give slates of "
            sentence, of = sentence + "the same size", {"column": self.columns["item"], "size": places}
            raise wrong(self.name, sentence, row=at + 1, value=lengths[at], **of)
        return places

    def keys(self, role: str) -> tuple[list[str] | None, Tensor]:
        """The ids as text in ascending order, and the number (E,) of each row's; rows count without them."""
        if role not in self.columns:
            return None, torch.arange(self.frame.height)
        texts = self.names(role)
        known = texts.unique().sort()
        return known.to_list(), _indices(texts, known.to_list())

    def names(self, role: str) -> pl.Series:
        """(E,) the ids of a user or a session as texts, the same for a number of any type."""
        column = self.columns[role]
        self.texts(column)  # refuses gaps and lists
        return on(self.frame[column], id_text)

    def times(self) -> Tensor:
        """(E,) int64: microseconds, or the number of the row."""
        if "time" not in self.columns:
            return torch.arange(self.frame.height)
        column = self.columns["time"]
        series = self.filled(column)
        form = format_in(series)
        times = on(series, seconds, form)
        if times.has_nulls():
            at = int(times.is_null().arg_true()[0])
            sentence = "column {column!r} has {value} in {row}: {rule}"
            of = {"column": column, "value": short(series[at]), "rule": form.rule}
            raise wrong(self.name, sentence, row=at + 1, **of)
        return (tensor_of(times.cast(pl.Float64)) * 1e6).long()

    def steps(self, sessions: Tensor) -> Tensor:
        """(E,) int64: the column ``step``, or the order of time (then of rows) within the session."""
        if "step" in self:
            if "session" not in self.columns:
                raise UserError(f"{self.name} has steps but no column of sessions: give --session-column.")
            return self.values("step")
        order = torch.from_numpy(np.lexsort((self.times().numpy(), sessions.numpy())))  # stable
        ordered = sessions[order]
        new = torch.ones(len(ordered), dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = new.nonzero().squeeze(1)[new.cumsum(0) - 1]  # of the row's session
        steps = torch.empty_like(sessions)
        steps[order] = torch.arange(len(ordered)) - first
        if "time" not in self.columns and int(steps.max()) > 0:
            sentence = (
                "there is no column of steps or times, so the rows of a session are its steps in the file's "
                "order: add a column step or time if that is not their order"
            )
            self.notes.append(found(sentence))
        return steps

    def signal_names(self, given: bool) -> tuple[str, ...]:
        """The columns signal.NAME, else that of rewards, which comes first if the user has ``given`` it."""
        names = tuple(named(self.frame.columns, "signal."))
        if (reward := self.columns.get("reward")) in BY_NAME:
            raise UserError(
                f"{self.name}: a column {reward} has a meaning of its own in a log (docs/09_logs.md), so it "
                "can't be the reward: give it another name."
            )
        if given or (not names and "reward" in self.columns):
            return (self.columns["reward"],)
        if not names:
            raise UserError(
                f"{self.name} has no column of rewards; its columns are {listed(self.frame.columns)}: name "
                "it with --reward-column, or give columns signal.NAME."
            )
        if "reward" in self.columns:
            column = self.columns["reward"]
            sentence = (
                "the columns signal.NAME are read, and {column} is not: give --reward-column {column} to "
            )
            self.notes.append(found(sentence + "read it in their place", column=column))
        return names

    def signals(self, names: Sequence[str], places: int) -> Tensor:
        """(E, K, S) float32. A number for the whole slate stands at its first place."""
        signals = []
        for name in names:
            column, rule = (f"signal.{name}" if f"signal.{name}" in self else name), COLUMNS["reward"]
            if lists_of(self.filled(column)) is not None:
                values = self.lists(column, places, rule)
            else:
                values = torch.zeros(self.frame.height, places, dtype=torch.float64)
                values[:, 0] = self.values(column, rule)
            signals.append(self._single(column, values))
        return torch.stack(signals, 2)

    def _single(self, column: str, values: Tensor) -> Tensor:
        """``values`` (E, n) of a column as float32."""
        single = values.float()
        sentence = "{column} is {value:g} in {row}, which is too large to learn from: give rewards between "
        self.refuse(single.isinf(), sentence + "-1e38 and 1e38", column=column, value=values)
        return single

    @property
    def named_items(self) -> list[str]:
        """The ids of the items with a column ``probability.ID``."""
        return list(named(self.frame.columns, "probability."))

    def probabilities(self, ids: Sequence[str]) -> Tensor | None:
        """``Cells.probabilities`` of the logger; a column ``probabilities`` of single numbers is not read."""
        if "probabilities" in self and lists_of(self.filled("probabilities")) is None:
            return None
        return super().probabilities(ids)

    def logprobs(self, every: Tensor | None, items: Tensor) -> Tensor:
        """(E,) float64; NaN without propensities.

        ``every`` (E, I): ``probabilities``, which give the propensities of single ``items`` (E, 1).
        """
        own = None if every is None or items.shape[1] > 1 else every.gather(1, items).squeeze(1)  # (E,)
        if "propensity" not in self.columns:
            if own is None:
                return torch.full((self.frame.height,), torch.nan, dtype=torch.float64)
            computed = pl.DataFrame({"propensity": own.numpy()})
            return Cells(self.name, computed).values("propensity").log()
        column = self.columns["propensity"]
        rule = of_propensities(column)
        values = self.values(column, rule).double()
        logprobs = values if rule.name == "logprob" else values.log()
        if own is not None:
            sentence = (
                "the item of {row} has the probability {value:g} by the column {column}, but {other:g} among "
                "those of every item: correct one; a list of probabilities has the order of the items' ids"
            )
            chances = logprobs.exp()
            broken = (chances - own).abs() > 1e-4
            self.refuse(broken, sentence, column=column, value=chances, other=own)
        return logprobs

    def loggers(self) -> tuple[tuple[str, ...], Tensor, Tensor | None, str]:
        """Names (P,), the logger (E,), the logprobs (E, P) under each, and a note."""
        nobody = torch.zeros(self.frame.height, dtype=torch.int64)
        if "policy" not in self.columns:
            return ("the log's policy",), nobody, None, ""
        texts = self.texts(self.columns["policy"])
        names = texts.unique().sort().to_list()
        columns = [f"propensity.{name}" for name in names]
        if len(names) == 1 or any(column not in self for column in columns):
            note = "" if len(names) == 1 else (
                f"warning: {len(names)} policies logged, but the columns {', '.join(columns)} are not all "
                "there: the weights use each row's own propensity, and are larger than they need be"
            )  # fmt: skip
            return (" + ".join(names),), nobody, None, note
        return tuple(names), _indices(texts, names), self.under_each(names), ""

    def under_each(self, loggers: Sequence[str]) -> Tensor:
        """(E, P) float64: the logprob under each logger, of the columns ``propensity.NAME``."""
        return torch.stack([self.values(f"propensity.{name}").double().log() for name in loggers], 1)

    def _own_logprobs(
        self, logprobs: Tensor, loggers: Sequence[str], of_row: Tensor, under: Tensor
    ) -> Tensor:
        """(E,): ``logprobs``, or those of each row's own logger if the file has no propensities.

        Args:
            logprobs: (E,) by the column of propensities.
            of_row: (E,) the policy that decided, of ``loggers``.
            under: (E, P) the logprob under each, of the columns ``propensity.NAME``.
        """
        own = under.gather(1, of_row.unsqueeze(1)).squeeze(1)  # (E,)
        if "propensity" not in self.columns:
            return own
        sentence = (
            "{row} has the propensity {value:g} by the column {column}, but {other:g} by {own}, that of its "
            "own policy: correct one"
        )
        broken, column = ~((logprobs - own).abs() <= ROUNDING), self.columns["propensity"]
        names = {"column": column, "own": lambda at: short(f"propensity.{loggers[int(of_row[at])]}")}
        self.refuse(broken, sentence, value=logprobs.exp(), other=own.exp(), **names)
        return logprobs

    def context(self, fill: bool, rule: TextRule) -> dict[str, Tensor]:
        """The pieces (E, size), encoded as for a policy that learns from this file. ``fill``: gaps may be."""
        pieces, texts, gaps = {}, [], []
        for name, seen in seen_pieces(self, fill, roles=self.columns, texts=rule).items():
            piece, note = seen.piece(name)
            pieces[name] = piece.tensor(self)
            self.notes += [found("{note}", note=note)] if note else []
            texts += [f"{CONTEXT}{name} ({listed(piece.values)})"] if piece.kind == "text" else []
            gaps += [f"{CONTEXT}{name} ({amount(seen.gaps, 'row')})"] if seen.gaps else []
        coded, lacking = "texts that are one-hot encoded: {columns}", "without a value: {columns}"
        for sentence, columns in ((coded, texts), (lacking, gaps)):
            self.notes += [found(sentence, columns=", ".join(columns))] if columns else []
        return pieces

    def decisions(
        self,
        header: DecisionHeader,
        *,
        loggers: tuple[Tensor, Tensor | None],
        probabilities: Tensor | None,
        items: Tensor,
        steps: Tensor,
        **rows: Any,
    ) -> DecisionLog:
        """The decisions of the rows, in the order of the file.

        Args:
            loggers: of each row (E,), and the logprob (E, P) under each if it is known.
            probabilities: (E, I) of every item under the logger, if they are known.
            rows: further fields of the log.
        """
        of_row, under = loggers
        logprobs = self.logprobs(probabilities, items)
        if under is not None:
            logprobs = self._own_logprobs(logprobs, header.loggers, of_row, under)
        known = [column for column in STORED if column.by_name and column.field != "steps"]
        places = header.interface.slate_size
        rows |= {of.field: self._by_name(of, places) for of in known if of.name in self}
        return assemble(
            header,
            items=items,
            steps=steps,
            times=self.times() if "time" in self.columns else steps,
            logprobs=logprobs,
            signals=self.signals(header.signals, places),
            loggers=of_row,
            logger_logprobs=under,
            **rows,
        )

    def _by_name(self, column: Column, places: int) -> Tensor | None:
        """The values of a column that is found by its name; None of single values in place of lists."""
        if column.form == "row":
            return self.values(column.name)
        return None if lists_of(self.filled(column.name)) is None else self.lists(column.name, places)


def _indices(texts: pl.Series, known: Sequence[str]) -> Tensor:
    """(E,) int64: the place of each text among the known ones."""
    places = {text: index for index, text in enumerate(known)}
    return tensor_of(texts.replace_strict(places, return_dtype=pl.Int64))

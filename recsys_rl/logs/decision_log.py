"""DecisionLog: the decisions of a policy and their outcomes, one row for each decision.

``InteractionLog`` holds events of people; a DecisionLog also holds the probability of each decision and the
items that could have been chosen. logs/writer.py and logs/parts.py write and read it,
logs/transitions.py makes observations from it, and docs/09_logs.md describes the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from recsys_rl.data.tables.schema import STORED
from recsys_rl.types import Events, Feedback, Interface, tree_map


@dataclass(frozen=True)
class DecisionHeader:
    """Facts about all rows of a DecisionLog."""

    loggers: tuple[str, ...]  # (P,): names of the policies that made the decisions
    interface: Interface  # of the observations and actions
    signals: tuple[str, ...]  # names of all S signals; interface.signals names the visible ones
    discount: float = 1.0  # gamma, in [0, 1]
    platform: str = ""  # name of the environment; "" if people made the log
    catalogue: str = ""  # ``catalogue_hash`` of the items; "" if it is unknown
    candidates: str = ""  # ``candidate_rule`` of a two-stage policy; "" if the whole catalogue could be shown
    estimated: int = 0  # draws from which a logger's probabilities were estimated; 0 if all are exact
    # The loggers that are not policies of ours: only they know the probabilities of their choices, and their
    # rows may lack them. A log of several loggers with such a one has no ``logger_logprobs``.
    applications: tuple[str, ...] = ()
    consumed: tuple[float, ...] = ()  # the visible signals of an item that is consumed in full; (): 1 each
    requested: bool = False  # what rows exclude was asked for by requests; a platform's users forbid nothing

    @property
    def num_items(self) -> int:
        """I"""
        return self.interface.action_sizes[0]


@dataclass(frozen=True)
class DecisionLog:
    """E decisions of S-signal feedback, ordered by session and step.

    In a log of several intervals of a record the sessions of each are ordered, and whole.
    Items are rows of the catalogue; -1 is an empty place. A place whose item could not be shown is empty.
    Log-probabilities are natural logarithms; -inf is probability 0.
    """

    header: DecisionHeader
    users: Tensor  # (E,) int64: the ids of the source
    sessions: Tensor  # (E,) int64: number of the session; all its rows are of one user
    steps: Tensor  # (E,) int64: 0, 1, ... within the session
    times: Tensor  # (E,) int64: of any unit; only their order counts
    items: Tensor  # (E, K) int64, -1 padding
    # (E,) float64: of the whole action, under the policy that made the decision; NaN in every row if the log
    # holds no propensities, and in rows of header.applications that lack them.
    logprobs: Tensor
    signals: Tensor  # (E, K, S) float32: the outcome of each place; 0 at empty places
    terminated: Tensor  # (E,) bool: the user left after this step
    truncated: Tensor  # (E,) bool: the time limit, or the end of the recording, cut the session here
    loggers: Tensor  # (E,) int64: the place of the deciding policy in header.loggers
    given: Mapping[str, Tensor]  # (E, size) float32 each: pieces of the context that no session derives
    place_logprobs: Tensor | None = None  # (E, K) float64, their sum is logprobs; None if it has no factors
    logger_logprobs: Tensor | None = None  # (E, P) float64: logprobs under every logger; None for P = 1
    candidates: Tensor | None = None  # (E, C) int64, each once, -1 padding; None for the whole catalogue
    # (E, X) int64, -1 padding: items that could not be shown, beside those shown before in the session,
    # which the Session excludes where interface.repeats is False.
    exclude: Tensor | None = None
    # (E,) int64: the number of rows of the same list before the row; None without lists. A list is one
    # decision of several rows. Its places were drawn one after another before any feedback, each as if the
    # items above had been consumed in full, and none of these can stand in the list again.
    list_place: Tensor | None = None
    # (E,) int64: the moment that says which items of a team's place could be shown, on the clock of its
    # catalogue (item_encoding.there); None: each item at any time.
    stock: Tensor | None = None
    event_items: Tensor | None = None  # (E, V) int64, -1 padding: entries of the history (types.Events)
    event_signals: Tensor | None = None  # (E, V, S) float32

    @property
    def num_rows(self) -> int:
        """E"""
        return len(self.users)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to each tensor."""
        return tree_map(function, self)

    def rows(self, index: Tensor) -> Self:
        """The rows at ``index`` (B,) int64, or where ``index`` (E,) bool is True."""
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        return self.map(lambda values: values.index_select(0, index))

    @property
    def session(self) -> Tensor:
        """(E,) int64: the place of the row's session in this log, from 0 on."""
        return (self.steps == 0).cumsum(0) - 1

    @property
    def num_sessions(self) -> int:
        """G"""
        return int((self.steps == 0).sum())

    @property
    def has_propensities(self) -> bool:
        """True if the probability of every decision is known."""
        return not bool(self.logprobs.isnan().any())

    @property
    def lists_propensities(self) -> bool:
        """True if its files have the probabilities; rows of an application may lack them."""
        return bool(self.header.applications) or self.has_propensities

    @property
    def known_sessions(self) -> Self:
        """The sessions in which the probability of every decision is known."""
        lacking = self.session[self.logprobs.isnan()]
        return self.rows(~torch.isin(self.session, lacking)) if len(lacking) else self

    @property
    def shown(self) -> Tensor:
        """(E, K) bool: places that are not empty."""
        return self.items >= 0

    @property
    def forbids(self) -> bool:
        """True if the rows of one session exclude different items, and no request asked for it."""
        if self.exclude is None or self.header.requested:
            return False
        ids = self.exclude.sort(1).values
        same = self.sessions[1:] == self.sessions[:-1]
        return bool((ids[1:] != ids[:-1])[same].any())

    @property
    def feedback(self) -> Feedback:
        """The outcomes as ``UserModel.rewards`` takes them: its result is the reward streams (E, M)."""
        events = None
        if self.event_items is not None and self.event_signals is not None:
            events = Events(self.event_items, self.event_signals)
        return Feedback(self.signals, self.shown, events)

    @property
    def visible(self) -> Tensor:
        """(S_visible,) int64: the places of interface.signals among all signals."""
        names = self.header.signals
        return torch.tensor([names.index(name) for name in self.header.interface.signals], dtype=torch.int64)


OPTIONAL = tuple(field.name for field in dataclasses.fields(DecisionLog) if field.default is None)
"""The fields without which a log can be."""


_TYPES = {column.field: getattr(torch, column.tensor) for column in STORED}


def assemble(header: DecisionHeader, **fields: Any) -> DecisionLog:
    """The decisions of E rows by the ``fields`` of a DecisionLog, each in the type of its column (schema.py).

    Rows that lack the others are sessions of one step of the first logger, in their order, with no context,
    no probabilities and no end. An optional field may be None.
    """
    order = torch.arange(len(fields["items"]), device=fields["items"].device)
    nothing = torch.zeros_like(order)
    steps = fields.get("steps", nothing)
    single = {"sessions": order, "steps": steps, "times": steps, "loggers": nothing, "given": {}}
    ends = dict.fromkeys(("terminated", "truncated"), nothing)
    fields = {"logprobs": torch.full_like(order, torch.nan, dtype=torch.float64)} | single | ends | fields

    def typed(field: str, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: typed(field, each) for name, each in values.items()}
        return None if values is None else values.to(_TYPES[field])

    return DecisionLog(header=header, **{field: typed(field, values) for field, values in fields.items()})


def concatenate(logs: list[DecisionLog]) -> DecisionLog:
    """One log of the rows of all ``logs``, which have the same header and the same columns."""
    return logs[0] if len(logs) == 1 else tree_map(_joined, *logs)


def with_columns(log: DecisionLog, names: Collection[str]) -> DecisionLog:
    """The log with those of the columns exclude, list_place and candidates that other parts of it have.

    Its own rows then exclude nothing, are the first of their lists, and choose from the whole catalogue.
    """
    if "exclude" in names and log.exclude is None:
        log = dataclasses.replace(log, exclude=log.sessions.new_full((log.num_rows, 1), -1))
    if "list_place" in names and log.list_place is None:
        log = dataclasses.replace(log, list_place=torch.zeros_like(log.steps))
    if "candidates" in names and log.candidates is None:
        every = torch.arange(log.header.num_items).expand(log.num_rows, -1)  # (E, I)
        log = dataclasses.replace(log, candidates=every)
    return log


def _joined(*parts: Tensor) -> Tensor:
    """Lists of items of different widths, and the signals of such lists, get padding."""
    if parts[0].ndim == 1:
        return torch.cat(parts)
    width, nothing = max(values.shape[1] for values in parts), -1 if parts[0].ndim == 2 else 0
    beside = (0, 0) * (parts[0].ndim - 2)
    return torch.cat(
        [
            torch.nn.functional.pad(values, (*beside, 0, width - values.shape[1]), value=nothing)
            if values.shape[1] < width
            else values
            for values in parts
        ]
    )


def cut(log: DecisionLog, rows: int) -> Iterator[DecisionLog]:
    """The log in pieces of whole sessions, with at most ``rows`` rows if no session has more."""
    ends = (log.sessions[1:] != log.sessions[:-1]).nonzero().squeeze(1) + 1  # (G - 1,)
    start = 0
    while start < log.num_rows:
        later = ends[ends > start]
        stop = log.num_rows
        if stop - start > rows and len(later):
            fits = later[later <= start + rows]
            stop = int(fits[-1]) if len(fits) else int(later[0])
        yield log if stop - start == log.num_rows else log.map(lambda values, a=start, b=stop: values[a:b])  # type: ignore[misc]
        start = stop

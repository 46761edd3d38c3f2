"""Draws of several people at once: their visits so far -> observations -> items.

A draw is a function of its DrawRequest: of rows of the record, and of numbers in [0, 1) that are recorded
with it. So it can be repeated.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from recsys_rl.models.actor_critic import TILE
from recsys_rl.recommender import Visit
from recsys_rl.serving.draw.rule import Choice, choose
from recsys_rl.serving.draw.session_state import PackedVisit, SessionState, Step, events_left, pack, unpack
from recsys_rl.serving.draw.versions import Version
from recsys_rl.types import Events, Interface, Obs, tree_map

TOO_FEW = "too-few-items"


@dataclass
class DrawRequest:
    """Inputs of a draw."""

    number: int  # of the decision
    version: Version
    population_row: int  # of the person; -1 for a stranger
    likes: tuple[int, ...]
    began: float  # hour of the week at which the visit began
    packed: PackedVisit | None  # the visit after earlier steps; None: from its begin
    steps: Sequence[Step]  # the steps after ``packed``
    hour: float  # of the week, now
    uniforms: tuple[float, ...]  # one for each place
    candidates: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    explore: float = 0.0
    new_items: float = 0.0
    context: tuple[float, ...] = ()  # of the pieces that the caller gives (``ContextRows.row``)
    degraded: str = ""  # why popularity draws, and not the policy
    items: tuple[int, ...] | None = None  # not drawn: the log-probabilities of these items are wanted
    deadline: float = math.inf  # by time.monotonic()

    @property
    def is_list(self) -> bool:
        """True if the places are drawn one after another."""
        return len(self.uniforms) > self.version.checkpoint.interface.slate_size


def request_in(session: SessionState, version: Version, hour: float, **fields: Any) -> DrawRequest:
    """The draw in this session now, at this ``hour`` of the week; ``fields``: the others of DrawRequest."""
    session.keep_packed_of(version)
    return DrawRequest(
        version=version,
        population_row=session.row.population_row,
        likes=session.row.likes,
        began=session.decisions[0].hour if session.decisions else hour,
        packed=session.packed,
        steps=session.steps[session.packed_steps :],
        hour=hour,
        **fields,
    )


@dataclass
class Round:
    """One round of a draw: a slate, or one item of a list."""

    visit: Visit  # before it, of one row
    obs: Obs  # of one row
    choice: Choice


@dataclass
class DrawResult:
    """The result of one ``DrawRequest``."""

    # The visit after ``DrawRequest.steps``; None after an error, and in sessions of one step.
    packed: PackedVisit | None = None
    items: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of each place given those before it
    candidates: tuple[int, ...] | None = None  # the only items that could be shown first; None: all
    degraded: str = ""
    error: str = ""  # why there is no answer
    rounds: list[Round] = field(default_factory=list)  # of a report


@torch.inference_mode()
def draw(requests: Sequence[DrawRequest], report: bool = False) -> list[DrawResult]:
    """The draws of all requests. ``report``: with ``DrawResult.rounds``."""
    results = [DrawResult() for _ in requests]
    groups: dict[tuple[int, int, int, bool, bool], list[int]] = defaultdict(list)
    for at, request in enumerate(requests):
        width = 0 if request.candidates is None else -(-len(request.candidates) // TILE) * TILE
        version = request.version
        apart = id(version) if version.two_stages else 0  # its observations hold its own candidates
        key = id(version.of_visits), apart, width, bool(request.degraded), request.items is None
        groups[key].append(at)
    for (_, _, width, _, _), rows in groups.items():
        # Visits with the same number of steps to add are brought up to date together.
        rows.sort(key=lambda at: (requests[at].packed is None, len(requests[at].steps)))
        group, group_results = [requests[at] for at in rows], [results[at] for at in rows]
        visits = _visits_now(group)
        if group[0].version.checkpoint.interface.session_length > 1:  # else no draw goes on from here
            for result, packed in zip(group_results, pack(visits), strict=True):
                result.packed = packed
        contexts = group[0].version.contexts
        if contexts is not None:
            visits = visits.with_context(contexts.tensors([request.context for request in group]))
        _fill(group, group_results, visits, width, report)
    # A list is of one rule: where the policy failed at one place, popularity chooses all places.
    mixed = [
        at
        for at, request in enumerate(requests)
        if results[at].degraded and not request.degraded and request.is_list
    ]
    if mixed:
        popular = draw([replace(requests[at], degraded=results[at].degraded) for at in mixed], report)
        for at, result in zip(mixed, popular, strict=True):
            results[at] = result
    return results


def _visits_now(requests: Sequence[DrawRequest]) -> Visit:
    """The visits of all requests after their steps."""
    version, parts = requests[0].version, list[Visit]()
    for (fresh, number), some in groupby(
        requests, lambda request: (request.packed is None, len(request.steps))
    ):
        group = [*some]
        if fresh:
            profiles = torch.cat(
                [version.profile(request.population_row, request.likes) for request in group]
            )
            rows = torch.tensor([request.population_row for request in group])
            likes = [request.likes for request in group]
            hours = _tensor(request.began for request in group)
            visits = Visit.begin(version.of_visits, profiles, hours, rows, likes)
            if version.contexts is not None:  # each request has its own: none is kept from step to step
                visits = visits.without_context(version.contexts.names)
        else:
            visits = unpack([request.packed for request in group if request.packed is not None])
        for depth in range(number):
            steps = [request.steps[depth] for request in group]
            visits = visits.at(_tensor(step.hour for step in steps))
            visits = _record(visits, steps, version.checkpoint.interface)
        parts.append(visits)
    return parts[0] if len(parts) == 1 else Visit.together(parts)


def _record(visits: Visit, steps: Sequence[Step], interface: Interface) -> Visit:
    """The visits after one more step each."""
    items = torch.tensor([step.items for step in steps])  # (N, K)
    signals = torch.tensor([step.signals for step in steps], dtype=torch.float32)  # (N, K, S)
    signals = signals.view(*items.shape, len(interface.signals))
    events = Events(*events_left(steps, interface)) if interface.events else None
    return visits.record(items, signals, None, events)


def _fill(
    requests: Sequence[DrawRequest], results: Sequence[DrawResult], visits: Visit, width: int, report: bool
) -> None:
    """Fill the places of each request: a slate at once, or one item after another without feedback."""
    version = requests[0].version
    slate, start, unfilled = version.checkpoint.interface.slate_size, 0, [*range(len(requests))]
    while unfilled:
        going, end = [requests[at] for at in unfilled], start + slate
        visits = visits.at(_tensor(request.hour for request in going))
        obs = visits.observe(_showable(going, visits))
        obs = _limited(obs, going, [results[at].items for at in unfilled], width)
        given = [request.items[start:end] for request in going if request.items is not None]
        choices = choose(
            [request.version for request in going],
            obs,
            [request.uniforms[start:end] for request in going],
            [request.explore for request in going],
            [request.new_items for request in going],
            given or None,
            popular=bool(going[0].degraded),
        )
        more: list[int] = []  # rows of those with places left
        for row, (at, choice) in enumerate(zip(unfilled, choices, strict=True)):
            result = results[at]
            if not choice.enough:
                result.error = TOO_FEW
                if requests[at].items is None:
                    continue
            result.items += choice.items
            result.logprobs += choice.logprobs
            if choice.fault:
                result.degraded = requests[at].degraded or choice.fault
            elif start == 0 and choice.candidates is not None:
                result.candidates = tuple(item for item in choice.candidates.tolist() if item >= 0)
            if report:
                one = torch.tensor([row])
                result.rounds.append(Round(_rows(visits, one), obs.rows(one), choice))
            if end < len(requests[at].uniforms):
                more.append(row)
        if more:
            # Each item joins the history as consumed in full: the whole list is shown at once.
            visits = _rows(visits, torch.tensor(more))
            visits = visits.consume(torch.tensor([choices[row].items for row in more]))
        unfilled, start = [unfilled[row] for row in more], end


def _showable(requests: Sequence[DrawRequest], visits: Visit) -> Tensor | None:
    """(N, I) bool: the items that are there at each decision; None: all that are available.

    An item that has changed stands in several rows, and where none is shown twice it counts as one.
    """
    masks = [request.version.showable(request.number) for request in requests]
    there = [mask for mask in masks if mask is not None]
    if not there:
        return None
    showable, stock, shown = torch.stack(there), requests[0].version.stock, visits.session.excluded
    if stock is not None and stock.same_item is not None and shown is not None:
        first = stock.same_item[shown.clamp_min(0)].masked_fill(shown < 0, -1)  # (N, X)
        before = torch.zeros(len(there), stock.num_rows + 1, dtype=torch.bool)  # padding is the last column
        before.scatter_(1, first.masked_fill(first < 0, stock.num_rows), True)
        showable &= ~before[:, :-1].gather(1, stock.same_item.expand(len(there), -1))
    return showable


def _limited(obs: Obs, requests: Sequence[DrawRequest], taken: Sequence[Sequence[int]], width: int) -> Obs:
    """The observation with the limits of the requests; no list holds an item twice.

    ``width``: places of the candidates, 0 without.
    """
    without = [(*request.exclude, *items) for request, items in zip(requests, taken, strict=True)]
    longest = max(map(len, without))
    if longest:
        more = torch.tensor([[*items, *[-1] * (longest - len(items))] for items in without])
        obs = replace(obs, exclude=more if obs.exclude is None else torch.cat([obs.exclude, more], 1))
    if not width:
        return obs
    candidates = [request.candidates or () for request in requests]
    return obs.within(torch.tensor([[*items, *[-1] * (width - len(items))] for items in candidates]))


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float32)


def _rows(visits: Visit, rows: Tensor) -> Visit:
    """The visits in these rows."""

    def select(values: Tensor) -> Tensor:
        return values.index_select(0, rows)

    known = {name: select(values) for name, values in visits.known.items()}
    return Visit(visits.checkpoint, tree_map(select, visits.session), known)

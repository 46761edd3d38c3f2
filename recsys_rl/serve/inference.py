"""Draws of several people at once: their visits so far -> observations -> choices.

A draw is a function of the rows of the record and of numbers in [0, 1) that are recorded with it: it can be
repeated.
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
from recsys_rl.serve.kept import Kept, kept, together
from recsys_rl.serve.rule import Choice, choose
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit, Step
from recsys_rl.types import Events, Interface, Obs, tree_map

TOO_FEW = "too-few-items"


@dataclass
class Ask:
    """What a draw depends on."""

    number: int  # of the decision
    version: Version
    known: int  # the person's row in the population; -1 for a stranger
    likes: tuple[int, ...]
    began: float  # hour of the week at which the visit began
    base: Kept | None  # the visit after earlier steps; None: from its begin
    steps: Sequence[Step]  # the steps after ``base``
    hour: float  # of the week, now
    uniforms: tuple[float, ...]  # one for each place
    candidates: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    explore: float = 0.0
    degraded: str = ""  # popularity draws, and not the policy
    items: tuple[int, ...] | None = None  # not drawn: the log-probabilities of these items are wanted
    deadline: float = math.inf  # by time.monotonic()


def ask_of(visit: ServedVisit, version: Version, hour: float, **rest: Any) -> Ask:
    """What a draw in this session depends on now, at this ``hour`` of the week; ``rest``: fields of Ask."""
    visit.keep_for(version)
    return Ask(
        version=version,
        known=visit.row.known,
        likes=visit.row.likes,
        began=visit.decisions[0].hour if visit.decisions else hour,
        base=visit.visit,
        steps=visit.steps[visit.covered :],
        hour=hour,
        **rest,
    )


@dataclass
class Place:
    """One round of a draw: a slate, or one item of a list."""

    visit: Visit  # before it, of one row
    obs: Obs  # of one row
    choice: Choice


@dataclass
class Drawn:
    """The result of one ``Ask``."""

    visit: Kept | None = None  # after ``Ask.steps``; None after an error
    items: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of each place given those before it
    candidates: tuple[int, ...] | None = None  # the only items that could be shown first; None: all
    degraded: str = ""
    error: str = ""  # why there is no answer
    places: list[Place] = field(default_factory=list)  # of a report


@torch.inference_mode()
def draw(asks: Sequence[Ask], report: bool = False) -> list[Drawn]:
    """The draws of all asks. ``report``: with ``Drawn.places``."""
    found: list[Drawn] = [Drawn() for _ in asks]
    groups: dict[tuple[int, int, bool, bool], list[int]] = defaultdict(list)
    for at, ask in enumerate(asks):
        width = 0 if ask.candidates is None else -(-len(ask.candidates) // TILE) * TILE
        groups[id(ask.version), width, bool(ask.degraded), ask.items is None].append(at)
    for (_, width, _, _), rows in groups.items():
        # Those who stand at the same place are brought up to now together.
        rows.sort(key=lambda at: (asks[at].base is None, len(asks[at].steps)))
        group, results = [asks[at] for at in rows], [found[at] for at in rows]
        visits = _brought_up(group)
        for result, visit in zip(results, kept(visits), strict=True):
            result.visit = visit
        _fill(group, results, visits, width, report)
    # A list is of one rule: where the policy failed at one place, popularity chooses all places.
    mixed = [at for at, ask in enumerate(asks) if found[at].degraded and not ask.degraded and _is_list(ask)]
    if mixed:
        others = draw([replace(asks[at], degraded=found[at].degraded) for at in mixed], report)
        for at, other in zip(mixed, others, strict=True):
            found[at] = other
    return found


def _is_list(ask: Ask) -> bool:
    """True if the places are drawn one after another."""
    return len(ask.uniforms) > ask.version.checkpoint.interface.slate_size


def _brought_up(asks: Sequence[Ask]) -> Visit:
    """The visits of all asks after their steps."""
    version, parts = asks[0].version, list[Visit]()
    for (fresh, number), some in groupby(asks, lambda ask: (ask.base is None, len(ask.steps))):
        group = [*some]
        if fresh:
            profiles = torch.cat([version.profile(ask.known, ask.likes) for ask in group])
            rows, likes = torch.tensor([ask.known for ask in group]), [ask.likes for ask in group]
            hours = _tensor(ask.began for ask in group)
            visits = Visit.begin(version.checkpoint, profiles, hours, rows, likes)
        else:
            visits = together([ask.base for ask in group if ask.base is not None])
        for depth in range(number):
            steps = [ask.steps[depth] for ask in group]
            visits = visits.at(_tensor(step.hour for step in steps))
            visits = _record(visits, steps, version.checkpoint.interface)
        parts.append(visits)
    return parts[0] if len(parts) == 1 else Visit.together(parts)


def _record(visits: Visit, steps: Sequence[Step], interface: Interface) -> Visit:
    """The visits after one more step each."""
    items = torch.tensor([step.items for step in steps])  # (N, K)
    signals = torch.tensor([step.signals for step in steps], dtype=torch.float32)  # (N, K, S)
    signals = signals.view(*items.shape, len(interface.signals))
    events = None
    if interface.events:
        width, nothing = max(1, *(len(step.left) for step in steps)), [0.0] * len(interface.signals)
        left = [[*step.left, *[-1] * (width - len(step.left))] for step in steps]
        of_left = [[*step.left.values(), *[nothing] * (width - len(step.left))] for step in steps]
        events = Events(torch.tensor(left), torch.tensor(of_left, dtype=torch.float32))
    return visits.record(items, signals, None, events)


def _fill(asks: Sequence[Ask], found: Sequence[Drawn], visits: Visit, width: int, report: bool) -> None:
    """Fill the places of each ask: a slate at once, or one item after another without feedback."""
    version = asks[0].version
    slate, start, going = version.checkpoint.interface.slate_size, 0, [*range(len(asks))]
    while going:
        own, end = [asks[at] for at in going], start + slate
        visits = visits.at(_tensor(ask.hour for ask in own))
        obs = _limited(visits.observe(), own, [found[at].items for at in going], width)
        given = [ask.items[start:end] for ask in own if ask.items is not None]
        choices = choose(
            version,
            obs,
            [ask.uniforms[start:end] for ask in own],
            [ask.explore for ask in own],
            given or None,
            popular=bool(own[0].degraded),
        )
        more: list[int] = []  # rows of those with places left
        for row, (at, choice) in enumerate(zip(going, choices, strict=True)):
            result = found[at]
            if not choice.enough:
                result.error = TOO_FEW
                continue
            result.items += choice.items
            result.logprobs += choice.logprobs
            if choice.fault:
                result.degraded = asks[at].degraded or choice.fault
            elif start == 0 and choice.candidates is not None:
                result.candidates = tuple(x for x in choice.candidates.tolist() if x >= 0)
            if report:
                one = torch.tensor([row])
                result.places.append(Place(_picked(visits, one), obs.rows(one), choice))
            if end < len(asks[at].uniforms):
                more.append(row)
        if more:
            # Each item joins the history as consumed in full: the whole list is shown at once.
            visits = _picked(visits, torch.tensor(more))
            visits = visits.consume(torch.tensor([choices[row].items for row in more]))
        going, start = [going[row] for row in more], end


def _limited(obs: Obs, asks: Sequence[Ask], taken: Sequence[Sequence[int]], width: int) -> Obs:
    """The observation with the limits of the requests; no list holds an item twice.

    ``width``: places of the candidates, 0 without.
    """
    without = [(*ask.exclude, *items) for ask, items in zip(asks, taken, strict=True)]
    longest = max(map(len, without))
    if longest:
        more = torch.tensor([[*items, *[-1] * (longest - len(items))] for items in without])
        obs = replace(obs, exclude=more if obs.exclude is None else torch.cat([obs.exclude, more], 1))
    if not width:
        return obs
    lists = torch.tensor(
        [[*(ask.candidates or ()), *[-1] * (width - len(ask.candidates or ()))] for ask in asks]
    )
    allowed = torch.ones_like(lists, dtype=torch.bool)
    if obs.exclude is not None:
        forbidden = [set(row) for row in obs.exclude.tolist()]
        allowed &= torch.tensor(
            [[x not in forbidden[at] for x in row] for at, row in enumerate(lists.tolist())]
        )
    if obs.mask is not None:
        allowed &= obs.mask.gather(1, lists.clamp_min(0))
    return obs.among(lists.masked_fill(~allowed, -1))


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float32)


def _picked(visits: Visit, rows: Tensor) -> Visit:
    """The visits in these rows."""

    def pick(x: Tensor) -> Tensor:
        return x.index_select(0, rows)

    known = {name: pick(x) for name, x in visits.known.items()}
    return Visit(visits.checkpoint, tree_map(pick, visits.session), known)

"""Draws of several people at once: their visits so far -> observations -> scores -> items.

A draw is a function of the rows of the record and of numbers in [0, 1) that are recorded with it: it can be
repeated. The last digits of a matrix product depend on the number of its rows: each batch is padded to
multiples of TILE rows, and a draw that is repeated alone gives the same numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import TILE
from recsys_rl.recommender import Visit
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import Step
from recsys_rl.types import Events, Interface, Obs, tree_map

LATE, RAISED, NOT_FINITE, TOO_FEW = "late", "raised", "not-finite", "too-few-items"
TOP = 10  # alternatives of a report


@dataclass
class Ask:
    """What a draw depends on."""

    number: int  # of the decision
    version: Version
    known: int  # the person's row in the population; -1 for a stranger
    likes: tuple[int, ...]
    began: float  # hour of the week at which the visit began
    base: Visit | None  # the visit after earlier steps; None: from its begin
    steps: Sequence[Step]  # the steps after ``base``
    hour: float  # of the week, now
    uniforms: tuple[float, ...]  # one for each place
    candidates: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    explore: float = 0.0
    degraded: str = ""  # popularity draws, and not the policy
    deadline: float = math.inf  # by time.monotonic()


@dataclass
class Drawn:
    """The result of one ``Ask``."""

    visit: Visit | None = None  # after ``Ask.steps``; None after an error
    items: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of each place given those before it
    candidates: tuple[int, ...] | None = None  # the only items that could be shown; None: all
    degraded: str = ""
    error: str = ""  # why there is no answer: TOO_FEW, LATE
    obs: Obs | None = None  # of the first place, one row; for reports
    scores: Tensor | None = None  # (C,) of the first place; for reports


@torch.inference_mode()
def draw(asks: Sequence[Ask], report: bool = False) -> list[Drawn]:
    """The draws of all asks. ``report``: with observation and scores."""
    found: list[Drawn] = [Drawn() for _ in asks]
    groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
    for at, ask in enumerate(asks):
        width = 0 if ask.candidates is None else -(-len(ask.candidates) // TILE) * TILE
        groups[id(ask.version), width, bool(ask.degraded)].append(at)
    for (_, width, _), places in groups.items():
        group = [asks[at] for at in places]
        visits = _brought_up(group)
        for at, visit in zip(places, visits, strict=True):
            found[at].visit = visit
        _draw_places(group, visits, [found[at] for at in places], width, report)
    return found


def _brought_up(asks: Sequence[Ask]) -> list[Visit]:
    """The visit of each ask after its steps, of one row each."""
    version = asks[0].version
    visits = [ask.base for ask in asks]
    new = [at for at, visit in enumerate(visits) if visit is None]
    if new:
        profiles = torch.cat([version.profile(asks[at].known, asks[at].likes) for at in new])
        hours = torch.tensor([asks[at].began for at in new], dtype=torch.float32)
        for at, visit in zip(new, _rows(Visit.begin(version.checkpoint, profiles, hours)), strict=True):
            visits[at] = visit
    known: list[Visit] = [visit for visit in visits if visit is not None]
    for depth in range(max(len(ask.steps) for ask in asks)):
        going = [at for at, ask in enumerate(asks) if len(ask.steps) > depth]
        steps = [asks[at].steps[depth] for at in going]
        together = Visit.together([known[at] for at in going])
        hours = torch.tensor([step.hour for step in steps], dtype=torch.float32)
        after = _record(together.at(hours), steps, version.checkpoint.interface)
        for at, visit in zip(going, _rows(after), strict=True):
            known[at] = visit
    return known


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


def _draw_places(
    asks: Sequence[Ask], visits: Sequence[Visit], found: Sequence[Drawn], width: int, report: bool
) -> None:
    """Fill the places of each ask: a slate at once, or one item after another without feedback."""
    version = asks[0].version
    slate = version.checkpoint.interface.slate_size
    current, place = [*visits], 0
    going = [*range(len(asks))]
    while going:
        hours = torch.tensor([asks[at].hour for at in going], dtype=torch.float32)
        whole = Visit.together([current[at] for at in going]).at(hours)
        obs, short = _limited(whole.observe(), [asks[at] for at in going], [found[at] for at in going], width)
        uniforms = torch.tensor([asks[at].uniforms[place : place + slate] for at in going])  # (N, K)
        obs, uniforms, failed = _tiled(obs), _tile(uniforms), RAISED
        scores: Tensor | None = None
        if not asks[going[0]].degraded:
            try:
                obs, scores = _scores(version, obs)
                failed = NOT_FINITE
            except Exception:  # whatever a policy raises, popularity answers
                scores = None
        bad = [True] * len(going)
        if scores is not None:
            shown = scores[: len(going)]
            # A score of -inf forbids an item; NaN, or infinity, is a fault.
            fault = shown.isnan().any(1) | (shown == torch.inf).any(1)
            bad = fault.tolist()
        kept: list[int] = []
        for good in (True, False):
            rows = [row for row, wrong in enumerate(bad) if wrong != good]
            if not rows:
                continue
            if good:
                assert scores is not None
                own, of = scores, obs
            else:
                own, of = _popularity(version, obs), replace(obs, candidates=None)
                for row in rows:
                    found[going[row]].degraded = asks[going[row]].degraded or failed
            own = _explored(own, torch.tensor(_padded([asks[at].explore for at in going])))
            enough = ((own > -torch.inf).sum(1) >= slate).tolist()
            for row in rows:
                if not enough[row] or short[row]:
                    found[going[row]].error = TOO_FEW
            rows = [row for row in rows if not found[going[row]].error]
            usable = [row for row, ok in enumerate(enough) if ok]
            if not rows:
                continue
            items, logprobs = _drawn(own, of, uniforms, usable, slate)
            for row in rows:
                result = found[going[row]]
                if report and not place:
                    result.obs, result.scores = of.rows(torch.tensor([row])), own[row]
                result.items += items[row]
                result.logprobs += logprobs[row]
                if good and of.candidates is not None and result.candidates is None:
                    result.candidates = tuple(x for x in of.candidates[row].tolist() if x >= 0)
            kept += rows
        place += slate
        more = [row for row in sorted(kept) if place < len(asks[going[row]].uniforms)]
        if more:
            # Each item joins the history as consumed in full: the whole list is shown at once.
            latest = torch.tensor([found[going[row]].items[-slate:] for row in more])
            after = Visit.together([current[going[row]] for row in more]).consume(latest)
            for row, visit in zip(more, _rows(after), strict=True):
                current[going[row]] = visit
        going = [going[row] for row in more]


def _limited(obs: Obs, asks: Sequence[Ask], found: Sequence[Drawn], width: int) -> tuple[Obs, list[bool]]:
    """The observation with the limits of the requests, and True where no item is left at all."""
    taken = [(*ask.exclude, *result.items) for ask, result in zip(asks, found, strict=True)]
    longest = max(map(len, taken))
    if longest:
        more = torch.tensor([[*items, *[-1] * (longest - len(items))] for items in taken])
        obs = replace(obs, exclude=more if obs.exclude is None else torch.cat([obs.exclude, more], 1))
    if not width:
        return obs, [False] * len(asks)
    excluded = [set()] * len(asks) if obs.exclude is None else [set(row) for row in obs.exclude.tolist()]
    available = None if obs.mask is None else obs.mask
    rows = []
    for at, ask in enumerate(asks):
        assert ask.candidates is not None
        left = [x for x in dict.fromkeys(ask.candidates) if x not in excluded[at]]
        if available is not None:
            left = [x for x in left if bool(available[at, x])]
        rows.append([*left, *[-1] * (width - len(left))])
    return obs.among(torch.tensor(rows)), [row[0] < 0 for row in rows]


def _scores(version: Version, obs: Obs) -> tuple[Obs, Tensor]:
    """The observation with the candidates of a first stage, and the scores (N, C) of the policy."""
    agent = version.recommender.agent
    if obs.candidates is None and agent.first_stage is not None:
        obs = agent.propose(obs)
    return obs, agent.scores(obs)


def _popularity(version: Version, obs: Obs) -> Tensor:
    """(N, I): the logits of popularity."""
    allowed = obs.showable(version.checkpoint.catalogue.num_items)
    return version.popularity.expand(len(allowed), -1).masked_fill(~allowed, -torch.inf)


def _explored(scores: Tensor, explore: Tensor) -> Tensor:
    """The logits (N, C) of (1 - explore) softmax(scores) + explore / allowed, for explore (N,)."""
    if not bool(explore.any()):
        return scores
    allowed = scores > -torch.inf
    share = explore.unsqueeze(1)
    uniform = allowed / allowed.sum(1, keepdim=True).clamp_min(1)
    return ((1 - share) * scores.softmax(1) + share * uniform).log()


def _drawn(
    scores: Tensor, obs: Obs, uniforms: Tensor, usable: list[int], slate: int
) -> tuple[list[list[int]], list[list[float]]]:
    """By row the items and the log-probability of each place; rows but ``usable`` have no meaning.

    Draws of rows do not depend on other rows.
    """
    safe = scores
    if len(usable) < len(scores):  # a row without items can't be drawn
        wanted = torch.zeros(len(scores), dtype=torch.bool)
        wanted[usable] = True
        safe = torch.where(wanted.unsqueeze(1), scores, torch.zeros_like(scores))
    chosen = PlackettLuce(safe, slate)
    index = chosen.draw_at(uniforms)[0]
    return obs.items_at(index).tolist(), chosen.place_logprobs(index).tolist()


def _tiled(obs: Obs) -> Obs:
    """The rows, and the last one again up to a multiple of TILE."""
    number = obs.num_rows
    if number % TILE == 0:
        return obs
    return obs.rows(torch.arange(-(-number // TILE) * TILE).clamp_max(number - 1))


def _tile(values: Tensor) -> Tensor:
    """The same for a tensor (N, ...)."""
    number = len(values)
    if number % TILE == 0:
        return values
    return values[torch.arange(-(-number // TILE) * TILE).clamp_max(number - 1)]


def _padded(values: Sequence[float]) -> list[float]:
    """The same for a list."""
    return [*values, *[values[-1]] * (-len(values) % TILE)]


def _rows(visits: Visit) -> list[Visit]:
    """Each person's visit alone."""
    session, known = visits.session, visits.known
    return [
        replace(
            visits,
            # Copies: a view would keep the rows of all others in memory.
            session=tree_map(lambda x, a=at: x[a : a + 1].clone(), session),
            known={name: x[at : at + 1].clone() for name, x in known.items()},
        )
        for at in range(len(session.users))
    ]

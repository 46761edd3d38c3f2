"""From a DecisionLog back to observations, made by session.py, and to transitions for learning.

Sessions are replayed many at a time, step by step, so memory grows with their number and not with the log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.session import PIECES, Session
from recsys_rl.types import Catalogue, Events, Obs, UserError, tree_map

SESSIONS = 256
"""Sessions that are replayed together."""


@dataclass(frozen=True)
class Transitions:
    """B decisions with the observations before and after."""

    obs: Obs  # (B, ...)
    items: Tensor  # (B, K) int64
    logprobs: Tensor  # (B,) float64: of the policy that made the decisions
    rewards: Tensor  # (B,) float32
    # (B, ...): what may be shown next is in its mask, exclude and candidates. After a last step it is made
    # from the pieces of the context, and the candidates, of that step.
    next_obs: Obs
    terminated: Tensor  # (B,) bool: no value follows
    truncated: Tensor  # (B,) bool

    def rows(self, index: Tensor) -> Transitions:
        """The rows at ``index`` (B',)."""
        found = tree_map(lambda x: x.index_select(0, index), self)
        return dataclasses.replace(found, obs=self.obs.rows(index), next_obs=self.next_obs.rows(index))


def observations(
    log: DecisionLog, catalogue: Catalogue, sessions: int = SESSIONS
) -> Iterator[tuple[Tensor, Obs]]:
    """The rows (B,) int64 of whole sessions, in order, and what the policy saw before each: Obs of B rows.

    Raises UserError if a piece of the context is missing. ``catalogue`` must be that of the log
    (``check_catalogue``), and the log must hold whole sessions.
    """
    for first, lengths in _groups(log, sessions):
        obs, last = _replay(log, catalogue, first, lengths)
        yield _rows(first, lengths), obs.rows((~last).nonzero().squeeze(1))


def observe(log: DecisionLog, catalogue: Catalogue) -> Obs:
    """The observation before each decision, all E at once."""
    parts = [obs for _, obs in observations(log, catalogue)]
    return tree_map(lambda *x: torch.cat(x), *parts)


def transitions(
    log: DecisionLog,
    catalogue: Catalogue,
    rewards: Tensor,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> Iterator[Transitions]:
    """One pass over the log in batches of ``batch_size`` rows; the last batch may have fewer.

    Args:
        rewards: (E,) float32, computed from ``log.feedback``.
        generator: shuffles the sessions, and the rows of every SESSIONS of them; None keeps the order.
    """
    waiting: list[Transitions] = []
    for first, lengths in _groups(log, SESSIONS, generator):
        obs, last = _replay(log, catalogue, first, lengths)
        rows = _rows(first, lengths)
        keep = (~last).nonzero().squeeze(1)  # (B,)
        whole = Transitions(
            obs=obs.rows(keep),
            items=log.items[rows],
            logprobs=log.logprobs[rows],
            rewards=rewards[rows],
            next_obs=obs.rows(keep + 1),
            terminated=log.terminated[rows],
            truncated=log.truncated[rows],
        )
        if generator is not None:
            whole = whole.rows(torch.randperm(len(rows), generator=generator))
        waiting.append(whole)
        while sum(len(part.rewards) for part in waiting) >= batch_size:
            joined = _join(waiting)
            places = torch.arange(len(joined.rewards))
            yield joined.rows(places[:batch_size])
            waiting = [joined.rows(places[batch_size:])]
    rest = _join(waiting)
    if len(rest.rewards):
        yield rest


def _join(parts: list[Transitions]) -> Transitions:
    if len(parts) == 1:
        return parts[0]

    def join(*x: Tensor) -> Tensor:
        return torch.cat(x)

    whole = tree_map(join, *parts)
    return dataclasses.replace(
        whole,
        obs=tree_map(join, *(part.obs for part in parts)),
        next_obs=tree_map(join, *(part.next_obs for part in parts)),
    )


def _groups(
    log: DecisionLog, sessions: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """First rows (G,) and lengths (G,) of ``sessions`` sessions at a time."""
    first = (log.steps == 0).nonzero().squeeze(1)  # (G,)
    lengths = torch.diff(first, append=torch.tensor([log.num_rows]))
    order = torch.arange(len(first))
    if generator is not None:
        order = torch.randperm(len(first), generator=generator)
    for part in order.split(sessions):
        yield first[part], lengths[part]


def _rows(first: Tensor, lengths: Tensor) -> Tensor:
    """The rows (B,) of these sessions, one session after another."""
    start = lengths.cumsum(0) - lengths  # (G,): of each session among the B rows
    return torch.arange(int(lengths.sum())) + (first - start).repeat_interleave(lengths)


def _replay(log: DecisionLog, catalogue: Catalogue, first: Tensor, lengths: Tensor) -> tuple[Obs, Tensor]:
    """The observations of these G sessions, one session after another: before each step, and after the last.

    Returns: Obs of B + G rows, and (B + G,) bool: True for the observation after a last step.
    """
    _check_pieces(log)
    session = Session.begin(log.header.interface, catalogue, log.users[first])
    visible = log.visible
    mask = None if bool(catalogue.available.all()) else catalogue.available  # (I,)
    found: list[Obs] = []
    keys: list[Tensor] = []  # (g,) each: the place among the B + G rows
    start = (lengths + 1).cumsum(0) - (lengths + 1)  # (G,)
    for step in range(int(lengths.max()) + 1):
        going = (lengths >= step).nonzero().squeeze(1)  # (g,)
        ended = lengths == step
        rows = first + torch.minimum(torch.full_like(lengths, step), lengths - 1)  # (G,)
        handed = {name: x[rows] for name, x in log.handed.items()}
        obs = session.request(handed, None if mask is None else mask.expand(len(rows), -1))
        found.append(_limited(obs, log, rows, ended).rows(going))
        keys.append(start[going] + step)
        signals = log.signals[rows]  # (G, K, S)
        events = None
        if log.event_items is not None and log.event_signals is not None:
            events = Events(log.event_items[rows], log.event_signals[rows][..., visible])
        items = log.items[rows]
        session = session.record(items.clamp_min(0), signals[..., visible], items < 0, events)
    obs = tree_map(lambda *x: torch.cat(x), *found)
    last = torch.zeros(obs.num_rows, dtype=torch.bool)
    last[start + lengths] = True
    return obs.rows(torch.cat(keys).argsort()), last


def _limited(obs: Obs, log: DecisionLog, rows: Tensor, ended: Tensor) -> Obs:
    """The observation with the exclusions and candidates of ``rows`` (G,).

    After the end of a session, the items of the last step are taken out of its candidates.
    """
    if log.exclude is not None:
        more = log.exclude[rows]
        exclude = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
        obs = dataclasses.replace(obs, exclude=exclude)
    if log.candidates is None:
        return obs
    candidates = log.candidates[rows]  # (G, C)
    if not log.header.interface.repeats:
        shown = (candidates.unsqueeze(2) == log.items[rows].unsqueeze(1)).any(2)
        candidates = candidates.masked_fill(shown & ended.unsqueeze(1), -1)
    return obs.among(candidates)


def _check_pieces(log: DecisionLog) -> None:
    """Raise UserError for a piece of the context that is nowhere, and for users with several visits."""
    if log.header.interface.visits > 1:
        raise UserError(
            "The log is of users with several visits, and no log holds the days between them: record "
            "sessions of one visit (--visits 1)."
        )
    for name, _ in log.header.interface.context:
        if name not in log.handed and name not in PIECES:
            raise UserError(
                f"The log has no column context.{name}, which its observations need: record the log again."
            )

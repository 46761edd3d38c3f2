"""The observations of a DecisionLog, made again by session.py, and transitions for learning.

Sessions are replayed many at a time, step by step, so memory grows with their number and not with the log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.data.timeline import ItemTimeline
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.session import PIECES, Session
from recsys_rl.types import Catalogue, Events, Obs, Transitions, UserError, tree_map

SESSIONS = 256
"""Sessions that are replayed together."""


@dataclass(frozen=True)
class TransitionTable:
    """All E decisions of a log as tensors, from which ``at`` gathers transitions.

    ``obs`` holds the observations of each session, one session after another: before each decision, and after
    the last one. So the observation after a decision is the next row.
    """

    obs: Obs  # (E + G, ...)
    before: Tensor  # (E,) int64: the row of ``obs`` before each decision
    items: Tensor  # (E, K) int64
    logprobs: Tensor  # (E,) float64
    rewards: Tensor  # (E,) float32
    terminated: Tensor  # (E,) bool
    truncated: Tensor  # (E,) bool
    returns_to_go: Tensor  # (E,) float32
    steps_left: Tensor  # (E,) int64
    steps: Tensor  # (E,) int64
    possible: Tensor  # (E, 2) float32
    place_logprobs: Tensor | None  # (E, K) float64
    place_rewards: Tensor | None  # (E, K) float32

    @property
    def num_rows(self) -> int:
        """E"""
        return len(self.rewards)

    def at(self, index: Tensor) -> Transitions:
        """The transitions of the decisions ``index`` (B,) int64."""
        before = self.before[index]
        return Transitions(
            obs=self.obs.rows(before),
            items=self.items[index],
            logprobs=self.logprobs[index],
            rewards=self.rewards[index],
            next_obs=self.obs.rows(before + 1),
            terminated=self.terminated[index],
            truncated=self.truncated[index],
            returns_to_go=self.returns_to_go[index],
            steps_left=self.steps_left[index],
            steps=self.steps[index],
            possible=self.possible[index],
            place_logprobs=None if self.place_logprobs is None else self.place_logprobs[index],
            place_rewards=None if self.place_rewards is None else self.place_rewards[index],
        )


def transition_table(
    log: DecisionLog,
    catalogue: Catalogue,
    rewards: Tensor,
    gamma: float = 1.0,
    span: tuple[float, float] | None = None,
    endless: bool = False,
    place_rewards: Tensor | None = None,
) -> TransitionTable:
    """The table of a log of whole sessions, with the ``rewards`` (E,) of its rows, in the order of the log.

    Args:
        gamma: discount of ``returns_to_go`` and ``possible``.
        span: the smallest and the largest reward, for ``possible``; None: those of ``rewards``.
        endless: value follows the time limit, so that ``possible`` counts steps without end.
        place_rewards: (E, K), of slates that are learned by place; None: each is one decision.

    Raises UserError as ``observations`` does.
    """
    parts = [_replay(log, catalogue, first, lengths)[0] for first, lengths in _groups(log, SESSIONS)]
    first, lengths = next(_groups(log, log.num_rows))
    steps_left = lengths.repeat_interleave(lengths) - log.steps
    returns = rewards.double().clone()  # (E,)
    for step in range(int(lengths.max()) - 2, -1, -1):  # from the last step but one backwards
        rows = (first + step)[lengths > step + 1]
        returns[rows] += gamma * returns[rows + 1]
    return TransitionTable(
        obs=tree_map(lambda *pieces: torch.cat(pieces), *parts),
        before=torch.arange(log.num_rows) + torch.arange(len(first)).repeat_interleave(lengths),
        items=log.items,
        logprobs=log.logprobs,
        rewards=rewards.float(),
        terminated=log.terminated,
        truncated=log.truncated,
        returns_to_go=returns.float(),
        steps_left=steps_left,
        steps=log.steps,
        possible=_possible(
            log, steps_left, span or (float(rewards.min()), float(rewards.max())), gamma, endless
        ),
        place_logprobs=None if place_rewards is None else log.place_logprobs,
        place_rewards=None if place_rewards is None else place_rewards.float(),
    )


def _possible(
    log: DecisionLog, steps_left: Tensor, span: tuple[float, float], gamma: float, endless: bool
) -> Tensor:
    """(E, 2): the least and the largest return from each decision on, with rewards within ``span``.

    A session may end early, so 0 is possible after a step. Without an end and a discount there is no bound.
    """
    longest = log.header.interface.session_length or int((log.steps + steps_left).max())
    left = torch.full_like(log.steps, -1) if endless else longest - log.steps  # (E,)
    if gamma == 1:
        sums = torch.where(left < 0, torch.inf, left.double())
    else:
        sums = (1 - torch.where(left < 0, 0.0, gamma ** left.double())) / (1 - gamma)  # 1 + g + g^2 + ...
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    bounds = [
        bound * sums if bound else torch.zeros_like(sums) for bound in (low, high)
    ]  # 0 x infinity is NaN
    return torch.stack(bounds, 1).float()


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
    return tree_map(lambda *pieces: torch.cat(pieces), *parts)


def _groups(log: DecisionLog, sessions: int) -> Iterator[tuple[Tensor, Tensor]]:
    """First rows (G,) and lengths (G,) of ``sessions`` sessions at a time."""
    first = (log.steps == 0).nonzero().squeeze(1)  # (G,)
    lengths = torch.diff(first, append=torch.tensor([log.num_rows]))
    yield from zip(first.split(sessions), lengths.split(sessions), strict=True)


def _rows(first: Tensor, lengths: Tensor) -> Tensor:
    """The rows (B,) of these sessions, one session after another."""
    start = lengths.cumsum(0) - lengths  # (G,): of each session among the B rows
    return torch.arange(int(lengths.sum())) + (first - start).repeat_interleave(lengths)


def _replay(log: DecisionLog, catalogue: Catalogue, first: Tensor, lengths: Tensor) -> tuple[Obs, Tensor]:
    """The observations of these G sessions, one session after another: before each step, and after the last.

    Returns: Obs of B + G rows, and (B + G,) bool: True for the observation after a last step.
    """
    _check_pieces(log)
    interface = log.header.interface
    session = seen = Session.begin(interface, catalogue, log.users[first])
    visible, consumed = log.visible, torch.tensor(log.header.consumed or (1.0,) * len(interface.signals))
    width = 0 if log.list_place is None else int(log.list_place.max()) * interface.slate_size
    above = log.items.new_full((len(first), width), -1)  # (G, X): items above in the list, -1 padding
    # (I,); of a team's own place it says what may be shown from now on, and the log is of then.
    mask = None if catalogue.own or bool(catalogue.available.all()) else catalogue.available
    observations: list[Obs] = []
    keys: list[Tensor] = []  # (g,) each: the place among the B + G rows
    start = (lengths + 1).cumsum(0) - (lengths + 1)  # (G,)
    for step in range(int(lengths.max()) + 1):
        going = (lengths >= step).nonzero().squeeze(1)  # (g,)
        rows = first + torch.minimum(torch.full_like(lengths, step), lengths - 1)  # (G,)
        given = {name: values[rows] for name, values in log.given.items()}
        seen, above = _before(log, rows, lengths > step, session, seen, above)
        could = None if mask is None else mask.expand(len(rows), -1)  # (G, I)
        if log.stock is not None:
            could = ItemTimeline.of(catalogue).available_at(log.stock[rows])
        obs = seen.request(given, could)
        observations.append(_limited(obs, log, rows, above).rows(going))
        keys.append(start[going] + step)
        signals = log.signals[rows]  # (G, K, S)
        events = None
        if log.event_items is not None and log.event_signals is not None:
            events = Events(log.event_items[rows], log.event_signals[rows][..., visible])
        items = log.items[rows]
        session = session.record(items.clamp_min(0), signals[..., visible], items >= 0, events)
        if log.list_place is not None:
            seen = seen.consumed(items.clamp_min(0), consumed, items >= 0)
            above = torch.cat([above, items], 1)[:, items.shape[1] :]
    obs = tree_map(lambda *pieces: torch.cat(pieces), *observations)
    last = torch.zeros(obs.num_rows, dtype=torch.bool)
    last[start + lengths] = True
    return obs.rows(torch.cat(keys).argsort()), last


def _before(
    log: DecisionLog, rows: Tensor, there: Tensor, session: Session, seen: Session, above: Tensor
) -> tuple[Session, Tensor]:
    """The sessions as the policy saw them before the decisions of ``rows`` (G,), and the items above these.

    Inside a list these are the sessions ``seen`` in which the items ``above`` (G, X) were consumed in full;
    else ``session``, with the feedback. After the end of a session, where it is not ``there``, too.
    """
    if log.list_place is None:
        return session, above
    inside = (log.list_place[rows] > 0) & there  # (G,)

    def chosen(of_list: Tensor, of_session: Tensor) -> Tensor:
        return torch.where(inside.view(-1, *[1] * (of_list.ndim - 1)), of_list, of_session)

    return tree_map(chosen, seen, session), above.masked_fill(~inside.unsqueeze(1), -1)


def _limited(obs: Obs, log: DecisionLog, rows: Tensor, above: Tensor) -> Obs:
    """The observation with the exclusions and candidates of ``rows`` (G,), beside its own limits.

    A list holds none of the items ``above`` (G, X) again. Exclusions become a mask, as in the environment,
    where it takes no more memory than their ids.
    """
    lists = [] if log.exclude is None else [log.exclude[rows]]
    if log.header.interface.repeats and above.shape[1]:  # else the session excludes them
        lists.append(above)
    if lists:
        more, num_items = torch.cat(lists, 1), log.header.num_items  # (G, X)
        if num_items <= more.shape[1] * more.element_size():
            excluded = dataclasses.replace(obs, exclude=more)
            obs = dataclasses.replace(obs, mask=excluded.allowed(num_items))
        else:
            exclude = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
            obs = dataclasses.replace(obs, exclude=exclude)
    return obs if log.candidates is None else obs.within(log.candidates[rows])


def _check_pieces(log: DecisionLog) -> None:
    """Raise UserError for a piece of the context that is nowhere, and for users with several visits."""
    if log.header.interface.visits > 1:
        raise UserError(
            "The log is of users with several visits, and no log holds the days between them: record "
            "sessions of one visit (--visits 1)."
        )
    for name, _ in log.header.interface.context:
        if name not in log.given and name not in PIECES:
            raise UserError(
                f"The log has no column context.{name}, which its observations need: record the log again."
            )

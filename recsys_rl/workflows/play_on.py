"""Lists of a policy's recommendations, made by playing on.

One place after another is filled without feedback, and each item joins the history as consumed in full before
the policy chooses the next one. On a platform with slates a whole slate comes, then joins, and the next one
follows. No list holds an item twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError
from recsys_rl.functional import categorical
from recsys_rl.session import PIECES, Session
from recsys_rl.types import Events, Interface, Obs

NOON = 12.0  # on Monday: the hour of rankings, which must not depend on the clock


def begin(checkpoint: Checkpoint, number: int, history: Sequence[int]) -> Session:
    """Sessions of ``number`` people after ``history``, each item in the first place of its own slate."""
    interface = checkpoint.interface
    sessions = Session.begin(interface, checkpoint.catalogue, torch.arange(number))
    places = torch.arange(interface.slate_size).expand(number, -1)  # (N, K)
    for item in history:
        items = torch.full_like(places, item)
        sessions = sessions.record(items, _consumed(checkpoint, items), skipped=places > 0)
    return sessions


def observe(
    checkpoint: Checkpoint, sessions: Session, profiles: Tensor, mask: Tensor, hour: float | None
) -> Obs:
    """The observations of N people with ``profiles`` (N, D), who may be shown ``mask`` (N, I).

    Pieces of the context beside those of the session are those at the start of a visit at this hour. Raises
    UserError if the platform does not have them.
    """
    interface = checkpoint.interface
    latest = interface.session_length - 1  # a longer list is at the last step of a session
    sessions = replace(sessions, steps=sessions.steps.clamp_max(latest))
    first, *others = ((name, size) for name, size in interface.context if name not in PIECES)
    handed = _opening(checkpoint, others, hour) if others else {}
    context = {name: x.expand(len(profiles), -1) for name, x in handed.items()} | {first[0]: profiles}
    return sessions.request(context, mask)


@torch.inference_mode()
def play_on(
    checkpoint: Checkpoint,
    model: Any,
    sessions: Session,
    profiles: Tensor,
    mask: Tensor,
    length: int,
    hour: float | None = None,
    listed: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill ``length`` places for N people.

    Args:
        model: the policy's network, an ``ActorCritic``.
        sessions: those of the N people so far.
        profiles: (N, D).
        mask: (N, I) bool, the items that may be shown.
        hour: of the week, if the policy sees it.
        listed: a two-stage policy chooses among all items of the mask, without its search.
        generator: draws each place with the policy's probabilities; None takes the most probable item.

    Returns: items (N, length) int64, and their probabilities (N, length) float64, each given the places to
    its left. A row with fewer allowed items than ``length`` has meaningless places at its end.
    """
    mask, everyone = mask.clone(), torch.arange(len(profiles))
    interface: Interface = checkpoint.interface
    places: list[Tensor] = []
    chances: list[Tensor] = []
    while len(places) < length:
        obs = _proposed(model, observe(checkpoint, sessions, profiles, mask, hour), listed)
        left = model(obs)[0].logits.flatten(1).clone()  # (N, A)
        slate: list[Tensor] = []
        for _ in range(min(interface.slate_size, length - len(places))):
            left[(left == -torch.inf).all(1)] = 0.0  # nothing is left for this person: the list has ended
            index = left.argmax(1) if generator is None else categorical.draw(left, generator)[0]  # (N,)
            chances.append(categorical.logprob(left.double(), index).exp())
            left[everyone, index] = -torch.inf
            slate.append(obs.items_at(index.unsqueeze(1)).squeeze(1).clamp_min(0))
            mask[everyone, slate[-1]] = False
        places += slate
        if len(places) < length:
            items = torch.stack(slate, 1)  # (N, K)
            signals = _consumed(checkpoint, items)
            events = Events(items, signals) if interface.events else None
            sessions = sessions.record(items, signals, events=events)
    return torch.stack(places, 1), torch.stack(chances, 1)


def _proposed(model: Any, obs: Obs, listed: bool) -> Obs:
    """``obs`` with the candidates of a two-stage policy: all allowed items if they are ``listed``.

    Its search alone could miss listed items, or find only what a person has already.
    """
    if model.retriever is None or obs.mask is None:
        return obs
    if listed:
        rows = obs.mask.any(0).nonzero().squeeze(1)  # (C,): allowed for any of these people
        return obs.among(torch.where(obs.mask[:, rows], rows, -1))
    available = len(model.retriever.rows)
    forbidden = available - int(obs.mask.sum(1).min())
    proposed: Obs = model.propose(
        obs, True, torch.Generator(), min(forbidden, available - model.num_candidates)
    )
    return proposed


def _consumed(checkpoint: Checkpoint, items: Tensor) -> Tensor:
    """(N, K, S): the visible signals of ``items`` (N, K), consumed in full."""
    opening = checkpoint.config.platform.opening
    known = {} if opening is None else opening.consumed
    signals = torch.tensor([known.get(name, 1.0) for name in checkpoint.interface.signals])  # (S,)
    return signals.expand(*items.shape, -1)


def _opening(
    checkpoint: Checkpoint, wanted: Sequence[tuple[str, int]], hour: float | None
) -> dict[str, Tensor]:
    """The pieces (size,) of the context, beside the profile, at the start of a session."""
    config, opening = checkpoint.config, checkpoint.config.platform.opening
    names = ", ".join(name for name, _ in wanted)
    if opening is None:
        raise UserError(
            f"The policy needs more than the profile of a user ({names}), and the platform "
            f"{config.env} lacks their values at the start of a session: give its Platform an opening."
        )
    found = opening.pieces(checkpoint.interface, NOON if hour is None else hour)
    if any(name not in found or found[name].shape != (size,) for name, size in wanted):
        raise UserError(
            f"The checkpoint needs {names} of other sizes than {config.env} has in this version: train again."
        )
    return {name: found[name] for name, _ in wanted}

"""Lists of a policy's recommendations, made by playing on.

One place after another is filled without feedback, and each item joins the history as consumed in full before
the policy chooses the next one. On a platform with slates a whole slate comes, then joins, and the next one
follows. No list holds an item twice; where the places have kinds, the platform says what may come again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional import categorical
from recsys_rl.functional.patterns import Patterns
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.recommender.visit import Visit
from recsys_rl.types import Obs


class Lists(NamedTuple):
    """The lists of N people. A row with fewer allowed items than places has meaningless places at its end."""

    items: Tensor  # (N, length) int64
    chances: Tensor  # (N, length) float64: the probability of each place, given the places to its left
    expected: (
        Tensor | None
    )  # (N, length): the rewards that the policy's network expects; None: it expects none


@torch.inference_mode()
def play_on(
    agent: Any,
    visits: Visit,
    mask: Tensor,
    length: int,
    listed: bool = False,
    generator: torch.Generator | None = None,
) -> Lists:
    """Fill ``length`` places for N people.

    Args:
        agent: the policy, with ``scores``, and with ``propose`` if it has a first stage.
        visits: those of the N people so far.
        mask: (N, I) bool, the items that may be shown.
        listed: a two-stage policy chooses among all items of the mask, without its search.
        generator: draws each place with the policy's probabilities; None takes the most probable item.
    """
    mask, everyone = mask.clone(), torch.arange(len(mask))
    places_of_slate, hours = visits.checkpoint.interface.slate_size, visits.known.get("hour")
    places: list[Tensor] = []
    chances: list[Tensor] = []
    expected: list[Tensor] = []
    while len(places) < length:
        obs = _proposed(agent, visits.observe(mask), listed)
        rewards = agent.expected_rewards(obs) if isinstance(agent, NetworkPolicy) else None  # (N, C)
        slates = agent.slates(obs) if visits.checkpoint.interface.patterns else None
        if slates is not None:
            index, logprobs = _slate(slates, generator)  # (N, K) each
            slate = places_at = [*index.unbind(1)]
            chances += logprobs.exp().unbind(1)
        else:
            slate, places_at = [], []
            left = agent.scores(obs).clone()  # (N, C)
            for _ in range(min(places_of_slate, length - len(places))):
                left[(left == -torch.inf).all(1)] = 0.0  # nothing is left for this person: the list has ended
                index = left.argmax(1) if generator is None else categorical.draw(left, generator)[0]  # (N,)
                chances.append(categorical.logprob(left.double(), index).exp())
                left[everyone, index] = -torch.inf
                places_at.append(index)
                slate.append(obs.items_at(index.unsqueeze(1)).squeeze(1).clamp_min(0))
                mask[everyone, slate[-1]] = False
        places += slate
        if rewards is not None:
            expected += [rewards[everyone, at] for at in places_at]
        if len(places) < length:
            # The whole list is shown at once: the clock does not go on.
            visits = visits.consume(torch.stack(slate, 1)).at(hours)
    items, of_items = torch.stack(places[:length], 1), torch.stack(chances[:length], 1)
    return Lists(items, of_items, torch.stack(expected[:length], 1) if expected else None)


def _slate(slates: Patterns, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The items (N, K) of the most probable slates, or of drawn ones, and their log-probabilities (N, K)."""
    slates = slates.only(slates.enough)  # a row without a slate has ended
    index = slates.best() if generator is None else slates.draw(generator)[0]
    return index, slates.place_logprobs(index)


def _proposed(agent: Any, obs: Obs, listed: bool) -> Obs:
    """``obs`` with the candidates of a two-stage policy: all allowed items if they are ``listed``.

    Its search alone could miss listed items, or find only what a person has already.
    """
    if agent.first_stage is None or obs.mask is None:
        return obs
    if listed:
        rows = obs.mask.any(0).nonzero().squeeze(1)  # (C,): allowed for any of these people
        return obs.among(torch.where(obs.mask[:, rows], rows, -1))
    available, candidates = agent.first_stage
    forbidden = available - int(obs.mask.sum(1).min())
    proposed: Obs = agent.propose(obs, True, min(forbidden, available - candidates))
    return proposed

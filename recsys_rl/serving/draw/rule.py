"""The rule that chooses: scores of the policy, with exploration, and popularity where the policy fails.

The last digits of a matrix product depend on the number of its rows: each batch is padded to multiples of
TILE rows, so that a draw that is repeated alone gives the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional.patterns import Patterns
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import TILE
from recsys_rl.serving.draw import versions
from recsys_rl.serving.draw.versions import Version
from recsys_rl.types import Obs

LATE, RAISED, NOT_FINITE = "late", "raised", "not-finite"
FAULTS = RAISED, NOT_FINITE
"""Faults of a policy. Another one need not fail where it does."""


@dataclass(frozen=True)
class Choice:
    """The rule's choice for one observation."""

    items: list[int]  # (K,) rows of the catalogue
    logprobs: list[float]  # (K,) of each place given those before it
    enough: bool  # False: fewer than K items may be shown, and the rest has no meaning
    fault: str  # why popularity chose: RAISED, NOT_FINITE; "" if the policy did
    scores: Tensor  # (C,) logits of the first place
    candidates: Tensor | None  # (C,); None: the whole catalogue


def choose(
    policies: Sequence[Version],
    obs: Obs,
    uniforms: Sequence[Sequence[float]],
    explore: Sequence[float],
    new_items: Sequence[float],
    given: Sequence[Sequence[int]] | None = None,
    popular: bool = False,
) -> list[Choice]:
    """The choices for N observations.

    Args:
        policies: (N,) that of each; where they differ, they see people alike and have no first stage.
        uniforms: (N, K) numbers in [0, 1) that draw the places.
        explore: (N,) probability of a uniform choice in each place.
        new_items: (N,) probability of an item that the policy's training never showed, in each place, where
            it and not popularity chooses.
        given: (N, K) items in place of draws: their log-probabilities are wanted.
        popular: popularity chooses in their place.
    """
    number, slate = obs.num_rows, policies[0].checkpoint.interface.slate_size
    chance, share, of_new = torch.tensor(uniforms), torch.tensor(explore), torch.tensor(new_items)
    fixed = None if given is None else torch.tensor(given)
    choices, faults = dict[int, Choice](), dict[int, str]()
    if not popular:
        of_each = defaultdict[int, list[int]](list)
        for at, version in enumerate(policies):
            of_each[id(version)].append(at)
        for mine in of_each.values():  # padded as a batch of this version alone would be
            rows = _tile(mine)
            whole = len(mine) == number == len(rows)
            scored = _scored_by(policies[mine[0]], obs if whole else obs.rows(rows))
            if bool(of_new.any()) and scored.slates is None:
                scored = _with_new_items(scored, policies[mine[0]], share[rows], of_new[rows])
            items = None if fixed is None else fixed[rows]
            found = _choices(scored, chance[rows], share[rows], items, slate, len(mine))
            choices |= {row: x for row, x, bad in zip(mine, found, scored.faults, strict=False) if not bad}
            faults |= dict(zip(mine, scored.faults, strict=False))
    if len(choices) < number:
        rows = _tile([*range(number)])
        obs, scores = _popularity(policies[0], obs.rows(rows) if len(rows) > number else obs)
        items = None if fixed is None else fixed[rows]
        scored = _Scored(obs, scores, [], _popular_slates(policies[0], scores))
        others = _choices(scored, chance[rows], share[rows], items, slate, number)
        for row, choice in enumerate(others):
            choices.setdefault(row, replace(choice, fault=faults.get(row, RAISED)))
    return [choices[row] for row in range(number)]


class _Scored(NamedTuple):
    """The scores of N observations."""

    obs: Obs  # with the candidates of a first stage
    scores: Tensor  # (N, C) finite or -inf, which forbids an item
    faults: list[str]  # (N,) why the scores of a row are not those of its policy; "" if they are
    slates: Patterns | None = None  # in place of the scores, where the places of a slate have kinds
    explored: bool = False  # the scores hold the exploration already


def _scored_by(version: Version, obs: Obs) -> _Scored:
    """The scores of one policy. Whatever it raises, popularity answers in its place."""
    given = obs
    try:
        obs, scores, slates = _scores(version, obs)
        # NaN and infinity are faults. The maximum shows both.
        sound = scores.amax(1) < torch.inf
        if scores.shape == (obs.num_rows, _width(version, obs)):
            faults = ["" if is_sound else NOT_FINITE for is_sound in sound.tolist()]
            if any(faults):
                scores = scores.masked_fill(~sound.unsqueeze(1), 0.0)
                slates = None if slates is None else slates.only(sound)
            return _Scored(obs, scores, faults, slates)
    except Exception:
        pass
    return _Scored(given, torch.zeros(given.num_rows, _width(version, given)), [RAISED] * given.num_rows)


def _scores(version: Version, obs: Obs) -> tuple[Obs, Tensor, Patterns | None]:
    """The observation with the candidates of a first stage, and the scores (N, C) of the policy.

    The third is the distribution of its slates if these have kinds of places.
    """
    agent, patterns = version.agent, version.checkpoint.interface.patterns
    if patterns or (obs.candidates is None and agent.first_stage is not None):
        obs = agent.propose(obs)
    slates = agent.slates(obs) if patterns else None
    return obs, agent.scores(obs) if slates is None else slates.logits, slates


def _width(version: Version, obs: Obs) -> int:
    """C, the number of scores of an observation."""
    return version.checkpoint.catalogue.num_items if obs.candidates is None else obs.candidates.shape[1]


def _popularity(version: Version, obs: Obs) -> tuple[Obs, Tensor]:
    """The observation, with candidates in a large catalogue, and the scores (N, C) of popularity."""
    number, most_popular = version.checkpoint.catalogue.num_items, version.most_popular
    if number <= versions.MOST_POPULAR or version.layout is not None or version.stock is not None:
        allowed = obs.showable(number)  # (N, I)
        scores = version.popularity.expand(len(allowed), -1)
        return replace(obs, candidates=None), scores.masked_fill(~allowed, -torch.inf)
    if obs.candidates is None:
        rows = most_popular.expand(obs.num_rows, -1)  # (N, P)
        allowed = torch.ones_like(rows, dtype=torch.bool) if obs.mask is None else obs.mask.gather(1, rows)
        if obs.exclude is not None:
            for one, shown in zip(allowed, obs.exclude, strict=True):
                one &= torch.isin(most_popular, shown, invert=True)
        obs = obs.among(rows.masked_fill(~allowed, -1))
    assert obs.candidates is not None
    scores = version.popularity[obs.candidates.clamp_min(0)]  # (N, C)
    return obs, scores.masked_fill(obs.candidates < 0, -torch.inf)


def _popular_slates(version: Version, scores: Tensor) -> Patterns | None:
    """Slates by ``scores`` (N, I), each pattern of kinds alike; None where places have no kinds."""
    layout = version.layout
    if layout is None:
        return None
    return Patterns(scores.new_zeros(len(scores), len(layout.patterns)), scores, scores.new_zeros(()), layout)


def _choices(
    scored: _Scored, uniforms: Tensor, explore: Tensor, given: Tensor | None, slate: int, number: int
) -> list[Choice]:
    """The choices by these scores (N, C) in the first ``number`` rows."""
    obs = scored.obs
    rule: PlackettLuce | Patterns
    # Rows without items can't be drawn; no row depends on another.
    if scored.slates is None:
        scores = scored.scores if scored.explored else _explored(scored.scores, explore)
        enough = (scores > -torch.inf).sum(1) >= slate  # (N,)
        safe = scores if bool(enough.all()) else scores.masked_fill(~enough.unsqueeze(1), 0.0)
        rule = PlackettLuce(safe, slate)
    else:
        enough = scored.slates.enough
        rule = scored.slates.explored(explore).only(enough)
        scores = rule.logits
    if given is None:
        index = rule.draw_at(uniforms)[0]
        logprobs = rule.place_logprobs(index)
        items = obs.items_at(index)
    else:
        items, index = given, obs.places_of(given)
        logprobs = rule.place_logprobs(index).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        logprobs = logprobs.masked_fill(obs.items_at(index) != given, -torch.inf)
    return [
        Choice(*row, "", scores[at], None if obs.candidates is None else obs.candidates[at])
        for at, row in enumerate(
            zip(items[:number].tolist(), logprobs[:number].tolist(), enough[:number].tolist(), strict=True)
        )
    ]


def _explored(scores: Tensor, explore: Tensor) -> Tensor:
    """The logits (N, C) of (1 - explore) softmax(scores) + explore / allowed, for ``explore`` (N,)."""
    if not bool(explore.any()):
        return scores
    allowed, share = scores > -torch.inf, explore.unsqueeze(1)
    uniform = allowed / allowed.sum(1, keepdim=True).clamp_min(1)
    return ((1 - share) * scores.softmax(1) + share * uniform).log()


def _with_new_items(scored: _Scored, version: Version, explore: Tensor, share: Tensor) -> _Scored:
    """The scores of (1 - share) pi + share [new] / new, for ``share`` (N,), where some new item may be shown.

    pi is the policy with its exploration, and items are new that no decision of its training showed.
    """
    obs, number = scored.obs, version.checkpoint.catalogue.num_items
    new = obs.showable(number) & version.never_shown  # (N, I)
    if obs.candidates is not None:
        new = new.gather(1, obs.candidates.clamp_min(0)) & (obs.candidates >= 0)  # (N, C)
    known = (
        _explored(scored.scores, explore).softmax(1).nan_to_num(0.0)
    )  # zeros without an item of the policy
    uniform = new / new.sum(1, keepdim=True).clamp_min(1)
    some = torch.where(new.any(1), share, 0.0).unsqueeze(1)
    return scored._replace(scores=((1 - some) * known + some * uniform).log(), explored=True)


def _tile(rows: Sequence[int]) -> Tensor:
    """These rows, and the last one again up to a multiple of TILE."""
    return torch.tensor([*rows, *(rows[-1],) * (-len(rows) % TILE)])

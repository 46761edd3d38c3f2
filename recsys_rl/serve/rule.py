"""The rule that chooses: scores of the policy, with exploration, and popularity where the policy fails.

The last digits of a matrix product depend on the number of its rows: each batch is padded to multiples of
TILE rows, so that a draw that is repeated alone gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys_rl.functional.patterns import Patterns
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import TILE
from recsys_rl.serve import versions
from recsys_rl.serve.versions import Version
from recsys_rl.types import Obs

LATE, RAISED, NOT_FINITE = "late", "raised", "not-finite"


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
    version: Version,
    obs: Obs,
    uniforms: Sequence[Sequence[float]],
    explore: Sequence[float],
    given: Sequence[Sequence[int]] | None = None,
    popular: bool = False,
) -> list[Choice]:
    """The choices for N observations.

    Args:
        uniforms: (N, K) numbers in [0, 1) that draw the places.
        explore: (N,) probability of a uniform choice in each place.
        given: (N, K) items in place of draws: their log-probabilities are wanted.
        popular: popularity chooses, and not the policy.
    """
    number, slate = obs.num_rows, version.checkpoint.interface.slate_size
    rows = _tile(number)
    obs = obs.rows(rows) if len(rows) > number else obs
    chance, share = torch.tensor(uniforms)[rows], torch.tensor(explore)[rows]
    fixed = None if given is None else torch.tensor(given)[rows]
    choices: list[Choice] = []
    faults = [RAISED] * number
    if not popular:
        try:
            obs_scored, scores, slates = _scores(version, obs)
            # A score of -inf forbids an item; NaN and infinity are faults. The maximum shows both.
            sound = scores.amax(1) < torch.inf
            faults = ["" if is_sound else NOT_FINITE for is_sound in sound[:number].tolist()]
            if any(faults):
                scores = scores.masked_fill(~sound.unsqueeze(1), 0.0)
                slates = None if slates is None else slates.only(sound)
            choices = _choices(scores, obs_scored, chance, share, fixed, slate, number, slates)
        except Exception:  # whatever a policy raises, popularity answers
            faults = [RAISED] * number
    if any(faults):
        obs_scored, scores = _popularity(version, obs)
        others = _choices(scores, obs_scored, chance, share, fixed, slate, number)
        others = [replace(choice, fault=fault) for choice, fault in zip(others, faults, strict=True)]
        choices = [
            choice if fault else choices[at]
            for at, (choice, fault) in enumerate(zip(others, faults, strict=True))
        ]
    return choices


def _scores(version: Version, obs: Obs) -> tuple[Obs, Tensor, Patterns | None]:
    """The observation with the candidates of a first stage, and the scores (N, C) of the policy.

    The third is the distribution of its slates if these have kinds of places.
    """
    agent = version.agent
    if obs.candidates is None and agent.first_stage is not None:
        obs = agent.propose(obs)
    slates = agent.slates(obs) if version.checkpoint.interface.patterns else None
    return obs, agent.scores(obs) if slates is None else slates.logits, slates


def _popularity(version: Version, obs: Obs) -> tuple[Obs, Tensor]:
    """The observation, with candidates in a large catalogue, and the scores (N, C) of popularity."""
    number, most_popular = version.checkpoint.catalogue.num_items, version.most_popular
    if number <= versions.MOST_POPULAR:
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


def _choices(
    scores: Tensor,
    obs: Obs,
    uniforms: Tensor,
    explore: Tensor,
    given: Tensor | None,
    slate: int,
    number: int,
    slates: Patterns | None = None,
) -> list[Choice]:
    """The choices by logits ``scores`` (N, C), or by ``slates``, in the first ``number`` rows."""
    rule: PlackettLuce | Patterns
    # Rows without items can't be drawn; no row depends on another.
    if slates is None:
        scores = _explored(scores, explore)
        enough = (scores > -torch.inf).sum(1) >= slate  # (N,)
        safe = scores if bool(enough.all()) else scores.masked_fill(~enough.unsqueeze(1), 0.0)
        rule = PlackettLuce(safe, slate)
    else:
        enough = slates.enough
        rule = slates.explored(explore).only(enough)
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


def _tile(number: int) -> Tensor:
    """0 .. number - 1, and the last one again up to a multiple of TILE."""
    return torch.arange(-(-number // TILE) * TILE).clamp_max(number - 1)

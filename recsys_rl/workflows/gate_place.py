"""A candidate in the champion's place: the same items and sessions, and contexts in the candidate's encoding.

Another log of the same shop gives the items another popularity, and the numbers of a context another scale.
Neither makes another place: the server lets both serve, each with its own encoding, and so the gate reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError, one_line
from recsys_rl.make import agent_of
from recsys_rl.protocols import Behaviour
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.tables.decision_log import catalogue_hash
from recsys_rl.tables.pieces import Piece
from recsys_rl.types import Action, Catalogue, Obs


def check_place(file: Path, challenger: Checkpoint, champion: Checkpoint) -> None:
    """Raise UserError for a candidate that can't serve in the champion's place."""
    name = one_line(file)
    if challenger.config.env != champion.config.env:
        raise UserError(
            f"{name} is of {one_line(challenger.config.env)}, and the policy that serves is of "
            f"{one_line(champion.config.env)}: give a candidate of the same platform."
        )
    if challenger.world.is_empty or _items(challenger) != _items(champion):
        raise UserError(
            f"{name} is of another catalogue than the policy that serves: give a candidate of the same items."
        )
    if challenger.interface != champion.interface:
        raise UserError(
            f"{name} is of other sessions than the policy that serves (length, slate or pieces of the "
            "context): give a candidate of the same settings."
        )
    for mine, theirs in _pieces(challenger, champion):
        if mine.values != theirs.values:
            raise UserError(
                f"{name} knows other texts of context.{mine.name} than the policy that serves: train it with "
                "--checkpoint and that policy's file, which brings its encodings."
            )


def _items(of: Checkpoint) -> tuple[object, ...]:
    """What two checkpoints of the same items have in common.

    At a place of a team's own these are ids and columns: popularity is that of a log, and quality of none.
    """
    catalogue: Catalogue = of.catalogue
    if of.config.platform.tables is None:
        return (catalogue_hash(catalogue),)
    nothing = torch.zeros_like(catalogue.popularity)
    columns = dataclasses.replace(catalogue, popularity=nothing, quality=nothing)
    return catalogue_hash(columns), catalogue.item_names, catalogue.features


def _pieces(challenger: Checkpoint, champion: Checkpoint) -> Iterator[tuple[Piece, Piece]]:
    """The pieces of the context that callers give, as both read them."""
    theirs = {piece.name: piece for piece in pieces_of(champion) or ()}
    return ((mine, theirs[mine.name]) for mine in pieces_of(challenger) or ())


def challenger_of(challenger: Checkpoint, champion: Checkpoint) -> Behaviour:
    """The candidate's policy, for observations in the encoding of the champion."""
    policy: Behaviour = agent_of(challenger)
    by, plus = _change(challenger, champion)
    unchanged = bool((by == 1).all()) and not bool(plus.any())
    return policy if unchanged else _Recoded(policy, by, plus)


def _change(challenger: Checkpoint, champion: Checkpoint) -> tuple[Tensor, Tensor]:
    """(F,) each: a number x of the champion's observation is ``by`` x + ``plus`` in the candidate's.

    An observation holds (value - shift) / scale, with the shift and scale of its log; texts have codes.
    """
    sizes = dict(champion.interface.context)
    factors = {name: (torch.ones(size), torch.zeros(size)) for name, size in sizes.items()}
    for mine, theirs in _pieces(challenger, champion):
        if mine.kind != "text":
            own, other = (torch.tensor((x.shift, x.scale), dtype=torch.float64) for x in (mine, theirs))
            factors[mine.name] = other[1] / own[1], (other[0] - own[0]) / own[1]
    by, plus = zip(*factors.values(), strict=True)
    return torch.cat(by).float(), torch.cat(plus).float()


@dataclass(frozen=True)
class _Recoded:
    """A policy whose observations have another encoding of the context."""

    policy: Behaviour
    by: Tensor  # (F,)
    plus: Tensor  # (F,)

    def _own(self, obs: Obs) -> Obs:
        return dataclasses.replace(obs, context=obs.context * self.by + self.plus)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return self.policy.act(self._own(obs), greedy)

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        return self.policy.place_logprobs(self._own(obs), items)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        return self.policy.item_probabilities(self._own(obs), num_items)

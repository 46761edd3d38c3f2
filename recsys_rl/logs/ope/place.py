"""A candidate in the champion's place: the same items and sessions, and contexts in the candidate's encoding.

Another log of the same place gives the items another popularity, and the numbers of a context another scale.
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
from recsys_rl.checkpoint.stock import find_encoding
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.pieces import Piece, differ_in_gaps
from recsys_rl.errors import UserError, one_line
from recsys_rl.make import agent_of
from recsys_rl.protocols import ScoringPolicy
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.types import Action, Catalogue, Obs

AGAIN = "train it with --checkpoint and that policy's file, which brings its encodings"
"""The mend of another encoding, as the end of a sentence."""


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
    piece = differ_in_gaps(pieces_of(challenger) or (), pieces_of(champion) or ())
    if piece is not None:  # before the sizes, in which numbers with gaps differ, too
        raise UserError(
            f"{name} and the policy that serves differ in the gaps that context.{piece} may have: {AGAIN}."
        )
    if challenger.interface != champion.interface:
        raise UserError(
            f"{name} is of other sessions than the policy that serves (length, slate or pieces of the "
            "context): give a candidate of the same settings."
        )
    for mine, theirs in _pieces(challenger, champion):
        if mine.values != theirs.values:
            raise UserError(
                f"{name} knows other texts of context.{mine.name} than the policy that serves: {AGAIN}."
            )
        if mine.kind == "list" and mine.gaps and mine.scaling != theirs.scaling:
            raise UserError(
                f"{name} has another scale of the lists context.{mine.name} than the policy that serves, and "
                f"their gaps are zeros in both: {AGAIN}."
            )


def _items(of: Checkpoint) -> tuple[object, ...]:
    """A key of the items of a checkpoint, which is equal for two checkpoints of the same items.

    At a place of a team's own these are ids, as each policy reads what is known of the items by its own
    encodings (checkpoint/stock.py). The columns are compared only where an observation holds them, or where
    they are those of an earlier version.
    """
    catalogue: Catalogue = of.catalogue
    if of.config.platform.tables is None:
        return (catalogue_hash(catalogue),)
    ids = catalogue.item_names or tuple(catalogue.item_ids.tolist())
    if find_encoding(of) is not None and "last_item" not in dict(of.interface.context):
        return (ids,)
    nothing = torch.zeros_like(catalogue.popularity)
    columns = dataclasses.replace(catalogue, popularity=nothing, quality=nothing)
    return ids, catalogue_hash(columns), catalogue.features


def _pieces(challenger: Checkpoint, champion: Checkpoint) -> Iterator[tuple[Piece, Piece]]:
    """The pieces of the context that callers give, as both read them."""
    theirs = {piece.name: piece for piece in pieces_of(champion) or ()}
    return ((mine, theirs[mine.name]) for mine in pieces_of(challenger) or ())


def challenger_of(challenger: Checkpoint, champion: Checkpoint) -> ScoringPolicy:
    """The candidate's policy, for observations in the encoding of the champion."""
    policy: ScoringPolicy = agent_of(challenger)
    by, plus = _change(challenger, champion)
    unchanged = torch.equal(by, torch.eye(len(by))) and not bool(plus.any())
    return policy if unchanged else Recoded(policy, by, plus)


def _change(challenger: Checkpoint, champion: Checkpoint) -> tuple[Tensor, Tensor]:
    """(F, F) and (F,), as in ``Recoded``: from the champion's observations to the candidate's.

    An observation holds (value - shift) / scale, with the shift and scale of its log; texts have codes. A
    missing number is the mean of the own log, beside an indicator. A missing list has none, so that
    ``check_place`` refuses another scale of lists with gaps.
    """
    sizes = dict(champion.interface.context)
    change = {name: (torch.eye(size).double(), torch.zeros(size).double()) for name, size in sizes.items()}
    for mine, theirs in _pieces(challenger, champion):
        own, other = (torch.tensor(piece.scaling, dtype=torch.float64) for piece in (mine, theirs))
        by, plus = (other[1] / own[1]).diag(), (other[0] - own[0]) / own[1]
        if mine.mean:
            by[1, 0] = (mine.mean[0] - theirs.mean[0]) / own[1, 0]
        change[mine.name] = by, plus
    of_pieces, shifts = zip(*change.values(), strict=True)
    return torch.block_diag(*of_pieces).float(), torch.cat(shifts).float()


@dataclass(frozen=True)
class Recoded:
    """A policy whose observations have another encoding of the context."""

    policy: ScoringPolicy
    by: Tensor  # (F, F): a context x of the champion's is x ``by`` + ``plus`` in this policy's
    plus: Tensor  # (F,)

    def own(self, obs: Obs) -> Obs:
        return dataclasses.replace(obs, context=obs.context @ self.by + self.plus)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return self.policy.act(self.own(obs), greedy)

    def scores(self, obs: Obs) -> Tensor:
        return self.policy.scores(self.own(obs))

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        return self.policy.place_logprobs(self.own(obs), items)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        return self.policy.item_probabilities(self.own(obs), num_items)

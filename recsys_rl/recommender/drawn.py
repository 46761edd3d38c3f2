"""Drawn visits: observations of a policy of a team's own log, of which no simulator has users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.protocols import Policy
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.recommender.visit import Visit
from recsys_rl.types import Obs


def drawn_contexts(pieces: Sequence[Piece], number: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Encoded pieces (N, size): numbers of the range of the log, and each text and "other" equally often.

    Of a column with gaps a fifth of the numbers and lists are missing, and some texts.
    """
    given = {}
    for piece in pieces:
        if piece.kind == "text":
            places = torch.randint(piece.size, (number,), generator=generator)
            given[piece.name] = torch.nn.functional.one_hot(places, piece.size).float()
            continue
        low, high = (torch.tensor(values, dtype=torch.float64) for values in (piece.low, piece.high))
        drawn = torch.rand(number, len(low), dtype=torch.float64, generator=generator)
        rows = torch.nn.functional.pad(low + (high - low) * drawn, (0, piece.size - len(low)))
        if piece.gaps:
            gone = torch.rand(number, generator=generator) < 0.2
            rows[gone] = torch.tensor(piece.missing, dtype=torch.float64)
        given[piece.name] = piece.scaled(rows)
    return given


def drawn_visits(
    checkpoint: Checkpoint, agent: Policy, number: int, generator: torch.Generator
) -> Iterator[Obs]:
    """The observations (N) of each step of visits without end: drawn contexts, and signals within 0 .. 1."""
    interface, pieces = checkpoint.interface, pieces_of(checkpoint) or ()
    nobody = torch.zeros(number, checkpoint.catalogue.embedding.shape[1])
    while True:
        visit = Visit.begin(checkpoint, nobody).with_context(drawn_contexts(pieces, number, generator))
        for _ in range(interface.session_length):
            obs = visit.observe()
            yield obs
            items = agent.act(obs).items
            signals = torch.rand(*items.shape, len(interface.signals), generator=generator)
            visit = visit.record(items, signals)

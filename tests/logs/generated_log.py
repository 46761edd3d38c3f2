"""A log of decisions of any size, made block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.types import Interface

STEPS = 5  # of a session
HEADER = DecisionHeader(
    loggers=("old",),
    interface=Interface(
        context=(("profile", 8),),
        action_sizes=(100,),
        repeats=True,
        signals=("click",),
        session_length=STEPS,
    ),
    signals=("click", "hidden"),
)


def block(first: int, sessions: int) -> DecisionLog:
    """The sessions ``first``, ``first + 1`` ... of STEPS steps each, drawn by their number."""
    rows = sessions * STEPS
    generator = torch.Generator().manual_seed(first)
    numbers = torch.arange(first, first + sessions).repeat_interleave(STEPS)
    steps = torch.arange(rows) % STEPS
    shown = torch.randint(100, (rows, 1), generator=generator)
    others = torch.randint(100, (rows, 9), generator=generator)
    others = others.masked_fill(torch.rand(rows, 9, generator=generator) < 0.3, -1)
    kept = torch.cat([shown, others.masked_fill(others == shown, -1)], 1)
    return DecisionLog(
        header=HEADER,
        users=numbers % 1000,
        sessions=numbers,
        steps=steps,
        times=torch.arange(rows) + first * STEPS,
        items=shown,
        logprobs=torch.rand(rows, generator=generator, dtype=torch.float64).clamp_min(0.01).log(),
        signals=torch.rand(rows, 1, 2, generator=generator),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=steps == STEPS - 1,
        loggers=torch.zeros(rows, dtype=torch.int64),
        given={"profile": torch.randn(rows, 8, generator=generator)},
        candidates=kept,
    )


def blocks(sessions: int, size: int = 10_000) -> Iterator[DecisionLog]:
    """All sessions, ``size`` in a block."""
    for first in range(0, sessions, size):
        yield block(first, min(size, sessions - first))

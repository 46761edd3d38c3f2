"""Public logs of single decisions, in the form of people's own (tables/decision_table.py).

Each row is a session of one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.tables.decision_log import DecisionHeader, DecisionLog
from recsys_rl.tables.decision_table import DecisionTable
from recsys_rl.types import Catalogue, Interface


def by_design(number: int, what: str) -> str:
    """The name of a logger that draws each of ``number`` items with the same probability."""
    return f"a uniform draw from {number:,} {what} (propensity 1/{number:,}, known by design)"


def single_decisions(
    users: Tensor,
    items: Tensor,
    rewards: Tensor,
    propensities: Tensor,
    *,
    signal: str,
    logger: str,
    catalogue: Catalogue,
    ids: Sequence[str],
    times: Tensor | None = None,
    context: Mapping[str, Tensor] | None = None,
) -> DecisionTable:
    """E decisions of one item each, in the order of the rows.

    Args:
        users: (E,) int64; an interval takes the rows of a user as one.
        items: (E,) int64, rows of the catalogue.
        rewards: (E,), the outcome ``signal``.
        propensities: (E,), in (0, 1].
        ids: (I,) of the items, as the source has them.
        times: (E,) int64; the order of the rows without them.
        context: pieces of the observation, (E, size) each.
    """
    number = len(users)
    given = {name: x.float() for name, x in (context or {}).items()}
    interface = Interface(
        context=(("clock", 1), *((name, x.shape[1]) for name, x in given.items())),
        action_sizes=(catalogue.num_items,),
        repeats=True,
        signals=(signal,),
        session_length=1,
    )
    order = torch.arange(number)
    log = DecisionLog(
        header=DecisionHeader(loggers=(logger,), interface=interface, signals=(signal,)),
        users=users,
        sessions=order,
        steps=torch.zeros_like(order),
        times=order if times is None else times,
        items=items.unsqueeze(1),
        logprobs=propensities.double().log(),
        signals=rewards.float().view(-1, 1, 1),
        terminated=torch.zeros(number, dtype=torch.bool),
        truncated=torch.ones(number, dtype=torch.bool),
        loggers=torch.zeros_like(order),
        given=given,
    )
    return DecisionTable(log, catalogue, tuple(ids), rows=order)

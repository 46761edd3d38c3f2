"""Goods that are sent back, as a retailer knows RETURN_DAYS after the purchase. Pure functions over N users.

``due`` (N, 3, RETURN_DAYS) holds the number, the revenue and the margin to be taken back, by the days until
then, and ``back`` (N, 3) those that are taken back on this screen.
"""

from __future__ import annotations

import torch
from torch import Tensor

RETURN_DAYS = 14


def sold(due: Tensor, number: Tensor, paid: Tensor, lost: Tensor) -> Tensor:
    """``due`` with ``number`` (N,) more goods; each takes ``paid`` and the margin ``lost``, (N,), back."""
    later = number.unsqueeze(1) * torch.stack([torch.ones_like(paid), paid, lost], 1)  # (N, 3)
    return torch.cat([due[..., :-1], due[..., -1:] + later.unsqueeze(2)], 2)


def after_gap(due: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """``due`` after ``gap`` (N,) days, and what is taken back then, (N, 3)."""
    day = torch.arange(RETURN_DAYS, device=gap.device)
    later = gap.unsqueeze(1) + day  # (N, R): the present place of what is due in ``day`` days then
    moved = due.gather(2, later.clamp_max(RETURN_DAYS - 1).unsqueeze(1).expand_as(due))
    moved = moved * (later < RETURN_DAYS).unsqueeze(1)
    return moved, (due * (day < gap.unsqueeze(1)).unsqueeze(1)).sum(2)


def on_first_place(signals: Tensor, shown: Tensor, more: Tensor) -> Tensor:
    """``signals`` (N, K, S) with ``more`` (N, S) at the first place that is ``shown`` (N, K), if one is."""
    first = shown & (shown.cumsum(1) == 1)
    return signals + first.unsqueeze(2) * more.unsqueeze(1)

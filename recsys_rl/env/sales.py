"""The answers of a retailer's visitor to a screen, as signals, and their money, as reward streams.

Goods that are sent back are known to a retailer RETURN_DAYS after the purchase. ``due`` (N, 3, RETURN_DAYS)
holds the number, the revenue and the margin to be taken back, by the days until then, and ``back`` (N, 3)
those that are taken back on this screen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.env.assortment import MOST
from recsys_rl.types import Signal, Stream

RETURN_DAYS = 14
SIGNALS = (
    Signal("watched"),
    Signal("liked"),
    Signal("saved"),
    Signal("carted"),
    Signal("purchased"),
    Signal("recovered"),
    Signal("revenue", visible=False, low=-MOST, high=MOST),
    Signal("margin", visible=False, low=-MOST, high=MOST),
    Signal("returned", visible=False, high=MOST),
    Signal("sent_back", visible=False),
    Signal("cart_sent_back", visible=False),
    Signal("satisfaction", visible=False, meaning="the satisfaction"),
)
AT = {signal.name: number for number, signal in enumerate(SIGNALS)}
VISIBLE = sum(signal.visible for signal in SIGNALS)  # they come first
STREAMS = (
    Stream("watch_ratio", 0.4),
    Stream("liked", 0.2),
    Stream("purchased", 0.3, "Goods that one visitor has bought."),
    Stream("saved", 0.1),
    Stream("revenue", 0.0),
    Stream("margin", 0.0, "What one visitor has paid, minus what the goods cost and what came back."),
    Stream("returned", 0.0),
)


def row(**values: Tensor) -> Tensor:
    """(N, S): these signals, (N,) each; the others are 0."""
    zero = torch.zeros_like(next(iter(values.values())))
    return torch.stack([values.get(signal.name, zero) for signal in SIGNALS], 1)


def taken_back(back: Tensor) -> Tensor:
    """(N, S): the number, the revenue and the margin of goods that come ``back`` (N, 3), as signals."""
    number, revenue, margin = back.unbind(1)
    return row(revenue=-revenue, margin=-margin, returned=number)


def of(signals: Tensor, name: str) -> Tensor:
    """(...): the signal of this name in ``signals`` (..., S)."""
    return signals[..., AT[name]]


def paid(signals: Tensor) -> Tensor:
    """The streams (N, M) of the ``signals`` (N, K, S) of a screen."""
    total = signals.sum(1)
    bought = of(total, "purchased") + of(total, "recovered")
    same = {name: of(total, name) for name in ("liked", "saved", "revenue", "margin", "returned")}
    streams = {"watch_ratio": of(total, "watched"), "purchased": bought, **same}
    return torch.stack([streams[stream.name] for stream in STREAMS], 1)


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

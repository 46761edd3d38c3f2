"""What a visitor of a retailer does with a screen, as signals, and what that pays, as reward streams."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.env.assortment import MOST
from recsys_rl.types import Signal, Stream

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

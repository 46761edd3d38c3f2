"""Facts of the log from which users were learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from recsys_rl.types import Interface, Signal, Stream


@dataclass(frozen=True)
class UserFacts:
    """Facts of the log from which users were learned, which their file keeps."""

    interface: Interface
    signals: tuple[Signal, ...]  # (S,): those of the log that the users give
    streams: tuple[Stream, ...]  # (M,)
    of_signals: Tensor  # (S, M) float32: the streams are the signals, summed over a slate, times this matrix
    users: Tensor  # (U,) int64, ascending: the ids of the users
    given: Mapping[str, Tensor]  # (U, size) each: their pieces of the context at the start of a session
    catalogue: str  # hash of the items
    platform: str = ""  # of the log; "" if people made it
    log: str = ""  # its name and size, in words

"""The checksum of a log of decisions: SHA-256 of its header and its values, in the order of the rows.

It depends on the values alone, not on the pieces in which they were written or on Parquet's encoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data.tables.schema import STORED
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.types import tensors_of

_COLUMNS = {column.field: column for column in STORED}


class Checksum:
    """Takes the rows of a log in pieces. ``header``: the header as in the file, without the checksum."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.header = header
        self.hashes: dict[str, Any] = {}

    def add(self, log: DecisionLog) -> None:
        """Add the rows of ``log``. A piece of its tensors is hashed in place, without a copy."""
        for name, values in _parts(log):
            array = np.ascontiguousarray(values.cpu().numpy())
            if name not in self.hashes:
                self.hashes[name] = hashlib.sha256(f"{array.dtype} {array.shape[1:]}".encode())
            self.hashes[name].update(array.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        total = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode())
        for name in sorted(self.hashes):
            total.update(f"{name}\0".encode() + self.hashes[name].digest())
        return total.hexdigest()


def _parts(log: DecisionLog) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a log by name, each of the type that a reader gives it, without padding."""
    for name, values in tensors_of(log).items():
        if name == "logprobs" and not log.lists_propensities:
            continue
        if name == "logprobs" and log.header.applications:  # the bits of NaN differ from one to another
            values = values.masked_fill(values.isnan(), torch.nan)
        column = _COLUMNS[name.partition(".")[0]]
        if column.form == "ids":  # the width of their padding depends on the piece
            real = values >= 0
            yield f"{name} lengths", real.sum(1)
            values = values[real]
        yield (
            name.replace("given.", "context."),
            values.to(getattr(torch, column.tensor)),
        )  # the columns' names in the file

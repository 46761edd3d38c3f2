"""The weighted sum of reward streams: reward = sum_m w_m stream_m.

Each platform has its own weights, which make the reward in every table. A run may learn with other weights.
They are applied between ``collect`` and ``update``, so the environment stays the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.errors import one_line
from recsys_rl.types import Rollout, Stream, UserError


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """The numbers by name in texts such as ``("watch=1", "revenue=0.2")``. Raises UserError."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (name and equals) or not math.isfinite(weight):
            raise UserError(f"--weights {one_line(text)} is no NAME=NUMBER, as in watch=0.5.")
        if name in found:
            raise UserError(f"--weights names {one_line(name)} twice: give one weight.")
        found[name] = weight
    return found


def stream_weights(streams: Sequence[Stream], weights: Mapping[str, float] | None = None) -> Tensor:
    """The weight (M,) of each stream: from ``weights`` if it has this name, else the platform's."""
    given = weights or {}
    return torch.tensor([given.get(stream.name, stream.weight) for stream in streams])


def weighted(streams: Tensor, weights: Tensor) -> Tensor:
    """The scalar (...) of streams (..., M), with weights (M,)."""
    return streams @ weights.to(streams.device)


def apply_weights(rollout: Rollout, streams: Sequence[Stream], weights: Mapping[str, float]) -> Rollout:
    """The rollout with rewards (T, N) made from its streams with ``weights``.

    With the platform's weights the rollout is returned as it is. With a single stream the recorded reward,
    which may be normalised, is scaled. Raises UserError as ``check_weights`` does.
    """
    check_weights(weights, streams)
    own, given = stream_weights(streams), stream_weights(streams, weights)
    if torch.equal(own, given):
        return rollout
    if len(streams) == 1 and bool(own.all()):
        return dataclasses.replace(rollout, rewards=rollout.rewards * (given / own).item())
    return dataclasses.replace(rollout, rewards=weighted(rollout.streams, given))


def check_weights(weights: Mapping[str, float], streams: Sequence[Stream]) -> None:
    """Raise UserError for a weight that is no finite number, or whose stream does not exist."""
    names = [stream.name for stream in streams]
    for name, weight in weights.items():
        if name not in names:
            raise UserError(
                f"--weights names the stream {one_line(name)}, which does not exist: choose from "
                f"{', '.join(names)}."
            )
        if not math.isfinite(weight):
            raise UserError(f"--weights {name} is {weight}: it must be a finite number.")

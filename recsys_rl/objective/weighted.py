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

from recsys_rl.errors import FieldError, one_line
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.types import Rollout, Stream

FIELD = "train_config.weights"


class Weighted:
    """The first objective of each run: the weighted sum, with the weights of learning. It has no state."""

    def __init__(self, streams: Sequence[Stream], weights: Mapping[str, float]) -> None:
        """``weights``: weight of each stream by name. Raises FieldError for an unknown stream."""
        check_weights(weights, streams)
        self.streams, self.weights = streams, weights

    def apply(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        return apply_weights(rollout, self.streams, self.weights), {}

    def verdict(self) -> str:
        return ""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: there is no state."""


def parse_weights(texts: Sequence[str], field: str = FIELD) -> dict[str, float]:
    """The numbers by name in texts such as ``("watch=1", "revenue=0.2")``. Raises FieldError on ``field``."""
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            weight = float(number) if name and equals else None
        except ValueError:
            weight = None
        if weight is None:
            example = f"{name or 'NAME'}=0.5"
            raise FieldError(
                field, f"{one_line(text)} is not of the form NAME=NUMBER, as in {one_line(example)}."
            )
        if not math.isfinite(weight):
            raise FieldError(field, f"{one_line(name)} is {weight}: it must be a finite number.")
        if name in weights:
            raise FieldError(field, f"names {one_line(name)} twice: give one weight.")
        weights[name] = weight
    return weights


def stream_weights(streams: Sequence[Stream], weights: Mapping[str, float] | None = None) -> Tensor:
    """The weight (M,) of each stream: from ``weights`` if it has this name, else the platform's."""
    given = weights or {}
    return torch.tensor([given.get(stream.name, stream.weight) for stream in streams])


def weights_of(config: TrainConfig, streams: Sequence[Stream]) -> Tensor:
    """The weight (M,) of each stream by which a policy of these settings learned."""
    return stream_weights(streams, parse_weights(config.weights))


def weighted(streams: Tensor, weights: Tensor) -> Tensor:
    """The scalar (...) of streams (..., M), with weights (M,)."""
    return streams @ weights.to(streams.device)


def weighted_known(streams: Tensor, weights: Tensor) -> Tensor:
    """The scalar (...) of the streams that are known; one that is NaN is left out.

    A server sees no hidden signals, and no stream that is made of them: gate and canary leave it out.
    """
    return weighted(streams.nan_to_num(0.0), weights)


def apply_weights(rollout: Rollout, streams: Sequence[Stream], weights: Mapping[str, float]) -> Rollout:
    """The rollout with rewards (T, N) made from its streams with ``weights`` (``reweighted``)."""
    rewards = reweighted(rollout.rewards, rollout.streams, streams, weights)
    return rollout if rewards is rollout.rewards else dataclasses.replace(rollout, rewards=rewards)


def reweighted(
    rewards: Tensor, values: Tensor, streams: Sequence[Stream], weights: Mapping[str, float]
) -> Tensor:
    """The rewards (...) made from the ``values`` (..., M) of the streams with ``weights``.

    With the platform's weights they are returned as they are. With a single stream the recorded reward, which
    may be normalised, is scaled. Raises FieldError as ``check_weights`` does.
    """
    check_weights(weights, streams)
    own, given = stream_weights(streams), stream_weights(streams, weights)
    if torch.equal(own, given):
        return rewards
    if len(streams) == 1 and bool(own.all()):
        return rewards * (given / own).item()
    return weighted(values, given)


def check_weights(weights: Mapping[str, float], streams: Sequence[Stream], field: str = FIELD) -> None:
    """Raise FieldError about ``field`` for a weight that is not finite, or whose stream does not exist."""
    names = [stream.name for stream in streams]
    for name, weight in weights.items():
        if name not in names:
            raise FieldError(
                field,
                f"names the stream {one_line(name)}, which does not exist: choose from {', '.join(names)}.",
            )
        if not math.isfinite(weight):
            raise FieldError(field, f"{name} is {weight}: it must be a finite number.")

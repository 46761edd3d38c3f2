"""The objectives of a run, in their order: each makes the rewards of a rollout from those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recsys_rl.errors import FieldError
from recsys_rl.objective import lagrange, novelty
from recsys_rl.objective.lagrange import Limits, parse_limits
from recsys_rl.objective.limit_streams import limit_streams
from recsys_rl.objective.novelty import Novelty
from recsys_rl.objective.weighted import Weighted, parse_weights
from recsys_rl.protocols import Objective
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.types import Catalogue, Stream

CONTROLLER = ("limit_kp", "limit_ki", "limit_most")
EARLIER = {"limit_kp": 5.0, "limit_ki": 0.5}
"""Defaults of an earlier version, which its checkpoints and settings files hold also without a limit."""


def make_objectives(
    config: TrainConfig,
    streams: Sequence[Stream],
    catalogue: Catalogue,
    num_updates: int,
    generator: torch.Generator,
    average: Callable[[Tensor], None] | None = None,
) -> list[Objective]:
    """The weighted sum, the limits if there are any, and the bonus for novelty if it has a weight.

    Args:
        streams: the platform's reward streams.
        num_updates: updates of the whole run.
        generator: draws the cells of a large catalogue, on the CPU.
        average: replaces a tensor by its mean over all processes.

    Raises FieldError for weights and limits of streams that do not exist, and for limits that can't be met.
    """
    objectives: list[Objective] = [Weighted(streams, parse_weights(config.weights))]
    limits = parse_limits(config.limit)
    if limits:
        objectives.append(Limits(limits, limit_streams(catalogue, streams), config, num_updates, average))
    if config.novelty:
        if not catalogue.num_items:
            raise FieldError(
                novelty.FIELD,
                f"is {config.novelty:g}: it needs the items of a catalogue, and there are none; leave it "
                "out.",
            )
        objectives.append(Novelty(config.novelty, catalogue, num_updates, generator, average))
    return objectives


def check_objectives(config: TrainConfig, algo: str, rollouts: bool) -> None:
    """Raise FieldError for settings that the world need not be known for.

    ``rollouts``: the algorithm learns from rollouts of its own policy.
    """
    if config.weights:
        parse_weights(config.weights)
    if config.limit:
        parse_limits(config.limit)
    if not rollouts:
        for field, given in ((lagrange.FIELD, list(config.limit)), (novelty.FIELD, config.novelty)):
            if given:
                raise FieldError(
                    field,
                    f"is {given}: it needs an algorithm that learns from rollouts of its own policy, and "
                    f"{algo} does not; leave it out, or give --algo ppo.",
                )
    for name in CONTROLLER:
        value = getattr(config, name)
        if not config.limit and value not in (getattr(TrainConfig, name), EARLIER.get(name)):
            raise FieldError(
                f"train_config.{name}",
                f"is {value:g}: it only affects the multiplier of a limit, but there is no limit; leave it "
                "out, or give --limit.",
            )

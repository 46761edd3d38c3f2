"""The objectives of a run, in their order: each makes the rewards of a rollout from those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recsys_rl.objective.lagrange import Limits, parse_limits
from recsys_rl.objective.limit_streams import limit_streams
from recsys_rl.objective.novelty import Novelty
from recsys_rl.objective.weighted import Weighted, parse_weights
from recsys_rl.protocols import Objective
from recsys_rl.settings.fields import check_used
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
        check_used(("novelty", not catalogue.num_items, "there is no catalogue of items"))
        objectives.append(Novelty(config.novelty, catalogue, num_updates, generator, average))
    return objectives


def check_objectives(config: TrainConfig) -> None:
    """Raise FieldError for weights and limits that can't be read; the world need not be known for this."""
    if config.weights:
        parse_weights(config.weights)
    if config.limit:
        parse_limits(config.limit)


def unused_objectives(config: TrainConfig, rollouts: bool) -> list[tuple[str, bool, str]]:
    """The options of objectives for ``settings.fields.check_used``.

    ``rollouts``: the algorithm learns from rollouts of its own policy.
    """
    changed = {x: getattr(config, x) not in (getattr(TrainConfig, x), EARLIER.get(x)) for x in CONTROLLER}
    return [
        ("limit", bool(config.limit) and not rollouts, "only with rollouts of the policy, as of ppo"),
        ("novelty", config.novelty > 0 and not rollouts, "only with rollouts of the policy, as of ppo"),
        *((x, changed[x] and not config.limit, "only with --limit") for x in CONTROLLER),
    ]

"""The target network of value-based learners: a copy that follows the network slowly (Mnih et al. 2015)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.models.q_network import QNetwork

PREFIX = "target."


def copied(model: QNetwork) -> QNetwork:
    """A copy with its own weights. The items and their index, which are large, are shared."""
    return copy.deepcopy(model, {id(module): module for module in (model.items, model.retriever)})


@torch.no_grad()
def follow(target: QNetwork, parameters: Sequence[Tensor], tau: float) -> None:
    """Move the target network towards the ``parameters`` of the network by the share ``tau``."""
    for own, parameter in zip(target.parameters(), parameters, strict=True):
        own.lerp_(parameter, tau)


def target_state(target: QNetwork) -> dict[str, Tensor]:
    """The weights of ``target`` on the CPU, named target.<name>."""
    return {
        f"{PREFIX}{name}": parameter.detach().cpu().clone() for name, parameter in target.named_parameters()
    }


@torch.no_grad()
def load_target(target: QNetwork, state: Mapping[str, Tensor], model: QNetwork, trained: bool) -> None:
    """The inverse of ``target_state``. Raises KeyError or RuntimeError if the state doesn't fit.

    Before the first update, as at the start from another run's weights, it becomes a copy of ``model``.
    """
    for (name, own), parameter in zip(target.named_parameters(), model.parameters(), strict=True):
        own.copy_(state[f"{PREFIX}{name}"] if trained else parameter)

"""Weights and optimiser as one flat dict of tensors, the form that a code-free checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def pack(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``model.<name>`` and ``optimizer.<parameter number>.<name>``, detached copies on the CPU."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in slots.items()}
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}


def unpack(state: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of ``pack``, in place; KeyError or RuntimeError where names or shapes don't fit."""
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimizer."):
            _, number, slot = name.split(".", 2)
            slots.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})

"""All weights of a network as one flat vector, and what moves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn

from recsys_rl.functional.adam import adam


class FlatAdam:
    """Average over processes, clipping of the gradient, Adam.

    The weights become views of one vector (P,), and ``gradients`` are views of another, by the parameter's
    name. What follows a backward pass is then one operation, where a list of weights costs a Python call for
    each of them; at small minibatches those calls took a third of the time.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        max_grad_norm: float,
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """``average`` replaces a gradient by the mean over all processes, in place."""
        self.model = model
        self.lr = lr
        self.max_grad_norm = max_grad_norm
        self.average = average
        self.steps = 0
        names, parameters = zip(*model.named_parameters(), strict=True)
        self.weights = torch.cat([p.detach().flatten() for p in parameters])  # (P,)
        self.exp_avg, self.exp_avg_sq = self.weights.new_zeros(2, len(self.weights))
        self.gradient = torch.zeros_like(self.weights)  # (P,): of the last step(), before it was scaled down
        self.first = attrgetter(names[0])
        self.gradients: dict[str, Tensor] = {}
        parts = (flat.split([p.numel() for p in parameters]) for flat in (self.weights, self.gradient))
        for name, parameter, weight, gradient in zip(names, parameters, *parts, strict=True):
            parameter.data = weight.view_as(parameter)
            self.gradients[name] = gradient.view_as(parameter)

    def check(self) -> None:
        """Raise RuntimeError where the network's weights are no longer these: nothing would be learned."""
        if self.first(self.model).data_ptr() != self.weights.data_ptr():
            raise RuntimeError(
                "The weights were copied or moved after their FlatAdam was made: make a new one."
            )

    def step(self) -> None:
        """One step against the gradient that stands in ``gradients``, after a ``check``."""
        self.check()
        if self.average is not None:
            self.average(self.gradient)
        self.steps += 1
        adam(
            self.weights,
            self.exp_avg,
            self.exp_avg_sq,
            self.gradient,
            self.steps,
            self.lr,
            self.max_grad_norm,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """``model.<name>`` and ``optimizer.<name>``: detached copies on the CPU, for a checkpoint."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {
            "optimizer.exp_avg": self.exp_avg,
            "optimizer.exp_avg_sq": self.exp_avg_sq,
            "optimizer.steps": torch.tensor(self.steps),
        }
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse, in place; KeyError, RuntimeError or ValueError where it doesn't fit."""
        parts = {name.partition(".")[::2]: value for name, value in state.items()}
        self.model.load_state_dict({name: x for (part, name), x in parts.items() if part == "model"})
        for own, name in ((self.exp_avg, "exp_avg"), (self.exp_avg_sq, "exp_avg_sq")):
            own.copy_(state[f"optimizer.{name}"])
        self.steps = int(state["optimizer.steps"])
        if not 0 <= self.steps < 2**53 or bool((self.exp_avg_sq < 0).any()):
            raise ValueError("no optimiser has been in this state")

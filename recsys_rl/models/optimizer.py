"""All weights of a network as one flat vector, and their optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn

from recsys_rl.functional.adam import adam


class FlatAdam:
    """Averages the gradient over processes, clips its norm and takes a step of Adam.

    The weights become views of one vector (P,). Clipping and Adam are then one operation each; a list of
    weights would need one Python call per weight. It is used as torch's optimisers are: ``zero_grad``,
    ``loss.backward()``, ``step``. Two backward passes without a ``zero_grad`` between them add up.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        max_grad_norm: float,
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """``average`` replaces a gradient in place by its mean over all processes."""
        self.model = model
        self.lr = lr
        self.max_grad_norm = max_grad_norm
        self.average = average
        self.steps = 0
        self.parameters = list(model.parameters())
        self.sizes = [p.numel() for p in self.parameters]
        self.weights = torch.cat([p.detach().flatten() for p in self.parameters])  # (P,)
        self.exp_avg, self.exp_avg_sq = self.weights.new_zeros(2, len(self.weights))
        self.first = attrgetter(next(name for name, _ in model.named_parameters()))
        for parameter, weight in zip(self.parameters, self.weights.split(self.sizes), strict=True):
            parameter.data = weight.view_as(parameter)

    @property
    def gradient(self) -> Tensor:
        """The gradient of all weights before clipping, (P,); 0 for a parameter without a gradient."""
        return torch.cat([gradient.flatten() for gradient in self._gradients()])

    def _gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def check(self) -> None:
        """Raise RuntimeError if the network has other weights now: a step would not change them."""
        if self.first(self.model).data_ptr() != self.weights.data_ptr():
            raise RuntimeError(
                "The weights were copied or moved after their FlatAdam was made: make a new one."
            )

    def step(self) -> None:
        """One gradient step. A parameter without a gradient counts as gradient 0."""
        self.check()
        if self.average is not None:
            gradient = self.gradient  # (P,): one message, and not one for each parameter
            self.average(gradient)
            for parameter, piece in zip(self.parameters, gradient.split(self.sizes), strict=True):
                parameter.grad = piece.view_as(parameter)
        self.steps += 1
        adam(
            self.weights,
            self.exp_avg,
            self.exp_avg_sq,
            self._gradients(),
            self.steps,
            self.lr,
            self.max_grad_norm,
        )
        self._wrote()

    def write(self, weights: Tensor) -> None:
        """Take the values ``weights`` (P,)."""
        self.weights.copy_(weights)
        self._wrote()

    def _wrote(self) -> None:
        """Count the write of the parameters: torch sees only those of the vector, and none of the C loop."""
        torch.autograd.graph.increment_version(self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Detached copies on the CPU for a checkpoint, named ``model.<name>`` and ``optimizer.<name>``."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {
            "optimizer.exp_avg": self.exp_avg,
            "optimizer.exp_avg_sq": self.exp_avg_sq,
            "optimizer.steps": torch.tensor(self.steps),
        }
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit."""
        parts = {name.partition(".")[::2]: value for name, value in state.items()}
        self.model.load_state_dict(
            {name: tensor for (section, name), tensor in parts.items() if section == "model"}
        )
        for own, name in ((self.exp_avg, "exp_avg"), (self.exp_avg_sq, "exp_avg_sq")):
            own.copy_(state[f"optimizer.{name}"])
        self.steps = int(state["optimizer.steps"])
        if not 0 <= self.steps < 2**53 or bool((self.exp_avg_sq < 0).any()):
            raise ValueError("no optimiser has been in this state")

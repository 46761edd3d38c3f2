"""The classic network, one logit per item and no session, with its backward pass written out.

With B rows of inputs x_0, activation f, and for actor and critic alike hidden layers
x_l = f(z_l), z_l = x_{l-1} W_l + b_l, then logits x_L V + c and value x_L v + d, the chain rule gives,
from the gradients at logits (G) and value (g)::

    dV = x_L^T G        dc = sum_rows G        dx_L = G V^T        (the critic's alike, with g and v)
    dz_l = dx_l f'(z_l)        dW_l = x_{l-1}^T dz_l        db_l = sum_rows dz_l        dx_{l-1} = dz_l W_l^T

Autograd does the same sums. At minibatches of 64 its bookkeeping takes as long as they do; here each goes
straight to its place in the flat gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from recsys_rl.config import ModelConfig
from recsys_rl.functional import choice, kernels
from recsys_rl.models.actor import DenseHead
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.types import Obs


def tanh_(x: Tensor) -> Tensor:
    """tanh in place; torch's own takes several times as long."""
    library = kernels.serving(x)
    if library is None:
        return x.tanh_()
    library.tanh_(x.data_ptr(), x.numel())
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh_,
    "relu": torch.relu_,
    "elu": nn.functional.elu_,
}

# dx f'(z), from dx and x = f(z)
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda dx, x: torch.addcmul(dx, dx * x, x, value=-1.0),
    "relu": lambda dx, x: dx * (x > 0),
    "elu": lambda dx, x: dx * (x.clamp_max(0.0) + 1.0),
}


class DenseActorCritic(ActorCritic):
    """An ActorCritic that needs no autograd: one position, a dense head, and no session to read."""

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(shapes, config, generator)
        assert isinstance(self.head, DenseHead) and self.session is None and len(shapes.action_sizes) == 1
        self.activate = ACTIVATIONS[config.activation]
        self.slope = SLOPES[config.activation]
        # Plain references, as nn.Module looks up each of its parts by name, which takes a microsecond.
        self.towers = list(zip(self.hidden.weights, self.hidden.biases, strict=True))
        self.tops = [*self.head.logits.parameters(), *self.value_head.parameters()]
        self.layers: list[Tensor] = []  # x_0, x_1, ... of the last forward pass, (2, B, size) each

    @torch.no_grad()
    def forward(self, obs: Obs) -> tuple[Tensor, Tensor]:
        x = obs.context.expand(2, -1, -1)
        layers = [x]
        for weight, bias in self.towers:
            x = self.activate(torch.baddbmm(bias, x, weight))
            layers.append(x)
        if not torch.is_inference_mode_enabled():  # as when acting
            self.layers = layers
        actor_weight, actor_bias, critic_weight, critic_bias = self.tops
        logits = torch.addmm(actor_bias, x[0], actor_weight).unsqueeze(1)
        value = torch.addmv(critic_bias, x[1], critic_weight[:, 0])
        return choice.forbid_(logits, obs.mask, obs.exclude), value

    @torch.no_grad()
    def backward(
        self,
        outputs: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        into: Mapping[str, Tensor],
    ) -> None:
        """As ActorCritic.backward, for the outputs of the last forward pass."""
        logits, value = gradients[0].squeeze(1), gradients[1]  # (B, I), (B,)
        assert self.layers and self.layers[0].shape[1] == len(value), "backward follows its own forward pass"
        x, critic_weight = self.layers[-1], self.tops[2][:, 0]
        torch.mm(x[0].T, logits, out=into["head.logits.weight"])
        torch.sum(logits, 0, out=into["head.logits.bias"])
        torch.mv(x[1].T, value, out=into["value_head.weight"][:, 0])
        torch.sum(value, 0, keepdim=True, out=into["value_head.bias"])
        dx = torch.empty_like(x)  # (2, B, H)
        torch.mm(logits, self.tops[0].T, out=dx[0])
        torch.outer(value, critic_weight, out=dx[1])
        for place in reversed(range(len(self.towers))):
            dz = self.slope(dx, self.layers[place + 1])
            torch.sum(dz, 1, keepdim=True, out=into[f"hidden.biases.{place}"])
            torch.bmm(self.layers[place].transpose(1, 2), dz, out=into[f"hidden.weights.{place}"])
            if place > 0:  # observations need no gradient
                dx = torch.bmm(dz, self.towers[place][0].transpose(1, 2))
        self.layers = []

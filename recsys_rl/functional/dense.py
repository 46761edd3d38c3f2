"""The classic actor-critic network, forwards and backwards: the arithmetic, without autograd.

With B rows of inputs x_0 and activation f, actor and critic alike have hidden layers x_l = f(z_l),
z_l = x_{l-1} W_l + b_l, and then come the logits x_L V + c and the value x_L v + d. From the gradients at
logits (G) and value (g) the chain rule gives::

    dV = x_L^T G        dc = sum_rows G        dx_L = G V^T        (the critic's alike, with g and v)
    dz_l = dx_l f'(z_l)        dW_l = x_{l-1}^T dz_l        db_l = sum_rows dz_l        dx_{l-1} = dz_l W_l^T

Autograd does the same sums. At minibatches of 64 its bookkeeping takes as long as they do; here each goes
straight to its place in the flat gradient. dense.c does a pass in one call; where it doesn't serve, torch
does.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys_rl.functional.compiled import kernels

ACTIVATIONS = ("none", "tanh", "relu", "elu")  # in the order of compiled/layers.h

FORWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_,
    "relu": torch.relu_,
    "elu": nn.functional.elu_,
}

# dx f'(z), from dx and x = f(z)
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda dx, x: torch.addcmul(dx, dx * x, x, value=-1.0),
    "relu": lambda dx, x: dx * (x > 0),
    "elu": lambda dx, x: dx * (x.clamp_max(0.0) + 1.0),
}


# A wide head over few rows is a walk through its weights, which torch does in longer strides.
FEW, WIDE = 8, 10_000


class Fixed:
    """Tensors that stay where they are, so that their addresses are looked up once and not at each pass."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)
        self.addresses = [x.data_ptr() for x in self.tensors]
        self.pointers = (ctypes.c_void_p * len(self.addresses))(*self.addresses)
        self.plain = all(
            x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() for x in self.tensors
        )

    def moved(self) -> bool:
        """Has a tensor got other memory since?"""
        return [x.data_ptr() for x in self.tensors] != self.addresses

    def __reduce__(self) -> tuple[type[Fixed], tuple[object, ...]]:
        return Fixed, (self.tensors,)  # copies lie elsewhere


class Network(Fixed):
    """The parameters of a network, and its activation.

    They are W (2, in, out) and b (2, 1, out) of each hidden layer, then V (H, I), c (I,), v (H, 1), d (1,).
    """

    def __init__(self, parameters: Sequence[Tensor], activation: str) -> None:
        super().__init__(parameters)
        self.activation = activation
        # Of the inputs, of each hidden layer and of the logits.
        self.sizes = [self.tensors[0].shape[1], *(bias.shape[-1] for bias in self.tensors[1:-2:2])]
        self.num_hidden = sum(self.sizes[1:-1])
        sizes = (ctypes.c_int64 * len(self.sizes))(*self.sizes)
        # The first arguments of both passes of dense.c.
        self.arguments = self.pointers, sizes, len(self.sizes) - 2, ACTIVATIONS.index(activation)

    def __reduce__(self) -> tuple[type[Fixed], tuple[object, ...]]:
        return Network, (self.tensors, self.activation)


class Passed(NamedTuple):
    """A forward pass, as the backward pass needs it."""

    logits: Tensor  # (B, 1, I): the position's axis is a policy's, and of size 1 here
    value: Tensor  # (B,)
    inputs: Tensor  # (B, F): x_0
    layers: Tensor  # (P,): x_1, ..., x_L, (2, B, size) each, the actor's before the critic's


def forward(network: Network, inputs: Tensor) -> Passed:
    """Logits and value for ``inputs`` (B, F), without a gradient."""
    rows, sizes = len(inputs), network.sizes
    if inputs.shape != (rows, sizes[0]):
        raise ValueError(f"inputs {tuple(inputs.shape)} don't fit a network of {sizes[0]} inputs")
    library = kernels.serving(inputs) if network.plain and rows else None
    if library is None or (rows < FEW and sizes[-1] > WIDE):
        return forward_by_torch(network, inputs)
    layers = inputs.new_empty(2 * rows * network.num_hidden)
    logits, value = inputs.new_empty(rows, 1, sizes[-1]), inputs.new_empty(rows)
    library.dense_forward(
        *network.arguments,
        inputs.data_ptr(),
        rows,
        torch.get_num_threads(),
        layers.data_ptr(),
        logits.data_ptr(),
        value.data_ptr(),
    )
    return Passed(logits, value, inputs, layers)


def backward(network: Network, passed: Passed, dlogits: Tensor, dvalue: Tensor, gradients: Fixed) -> None:
    """Write the ``gradients`` of the parameters, from those at the logits (B, 1, I) and the value (B,)."""
    logits, value, inputs, layers = passed
    if dlogits.shape != logits.shape or dvalue.shape != value.shape:
        raise ValueError(
            f"gradients {tuple(dlogits.shape)} and {tuple(dvalue.shape)} don't fit what they are of, "
            f"{tuple(logits.shape)} and {tuple(value.shape)}"
        )
    library = None
    if (
        network.plain
        and gradients.plain
        and len(inputs)
        and kernels.serving(dvalue)
        and inputs.is_contiguous()
    ):
        library = kernels.serving(dlogits)
    if library is None:
        backward_by_torch(network, passed, dlogits, dvalue, gradients)
        return
    dlayers = torch.empty_like(layers)
    library.dense_backward(
        *network.arguments,
        inputs.data_ptr(),
        len(inputs),
        torch.get_num_threads(),
        layers.data_ptr(),
        dlogits.data_ptr(),
        dvalue.data_ptr(),
        dlayers.data_ptr(),
        gradients.pointers,
    )


def places(network: Network, gradients: Sequence[Tensor]) -> Fixed:
    """Where ``backward`` writes: tensors of the parameters' shapes."""
    if [x.shape for x in gradients] != [x.shape for x in network.tensors]:
        raise ValueError("the places for gradients don't have the shapes of the parameters")
    return Fixed(gradients)


@torch.no_grad()
def forward_by_torch(network: Network, inputs: Tensor) -> Passed:
    """The same in torch's operators, for every device and type."""
    *hidden, actor_weight, actor_bias, critic_weight, critic_bias = network.tensors
    x, layers = inputs.expand(2, -1, -1), []
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        x = FORWARD[network.activation](torch.baddbmm(bias, x, weight))
        layers.append(x.flatten())
    logits = torch.addmm(actor_bias, x[0], actor_weight).unsqueeze(1)
    value = torch.addmm(critic_bias, x[1], critic_weight).squeeze(1)
    return Passed(logits, value, inputs, torch.cat(layers))


@torch.no_grad()
def backward_by_torch(
    network: Network, passed: Passed, dlogits: Tensor, dvalue: Tensor, gradients: Fixed
) -> None:
    """The same in torch's operators, for every device and type."""
    inputs, dlogits = passed.inputs, dlogits.squeeze(1)
    *hidden, actor_weight, _, critic_weight, _ = network.tensors
    *of_hidden, dactor_weight, dactor_bias, dcritic_weight, dcritic_bias = gradients.tensors
    shapes = [(2, len(inputs), size) for size in network.sizes[1:-1]]
    parts = passed.layers.split([math.prod(shape) for shape in shapes])
    layers = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    x = layers[-1]
    torch.mm(x[0].T, dlogits, out=dactor_weight)
    torch.sum(dlogits, 0, out=dactor_bias)
    torch.mv(x[1].T, dvalue, out=dcritic_weight[:, 0])
    torch.sum(dvalue, 0, keepdim=True, out=dcritic_bias)
    dx = torch.stack([dlogits @ actor_weight.T, torch.outer(dvalue, critic_weight[:, 0])])  # (2, B, H)
    for place in reversed(range(len(layers))):
        dz = SLOPES[network.activation](dx, layers[place])
        below = layers[place - 1] if place else inputs.expand(2, -1, -1)
        torch.bmm(below.transpose(1, 2), dz, out=of_hidden[2 * place])
        torch.sum(dz, 1, keepdim=True, out=of_hidden[2 * place + 1])
        if place:  # observations need no gradient
            dx = torch.bmm(dz, hidden[2 * place].transpose(1, 2))

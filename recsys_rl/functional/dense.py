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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recsys_rl.functional import kernels

ACTIVATIONS = ("none", "tanh", "relu", "elu")  # in the order of dense.c

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


class Passed(NamedTuple):
    """A forward pass, as the backward pass needs it."""

    logits: Tensor  # (B, I)
    value: Tensor  # (B,)
    inputs: Tensor  # (B, F): x_0
    layers: list[Tensor]  # x_1, ..., x_L, (2, B, size) each: the actor's, the critic's


def forward(parameters: Sequence[Tensor], activation: str, inputs: Tensor) -> Passed:
    """Logits and value for ``inputs`` (B, F), without a gradient.

    ``parameters`` are W (2, in, out) and b (2, 1, out) of each hidden layer, then V (H, I), c (I,), v (H, 1)
    and d (1,).
    """
    rows, sizes = len(inputs), _sizes(parameters)
    if inputs.shape != (rows, sizes[0]):
        raise ValueError(f"inputs {tuple(inputs.shape)} don't fit a network of {sizes[0]} inputs")
    library = _serving(inputs, parameters)
    if library is None or (rows < FEW and sizes[-1] > WIDE):
        return forward_by_torch(parameters, activation, inputs)
    layers = [inputs.new_empty(2, rows, size) for size in sizes[1:-1]]
    logits, value = inputs.new_empty(rows, sizes[-1]), inputs.new_empty(rows)
    library.dense_forward(
        *_network(parameters, activation, inputs, layers), logits.data_ptr(), value.data_ptr()
    )
    return Passed(logits, value, inputs, layers)


def backward(
    parameters: Sequence[Tensor],
    activation: str,
    passed: Passed,
    dlogits: Tensor,
    dvalue: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Write the ``gradients`` of ``parameters``, from those at the logits (B, I) and the value (B,)."""
    inputs, layers = passed.inputs, passed.layers
    if dlogits.shape != passed.logits.shape or dvalue.shape != passed.value.shape:
        raise ValueError(
            f"gradients {tuple(dlogits.shape)} and {tuple(dvalue.shape)} don't fit what they are of, "
            f"{tuple(passed.logits.shape)} and {tuple(passed.value.shape)}"
        )
    if [x.shape for x in gradients] != [x.shape for x in parameters]:
        raise ValueError("the places for gradients don't have the shapes of the parameters")
    library = _serving(inputs, (*parameters, *gradients, *layers, dlogits, dvalue))
    if library is None:
        backward_by_torch(parameters, activation, passed, dlogits, dvalue, gradients)
        return
    dlayers = [torch.empty_like(x) for x in layers]
    library.dense_backward(
        *_network(parameters, activation, inputs, layers),
        dlogits.data_ptr(),
        dvalue.data_ptr(),
        _pointers(dlayers),
        _pointers(gradients),
    )


@torch.no_grad()
def forward_by_torch(parameters: Sequence[Tensor], activation: str, inputs: Tensor) -> Passed:
    """The same in torch's operators, for every device and type."""
    *hidden, actor_weight, actor_bias, critic_weight, critic_bias = parameters
    x, layers = inputs.expand(2, -1, -1), []
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        x = FORWARD[activation](torch.baddbmm(bias, x, weight))
        layers.append(x)
    logits = torch.addmm(actor_bias, x[0], actor_weight)
    return Passed(logits, torch.addmm(critic_bias, x[1], critic_weight).squeeze(1), inputs, layers)


@torch.no_grad()
def backward_by_torch(
    parameters: Sequence[Tensor],
    activation: str,
    passed: Passed,
    dlogits: Tensor,
    dvalue: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """The same in torch's operators, for every device and type."""
    inputs, layers = passed.inputs, passed.layers
    *hidden, actor_weight, _, critic_weight, _ = parameters
    *of_hidden, dactor_weight, dactor_bias, dcritic_weight, dcritic_bias = gradients
    x = layers[-1]
    torch.mm(x[0].T, dlogits, out=dactor_weight)
    torch.sum(dlogits, 0, out=dactor_bias)
    torch.mv(x[1].T, dvalue, out=dcritic_weight[:, 0])
    torch.sum(dvalue, 0, keepdim=True, out=dcritic_bias)
    dx = torch.stack([dlogits @ actor_weight.T, torch.outer(dvalue, critic_weight[:, 0])])  # (2, B, H)
    for place in reversed(range(len(layers))):
        dz = SLOPES[activation](dx, layers[place])
        below = layers[place - 1] if place else inputs.expand(2, -1, -1)
        torch.bmm(below.transpose(1, 2), dz, out=of_hidden[2 * place])
        torch.sum(dz, 1, keepdim=True, out=of_hidden[2 * place + 1])
        if place:  # observations need no gradient
            dx = torch.bmm(dz, hidden[2 * place].transpose(1, 2))


def _serving(inputs: Tensor, others: Sequence[Tensor]) -> ctypes.CDLL | None:
    """The compiled passes, where they can take all of these tensors."""
    device = inputs.device
    if not all(x.dtype == torch.float32 and x.is_contiguous() and x.device == device for x in others):
        return None
    return kernels.serving(inputs) if len(inputs) else None


def _network(
    parameters: Sequence[Tensor], activation: str, inputs: Tensor, layers: Sequence[Tensor]
) -> tuple[Any, ...]:
    """The arguments that both passes of dense.c begin with."""
    sizes = _sizes(parameters)
    return (
        _pointers(parameters),
        (ctypes.c_int64 * len(sizes))(*sizes),
        len(layers),
        ACTIVATIONS.index(activation),
        inputs.data_ptr(),
        len(inputs),
        torch.get_num_threads(),
        _pointers(layers),
    )


def _sizes(parameters: Sequence[Tensor]) -> list[int]:
    """Of the inputs, of each hidden layer and of the logits."""
    return [parameters[0].shape[1], *(bias.shape[-1] for bias in parameters[1:-2:2])]


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))

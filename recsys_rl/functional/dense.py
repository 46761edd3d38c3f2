"""The dense actor-critic network, one logit per item and no history, as one node of the autograd graph.

With B rows of inputs x_0 and activation f, actor and critic each have hidden layers x_l = f(z_l),
z_l = x_{l-1} W_l + b_l. The outputs are the logits x_L V + c and the value x_L v + d. From the gradients at
logits (G) and value (g) the chain rule gives::

    dV = x_L^T G        dc = sum_rows G        dx_L = G V^T        (the critic's alike, with g and v)
    dz_l = dx_l f'(z_l)        dW_l = x_{l-1}^T dz_l        db_l = sum_rows dz_l        dx_{l-1} = dz_l W_l^T

Autograd computes the same sums, one operator after the other. With minibatches of 64 its overhead takes as
long as the sums. compiled/dense.c computes each pass in one call. Where it can't be used, the network's torch
modules are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels

ACTIVATIONS = ("none", "tanh", "relu", "elu")  # in the order of compiled/layers.h

# With a wide head and few rows, most time goes into reading the weights, and torch reads them faster.
FEW, WIDE = 8, 10_000


def serves(inputs: Tensor, parameters: Sequence[Tensor]) -> bool:
    """True if ``actor_critic`` can take these: contiguous float32 on a CPU, inputs without a gradient."""
    few = not len(inputs) or (len(inputs) < FEW and parameters[-4].shape[1] > WIDE)
    if few or inputs.requires_grad or kernels.serving(inputs) is None:
        return False
    return all([kernels.plain(x) for x in parameters])  # noqa: C419 (a generator takes longer)


def actor_critic(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (B, 1, I) and value (B,) for ``inputs`` (B, F). Call it only if ``serves`` is True.

    ``parameters`` are W (2, in, out) and b (2, 1, out) of each hidden layer, the actor's before the critic's,
    then V (H, I), c (I,), v (H, 1), d (1,). Raises ValueError if the inputs don't fit them.
    """
    _check(inputs, parameters)
    if not torch.is_grad_enabled():  # acting: a node of the graph would take a sixth of the time of a step
        logits, value, _ = _forward(inputs, _layout(inputs, activation, parameters), parameters)
        return logits, value
    logits, value = _ActorCritic.apply(inputs, activation, *parameters)  # type: ignore[no-untyped-call]
    return logits, value


def critic(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    """The value (B,) of ``actor_critic`` alone, without a gradient: the same numbers, and no logits.

    torch's products wake a second thread for a few rows, and wait for it longer than they multiply.
    """
    _check(inputs, parameters)
    sizes, depth, place = _layout(inputs, activation, parameters)
    sizes[depth + 1] = 0
    return _forward(inputs, (sizes, depth, place), parameters)[1]


def _check(inputs: Tensor, parameters: Sequence[Tensor]) -> None:
    if inputs.ndim != 2 or inputs.shape[1] != parameters[0].shape[1]:
        raise ValueError(
            f"inputs {tuple(inputs.shape)} don't fit a network of {parameters[0].shape[1]} inputs"
        )


def _layout(
    inputs: Tensor, activation: str, parameters: Sequence[Tensor]
) -> tuple[ctypes.Array[ctypes.c_int64], int, int]:
    """Sizes of inputs, hidden layers and logits, the number of layers, and the activation."""
    sizes = [inputs.shape[1], *(bias.shape[-1] for bias in parameters[1:-2:2])]
    return (ctypes.c_int64 * len(sizes))(*sizes), len(sizes) - 2, ACTIVATIONS.index(activation)


def _forward(
    inputs: Tensor, layout: tuple[ctypes.Array[ctypes.c_int64], int, int], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, 1, I), value (B,), and the hidden layers x_1, ..., x_L, (2, B, size) each, as one vector."""
    rows, sizes = len(inputs), layout[0]
    layers = inputs.new_empty(2 * rows * sum(sizes[1:-1]))
    logits, value = inputs.new_empty(rows, 1, sizes[-1]), inputs.new_empty(rows)
    library = kernels.library()
    assert library is not None
    library.dense_forward(
        kernels.addresses(parameters),
        *layout,
        inputs.data_ptr(),
        rows,
        torch.get_num_threads(),
        layers.data_ptr(),
        logits.data_ptr(),
        value.data_ptr(),
    )
    return logits, value, layers


class _ActorCritic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, activation: str, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        ctx.layout = _layout(inputs, activation, parameters)
        logits, value, layers = _forward(inputs, ctx.layout, parameters)
        ctx.save_for_backward(inputs, layers, *parameters)
        return logits, value

    @staticmethod
    def backward(ctx: Any, by_logits: Tensor, by_value: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        inputs, layers, *parameters = ctx.saved_tensors
        by_logits, by_value = by_logits.contiguous(), by_value.contiguous()
        gradients = [torch.empty_like(x) for x in parameters]
        scratch = torch.empty_like(layers)
        library = kernels.library()
        assert library is not None
        library.dense_backward(
            kernels.addresses(parameters),
            *ctx.layout,
            inputs.data_ptr(),
            len(inputs),
            torch.get_num_threads(),
            layers.data_ptr(),
            by_logits.data_ptr(),
            by_value.data_ptr(),
            scratch.data_ptr(),
            kernels.addresses(gradients),
        )
        return None, None, *gradients

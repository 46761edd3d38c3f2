"""The dense layers of actor and critic as one node of the autograd graph.

With B rows of inputs x_0 and activation f, actor and critic each have hidden layers x_l = f(z_l),
z_l = x_{l-1} W_l + b_l. The outputs are x_L V + c of the actor (logits, or the inputs of another head) and
the value x_L v + d. From the gradients at these outputs (G, g) the chain rule gives::

    dV = x_L^T G        dc = sum_rows G        dx_L = G V^T        (the critic's alike, with g and v)
    dz_l = dx_l f'(z_l)        dW_l = x_{l-1}^T dz_l        db_l = sum_rows dz_l        dx_{l-1} = dz_l W_l^T

Autograd computes the same sums, one operator after the other. With minibatches of 64 its overhead takes as
long as the sums. compiled/dense.c computes each pass in one call. Only inputs that depend on weights, such as
the sums over a session, get their dx_0 (actor's and critic's together).

It saves 27 % of the time of training with minibatches of 64, 17 % with 512, and 9 % of the flagship's
(docs/speed.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys_rl.functional.compiled import kernels

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # in the order of compiled/dense.c
    # This equals tanh. torch's sigmoid is vectorised on every processor, and six times as fast.
    "tanh": lambda x: 2 * torch.sigmoid(2 * x) - 1,
    "relu": torch.relu,
    "elu": nn.functional.elu,
}

# With a wide head and few rows, most time goes into reading the weights, and torch reads them faster.
FEW, WIDE = 8, 10_000

NO_HIDDEN = 4  # parameters of the last layers: a network without hidden layers has no others


def by_torch(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``actor_critic`` by torch's operators, for all inputs together."""
    *hidden, last, bias, of_value, bias_of_value = parameters
    x = inputs.expand(2, -1, -1)  # actor and critic as one batch of two: half as many calls
    for weight, shift in zip(hidden[::2], hidden[1::2], strict=True):
        x = ACTIVATIONS[activation](torch.baddbmm(shift, x, weight))
    return torch.addmm(bias, x[0], last), torch.addmm(bias_of_value, x[1], of_value).squeeze(-1)


def serves(inputs: Tensor, parameters: Sequence[Tensor]) -> bool:
    """True if the compiled loop can take these: contiguous float32 on a CPU, inputs without a gradient."""
    # First, as an export may not branch on the number of rows.
    if kernels.serving(inputs) is None or len(parameters) == NO_HIDDEN or inputs.requires_grad:
        return False
    rows = inputs.shape[0]  # len(inputs) takes three times as long
    if not rows or (rows < FEW and parameters[-4].shape[1] > WIDE):
        return False
    return all([kernels.plain(tensor) for tensor in parameters])  # noqa: C419 (a generator takes longer)


def actor_critic(
    inputs: Tensor, activation: str, parameters: Sequence[Tensor], varying: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The actor's outputs (B, O) and the value (B,).

    Args:
        inputs: (B, F + G).
        parameters: W (2, in, out) and b (2, 1, out) of each hidden layer, the actor's before the critic's,
            then V (H, O), c (O,), v (H, 1), d (1,).
        varying: (B, G): the last of the inputs, which get a gradient here and none in ``inputs``.

    Raises ValueError or RuntimeError if the inputs don't fit the parameters.
    """
    if not serves(inputs, parameters):
        if varying is not None:
            inputs = torch.cat([inputs[:, : inputs.shape[1] - varying.shape[1]], varying], 1)
        return by_torch(inputs, activation, parameters)
    _check(inputs, parameters)
    if not torch.is_grad_enabled():  # acting: a node of the graph would take a sixth of the time of a step
        outputs, value, _ = _forward(inputs, _layout(inputs, activation, parameters), parameters)
        return outputs, value
    outputs, value = _ActorCritic.apply(inputs, varying, activation, *parameters)  # type: ignore[no-untyped-call]
    return outputs, value


def critic(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    """The value (B,) of ``actor_critic`` alone, without a gradient: the same numbers, and no other outputs.

    torch's products wake a second thread for a few rows, and wait for it longer than they multiply.
    """
    _check(inputs, parameters)
    sizes, depth, code = _layout(inputs, activation, parameters)
    sizes[depth + 1] = 0
    return _forward(inputs, (sizes, depth, code), parameters)[1]


def _check(inputs: Tensor, parameters: Sequence[Tensor]) -> None:
    size = parameters[0].shape[1]
    if inputs.ndim != 2 or inputs.shape[1] != size or not kernels.plain(inputs):
        raise ValueError(f"{inputs.dtype} inputs {tuple(inputs.shape)} don't fit a network of {size} inputs")


def _layout(
    inputs: Tensor, activation: str, parameters: Sequence[Tensor]
) -> tuple[ctypes.Array[ctypes.c_int64], int, int]:
    """Sizes of inputs, hidden layers and outputs, the number of layers, and the activation."""
    sizes = [inputs.shape[1], *(bias.shape[-1] for bias in parameters[1:-2:2])]
    code = 1 + [*ACTIVATIONS].index(activation)
    return (ctypes.c_int64 * len(sizes))(*sizes), len(sizes) - 2, code


def _forward(
    inputs: Tensor, layout: tuple[ctypes.Array[ctypes.c_int64], int, int], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, O), value (B,), and the hidden layers x_1, ..., x_L, (2, B, size) each, as one vector."""
    rows, sizes = inputs.shape[0], layout[0]
    layers = inputs.new_empty(2 * rows * sum(sizes[1:-1]))
    outputs, value = inputs.new_empty(rows, sizes[-1]), inputs.new_empty(rows)
    library = kernels.library()
    assert library is not None
    library.dense_forward(
        kernels.addresses(parameters),
        *layout,
        inputs.data_ptr(),
        rows,
        torch.get_num_threads(),
        layers.data_ptr(),
        outputs.data_ptr(),
        value.data_ptr(),
    )
    return outputs, value, layers


class _ActorCritic(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, varying: Tensor | None, activation: str, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``inputs`` (B, F + G) end with ``varying`` (B, G)."""
        ctx.layout = _layout(inputs, activation, parameters)
        ctx.num_varying = 0 if varying is None else varying.shape[1]
        outputs, value, layers = _forward(inputs, ctx.layout, parameters)
        ctx.save_for_backward(inputs, layers, *parameters)
        return outputs, value

    @staticmethod
    def backward(ctx: Any, by_outputs: Tensor, by_value: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        inputs, layers, *parameters = ctx.saved_tensors
        by_outputs, by_value = by_outputs.contiguous(), by_value.contiguous()
        gradients = [torch.empty_like(tensor) for tensor in parameters]
        scratch = torch.empty_like(layers)
        library = kernels.library()
        assert library is not None
        library.dense_backward(
            kernels.addresses(parameters),
            *ctx.layout,
            inputs.data_ptr(),
            inputs.shape[0],
            torch.get_num_threads(),
            layers.data_ptr(),
            by_outputs.data_ptr(),
            by_value.data_ptr(),
            scratch.data_ptr(),
            kernels.addresses(gradients),
        )
        by_varying: Tensor | None = None
        if ctx.num_varying:
            rows, size = inputs.shape[0], parameters[0].shape[2]
            actor, critic = scratch[: 2 * rows * size].view(2, rows, size)  # dz_1 of each
            of_actor, of_critic = parameters[0][:, -ctx.num_varying :].mT  # (H, G) each
            by_varying = torch.mm(actor, of_actor).addmm_(critic, of_critic)
        return None, by_varying, None, *gradients

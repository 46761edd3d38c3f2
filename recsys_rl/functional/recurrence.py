"""A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078) over many steps, its gradient in closed form.

Automatic differentiation takes some 30 small operations a step, and most of their time goes to the calls.
Here a step takes ten, and the gradients of the weights are one matrix product over all steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels


def gru(inputs: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, empty: Tensor) -> Tensor:
    """The states (T, N, H) after each of T steps, by the equations of torch.nn.GRU::

        r, z = sigmoid(a_r + h U_r + b_r), sigmoid(a_z + h U_z + b_z)
        n = tanh(a_n + r (h U_n + b_n))        h <- n + z (h - n)

    Args:
        inputs: (T, N, 3 H), a_r, a_z and a_n of each step. Where a_z is inf, the state stays as it is.
        hidden: (N, H), h before the first step.
        weight: (3 H, H), the transposed U_r, U_z and U_n.
        bias: (3 H,), b_r, b_z and b_n.
        empty: (T, N) bool, True where the state becomes 0 after the step.
    """
    states: Tensor = _GRU.apply(inputs, hidden, weight, bias, empty)  # type: ignore[no-untyped-call]
    return states


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, empty: Tensor
    ) -> Tensor:
        size = hidden.shape[1]
        sizes, across, old = [2 * size, size], weight.T, hidden
        gates = torch.empty_like(inputs)  # r, z and n of each step
        states = hidden.new_empty(len(inputs), *hidden.shape)
        products = []  # (N, H) each: h U_n + b_n
        ctx.restarts = empty.any(1).tolist()  # (T,)
        rows = (x.unbind() for of in (inputs, gates) for x in of.split(sizes, 2))
        for t, (a_rz, a_n, rz, n, state) in enumerate(zip(*rows, states.unbind(), strict=True)):
            product_rz, product_n = torch.addmm(bias, old, across).split(sizes, 1)
            torch.add(a_rz, product_rz, out=rz).sigmoid_()
            torch.addcmul(a_n, rz[:, :size], product_n, out=n).tanh_()
            torch.lerp(n, old, rz[:, size:], out=state)
            if ctx.restarts[t]:
                state.masked_fill_(empty[t].unsqueeze(1), 0.0)
            products.append(product_n)
            old = state
        ctx.save_for_backward(hidden, weight, empty, gates, states, torch.stack(products))
        return states

    @staticmethod
    def backward(ctx: Any, of_states: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        hidden, weight, empty, gates, states, products = ctx.saved_tensors
        size = hidden.shape[1]
        old = torch.cat([hidden.unsqueeze(0), states[:-1]])  # (T, N, H): h before each step
        r, z, n = gates.split(size, 2)
        # dh/d(a_n), dh/d(a_z) and d(a_n + r (h U_n + b_n)) / d(a_r) of each step
        by_n, by_z, by_r = (1 - z) * (1 - n * n), (old - n) * z * (1 - z), products * r * (1 - r)
        of_products = torch.empty_like(gates)  # (T, N, 3 H): gradient of h U + b
        of_inputs_n = torch.empty_like(states)
        rows = (of_products, *of_products.split(size, 2), of_inputs_n, by_n, by_z, by_r, r, z)
        steps = list(zip(*(x.unbind() for x in rows), of_states.unbind(), strict=True))
        of_state = torch.zeros_like(hidden)
        for t in reversed(range(len(steps))):
            of_product, of_r, of_z, of_product_n, of_n, by_n, by_z, by_r, r, z, from_above = steps[t]
            of_state = of_state + from_above
            if ctx.restarts[t]:
                of_state.masked_fill_(empty[t].unsqueeze(1), 0.0)
            torch.mul(of_state, by_n, out=of_n)
            torch.mul(of_state, by_z, out=of_z)
            torch.mul(of_n, by_r, out=of_r)
            torch.mul(of_n, r, out=of_product_n)
            of_state = torch.addmm(of_state * z, of_product, weight)
        of_inputs = torch.cat([of_products[..., : 2 * size], of_inputs_n], 2)
        flat = of_products.flatten(0, 1)  # (T N, 3 H)
        return of_inputs, of_state, flat.T @ old.flatten(0, 1), flat.sum(0), None

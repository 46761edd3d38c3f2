"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) on one flat vector of weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels

BETAS = (0.9, 0.999)
EPS = 1e-5  # torch's default is 1e-8; a larger value keeps steps small while gradients are tiny


def adam(
    weights: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    gradients: Sequence[Tensor],
    step: int,
    lr: float,
    max_grad_norm: float,
) -> None:
    """One step in place; ``step`` counts from 1. First the gradient is scaled down to ``max_grad_norm``::

        m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Args: (P,) each. ``gradients`` are consecutive pieces of g, of any shape, with P numbers together.
    compiled/kernels.c reads them in one pass without a copy. Without it torch's operators do the same.
    """
    sizes = [piece.numel() for piece in gradients]
    assert weights.shape == exp_avg.shape == exp_avg_sq.shape == (sum(sizes),)
    assert weights.dtype == exp_avg.dtype == exp_avg_sq.dtype == gradients[0].dtype
    beta1, beta2 = BETAS
    rate, correction2 = lr / (1 - beta1**step), 1 - beta2**step
    library = kernels.serving(weights)
    if library is not None:
        pieces = [piece.contiguous() for piece in gradients]  # the name keeps copies alive
        library.adam(
            weights.data_ptr(),
            exp_avg.data_ptr(),
            exp_avg_sq.data_ptr(),
            kernels.addresses(pieces),
            (ctypes.c_int64 * len(sizes))(*sizes),
            len(sizes),
            max_grad_norm,
            beta1,
            beta2,
            rate,
            correction2,
            EPS,
            kernels.threads(weights),
        )
        return
    with torch.no_grad():
        gradient = torch.cat([piece.flatten() for piece in gradients])  # (P,)
        gradient = gradient * (max_grad_norm / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp_max(1.0)
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        weights.addcdiv_(exp_avg, (exp_avg_sq / correction2).sqrt_().add_(EPS), value=-rate)

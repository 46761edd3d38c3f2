"""An epoch of PPO on the classic network in one compiled call.

A minibatch of 64 rows streams 1.6 MB of weights, gradient and Adam's moments through a cache of 1 MB, and the
Python between two products then has to be fetched again: a third of the time went there. ppo_epoch.c calls
what agents/ppo.py calls, in the same order: ``dense.forward``, ``clipped_policy_gradient_``,
``losses.value_gradient``, ``dense.backward`` and ``adam``. The results are the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional import kernels
from recsys_rl.functional.adam import BETAS, EPS
from recsys_rl.functional.dense import Fixed, Network


@dataclass(frozen=True)
class Weights:
    """What an epoch moves."""

    network: Network
    gradients: Fixed  # of the network's parameters, within `adam`'s
    adam: Fixed  # weights, exp_avg, exp_avg_sq, gradient: (P,) each


def ppo_epoch(
    weights: Weights,
    steps: int,
    lr: float,
    max_grad_norm: float,
    record: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    batch_size: int,
    clip_eps: float,
    ent_coef: float,
    vf_coef: float,
    clip_vloss: bool,
) -> Tensor | None:
    """A gradient step for each ``batch_size`` samples of ``record``; None where the loops don't serve.

    ``record`` holds the inputs (S, F), and (S,) each: items, old log-probability, old value, target and
    advantage. ``steps`` have been made before. Returns (4, S): log-probability, entropy, objective and value
    of each sample, as they were before the step that it took part in.
    """
    network, (inputs, *others) = weights.network, record
    samples, sizes = len(inputs), network.sizes
    plain = network.plain and weights.gradients.plain and weights.adam.plain
    library = kernels.serving(inputs) if plain else None
    if library is None or not all(x.is_contiguous() for x in others) or others[0].dtype != torch.int64:
        return None
    if any(x.dtype != torch.float32 for x in others[1:]):
        return None
    if inputs.shape != (samples, sizes[0]) or any(x.numel() != samples for x in others):
        raise ValueError("the samples don't fit each other, or the network")
    assert sum(x.numel() for x in network.tensors) == len(weights.adam.tensors[0])
    seen = inputs.new_empty(4, samples)
    batch_size = min(batch_size, samples)
    scratch = inputs.new_empty(batch_size * (sizes[-1] + 4 * network.num_hidden + 1))
    outside = library.ppo_epoch(
        *network.arguments,
        weights.gradients.pointers,
        weights.adam.pointers,
        len(weights.adam.tensors[0]),
        steps,
        lr,
        max_grad_norm,
        *BETAS,
        EPS,
        inputs.data_ptr(),
        *(x.data_ptr() for x in others),
        samples,
        batch_size,
        clip_eps,
        ent_coef,
        vf_coef,
        clip_vloss,
        torch.get_num_threads(),
        scratch.data_ptr(),
        *(row.data_ptr() for row in seen),
    )
    if outside:
        raise IndexError(f"an item is outside 0 .. {sizes[-1] - 1}")
    return seen

"""An epoch of PPO on the classic network in one compiled call.

A minibatch of 64 rows streams 1.6 MB of weights, gradient and Adam's moments through caches of 1 MB a core,
and what Python does between two products has to be fetched again each time: a third of the time went there.
And where threads divide each product anew, weights wander between their cores: where those share no cache,
two threads were slower than one. ppo_epoch.c does what PPO._epoch does, step by step (docs/03 derives it),
with a part of every layer for each thread. Results differ from that loop's by rounding, and not at all
between numbers of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.functional import kernels
from recsys_rl.functional.adam import BETAS, EPS
from recsys_rl.functional.dense import Fixed, Network


def ppo_epoch(
    network: Network,
    vectors: Fixed,
    steps: int,
    lr: float,
    max_grad_norm: float,
    inputs: Tensor,
    items: Tensor,
    old_logprob: Tensor,
    old_value: Tensor,
    target: Tensor,
    advantage: Tensor,
    batch_size: int,
    clip_eps: float,
    ent_coef: float,
    vf_coef: float,
    clip_vloss: bool,
) -> Tensor | None:
    """A gradient step for each ``batch_size`` samples; None where the compiled loops don't serve.

    ``vectors`` are Adam's: the weights (P,), of which the network's parameters are views, and its two
    moments; ``steps`` have been made before. Samples: ``inputs`` (S, F), and (S,) each the others. Returns
    (4, S): log-probability, entropy, objective and value of each, as they were before its step.
    Raises IndexError for an item that is none, before anything is moved, and ValueError for what doesn't fit.
    """
    samples, sizes, numbers = len(inputs), network.sizes, (old_logprob, old_value, target, advantage)
    library = kernels.serving(inputs) if network.plain and vectors.plain and samples else None
    if library is None or any(kernels.serving(x) is None for x in numbers):
        return None
    if items.dtype != torch.int64 or not items.is_cpu or not items.is_contiguous():
        return None
    if inputs.shape != (samples, sizes[0]) or any(x.numel() != samples for x in (items, *numbers)):
        raise ValueError("the samples don't fit each other, or the network")
    _check_views(network, vectors)
    seen = inputs.new_empty(4, samples)
    batch_size = min(batch_size, samples)
    of_network = network.arguments[:3]
    scratch = inputs.new_empty(library.ppo_epoch_scratch(*of_network, vectors.pointers, batch_size))
    outside = library.ppo_epoch(
        *network.arguments,
        vectors.pointers,
        steps,
        lr,
        max_grad_norm,
        *BETAS,
        EPS,
        inputs.data_ptr(),
        *(x.data_ptr() for x in (items, *numbers)),
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


def _check_views(network: Network, vectors: Fixed) -> None:
    """Raise ValueError unless every parameter lies within the weights, and the moments are as long."""
    begin, size = vectors.addresses[0], vectors.tensors[0].numel()
    within = all(
        begin <= address and address + 4 * x.numel() <= begin + 4 * size
        for address, x in zip(network.addresses, network.tensors, strict=True)
    )
    if not within or any(x.numel() != size for x in vectors.tensors):
        raise ValueError("the parameters are no views of the weights that Adam moves: make a new FlatAdam")

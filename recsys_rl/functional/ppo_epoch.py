"""An epoch of PPO on the classic network in one compiled call.

A minibatch of 64 rows streams 1.6 MB of weights, gradient and Adam's moments through caches of 1 MB a core,
and what Python does between two products has to be fetched again each time: a third of the time went there. And
where threads divide each product anew, weights wander between their cores: where those share no cache, two
threads were slower than one. ppo_epoch.c does what PPO._epoch does, step by step (docs/03 derives it), with a
part of every layer for each thread. Results differ from that loop's by rounding, and not at all between
numbers of threads.
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
    record: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    batch_size: int,
    clip_eps: float,
    ent_coef: float,
    vf_coef: float,
    clip_vloss: bool,
) -> Tensor | None:
    """A gradient step for each ``batch_size`` samples of ``record``; None where the loops don't serve.

    ``vectors`` are Adam's: the weights (P,), of which the network's parameters are views, and its two
    moments; ``steps`` have been made before. ``record`` holds the inputs (S, F), and of each sample (S,)
    item, old log-probability, old value, target and advantage. Returns (4, S): log-probability, entropy,
    objective and value of each sample, as they were before the step that it took part in.
    Raises IndexError for an item that is none, before anything is moved.
    """
    inputs, *others = record
    samples, sizes = len(inputs), network.sizes
    library = kernels.serving(inputs) if network.plain and vectors.plain and samples else None
    if library is None or not all(x.is_contiguous() for x in others) or others[0].dtype != torch.int64:
        return None
    if any(x.dtype != torch.float32 for x in others[1:]):
        return None
    if inputs.shape != (samples, sizes[0]) or any(x.numel() != samples for x in others):
        raise ValueError("the samples don't fit each other, or the network")
    if {x.numel() for x in vectors.tensors} != {sum(x.numel() for x in network.tensors)}:
        raise ValueError("the vectors of Adam don't fit the network")
    seen = inputs.new_empty(4, samples)
    batch_size = min(batch_size, samples)
    pointers, numbers, depth, _ = network.arguments
    scratch = inputs.new_empty(
        library.ppo_epoch_scratch(pointers, numbers, depth, vectors.pointers, batch_size)
    )
    outside = library.ppo_epoch(
        *network.arguments,
        vectors.pointers,
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

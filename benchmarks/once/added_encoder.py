"""Weights of a network without an encoder for one that has an encoder as well (`mood.py`).

The encoder reads the history beside the sums. Its outputs are further inputs of the hidden layers, and the
signals that it expects are further blocks of the head. With weights of 0 for these, the new network has the
policy and the values of the old one. (Networks that grow and keep their function: Chen, Goodfellow and Shlens
2016, "Net2Net".)
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.scorer import ScorerHead


def with_encoder(weights: Mapping[str, Tensor], model: ActorCritic) -> dict[str, Tensor]:
    """The ``weights`` of a model without an encoder, by name, widened to the shapes of ``model``.

    The weights of ``encoder`` and ``next_signals`` are those of ``model``. A weight that lacks the inputs,
    votes or gates from the encoder has zeros there. Others are returned as they are, whether they fit or not.
    """
    assert model.encoder is not None
    new_inputs = model.encoder.out_features
    expected = 0 if model.next_signals is None else model.shapes.num_signals
    blocks = model.head.num_blocks - expected if isinstance(model.head, ScorerHead) else 0
    gates = 2 * blocks + len(model.shapes.numbers) + model.num_columns
    widened = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(("encoder.", "next_signals."))
    }
    for name, tensor in weights.items():
        if name == "hidden.weights.0":  # (2, in, out): the encoder's inputs are the last
            widened[name] = with_zeros(tensor, 1, tensor.shape[1], new_inputs)
        elif name == "head.expected.hidden.weight":  # (in, out)
            widened[name] = with_zeros(tensor, 0, len(tensor), new_inputs)
        elif name in ("head.votes", "head.expected.towers.votes"):  # (blocks, F_i): expected signals are last
            widened[name] = with_zeros(tensor, 0, len(tensor), expected)
        elif name.startswith("head.gates.") and tensor.shape[-1] == gates:
            # The gates of embeddings come first, then those of tags.
            wide = with_zeros(tensor, tensor.ndim - 1, 2 * blocks, expected)
            widened[name] = with_zeros(wide, tensor.ndim - 1, blocks, expected)
        else:
            widened[name] = tensor
    return widened


def with_zeros(tensor: Tensor, axis: int, at: int, number: int) -> Tensor:
    """``x`` with ``number`` zeros on the axis, inserted before place ``at``."""
    shape = [*tensor.shape]
    shape[axis] += number
    wide = tensor.new_zeros(shape)
    wide.narrow(axis, 0, at).copy_(tensor.narrow(axis, 0, at))
    rest = tensor.shape[axis] - at
    wide.narrow(axis, at + number, rest).copy_(tensor.narrow(axis, at, rest))
    return wide

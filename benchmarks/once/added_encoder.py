"""Weights of a network without an encoder for one that has an encoder as well (`mood.py`).

The encoder reads the history beside the sums. Its outputs are further inputs of the hidden layers. With
weights of 0 for these, the new network has the policy and the values of the old one. (Networks that grow and
keep their function: Chen, Goodfellow and Shlens 2016, "Net2Net".)
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from recsys_rl.models.actor_critic import ActorCritic


def with_encoder(weights: Mapping[str, Tensor], model: ActorCritic) -> dict[str, Tensor]:
    """The ``weights`` of a model without an encoder, by name, widened to the shapes of ``model``.

    The weights of ``encoder`` are those of ``model``. A weight that lacks the encoder's inputs has zeros
    there. Others are returned as they are, whether they fit or not.
    """
    assert model.encoder is not None
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    widened = {**own, **weights}
    # The encoder's inputs are the last. The expected rewards have an own layer of the same inputs.
    for name, axis in (("hidden.weights.0", 1), ("head.expected.hidden.weight", 0)):
        if name in weights:
            tensor = weights[name]
            widened[name] = with_zeros(tensor, axis, tensor.shape[axis], model.encoder.out_features)
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

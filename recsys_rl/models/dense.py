"""The classic network, one logit per item and no session: it needs no autograd (functional/dense.py)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.dials import ModelConfig
from recsys_rl.functional import categorical, dense
from recsys_rl.models.actor import DenseHead
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.types import Obs

KINDS = ("weights", "biases")
HEADS = ("head.logits", "value_head")


class DenseActorCritic(ActorCritic):
    """An ActorCritic whose two passes are functions: one position, a dense head, and no session to read."""

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(shapes, config, generator)
        assert isinstance(self.head, DenseHead) and self.session is None and len(shapes.action_sizes) == 1
        assert config.hidden_dims
        self.activation = config.activation
        names = [f"hidden.{kind}.{place}" for place in range(len(config.hidden_dims)) for kind in KINDS]
        self.names = [*names, *(f"{head}.{kind}" for head in HEADS for kind in ("weight", "bias"))]
        self.network = self._network()
        # Of the gradients, and the mapping that they were found in.
        self.places: tuple[dense.Fixed, Mapping[str, Tensor]] = dense.Fixed(()), {}
        # The last forward pass, or none; a list, as nn.Module looks twice at whatever is set on it.
        self.passed: list[dense.Passed] = []

    def network_as_it_lies(self) -> dense.Network:
        """The parameters with their present addresses."""
        if self.network.moved():
            self.network = self._network()
        return self.network

    def forward(self, obs: Obs) -> tuple[Tensor, Tensor]:
        passed = dense.forward(self.network_as_it_lies(), obs.context)
        if not torch.is_inference_mode_enabled():  # as when acting
            self.passed[:] = [passed]
        return categorical.forbid_(passed.logits, obs.mask, obs.exclude), passed.value

    def backward(
        self,
        outputs: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        into: Mapping[str, Tensor],
    ) -> None:
        """As ActorCritic.backward, for the outputs of the last forward pass."""
        passed = self.passed.pop() if self.passed else None
        assert passed is not None and passed.value is outputs[1], "backward follows its own forward pass"
        if self.places[1] is not into:
            self.places = dense.places(self.network, [into[name] for name in self.names]), into
        dense.backward(self.network, passed, *gradients, self.places[0])

    def _network(self) -> dense.Network:
        parameters = dict(self.named_parameters())
        return dense.Network([parameters[name] for name in self.names], self.activation)

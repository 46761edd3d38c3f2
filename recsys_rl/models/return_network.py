"""The network of a decision transformer: a policy with the wanted return as an input."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.heads import Distribution
from recsys_rl.models.retrieval import Retriever
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs


class ReturnNetwork(ActorCritic):
    """obs -> (distribution of the action, given the return that is asked for; that return (N,)).

    Returns are shares of what is still possible, 0 .. 1. The asked share is the last number of the context of
    the actor. The critic learns which share to ask for; it sees 0 in that place.
    """

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(replace(shapes, context_dim=shapes.context_dim + 1), config, generator)

    def given(self, obs: Obs, share: Tensor) -> Distribution:
        """The distribution of the action if the share (N,) of what is possible is to follow."""
        distribution: Distribution = super().forward(_asking(obs, share))[0]
        return distribution

    def value(self, obs: Obs) -> Tensor:
        """The share (N,) to ask for."""
        return super().value(_asking(obs, torch.zeros_like(obs.context[:, 0])))

    def _reward_query_of(self, obs: Obs) -> Tensor:
        return super()._reward_query_of(_asking(obs, torch.zeros_like(obs.context[:, 0])))

    def _reward_query(self, inputs: Tensor, blocks: list[Tensor]) -> Tensor | None:
        """As the base's, without the asked share: expected is the reward whatever is asked for."""
        asked = torch.tensor([len(self.inputs) - 1], device=inputs.device)
        return super()._reward_query(inputs.index_fill(1, asked, 0.0), blocks)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        obs = self.summarised(obs)
        share = self.value(obs)
        return self.given(obs, share.clamp(0, 1)), share

    def _candidates(
        self, retriever: Retriever, obs: Obs, greedy: bool, generator: torch.Generator, extra: int
    ) -> Tensor:
        asking = _asking(obs, self.value(obs).clamp(0, 1))
        return super()._candidates(retriever, asking, greedy, generator, extra)


def _asking(obs: Obs, share: Tensor) -> Obs:
    return replace(obs, context=torch.cat([obs.context, share.unsqueeze(1)], 1))

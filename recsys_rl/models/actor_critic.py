"""The network of PPO and A2C: one reading of the session, then an actor and a critic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.config import ModelConfig
from recsys_rl.models.actor import DenseHead, TwoTowerHead
from recsys_rl.models.encoders import SessionGRU, SessionSum, linear, mlp
from recsys_rl.types import Obs


@dataclass(frozen=True)
class Shapes:
    """What a network must know of its environment."""

    context_dim: int  # F
    action_sizes: tuple[int, ...]  # alternatives of each position: (I,) for one item of a catalogue
    item_features: Tensor | None = None  # (I, F_i): models.actor.item_features; None without a catalogue
    history_length: int = 0  # L; 0 where observations carry no history
    num_signals: int = 0  # S


class ActorCritic(nn.Module):
    """obs -> (logits (N, K, A), value (N,)).

    Actor and critic each have hidden layers ``hidden_dims`` of their own over the same inputs: the
    context and, where there is one, the summary of the session's history. Positions with fewer than
    A alternatives are padded with -inf.
    """

    items: Tensor

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.shapes = shapes
        items = torch.zeros(0, 0) if shapes.item_features is None else shapes.item_features
        self.register_buffer("items", items, persistent=False)  # (I, F_i)
        num_inputs = shapes.context_dim
        self.session: SessionSum | SessionGRU | None = None
        if shapes.history_length:
            if config.encoder == "gru":
                self.session = SessionGRU(items.shape[1], shapes.num_signals, generator)
            else:
                self.session = SessionSum(shapes.history_length, items.shape[1])
            num_inputs += self.session.out_features
        sizes = (num_inputs, *config.hidden_dims)
        self.actor = mlp(sizes, config.activation, generator)
        self.critic = mlp(sizes, config.activation, generator)
        self.value_head = linear(sizes[-1], 1, 1.0, generator)
        self.head: DenseHead | TwoTowerHead
        if config.head == "dense":
            self.head = DenseHead(sizes[-1], shapes.action_sizes, generator)
        else:
            self.head = TwoTowerHead(sizes[-1], num_inputs, items.shape[1], generator)

    def forward(self, obs: Obs) -> tuple[Tensor, Tensor]:
        inputs = self._inputs(obs)  # (N, num_inputs)
        return self._logits(inputs, obs.mask), self._value(inputs)

    def value(self, obs: Obs) -> Tensor:
        """V(obs), (N,)."""
        return self._value(self._inputs(obs))

    def _inputs(self, obs: Obs) -> Tensor:
        if self.session is None:
            return obs.context
        return torch.cat([obs.context, self.session(obs, self.items)], -1)

    def _logits(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        logits: Tensor = self.head(self.actor(inputs), inputs, self.items)  # (N, K, A)
        return logits if mask is None else logits.masked_fill(~mask.unsqueeze(1), -torch.inf)

    def _value(self, inputs: Tensor) -> Tensor:
        return self.value_head(self.critic(inputs)).squeeze(-1)  # type: ignore[no-any-return]

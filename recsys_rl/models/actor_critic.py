"""The network of PPO and A2C: one reading of the session, then an actor and a critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys_rl.dials import ModelConfig
from recsys_rl.functional import categorical
from recsys_rl.models.actor import DenseHead, TwoTowerHead
from recsys_rl.models.encoders import Linear, SessionGRU, SessionSum, TwinMLP
from recsys_rl.models.features import SplitFeatures, feature_parts
from recsys_rl.models.retrieval import Retriever, mark_unusable
from recsys_rl.types import Obs


@dataclass(frozen=True)
class Shapes:
    """What a network must know of its environment."""

    context_dim: int  # F
    action_sizes: tuple[int, ...]  # alternatives of each position: (I,) for one item of a catalogue
    # (I, F_i): models.actor.item_features; split where a policy chooses from candidates
    item_features: Tensor | SplitFeatures | None = None
    history_length: int = 0  # L; 0 where observations carry no history
    num_signals: int = 0  # S
    available: Tensor | None = None  # (I,) bool: what a first stage may propose; None where there is none


class _Start(torch.autograd.Function):
    """A scalar whose gradient at the outputs is the one given.

    torch.autograd.grad takes such gradients itself, but imports a computer algebra system to compare their
    shapes: a second, and 36 MB.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, at_logits: Tensor, at_value: Tensor) -> Tensor:
        ctx.gradients = at_logits, at_value
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.gradients, None, None)


class ActorCritic(nn.Module):
    """obs -> (logits (N, K, A), value (N,)).

    Actor and critic each have hidden layers ``hidden_dims`` of their own over the same inputs: the
    context and, where there is one, the summary of the session's history. Positions with fewer than
    A alternatives are padded with -inf.

    Where ``obs.candidates`` (N, C) lists the alternatives, only they are scored, and the logits are
    (N, 1, C) with -inf at padding. ``propose`` adds such a list.
    """

    items: Tensor | SplitFeatures

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.shapes = shapes
        items = torch.zeros(0, 0) if shapes.item_features is None else shapes.item_features
        if isinstance(items, Tensor):
            self.register_buffer("items", items, persistent=False)  # (I, F_i)
        else:
            self.items = items
        num_item_features = items.shape[1]
        self.num_candidates = config.candidates
        self.num_drawn = round(config.explore_rate * config.candidates)
        self.retriever: Retriever | None = None
        if config.candidates:
            assert isinstance(items, SplitFeatures) and shapes.available is not None
            self.retriever = Retriever(items, shapes.available, config.index)
        num_inputs, num_blocks = shapes.context_dim, 2
        self.session: SessionSum | SessionGRU | None = None
        if shapes.history_length and config.encoder == "gru":
            self.session = SessionGRU(num_item_features, shapes.num_signals, generator)
            num_inputs += self.session.out_features
        elif shapes.history_length:
            self.session = SessionSum(shapes.history_length)
            num_inputs += self.session.num_blocks * num_item_features
            num_blocks += self.session.num_blocks
        sizes = (num_inputs, *config.hidden_dims)
        self.hidden = TwinMLP(sizes, config.activation, generator)  # the actor's and the critic's
        self.value_head = Linear(sizes[-1], 1, 1.0, generator)
        self.head: DenseHead | TwoTowerHead
        if config.head == "dense":
            self.head = DenseHead(sizes[-1], shapes.action_sizes, generator)
        else:
            self.head = TwoTowerHead(sizes[-1], num_blocks, num_item_features, generator)

    def forward(self, obs: Obs) -> tuple[Tensor, Tensor]:
        inputs, blocks = self._read(obs)
        actor, critic = self.hidden(inputs)  # (N, H) each
        if obs.candidates is None:
            logits = self.head(actor, blocks, self.items)  # (N, K, A)
            categorical.forbid_(logits, obs.mask, obs.exclude)
        else:
            logits = self._score(actor, blocks, obs.candidates.clamp_min(0))  # (N, 1, C)
            categorical.forbid_(logits, obs.candidates >= 0, None)
        return logits, self.value_head(critic).squeeze(-1)

    def _score(self, actor: Tensor, blocks: Tensor, candidates: Tensor) -> Tensor:
        if isinstance(self.head, DenseHead):
            logits: Tensor = self.head(actor, blocks, self.items)  # (N, 1, A)
            return logits.gather(-1, candidates.unsqueeze(1))
        return self.head.among(actor, blocks, feature_parts(self.items, candidates))

    def backward(
        self,
        outputs: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        into: Mapping[str, Tensor],
    ) -> None:
        """Write every parameter's gradient to its place in ``into``, from those at the outputs of forward."""
        names, parameters = zip(*self.named_parameters(), strict=True)
        start: Tensor = _Start.apply(*outputs, *gradients)  # type: ignore[no-untyped-call]
        for name, part in zip(names, torch.autograd.grad(start, parameters), strict=True):
            into[name].copy_(part)

    def propose(self, obs: Obs, greedy: bool, generator: torch.Generator) -> Obs:
        """``obs`` with the candidates (N, C) of the first stage; as it is without one, or with some given.

        The round(explore_rate C) last are drawn uniformly from the available items, with replacement
        (greedy: none); the first are those with the highest product of the actor's query and the item's
        features. What may not be shown, or stands there already, is -1.
        """
        if self.retriever is None or obs.candidates is not None:
            return obs
        with torch.no_grad():
            return obs.among(self._candidates(self.retriever, obs, greedy, generator))

    def _candidates(self, retriever: Retriever, obs: Obs, greedy: bool, generator: torch.Generator) -> Tensor:
        inputs, blocks = self._read(obs)
        assert isinstance(self.head, TwoTowerHead)
        query = self.head.user(self.hidden.one(0, inputs), blocks)[:, : self.items.shape[1]]  # (N, F_i)
        num_drawn = 0 if greedy else self.num_drawn
        top = retriever.search(query, self.num_candidates - num_drawn)  # (N, C - E)
        rows = retriever.rows
        places = torch.randint(
            len(rows), (obs.num_rows, num_drawn), generator=generator, device=rows.device
        )  # (N, E)
        candidates = torch.cat([top, rows[places]], 1)
        return mark_unusable(candidates, top.shape[1], obs.exclude, obs.mask)

    def value(self, obs: Obs) -> Tensor:
        """V(obs), (N,)."""
        value: Tensor = self.value_head(self.hidden.one(1, self._read(obs)[0]))  # (N, 1)
        return value.squeeze(-1)

    def _read(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """Inputs (N, num_inputs) of the hidden layers, and those in item space (N, num_blocks, F_i)."""
        parts, blocks = [obs.context], self._item_space(obs.context)
        if isinstance(self.session, SessionSum):
            sums = self.session(obs, self.items)  # (N, 2P, F_i)
            parts.append(sums.flatten(1))
            blocks = torch.cat([blocks, sums], 1)
        elif self.session is not None:
            parts.append(self.session(obs, self.items))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0], blocks

    def _item_space(self, context: Tensor) -> Tensor:
        """User and last item (N, 2, F_i): an item's features begin with its embedding; the rest is 0."""
        embeddings = context.unflatten(-1, (2, -1)) if self.items.shape[1] else context[:, None, :0]
        return nn.functional.pad(embeddings, (0, self.items.shape[1] - embeddings.shape[-1]))

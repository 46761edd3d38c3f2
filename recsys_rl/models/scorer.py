"""A head that scores items by a few visible features, with gates from the state.

With f_i the features of an item (embedding e_i, tags g_i such as genres, then numbers and attributes by name,
and the constant 1), x_b the inputs in the space of item features (profile, current or last item,
recency-weighted sums of the history, alone and with each signal, signals that an encoder expects), h the
hidden features of the user's side, and one gate for each product::

    score(s, i) = sum_b (gate_b(h) x_b[e] . e_i + gate'_b(h) x_b[g] . g_i) + sum_n gate_n(h) f_i[n]
    gate(h) = first + W h,   W = 0 at the start

``first`` is 1 for the user's embedding, and 0 for the rest. So an untrained policy ranks by profile, and its
mean gates show what the policy has learned. The sums of the history are the wear of categories among others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear
from recsys_rl.models.item_columns import NUMBERS
from recsys_rl.models.towers import LOGIT_SCALE, RATE


class ScorerHead(nn.Module):
    """logit_i = temperature * score(s, i), over the features of items as in ``TwoTowerHead``."""

    def __init__(
        self,
        num_hidden: int,
        num_blocks: int,
        num_item_features: int,
        num_dims: int,
        generator: torch.Generator,
        num_numbers: int = len(NUMBERS),
        num_gates: int = 0,
    ) -> None:
        """
        Args:
            num_dims: D, size of the embedding at the start of the item features.
            num_numbers: columns between the tags and the constant 1, which is the last and has no gate.
            num_gates: outputs of the layer ``last`` after all others, which ``user`` does not take.
        """
        super().__init__()
        self.sizes = (num_dims, num_item_features - num_dims - num_numbers - 1)  # of embedding and tags
        self.num_blocks, self.num_numbers = num_blocks, num_numbers
        self.gates = Linear(num_hidden, 2 * num_blocks + num_numbers + num_gates, 0.01, generator)
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias[0] = 1 / RATE
        self.log_temperature = nn.Parameter(torch.tensor(LOGIT_SCALE).log() / RATE)

    @property
    def last(self) -> Linear:
        """The layer after the hidden layers: its outputs are the first input of ``forward`` and ``among``."""
        return self.gates

    def forward(self, gates: Tensor, blocks: Sequence[Tensor], items: Tensor) -> Tensor:
        """gates and blocks as ``user`` takes them, items (I, F_i) -> logits (N, 1, I)."""
        logits: Tensor = (self.temperature * self.user(gates, blocks)) @ items.T  # (N, I)
        return logits.unsqueeze(1)

    def among(self, gates: Tensor, blocks: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
        """As ``forward``, but each row scores its own C items: logits (N, 1, C).

        ``parts`` (N, C, size) each are the features of the items, whose sizes add up to F_i.
        """
        query = (self.temperature * self.user(gates, blocks)).unsqueeze(1)  # (N, 1, F_i)
        of_parts = query.split([piece.shape[-1] for piece in parts], -1)
        products = [
            vector @ piece.mT for vector, piece in zip(of_parts, parts, strict=True)
        ]  # (N, 1, C) each
        return torch.stack(products).sum(0)

    def user(self, gates: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """The query (N, F_i), which is multiplied by the features of an item.

        ``gates`` (N, 2 num_blocks + num_numbers) are the outputs of ``last``.
        ``blocks`` (N, number, D or F_i) each hold the x_b, ``num_blocks`` together. Those of size D have no
        tags.
        """
        sizes = [self.num_blocks, self.num_blocks, self.num_numbers]
        of_embedding, of_tags, of_numbers = self.scaled(gates).split(sizes, -1)
        num_dims, num_tags = self.sizes
        # shape[0], as len() would be a constant in an export (recommender/export.py).
        embedding = gates.new_zeros(gates.shape[0], num_dims)
        tags, at = gates.new_zeros(gates.shape[0], num_tags), 0
        for block in blocks:
            of_block = slice(at, at + block.shape[1])
            embedding = embedding + _gated(of_embedding[:, of_block], block[..., :num_dims])
            if block.shape[2] > num_dims:
                of_items = block[..., num_dims : num_dims + num_tags]
                tags = tags + _gated(of_tags[:, of_block], of_items)
            at += block.shape[1]
        return torch.cat([embedding, tags, nn.functional.pad(of_numbers, (0, 1))], -1)

    @staticmethod
    def scaled(gates: Tensor) -> Tensor:
        """The gates (N, 2 num_blocks + num_numbers): of embeddings, of tags, of the numbers."""
        return RATE * gates

    @property
    def temperature(self) -> Tensor:
        return (RATE * self.log_temperature).exp()


def gate_names(
    pieces: Sequence[str],
    signals: Sequence[str],
    decays: Sequence[float],
    expected: bool,
    numbers: Sequence[str] = NUMBERS,
) -> list[str]:
    """Names of the gates, in their order, such as "liked, decay 0.75".

    ``pieces`` are the inputs before the sums over the session. These are named by the ``decays`` that they
    start with, alone ("shown") and with each of the ``signals``; a session without a history has none.
    ``expected``: the signals that an encoder expects follow, such as "liked, expected".
    ``numbers``: names of the columns of numbers.
    """
    words = [{0.0: "the last", 1.0: "all"}.get(decay, f"decay {decay:g}") for decay in decays]
    sums = [f"{of}, {word}" for of in ("shown", *signals) for word in words]
    blocks = [*pieces, *sums, *(f"{of}, expected" for of in signals if expected)]
    return [*blocks, *(f"{name} (tags)" for name in blocks), *numbers]


def _gated(gates: Tensor, blocks: Tensor) -> Tensor:
    """sum_b gates (N, number) times ``blocks`` (N, number, size): (N, size)."""
    total: Tensor = (gates.unsqueeze(1) @ blocks).squeeze(1)
    return total

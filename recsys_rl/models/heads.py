"""Heads: from features to one logit per item, and from logits to the distribution of the action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.functional import categorical
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.gated import Gated
from recsys_rl.functional.patterns import Layout, Patterns
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.encoders import Linear
from recsys_rl.models.fast.item_scores import item_scores
from recsys_rl.types import Catalogue, UserError

TOWER_SIZE = 32  # learned features of an item beside the given ones
LOGIT_SCALE = 5.0  # first temperature: item embeddings have unit norm, so their products are small
RATE = 5.0  # votes and log-temperature are few weights with far to go: scaled, they move this much faster

MOST_TOGETHER = 20.0  # logits that an item can gain below one of its category: see Patterns


Distribution = Categorical | PlackettLuce | Patterns
"""The distribution of an action, (N, K)."""


def distribution(logits: Tensor, slate_size: int) -> Categorical | PlackettLuce:
    """The distribution with the logits ``logits`` (N, K, A), which are -inf at forbidden alternatives.

    A slate of several items of one catalogue has one vector of logits for all places, (N, 1, A), and holds no
    item twice. Otherwise the K positions are independent.
    """
    return PlackettLuce(logits.squeeze(1), slate_size) if slate_size > 1 else Categorical(logits)


def cooled(of: Distribution, temperature: float) -> Distribution:
    """The distribution of slates with logits / ``temperature``; any other as it is."""
    return PlackettLuce(of.logits / temperature, of.slate_size) if isinstance(of, PlackettLuce) else of


def exploring(of: Distribution, share: float) -> Distribution:
    """The distribution in which a ``share`` of the draws shows all items nearly alike (categorical.py).

    Each later place of a slate is drawn by the same probabilities, without the items above. Slates with kinds
    of places stay as they are.
    """
    if isinstance(of, Patterns):
        return of
    logits = categorical.exploring(of.logits, share)
    return PlackettLuce(logits, of.slate_size) if isinstance(of, PlackettLuce) else Categorical(logits)


class TwoTowerHead(nn.Module):
    """logit_i = temperature * query . item tower(f_i): scores the features of an item, not its id.

    So new items, masks and large catalogues need no new weights. With f_i the features of an item, h the
    hidden features of the user's side, and x_b the inputs in the space of item features (user, last item,
    sums over the session, signals that an encoder expects)::

        item tower(f) = [f, relu(U f)]        query = [sum_b weight_b * x_b, 0] + W h

    In the sum each x_b votes for items similar to it, or against them if its weight is negative. These few
    weights are learned from few samples. The term W h represents everything else.
    """

    def __init__(
        self,
        num_hidden: int,
        num_blocks: int,
        num_item_features: int,
        generator: torch.Generator,
        num_gates: int = 0,
    ) -> None:
        """``num_gates``: outputs of the layer ``last`` after those of W h, which ``user`` does not take."""
        super().__init__()
        # Small gains make the first policy nearly uniform, as is usual for PPO.
        self.tower = Linear(num_item_features, TOWER_SIZE, 2**0.5, generator)
        self.query = Linear(num_hidden, num_item_features + TOWER_SIZE + num_gates, 0.01, generator)
        self.votes = nn.Parameter(0.01 * torch.randn(num_blocks, num_item_features, generator=generator))
        self.log_temperature = nn.Parameter(torch.tensor(LOGIT_SCALE).log() / RATE)

    @property
    def last(self) -> Linear:
        """The layer after the hidden layers: its outputs are the first input of ``forward`` and ``among``."""
        return self.query

    def forward(self, query: Tensor, blocks: Sequence[Tensor], items: Tensor) -> Tensor:
        """query (N, F_i + tower) = W h, blocks as ``user`` takes them, items (I, F_i) -> logits (N, 1, I)."""
        # The tower is made transposed: its gradient is then made in the order in which torch is fastest.
        tower = torch.addmm(self.tower.bias.unsqueeze(1), self.tower.weight.T, items.T).relu_()  # (tower, I)
        return item_scores(self.user(query, blocks), self.temperature, items, tower).unsqueeze(1)

    def among(self, query: Tensor, blocks: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
        """As ``forward``, but each row scores its own C items: logits (N, 1, C).

        ``parts`` (N, C, size) each are the features of the items, whose sizes add up to F_i. Joining them
        would cost as much time as the scores.
        """
        sizes = [piece.shape[-1] for piece in parts]
        query = (self.temperature * self.user(query, blocks)).unsqueeze(1)  # (N, 1, F_i + tower)
        *fixed, learned = query.split([*sizes, TOWER_SIZE], -1)  # (N, 1, size) each
        tower: Tensor = self.tower.bias
        for piece, weight in zip(parts, self.tower.weight.split(sizes), strict=True):
            tower = torch.addmm(tower, piece.flatten(0, 1), weight)  # (N C, tower)
        logits: Tensor = learned @ tower.relu().unflatten(0, parts[0].shape[:2]).mT  # (N, 1, C)
        for piece, of_query in zip(parts, fixed, strict=True):
            logits = logits + of_query @ piece.mT
        return logits

    def user(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """``query`` = W h with the votes added, (N, F_i + tower). The first F_i are for the given features.

        ``blocks`` (N, number, size) each hold the x_b, ``num_blocks`` together. Features beyond ``size``
        count as 0.
        """
        of_blocks = (RATE * self.votes).split([block.shape[1] for block in blocks])  # (number, F_i) each
        for block, votes in zip(blocks, of_blocks, strict=True):
            vote = (votes[:, : block.shape[2]] * block).sum(1)  # (N, size)
            query = query + nn.functional.pad(vote, (0, query.shape[1] - block.shape[2]))
        return query

    @property
    def temperature(self) -> Tensor:
        return (RATE * self.log_temperature).exp()


class GatedHead(TwoTowerHead):
    """First the kind of the item, by logits made of the hidden features h, then the item as in the base.

    The logits of the kinds start at the logarithm of the share of each kind in the catalogue, so the first
    policy is nearly uniform over all items, as that of the other heads. They are RATE times the outputs.
    """

    kinds: Tensor

    def __init__(
        self,
        num_hidden: int,
        num_blocks: int,
        num_item_features: int,
        kinds: Tensor,
        generator: torch.Generator,
        num_gates: int = 0,
    ) -> None:
        """``kinds`` (I,) int64 as ``item_kinds`` gives them; ``num_gates``: outputs of ``last`` after all."""
        counts = kinds.bincount()
        super().__init__(num_hidden, num_blocks, num_item_features, generator, len(counts) + num_gates)
        self.num_kinds = len(counts)
        self.register_buffer("kinds", kinds, persistent=False)
        first = num_item_features + TOWER_SIZE
        with torch.no_grad():  # a kind without items counts as one with half an item: log 0 is not finite
            shares = counts.clamp_min(0.5) / len(kinds)
            self.query.bias[first : first + self.num_kinds] = shares.log() / RATE

    def user(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """As in ``TwoTowerHead``; ``query`` has the logits of the kinds behind W h."""
        return super().user(query[:, : -self.num_kinds], blocks)

    def distribution(self, query: Tensor, logits: Tensor, candidates: Tensor | None) -> Gated:
        """The distribution of the item.

        Args:
            query: (N, F_i + tower + G), the outputs of ``last``.
            logits: (N, 1, A), of the catalogue or of the ``candidates`` (N, A), -inf at forbidden items.
        """
        kinds = self.kinds if candidates is None else self.kinds[candidates.clamp_min(0)]
        return Gated(RATE * query[:, -self.num_kinds :], logits, kinds)


class PatternHead(TwoTowerHead):
    """First the pattern of the kinds of a slate, by logits made of the hidden features, then its items.

    The items have logits as in the base; an item gains ``together`` below one of the same category. The
    logits of the patterns are RATE times the outputs; at first all patterns are alike.
    """

    kinds: Tensor
    classes: Tensor

    def __init__(
        self,
        num_hidden: int,
        num_blocks: int,
        num_item_features: int,
        layout: Layout,
        generator: torch.Generator,
        num_gates: int = 0,
    ) -> None:
        """``layout`` as ``slate_layout`` gives it; ``num_gates``: outputs of ``last`` after all."""
        num_patterns = len(layout.patterns)
        super().__init__(num_hidden, num_blocks, num_item_features, generator, num_patterns + num_gates)
        self.num_patterns, self.layout = num_patterns, layout
        self.together = nn.Parameter(torch.zeros(()))
        self.register_buffer("kinds", layout.kinds, persistent=False)
        self.register_buffer("classes", layout.classes, persistent=False)

    def user(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """As in ``TwoTowerHead``; ``query`` has the logits of the patterns behind W h."""
        return super().user(query[:, : -self.num_patterns], blocks)

    def distribution(self, query: Tensor, logits: Tensor, candidates: Tensor | None) -> Patterns:
        """The slate's; ``query`` (N, F_i + tower + G), the outputs of ``last``; ``logits`` (N, 1, I).

        Raises ValueError for ``candidates``: the layout is that of the whole catalogue.
        """
        if candidates is not None:
            raise ValueError("slates with kinds of places take a mask in place of candidates")
        if self.layout.kinds.device != logits.device:  # the network was moved
            self.layout = Layout(self.layout.patterns, self.kinds, self.classes)
        gates = RATE * query[:, -self.num_patterns :]
        together = MOST_TOGETHER * (RATE / MOST_TOGETHER * self.together).tanh()
        return Patterns(gates, logits.squeeze(1), together, self.layout)


def slate_layout(
    catalogue: Catalogue, patterns: tuple[tuple[int, ...], ...], trained_on: Catalogue | None = None
) -> Layout:
    """The layout of slates for ``PatternHead``, on the CPU; arguments and errors as of ``item_kinds``.

    The classes that draw items together are those of the attribute ``category``, if the items have it.
    """
    kinds = item_kinds(catalogue, trained_on)
    classes = catalogue.attributes.get("category", torch.full_like(kinds, -1))
    return Layout(patterns, kinds, classes.long().cpu())


def item_kinds(catalogue: Catalogue, trained_on: Catalogue | None = None) -> Tensor:
    """The kind of each item, (I,) int64 from 0 on the CPU, for ``GatedHead``.

    Raises UserError if the items have no kinds, or one kind alone; and for a kind that the catalogue
    ``trained_on`` lacks, None for this one.
    """
    kinds = catalogue.attributes.get("kind")
    if kinds is None:
        raise UserError(
            "The gated head first chooses the kind of an item, and the items of this catalogue have no "
            "attribute 'kind': choose another --head, or give --items FILE with a column 'kind'."
        )
    if kinds.ndim != 1 or kinds.is_floating_point() or bool((kinds < 0).any()):
        raise UserError(
            "The attribute 'kind' of the items must hold whole numbers from 0, or texts in a file, to be a "
            "choice of the gated head: choose another --head."
        )
    if bool((kinds == kinds[0]).all()):
        raise UserError(
            "The gated head first chooses the kind of an item, and all items of this catalogue are of one "
            "kind: choose another --head."
        )
    if trained_on is not None and bool(kinds.max() > trained_on.attributes["kind"].max()):
        raise UserError(
            "The gated head has one logit for each kind of item of its training, and a new item is of "
            "another kind, or of an unknown one: name a known kind in the column 'kind' of its file."
        )
    return kinds.long().cpu()


class DenseHead(nn.Module):
    """One logit for each alternative, by id."""

    temperature = 1.0

    def __init__(
        self, num_hidden: int, action_sizes: tuple[int, ...], generator: torch.Generator, num_gates: int = 0
    ) -> None:
        """``num_gates``: outputs of the layer ``last`` after the logits."""
        super().__init__()
        self.action_sizes = action_sizes
        self.logits = Linear(num_hidden, sum(action_sizes) + num_gates, 0.01, generator)

    @property
    def last(self) -> Linear:
        """The layer after the hidden layers: its outputs are the input of ``forward``."""
        return self.logits

    def forward(self, flat: Tensor) -> Tensor:
        """flat (N, sum of A) -> logits (N, K, A)."""
        if len(self.action_sizes) == 1:
            return flat.unsqueeze(1)
        widest = max(self.action_sizes)
        parts = [
            nn.functional.pad(block, (0, widest - block.shape[-1]), value=-torch.inf)
            for block in flat.split(self.action_sizes, -1)
        ]
        return torch.stack(parts, 1)  # (N, K, A)

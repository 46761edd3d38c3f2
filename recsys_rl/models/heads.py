"""Heads: from features to one logit per item, and from logits to the distribution of the action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.functional import categorical
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.gated import Gated
from recsys_rl.functional.patterns import Layout, Patterns
from recsys_rl.functional.plackett_luce import PlackettLuce, by_rank
from recsys_rl.models.curves import Curves
from recsys_rl.models.encoders import Linear
from recsys_rl.models.expected import ExpectedReward
from recsys_rl.models.shapes import HeadSizes
from recsys_rl.models.towers import RATE, TOWER_SIZE, TwoTowers
from recsys_rl.types import Catalogue, UserError

MOST_TOGETHER = 20.0  # logits that an item can gain below one of its category: see Patterns


Distribution = Categorical | PlackettLuce | Patterns
"""The distribution of an action, (N, K)."""


def distribution(logits: Tensor, slate_size: int) -> Categorical | PlackettLuce:
    """The distribution with the logits ``logits`` (N, K, A), which are -inf at forbidden alternatives.

    A slate of several items of one catalogue has one vector of logits for all places, (N, 1, A), and holds no
    item twice. Otherwise the K positions are independent.
    """
    return PlackettLuce(logits.squeeze(1), slate_size) if slate_size > 1 else Categorical(logits)


def ranked(of: Distribution, ratio: float) -> Distribution:
    """The distribution of slates by the order of the logits alone (plackett_luce.by_rank); others stay."""
    return PlackettLuce(by_rank(of.logits, ratio), of.slate_size) if isinstance(of, PlackettLuce) else of


def exploring(of: Distribution, share: float) -> Distribution:
    """The distribution in which a ``share`` of the draws shows all items nearly alike (categorical.py).

    Each later place of a slate is drawn by the same probabilities, without the items above. Slates with kinds
    of places stay as they are.
    """
    if isinstance(of, Patterns):
        return of
    logits = categorical.exploring(of.logits, share)
    return PlackettLuce(logits, of.slate_size) if isinstance(of, PlackettLuce) else Categorical(logits)


class TwoTowerHead(TwoTowers):
    """Two towers, then curves over an item's expected reward and affinity (curves.py, expected.py)."""

    def __init__(self, sizes: HeadSizes, generator: torch.Generator, num_own: int = 0) -> None:
        """``num_own``: outputs of the layer ``last`` after those of W h, for a derived head."""
        num_gates = num_own + sizes.num_columns
        super().__init__(sizes.num_hidden, sizes.num_blocks, sizes.num_item_features, generator, num_gates)
        self.curves = Curves(sizes.num_item_features, generator)
        self.query.widen(self.curves.first_gates(sizes.num_hidden, generator))
        self.expected = ExpectedReward(sizes.num_inputs, sizes.num_blocks, sizes.num_item_features, generator)

    def logits(
        self,
        outputs: tuple[Tensor, Tensor],
        blocks: Sequence[Tensor],
        items: Tensor | tuple[Tensor, ...],
        asking: Tensor,
        profile: Tensor | None,
    ) -> Tensor:
        """The logits (N, 1, A) of all items, or of each row's candidates.

        Args:
            outputs: of the layer ``last``: what ``user`` takes, and the gates of the curves.
            blocks: as ``user`` takes them.
            items: the features (I, F_i), or parts of them (N, C, size) as ``among`` takes them.
            asking: ``expected.query``.
            profile: (N, D); the expected reward takes the place of the affinity where there is none.
        """
        user = self.user(outputs[0], blocks)
        if isinstance(items, Tensor):
            scores, features = self.of_all(user, items), items
        else:
            scores, features = self.of_each(user, items), torch.cat(items, -1)
        with torch.no_grad():
            expected = self.expected.logits(asking, items)
            affinity = expected if profile is None else self._affinities(profile, items, features)
        logits: Tensor = self.curves(scores, outputs[1], features, affinity, expected)
        return logits.unsqueeze(1)

    def _affinities(self, profile: Tensor, items: Tensor | tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Products (N, A) of profiles (N, D) and the embeddings at the start of the features."""
        if isinstance(items, Tensor):  # the same table as of the expected rewards: its rows lie in the cache
            return torch.mm(profile, self.expected.towers.table(items)[: profile.shape[1]])
        return torch.bmm(features[..., : profile.shape[1]], profile.unsqueeze(2)).squeeze(2)

    def expected_rewards(self, asking: Tensor, items: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The expected rewards (N, A); the arguments are those of ``logits``."""
        return self.expected.in_units_of_reward(self.expected.answers(self.expected.logits(asking, items)))


class GatedHead(TwoTowerHead):
    """First the kind of the item, by logits made of the hidden features h, then the item as in the base.

    The logits of the kinds start at the logarithm of the share of each kind in the catalogue, so the first
    policy is nearly uniform over all items, as that of the other heads. They are RATE times the outputs.
    """

    kinds: Tensor

    def __init__(self, sizes: HeadSizes, kinds: Tensor, generator: torch.Generator) -> None:
        """``kinds`` (I,) int64 as ``item_kinds`` gives them."""
        counts = kinds.bincount()
        super().__init__(sizes, generator, len(counts))
        self.num_kinds = len(counts)
        self.register_buffer("kinds", kinds, persistent=False)
        first = sizes.num_item_features + TOWER_SIZE
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

    def __init__(self, sizes: HeadSizes, layout: Layout, generator: torch.Generator) -> None:
        """``layout`` as ``slate_layout`` gives it."""
        num_patterns = len(layout.patterns)
        super().__init__(sizes, generator, num_patterns)
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

"""The nested linear forms of `searched`, over everything that the policy sees.

Each form holds the one before, which it equals where its new weights are 0:

- ``rule``: the score of `rule` (evaluation/rivals/rankers.py);
- ``sets``: one set of weights for each value of the platform's ``Split``, such as a surface or the time
  before and after a searched share of the session. From the second set on, the profile has a weight too;
- ``hinges``: in each set a term max(0, a_i - b_i) for each ordered pair of the items' numbers a and b, the
  standardised log popularity and quality;
- ``product``: a product of the leading factors of item and user, sum_jk w_jk z_ij q_k. z (I, FACTORS) are the
  items' coordinates on the principal axes of all embeddings, standardised; q the profile's on the same axes,
  with variance 1 among the training users.

The numbers of a form, in their order (``Form.names``): decay as a logit and fold-in, which all sets share;
the share of the session at which the second set begins, if it is searched; then each set's weights; then the
product's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.attributes import principal_axes, zscore
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.tuning import fold_in_note
from recsys_rl.records import Split
from recsys_rl.types import Catalogue, Interface, Obs
from recsys_rl.user_columns import UserColumns

FACTORS = 2
SHARED = ("decay", "fold_in")
OF_A_SET = ("popularity", "quality", "similarity", "overlap", "leaving")
NUMBERS = ("popularity", "quality")
HINGES = tuple(permutations(NUMBERS, 2))
BEGINS = "second set begins at"
PROFILE = "profile"
FIRST_BEGIN = 0.7
SPREAD = {"decay": 1.0, "fold_in": 0.2, BEGINS: 0.2, PROFILE: 0.5, "overlap": 0.1, "product": 0.3}
"""First deviations of the search; OTHER for other numbers."""
OTHER = 0.2


@dataclass(frozen=True)
class Form:
    """The groups of numbers of a score."""

    split: Split | None = None  # None: one set of weights
    hinges: bool = False
    product: bool = False
    features: tuple[str, ...] = ()  # columns of the items by name (rankers.scored_names)

    @property
    def num_sets(self) -> int:
        return 1 if self.split is None else self.split.num_sets

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers in their order, such as ``popularity.1`` of the second set."""
        of_a_set = (*OF_A_SET, *self.features, *(f"{a} - {b}" for a, b in HINGES if self.hinges))
        sets = [f"{name}.{index}" for index in range(self.num_sets) for name in of_a_set]
        sets += [f"{PROFILE}.{index}" for index in range(1, self.num_sets)]
        begins = [BEGINS] if self.split is not None and self.split.searched else []
        product = [f"product {j}{k}" for j in range(FACTORS) for k in range(FACTORS) if self.product]
        return (*SHARED, *begins, *sets, *product)

    @property
    def spread(self) -> Tensor:
        """First deviations of the numbers."""
        kinds = [name.split(".")[0].split(" ")[0] if " - " not in name else name for name in self.names]
        return torch.tensor([SPREAD.get(kind, OTHER) for kind in kinds])

    def grown_from(self, smaller: Form, numbers: Tensor) -> Tensor:
        """The numbers (..., F) with which this form equals ``smaller`` with ``numbers`` (..., f)."""
        values = dict(zip(smaller.names, numbers.unbind(-1), strict=True))
        zero = torch.zeros_like(numbers[..., 0])

        def value(name: str) -> Tensor:
            if name == BEGINS:
                return values.get(name, zero + FIRST_BEGIN)
            stem, dot, number = name.partition(".")
            if stem == PROFILE:
                return values.get(name, zero + 1)
            if dot and int(number) >= smaller.num_sets:
                name = f"{stem}.0"
            return values.get(name, zero)

        return torch.stack([value(name) for name in self.names], -1)


def of_rule(weights: RuleWeights) -> Tensor:
    """The numbers (..., 7 + X) of the smallest form with the weights of `rule`, (...) each."""
    decay = weights.decay.clamp(1e-6, 1 - 1e-6).logit()
    values = {**vars(weights), **weights.features, "decay": decay}
    return torch.stack([values[name] for name in (*SHARED, *OF_A_SET, *weights.features)], -1)


class Searched(Rule):
    """Shows the K items with the highest scores of one of the nested forms."""

    def __init__(
        self,
        catalogue: Catalogue,
        interface: Interface,
        form: Form,
        numbers: Tensor,
        factors: Factors,
        leave_rates: Tensor | None = None,
    ) -> None:
        """``numbers`` (F,) or (N, F), as in ``form.names``."""
        self.form, self.interface, self.factors = form, interface, factors
        self.numbers = dict(zip(form.names, numbers.unbind(-1), strict=True))
        decay, fold_in = self.numbers["decay"].sigmoid(), self.numbers["fold_in"].clamp_min(0)
        shared = replace(RuleWeights.zeros(), decay=decay, fold_in=fold_in)
        columns, slate = UserColumns.of(interface, catalogue), BestSlate.of(interface, catalogue)
        super().__init__(catalogue, shared, slate, leave_rates, rerank=True, user_columns=columns)

    @cached_property
    def columns(self) -> Tensor:
        """(I, G + X + 3 + F): those of `rule`, then the hinges and the factors, if the form has them."""
        parts = [self.own_columns]
        if self.form.hinges:
            parts.append(hinges(self.own_columns[:, -3:-1]))
        if self.form.product:
            parts.append(self.factors.of_items)
        return torch.cat(parts, 1)

    def linear(self, obs: Obs, weights: RuleWeights) -> tuple[Tensor, Tensor]:
        index = self.sets(obs)  # (N,)
        now: dict[str, Any] = {name: self._at(name, index) for name in OF_A_SET}
        now["features"] = {name: self._at(name, index) for name in self.form.features}
        query, of_columns = super().linear(obs, replace(weights, **now))
        if self.form.num_sets > 1:
            more = self._at(PROFILE, index) - 1  # (N,): `rule` has 1
            query = query + more.unsqueeze(1) * obs.context[:, : query.shape[1]]
        parts = [of_columns]
        if self.form.hinges:
            weights_of = [self._at(f"{a} - {b}", index) for a, b in HINGES]
            parts.append(torch.stack(weights_of, -1))  # (N, P)
        if self.form.product:
            profile = self.factors.of_users(obs.context[:, : self.catalogue.embedding.shape[1]])  # (N, k)
            for j in range(FACTORS):
                by = [self.numbers[f"product {j}{k}"] * profile[:, k] for k in range(FACTORS)]
                parts.append(sum(by[1:], by[0]).unsqueeze(1))
        return query, torch.cat(parts, 1)

    def of_user_columns(self, obs: Obs) -> Tensor:
        names = () if self.user_columns is None else self.user_columns.names
        index = self.sets(obs)  # (N,)
        weights = [self._at(name, index) for name in names]  # (N,) each
        return torch.stack(weights, 1) if weights else super().of_user_columns(obs)

    def sets(self, obs: Obs) -> Tensor:
        """(N,) int64: the set of weights for each user."""
        if self.form.split is None:
            return torch.zeros(obs.num_rows, dtype=torch.int64, device=obs.context.device)
        value = self.form.split.value(obs, self.interface)  # (N,)
        return (value >= self.numbers[BEGINS]).long() if self.form.split.searched else value.long()

    def _at(self, name: str, index: Tensor) -> Tensor:
        """The number ``name`` of each user's set, 1 if the set has none: (N,)."""
        one = torch.ones_like(self.numbers["decay"])
        each = [self.numbers.get(f"{name}.{k}", one) for k in range(self.form.num_sets)]
        of_rows = each[0].expand(len(index))
        for k, values in enumerate(each[1:], 1):
            of_rows = torch.where(index == k, values, of_rows)
        return of_rows


@dataclass(frozen=True)
class Factors:
    """The leading factors of items and users."""

    of_items: Tensor  # (I, FACTORS), z-scores
    axes: Tensor  # (D, FACTORS)
    scale: Tensor  # (FACTORS,): one over the deviation of the users' coordinates

    @classmethod
    def of(cls, catalogue: Catalogue, profiles: Tensor) -> Factors:
        """The principal axes of the item embeddings; ``profiles`` (U, D) of the training users."""
        axes = principal_axes(catalogue.embedding, FACTORS)  # (D, FACTORS)
        of_items = torch.stack(
            [zscore(coordinate) for coordinate in (catalogue.embedding @ axes).unbind(1)], 1
        )
        spread = (profiles @ axes).square().mean(0).sqrt()
        return cls(of_items, axes, 1 / spread.clamp_min(1e-6))

    def of_users(self, profile: Tensor) -> Tensor:
        """(N, FACTORS), from profiles (N, D)."""
        return (profile @ self.axes) * self.scale


def hinges(numbers: Tensor) -> Tensor:
    """(I, P): max(0, a_i - b_i) of the ordered pairs (a, b) of HINGES, from NUMBERS (I, 2)."""
    columns: Sequence[Tensor] = numbers.unbind(1)
    values = dict(zip(NUMBERS, columns, strict=True))
    return torch.stack([(values[a] - values[b]).clamp_min(0) for a, b in HINGES], 1)


def form_note(form: Form, numbers: Tensor, steps: int) -> str:
    """The numbers as text, those of all sets beside each other, with the number of steps of the search."""
    number_of = dict(zip(form.names, numbers.tolist(), strict=True))
    values: dict[str, list[str]] = {PROFILE: ["1.00"]} if form.num_sets > 1 else {}  # of the first set
    for name in form.names[len(SHARED) :]:
        values.setdefault(name.partition(".")[0], []).append(
            f"{number_of[name] + 0.0:.2f}"
        )  # + 0.0: no -0.00
    decay = torch.tensor(number_of["decay"]).sigmoid()
    texts = [f"decay {decay:.2f}", fold_in_note(max(0.0, number_of["fold_in"]))]
    texts += [f"{name} {' / '.join(numbers)}" for name, numbers in values.items()]
    return f"{', '.join(texts)}; searched with {steps:,} steps of training users"

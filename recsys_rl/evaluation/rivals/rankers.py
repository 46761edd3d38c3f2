"""Rankings that a team would ship without reinforcement learning: `mf`, `mmr` and `rule`.

Each scores the features of an item against the profile of the user, and shows the K best allowed items.
For a large catalogue no tensor of size (N, I) is made, except where the places of a slate have kinds: then
the whole catalogue is scored, and each place takes the best item of its kind. The hyperparameters come from
evaluation/rivals/tuning.py and evaluation/rivals/rule_search.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import SINGLE, BestSlate
from recsys_rl.functional import categorical, rows
from recsys_rl.functional.recency import products, recency, weighted_rows
from recsys_rl.functional.top_k import blocked_top_k, highest
from recsys_rl.models.item_columns import feature_columns, feature_names, item_columns
from recsys_rl.types import Action, Catalogue, Interface, Obs
from recsys_rl.user_columns import UserColumns

SHORTLIST = 1000
"""Best items by `mf` that `mmr` and `rule` rank again. A smaller catalogue is ranked as a whole."""
SCANNED_ROWS = 64
"""Users whose best items are searched at a time: with more, the blocks of items are too small to be fast."""


@dataclass(frozen=True)
class RuleWeights:
    """The weights of `rule`, () or (N,) each: a linear score of the visible features of user and item.

    u is the profile after the fold-in, e_i the embedding (unit norm), g_i the tags (unit norm), and
    leave_rate_i the share of sessions that ended after the item. The sums are over the items shown, and k
    counts the steps since::

        score_i = u . e_i + popularity z(log popularity_i) + quality z(quality_i) - leaving z(leave_rate_i)
                  - similarity sum_k decay^k e_k . e_i - overlap sum_k decay^k g_k . g_i
                  + sum_j features_j f_ij

    f_i are the columns of ``feature_columns``, and those of the items for this user (user_columns.py). Those
    of classes, such as the kind, are also a part of g_i.
    """

    popularity: Tensor
    quality: Tensor
    similarity: Tensor
    overlap: Tensor
    decay: Tensor
    """Share that an item keeps at each step, in [0, 1): with 0 only the last item counts."""
    fold_in: Tensor
    """Weight of the feedback of this session in the profile (see ``fold_in``)."""
    leaving: Tensor
    """Weight of the leave rate of the item."""
    features: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    """Weights of the columns of ``scored_names``, () or (N,) each; a column without an entry has 0."""

    @classmethod
    def zeros(cls) -> RuleWeights:
        """All weights 0: a ranking by the profile alone."""
        return cls(*(torch.tensor(0.0) for _ in fields(cls)[:-1]))


def scored_names(catalogue: Catalogue, interface: Interface) -> tuple[str, ...]:
    """The names of the columns f_i of ``RuleWeights``: those of the items, then those for each user."""
    return (*feature_names(catalogue), *UserColumns.of(interface, catalogue).names)


class Rule:
    """Shows the K items with the highest linear scores (``RuleWeights``). With all weights 0 it is `mf`.

    With ``rerank``, only a user's ``Shortlist`` is scored in a catalogue of more than SHORTLIST items.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        weights: RuleWeights,
        slate: BestSlate = SINGLE,
        leave_rates: Tensor | None = None,
        rerank: bool = False,
        user_columns: UserColumns | None = None,
    ) -> None:
        """
        Args:
            leave_rates: (I,) leave rates of the items as z-scores; None counts as 0.
            user_columns: those of the items for each user; None counts as 0.
        """
        self.catalogue = catalogue
        self.weights = weights
        self.slate = slate
        self.leave_rates = leave_rates
        # A list by the profile may lack a kind of item.
        self.rerank = rerank and catalogue.num_items > SHORTLIST and not slate.patterns
        self.user_columns = user_columns if user_columns is not None and user_columns.names else None

    def reader(self) -> Shortlist | None:
        """The lists of N users for their sessions; None if the whole catalogue is scored."""
        return Shortlist(self.catalogue, self.slate.size) if self.rerank else None

    @property
    def columns(self) -> Tensor:
        """(I, F): the numbers of the items, beside the embedding, that the scores are linear in."""
        return self.own_columns

    @cached_property
    def own_columns(self) -> Tensor:
        """(I, G + X + 3): tags, features; log popularity, quality and leave rate as z-scores."""
        num_tags = len(self.catalogue.tag_names)
        tags, numbers, _ = item_columns(self.catalogue).tensor_split((num_tags, num_tags + 2), 1)
        rates = self.leave_rates
        leaving = torch.zeros_like(numbers[:, 0]) if rates is None else rates  # (I,)
        return torch.cat([tags, feature_columns(self.catalogue), numbers, leaving.unsqueeze(1)], 1)

    @cached_property
    def feature_places(self) -> dict[str, int]:
        """The place of each of the X features in ``own_columns``."""
        first = len(self.catalogue.tag_names)
        return {name: first + at for at, name in enumerate(feature_names(self.catalogue))}

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        if self.rerank and obs.candidates is None:  # alone, without a reader
            obs = Shortlist(self.catalogue, self.slate.size).follow(obs)
        return Action.certain(self.best(obs, *self.linear(obs, self.weights), self.of_user_columns(obs)))

    def linear(self, obs: Obs, weights: RuleWeights) -> tuple[Tensor, Tensor]:
        """The weights (N, D) of the embedding and (N, G + X + 3) of ``own_columns`` in the scores."""
        embedding, columns = self.catalogue.embedding, self.own_columns
        query = fold_in(obs, embedding, weights.fold_in)  # (N, D)
        of_columns = torch.zeros(obs.num_rows, columns.shape[1], device=query.device)  # (N, G + X + 3)
        if obs.history is not None:
            kernel = recency(obs.history, weights.decay)  # (N, L)
            query = query - _column(weights.similarity) * weighted_rows(kernel, embedding, obs.history)
            of_columns -= _column(weights.overlap) * weighted_rows(kernel, columns, obs.history)
        numbers = {feature.name for feature in self.catalogue.features if not feature.values}
        for name, column in self.feature_places.items():
            if name in numbers:  # no part of g
                of_columns[:, column] = 0
            of_columns[:, column] += weights.features.get(name, 0.0)
        of_columns[:, -3] = weights.popularity
        of_columns[:, -2] = weights.quality
        of_columns[:, -1] = -weights.leaving
        return query, of_columns

    def of_user_columns(self, obs: Obs) -> Tensor:
        """The weights (N, F) of ``user_columns`` in the scores."""
        names = () if self.user_columns is None else self.user_columns.names
        weights = obs.context.new_zeros(obs.num_rows, len(names))
        for index, name in enumerate(names):
            weights[:, index] = self.weights.features.get(name, 0.0)
        return weights

    def best(self, obs: Obs, query: Tensor, of_columns: Tensor, of_user: Tensor) -> Tensor:
        """The K allowed items (N, K) with the highest scores.

        The weights are those of ``linear``, and ``of_user`` (N, F) those of ``of_user_columns``.
        """
        embedding, items = self.catalogue.embedding, obs.candidates  # (I, D), (N, C)
        if items is not None:
            known = items.clamp_min(0)
            scores = rows.dot_rows(of_columns, self.columns, known)
            # The copy: without the fold-in the query is a part of the context, which takes twice the time.
            scores += rows.dot_rows(query.contiguous(), embedding, known)
            if self.user_columns is not None:
                scores += self.user_columns.scores(obs.context, of_user, items)
            best = highest(scores.masked_fill_(items < 0, -torch.inf), self.slate.size)  # (N, K)
            return items.gather(1, best)

        def score(block: slice) -> Tensor:
            scores = query @ embedding[block].T + of_columns @ self.columns[block].T  # (N, b)
            if self.user_columns is not None:
                scores += self.user_columns.scores(obs.context, of_user, block)
            return scores

        return self.slate.best_of_blocks(
            lambda block: allowed_scores(obs, score, block), obs.num_rows, self.catalogue.num_items
        )


class Shortlist:
    """The SHORTLIST items with the highest u . e_i of each user, as candidates; u is the profile.

    The lists are made of the first observation and stay for the session, so that a step scores them alone.
    In ``play``, a row's next session keeps the list of the first: its steps do not count there.
    """

    def __init__(self, catalogue: Catalogue, slate_size: int) -> None:
        self.catalogue, self.slate_size = catalogue, slate_size
        self.items: Tensor | None = None  # (N, C) int64

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """The observation with its allowed candidates (N, C), -1 elsewhere; see ``Reader``."""
        if self.items is None:
            self.items = self._first(obs)
        elif ended is not None and bool(ended.any()):
            self.items[ended] = self._best(obs.rows(ended.nonzero().flatten()))
        allowed = self._allowed(obs, self.items)  # (N, C)
        few = allowed.sum(1) < self.slate_size  # (N,): in long sessions without repetition
        if bool(few.any()):
            self.items[few] = self._best(obs.rows(few.nonzero().flatten()))
            allowed = self._allowed(obs, self.items)
        return obs.among(torch.where(allowed, self.items, -1))

    def _first(self, obs: Obs) -> Tensor:
        """The lists (N, C) at the first observation.

        A search has many rows of the same user. These rows share one list, which is made without ``exclude``,
        as this may differ between them.
        """
        if obs.mask is not None and obs.mask.stride(0) > 0:  # each row has a mask of its own
            return self._best(obs)
        profile = obs.context[:, : self.catalogue.embedding.shape[1]]  # (N, D)
        distinct, user = torch.unique(profile, dim=0, return_inverse=True)
        mask = None if obs.mask is None else obs.mask[: len(distinct)]
        return self._best(Obs(distinct, mask=mask))[user]

    def _best(self, obs: Obs) -> Tensor:
        """The allowed items (N, C) with the highest u . e_i, -1 if there are fewer."""
        embedding = self.catalogue.embedding
        shortlists = []
        for block in obs.split(SCANNED_ROWS):
            profile = block.context[:, : embedding.shape[1]]  # (n, D)
            score = partial(_product, profile, embedding)
            shortlists.append(best_allowed(block, self.catalogue, score, SHORTLIST)[1])
        return torch.cat(shortlists)

    def _allowed(self, obs: Obs, items: Tensor) -> Tensor:
        """(N, C) bool: the ``items`` that may be shown."""
        allowed = items >= 0
        if obs.exclude is not None:
            allowed &= ~rows.rows_hold(obs.exclude, items)
        return allowed if obs.mask is None else allowed & obs.mask.gather(1, items.clamp_min(0))


class MaximalMarginalRelevance:
    """Shows the items with the highest maximal marginal relevance (Carbonell and Goldstein 1998, SIGIR).

    u is the profile after the fold-in. The maximum is over the last ``window`` items shown and the earlier
    items of the same slate::

        score_i = (1 - weight) u . e_i - weight max_k e_k . e_i

    Of a larger catalogue, only the SHORTLIST items with the highest u . e_i are scored. Where places have
    kinds, the slate is the best one by the history alone.
    """

    def __init__(
        self, catalogue: Catalogue, weight: float, window: int, fold_in: float, slate: BestSlate = SINGLE
    ) -> None:
        """``weight`` in [0, 1); ``window`` >= 1."""
        self.catalogue = catalogue
        self.slate = slate
        self.weight, self.window, self.fold_in = weight, window, fold_in

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        embedding, num_items = self.catalogue.embedding, self.catalogue.num_items
        profile = fold_in(obs, embedding, torch.tensor(self.fold_in))  # (N, D)
        score = partial(_product, profile, embedding)
        if obs.history is None and self.slate.size == 1:  # no item to be similar to
            return Action.certain(best_allowed(obs, self.catalogue, score, 1)[1])
        if num_items > SHORTLIST and not self.slate.patterns:
            relevance, items = best_allowed(obs, self.catalogue, score, SHORTLIST)  # (N, C) each
        else:  # all items, unsorted: sorting would take most of the time
            items = None
            relevance = allowed_scores(obs, score, slice(0, num_items))  # (N, I)
        nearest = torch.full_like(relevance, -torch.inf)
        history = profile.new_zeros(0, 0).long() if obs.history is None else obs.history[:, -self.window :]
        for shown in history.T:
            similarity = _likeness(embedding, shown, items)
            nearest = torch.maximum(nearest, similarity.masked_fill_((shown < 0).unsqueeze(1), -torch.inf))
        if self.slate.patterns:
            likeness = nearest.masked_fill(nearest == -torch.inf, 0.0)
            return Action.certain(self.slate.best((1 - self.weight) * relevance - self.weight * likeness))
        slate: list[Tensor] = []  # (N, 1) each
        for index in range(self.slate.size):
            likeness = nearest.masked_fill(nearest == -torch.inf, 0.0)  # before the first item
            score_now = (1 - self.weight) * relevance - self.weight * likeness
            best = score_now.argmax(1, keepdim=True)  # (N, 1)
            chosen = best if items is None else items.gather(1, best)
            if self.slate.size > 1:  # a place without an allowed item stays empty
                chosen = chosen.masked_fill(relevance.gather(1, best) == -torch.inf, -1)
            slate.append(chosen)
            if index + 1 < self.slate.size:
                relevance = relevance.scatter(1, best, -torch.inf)
                similarity = _likeness(embedding, chosen[:, 0], items)
                nearest = torch.maximum(nearest, similarity)
        return Action.certain(torch.cat(slate, 1))


def fold_in(obs: Obs, embedding: Tensor, rate: Tensor) -> Tensor:
    """The profile (N, D), moved towards the items with a signal above the session's mean; unit norm.

    It is ``u + rate sum_k (s_k - mean(s)) e_k`` over the items shown, divided by its norm; s_k is the first
    visible signal (Rocchio 1971, "Relevance feedback in information retrieval"). ``rate`` is () or (N,); 0
    does not change the profile.
    """
    profile = obs.context[:, : embedding.shape[1]]  # (N, D)
    if obs.history is None or obs.signals is None or not (obs.signals.shape[2] and bool(rate.any())):
        return profile
    shown = (obs.history >= 0).float()  # (N, L)
    signal = obs.signals[:, :, 0]  # (N, L)
    mean = (signal * shown).sum(1, keepdim=True) / shown.sum(1, keepdim=True).clamp_min(1)
    moved = profile + _column(rate) * weighted_rows((signal - mean) * shown, embedding, obs.history)
    length: Tensor = moved.norm(dim=1, keepdim=True)  # (N, 1)
    return moved / length.clamp_min(1e-6)


def best_allowed(
    obs: Obs, catalogue: Catalogue, score: Callable[[slice], Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """The ``count`` allowed items with the highest scores: scores and items, (N, count) each.

    If fewer items are allowed, the rest has score -inf and id -1.
    """

    return blocked_top_k(
        lambda block: allowed_scores(obs, score, block), obs.num_rows, catalogue.num_items, count
    )


def allowed_scores(obs: Obs, score: Callable[[slice], Tensor], block: slice) -> Tensor:
    """The scores (N, b) of a block of items; -inf where an item may not be shown."""
    mask = None if obs.mask is None else obs.mask[:, block]
    column = None
    if obs.exclude is not None:
        inside = (obs.exclude >= block.start) & (obs.exclude < block.stop)
        column = torch.where(inside, obs.exclude - block.start, -1)
    return categorical.forbid_(score(block).unsqueeze(1), mask, column).squeeze(1)


def _product(query: Tensor, embedding: Tensor, block: slice) -> Tensor:
    """(N, b): query (N, D) times a block of the items."""
    return query @ embedding[block].T


def _likeness(embedding: Tensor, first: Tensor, others: Tensor | None) -> Tensor:
    """e_first (N,) times e_others: (N, I) of all items, or (N, C) of ``others`` (N, C), -1 as item 0."""
    return products(embedding.index_select(0, first.clamp_min(0)), embedding, others)


def _column(values: Tensor) -> Tensor:
    """() or (N,) beside (N, F)."""
    return values.unsqueeze(-1)

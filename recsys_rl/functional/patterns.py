"""Slates whose places have kinds: first the pattern of the kinds, then one item for each place.

A pattern is a sequence of K different kinds, such as (video, product). With g the logits of the patterns, l
those of the items, A_k the allowed items of kind k, and c an item's class (-1: none)::

    p(pattern)   = softmax of g over the patterns whose kinds all have an allowed item
    p(i_1 | k_1) = exp(l_i) / sum_{j in A_k} exp(l_j)
    p(i_2 | k_2, i_1): the same with l_j + together [c_j = c_{i_1} >= 0]       a later place: without it
    p(i_1 ... i_K) = p(pattern) p(i_1 | k_1) p(i_2 | k_2, i_1) ...

For a pair of a video v and a product p that is p(kind) p(v) p(p | v). A slate shows its pattern, since no
pattern has a kind twice; so no item is twice in a slate either. The entropy is exact, by the chain rule::

    H = H(pattern) + sum_pattern p(pattern) (H(i_1 | k_1) + sum_c p(c | k_1) H(i_2 | k_2, c) + ...)

Place by place, item i of place n has the probability that the kinds above go on with its kind, times
p(i | ...): so a slate is drawn with one number for each place, and its log-probability has K terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.functional import categorical

FAINT = -80.0  # logits below the highest of a kind, which count as this: exp is below any rounding


@dataclass(frozen=True)
class Layout:
    """The patterns, and the kinds and classes of the A items, which all rows share."""

    patterns: tuple[tuple[int, ...], ...]  # G of K different kinds each
    kinds: Tensor  # (A,) int64, 0 ..
    classes: Tensor  # (A,) int64, -1 for none
    items: dict[int, Tensor] = field(init=False)  # of each kind of a pattern, rows 0 .. A - 1
    cells: dict[int, Tensor] = field(
        init=False
    )  # of each of these kinds (A_k, 1 + C): 1 at an item's class; none first

    def __post_init__(self) -> None:
        used = {kind for pattern in self.patterns for kind in pattern}
        items = {kind: (self.kinds == kind).nonzero().squeeze(1) for kind in used}
        every = torch.arange(-1, int(self.classes.max()) + 1, device=self.classes.device)
        cells = {kind: (self.classes[rows].unsqueeze(1) == every).float() for kind, rows in items.items()}
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "cells", cells)

    @property
    def slate_size(self) -> int:
        return len(self.patterns[0])


class Patterns:
    """The distribution of slates (N, K)."""

    def __init__(self, gates: Tensor, logits: Tensor, together: Tensor, layout: Layout) -> None:
        """Make the distribution.

        Args:
            gates: (N, G), the logits of the patterns.
            logits: (N, A), the logits of the items, -inf at forbidden ones.
            together: (), what the second item gains if it is of the class of the first, from -20 to 20:
                beyond that the sums of float32 lose the other items.
            layout: patterns, kinds and classes.
        """
        self.gates, self.item_logits, self.together, self.layout = gates, logits, together, layout
        self.explore: Tensor | None = None

    @property
    def slate_size(self) -> int:
        return self.layout.slate_size

    def explored(self, share: Tensor) -> Patterns:
        """Each place drawn uniformly with probability ``share`` (N,) among its items, else as here.

        The result has the probabilities of draws, place by place. ``best``, ``logprob`` and ``entropy`` are
        of slates without exploration: of the result they raise ValueError.
        """
        mixed = Patterns(self.gates, self.item_logits, self.together, self.layout)
        mixed.explore = share
        return mixed

    @property
    def enough(self) -> Tensor:
        """(N,) bool: True if some pattern can be filled; NaN counts, as it is another fault."""
        return (self._possible != -torch.inf).any(1)

    def only(self, rows: Tensor) -> Patterns:
        """This distribution, with all logits 0 in other than these ``rows`` (N,) bool."""
        other = ~rows.unsqueeze(1)
        gates, items = (x.masked_fill(other, 0.0) for x in (self.gates, self.item_logits))
        kept = Patterns(gates, items, self.together, self.layout)
        kept.explore = self.explore
        return kept

    @property
    def logits(self) -> Tensor:
        """(N, A): the log-probabilities of the first place."""
        return self.place(torch.zeros(len(self.gates), 0, dtype=torch.int64, device=self.gates.device))

    @torch.no_grad()
    def place(self, above: Tensor) -> Tensor:
        """(N, A): the log-probabilities of the next place, below the items ``above`` (N, k), no gradient.

        Below an impossible place nothing is possible.
        """
        at, patterns = above.shape[1], self.layout.patterns
        kinds = self.layout.kinds[above.clamp_min(0)].masked_fill(above < 0, -1)  # (N, k)
        begun = torch.tensor(patterns, device=kinds.device)[:, :at]  # (G, k)
        fits = (kinds.unsqueeze(1) == begun).all(2)  # (N, G)
        chances = self._chances.masked_fill(~fits, -torch.inf)
        chances = chances - _normaliser(chances)
        result = torch.full_like(self.item_logits, -torch.inf)
        for kind in dict.fromkeys(pattern[at] for pattern in patterns):
            goes_on = [n for n, pattern in enumerate(patterns) if pattern[at] == kind]
            of_kind = chances[:, goes_on].logsumexp(1, keepdim=True)  # (N, 1)
            of_items = self._given_kind(kind, above[:, 0] if at == 1 else None)
            result.index_copy_(1, self.layout.items[kind], of_items.add_(of_kind))
        return result if self.explore is None else _mixed(result, self.explore)

    def _given_kind(self, kind: int, first: Tensor | None) -> Tensor:
        """(N, A_k): the log-probabilities of the items of a kind, below the items ``first`` (N,)."""
        rows, classes = self.layout.items[kind], self.layout.classes
        logits = self.item_logits.index_select(1, rows)  # (N, A_k)
        if first is not None:
            of_first = classes[first.clamp_min(0)].unsqueeze(1)  # (N, 1)
            logits = logits + self.together * ((classes[rows] == of_first) & (of_first >= 0))
        return logits - _normaliser(logits)

    def draw(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw slates (N, K) int64, with their log-probabilities (N,), without a gradient.

        Raises UserError if no pattern can be filled for one of the rows.
        """
        size, like = (len(self.gates), self.slate_size), self.gates
        return self.draw_at(torch.rand(size, generator=generator, dtype=like.dtype, device=like.device))

    @torch.no_grad()
    def draw_at(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """``draw`` with the given numbers ``uniform`` (N, K) in [0, 1], one for each place."""
        self._check()
        index = torch.zeros(len(uniform), 0, dtype=torch.int64, device=uniform.device)
        total = torch.zeros_like(uniform[:, 0])
        for u in uniform.split(1, 1):  # (N, 1)
            chosen, log_p = categorical.draw_at(self.place(index), u)  # (N,) each
            index, total = torch.cat([index, chosen.unsqueeze(1)], 1), total + log_p
        return index, total

    @torch.no_grad()
    def best(self) -> Tensor:
        """The most probable slate (N, K) int64. Raises as ``draw`` does."""
        self._unexplored()
        self._check()
        layout, chances = self.layout, self._chances
        slates, values = [], []
        for number, pattern in enumerate(layout.patterns):
            value, columns = chances[:, number], list[Tensor]()
            for place, kind in enumerate(pattern):
                log_p = self._given_kind(kind, columns[0] if place == 1 else None)
                if place == 0 and len(pattern) > 1:  # with the best second item below each first one
                    log_p = log_p + self._best_below(kind, pattern[1])
                highest, at = log_p.max(1)
                columns.append(layout.items[kind][at])
                value = value if place == 1 else value + highest
            slates.append(torch.stack(columns, 1))
            values.append(value.nan_to_num(nan=-torch.inf))
        chosen = torch.stack(values, 1).argmax(1)  # (N,)
        return torch.stack(slates, 1)[torch.arange(len(chosen), device=chosen.device), chosen]

    def _best_below(self, kind: int, following: int) -> Tensor:
        """(N, A_k): the highest log-probability of a second item, by the class of each first item."""
        rows = self.layout.items[following]
        logits, of_class = self.item_logits.index_select(1, rows), self.layout.cells[following][:, 1:]
        best = [(logits - _normaliser(logits)).amax(1)]  # of first items without a class
        for column in of_class.unbind(1):
            moved = logits + self.together * column
            best.append((moved - _normaliser(moved)).amax(1))
        return torch.stack(best, 1)[:, self.layout.classes[self.layout.items[kind]] + 1]

    def logprob(self, index: Tensor) -> Tensor:
        """Log-probability (N,) of the slates ``index`` (N, K); -inf for an impossible one."""
        self._unexplored()
        if index.shape != (len(self.gates), self.slate_size):
            raise ValueError(f"slates {tuple(index.shape)} don't fit {len(self.gates)} x {self.slate_size}")
        layout, known = self.layout, index.clamp_min(0)
        kinds = layout.kinds[known].masked_fill(index < 0, -1)  # (N, K)
        which = kinds.unsqueeze(1) == torch.tensor(layout.patterns, device=kinds.device)  # (N, G, K)
        which = which.all(2)  # (N, G)
        of_pattern = self._chances.masked_fill(~which, 0.0).sum(1)
        logits = self.item_logits.gather(1, known)  # (N, K)
        first = layout.classes[known[:, 0]]  # (N,)
        total = of_pattern + logits.sum(1)
        for place in range(self.slate_size):
            cell = first + 1 if place == 1 else torch.zeros_like(first)  # (N,)
            for kind in {pattern[place] for pattern in layout.patterns}:
                norm = self._norms[kind].gather(1, cell.unsqueeze(1)).squeeze(1)
                total = total - norm * (kinds[:, place] == kind)
        if self.slate_size > 1:
            total = total + self.together * ((first == layout.classes[known[:, 1]]) & (first >= 0))
        return total.masked_fill(~which.any(1), -torch.inf)

    def place_logprobs(self, index: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob(index)`` in float64: each place given those above, no gradient."""
        with torch.no_grad():
            exact = Patterns(
                self.gates.double(), self.item_logits.double(), self.together.double(), self.layout
            )
            exact.explore = None if self.explore is None else self.explore.double()
            terms = [exact.place(index[:, :k]).gather(1, index[:, k : k + 1]) for k in range(index.shape[1])]
            return torch.cat(terms, 1)

    def entropy(self) -> Tensor:
        """Entropy in nats, (N,), exact."""
        self._unexplored()
        log_p = self._chances  # (N, G)
        p = log_p.exp()
        total = -(p * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(1)
        for number, pattern in enumerate(self.layout.patterns):
            of_pattern = torch.zeros_like(total)
            for place, kind in enumerate(pattern):
                nats = self._nats[kind]  # (N, 1 + C)
                if place != 1:
                    of_pattern = of_pattern + nats[:, 0]
                else:  # below first items without a class, and of each class
                    of_first = self._sums[pattern[0]][1]  # (N, 1 + C)
                    of_pattern = of_pattern + (of_first * nats).sum(1) / of_first.sum(1)
            # The zeros of impossible patterns have no part in the gradient.
            total = total + p[:, number] * of_pattern.where(p[:, number] > 0, torch.zeros_like(total))
        return total

    def evaluate(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """``logprob(index)`` and ``entropy()``, (N,) each."""
        return self.logprob(index), self.entropy()

    @cached_property
    def _sums(self) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """Of each kind the highest logit (N, 1), and by class, (N, 1 + C) each with none first::

        sums of exp(x) and of exp(x) x          x = l - highest, FAINT at least
        """
        sums = {}
        for kind, rows in self.layout.items.items():
            logits = self.item_logits.index_select(1, rows)  # (N, A_k)
            highest = logits.detach().amax(1, keepdim=True)
            highest = highest.masked_fill(highest == -torch.inf, 0.0)  # no item is allowed
            x = (logits - highest).clamp_min(FAINT)
            e, of_class = x.exp(), self.layout.cells[kind].to(x)
            sums[kind] = highest, e @ of_class, (e * x) @ of_class
        return sums

    def _moved(self, of_class: Tensor, factor: Tensor) -> Tensor:
        """(N, 1 + C): the sum over all classes; below a first item of class c with ``factor`` at class c."""
        size = of_class.shape[1]
        others = torch.ones(size, size, dtype=of_class.dtype, device=of_class.device)
        others.fill_diagonal_(0)[0, 0] = 1
        return of_class @ others + torch.cat([0 * of_class[:, :1], factor * of_class[:, 1:]], 1)

    @cached_property
    def _norms(self) -> dict[int, Tensor]:
        """Of each kind (N, 1 + C): log of the sum of exp of its logits; below a first item of each class."""
        factor = self.together.exp()
        return {kind: at + self._moved(sums, factor).log() for kind, (at, sums, _) in self._sums.items()}

    @cached_property
    def _nats(self) -> dict[int, Tensor]:
        """Of each kind (N, 1 + C): the entropy of an item of this kind; below a first item of each class."""
        nats, gain, factor = {}, self.together, self.together.exp()
        for kind, (highest, of_e, of_x) in self._sums.items():
            z = self._moved(of_e, factor)  # (N, 1 + C)
            gained = torch.cat([0 * of_e[:, :1], factor * gain * of_e[:, 1:]], 1)
            nats[kind] = self._norms[kind] - highest - (self._moved(of_x, factor) + gained) / z
        return nats

    @cached_property
    def _possible(self) -> Tensor:
        """(N, G): the gates, -inf at patterns with a kind that has no allowed item."""
        there = {
            kind: (self.item_logits.index_select(1, rows) != -torch.inf).any(1)
            for kind, rows in self.layout.items.items()
        }
        possible = [torch.stack([there[kind] for kind in pattern]).all(0) for pattern in self.layout.patterns]
        return self.gates.masked_fill(~torch.stack(possible, 1), -torch.inf)

    @cached_property
    def _chances(self) -> Tensor:
        """(N, G): the log-probabilities of the patterns; -inf in a row where none can be filled."""
        return self._possible.log_softmax(1).masked_fill(~self.enough.unsqueeze(1), -torch.inf)

    def _unexplored(self) -> None:
        if self.explore is not None:
            raise ValueError("this is not known of slates with exploration: see place_logprobs")

    def _check(self) -> None:
        """Raise UserError if a row has no pattern that can be filled; NaN counts, as it gives a NaN loss."""
        if not bool(self.enough.all()):
            raise UserError(
                "For one of the users every kind of slate lacks items that may be shown: use a shorter "
                "session, fewer excluded items or a larger catalogue."
            )


def _normaliser(logits: Tensor) -> Tensor:
    """(N, 1): log of the sum of exp of ``logits`` (N, A); 0 where all are -inf, so that these stay so."""
    total = logits.logsumexp(1, keepdim=True)
    return total.masked_fill(total == -torch.inf, 0.0)


def _mixed(log_p: Tensor, share: Tensor) -> Tensor:
    """log((1 - share) p + share / allowed), for ``share`` (N,)."""
    allowed, share = log_p > -torch.inf, share.unsqueeze(1)
    uniform = allowed / allowed.sum(1, keepdim=True).clamp_min(1)
    return ((1 - share) * log_p.exp() + share * uniform).log()

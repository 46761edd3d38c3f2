"""The row `searched-stock`: `searched` with a stock that has a cap, and a hinge of user and item together.

PPO's network has both (models/deep_sets.py, models/curves.py), so a linear score without them is a weaker
rival. With m the stock after the session's items, s_k their first visible signals, x_i the item's log
popularity minus its quality (z-scores) and u . e_i the affinity, the score has two terms more::

    m <- min(1, keep m + gain (s_k - level))        from m = 0 before the first item
    score_i + price m x_i + weight max(0, at + x_i - slope u . e_i)

Its seven numbers join the best form of `searched` after half of the steps, and CMA-ES searches all numbers
with the other half. It is `searched` where they earn no more from the users to choose with.
benchmarks/learning_rows.py plays it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from recsys_rl.evaluation.rivals import rule_search
from recsys_rl.evaluation.rivals.form_search import CHOOSING, KNOWN, Trials, grow, parted, search_numbers
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched, form_note
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.records import Split
from recsys_rl.types import Action, Catalogue, Obs
from recsys_rl.user_columns import UserColumns

NAME = "searched-stock"
FIRST = {  # a first value and a first deviation of each number; `price` and `weight` 0 leave `searched`
    "keep": (2.0, 1.0),  # as a logit
    "gain": (0.5, 0.3),
    "level": (0.5, 0.2),
    "price": (0.0, 0.2),
    "weight": (0.0, 0.2),
    "at": (0.0, 0.5),
    "slope": (1.0, 1.0),
}


@dataclass(frozen=True)
class StockForm(Form):
    """A form of `searched` with the seven numbers at its end."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, *FIRST)


class Terms(UserColumns):
    """The columns of a user's own, and the two terms of user and item as another column with weight 1.

    Its ``numbers`` are those of ``FIRST``, (N,) each, and ``stock`` (N,): set before each scoring.
    """

    def __init__(self, own: UserColumns, catalogue: Catalogue, excess: Tensor) -> None:
        """``excess`` (I,): x."""
        super().__init__(own.names, own.places, own.index)
        self.embedding, self.excess = catalogue.embedding, excess
        self.numbers: dict[str, Tensor] = {}
        self.stock = torch.empty(0)

    def scores(self, context: Tensor, weights: Tensor, items: Tensor | slice = slice(None)) -> Tensor:
        profile = context[:, : self.embedding.shape[1]]  # (N, D)
        if isinstance(items, slice):
            excess, affinity = self.excess[items], profile @ self.embedding[items].T  # (b,), (N, b)
        else:
            known = items.clamp_min(0)
            excess = self.excess[known]  # (N, C)
            affinity = torch.einsum("nd,ncd->nc", profile, nn.functional.embedding(known, self.embedding))
        of = {name: values.unsqueeze(1) for name, values in self.numbers.items()}
        terms = of["price"] * self.stock.unsqueeze(1) * excess
        terms = terms + of["weight"] * (of["at"] + excess - of["slope"] * affinity).clamp_min(0)
        return terms + super().scores(context, weights, items) if self.names else terms


class Stocked(Searched):
    """Shows the K items with the highest scores."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        numbers = {name: self.numbers[name].expand(obs.num_rows) for name in FIRST}
        self.terms.numbers = numbers
        self.terms.stock = stock(obs, numbers["keep"], numbers["gain"], numbers["level"])
        self.user_columns = self.terms
        return super().act(obs, greedy)

    @cached_property
    def terms(self) -> Terms:
        popularity, quality = self.own_columns[:, -3], self.own_columns[:, -2]
        return Terms(UserColumns.of(self.interface, self.catalogue), self.catalogue, popularity - quality)


def stock(obs: Obs, keep: Tensor, gain: Tensor, level: Tensor) -> Tensor:
    """m (N,) after the items of the history; ``keep`` as a logit."""
    m, share = torch.zeros_like(gain), keep.sigmoid()
    if obs.history is None or obs.signals is None or not obs.signals.shape[2]:
        return m
    for shown, signal in zip(obs.history.unbind(1), obs.signals[..., 0].unbind(1), strict=True):
        m = torch.where(shown >= 0, (share * m + gain * (signal - level)).clamp_max(1), m)
    return m


def search(trainees: Trainees, split: Split | None, budget: int) -> tuple[Searched, str]:
    """The policy of a search with about ``budget`` environment steps, and its numbers as text."""
    print(f"searching `{NAME}` with at most {budget:,} steps of training users", file=sys.stderr, flush=True)
    catalogue, interface = trainees.catalogue, trainees.interface
    budget = rule_search.most_steps(trainees, budget)
    before = trainees.generator.get_state()
    searching, _ = parted(trainees, CHOOSING)
    trainees.generator.set_state(before)  # so that ``grow`` parts the users alike
    grown = grow(trainees, split, budget // 2)
    best, factors = grown.best, Factors.of(catalogue, trainees.population.profile)
    form = StockForm(best.form.split, best.form.hinges, best.form.product, best.form.features)
    values, spreads = (torch.tensor(column) for column in zip(*FIRST.values(), strict=True))
    first = torch.cat([best.numbers, values.to(best.numbers)])
    spread = torch.cat([KNOWN * best.form.spread, spreads]).to(first)

    def make(numbers: Tensor) -> Searched:
        return Stocked(catalogue, interface, form, numbers, factors, best.leave_rates)

    trials = Trials(searching)
    numbers = search_numbers(trials, make, first, spread, budget - best.steps)
    trainees.generator.set_state(grown.noise)
    choice = Trials(replace(trainees, population=grown.choosing))
    earned = choice.play(make, numbers.unsqueeze(0), grown.users).mean().item()
    if earned > grown.earned:
        return make(numbers), form_note(form, numbers, best.steps + trials.steps)
    note = f"{form_note(best.form, best.numbers, best.steps)}; the stock and the hinge gained nothing"
    return Searched(catalogue, interface, best.form, best.numbers, factors, best.leave_rates), note

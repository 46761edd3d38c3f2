"""Search of `searched`: nested linear forms, each by CMA-ES on training users, the best on other ones.

The agent's number of steps is that of the whole search. The smallest form is `rule`'s, with weights from the
search of `rule` with a share of the steps. Then one group of numbers after another joins the form (forms.py),
and CMA-ES searches all numbers anew from the best so far. A group stays if the form with it earns more from
the users to choose with, who play in no search: one large form at once is a weaker rival, as its numbers are
more than so many sessions can find. The rest of the steps goes to the form that was kept.

In the end `rule` itself, whose own search had as many steps, plays the users to choose with. If it earns
more, `searched` is `rule`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals import rule_search
from recsys_rl.evaluation.rivals.cma_search import Make, Trials, parted, search_numbers
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched, of_rule
from recsys_rl.evaluation.rivals.rankers import scored_names
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.records import Split
from recsys_rl.types import Population

CHOOSING = 0.25  # share of the training users to choose with
RULE, GROUP, CHOICE = 0.1, 0.1, 0.02
"""Shares of the budget: the search of the smallest form, of a form with another group, and one choice."""
KNOWN = 0.4  # deviations of numbers that were searched before, relative to their first ones


@dataclass(frozen=True)
class SearchedForm:
    """The result of a search."""

    form: Form
    numbers: Tensor  # (F,)
    leave_rates: Tensor  # (I,): leave rates as z-scores
    steps: int  # steps of the search, without those of `rule`


@dataclass(frozen=True)
class Grown:
    """The best form of the search, and with whom `rule` is to play before one of the two is taken."""

    best: SearchedForm
    earned: float  # by the best form: its mean return over ``users``
    choosing: Population
    users: Tensor  # (n,) rows of ``choosing``
    noise: Tensor  # state of the generator for the next play


def or_rule(trainees: Trainees, grown: Grown, rule: rule_search.SearchedRule) -> SearchedForm:
    """`rule` as a form if it earns more than the best form from the users to choose with, else that form."""
    catalogue, interface = trainees.catalogue, trainees.interface
    trainees.generator.set_state(grown.noise)
    choice = Trials(replace(trainees, population=grown.choosing))
    form, numbers = Form(features=scored_names(catalogue, interface)), of_rule(rule.weights)
    factors = Factors.of(catalogue, trainees.population.profile)
    make = maker(trainees, factors, form, rule.leave_rates)
    if choice.play(make, numbers.unsqueeze(0), grown.users).mean().item() <= grown.earned:
        return grown.best
    return SearchedForm(form, numbers, rule.leave_rates, grown.best.steps)


def grow(trainees: Trainees, split: Split | None, budget: int) -> Grown:
    """The best form of a search with about ``budget`` environment steps, before `rule` plays (``or_rule``).

    Steps beyond MOST_SCORES of rule_search.py are left out.
    """
    catalogue, interface = trainees.catalogue, trainees.interface
    budget = rule_search.most_steps(trainees, budget)
    searching, choosing = parted(trainees, CHOOSING)
    trials, choice = Trials(searching), Trials(choosing)
    users = choosing.draw(max(1, int(CHOICE * budget / interface.session_length)))
    factors = Factors.of(catalogue, trainees.population.profile)
    base = rule_search.search_rule(searching, int(RULE * budget))
    rates = base.leave_rates

    def earned(form: Form, numbers: Tensor) -> float:
        return choice.play(maker(trainees, factors, form, rates), numbers.unsqueeze(0), users).mean().item()

    def used() -> int:
        return base.steps + trials.steps + choice.steps

    form, numbers = Form(features=scored_names(catalogue, interface)), of_rule(base.weights)
    best = earned(form, numbers)
    groups: list[dict[str, Any]] = [{"hinges": True}, {"product": True}, {}]  # the last: the form as it is
    if split is not None:
        groups.insert(0, {"split": split})
    for group in groups:
        larger = replace(form, **group)
        new = torch.tensor([name not in form.names for name in larger.names], device=numbers.device)
        spread = larger.spread.to(numbers) * torch.where(new, 1.0, KNOWN)
        remaining = int((1 - 2 * CHOICE) * budget) - used()
        steps = min(remaining, int(GROUP * budget)) if group else remaining
        first = larger.grown_from(form, numbers)
        grown = search_numbers(trials, maker(trainees, factors, larger, rates), first, spread, steps)
        value = earned(larger, grown)
        if value > best:
            form, numbers, best = larger, grown, value
    noise = trainees.generator.get_state()
    return Grown(SearchedForm(form, numbers, rates, used()), best, choosing.population, users, noise)


def maker(trainees: Trainees, factors: Factors, form: Form, rates: Tensor) -> Make:
    """Makes the policy of numbers of this form; ``rates`` are leave rates as z-scores."""
    return lambda numbers: Searched(trainees.catalogue, trainees.interface, form, numbers, factors, rates)

"""Search of `searched`: nested linear forms, each by CMA-ES on training users, the best on other ones.

The agent's number of steps is that of the whole search. The smallest form is `rule`'s, with weights from the
search of `rule` with a share of the steps. Then one group of numbers after another joins the form (forms.py),
and CMA-ES searches all numbers anew from the best so far. A group stays if the form with it earns more from
the users to choose with, who play in no search: one large form at once is a weaker rival, as its numbers are
more than so many sessions can find. The rest of the steps goes to the form that was kept.

In the end `rule` itself, whose own search had as many steps, plays the users to choose with. If it earns
more, `searched` is `rule`.

CMA-ES is that of Hansen and Ostermeier 2001, "Completely derandomized self-adaptation in evolution
strategies", on the returns of training users. In each generation POPULATION candidates play the same users.
The numbers of a user's candidate are drawn from a normal distribution, whose mean and covariance move to the
better half of them. The result is the mean of the last means: a single candidate, the best of noisy returns,
would be worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals import rule_search
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched, of_rule
from recsys_rl.evaluation.rivals.rankers import scored_names
from recsys_rl.evaluation.rivals.tuning import Trainees, training_part
from recsys_rl.protocols import Policy
from recsys_rl.records import Split
from recsys_rl.types import Population

Make = Callable[[Tensor], Policy]
"""Makes a policy from numbers (F,), or (N, F) for N users."""

POPULATION = 24
SESSIONS = 600
"""Sessions of a generation if the budget has that many for at least LEAST generations."""
LEAST, LAST = 20, 3
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


@dataclass
class Trials:
    """Sessions of candidates, with a count of their steps."""

    trainees: Trainees
    steps: int = 0
    sessions: int = 0

    @property
    def length(self) -> float:
        """Mean steps of a session so far; the longest session before the first."""
        return self.steps / self.sessions if self.sessions else self.trainees.interface.session_length

    def play(self, make: Make, drawn: Tensor, users: Tensor) -> Tensor:
        """Returns (P, n) of candidates ``drawn`` (P, F), which all play the ``users`` (n,)."""
        agent = make(drawn.repeat_interleave(len(users), 0))
        sessions = self.trainees.play(agent, users.repeat(len(drawn)))  # N = P * n
        self.steps += int(sessions.lengths.sum())
        self.sessions += len(sessions.lengths)
        return sessions.returns.view(len(drawn), -1)


def search_numbers(trials: Trials, make: Make, first: Tensor, spread: Tensor, budget: int) -> Tensor:
    """Numbers (F,) with a high mean return, from a search with about ``budget`` environment steps.

    ``first`` and ``spread`` (F,) are the mean and the deviations of the first generation. There is at least
    one generation, of one user.
    """
    from cmaes import CMA  # with scipy.stats, half a second of each start; most commands search nothing

    generator, end = trials.trainees.generator, trials.steps + budget
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    search = CMA(np.zeros(len(first)), sigma=1.0, population_size=POPULATION, seed=seed)

    def scaled(steps: np.ndarray) -> Tensor:
        return first + spread * torch.as_tensor(steps, dtype=first.dtype, device=first.device)

    def users_of_a_candidate() -> int:
        affordable = budget / (LEAST * trials.length)  # sessions of a generation
        return max(1, int(min(SESSIONS, affordable) / POPULATION))

    means: list[Tensor] = []
    while not means or trials.steps + POPULATION * users_of_a_candidate() * trials.length <= end:
        users = trials.trainees.draw(users_of_a_candidate())
        drawn = np.stack([search.ask() for _ in range(POPULATION)])  # (P, F)
        returns = trials.play(make, scaled(drawn), users).mean(1)  # (P,)
        search.tell([(numbers, -value) for numbers, value in zip(drawn, returns.tolist(), strict=True)])
        means.append(scaled(search.mean))
    return torch.stack(means[-LAST:]).mean(0)


def parted(trainees: Trainees, share: float) -> tuple[Trainees, Trainees]:
    """Two parts of the training users: to search with, and the ``share`` of them to choose with.

    A single user is in both.
    """
    population, generator = trainees.population, trainees.generator
    total = len(population.train)
    if total < 2:
        return trainees, trainees
    order = torch.randperm(total, generator=generator, device=generator.device)
    count = max(1, min(total - 1, round(share * total)))

    def trainees_of(places: Tensor) -> Trainees:
        rows = population.train[places.sort().values]
        return replace(trainees, population=training_part(replace(population, train=rows)))

    return trainees_of(order[count:]), trainees_of(order[:count])

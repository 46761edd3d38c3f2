"""Hyperparameters of `mf`, `mmr` and `rule`, tuned on training users; held-out users are never used.

For `mf` and `mmr` a few values are tried. The weights of `rule` come from the cross-entropy method
(Rubinstein and Kroese 2004): candidates are drawn from a normal distribution, each plays the same training
users, and the distribution moves to the best quarter of them. The search has the agent's budget of steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.agents.rankers import MaximalMarginalRelevance, Rule, RuleWeights
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.protocols import Env, Policy
from recsys_rl.types import Catalogue, Interface, Population, tree_map

FOLD_IN = (0.0, 0.05, 0.1, 0.2, 0.4)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WINDOWS = (1, 2, 3, 5, 10, 20)
MAX_USERS = 128  # training users for each value of mf and mmr
MAX_SCORES = 2**27  # largest product of users, items and steps for one value: fewer users above 50,000 items
CANDIDATES, ELITE, ROUNDS = 32, 8, 25  # in the search for `rule`
START = (0.0, 0.0, 0.2, 0.1, 1.0, 0.1)  # first means of the weights, as in RuleWeights; decay as a logit
SPREAD = (0.1, 0.1, 0.3, 0.1, 1.0, 0.2)  # their first deviations
KEEP = 0.3  # share of the old mean and deviation that is kept in each round
FINAL = 0.2  # share of the budget for the choice among the last candidates
STEPS_OF_SCORES = 2**33  # most items scored by the whole search: a large catalogue gets fewer steps


@dataclass(frozen=True)
class Trainees:
    """The training users for tuning, without the rest of the population."""

    make_env: Callable[[Population, int, torch.Generator], Env]  # from users, number of rows, generator
    catalogue: Catalogue
    population: Population  # made by ``training_part``
    interface: Interface  # the interface of the environments
    generator: torch.Generator  # draws users, candidates and noise

    @property
    def length(self) -> int:
        """Items in the longest session."""
        return self.interface.session_length * self.interface.slate_size

    def play(self, agent: Policy, users: Tensor) -> Sessions:
        """Play one session with each of ``users`` (N,), rows of the training part."""
        return play(self.make_env(self.population, len(users), self.generator), agent, users)

    def draw(self, count: int) -> Tensor:
        """Draw ``count`` training users (count,), each once if there are enough."""
        total, device = len(self.population.train), self.generator.device
        order = torch.randperm(total, generator=self.generator, device=device)
        return order.repeat(-(-count // total))[:count]


def training_part(population: Population) -> Population:
    """A population of the training users alone, without held-out users."""
    rows = population.train
    return Population(
        taste=population.taste[rows],
        profile=population.profile[rows],
        user_ids=population.user_ids[rows],
        train=torch.arange(len(rows), device=rows.device),
        heldout=rows[:0],
        attributes={name: values[rows] for name, values in population.attributes.items()},
    )


def tune_mf(trainees: Trainees) -> tuple[Policy, str]:
    """The ranking by profile with the rate of FOLD_IN that has the highest mean return, and a note."""
    rates = torch.tensor(FOLD_IN, device=trainees.generator.device)
    nothing = tree_map(lambda x: x.expand(len(rates)), RuleWeights.zeros())
    weights = dataclasses.replace(nothing, fold_in=rates)
    returns, _ = _play_each(trainees, weights, _users(trainees))
    best = int(returns.argmax())
    agent = Rule(trainees.catalogue, _pick(weights, best), trainees.interface.slate_size)
    return agent, fold_in_note(FOLD_IN[best])


def tune_mmr(trainees: Trainees) -> tuple[Policy, str]:
    """Maximal marginal relevance with the best hyperparameters, tuned one after another, and a note."""
    slate_size = trainees.interface.slate_size
    if not trainees.interface.history_length and slate_size == 1:
        alone = MaximalMarginalRelevance(trainees.catalogue, 0.0, 1, 0.0)
        return alone, "the same as mf, because observations have no history here"
    users, tried = _users(trainees), {}

    def earned(weight: float, window: int, rate: float) -> float:
        dials = (weight, window, rate)
        if dials not in tried:
            agent = MaximalMarginalRelevance(trainees.catalogue, *dials, slate_size)
            tried[dials] = trainees.play(agent, users).returns.mean().item()
        return tried[dials]

    windows = sorted({min(window, trainees.length) for window in WINDOWS})
    weight, window, rate = 0.0, windows[len(windows) // 2], 0.0
    for _ in range(2):
        weight = max(WEIGHTS, key=lambda x: earned(x, window, rate))
        window = max(windows, key=lambda x: earned(weight, x, rate))
        rate = max(FOLD_IN, key=lambda x: earned(weight, window, x))
    agent = MaximalMarginalRelevance(trainees.catalogue, weight, window, rate, slate_size)
    return agent, f"weight {weight:g}, window {window}, {fold_in_note(rate)}"


def search_rule(trainees: Trainees, budget: int) -> tuple[RuleWeights, int]:
    """The weights of `rule` with the highest mean return in the search, and the number of its steps.

    The search ends after ``budget`` environment steps (at least one round), or earlier for a large catalogue.
    The last candidates are the mean of the distribution and `mf`, each with and without fold-in.
    """
    budget = min(budget, STEPS_OF_SCORES // trainees.catalogue.num_items)
    device = trainees.generator.device
    mean, deviation = torch.tensor(START, device=device), torch.tensor(SPREAD, device=device)
    for_search = round(budget * (1 - FINAL))
    each = max(
        1, for_search // (CANDIDATES * trainees.interface.session_length * ROUNDS)
    )  # users of each candidate
    taken, done = 0, False
    while not done:
        noise = torch.randn(CANDIDATES, len(START), generator=trainees.generator, device=device)
        drawn = mean + deviation * noise  # (P, 6)
        drawn[0] = mean
        returns, steps = _play_each(trainees, _weights(drawn), trainees.draw(each))
        elite = drawn[returns.topk(ELITE).indices]  # (E, 6)
        mean = KEEP * mean + (1 - KEEP) * elite.mean(0)
        deviation = KEEP * deviation + (1 - KEEP) * elite.std(0)
        taken += steps
        done = taken + CANDIDATES * each * trainees.interface.session_length > for_search
    last = _weights(mean.repeat(4, 1))
    factor = torch.tensor([1.0, 1.0, 0.0, 0.0], device=device)  # two of rule, two of mf
    last = tree_map(lambda x: x * factor, last)
    off = torch.tensor([1.0, 0.0, 1.0, 0.0], device=device)
    last = dataclasses.replace(last, fold_in=mean[-1].clamp_min(0) * off)
    each = max(1, (budget - taken) // (4 * trainees.interface.session_length))
    returns, steps = _play_each(trainees, last, trainees.draw(each))
    return _pick(last, int(returns.argmax())), taken + steps


def rule_note(weights: RuleWeights, steps: int) -> str:
    """The weights as text, with the number of steps of the search."""
    names = [field.name for field in dataclasses.fields(RuleWeights)]
    values = {name: round(getattr(weights, name).item(), 2) + 0.0 for name in names}  # + 0.0: no -0.00
    rate = values.pop("fold_in")
    dials = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return f"{dials}, {fold_in_note(rate)}; searched with {steps:,} steps of training users"


def fold_in_note(rate: float) -> str:
    return f"fold-in on ({rate:.2g})" if rate > 0 else "fold-in off"


def _users(trainees: Trainees) -> Tensor:
    affordable = MAX_SCORES // (trainees.catalogue.num_items * trainees.length)
    return trainees.draw(max(8, min(MAX_USERS, affordable, len(trainees.population.train))))


def _play_each(trainees: Trainees, weights: RuleWeights, users: Tensor) -> tuple[Tensor, int]:
    """Mean return (P,) of each of P candidates with the same users (n,), and the number of steps."""
    num = len(weights.decay)
    rows = tree_map(lambda x: x.repeat_interleave(len(users)), weights)
    agent = Rule(trainees.catalogue, rows, trainees.interface.slate_size)
    sessions = trainees.play(agent, users.repeat(num))  # N = P * n
    return sessions.returns.view(num, -1).mean(1), int(sessions.lengths.sum())


def _weights(drawn: Tensor) -> RuleWeights:
    """Turn the search's numbers (P, 6) into weights of (P,) each."""
    popularity, quality, similarity, overlap, decay, rate = drawn.unbind(1)
    return RuleWeights(popularity, quality, similarity, overlap, decay.sigmoid(), rate.clamp_min(0))


def _pick(weights: RuleWeights, place: int) -> RuleWeights:
    return tree_map(lambda x: x[place].clone(), weights)

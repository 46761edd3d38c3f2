"""Hyperparameters of `mf`, `mmr` and the bandits, tuned on training users; held-out users are never used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.linear_bandit import BanditSettings, LinUCB
from recsys_rl.evaluation.rivals.rankers import MaximalMarginalRelevance, Rule, RuleWeights
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.protocols import Env, Policy
from recsys_rl.records import Heuristic
from recsys_rl.types import Action, Catalogue, Interface, Obs, Population, tree_map

FOLD_IN = (0.0, 0.05, 0.1, 0.2, 0.4)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WINDOWS = (1, 2, 3, 5, 10, 20)
EXPLORE = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of a bandit: alpha of LinUCB, scale of Thompson sampling
GAINS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
MAX_USERS = 128  # training users for each value of mf and mmr
MAX_SCORES = 2**27  # largest product of users, items and steps for one value: fewer users above 50,000 items


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

    @property
    def slate(self) -> BestSlate:
        """The rule by which scores become a slate of this environment."""
        return BestSlate.of(self.interface, self.catalogue)

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
    nothing = tree_map(lambda values: values.expand(len(rates)), RuleWeights.zeros())
    weights = dataclasses.replace(nothing, fold_in=rates)
    returns = play_each(trainees, weights, _users(trainees))
    best = int(returns.argmax())
    agent = Rule(trainees.catalogue, pick(weights, best), trainees.slate)
    return agent, fold_in_note(FOLD_IN[best])


def tune_mmr(trainees: Trainees) -> tuple[Policy, str]:
    """Maximal marginal relevance with the best hyperparameters, tuned one after another, and a note."""
    slate = trainees.slate
    if not trainees.interface.history_length and slate.size == 1:
        alone = MaximalMarginalRelevance(trainees.catalogue, 0.0, 1, 0.0)
        return alone, "the same as mf, because observations have no history here"
    users, tried = _users(trainees), {}

    def earned(weight: float, window: int, rate: float) -> float:
        settings = (weight, window, rate)
        if settings not in tried:
            agent = MaximalMarginalRelevance(trainees.catalogue, *settings, slate)
            tried[settings] = trainees.play(agent, users).returns.mean().item()
        return tried[settings]

    windows = sorted({min(window, trainees.length) for window in WINDOWS})
    weight, window, rate = 0.0, windows[len(windows) // 2], 0.0
    for _ in range(2):
        weight = max(WEIGHTS, key=lambda value: earned(value, window, rate))
        window = max(windows, key=lambda value: earned(weight, value, rate))
        rate = max(FOLD_IN, key=lambda value: earned(weight, window, value))
    agent = MaximalMarginalRelevance(trainees.catalogue, weight, window, rate, slate)
    return agent, f"weight {weight:g}, window {window}, {fold_in_note(rate)}"


def tune_bandit(
    trainees: Trainees, weights: Tensor, start: Tensor, make: Callable[[BanditSettings], Policy]
) -> tuple[BanditSettings, str]:
    """The best hyperparameters of a bandit, tuned one after another, and a note.

    Args:
        weights, start: as a LinearBandit takes them.
        make: makes the bandit with these numbers.
    """
    users, tried = _users(trainees), {}
    level = mean_answer(trainees, weights, start, users)

    def earned(explore: float, gain: float, ridge: float) -> float:
        settings = BanditSettings(explore, gain, ridge, level)
        if settings not in tried:
            tried[settings] = trainees.play(make(settings), users).returns.mean().item()
        return tried[settings]

    explore, gain, ridge = 0.0, 1.0, 1.0
    for _ in range(2):
        gain = max(GAINS, key=lambda value: earned(explore, value, ridge))
        ridge = max(RIDGES, key=lambda value: earned(explore, gain, value))
        explore = max(EXPLORE, key=lambda value: earned(value, gain, ridge))
    note = f"explore {explore:g}, gain {gain:g}, ridge {ridge:g}, level {level:.2g}"
    return BanditSettings(explore, gain, ridge, level), note


def mean_answer(trainees: Trainees, weights: Tensor, start: Tensor, users: Tensor) -> float:
    """Mean reward of an item, as a bandit reads it, in sessions of the ranking by profile."""
    never_learns = BanditSettings(explore=0.0, gain=1.0, ridge=1e6)
    heard = _Heard(LinUCB(trainees.catalogue, never_learns, weights, start, trainees.slate))
    trainees.play(heard, users)
    return heard.total / max(1, heard.count)


class _Heard:
    """A bandit that adds up the answers to the last item of each observation."""

    def __init__(self, bandit: LinUCB) -> None:
        self.bandit, self.total, self.count = bandit, 0.0, 0

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items, answers = self.bandit.answers(obs)  # (N, L) each
        last = items[:, -1] >= 0
        self.total += float(answers[last, -1].sum())
        self.count += int(last.sum())
        return self.bandit.act(obs)


def tune_heuristic(trainees: Trainees, heuristic: Heuristic) -> tuple[Policy, str]:
    """The setting of a trade's heuristic with the highest mean return, and a note."""
    users = _users(trainees)
    settings = heuristic.settings(trainees.catalogue, trainees.interface)
    earned = {name: trainees.play(agent, users).returns.mean().item() for name, agent in settings.items()}
    best = max(earned, key=earned.__getitem__)
    return settings[best], f"{heuristic.description} Tuned: {best}"


def fold_in_note(rate: float) -> str:
    return f"fold-in on ({rate:.2g})" if rate > 0 else "fold-in off"


def _users(trainees: Trainees) -> Tensor:
    affordable = MAX_SCORES // (trainees.catalogue.num_items * trainees.length)
    return trainees.draw(max(8, min(MAX_USERS, affordable, len(trainees.population.train))))


def play_each(trainees: Trainees, weights: RuleWeights, users: Tensor) -> Tensor:
    """Mean return (P,) of each of P candidates, which play the same users (n,)."""
    num = len(weights.decay)
    rows = tree_map(lambda values: values.repeat_interleave(len(users)), weights)
    agent = Rule(trainees.catalogue, rows, trainees.slate)
    returns = trainees.play(agent, users.repeat(num)).returns  # (N,), N = P * n
    return returns.view(num, -1).mean(1)


def pick(weights: RuleWeights, index: int) -> RuleWeights:
    return tree_map(lambda values: values[index].clone(), weights)

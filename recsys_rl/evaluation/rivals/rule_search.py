"""Search of the weights of `rule` on training users, with the agent's budget of steps.

First some STARTS play the same users. From the best one goes the cross-entropy method (Rubinstein and Kroese
2004): in each round, CANDIDATES are drawn from a normal distribution, all play the same users, and the
distribution moves to the best quarter of them. In short sessions of one item there are many rounds. In long
sessions and slates there are fewer, since users differ more than candidates do: a candidate that plays two
users of 200 steps shows little. In the end the last means and the starts play the rest of the budget, and the
best is taken, so that noise in the rounds can't make the result worse than a start.

All sessions of the search also count how often each item was the last before a user left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.data.attributes import zscore
from recsys_rl.evaluation.rivals.rankers import SHORTLIST, Rule, RuleWeights, scored_names
from recsys_rl.evaluation.rivals.tuning import Trainees, fold_in_note, pick
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Catalogue
from recsys_rl.user_columns import UserColumns

# First means of the weights, as in RuleWeights; decay as a logit.
STARTS = (
    (0.0, 0.0, 0.2, 0.1, 1.0, 0.1, 0.0),
    (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0),  # mf
    (0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0),  # like mmr
    (0.5, 0.5, 0.1, 0.1, 1.0, 0.1, 0.3),
    (1.0, 1.0, 0.1, 0.3, 1.0, 0.0, 0.5),  # nearly one list for everybody
    (-0.2, 0.3, 0.1, 0.1, 1.0, 0.1, 0.1),
)
SPREAD = (0.2, 0.2, 0.2, 0.1, 1.0, 0.2, 0.2)  # first deviations
FEATURES = 0.5  # the same, of the weight of a feature by name
CANDIDATES, ELITE = 24, 6
USERS, ROUNDS = 32, (5, 20)  # users of each candidate, if this gives a number of rounds in this range
MOST_USERS = 512  # of each candidate
KEEP = 0.3  # share of the old mean and deviation that is kept in each round
RACE, FINAL = 0.15, 0.25  # shares of the budget for the starts and for the choice in the end
LAST_MEANS = 3  # means of the last rounds that are tried again in the end
MOST_SCORES = 2**33  # most items scored again by the whole search: 8.6 million steps of a whole SHORTLIST
SHRINKAGE = 100.0  # sessions that an item's tags count for in its leave rate


@dataclass(frozen=True)
class SearchedRule:
    """The result of a search."""

    weights: RuleWeights
    leave_rates: Tensor  # (I,): leave rates as z-scores
    steps: int  # steps that the search took


@dataclass
class Trials:
    """Sessions of candidates, with the counts of all of them so far."""

    trainees: Trainees
    steps: int = 0
    sessions: int = 0
    shown: Tensor = field(init=False)  # (I,): sessions that showed the item
    last: Tensor = field(init=False)  # (I,): sessions that the user left after the item

    def __post_init__(self) -> None:
        self.shown = torch.zeros_like(self.trainees.catalogue.popularity)
        self.last = torch.zeros_like(self.shown)

    @property
    def length(self) -> float:
        """Mean steps of a session so far; the longest session before the first."""
        return self.steps / self.sessions if self.sessions else self.trainees.interface.session_length

    def play(self, drawn: Tensor, count: int) -> Tensor:
        """Mean returns (P,) of candidates ``drawn`` (P, 7 + X), which play the same ``count`` users."""
        trainees, num = self.trainees, len(drawn)
        users = trainees.draw(max(1, count))
        catalogue = trainees.catalogue
        names = scored_names(catalogue, trainees.interface)
        agent = Rule(
            catalogue,
            as_weights(drawn.repeat_interleave(len(users), 0), names),
            trainees.slate,
            self.leave_rates(),
            rerank=True,
            user_columns=self.user_columns,
        )
        sessions = trainees.play(agent, users.repeat(num))  # N = P * n
        self._count(sessions)
        return sessions.returns.view(num, -1).mean(1)

    @cached_property
    def user_columns(self) -> UserColumns:
        return UserColumns.of(self.trainees.interface, self.trainees.catalogue)

    def leave_rates(self) -> Tensor:
        """(I,): z-scores of ``leave_rates`` of the sessions so far."""
        return zscore(leave_rates(self.trainees.catalogue, self.shown, self.last))

    def _count(self, sessions: Sessions) -> None:
        items, lengths = sessions.items, sessions.lengths  # (T, N, K), (N,)
        self.steps += int(lengths.sum())
        self.sessions += len(lengths)
        ends = items[lengths - 1, torch.arange(len(lengths), device=items.device)]  # (N, K)
        self.shown += _occurrences(items, len(self.shown))
        self.last += _occurrences(ends[sessions.left], len(self.shown))


def leave_rates(catalogue: Catalogue, shown: Tensor, last: Tensor) -> Tensor:
    """Share (I,) of the sessions that ended after each item, shrunk to the mean of its tags.

    It is ``(last + SHRINKAGE of_tags) / (shown + SHRINKAGE)``; ``of_tags`` is the mean rate of the tags, each
    over all items with this tag, or the rate of all items for an item without tags. ``shown`` and ``last``
    (I,) are numbers of sessions.
    """
    overall = last.sum() / shown.sum().clamp_min(1)
    tags = catalogue.tags  # (I, G)
    of_tag = (last @ tags + SHRINKAGE * overall) / (shown @ tags + SHRINKAGE)  # (G,)
    number = tags.sum(1)  # (I,)
    of_tags = torch.where(number > 0, tags @ of_tag / number.clamp_min(1), overall)
    return (last + SHRINKAGE * of_tags) / (shown + SHRINKAGE)


def search_rule(trainees: Trainees, budget: int) -> SearchedRule:
    """The weights with the highest mean return of a search with about ``budget`` environment steps.

    Steps beyond MOST_SCORES are left out. At least one user plays each candidate of one round.
    """
    budget = most_steps(trainees, budget)
    device, trials = trainees.generator.device, Trials(trainees)
    names = scored_names(trainees.catalogue, trainees.interface)
    starts = torch.nn.functional.pad(torch.tensor(STARTS, device=device), (0, len(names)))
    deviation = torch.tensor((*SPREAD, *(FEATURES for _ in names)), device=device)

    def affordable(steps: float, candidates: int) -> int:  # users of each candidate
        return min(MOST_USERS, int(steps / (candidates * trials.length)))

    first = trials.play(starts, affordable(RACE * budget, len(starts)))
    mean = starts[int(first.argmax())]  # (7,)
    means: list[Tensor] = []
    end = (1 - FINAL) * budget
    rounds = round((end - trials.steps) / (CANDIDATES * USERS * trials.length))
    for remaining in range(min(max(rounds, ROUNDS[0]), ROUNDS[1]), 0, -1):
        count = affordable((end - trials.steps) / remaining, CANDIDATES)
        if count < 1 and means:  # below 0 where longer sessions than before took more than their share
            break
        noise = torch.randn(CANDIDATES, len(mean), generator=trainees.generator, device=device)
        drawn = mean + deviation * noise  # (P, 7 + X)
        drawn[0] = mean
        elite = drawn[trials.play(drawn, count).topk(ELITE).indices]  # (E, 7 + X)
        mean = KEEP * mean + (1 - KEEP) * elite.mean(0)
        deviation = KEEP * deviation + (1 - KEEP) * elite.std(0)
        means.append(mean)
    last = torch.stack([*means[-LAST_MEANS:], *starts[first.topk(2).indices]])  # (P, 7 + X)
    without = torch.stack([mean, mean])
    without[0, FOLD_IN], without[1, LEAVING] = 0, 0
    last = torch.cat([last, without])
    rates = trials.leave_rates()
    most = trainees.interface.session_length
    returns = trials.play(last, int(max(0, budget - trials.steps) // (len(last) * most)))
    return SearchedRule(pick(as_weights(last, names), int(returns.argmax())), rates, trials.steps)


def most_steps(trainees: Trainees, budget: int) -> int:
    """``budget``, or the steps in which MOST_SCORES are scored if these are fewer."""
    items = trainees.catalogue.num_items
    return min(budget, MOST_SCORES // (items if trainees.slate.patterns else min(items, SHORTLIST)))


FOLD_IN, LEAVING = (
    [entry.name for entry in dataclasses.fields(RuleWeights)].index(name) for name in ("fold_in", "leaving")
)


def as_weights(drawn: Tensor, features: Sequence[str] = ()) -> RuleWeights:
    """Turn the search's numbers (..., 7 + X) into weights of (...) each; ``features`` are the X names."""
    own, of_features = drawn[..., : len(SPREAD)].unbind(-1), drawn[..., len(SPREAD) :].unbind(-1)
    weights = RuleWeights(*own, features=dict(zip(features, of_features, strict=True)))
    return dataclasses.replace(weights, decay=weights.decay.sigmoid(), fold_in=weights.fold_in.clamp_min(0))


def rule_note(weights: RuleWeights, steps: int) -> str:
    """The weights as text, with the number of steps of the search."""
    of_names = {**vars(weights), **weights.features}
    del of_names["features"]
    values = {name: round(value.item(), 2) + 0.0 for name, value in of_names.items()}  # + 0.0: no -0.00
    rate = values.pop("fold_in")
    settings = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return f"{settings}, {fold_in_note(rate)}; searched with {steps:,} steps of training users"


def _occurrences(items: Tensor, num_items: int) -> Tensor:
    """(I,): how often each item is in ``items``; -1 is padding."""
    return torch.bincount(items.flatten() + 1, minlength=num_items + 1)[1:].float()

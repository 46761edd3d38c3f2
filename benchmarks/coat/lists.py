"""Policies of the Coat game without a network: lists for everyone, and a reader of the session's ratings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.types import Action, Obs

SWAPS = 4000  # of the search for one list


@dataclass(frozen=True)
class Rules:
    """When a session ends, and its length."""

    close: Tensor  # (I, I) bool: items that end a session within a window of each other
    window: int
    length: int
    repeats: bool


def greedy_list(scores: Tensor, rules: Rules) -> Tensor:
    """The best items by ``scores`` (I,) in turn, each not close to the window before it: (T,) int64."""
    chosen: list[int] = []
    order = scores.argsort(descending=True, stable=True).tolist()
    for _ in range(rules.length):
        item = next((candidate for candidate in order if _fits(chosen, candidate, len(chosen), rules)), None)
        if item is None:  # every item ends the session: the best of the others
            item = next(candidate for candidate in order if rules.repeats or candidate not in chosen)
        chosen.append(item)
    return torch.tensor(chosen)


def searched_list(scores: Tensor, rules: Rules, seed: int) -> Tensor:
    """The greedy list after SWAPS trials of another item at a place, kept if the sum of scores rises.

    All users leave at the same items, so a list that ends no session is worth its sum, whoever the user is.
    """
    best = greedy_list(scores, rules).tolist()
    noise = torch.Generator().manual_seed(seed)
    order = scores.argsort(descending=True, stable=True)
    # Items of the upper part: a worse one can't raise the sum.
    upper = order[: max(4 * rules.length, 1)].tolist()
    places = torch.randint(len(best), (SWAPS,), generator=noise).tolist()
    chosen = torch.randint(len(upper), (SWAPS,), generator=noise).tolist()
    for index, at in zip(places, chosen, strict=True):
        item = upper[at]
        if scores[item] > scores[best[index]] and _fits(best, item, index, rules):
            best[index] = item
    return torch.tensor(best)


def _fits(items: list[int], item: int, index: int, rules: Rules) -> bool:
    """True if ``item`` at this ``place`` of the list ends no session and repeats nothing."""
    if not rules.repeats and item in items:
        return False
    around = items[max(0, index - rules.window) : index] + items[index + 1 : index + 1 + rules.window]
    return not bool(rules.close[item, around].any()) if around else True


class Steps:
    """Shows everyone the same list, by its own count of the steps since ``play`` began."""

    def __init__(self, items: Tensor) -> None:
        self.items, self.step = items, 0

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        item = self.items[min(self.step, len(self.items) - 1)]
        self.step += 1
        return Action.certain(item.expand(obs.num_rows, 1))


class BayesReader:
    """The best item by the posterior over the training users, given the ratings of the session.

    A user is one of the training users u, each with the same prior probability, and rates item i as
    R[u, i] + b + noise, with normal noise and a level b of which nothing is known. With the residuals
    d_k = rating_k - R[u, i_k] of n ratings the posterior is proportional to
    exp(-sum_k (d_k - mean d)^2 / (2 deviation^2)). Items that would end the session are left out.
    """

    def __init__(self, ratings: Tensor, rules: Rules, deviation: float, last: int) -> None:
        """``ratings`` (U, I) of the training users; ``last``: number of latest ratings that are read."""
        self.ratings, self.rules, self.deviation, self.last = ratings, rules, deviation, last
        self.level = ratings.mean(1, keepdim=True)  # (U, 1)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert obs.history is not None and obs.signals is not None
        history, seen = obs.history[:, -self.last :], obs.signals[:, -self.last :, 0]  # (N, L)
        there = (history >= 0).unsqueeze(0)  # (1, N, L)
        rest = (seen - self.ratings[:, history.clamp_min(0)]) * there  # (U, N, L)
        mean = rest.sum(2, keepdim=True) / there.sum(2, keepdim=True).clamp_min(1)
        error = ((rest - mean) * there).square().sum(2)  # (U, N)
        weight = (-error / (2 * self.deviation**2)).softmax(0)  # (U, N)
        scores = weight.T @ (self.ratings - self.level)  # (N, I)
        recent = obs.history[:, -self.rules.window :]  # (N, W)
        ends = (self.rules.close[recent.clamp_min(0)] & (recent >= 0).unsqueeze(2)).any(1)  # (N, I)
        scores = scores.masked_fill(ends, -1e6).masked_fill(~obs.allowed(scores.shape[1]), -torch.inf)
        return Action.certain(scores.argmax(1, keepdim=True))

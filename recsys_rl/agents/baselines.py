"""The simple alternatives that stand in every table: what a recommender can do without learning per user.

They know the training users at most, never the user before them. Who beats only `random` has shown
nothing; who doesn't beat `static-list` could be replaced by a printed page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional import categorical, top_k
from recsys_rl.protocols import PatientUsers, Policy, Simulator, UserModel
from recsys_rl.types import Action, Catalogue, Obs

PRICES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Rewards per unit of patience that `static-list` tries."""
MAX_USERS = 2048
"""Training users that a list is made from; more (evenly thinned out) cost time and change nothing."""
MAX_SCORES = 2**32
"""Of users, items, positions and prices behind `static-list`: fewer users where there are many items."""
MIN_USERS = 64


class RandomPolicy:
    """Every allowed alternative with the same probability, greedy or not."""

    def __init__(self, action_sizes: tuple[int, ...], generator: torch.Generator) -> None:
        """``action_sizes``: alternatives of each position; ``(num_items,)`` shows one item of a catalogue."""
        self.action_sizes = action_sizes
        self.generator = generator

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items, logprob = [], obs.context.new_zeros(obs.num_rows)
        for size in self.action_sizes:
            if obs.mask is None:
                item, log_p = categorical.uniform(
                    obs.num_rows, size, obs.exclude, self.generator
                )  # (N,) each
            else:
                logits = categorical.mask_logits(obs.context.new_zeros(obs.num_rows, size), obs.allowed(size))
                item = categorical.sample(logits, self.generator)  # (N,)
                log_p = categorical.logprob(logits, item)
            logprob = logprob + log_p
            items.append(item)
        return Action(torch.stack(items, -1), logprob)


class FixedList:
    """Shows everyone the same items in the same order, and stays at the last one.

    The position is the number of items in ``obs.history``, so that users may be at different steps.
    Where items may repeat, an observation has no history, and the first item is shown for ever.
    """

    def __init__(self, items: Tensor) -> None:
        """``items`` (T,) int64. One item alone is shown at every step, be it allowed or not."""
        self.items = items

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        position = torch.zeros(obs.num_rows, dtype=torch.int64, device=self.items.device)
        if obs.history is not None:
            position = (obs.history >= 0).sum(1).clamp_max(len(self.items) - 1)  # (N,)
        return Action(self.items[position].unsqueeze(-1), obs.context.new_zeros(obs.num_rows))


def most_popular(catalogue: Catalogue, length: int) -> Tensor:
    """The available items that most training users liked, the best liked first: (T,), ``length`` at most."""
    order = catalogue.popularity.sort(descending=True, stable=True).indices  # (I,)
    return order[catalogue.available[order]][:length]


def best_single(user_model: UserModel, catalogue: Catalogue, users: Tensor) -> Tensor:
    """The item with the highest mean first reward over ``users``, (1,).

    Where a shown item pulls each user towards itself by the same amount, it is also the best item to repeat
    for a whole session.
    """
    user_state = user_model.sample(users)
    blocks = top_k.blocks(len(users), catalogue.num_items)
    first = torch.cat([user_model.expected_reward(user_state, block).mean(0) for block in blocks])  # (I,)
    return first.masked_fill(~catalogue.available, -torch.inf).argmax(0, keepdim=True)


def static_list(user_model: UserModel, catalogue: Catalogue, users: Tensor, length: int) -> Tensor:
    """The best list for ``users`` (N,) that a greedy search finds: (T,) int64, ``length`` items at most.

    The candidates are `popularity` and, for each price of patience in PRICES, the list that takes at
    each position the item with the highest sum, over the users who are still there, of expected
    reward plus price times expected change of patience. The one with the highest mean return in the
    simulator, without noise, is kept.
    """
    prices = PRICES if isinstance(user_model, PatientUsers) else (0.0,)
    candidates = [most_popular(catalogue, length)]
    candidates += [greedy_list(user_model, catalogue, users, length, price) for price in prices]
    returns = torch.stack([mean_return(user_model, users, items) for items in candidates])
    return candidates[int(returns.argmax())]


def greedy_list(
    user_model: UserModel, catalogue: Catalogue, users: Tensor, length: int, price: float
) -> Tensor:
    """The list of static_list for one price of patience, (T,) int64."""
    user_state = user_model.sample(users)
    present = torch.ones(len(users), device=users.device)  # (N,)
    allowed = catalogue.available.clone()  # (I,)
    items: list[Tensor] = []
    for _ in range(length if user_model.repeats else min(length, int(allowed.sum()))):
        blocks = top_k.blocks(len(users), catalogue.num_items)
        scores = torch.cat(
            [present @ appeal(user_model, user_state, block, price) for block in blocks]
        )  # (I,)
        item = scores.masked_fill(~allowed, -torch.inf).argmax()
        allowed[item] = user_model.repeats
        items.append(item)
        user_state, _, leaves = show(user_model, user_state, item.expand(len(users), 1))
        present = present * ~leaves
    return torch.stack(items)


def appeal(user_model: UserModel, user_state: Any, block: slice, price: float) -> Tensor:
    """Expected reward of each item of the block, plus price times expected change of patience, (N, b)."""
    if not isinstance(user_model, PatientUsers):
        return user_model.expected_reward(user_state, block)
    reward, patience = user_model.prospects(user_state, block)
    return reward + price * patience


def mean_return(user_model: UserModel, users: Tensor, items: Iterable[Tensor]) -> Tensor:
    """Expected return of showing ``items`` (T,) in turn, averaged over ``users`` (N,): a scalar."""
    user_state = user_model.sample(users)
    present = torch.ones(len(users), device=users.device)  # (N,)
    total = torch.zeros_like(present)
    for item in items:
        user_state, reward, leaves = show(user_model, user_state, item.expand(len(users), 1))
        total = total + present * reward
        present = present * ~leaves
    return total.mean()


def show(user_model: UserModel, user_state: Any, items: Tensor) -> tuple[Any, Tensor, Tensor]:
    """Show ``items`` (N, 1), without noise: the state afterwards, reward (N,), who leaves (N,)."""
    feedback = user_model.respond(user_state, items, torch.zeros_like(items, dtype=torch.bool), None)
    user_state, leaves = user_model.advance(user_state, items, feedback)
    return user_state, feedback.engagement[:, 0], leaves


def simple_baselines(simulator: Simulator, users: Tensor, generator: torch.Generator) -> dict[str, Policy]:
    """The rows of the table that learn nothing, in its order.

    ``users`` (N,) are the training users' rows of the population; ``generator`` draws `random`.
    """
    user_model, catalogue, length = (
        simulator.user_model,
        simulator.catalogue,
        simulator.config.max_episode_steps,
    )
    some = users[:: -(-len(users) // MAX_USERS)]
    prices = len(PRICES) if isinstance(user_model, PatientUsers) else 1
    affordable = max(MIN_USERS, MAX_SCORES // (catalogue.num_items * length * prices))
    fewer = some[:: -(-len(some) // affordable)]
    return {
        "random": RandomPolicy((catalogue.num_items,), generator),
        "popularity": FixedList(most_popular(catalogue, length)),
        "one-item": FixedList(best_single(user_model, catalogue, some)),
        "static-list": FixedList(static_list(user_model, catalogue, fewer, length)),
    }

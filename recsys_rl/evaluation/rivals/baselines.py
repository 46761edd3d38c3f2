"""The simple baselines of every table: recommenders that adapt to no single user.

They use the training users at most, never the present user. A policy that beats only `random` shows
nothing. A policy that does not beat `static-list` is no better than one fixed list for everybody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import SINGLE, BestSlate
from recsys_rl.functional import categorical, top_k
from recsys_rl.functional.patterns import Layout, Patterns
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.objective.weighted import stream_weights, weighted
from recsys_rl.protocols import CostlyUsers, ForbiddingUsers, PatientUsers, Policy, Simulator, UserModel
from recsys_rl.types import Action, Catalogue, Interface, Obs

PRICES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Rewards per unit of patience that `static-list` tries."""
MAX_USERS = 2048
"""Most training users that a list is made from. Of more users, every n-th is taken: all of them would cost
time and change nothing."""
MAX_SCORES = 2**28
"""Largest product of users, items, positions and prices behind `static-list`, and of the cost of a score if
it is not that of equations (protocols.CostlyUsers): many items or networks, fewer users."""
MIN_USERS = 64


class RandomPolicy:
    """Draws each allowed alternative with the same probability, greedy or not; no item twice in a slate.

    A place of a slate stays empty, -1, if no item is left for it.
    """

    def __init__(
        self, action_sizes: tuple[int, ...], generator: torch.Generator, slate_size: int = 1
    ) -> None:
        """Make the policy.

        Args:
            action_sizes: alternatives of each choice; ``(num_items,)`` for items of a catalogue.
            slate_size: K, the number of different items of the catalogue that each step shows.
        """
        self.sizes = action_sizes * slate_size  # (K,)
        self.slate_size = slate_size
        self.generator = generator

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        if obs.candidates is not None:
            logits = torch.zeros_like(obs.candidates, dtype=torch.float32)
            logits.masked_fill_(obs.candidates < 0, -torch.inf)  # (N, C)
            places, log_p = PlackettLuce(logits, len(self.sizes)).draw(self.generator)
            return Action(obs.items_at(places), log_p, candidates=obs.candidates)
        items, logprob = [], obs.context.new_zeros(obs.num_rows)
        for size in self.sizes:
            if obs.mask is None:
                item, log_p = categorical.uniform(
                    obs.num_rows, size, obs.exclude, self.generator
                )  # (N,) each
            else:
                allowed = obs.allowed(size)  # (N, I)
                logits = categorical.mask_logits(obs.context.new_zeros(obs.num_rows, size), allowed)
                item = categorical.sample(logits, self.generator)  # (N,)
                log_p = categorical.logprob(logits, item)
            if self.slate_size > 1:
                # No item is left for this place.
                empty = item >= size if obs.mask is None else ~allowed.any(1)
                item, log_p = item.masked_fill(empty, -1), log_p.masked_fill(empty, 0.0)
            logprob = logprob + log_p
            items.append(item)
            if self.slate_size > 1:
                taken = (
                    item.unsqueeze(1) if obs.exclude is None else torch.cat([obs.exclude, item[:, None]], 1)
                )
                obs = dataclasses.replace(obs, exclude=taken)  # (N, X + places filled)
        return Action(torch.stack(items, -1), logprob)

    def logprob(self, obs: Obs, items: Tensor) -> Tensor:
        """Log-probability (N,) of showing ``items`` (N, K) of a catalogue."""
        return self.place_logprobs(obs, items).sum(1)

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob``: -log of the number of items left for each place.

        -inf for an item that may not be shown or is in the slate twice, and for an empty place (-1) if there
        are items left for it; 0 for an empty place without items left.
        """
        if obs.candidates is not None:
            left = (obs.candidates >= 0).sum(1)  # (N,)
            possible = (obs.candidates.unsqueeze(1) == items.unsqueeze(2)).any(-1)  # (N, K)
        elif obs.mask is not None:
            allowed = obs.allowed(self.sizes[0])  # (N, I)
            left, possible = allowed.sum(1), allowed.gather(1, items.clamp_min(0))
        else:
            left = torch.full_like(items[:, 0], self.sizes[0])
            possible = torch.ones_like(items, dtype=torch.bool)
            if obs.exclude is not None:
                ids = obs.exclude.sort(1).values  # (N, X)
                first = torch.ones_like(ids, dtype=torch.bool)
                first[:, 1:] = ids[:, 1:] != ids[:, :-1]
                left = left - (first & (ids >= 0)).sum(1)
                possible = ~(ids.unsqueeze(1) == items.unsqueeze(2)).any(-1)
        logprobs = []
        for index, item in enumerate(items.unbind(1)):  # (N,)
            here = left - index
            repeated = (items[:, :index] == item.unsqueeze(1)).any(1)
            fits = possible[:, index] & (item >= 0) & ~repeated
            log_p = torch.where(fits, -here.clamp_min(1).double().log(), -torch.inf)
            logprobs.append(log_p.masked_fill((item < 0) & (here <= 0), 0.0))
        return torch.stack(logprobs, 1)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: equal for the items that may be shown; for policies of single items."""
        allowed = obs.showable(num_items)
        return allowed.double() / allowed.sum(1, keepdim=True).clamp_min(1)


class RandomSlates:
    """Draws each pattern of kinds with the same probability, then for each place an allowed item of its kind.

    Such slates are those that the place shows (``PatternedUsers``). All places stay empty, -1, where no
    pattern can be filled.
    """

    def __init__(self, slate: BestSlate, generator: torch.Generator) -> None:
        """``slate``: patterns and kinds of the items."""
        assert slate.kinds is not None
        kinds = slate.kinds.cpu()
        self.layout = Layout(slate.patterns, kinds, torch.full_like(kinds, -1))
        self.generator = generator

    def _slates(self, obs: Obs) -> Patterns:
        scores = obs.context.new_zeros(obs.num_rows, len(self.layout.kinds))
        scores.masked_fill_(~obs.showable(scores.shape[1]), -torch.inf)  # (N, I)
        gates = scores.new_zeros(obs.num_rows, len(self.layout.patterns))
        return Patterns(gates, scores, scores.new_zeros(()), self.layout)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        slates = self._slates(obs)
        enough = slates.enough  # (N,)
        items = slates.only(enough).draw(self.generator)[0].masked_fill(~enough.unsqueeze(1), -1)
        return Action(items, self._terms(slates, items).sum(1).float())

    def logprob(self, obs: Obs, items: Tensor) -> Tensor:
        """Log-probability (N,) of showing the slates ``items`` (N, K)."""
        return self.place_logprobs(obs, items).sum(1)

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """The terms (N, K) float64 of ``logprob``: 0 at the empty places of a row without a pattern."""
        return self._terms(self._slates(obs), items)

    @staticmethod
    def _terms(slates: Patterns, items: Tensor) -> Tensor:
        enough = slates.enough
        empty = ~enough.unsqueeze(1) & (items < 0)
        terms = slates.only(enough).place_logprobs(items.clamp_min(0))
        return terms.masked_fill(items < 0, -torch.inf).masked_fill(empty, 0.0)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: those of the first place."""
        return self._slates(obs).logits.double().exp()


def random_policy(
    slate: BestSlate, num_items: int, generator: torch.Generator
) -> RandomPolicy | RandomSlates:
    """The policy that draws each slate of this form with the same probability."""
    if slate.kinds is not None:
        return RandomSlates(slate, generator)
    return RandomPolicy((num_items,), generator, slate.size)


class FixedList:
    """Shows everyone the same items in the same order, K at a step, and repeats the last K at the end.

    The position in the list is the number of items in ``obs.exclude`` (or else in ``obs.history``), so users
    may be at different steps. If an observation has neither, every step shows the first K items. Where items
    repeat and the history is shorter than a session, it is the step by the clock in the context, or else the
    number of calls since the user's history was empty. If an item
    at this position may not be shown, as another policy has shown it or the step forbids it, the first K of
    the list that may be shown take the places, or else the first K of the catalogue.
    """

    def __init__(self, items: Tensor, slate_size: int = 1, interface: Interface | None = None) -> None:
        """``items`` (T,) int64. Every further step shows the last K, even if they are not allowed.

        If there are fewer than K items, the last places of the slate stay empty. ``interface`` is that
        of the observations, for their clock.
        """
        self.clock = None if interface is None else _clock(interface)
        self.forgets = interface is not None and self.clock is None and _forgets(interface)
        self.steps: Tensor | None = None  # (N,): calls of each row, where the history forgets
        self.items = torch.nn.functional.pad(items, (0, max(0, slate_size - len(items))), value=-1)
        self.slate_size = slate_size

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        position = torch.zeros(obs.num_rows, dtype=torch.int64, device=self.items.device)
        shown = obs.history if obs.exclude is None else obs.exclude  # (N, X)
        if obs.exclude is None and self.clock is not None:
            column, length = self.clock
            step = (obs.context[:, column] * length).round().long()
            position = (step * self.slate_size).clamp_max(len(self.items) - self.slate_size)
        elif shown is not None and self.forgets:
            position = (self._count(shown) * self.slate_size).clamp_max(len(self.items) - self.slate_size)
        elif shown is not None:
            position = (shown >= 0).sum(1).clamp_max(len(self.items) - self.slate_size)  # (N,)
        places = torch.arange(self.slate_size, device=position.device)  # (K,)
        items = self.items[position.unsqueeze(1) + places]  # (N, K)
        taken = torch.zeros_like(items, dtype=torch.bool)
        if obs.exclude is not None:
            taken = (obs.exclude.unsqueeze(1) == items.unsqueeze(2)).any(-1)  # (N, K)
        if obs.mask is not None:
            taken |= ~obs.mask.gather(1, items.clamp_min(0))
        rows = (taken & (items >= 0)).any(1).nonzero().squeeze(1)  # (R,)
        if len(rows):
            items[rows] = self._next_allowed(obs.rows(rows), items[rows])
        return Action.certain(items)

    def _next_allowed(self, obs: Obs, items: Tensor) -> Tensor:
        """The first K allowed items of the list, or of the catalogue; ``items`` (R, K) if fewer are left."""
        left = (self.items >= 0).repeat(len(items), 1)  # (R, T)
        if obs.exclude is not None:
            for shown in obs.exclude.unbind(1):
                left &= self.items != shown.unsqueeze(1)
        if obs.mask is not None:
            left &= obs.mask[:, self.items.clamp_min(0)]
        enough = left.sum(1, keepdim=True) >= self.slate_size
        if obs.mask is not None and not bool(enough.all()):
            anything = obs.allowed(obs.mask.shape[1])  # (R, I)
            allowed = torch.where(enough, self.items[self._first(left)], self._first(anything))
            left, enough = anything, enough | (anything.sum(1, keepdim=True) >= self.slate_size)
        else:
            allowed = self.items[self._first(left)]
        return torch.where(enough, allowed, items)

    def _first(self, left: Tensor) -> Tensor:
        """The first K places (R, K) at which ``left`` (R, T) is True."""
        return left.int().sort(dim=1, descending=True, stable=True).indices[:, : self.slate_size]

    def _count(self, history: Tensor) -> Tensor:
        """(N,): steps before this one, by own count; a row starts anew where its history is empty."""
        shown = (history >= 0).sum(1) // self.slate_size  # (N,)
        counted = self.steps if self.steps is not None and len(self.steps) == len(shown) else shown - 1
        self.steps = torch.where(shown == 0, 0, torch.maximum(counted + 1, shown))
        return self.steps


def _forgets(interface: Interface) -> bool:
    """True if the history is shorter than a session, of shown items and not of events."""
    session_items = interface.session_length * interface.slate_size
    return 0 < interface.history_length < session_items and not interface.events


def _clock(interface: Interface) -> tuple[int, int] | None:
    """The place of the clock in the context, and the steps of a session; None where the history tells both.

    Also None without a clock.
    """
    session_items = interface.session_length * interface.slate_size
    if interface.history_length >= session_items and not interface.events:
        return None
    if "clock" not in (name for name, _ in interface.context):
        return None
    return interface.place_of("clock").start, interface.session_length


def most_popular(catalogue: Catalogue, length: int, slate: BestSlate = SINGLE) -> Tensor:
    """The available items that most training users liked, the best liked first: (T K,).

    With patterns, ``length`` slates of the best liked of each kind; a kind with fewer items repeats them.
    Otherwise as many items as fit in ``length`` slates, or all.
    """
    if slate.kinds is None:
        order = catalogue.popularity.sort(descending=True, stable=True).indices  # (I,)
        return order[catalogue.available[order]][: length * slate.size]
    left, kinds = catalogue.available.clone(), slate.kinds
    once = kinds[catalogue.available].bincount(minlength=int(kinds.max()) + 1) >= length  # (kinds,)
    slates = []
    for _ in range(length):
        best = _best_slate(catalogue.popularity, left, slate)  # (K,)
        shown = best[best >= 0]
        left[shown] &= ~once[kinds[shown]]
        slates.append(best)
    return torch.cat(slates)


def best_first(user_model: UserModel, catalogue: Catalogue, users: Tensor) -> Tensor:
    """The K items with the highest mean first reward over ``users``, (K,).

    If a shown item moves every user towards itself by the same amount, the best of them is also the best
    item to repeat for a whole session.
    """
    user_state = user_model.sample(users)
    blocks = top_k.blocks(len(users), catalogue.num_items)
    first = torch.cat(  # (I,)
        [
            _where_permitted(
                user_model, user_state, block, user_model.expected_reward(user_state, block)
            ).mean(0)
            for block in blocks
        ]
    )
    return _best_slate(first, catalogue.available, BestSlate.of_users(user_model, catalogue))


def static_list(user_model: UserModel, catalogue: Catalogue, users: Tensor, length: int) -> Tensor:
    """The best list for ``users`` (N,) that a greedy search finds: (T K,) int64, ``length`` steps at most.

    The candidates are `popularity` and one list for each price of patience in PRICES. At each step such a
    list takes the K items with the highest score. The score is the sum, over the users who are still
    present, of the expected reward plus the price times the expected change of patience. The candidate with
    the highest mean return in the simulator without noise is kept.
    """
    prices = PRICES if isinstance(user_model, PatientUsers) else (0.0,)
    candidates = [most_popular(catalogue, length, BestSlate.of_users(user_model, catalogue))]
    candidates += [greedy_list(user_model, catalogue, users, length, price) for price in prices]
    returns = torch.stack([mean_return(user_model, users, items) for items in candidates])
    return candidates[int(returns.argmax())]


def greedy_list(
    user_model: UserModel, catalogue: Catalogue, users: Tensor, length: int, price: float
) -> Tensor:
    """One candidate of ``static_list``, for one price of patience: (T K,) int64."""
    places = BestSlate.of_users(user_model, catalogue)
    user_state = user_model.sample(users)
    present = torch.ones(len(users), device=users.device)  # (N,)
    allowed = catalogue.available.clone()  # (I,)
    items: list[Tensor] = []
    most_steps = max(1, int(allowed.sum()) // places.size)
    for _ in range(length if user_model.repeats else min(length, most_steps)):
        blocks = top_k.blocks(len(users), catalogue.num_items)
        scores = torch.cat(
            [present @ appeal(user_model, user_state, block, price) for block in blocks]
        )  # (I,)
        slate = _best_slate(scores, allowed, places)  # (K,)
        allowed[slate[slate >= 0]] = user_model.repeats
        items.append(slate)
        user_state, _, leaves = show(user_model, user_state, slate.expand(len(users), -1))
        present = present * ~leaves
    return torch.cat(items)


def _best_slate(scores: Tensor, allowed: Tensor, slate: BestSlate) -> Tensor:
    """The slate (K,) of the allowed items by ``scores`` (I,), with -1 in places without an allowed item."""
    return slate.best(scores.masked_fill(~allowed, -torch.inf).unsqueeze(0)).squeeze(0)


def appeal(user_model: UserModel, user_state: Any, block: slice, price: float) -> Tensor:
    """Expected reward of each item of the block, plus price times expected change of patience, (N, b).

    It is 0 for an item that the step forbids.
    """
    if not isinstance(user_model, PatientUsers):
        return _where_permitted(user_model, user_state, block, user_model.expected_reward(user_state, block))
    reward, patience = user_model.prospects(user_state, block)
    return _where_permitted(user_model, user_state, block, reward + price * patience)


def _where_permitted(user_model: UserModel, user_state: Any, block: slice, scores: Tensor) -> Tensor:
    """``scores`` (N, b) of a block of items, 0 where the step forbids the item."""
    if not isinstance(user_model, ForbiddingUsers):
        return scores
    items = torch.arange(block.start, block.start + scores.shape[1], device=scores.device)
    return scores * user_model.permits(user_state, items.expand(len(scores), -1))


def mean_return(user_model: UserModel, users: Tensor, items: Tensor) -> Tensor:
    """Expected return of showing ``items`` (T K,) in turn, averaged over ``users`` (N,): a scalar."""
    user_state = user_model.sample(users)
    present = torch.ones(len(users), device=users.device)  # (N,)
    total = torch.zeros_like(present)
    for slate in items.split(user_model.slate_size):  # (K,) each
        user_state, reward, leaves = show(user_model, user_state, slate.expand(len(users), -1))
        total = total + present * reward
        present = present * ~leaves
    return total.mean()


def show(user_model: UserModel, user_state: Any, items: Tensor) -> tuple[Any, Tensor, Tensor]:
    """Show ``items`` (N, K) without noise: the next state, reward (N,) and leaving users (N,) bool.

    Places with -1, and those of items that the step forbids, are empty.
    """
    shown, items = items >= 0, items.clamp_min(0)
    if isinstance(user_model, ForbiddingUsers):
        shown = shown & user_model.permits(user_state, items)
    feedback = user_model.respond(user_state, items, shown, None)
    user_state, leaves = user_model.advance(user_state, items, feedback)
    reward = weighted(user_model.rewards(feedback), stream_weights(user_model.streams))
    return user_state, reward, leaves


def simple_baselines(simulator: Simulator, users: Tensor, generator: torch.Generator) -> dict[str, Policy]:
    """The baselines without learning, in the order of the table.

    Args:
        users: (N,) rows of the training users in the population.
        generator: draws the actions of `random`.
    """
    return {name: make() for name, make in baseline_makers(simulator, users, generator).items()}


def untried_makers(
    catalogue: Catalogue, interface: Interface, generator: torch.Generator
) -> dict[str, Callable[[], Policy]]:
    """Functions that make the baselines for which no user is asked."""
    length, slate_size = interface.session_length, interface.slate_size
    slate = BestSlate.of(interface, catalogue)
    return {
        "random": lambda: random_policy(slate, catalogue.num_items, generator),
        "popularity": lambda: FixedList(most_popular(catalogue, length, slate), slate_size, interface),
    }


def baseline_makers(
    simulator: Simulator, users: Tensor, generator: torch.Generator
) -> dict[str, Callable[[], Policy]]:
    """Functions that make ``simple_baselines`` one by one: `static-list` takes most of the time."""
    user_model, catalogue = simulator.user_model, simulator.catalogue
    interface = simulator.interface
    length, slate_size = interface.session_length, interface.slate_size
    some = users[:: -(-len(users) // MAX_USERS)]
    prices = len(PRICES) if isinstance(user_model, PatientUsers) else 1
    cost = user_model.score_cost if isinstance(user_model, CostlyUsers) else 1
    affordable = max(MIN_USERS, MAX_SCORES // (catalogue.num_items * length * prices * cost))
    fewer = some[:: -(-len(some) // affordable)]
    return {
        **untried_makers(catalogue, interface, generator),
        "one-item": lambda: FixedList(best_first(user_model, catalogue, some), slate_size, interface),
        "static-list": lambda: FixedList(
            static_list(user_model, catalogue, fewer, length), slate_size, interface
        ),
    }

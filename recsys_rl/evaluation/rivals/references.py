"""Upper references: agents that see the hidden state of the simulator.

These agents read the environment itself, so ``obs`` must be its latest observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.objective.weighted import stream_weights, weighted
from recsys_rl.protocols import (
    DelayedUsers,
    ForbiddingUsers,
    PatientUsers,
    Policy,
    Simulator,
    SolvedUsers,
    UncertainUsers,
)
from recsys_rl.types import Action, Obs, tree_map

PATIENCE_PRICES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
"""Rewards per unit of patience."""
WEARINESS_PRICES = (0.0, 0.5, 1.0, 2.0)
"""Rewards per logit of tiresomeness at the start of a session. Each pair of prices is one base policy."""
FIRST_ITEMS = 3
"""First items that the planner tries with each base policy."""
LOOKAHEAD = 40
"""Most steps that the planner simulates; beyond them it extrapolates (``rest_of_session``)."""
PLANNER_ITEMS = 20_000
"""Largest catalogue of the planner. It scores all items hundreds of times a step; many more items would
take days."""
ROWS = 672
"""Largest number of simulations together, one for each branch and future. With half or a quarter of them,
the planner of slates took 1.2 and 1.6 times as long."""
PRESENT_SHARE = 0.8
"""``simulate`` drops ended branches when less than this share goes on. It does not drop them at each step,
because copying costs time."""
FUTURES = 4
"""Futures of each branch in the first round, where the response without noise is one of many."""
UNCERTAIN_PRICES = ((0.0, 2.0, 8.0, 32.0), (0.0, 0.5))
"""Prices of patience and of weariness in that case: fewer, as each branch costs at least FUTURES
simulations."""
LONG_SESSION = 50
"""Steps of the longest session that is planned with the whole search. In a longer one the search below is
narrower, as it is made at each step."""
LONG_PRICES = ((0.5, 1.0, 2.0, 4.0), (0.0, 0.5))
LONG_FIRST_ITEMS = 2
LONG_LOOKAHEAD = 10


@dataclass(frozen=True)
class Search:
    """The size of the planner's search."""

    prices: tuple[tuple[float, ...], tuple[float, ...]]  # of patience and of weariness
    first_items: int  # tried with each pair of prices; a slate is one
    lookahead: int  # most steps simulated
    futures: int = 1  # of each branch in the first round; 1 if the simulation is exact

    @classmethod
    def of(cls, user_model: PatientUsers, session_length: int) -> Search:
        """The search for this kind of users and for sessions of ``session_length`` steps."""
        first_items = FIRST_ITEMS if user_model.slate_size == 1 else 1
        if isinstance(user_model, UncertainUsers):
            return cls(UNCERTAIN_PRICES, first_items, LOOKAHEAD, FUTURES)
        if session_length > LONG_SESSION:
            return cls(LONG_PRICES, min(first_items, LONG_FIRST_ITEMS), LONG_LOOKAHEAD)
        return cls((PATIENCE_PRICES, WEARINESS_PRICES), first_items, LOOKAHEAD)

    @property
    def chunk(self) -> int:
        """Users planned together."""
        prices = len(self.prices[0]) * len(self.prices[1])
        return max(1, ROWS // (prices * self.first_items * self.futures))


class Myopic:
    """Shows the K items with the highest true expected reward now, and never looks ahead.

    Where places have kinds, it is the slate with the highest sum of these, each item taken alone.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        simulator, catalogue = self.simulator, self.simulator.catalogue
        slate = BestSlate.of(simulator.interface, catalogue)
        score = simulator.expected_reward
        return Action.certain(slate.best_of_blocks(score, obs.num_rows, catalogue.num_items))


class Credited:
    """Shows the K items with the highest reward when a step is paid at once for all that it starts.

    With completion paid at the end of a video, `myopic` can't tell a video that holds the user from another;
    this policy can, and sees the taste. It counts no cost of trust, patience or weariness.
    """

    def __init__(self, simulator: Simulator) -> None:
        assert isinstance(simulator.user_model, DelayedUsers)
        self.simulator, self.user_model = simulator, simulator.user_model

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        scores = self.user_model.credited_reward(self.simulator.user_state)  # (N, I)
        scores = categorical.mask_logits(scores, obs.allowed(self.simulator.catalogue.num_items))
        return Action.certain(highest(scores, self.simulator.interface.slate_size))


class Oracle:
    """Plays the optimum, which the user model has in closed form."""

    def __init__(self, simulator: Simulator) -> None:
        assert isinstance(simulator.user_model, SolvedUsers)
        self.simulator, self.user_model = simulator, simulator.user_model

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action.certain(self.user_model.best_items(self.simulator.user_state))


class Planner:
    """Looks ahead in the simulator by the rollout algorithm (Bertsekas, Tsitsiklis and Wu 1997).

    A base policy takes the item with the highest score. The score is the expected reward, plus a price times
    the expected change of patience, minus a price times the tiresomeness. The second price falls with the
    share of the session that is left. Each pair of prices makes one base policy.

    At each step the planner tries, for each base policy, the FIRST_ITEMS items with its highest scores, and
    lets this base policy play the rest of the session without noise. It shows the first item of the session
    with the highest return. With an exact simulation this is never worse than the best of the base policies;
    here the simulation neglects the clipping of the noise to [0, 1]. In a slate, a base policy shows the K
    items with the highest scores, and the planner chooses among these slates. The branches of UncertainUsers
    are compared in several futures, the same for all of them (``most_promising``). ``Search`` has the prices,
    the number of first items, the steps that are simulated and the futures. The result is a lower bound of
    the true optimum, which is unknown and may lie above it.

    ``informed``: plan with the profile in place of the taste. A recommender can have this profile of a
    stranger. Patience and weariness are still the true ones, which are hidden from a recommender.
    """

    def __init__(self, simulator: Simulator, informed: bool = False) -> None:
        assert isinstance(simulator.user_model, PatientUsers)
        self.simulator, self.user_model, self.informed = simulator, simulator.user_model, informed

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        simulator, length = self.simulator, self.simulator.interface.session_length
        user_state = self.user_model.as_known(simulator.user_state) if self.informed else simulator.user_state
        left = length - simulator.session.steps  # (N,)
        chunk = Search.of(self.user_model, length).chunk
        n, catalogue = obs.num_rows, simulator.catalogue
        mask = replace(obs, mask=None).allowed(catalogue.num_items) & catalogue.available  # (N, I)
        items = [
            best_first_items(
                self.user_model,
                tree_map(lambda values, i=i: values[i : i + chunk], user_state),
                mask[i : i + chunk],
                left[i : i + chunk],
                length,
            )
            for i in range(0, n, chunk)
        ]
        return Action.certain(torch.cat(items))


def best_first_items(
    user_model: PatientUsers, user_state: Any, mask: Tensor, left: Tensor, length: int
) -> Tensor:
    """The planner's choice (N, K) for users with ``left`` (N,) of ``length`` steps left.

    ``mask`` (N, I) bool: items that may be shown in this session, whatever a step forbids.
    """
    search = Search.of(user_model, length)
    levels = (left.new_tensor(prices, dtype=torch.float32) for prices in search.prices)
    pairs = torch.cartesian_prod(*levels)  # (P, 2)
    prices = pairs.unsqueeze(0).expand(len(left), -1, -1)  # (N, P, 2)
    tiresome = user_model.tiresomeness(user_state)  # (N, I)
    reward, patience = (values.unsqueeze(1) for values in user_model.prospects(user_state))  # (N, 1, I) each
    share_left = (left / length).unsqueeze(1)  # (N, 1)
    scores = base_scores(reward, patience, tiresome.unsqueeze(1), prices, share_left)  # (N, P, I)
    now = permitted(user_model, user_state, mask)  # (N, I)
    categorical.forbid_(scores, now, None)
    slate_size = user_model.slate_size
    tried = min(search.first_items, mask.shape[1]) if slate_size == 1 else slate_size
    best = scores.topk(tried, -1)
    first = best.indices  # (N, P, F) single items, or (N, P, K) one slate each
    if slate_size > 1:  # a place without an allowed item stays empty
        first = first.masked_fill(best.values == -torch.inf, -1)
    slates = first.flatten(1).unflatten(1, (-1, slate_size))  # (N, B, K)
    prices = prices.repeat_interleave(slates.shape[1] // prices.shape[1], 1)  # (N, B, 2)
    allowed = now.gather(1, slates.flatten(1).clamp_min(0)).view_as(slates)  # (N, B, K)
    forbidden = ~(allowed | (slates < 0)).all(-1)  # (N, B)

    def returns(places: Tensor, shifts: Tensor) -> Tensor:
        """Sums (N, b) of the returns of the branches at ``places`` (N, b), in the futures ``shifts`` (f,)."""
        (n, b), f = places.shape, len(shifts)
        user = torch.arange(n, device=places.device).repeat_interleave(b * f)  # (N * b * f,)
        column = places.flatten().repeat_interleave(f)  # (N * b * f,)
        states = tree_map(lambda values: values[user], user_state)
        if isinstance(user_model, UncertainUsers):
            states = user_model.scenario(states, shifts.repeat(n * b))
        total = simulate(
            user_model,
            states,
            mask[user],
            left[user],
            length,
            slates[user, column],
            tiresome[user],
            prices[user, column],
            search.lookahead,
        )
        return total.view(n, b, f).sum(-1).masked_fill(forbidden.gather(1, places), -torch.inf)

    places = torch.arange(slates.shape[1], device=slates.device).expand(len(slates), -1)  # (N, B)
    best_place = most_promising(returns, places, search.futures).view(-1, 1, 1)
    chosen: Tensor = slates.gather(1, best_place.expand(-1, 1, slate_size))  # (N, 1, K)
    return chosen.squeeze(1)


def most_promising(returns: Callable[[Tensor, Tensor], Tensor], places: Tensor, futures: int) -> Tensor:
    """The branch (N,) of ``places`` (N, B) with the highest mean return.

    All branches are simulated in ``futures`` futures. Then the better half is kept and the number of its
    futures is doubled, until two branches are left (sequential halving; Karnin, Koren and Somekh 2013,
    "Almost optimal exploration in multi-armed bandits"). With one future, an exact simulation, there is one
    round.

    ``returns(places, shifts)`` has the sums (N, b) over the futures ``shifts`` (f,) of the branches at
    ``places`` (N, b). The shifts of all rounds together are evenly spread in [0, 1).
    """

    def shifts(count: int, start: float) -> Tensor:  # (count,)
        return (torch.arange(count, device=places.device) + start) / count

    sums, played = returns(places, shifts(futures, 0.0)), futures  # (N, B)
    while futures > 1 and places.shape[1] > 2:
        best = sums.topk((places.shape[1] + 1) // 2, 1)
        places = places.gather(1, best.indices)
        sums = best.values + returns(places, shifts(played, 0.5))  # halfway between the shifts before
        played *= 2
    return places.gather(1, sums.argmax(1, keepdim=True)).squeeze(1)


def base_scores(
    reward: Tensor, patience: Tensor, tiresome: Tensor, prices: Tensor, share_left: Tensor
) -> Tensor:
    """Scores (..., I) of each item under the ``prices`` (..., 2) of patience and of weariness.

    Dimensions before the last are broadcast. ``reward`` and ``patience`` (..., I) are the user model's
    ``prospects``, ``tiresome`` (..., I) is its ``tiresomeness``, and ``share_left`` (...) is the share of the
    session that is left.
    """
    of_patience, of_weariness = prices.unsqueeze(-2).unbind(-1)  # (..., 1) each
    scores = torch.addcmul(reward, of_patience, patience)
    return scores.addcmul_(of_weariness * share_left.unsqueeze(-1), tiresome, value=-1)


def simulate(
    user_model: PatientUsers,
    user_state: Any,
    mask: Tensor,
    left: Tensor,
    length: int,
    items: Tensor,
    tiresome: Tensor,
    prices: Tensor,
    lookahead: int,
) -> Tensor:
    """Total reward (R,) of showing ``items`` (R, K) and then the choices of the row's base policy.

    All arguments have R rows: ``user_state``, ``mask`` and ``tiresome`` (R, I), ``left`` (R,), ``prices``
    (R, 2). Steps after ``lookahead`` are extrapolated (``rest_of_session``). Of UncertainUsers it is the
    total reward in one future.
    """
    total = torch.zeros(len(left), device=left.device)
    rows = torch.arange(len(left), device=left.device)  # (r,): rows of ``total`` that are still simulated
    present = torch.ones_like(left, dtype=torch.bool)
    weights = stream_weights(user_model.streams)
    longest, start_patience = int(left.max()), user_model.patience(user_state)
    for step in range(min(longest, lookahead)):
        if step > 0:
            share_left = (left - step).clamp_min(0) / length  # (r,)
            scores = base_scores(*user_model.prospects(user_state), tiresome, prices, share_left)  # (r, I)
            categorical.forbid_(scores.unsqueeze(1), permitted(user_model, user_state, mask), None)
            items = highest(scores, user_model.slate_size)  # (r, K)
        there, items = items >= 0, items.clamp_min(0)
        feedback = user_model.respond(user_state, items, mask.gather(1, items) & there, None)
        user_state, leaves = user_model.advance(user_state, items, feedback)
        total[rows] += weighted(user_model.rewards(feedback), weights) * present
        present = present & ~leaves & (left > step + 1)
        if not user_model.repeats:
            taken = torch.where(there, items, items[:, :1])  # the first place is empty only if all are
            mask = mask.scatter(1, taken, False)
        if int(present.sum()) < PRESENT_SHARE * len(present):  # waits for the device: a reference may
            staying = present.nonzero().squeeze(1)
            if len(staying) == 0:
                return total
            user_state = tree_map(lambda values, staying=staying: values.index_select(0, staying), user_state)
            rows, present, mask, left, tiresome, prices, start_patience = (
                values.index_select(0, staying)
                for values in (rows, present, mask, left, tiresome, prices, start_patience)
            )
    if longest > lookahead:
        rest = rest_of_session(total[rows], start_patience, user_model.patience(user_state), left, lookahead)
        total[rows] += present * rest
    return total


def permitted(user_model: PatientUsers, user_state: Any, mask: Tensor) -> Tensor:
    """(N, I) bool: the items of ``mask`` (N, I) that this step does not forbid."""
    if not isinstance(user_model, ForbiddingUsers):
        return mask
    return mask & user_model.permits(user_state)


def rest_of_session(total: Tensor, before: Tensor, after: Tensor, left: Tensor, lookahead: int) -> Tensor:
    """Estimated return (R,) after ``lookahead`` steps, in which ``total`` (R,) was earned.

    The mean reward of these steps goes on until the session's last step, or until the patience is used up, if
    it went from ``before`` to ``after`` (R,) and falls on at this rate.
    """
    loss = (before - after) / lookahead  # (R,) of patience in a step
    patient = torch.where(loss > 0, after / loss, torch.inf)  # (R,) steps
    return total / lookahead * torch.minimum(patient, (left - lookahead).clamp_min(0))


def upper_bounds(simulator: Simulator) -> dict[str, Policy]:
    """The upper references that this simulator allows: `myopic`, `credited`, and the oracle or the planners.

    A catalogue of more than PLANNER_ITEMS items has no planner.
    """
    agents: dict[str, Policy] = {"myopic": Myopic(simulator)}
    if isinstance(simulator.user_model, DelayedUsers):
        agents["credited"] = Credited(simulator)
    if isinstance(simulator.user_model, SolvedUsers):
        agents["oracle"] = Oracle(simulator)
    elif isinstance(simulator.user_model, PatientUsers) and simulator.catalogue.num_items <= PLANNER_ITEMS:
        agents |= {"informed": Planner(simulator, informed=True), "planner": Planner(simulator)}
    return agents

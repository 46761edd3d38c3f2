"""The contract of every policy."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recsys_rl.protocols import Policy
from recsys_rl.testing.envs import require_same_obs
from recsys_rl.testing.requirement import require
from recsys_rl.types import Action, Obs


def check_agent(
    make_agent: Callable[[], Policy],
    obs: Obs,
    num_items: int,
    *,
    slate_size: int = 1,
    random_greedy: bool = False,
) -> None:
    """Raise AssertionError with a sentence if ``act`` breaks the contract of a Policy.

    Args:
        make_agent: returns a new agent with the same seed at each call.
        obs: the observation to act on; for an oracle, the latest observation of its environment.
        num_items: size of the catalogue.
        slate_size: K, number of items of an action.
        random_greedy: the agent also draws at random if greedy.
    """
    before = obs.map(torch.clone)
    agent = make_agent()
    for greedy in (False, True):
        check_action(agent.act(obs, greedy), obs, num_items, slate_size)
    require_same_obs(obs, before, "act changed the observation")

    for greedy in (False, True):
        first, second = make_agent().act(obs, greedy), make_agent().act(obs, greedy)
        require(torch.equal(first.items, second.items), "act: the same seed gave other items")
        require(torch.equal(first.logprob, second.logprob), "act: the same seed gave another logprob")
    if not random_greedy:
        first, second = agent.act(obs, greedy=True), agent.act(obs, greedy=True)
        require(torch.equal(first.items, second.items), "act: greedy is not deterministic")


def check_action(action: Action, obs: Obs, num_items: int, slate_size: int = 1) -> None:
    """Check shapes, types, ranges and log-probabilities, that items are allowed, and none is shown twice."""
    n, items, logprob = obs.num_rows, action.items, action.logprob
    actual = f"{items.dtype} of shape {tuple(items.shape)}"
    fits = items.shape == (n, slate_size) and items.dtype == torch.int64
    require(fits, f"act: items are {actual}: they must be torch.int64 of ({n}, {slate_size})")
    empty = (items == -1) & (slate_size > 1)
    inside = bool((((items >= 0) & (items < num_items)) | empty).all())
    require(inside, f"act: there is no such item: they are 0 to {num_items - 1}, or -1 in a slate")
    ordered = items.sort(1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    require(not bool(twice.any()), "act: an item is twice in a slate")
    allowed = obs.allowed(num_items).gather(1, items.clamp_min(0)) | empty
    require(bool(allowed.all()), "act: a forbidden item was shown")
    shaped = logprob.shape == (n,) and logprob.dtype == torch.float32
    require(shaped, f"act: logprob must be torch.float32 of ({n},)")
    possible = bool(logprob.isfinite().all()) and bool((logprob <= 0).all())
    require(possible, "act: a logprob is above 0, infinite or NaN")
    if action.value is not None:
        valued = action.value.shape == (n,) and bool(action.value.isfinite().all())
        require(valued, f"act: value must be finite numbers of shape ({n},)")

"""What every agent must keep to, whatever it thinks: call ``check_agent`` with yours."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recsys_rl.protocols import Policy
from recsys_rl.types import Action, Obs


def check_agent(
    make_agent: Callable[[], Policy],
    obs: Obs,
    num_items: int,
    *,
    slate_size: int = 1,
    random_greedy: bool = False,
) -> None:
    """Raise AssertionError where the agent breaks the contract of a Policy for slates of K items.

    ``make_agent`` returns a new agent from the same seed each time; ``obs`` is what it answers (an
    oracle's must come from the environment that it looks into). ``random_greedy``: the agent draws
    at random even when greedy.
    """
    before = obs.map(torch.clone)
    agent = make_agent()
    for greedy in (False, True):
        check_action(agent.act(obs, greedy), obs, num_items, slate_size)
    assert same(obs, before), "act changed the observation"

    for greedy in (False, True):
        first, second = make_agent().act(obs, greedy), make_agent().act(obs, greedy)
        assert torch.equal(first.items, second.items), "the same seed gave other items"
        assert torch.equal(first.logprob, second.logprob), "the same seed gave another logprob"
    if not random_greedy:
        first, second = agent.act(obs, greedy=True), agent.act(obs, greedy=True)
        assert torch.equal(first.items, second.items), "greedy is not deterministic"


def check_action(action: Action, obs: Obs, num_items: int, slate_size: int = 1) -> None:
    """Shapes, types and ranges; only allowed items; log-probabilities."""
    n = obs.num_rows
    assert action.items.shape == (n, slate_size) and action.items.dtype == torch.int64
    ordered = action.items.sort(1).values
    assert not bool((ordered[:, 1:] == ordered[:, :-1]).any()), "an item stands twice in a slate"
    assert bool(((action.items >= 0) & (action.items < num_items)).all()), "no such item"
    assert bool(obs.allowed(num_items).gather(1, action.items).all()), "a forbidden item was shown"
    assert action.logprob.shape == (n,) and action.logprob.dtype == torch.float32
    assert bool(action.logprob.isfinite().all()) and bool((action.logprob <= 0).all())
    if action.value is not None:
        assert action.value.shape == (n,) and bool(action.value.isfinite().all())


def same(a: Obs, b: Obs) -> bool:
    """Are two observations equal, bit for bit?"""
    names = ("context", "history", "signals", "exclude", "candidates", "mask")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)

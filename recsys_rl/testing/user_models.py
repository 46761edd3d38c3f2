"""The contract of every user model: pure functions whose rows never mix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from recsys_rl.objective.weighted import stream_weights, weighted
from recsys_rl.protocols import (
    EventUsers,
    ForbiddingUsers,
    PatientUsers,
    ReturningUsers,
    UserModel,
    UserState,
)
from recsys_rl.testing.requirement import require
from recsys_rl.types import Catalogue, Events

ROUNDING = 1e-4  # between results of one row and of many rows, which torch may compute differently


def check_user_model(
    user_model: UserModel, catalogue: Catalogue, users: Tensor, num_steps: int = 4, seed: int = 0
) -> None:
    """Raise AssertionError with a sentence that names the method, if a user model breaks the contract.

    Each method is called with all users, with the same users in another order, and with one user alone.

    Args:
        users: (N,) int64, at least two rows of the population.
        num_steps: length of the played session. Its items are random, and some are not shown. Where users
            come back, they do so after each step.
    """
    require(len(users) >= 2, "check_user_model needs two users or more")
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(users), generator=rng)
    _check_names(user_model)
    user_state = _pure("sample", user_model.sample, (users,), order)
    for _ in range(num_steps):
        require(user_model.possible(user_state), "possible is False for a state of a played session")
        _check_seen(user_model, catalogue, user_state, order)
        scores = torch.rand(len(users), catalogue.num_items, generator=rng)
        items = scores.topk(user_model.slate_size, 1).indices  # (N, K)
        shown = torch.rand(items.shape, generator=rng) >= 0.25
        user_state, leaves = _check_step(user_model, catalogue, user_state, items, shown, order)
        stay = (~leaves).nonzero().squeeze(1)
        if len(stay) < 2:
            return
        user_state, users = _rows(user_state, stay), users[stay]
        order = torch.randperm(len(users), generator=rng)
        if isinstance(user_model, ReturningUsers) and user_model.visits > 1:
            user_state = _check_return(user_model, user_state, order, torch.rand(len(users), generator=rng))


def _check_names(user_model: UserModel) -> None:
    for what in ("signals", "streams"):
        names = [entry.name for entry in getattr(user_model, what)]
        unique = bool(names) and len(set(names)) == len(names)
        require(unique, f"{what} must have names, each once, but these are {names}")
    require(user_model.slate_size >= 1, f"slate_size is {user_model.slate_size}: it must be 1 or more")
    require(bool(user_model.context), "context names no piece: name the user's embedding or last_item first")
    complete = not hasattr(user_model, "come_back") or isinstance(user_model, ReturningUsers)
    require(complete, "come_back is there: visits and day_discount must be there too")


def _check_seen(user_model: UserModel, catalogue: Catalogue, user_state: UserState, order: Tensor) -> None:
    """Check ``visible``, ``expected_reward`` and ``prospects`` of a state."""
    n, num_items = len(order), catalogue.num_items
    pieces = _pure("visible", user_model.visible, (user_state,), order)
    require(
        set(pieces) == set(user_model.bounds) and set(pieces) <= set(user_model.context),
        f"visible hands in {sorted(pieces)}: bounds must have the same names, and context must name them",
    )
    for name, piece in pieces.items():
        bound = user_model.bounds[name]
        within = bool((piece.abs() <= bound + ROUNDING).all())
        require(within, f"visible: {name!r} has values beyond its bound of {bound:g}")
    expected = _pure("expected_reward", user_model.expected_reward, (user_state,), order)
    require(expected.shape == (n, num_items), f"expected_reward must be of shape ({n}, {num_items})")
    block = slice(num_items // 3, num_items // 2 + 1)
    of_block = user_model.expected_reward(user_state, block)
    require(
        _close(of_block, expected[:, block]), "expected_reward of a block differs from that of the catalogue"
    )
    if isinstance(user_model, ForbiddingUsers):
        permitted = _pure("permits", user_model.permits, (user_state,), order)
        shaped = permitted.shape == (n, num_items) and permitted.dtype == torch.bool
        require(shaped, f"permits must be torch.bool of ({n}, {num_items})")
        require(bool(permitted.any(1).all()), "permits forbids every item to a user")
        items = torch.arange(num_items).flip(0).expand(n, -1)
        same = torch.equal(user_model.permits(user_state, items), permitted.flip(1))
        require(same, "permits of given items differs from that of the catalogue")
    if isinstance(user_model, PatientUsers):
        reward, _ = _pure("prospects", user_model.prospects, (user_state,), order)
        require(_close(reward, expected), "prospects and expected_reward differ in the reward")
        _pure("tiresomeness", user_model.tiresomeness, (user_state,), order)
        _pure("as_known", user_model.as_known, (user_state,), order)


def _check_step(
    user_model: UserModel,
    catalogue: Catalogue,
    user_state: UserState,
    items: Tensor,
    shown: Tensor,
    order: Tensor,
) -> tuple[UserState, Tensor]:
    """Check ``respond``, ``rewards`` and ``advance``. Returns the next state and leaving users (N,)."""
    shape = (*items.shape, len(user_model.signals))
    feedback = _pure("respond", user_model.respond, (user_state, items, shown, None), order)
    signals = feedback.signals
    require(signals.shape == shape, f"respond: signals are {tuple(signals.shape)}: they must be {shape}")
    require(torch.equal(feedback.shown, shown), "respond: shown must come back as it was given")
    noise = torch.Generator().manual_seed(0)
    noisy = user_model.respond(user_state, items, shown, noise).signals
    for answers in (signals, noisy):
        require(bool(answers.isfinite().all()), "respond: a signal is NaN or infinite")
        require(
            not bool(answers[~shown].any()), "respond: the signals of a place that is not shown must be 0"
        )
        for index, signal in enumerate(user_model.signals):
            values = answers[..., index][shown]
            within = bool(((values >= signal.low) & (values <= signal.high)).all())
            require(within, f"respond: {signal.name!r} is outside {signal.low:g} .. {signal.high:g}")
    if feedback.events is not None:
        _check_events(user_model, catalogue, feedback.events)
    streams = _pure("rewards", user_model.rewards, (feedback,), order)
    wanted = (len(items), len(user_model.streams))
    require(streams.shape == wanted, f"rewards are {tuple(streams.shape)}: they must be {wanted}")
    if user_model.slate_size == 1:
        reward = weighted(streams, stream_weights(user_model.streams))  # (N,)
        expected = user_model.expected_reward(user_state).gather(1, items).squeeze(1)
        answered = shown[:, 0]
        same = _close(reward[answered], expected[answered])
        require(same, "expected_reward differs from the reward without noise")
    after, leaves = _pure("advance", user_model.advance, (user_state, items, feedback), order)
    shaped = leaves.shape == (len(items),) and leaves.dtype == torch.bool
    require(shaped, f"advance: the second result must be torch.bool of ({len(items)},)")
    return after, leaves


def _check_return(
    user_model: ReturningUsers, user_state: UserState, order: Tensor, chance: Tensor
) -> UserState:
    """Check ``come_back``, as if a visit ended here. Returns the state at the start of the next visit."""
    later, gap = _pure("come_back", user_model.come_back, (user_state, chance), order)
    shaped = gap.shape == chance.shape and gap.dtype == torch.int64
    require(shaped, f"come_back: the second result must be torch.int64 of ({len(chance)},)")
    require(bool((gap >= 1).all()), "come_back: the next visit must be at least a day later")
    layout = [(leaf.shape, leaf.dtype) for leaf in _leaves(later)]
    require(
        layout == [(leaf.shape, leaf.dtype) for leaf in _leaves(user_state)],
        "come_back: the state has changed shape",
    )
    require(user_model.possible(later), "possible is False for the state after come_back")
    return later


def _check_events(user_model: UserModel, catalogue: Catalogue, events: Events) -> None:
    """Check the new entries of the history."""
    require(
        isinstance(user_model, EventUsers),
        "respond gives events: num_events and history_length must be there",
    )
    shape = (*events.items.shape, len(user_model.signals))
    require(events.signals.shape == shape, f"respond: signals of events must be {shape}")
    inside = bool(((events.items >= -1) & (events.items < catalogue.num_items)).all())
    require(inside, "respond: events hold an item outside the catalogue")
    require(not bool(events.signals[events.items < 0].any()), "respond: an event without item has signals")


def _pure(name: str, method: Callable[..., Any], arguments: tuple[Any, ...], order: Tensor) -> Any:
    """The result of a method, after checks that it is pure and that rows do not depend on each other."""
    before = [leaf.clone() for leaf in _leaves(arguments)]
    result = method(*arguments)
    same = all(torch.equal(after, earlier) for after, earlier in zip(_leaves(arguments), before, strict=True))
    require(same, f"{name} changes its arguments: it must return new tensors")
    again = method(*arguments)
    require(_close(again, result), f"{name} gives another result when it is called again")
    for index in (order, order[:1]):
        of_rows = method(*(_rows(argument, index) for argument in arguments))
        apart = _close(of_rows, _rows(result, index))
        require(apart, f"{name} mixes rows: the result of a user depends on the other users")
    return result


def _leaves(tree: Any) -> list[Tensor]:
    """All tensors in a tree of tensors, dataclasses, mappings and tuples; any other value has none."""
    if isinstance(tree, Tensor):
        return [tree]
    if dataclasses.is_dataclass(tree):
        tree = vars(tree)
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, tuple) else ()
    return [leaf for branch in parts for leaf in _leaves(branch)]


def _rows(tree: Any, index: Tensor) -> Any:
    """The same tree with the rows ``index`` of each tensor."""
    if isinstance(tree, Tensor):
        return tree[index]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return dataclasses.replace(tree, **{name: _rows(value, index) for name, value in vars(tree).items()})
    if isinstance(tree, Mapping):
        return {name: _rows(value, index) for name, value in tree.items()}
    return tuple(_rows(value, index) for value in tree) if isinstance(tree, tuple) else tree


def _close(one: Any, two: Any) -> bool:
    pairs = list(zip(_leaves(one), _leaves(two), strict=True))
    return all(
        x.shape == y.shape and torch.allclose(x.double(), y.double(), ROUNDING, ROUNDING, equal_nan=True)
        for x, y in pairs
    )

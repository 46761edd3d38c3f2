"""Checks of the content of a file of learned users: types, shapes and ranges.

A right hash proves that the file is undamaged, not that its content is valid.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor

from recsys_rl.checkpoint.checks import is_home
from recsys_rl.logs.users.facts import UserFacts
from recsys_rl.logs.users.signals import SignalKinds

MOST = 1e12
"""The largest signal, reward or input of a network: float32 holds the squares of millions of them."""
MOST_WEIGHT = 1e6
"""The largest weight of a network. A layer of such weights after another still gives finite numbers."""

T = TypeVar("T")


def typed(kind: type[T], texts: Mapping[str, Any], most: float = MOST) -> T:
    """The dataclass of JSON's values. Raises TypeError or ValueError if one is not of the declared type.

    No number is NaN or above ``most``.
    """
    record = kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
    )
    for name, hint in typing.get_type_hints(kind).items():
        if not _fits(hint, getattr(record, name), most):
            raise ValueError(name)
    return record


def _fits(hint: Any, value: Any, most: float) -> bool:
    if typing.get_origin(hint) is tuple:
        return type(value) is tuple and all(_fits(typing.get_args(hint)[0], entry, most) for entry in value)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= most
    return type(value) is hint


def is_float(values: Tensor, *shape: int | None, most: float = MOST) -> bool:
    """True for float32 of this shape (None: any size) with finite values of at most ``most``."""
    fits = values.ndim == len(shape) and all(
        n is None or n == own for n, own in zip(shape, values.shape, strict=True)
    )
    return fits and values.dtype == torch.float32 and bool((values.abs() <= most).all())


def are_facts(facts: UserFacts) -> bool:
    """True if the facts agree with each other."""
    signals, streams, users = facts.signals, facts.streams, facts.users
    sizes, given = dict(facts.interface.context), facts.given
    return (
        all(len({entry.name for entry in some}) == len(some) > 0 for some in (signals, streams))
        and all(signal.low <= signal.high for signal in signals)
        and {signal.name for signal in signals if signal.visible} == {*facts.interface.signals}
        and is_float(facts.of_signals, len(signals), len(streams))
        and _ascend(users)
        and len(users) > 0
        and all(name in sizes and is_float(values, len(users), sizes[name]) for name, values in given.items())
    )


def _ascend(ids: Tensor) -> bool:
    """True for int64 (n,) in ascending order, each once."""
    return ids.dtype == torch.int64 and ids.ndim == 1 and bool((ids[1:] > ids[:-1]).all())


def are_kinds(kinds: SignalKinds, signals: int) -> bool:
    """True for the kinds of so many signals."""
    lists = (kinds.binary, kinds.low, kinds.high, kinds.weights, kinds.of_step or kinds.binary)
    return (
        all(len(entries) == signals for entries in lists)
        and len(kinds.start) == sum(kinds.output_sizes)
        and all(low <= high for low, high in zip(kinds.low, kinds.high, strict=True))
        and min(*kinds.weights, kinds.leave_weight) >= 0
    )


def is_info(info: object) -> TypeGuard[dict[str, Any]]:
    """True for the settings of a fit."""
    if not isinstance(info, dict):
        return False
    seed = info.get("heldout_seed", 0)
    return (
        type(seed) is int
        and 0 <= seed < 2**63
        and isinstance(info.get("settings", {}), dict)
        and is_home(info.get("home", {}))
    )

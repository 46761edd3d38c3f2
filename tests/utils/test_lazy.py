"""A dict with values that are computed when they are read."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from torch.utils import _pytree

from recsys_rl.utils.lazy import LazyDict


def made(computed: list[str]) -> LazyDict:
    def value(name: str) -> Callable[[], str]:
        return lambda: computed.append(name) or name.upper()  # type: ignore[func-returns-value]

    return LazyDict({"a": "A"}, {"b": value("b"), "c": value("c")})


def test_a_value_is_computed_once_and_alone() -> None:
    computed: list[str] = []
    found = made(computed)
    assert len(found) == 3 and "b" in found and list(found) == ["a", "b", "c"] == list(found.keys())
    assert isinstance(found, dict) and found["a"] == "A" and found.get("d", 7) == 7 and computed == []
    assert found["b"] == "B" and found.get("b") == "B" and computed == ["b"]
    found["c"] = "other"
    assert found == {"a": "A", "b": "B", "c": "other"} and computed == ["b"]


@pytest.mark.parametrize(
    "read",
    [
        dict,
        copy.copy,
        copy.deepcopy,
        lambda x: {**x},
        lambda x: x.copy(),
        lambda x: x | {},
        lambda x: {} | x,
        lambda x: dict(x.items()),
        lambda x: dict(zip(x, x.values(), strict=True)),
        lambda x: pickle.loads(pickle.dumps(x)),  # noqa: S301 (its own bytes; processes hand dicts on so)
        lambda x: _pytree.tree_map(lambda value: value, x),
        lambda x: type(x)((name, x[name]) for name in x),  # as dm-tree rebuilds mappings
    ],
)
def test_all_values_are_computed_for_a_copy(read: Callable[[LazyDict], Any]) -> None:
    computed: list[str] = []
    assert read(made(computed)) == {"a": "A", "b": "B", "c": "C"}
    assert computed == ["b", "c"]


def test_changes_leave_no_value_uncomputed() -> None:
    found = made([])
    assert found.pop("b") == "B" and found.setdefault("c", 1) == "C" and found.pop("z", None) is None
    found.update(d=4)
    del found["a"]
    assert repr(found) == "{'c': 'C', 'd': 4}" and found != {"c": "C"}
    found |= {"e": 5}
    assert found == {"c": "C", "d": 4, "e": 5}

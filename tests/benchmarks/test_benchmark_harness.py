"""The benchmarks' harness: rounds, medians, processes apart, and files of results."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import pytest
import torch

from benchmarks.harness import turns
from benchmarks.harness.turns import Row, System


def system(name: str, measure: Any, module: str = "json") -> System:
    return System(name, "some", "torch", module, measure)


def test_rounds_are_interleaved_and_the_table_has_medians() -> None:
    numbers = {"a": iter([1.0, 9.0, 2.0]), "b": iter([40.0, 10.0, 20.0])}
    order: list[str] = []

    def measure(name: str) -> Row:
        order.append(name)
        return {"steps_per_s": next(numbers[name])}

    rows = turns.interleaved([system("a", lambda: measure("a")), system("b", lambda: measure("b"))], 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [row["steps_per_s"] for row in rows] == [2.0, 20.0]
    assert (
        rows[0]["version"] == torch.__version__.partition("+")[0] or rows[0]["version"] == torch.__version__
    )
    turns.add_ratios(rows, 2.0)
    assert [row["ours_over_it"] for row in rows] == [1.0, 0.1]


def test_broken_peer_has_a_row_and_the_others_continue() -> None:
    calls = itertools.count()

    def breaks() -> Row:
        if next(calls) == 1:
            raise RuntimeError("out of luck\nand more")
        return {"steps_per_s": 5.0}

    peers = [
        system("broken", breaks),
        system("missing", breaks, module="no_such_package"),
        system("well", lambda: {"steps_per_s": 7.0}),
    ]
    broken, missing, well = turns.interleaved(peers, 4)
    assert broken["note"] == "RuntimeError: out of luck" and broken["steps_per_s"] is None
    assert missing["note"] == "not installed" and missing["steps_per_s"] is None
    assert well["steps_per_s"] == 7.0
    assert next(calls) == 2  # it is not tried again

    def needs_more() -> Row:
        raise ModuleNotFoundError("No module named 'abacus'", name="abacus")

    (row,) = turns.interleaved([system("half", needs_more)], 1)  # installed, but not whole
    assert row["note"] == "ModuleNotFoundError: No module named 'abacus'"
    with pytest.raises(RuntimeError):  # our own mistakes are not a row
        turns.interleaved([system("recsys_rl", _raise, module="recsys_rl")], 1)


def _raise() -> Row:
    raise RuntimeError


@pytest.mark.proof
def test_apart_measures_in_another_process() -> None:
    """As all full runs do, and no smoke run."""
    found = turns.apart(System("peer", "d", "torch", "torch", _own_pid))
    assert found["pid"] != os.getpid() and found["peak_mb"] > 10


def _own_pid() -> Row:
    return {"pid": os.getpid()}


def _killed() -> Row:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}

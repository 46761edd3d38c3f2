"""Rounds in which systems take turns, and their medians; each system may have a process of its own.

A system is measured by a function that returns the numbers of one round. Systems take turns within
each round, so that a drift of the machine's speed meets them all. One that isn't installed gets a
row that says so, and one that breaks gets a row with its error; the others go on.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from typing import Any

import recsys_rl
from benchmarks.harness.memory import peak_mb

Row = dict[str, Any]


@dataclass(frozen=True)
class System:
    """``measure`` gets the arguments of ``interleaved`` and returns the numbers of one round."""

    name: str
    settings: str
    package: str  # the distribution, whose version is in the row
    module: str  # has to be importable
    measure: Callable[..., Row]


def attempt(system: System, *arguments: Any) -> Row:
    """One round of ``system``, or {"note": reason} where a peer isn't installed or breaks."""
    try:
        importlib.import_module(system.module)
        return system.measure(*arguments)
    except Exception as error:
        if system.module == "recsys_rl":
            raise
        if isinstance(error, ModuleNotFoundError) and error.name == system.module:
            return {"note": "not installed"}
        first_line = (str(error).strip().splitlines() or [""])[0]
        return {"note": f"{type(error).__name__}: {first_line}"[:200]}


def apart(system: System, *arguments: Any) -> Row:
    """``attempt`` in a process of its own, so that its settings, as of the allocator, affect no other system.

    The row also has its peak resident megabytes, ``peak_mb``.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_with_memory, system, *arguments).result()
    except BrokenProcessPool:
        if system.module == "recsys_rl":
            raise
        return {"note": "ended by a signal, as where memory runs out"}


def _with_memory(system: System, *arguments: Any) -> Row:
    row = attempt(system, *arguments)
    return row if "note" in row else {"peak_mb": peak_mb()} | row


def interleaved(
    systems: Sequence[System], rounds: int, *arguments: Any, way: Callable[..., Row] = attempt
) -> list[Row]:
    """A row per system: name, settings, version, and the median over rounds of each number it returned.

    ``way`` is ``attempt`` or ``apart``.
    """
    measured: list[list[Row]] = [[] for _ in systems]
    for _ in range(rounds):
        for system, mine in zip(systems, measured, strict=True):
            if not mine or "note" not in mine[-1]:
                mine.append(way(system, *arguments))
    return [first_columns(system) | medians(mine) for system, mine in zip(systems, measured, strict=True)]


def first_columns(system: System) -> Row:
    return {
        "system": system.name,
        "settings": system.settings,
        "version": package_version(system.package),
        "steps_per_s": None,
    }


def medians(rounds: Sequence[Row]) -> Row:
    """The median of each number over rounds; the last round alone where that says what went wrong."""
    if "note" in rounds[-1]:
        return rounds[-1]
    return {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}


def add_ratios(rows: Sequence[Row], base: float) -> None:
    """Write into each row how many times ``base`` (our steps per second) is of its own."""
    for row in rows:
        if row["steps_per_s"]:
            row["ours_over_it"] = base / row["steps_per_s"]


def package_version(package: str) -> str | None:
    """The version of an installed distribution, or of this checkout; None where there is none."""
    try:
        return recsys_rl.__version__ if package == "recsys-rl" else version(package)
    except PackageNotFoundError:
        return None

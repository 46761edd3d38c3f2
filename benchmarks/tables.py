"""What the benchmarks share: options, interleaved rounds, medians, and files that say where they come from.

A system is measured by a function that returns the numbers of one round. Systems take turns within
each round, so that a drift of the machine's speed meets them all. One that isn't installed gets a
row that says so, and one that breaks gets a row with its error; the others go on.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import torch

import recsys_rl
from benchmarks.memory import peak_mb
from recsys_rl.errors import UserError
from recsys_rl.utils.files import check_writable, write_text

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


@dataclass(frozen=True)
class System:
    """Who is measured: ``measure`` gets the arguments of ``interleaved`` and returns one round's numbers."""

    name: str
    dials: str
    package: str  # the distribution whose version is told
    module: str  # what has to be importable
    measure: Callable[..., Row]


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see --help.")


def parser(doc: str | None, repeats: str = "rounds", default: int = 3) -> Parser:
    """The options that every benchmark has; ``doc`` is its module's docstring."""
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(f"--{repeats}", type=int, default=default, help="interleaved; the table has medians")
    made.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    made.add_argument("--json", type=Path, help="write the table to this file")
    made.add_argument("--csv", type=Path, help="append the table to this file, not to benchmarks/results")
    made.add_argument("--smoke", action="store_true", help="does it run? The smallest sizes, once, no CSV")
    return made


def parse(made: argparse.ArgumentParser, name: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the options, before anything is measured, and set torch's threads.

    ``args.csv`` is benchmarks/results/<name>.csv where none was asked for, and None for a smoke run.
    Raises UserError for values out of range and for files that can't be written.
    """
    args = made.parse_args(argv)
    for option, value in vars(args).items():
        least = 0 if option == "threads" else 1
        if type(value) is int and value < least:
            raise UserError(f"--{option} is {value}: it must be at least {least}.")
    if args.csv is None and not args.smoke:
        args.csv = HERE / "results" / f"{name}.csv"
    for option in ("json", "csv"):
        if getattr(args, option) is not None:
            check_writable(getattr(args, option), f"--{option}")
    if args.threads:
        torch.set_num_threads(args.threads)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the processes that `apart` starts
    return args


def run(main: Callable[[], None]) -> NoReturn:
    """Run a benchmark; a mistake of the user's is one sentence and exit code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)


def attempt(system: System, *arguments: Any) -> Row:
    """One round of ``system``, or {"note": why} where a peer isn't installed or breaks."""
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
    """``attempt`` in a process of its own, whose settings, of the allocator say, help nobody else.

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
    """A row per system: name, dials, version, and the median over rounds of each number it returned.

    ``way`` is ``attempt`` or ``apart``.
    """
    found: list[list[Row]] = [[] for _ in systems]
    for _ in range(rounds):
        for system, mine in zip(systems, found, strict=True):
            if not mine or "note" not in mine[-1]:
                mine.append(way(system, *arguments))
    return [first_columns(system) | medians(mine) for system, mine in zip(systems, found, strict=True)]


def first_columns(system: System) -> Row:
    return {
        "system": system.name,
        "dials": system.dials,
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


def about() -> Row:
    """Where and when: the columns that every row of a CSV begins with."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def package_version(package: str) -> str | None:
    """The version of an installed distribution, or of this checkout; None where there is none."""
    try:
        return recsys_rl.__version__ if package == "recsys-rl" else version(package)
    except PackageNotFoundError:
        return None


def publish(rows: Sequence[Row], args: argparse.Namespace, **more: Any) -> None:
    """Print the table, and write what was asked for: {"about", "rows", **more} as JSON, the rows as CSV."""
    rows = [{name: _rounded(value) for name, value in row.items()} for row in rows]
    more = {name: _rounded(value) for name, value in more.items()}
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items() if value is not None))
    for name, value in more.items():
        print(f"{name}={value}")
    origin = about()
    if args.json is not None:
        text = json.dumps({"about": origin, "rows": rows, **more}, indent=1, allow_nan=False) + "\n"
        write_text(args.json, text)
    if args.csv is not None:
        _append(args.csv, [origin | row for row in rows])


def _rounded(value: Any) -> Any:
    """Four significant digits, or whole numbers where there are more; JSON has no NaN, so null stands in."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def _commit() -> str:
    """The commit of this checkout, with + where the measured code differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "recsys_rl", "benchmarks/*.py")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows below those that are there; columns that only one side has stay empty on the other."""
    before: list[Row] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            before = list(csv.DictReader(file))
    both = [*before, *rows]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in both for name in row)))
    writer.writeheader()
    writer.writerows(both)
    write_text(path, table.getvalue())

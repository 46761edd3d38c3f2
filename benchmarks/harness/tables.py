"""Options that the benchmarks share, and files of results that say where they come from."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.harness.turns import Row
from recsys_rl.errors import UserError
from recsys_rl.utils.files import check_writable, write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


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


def parse(
    made: argparse.ArgumentParser, name: str, argv: Sequence[str] | None = None, folder: Path = RESULTS
) -> argparse.Namespace:
    """Read and check the options, before anything is measured, and set torch's threads.

    ``args.csv`` is <name>.csv in ``folder`` if the option is absent, and None for a smoke run.
    Raises UserError for values out of range and for files that can't be written.
    """
    args = made.parse_args(argv)
    for option, value in vars(args).items():
        least = 0 if option in ("threads", "seed", "first_seed") else 1
        if type(value) is int and value < least:
            raise UserError(f"--{option} is {value}: it must be at least {least}.")
    if args.csv is None and not args.smoke:
        args.csv = folder / f"{name}.csv"
    for option in ("json", "csv"):
        if getattr(args, option) is not None:
            check_writable(getattr(args, option), f"--{option}")
    if args.threads:
        torch.set_num_threads(args.threads)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the processes that `apart` starts
    return args


def run(main: Callable[[], None]) -> NoReturn:
    """Run a benchmark; a mistake of the user's is one sentence and exit code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)


def about() -> Row:
    """Where and when: the columns that every row of a CSV begins with."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name, on Linux with its model, as several kinds share a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    known = dict(reversed([line.replace("\t", "").partition(":")[::2] for line in lines]))
    name, model = (known.get(key, "").strip() for key in ("model name", "model"))
    return f"{name} model {model}" if name and model else name or platform.processor()


def publish(rows: Sequence[Row], args: argparse.Namespace, digits: int = 4, **more: Any) -> None:
    """Print the table, and write what was asked for: {"about", "rows", **more} as JSON, the rows as CSV."""
    rows = [{name: _rounded(value, digits) for name, value in row.items()} for row in rows]
    more = {name: _rounded(value, digits) for name, value in more.items()}
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


def _rounded(value: Any, digits: int) -> Any:
    """With ``digits`` significant digits, whole from 1,000 on; JSON has no NaN, so null stands in."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return round(value) if abs(value) >= 1000 else float(f"{value:.{digits}g}")


def _commit() -> str:
    """The commit of this checkout, with + where the measured code differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
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
    columns = list(dict.fromkeys(name for row in both for name in row))
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(both)
    write_text(path, table.getvalue())

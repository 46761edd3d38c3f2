"""How sure are the learning proofs? Their outcomes under perturbed starts, beside their bounds.

    python -m benchmarks.proofs [--only cartpole]

A learning proof is a test marked ``learning``. One run on one processor is one draw of its outcome. Each
proof is repeated with initial weights times 1 + 1e-6 N(0, 1): 20 times as shipped, and 5 times each without
the compiled loops and with two other sets of torch's instructions. A bound is safe if it lies five standard
deviations, over all repetitions, from the mean. No test fails at a bound here; pytest names those that fail
otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.errors import UserError

DEVIATIONS = 5
# These run the proofs again without the compiled loops, which is one of the ways below.
TWICE = "WithoutTheCompiledLibrary"


@dataclass(frozen=True)
class Way:
    """A way to run the tests: how often, and with which environment variables."""

    name: str
    starts: int
    environment: tuple[tuple[str, str], ...] = ()


WAYS = (
    Way("as shipped", 20),
    Way("torch alone", 5, (("RECSYS_RL_KERNELS", "off"),)),
    Way("default", 5, (("ATEN_CPU_CAPABILITY", "default"),)),
    Way("avx2", 5, (("ATEN_CPU_CAPABILITY", "avx2"),)),
)
SMOKE_TESTS = ["tests/agents/test_learning.py", "-k", "best_arm and 0-a2c"]
SMOKE = (Way("as shipped", 2), Way("default", 1, (("ATEN_CPU_CAPABILITY", "default"),)))


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--only", default="test", help="as of pytest -k, such as 'cartpole and ppo'")
    args = tables.parse(parser, "proofs")
    ways, tests = (SMOKE, SMOKE_TESTS) if args.smoke else (WAYS, ["-k", f"({args.only}) and not {TWICE}"])
    outcomes: dict[str, dict[str, list[Row]]] = {}
    failed = [way.name for way in ways if not repeat(way, tests, outcomes)]
    if not outcomes:
        raise UserError(f"--only {args.only!r} is in the name of no learning proof: give another.")
    tables.publish(table(outcomes), args)
    if failed:
        raise UserError(f"Tests failed in the ways {', '.join(failed)}: pytest names them above.")


def repeat(way: Way, tests: Sequence[str], by_proof: dict[str, dict[str, list[Row]]]) -> bool:
    """Add the outcomes of the ``tests`` to ``found``: proof, then way. False if a test failed."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "learning", *tests]
        command += ["--starts", str(way.starts), "--outcomes", str(outcomes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(way.environment)}
        print(f"{way.name}: {way.starts} starts", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=tables.ROOT, env=environment, stdout=sys.stderr, check=False)
        for line in outcomes.read_text(encoding="utf-8").splitlines() if outcomes.exists() else ():
            row = json.loads(line)
            by_proof.setdefault(row["proof"], {}).setdefault(way.name, []).append(row)
    return done.returncode in (0, 5)  # 5: no test has such a name


def table(outcomes: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[Row]:
    """Rows of each proof: one for each way, and one of all repetitions with the bound."""
    rows: list[Row] = []
    for name, ways in outcomes.items():
        for way, each in ways.items():
            rows.append({"proof": name, "way": way, **spread([row["outcome"] for row in each])})
        every = [row for each in ways.values() for row in each]
        rows.append({"proof": name, "way": "all", **spread([row["outcome"] for row in every])})
        rows[-1] |= judged(rows[-1], every[0]["above"], every[0]["below"])
    return rows


def spread(outcomes: Sequence[float]) -> Row:
    return {
        "runs": len(outcomes),
        "smallest": min(outcomes),
        "mean": statistics.mean(outcomes),
        "largest": max(outcomes),
        "deviation": statistics.pstdev(outcomes),
    }


def judged(row: Row, above: float | None, below: float | None) -> Row:
    """The limit that a safe bound does not cross, the bound, and whether it is safe."""
    room = DEVIATIONS * row["deviation"]
    if above is not None:
        limit = row["mean"] - room
        return {"limit": limit, "above": above, "safe": above <= limit}
    assert below is not None
    limit = row["mean"] + room
    return {"limit": limit, "below": below, "safe": below >= limit}


if __name__ == "__main__":
    tables.run(main)

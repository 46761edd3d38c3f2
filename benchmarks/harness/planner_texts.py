"""Words on the planner's convergence in docs/, from the newest rows of planner.csv."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import Row, read


def gains(results: Path, env: str) -> str:
    """What each wider search gains, in percent of the return, with its interval."""
    rows = read(results, "planner", env=env)
    found = [f"{row['search']} {_gain(row)}" for row in rows if row["gain"]]
    return f"{rows[0]['users']} training users: {', '.join(found)}"


def _gain(row: Row) -> str:
    mean, low, high = (f"{100 * float(row[name]):+.1f}" for name in ("gain", "gain_low", "gain_high"))
    return f"{mean} % ({low} to {high})"

"""Words on the planner's convergence in docs/, from the newest rows of planner.csv."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import Row, read


def gains(results: Path, env: str) -> str:
    """What each wider search gains, in percent of the return, with its interval."""
    rows = read(results, "planner", env=env)
    usual = f"{int(rows[0]['users']):,}"
    found = [f"{row['search']} {_gain(row, usual)}" for row in rows if row["gain"]]
    return f"{usual} training users: {', '.join(found)}"


def _gain(row: Row, usual: str) -> str:
    mean, low, high = (f"{100 * float(row[name]):+.1f}" for name in ("gain", "gain_low", "gain_high"))
    own = f"{int(row['users']):,}"
    users = "" if own == usual else f"; {own} users"
    return f"{mean} % ({low} to {high}{users})"

"""The table of benchmarks.calibration about the feed's ads, of docs/calibration.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import read, table

ENV = "social-feed"


def feed(results: Path) -> str:
    """Statistic, source, real and simulated value, note, and whether the row is within its limit."""
    rows = [row for row in read(results, "calibration") if row["platform"] == ENV]
    body = []
    for row in rows:
        passed = {"True": "yes", "False": "**no**"}.get(row["passed"], "")
        cells = (row["source"].replace("none", ""), row["real"], row["simulated"], row["note"], passed)
        body.append([row["statistic"], *cells])
    said = f"Commit {rows[0]['commit']}, {rows[0]['date']}; `python -m benchmarks.calibration --only {ENV}`."
    head = ["statistic", "source", "real", "simulated", "note", "passed"]
    return f"{table(head, body)}\n\n{said}"

"""Rows of the benchmark of calibration: real value and source, simulated value, distance, limit, passed."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.turns import Row


def row(
    statistic: str,
    source: str,
    real: Any,
    simulated: Any,
    distance: float,
    limit: float,
    platform: str = "short-video",
) -> Row:
    return {
        "platform": platform,
        "statistic": statistic,
        "source": source,
        "real": real,
        "simulated": simulated,
        "distance": distance,
        "limit": limit,
        "passed": distance <= limit,
        "note": "",
    }


def missing(statistic: str, source: str, limit: float, note: str = "not available") -> Row:
    empty = row(statistic, source, None, None, 0.0, limit)
    return {**empty, "distance": None, "passed": None, "note": note}


def difference(statistic: str, source: str, real: float, simulated: float, limit: float) -> Row:
    return row(statistic, source, real, simulated, abs(simulated - real), limit)


def relative(
    statistic: str, source: str, real: float, simulated: float, limit: float, platform: str = "short-video"
) -> Row:
    return row(statistic, source, real, simulated, abs(simulated / real - 1), limit, platform)

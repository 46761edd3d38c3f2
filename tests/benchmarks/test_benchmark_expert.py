"""The benchmark of what `expert` gains from the stock that it follows."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import expert
from tests.doors import benchmark_here


def test_smoke(tmp_path: Path) -> None:
    options = ["--seeds", "3", "--smoke", "--json", "table.json"]
    benchmark_here(expert.main, tmp_path, "satiation", "long-video", *options)
    found = json.loads((tmp_path / "table.json").read_text())
    rows = found["rows"] if isinstance(found, dict) else found
    assert [(row["stock"], row["walk"]) for row in rows] == [
        (stock, walk) for stock in ("patience", "trust") for walk in ("followed", "held")
    ]
    assert all(row["gain_low"] <= row["gain"] <= row["gain_high"] for row in rows[1::2])

"""The benchmarks of `shop`: its calibration, and a month under fixed coupons."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from benchmarks import shop_month
from benchmarks.once import calibration_shop
from tests.doors import benchmark_here


@pytest.mark.proof
def test_smoke_of_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark_here(shop_month.main, tmp_path, "--smoke", "--json", "table.json", "--csv", "shop_month.csv")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["time"] for row in rows] == [*shop_month.TIMES] * 11
    assert [row["reference_rate"] for row in rows] == [0.03] * 32 + [0.0] * 12
    assert [row["policy"] for row in rows[:32:4]] == [*shop_month.LABELS]
    for row, first in zip(rows, [*rows[:4] * 8, *rows[32:36] * 3], strict=True):
        assert row["margin_gain"] == pytest.approx(row["margin"] - first["margin"], abs=1e-3)
    for row in rows:
        # The margin at a discount d is the revenue times (1 - d - 0.7) / (1 - d), before goods come back.
        rule, percent = row["policy"].split()[:2]
        if rule == "always" and not row["returned"]:
            left = 1 - float(percent) / 100
            assert row["margin"] == pytest.approx((left - 0.7) / left * row["revenue"], rel=1e-2, abs=1e-3)
        if row["time"] == shop_month.ALL:
            by_day = [float(mean) for mean in row["margin_by_day"].split()]
            assert len(by_day) == 35 and by_day[-1] == pytest.approx(row["margin"], rel=1e-3, abs=1e-3)
    found = shop_month.text(tmp_path)
    lines = [line for line in found.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 * 8 + 2 + 2 * 2
    monkeypatch.setattr(shop_month, "RESULTS", tmp_path)
    assert shop_month.figure().count('class="curve"') == 8


@pytest.mark.proof
def test_smoke_of_the_calibration(tmp_path: Path) -> None:
    """Two products, sold in two weeks each: twice the sales at half the price is an elasticity of -1."""
    folder = tmp_path / "journey"
    folder.mkdir()
    number, weeks = calibration_shop.OFTEN, (1, 2)
    lines = [
        {
            "household_id": item % 2,
            "product_id": item,
            "week": week,
            "quantity": week,
            "sales_value": 4.0 + item,
        }
        for item in range(20)
        for week in weeks
        for _ in range(number // 2)
    ]
    frame = pl.DataFrame(lines).with_columns(
        retail_disc=pl.when(pl.col("week") == 2).then(pl.col("sales_value")).otherwise(0.0), coupon_disc=0.0
    )
    frame.write_parquet(folder / "transactions.parquet")
    kinds = [{"product_id": item, "product_category": "abcd"[item % 2]} for item in range(20)]
    pl.DataFrame(kinds).write_parquet(folder / "products.parquet")
    found = calibration_shop.of_data(folder)
    assert found["elasticity of weekly sales"] == pytest.approx(-1)
    assert found["median discount of discounted lines"] == pytest.approx(0.5)
    assert found["median price"] == pytest.approx(13.5)
    benchmark_here(calibration_shop.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == len(calibration_shop.KNOWN) + 6

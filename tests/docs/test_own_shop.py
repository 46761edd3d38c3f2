"""A made-up shop with its own column names, from `data describe` to a policy that is promoted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.serving.loop.client import Client
from tests.docs.test_examples import load as load_example
from tests.serving.live import Live, live

COLUMNS = "--user-column visitor --item-column product --time-column seen_at --reward-column bought"
NAMED = [*COLUMNS.split(), "--propensity-column", "chance"]
WINDOW = 1.0  # seconds in which feedback counts


def test_the_example_writes_what_it_says(tmp_path: Path) -> None:
    example = load_example("own_shop")
    stock = example.write(tmp_path, rows=3_000, newer=500)
    log, newer = (pl.read_csv(tmp_path / name) for name in ("shop.csv", "newer.csv"))
    items = pl.read_csv(tmp_path / "products.csv", infer_schema_length=None)
    assert (len(items), items["available_from"].is_not_null().sum()) == (120, 40)
    assert items["available_to"].is_not_null().sum() == 20 and len(stock) == 135
    new = {*newer["product"]} - {*items["product"]}
    assert 10 <= len(new) <= 15
    assert {"1,5", "Foo, Bar"} <= {*log["context.town"]}
    assert 0.25 < log["context.spent"].is_null().mean() < 0.35  # type: ignore[operator]
    # The sum of 1 / chance over the rows counts the products that could be shown: 80 at first and 100 later.
    assert 80 < (1 / log["chance"].to_numpy()).mean() < 100
    shown = log.join(items, on="product")
    late = shown["seen_at"] < shown["available_from"].fill_null(0)
    gone = shown["seen_at"] >= shown["available_to"].fill_null(2**40)
    assert not (late | gone).any()


def visits(server: Live, example: ModuleType, number: int, rng: np.random.Generator) -> None:
    """People come, are shown a product that is there, and buy it or don't."""
    there = {product.id: product for product in example.products(np.random.default_rng(0), new=15)}
    client = Client(server.url, None)
    for at in range(number):
        context = example.visit(rng)
        answer, _ = client.recommend({"user_id": f"w{at}", "context": example.known(context, rng)})
        shown = there[answer["items"][0]["item_id"]]
        assert shown.last is None  # it has not gone
        bought = float(rng.random() < example.chance_to_buy(shown, **context))
        event = {"decision_id": answer["decision_id"], "signal": "bought", "value": bought}
        assert client.feedback([event]) == (1, 0)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_from_a_log_to_a_policy_that_won_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = load_example("own_shop")
    example.write(tmp_path, rows=20_000, newer=6_000)

    def said(*words: str) -> str:
        code = main([*words])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out + captured.err

    described = said("data", "describe", "shop.csv", *NAMED)
    assert "context.town is one of texts" in described and "direct" in described
    for algo in ("bc", "direct"):
        learned = said("train", "--algo", algo, "--log", "shop.csv", "--items", "products.csv", *NAMED)
        assert re.search(r"\d+ have several values of category", learned)
    judged = said(
        *("ope", "--log", "newer.csv", "--items", "newer_products.csv", "--no-world"),
        *("--checkpoint", "checkpoints/direct.pt", "--compare", "direct", "logged"),
    )
    value = re.search(r"direct +dr +([\d.]+)", judged)
    assert value is not None and float(value[1]) > 0.14  # the log earned .11

    policies, rng = tmp_path / "policies", np.random.default_rng(1)
    policies.mkdir()
    shutil.copy("checkpoints/bc.pt", policies)
    with live(policies, tmp_path / "record.sqlite", feedback_window=WINDOW) as server:
        url = ("--url", server.url)
        shutil.copy("checkpoints/direct.pt", policies)
        assert "15 added" in said("items", "shelf.csv", "--only", *url)
        assert "50% of the sessions" in said("release", "start", "policies/direct.pt", "--share", "0.5", *url)
        for _ in range(10):
            visits(server, example, 400, rng)
            status = said("release", "status", *url)
            if "canary: better" in status:
                break
        assert "promoted" in said("release", "promote", *url)
    exported = said("log", "export", "--db", "record.sqlite", "--out", "served.parquet")
    assert "served" in exported
    rows, items = pl.read_parquet("served.parquet"), pl.read_parquet("served.items.parquet")
    assert rows["bought"].mean() > 0.08  # type: ignore[operator]
    assert {"category", "price"} <= {*items.columns}

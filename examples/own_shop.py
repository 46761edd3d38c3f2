"""A made-up shop whose products come and go, with the columns of its own database.

    python examples/own_shop.py [FOLDER]

It writes the log of a month (shop.csv) and of the next days (newer.csv), and the products of both times
(products.csv, newer_products.csv; shelf.csv has those of now). Of 120 products 40 appear during the month and
20 vanish; the next days have 15 new ones. Visitors come from towns whose names look like numbers (`1,5`) or
like lists (`Foo, Bar`), and what they spent so far is often unknown. What they buy depends on the category,
the hour, the town and the price; nobody wrote that down. The lines that the example prints go from this log
to a policy that has won its place.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CATEGORIES = ["Tee", "Kaffee", "Brot", "Obst", "Wein", "Buch"]
TOWNS = ["1,5", "Foo, Bar", *(f"Town {k}" for k in range(71))]
DAY = 86_400
MONTH, NEWER = 30 * DAY, 3 * DAY  # seconds
COLUMNS = {
    "user": "visitor",
    "item": "product",
    "time": "seen_at",
    "reward": "bought",
    "propensity": "chance",
}
"""The shop's own names of the columns that have a role."""


@dataclass(frozen=True)
class Product:
    """A row of products.csv. ``first`` and ``last`` are seconds, or None for "always"."""

    id: str
    categories: tuple[str, ...]
    price: float
    first: int | None = None
    last: int | None = None


def products(rng: np.random.Generator, new: int = 0) -> list[Product]:
    """120 products, and ``new`` more that appear after the month."""
    made = []
    for k in range(120 + new):
        of = rng.choice(6, 1 + int(rng.random() < 0.2), replace=False)
        first = int(rng.uniform(0.1, 0.9) * MONTH) if 60 <= k < 100 else MONTH if k >= 120 else None
        last = int(rng.uniform(0.3, 0.95) * MONTH) if 100 <= k < 120 else None
        price = float(np.round(rng.lognormal(2.0, 0.6), 2))
        made.append(Product(f"P{k:03d}", tuple(CATEGORIES[c] for c in of), price, first, last))
    return made


def chance_to_buy(product: Product, town: str, hour: int, spent: float) -> float:
    """The truth: coffee in the morning, wine in the evening, tea and books by town; dear things for few."""
    likes = {
        "Kaffee": hour < 11,
        "Wein": hour >= 17,
        "Tee": town in ("1,5", "Foo, Bar"),
        "Buch": len(town) == 7,
        "Obst": 11 <= hour < 17,
        "Brot": False,
    }
    liked = any(likes[category] for category in product.categories)
    affordable = min(1.0, (10 + spent / 10) / product.price)
    return (0.25 if liked else 0.02) * affordable


def visit(rng: np.random.Generator) -> dict[str, Any]:
    """What the shop knows of a visit: the pieces of the context. What was spent so far is often unknown."""
    town = TOWNS[int(rng.integers(2))] if rng.random() < 0.4 else TOWNS[int(rng.integers(2, 73))]
    return {"town": town, "hour": int(rng.integers(8, 22)), "spent": round(float(rng.lognormal(3.2, 1.5)), 2)}


def known(context: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The context as the shop has it: without the sum of three in ten visitors."""
    return {**context, "spent": None} if rng.random() < 0.3 else context


def write_products(path: Path, stock: list[Product]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["product", "category", "price", "available_from", "available_to"])
        for p in stock:
            ends = ["" if end is None else end for end in (p.first, p.last)]
            table.writerow([p.id, "|".join(p.categories), p.price, *ends])


def write_shelf(path: Path, stock: list[Product]) -> None:
    """The products of now, as the shop's own system lists them: without moments."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["product", "category", "price"])
        table.writerows([p.id, "|".join(p.categories), p.price] for p in stock if p.last is None)


def write_log(
    path: Path, stock: list[Product], rows: int, begin: int, end: int, rng: np.random.Generator
) -> None:
    """A row for each visit. Habit shows cheap products more often: the chance of each is in the row."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS.values(), "context.town", "context.hour", "context.spent"])
        for moment in np.sort(rng.integers(begin, end, rows)):
            there = [
                p
                for p in stock
                if (p.first is None or p.first <= moment) and (p.last is None or moment < p.last)
            ]
            weights = np.array([p.price**-0.5 for p in there])
            drawn = weights / weights.sum()
            at = int(rng.choice(len(there), p=drawn))
            context = visit(rng)
            bought = int(rng.random() < chance_to_buy(there[at], **context))
            seen = known(context, rng)
            table.writerow(
                [f"v{rng.integers(rows // 2)}", there[at].id, moment, bought, f"{drawn[at]:.8f}"]
                + ["" if seen[name] is None else seen[name] for name in ("town", "hour", "spent")]
            )


def write(folder: Path, rows: int = 30_000, newer: int = 10_000) -> list[Product]:
    """The five files; returns the products of the newer days, with those that are gone."""
    rng = np.random.default_rng(0)
    stock = products(rng, new=15)
    write_products(folder / "products.csv", stock[:120])
    write_log(folder / "shop.csv", stock[:120], rows, 0, MONTH, rng)
    write_products(folder / "newer_products.csv", stock)
    write_shelf(folder / "shelf.csv", stock)
    write_log(folder / "newer.csv", stock, newer, MONTH, MONTH + NEWER, rng)
    return stock


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    write(folder)
    options = " ".join(f"--{role}-column {name}" for role, name in COLUMNS.items())
    print(f"""The five files are in {folder}. From the log to a policy that has won its place, in that folder:

recsys-rl data describe shop.csv {options}
recsys-rl train --algo bc --log shop.csv --items products.csv {options}
recsys-rl train --algo direct --log shop.csv --items products.csv {options}
recsys-rl ope --log newer.csv --items newer_products.csv --checkpoint checkpoints/direct.pt
mkdir policies && cp -L checkpoints/bc.pt policies
recsys-rl serve --checkpoint policies --db record.sqlite &
cp -L checkpoints/direct.pt policies
recsys-rl items shelf.csv --only
recsys-rl release start policies/direct.pt --share 0.5
recsys-rl release promote""")

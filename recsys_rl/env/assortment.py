"""The items of a retailer: videos, products, the empty place and coupons, with categories and prices."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.data.attributes import zscore
from recsys_rl.errors import UserError, listed
from recsys_rl.types import Catalogue, ItemFeature, World

KINDS = ("video", "product", "empty", "coupon")
VIDEO, PRODUCT, EMPTY, COUPON = range(4)
VIDEO_SHARE = 0.3  # of the items
COUPONS = (0.0, 0.1, 0.25)  # discounts of the drawn coupons
CATEGORIES = 12
PRICE, PRICE_DEVIATION = 2.5, 0.55  # median of the drawn prices, deviation of their logarithms in a category
CATEGORY_DEVIATION = 0.5  # of the mean log prices of the categories
MOST = 1e5  # money


def kinds(count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64: VIDEO_SHARE videos, one `empty`, the COUPONS, and products, in random order."""
    kind = torch.full((count,), PRODUCT)
    kind[: round(VIDEO_SHARE * count)] = VIDEO
    kind[-1 - len(COUPONS) :] = torch.tensor([EMPTY, *[COUPON] * len(COUPONS)])[:count]
    return kind[torch.randperm(count, generator=generator)]


TEXTS = {
    "kind": f"{100 * VIDEO_SHARE:g} % videos, one empty place, {len(COUPONS)} coupons, and products",
    "category": f"{CATEGORIES}, by the nearest of as many items",
    "price": f"log-normal, with a median of {PRICE:g}",
}
ITEMS = {"kind": kinds, "category": kinds, "price": attributes.normal, "discount": attributes.normal}
"""Attributes of items; they come from the data where these have them."""
USERS = dict.fromkeys(("ease", "habit", "level", "purse"), attributes.normal)


def add_attributes(world: World, seed: int) -> World:
    """The world with the attributes that this platform needs. Raises UserError."""
    world = attributes.with_attributes(world, ITEMS, USERS, seed)
    catalogue, named = world.catalogue, dict(world.catalogue.attributes)
    for name in ("price", "discount"):
        if name not in catalogue.drawn and not named[name].is_floating_point():
            raise UserError(f"The column {name!r} of the file about the items holds texts: give numbers.")
    if "kind" not in catalogue.drawn:
        named["kind"] = _kinds_of_data(catalogue)
    product, coupon = named["kind"] == PRODUCT, named["kind"] == COUPON
    if "category" in catalogue.drawn:
        named["category"] = categories(catalogue.embedding, seed)
    elif named["category"].is_floating_point():
        raise UserError("The column 'category' of the file about the items must hold texts.")
    named["category"] = named["category"].long().masked_fill(~product & (named["kind"] != VIDEO), -1)
    if "price" in catalogue.drawn:
        levels = attributes.named_normal("price levels", int(named["category"].max()) + 1, seed)
        levels = CATEGORY_DEVIATION * levels
        logs = PRICE_DEVIATION * named["price"] + levels[named["category"].clamp_min(0)]
        named["price"] = PRICE * logs.exp()
    named["price"] = named["price"].masked_fill(~product, 0)
    if "discount" in catalogue.drawn:
        order = coupon.cumsum(0) - 1
        named["discount"] = torch.tensor(COUPONS)[order.clamp(0, len(COUPONS) - 1)]
    named["discount"] = named["discount"].masked_fill(~coupon, 0)
    own = (ItemFeature("kind", "classes", KINDS), ItemFeature("price", "log"), ItemFeature("discount"))
    held = {"kind", "price", "discount", "category"}
    others = (feature for feature in catalogue.features if feature.name not in held)
    catalogue = dataclasses.replace(catalogue, attributes=named, features=(*others, *own))
    catalogue = _without_looks(catalogue, (named["kind"] == EMPTY) | coupon)
    if "kind" in catalogue.drawn and catalogue.titles:  # the data have items in these rows
        catalogue = dataclasses.replace(catalogue, titles=_titles(catalogue))
    check_items(catalogue)
    return World(catalogue, world.population)


def _titles(catalogue: Catalogue) -> tuple[str, ...]:
    kinds, discounts = (catalogue.attributes[name].tolist() for name in ("kind", "discount"))
    each = zip(catalogue.titles, kinds, discounts, strict=True)
    return tuple(
        {EMPTY: "(nothing)", COUPON: f"coupon of {100 * discount:.0f} %"}.get(kind, title)
        for title, kind, discount in each
    )


def _without_looks(catalogue: Catalogue, rows: Tensor) -> Catalogue:
    """The catalogue with embedding, tags, popularity and quality 0 in ``rows`` (I,), which show nothing.

    A table of embeddings on the disk stays as it is.
    """
    tags = {feature.name for feature in catalogue.features if feature.scale == "tags"}
    named = {
        name: values.masked_fill(rows.view(-1, *[1] * (values.ndim - 1)), 0) if name in tags else values
        for name, values in catalogue.attributes.items()
    }
    embedding = catalogue.embedding
    if not catalogue.table_file:
        embedding = embedding.masked_fill(rows.unsqueeze(1), 0)
    return dataclasses.replace(
        catalogue,
        embedding=embedding,
        popularity=catalogue.popularity.masked_fill(rows, 0),
        quality=catalogue.quality.masked_fill(rows, 0),
        attributes=named,
    )


def categories(embedding: Tensor, seed: int) -> Tensor:
    """(I,) int64: the nearest of CATEGORIES items that are drawn from the seed."""
    order = attributes.permutation("attribute category", len(embedding), seed)
    return (embedding @ embedding[order[:CATEGORIES]].T).argmax(1)


def _kinds_of_data(catalogue: Catalogue) -> Tensor:
    """The kinds of a file about items as int64. Raises UserError."""
    names, kind = catalogue.classes("kind"), catalogue.attributes["kind"]
    if kind.is_floating_point() or not {*names} <= {*KINDS} or not names:
        raise UserError(f"The column 'kind' of the file about the items must hold the texts {listed(KINDS)}.")
    return torch.tensor([KINDS.index(name) for name in names])[kind.long()]


def check_items(catalogue: Catalogue) -> None:
    """Raise UserError for prices or discounts that can't be."""
    named = catalogue.attributes
    price, discount, product = named["price"], named["discount"], named["kind"] == PRODUCT
    for wrong, text in (
        (product & ~((price > 0) & (price <= MOST)), f"has a price that is not above 0 and at most {MOST:g}"),
        (product & (named["category"] < 0), "is a product without a category"),
        (~((discount >= 0) & (discount < 1)), "has a discount that is not at least 0 and below 1"),
    ):
        if bool(wrong.any()):
            name = catalogue.id_of(int(wrong.nonzero()[0]))
            raise UserError(f"Item {name} {text}: mend the file about the items.")


def check_kinds(catalogue: Catalogue, length: int, discounts: bool) -> None:
    """Raise UserError if the catalogue has too few items of a kind for visits of ``length`` screens."""
    kind = catalogue.attributes["kind"].masked_fill(~catalogue.available, -1)
    for number in (VIDEO, PRODUCT):
        count = int((kind == number).sum())
        if count < length:
            raise UserError(
                f"The catalogue has {count} items of the kind {KINDS[number]!r}, and a visit of {length} "
                "screens may need as many: lower max_episode_steps, or use a larger catalogue."
            )
    for number in (EMPTY, *([COUPON] if discounts else [])):
        if not bool((kind == number).any()):
            raise UserError(
                f"The catalogue has no item of the kind {KINDS[number]!r}, which a screen may need: "
                "add one to the file about the items."
            )


def facts_of_items(catalogue: Catalogue, of_videos: float, of_products: float) -> Tensor:
    """(I, 5): pull in logits, 1 for a video, 1 for a product, ln P - T_c, P; 0 of other items.

    The pull is a z-score among videos and products, times ``of_videos`` or ``of_products``; T_c is the mean
    log price of the products of category c, and P the price.
    """
    kind, price = catalogue.attributes["kind"], catalogue.attributes["price"]
    video, product = (kind == VIDEO).float(), (kind == PRODUCT).float()
    goods = (video + product) > 0
    popular = zscore((catalogue.popularity[goods] + 1e-3).log())
    of_goods = zscore(popular + zscore(catalogue.quality[goods]))
    pull = torch.zeros_like(price).masked_scatter(goods, of_goods)
    log_price = torch.where(product > 0, price, torch.ones_like(price)).log()
    category = catalogue.attributes["category"]
    number, category = int(category.max()) + 1, category.clamp_min(0)
    total, count = (
        torch.zeros(number, device=kind.device).index_add_(0, category, column)
        for column in (product * log_price, product)
    )
    above = product * (log_price - (total / count.clamp_min(1))[category])
    gain = of_videos * video + of_products * product
    return torch.stack([gain * pull, video, product, above, price], 1)

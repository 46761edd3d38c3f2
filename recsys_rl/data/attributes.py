"""Attributes of items and users that a platform needs: from the data, else drawn from the seed.

They are drawn once, when the world is made, and lie in the checkpoint with it. So training and evaluation
have the same items. Each attribute has its own stream of the seed, so that none depends on another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recsys_rl.errors import UserError, one_line
from recsys_rl.settings.fields import shown
from recsys_rl.types import Catalogue, World
from recsys_rl.utils.seeding import generators

Draw = Callable[[int, torch.Generator], Tensor]
"""Draws the values (rows, ...), from a number of rows and a generator."""

CREATOR_SHARE = 1 / 3
"""Creators for each item."""
CREATOR_SKEW = 0.7
"""The creator of rank r is drawn with a probability proportional to r to the power of minus this."""
CREATORS = "one for three videos, by a power law with exponent 0.7"
"""The distribution of ``creators`` in words."""


def with_attributes(world: World, items: Mapping[str, Draw], users: Mapping[str, Draw], seed: int) -> World:
    """The world with these attributes of its items and users.

    ``Catalogue.drawn`` then names the attributes of items that the data lack.
    """
    catalogue, population = world
    lacking = [name for name in items if name not in catalogue.attributes]
    streams = generators(seed, *(f"attribute {name}" for name in (*items, *users)))

    def draw(name: str, draws: Mapping[str, Draw], count: int) -> Tensor:
        return draws[name](count, streams[f"attribute {name}"])

    of_items = {name: draw(name, items, catalogue.num_items) for name in lacking}
    of_users = {name: draw(name, users, len(population.user_ids)) for name in users}
    return World(
        dataclasses.replace(
            catalogue,
            attributes={**catalogue.attributes, **of_items},
            drawn=(*catalogue.drawn, *lacking),
        ),
        dataclasses.replace(population, attributes={**population.attributes, **of_users}),
    )


def require(
    platform: str,
    catalogue: Catalogue,
    items: Mapping[str, Draw],
    users: Mapping[str, Tensor],
    draws: Mapping[str, Draw],
) -> None:
    """Raise UserError if the catalogue lacks one of ``items``, or ``users`` one of ``draws``.

    Also raise it if durations are needed and are not numbers above 0. ``users``: the attributes of the
    population.
    """
    for whose, needed, held in (("items", items, catalogue.attributes), ("users", draws, users)):
        missing = [name for name in needed if name not in held]
        if missing:
            raise UserError(
                f"{platform} needs the attributes {', '.join(missing)} of its {whose}: make the world with "
                "make_world, which draws those that the data lack."
            )
    if "duration" not in items:
        return
    seconds = catalogue.attributes["duration"]  # (I,); whole numbers stand for texts (data/tables/items.py)
    wrong = ~((seconds > 0) & seconds.isfinite())  # (I,)
    if not seconds.is_floating_point():
        problem = "but the column holds texts"
    elif bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        problem = f"but that of item {shown(catalogue.id_of(row))} is {seconds[row].item():g}"
    else:
        return
    raise UserError(
        f"{platform} needs the duration of each item as a number of seconds above 0, {problem}: mend the "
        f"column 'duration' of the file about the items, or leave it out (the data: "
        f"{one_line(catalogue.source)})."
    )


def origins(catalogue: Catalogue, texts: Mapping[str, str]) -> str:
    """Part of a sentence: which of these attributes come from the data, and which were drawn from the seed.

    ``texts``: the distribution of each attribute, by its name.
    """
    several = {name: f"{name[:-1]}ies" if name.endswith("y") else f"{name}s" for name in texts}
    known = [several[name] for name in texts if name not in catalogue.drawn]
    drawn = [f"{several[name]} ({text})" for name, text in texts.items() if name in catalogue.drawn]
    parts = [f"{' and '.join(known)} come from the data"] if known else []
    if drawn:
        parts.append(f"the data lack {' and '.join(drawn)}, drawn from the seed")
    return "; ".join(parts)


def log_normal(median: float, deviation: float, low: float, high: float) -> Draw:
    """Log-normal values with this median and deviation of the logarithm, cut to ``low`` .. ``high``."""

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return (median * (deviation * torch.randn(count, generator=generator)).exp()).clamp(low, high)

    return draw


def uniform(name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """Numbers of this size from 0 to 1, from the stream ``name`` of the seed."""
    return torch.rand(size, generator=generators(seed, name)[name])


def permutation(name: str, count: int, seed: int) -> Tensor:
    """(count,) int64: 0 .. count - 1 in random order, from the stream ``name`` of the seed."""
    return torch.randperm(count, generator=generators(seed, name)[name])


def named_normal(name: str, count: int, seed: int) -> Tensor:
    """Standard normal values (count,), from the stream ``name`` of the seed."""
    return normal(count, generators(seed, name)[name])


def normal(count: int, generator: torch.Generator) -> Tensor:
    """Standard normal values (count,)."""
    return torch.randn(count, generator=generator)


def creators(count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64: one of about CREATOR_SHARE * count creators each, by a power law."""
    number = max(1, round(CREATOR_SHARE * count))
    weights = torch.arange(1, number + 1, dtype=torch.float64) ** -CREATOR_SKEW
    ends = (weights.cumsum(0) / weights.sum())[:-1]
    return torch.searchsorted(ends, torch.rand(count, generator=generator, dtype=torch.float64))


def catch(catalogue: Catalogue) -> Tensor:
    """(I,): excess of log popularity over quality, in z-scores, at least 0; 0 if the data hold no quality."""
    if not catalogue.knows_quality:
        return torch.zeros_like(catalogue.quality)
    gap = zscore((catalogue.popularity + 1e-3).log()) - zscore(catalogue.quality)
    return (gap / 2**0.5).clamp_min(0)


def principal_axes(embedding: Tensor, number: int) -> Tensor:
    """(D, number): the leading principal axes of the rows (I, D), each with a positive largest entry."""
    around = embedding.double() - embedding.double().mean(0)
    vectors = torch.linalg.eigh(around.T @ around)[1].flip(1)[:, :number]  # the leading one first
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # (1, number)
    axes: Tensor = (vectors * largest.sign()).to(embedding.dtype)
    return axes


def zscore(values: Tensor) -> Tensor:
    """Standardise; zero if ``values`` are constant."""
    return (values - values.mean()) / values.std(correction=0).clamp_min(1e-6)

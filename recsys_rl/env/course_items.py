"""The items of a course: lessons, exercises and reviews of skills, and which skill needs which before it.

Kinds, skills and difficulties come from the data, or are drawn from the seed where the data lack them.
"""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.errors import FieldError, UserError, listed
from recsys_rl.types import Catalogue, ItemFeature, World

KINDS = ("lesson", "practice", "review")
LESSON, PRACTICE, REVIEW = range(3)
PATTERN = (LESSON, PRACTICE, REVIEW, PRACTICE, PRACTICE)  # the kinds of a skill's items, again and again
SKILLS = 10  # of drawn items
DIFFICULTY = 0.94  # standard deviation of the difficulties of drawn exercises [logits]
IN_A_ROW = 3  # right answers that complete a skill
MOST_ROW, MOST_SEEN, MOST_DAYS = 8, 20, 30
"""In observations, the largest number of right answers in a row, of items of a skill, and of days since."""


@lru_cache(maxsize=64)
def graph_of(text: str | None, number: int) -> tuple[tuple[int, ...], ...]:
    """The prerequisites of each of ``number`` skills. Raises FieldError, also for a circle."""
    if text is None:
        return tuple(tuple(p for p in (s - 3, s - 2) if p >= 0) for s in range(number))
    if text.strip() == "none":
        return ((),) * number
    needs: list[set[int]] = [set() for _ in range(number)]
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,6})\s*>\s*(\d{1,6})\s*", part)
        pair = tuple(map(int, found.groups())) if found else (number,)
        if max(pair) >= number:
            raise FieldError(
                "env_config.prerequisites",
                f'has {part.strip()!r}: give pairs as in "0>2, 1>2" of skills 0 to {number - 1}, or none.',
            )
        needs[pair[1]].add(pair[0])
    graph = tuple(tuple(sorted(of_skill)) for of_skill in needs)
    if len(order_of(graph)) < number:
        circle = next(s for s in range(number) if s not in order_of(graph))
        raise FieldError(
            "env_config.prerequisites",
            f"are a circle: skill {circle} is needed, over others, by a skill that it needs itself; leave a "
            "pair out.",
        )
    return graph


def order_of(graph: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The skills, each after its prerequisites, the lowest number first; those in circles are left out."""
    order: list[int] = []
    while True:
        free = [s for s, needs in enumerate(graph) if s not in order and {*needs} <= {*order}]
        if not free:
            return tuple(order)
        order.append(free[0])


def add_attributes(world: World, seed: int) -> World:
    """The world with the kind, the skill and the difficulty of each item, and with learners.

    Kinds and skills come from the data if these have both. Otherwise they are drawn, and titles name them.
    Raises UserError.
    """
    catalogue = world.catalogue
    held = [name for name in ("kind", "skill") if name in catalogue.attributes]
    if len(held) == 1:
        raise UserError(
            f"The items have the attribute {held[0]!r} alone: a course needs both their kind and their "
            "skill, or none, so that both are drawn."
        )
    catalogue = _of_data(catalogue) if held else _drawn(catalogue, seed)
    catalogue, population = attributes.with_attributes(
        World(catalogue, world.population), {"difficulty": difficulties}, {"ability": attributes.normal}, seed
    )
    if not catalogue.attributes["difficulty"].is_floating_point():
        raise UserError("The column 'difficulty' of the file about the items holds texts: give numbers.")
    own = ItemFeature("difficulty", "number")
    others = tuple(feature for feature in catalogue.features if feature.name != "difficulty")
    catalogue = dataclasses.replace(catalogue, features=(*others, own))
    check_items(catalogue)
    size = len(population.user_ids), int(catalogue.attributes["skill"].max()) + 1
    known = {**population.attributes, "foreknowledge": attributes.uniform("foreknowledge", size, seed)}
    return World(catalogue, dataclasses.replace(population, attributes=known))


def _drawn(catalogue: Catalogue, seed: int) -> Catalogue:
    """The catalogue with SKILLS skills of as many items each, and the kinds of PATTERN in each."""
    place = attributes.permutation("attribute skill", catalogue.num_items, seed)
    skill, number = place % SKILLS, place // SKILLS
    kind = torch.tensor(PATTERN)[number % len(PATTERN)]
    each = zip(skill.tolist(), kind.tolist(), number.tolist(), strict=True)
    titles = tuple(f"skill {s}, {KINDS[k]} {n + 1}" for s, k, n in each) if catalogue.titles else ()
    return _with_kinds(
        dataclasses.replace(catalogue, titles=titles, drawn=(*catalogue.drawn, "kind", "skill")),
        kind,
        skill,
        tuple(map(str, range(SKILLS))),
    )


def _of_data(catalogue: Catalogue) -> Catalogue:
    """The catalogue with the kinds and skills of the data as int64. Raises UserError."""
    names, kind, skill = catalogue.classes("kind"), *(catalogue.attributes[x] for x in ("kind", "skill"))
    if kind.is_floating_point() or not {*names} <= {*KINDS} or not names:
        raise UserError(f"The column 'kind' of the file about the items must hold the texts {listed(KINDS)}.")
    if skill.is_floating_point() and not bool(((skill >= 0) & (skill == skill.round())).all()):
        raise UserError("The column 'skill' of the file about the items must hold whole numbers or texts.")
    places = torch.tensor([KINDS.index(name) for name in names])
    of_skills = catalogue.classes("skill") or tuple(map(str, range(int(skill.max()) + 1)))
    return _with_kinds(catalogue, places[kind.long()], skill.long(), of_skills)


def _with_kinds(catalogue: Catalogue, kind: Tensor, skill: Tensor, skills: tuple[str, ...]) -> Catalogue:
    own = (ItemFeature("kind", "classes", KINDS), ItemFeature("skill", "classes", skills))
    others = (feature for feature in catalogue.features if feature.name not in ("kind", "skill"))
    named = {**catalogue.attributes, "kind": kind, "skill": skill}
    return dataclasses.replace(catalogue, attributes=named, features=(*others, *own))


def difficulties(count: int, generator: torch.Generator) -> Tensor:
    """(count,): difficulties in logits; only those of exercises count."""
    return DIFFICULTY * torch.randn(count, generator=generator)


TEXTS = {
    "kind": "20 % lessons, 60 % exercises and 20 % reviews",
    "skill": f"{SKILLS}, with as many items each",
}
ITEMS = {"kind": difficulties, "skill": difficulties, "difficulty": difficulties}
USERS = {"ability": attributes.normal, "foreknowledge": attributes.normal}


def check_items(catalogue: Catalogue) -> None:
    """Raise UserError for a skill without items, and for a course without exercises."""
    number = torch.bincount(catalogue.attributes["skill"])
    if bool((number == 0).any()):
        raise UserError(
            f"Skill {int((number == 0).nonzero()[0])} has no item, and the skills are 0 to "
            f"{len(number) - 1}: number them without a gap, or use a larger catalogue."
        )
    if not bool((catalogue.attributes["kind"] == PRACTICE).any()):
        raise UserError(
            f"No item of the course is an exercise, and only exercises complete a skill: give some items the "
            f"kind {KINDS[PRACTICE]!r}."
        )

"""The items of a course: drawn kinds and skills, those of a file, and prerequisites."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recsys_rl.env.course_items import (
    KINDS,
    LESSON,
    PATTERN,
    PRACTICE,
    REVIEW,
    SKILLS,
    add_attributes,
    graph_of,
    order_of,
)
from recsys_rl.types import ItemFeature, UserError, World
from tests.small_runs import settings, world


def test_drawn_items_have_each_kind_in_each_skill() -> None:
    catalogue = world(settings("ppo", "tutor")).catalogue
    kind, skill = catalogue.attributes["kind"], catalogue.attributes["skill"]
    for number in range(SKILLS):
        counts = torch.bincount(kind[skill == number], minlength=len(KINDS))
        assert counts.tolist() == [4, 12, 4]
    assert len(PATTERN) == 5 and catalogue.drawn[-3:] == ("kind", "skill", "difficulty")


def test_kinds_and_skills_of_a_file() -> None:
    """Texts stand for kinds, in any order, and skills are numbers."""
    home = world(settings("ppo", "tutor"))
    names = ItemFeature("kind", "classes", ("review", "lesson", "practice"))
    bare = replace(home.catalogue, features=(names,), drawn=())
    held = {"kind": torch.arange(200) % 3, "skill": (torch.arange(200) % 4).float()}
    catalogue = add_attributes(World(replace(bare, attributes=held), home.population), 0).catalogue
    assert catalogue.attributes["kind"][:3].tolist() == [REVIEW, LESSON, PRACTICE]
    assert catalogue.classes("kind") == KINDS and catalogue.classes("skill") == ("0", "1", "2", "3")
    assert catalogue.drawn == ("difficulty",)
    for wrong in (
        {"kind": held["kind"]},
        {"kind": held["kind"].float(), "skill": held["skill"]},
        {**held, "skill": held["skill"] + 0.5},
        {**held, "skill": 2 * held["skill"]},  # skills 1, 3 and 5 have no item
        {**held, "difficulty": torch.arange(200)},
        {**held, "kind": held["kind"] % 2},  # reviews and lessons, no exercise
    ):
        with pytest.raises(UserError):
            add_attributes(World(replace(bare, attributes=wrong), home.population), 0)


def test_graphs() -> None:
    assert graph_of(None, 5) == ((), (), (0,), (0, 1), (1, 2))
    assert graph_of("none", 2) == ((), ())
    assert graph_of("2>0, 0>1,2>1", 3) == ((2,), (0, 2), ())
    assert order_of(graph_of("2>0, 0>1", 3)) == (2, 0, 1)
    for wrong in ("0>0", "0>1,1>0", "0>1,1>2,2>0", "0>7", "a>b", "0", "0>1;1>2"):
        with pytest.raises(UserError):
            graph_of(wrong, 3)

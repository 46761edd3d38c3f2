"""The rules of the trade of courses and flash cards, by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from recsys_rl.env.schedulers import (
    BOXES,
    SCHEDULERS,
    SM2,
    Scheduler,
    Shelf,
    Syllabus,
    columns,
    forgotten,
    overdue,
)
from recsys_rl.make import make_env
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.testing import check_agent
from recsys_rl.types import Interface, Obs, World
from tests.small_runs import settings, world

LESSON, PRACTICE, REVIEW = range(3)


@pytest.fixture(scope="module")
def place() -> tuple[Config, World, Interface, Obs]:
    """A course of 40 steps, and the observation of two learners at its start."""
    config = settings("ppo", "tutor", env_config={"num_items": 60, "max_episode_steps": 40})
    made = world(config)
    env = make_env(config, made, 2, torch.Generator().manual_seed(0))
    return config, made, env.interface, env.reset()


def with_columns(interface: Interface, obs: Obs, **values: list[float]) -> Obs:
    """The observation with these numbers of the ten skills in some columns, for all learners."""
    context = obs.context.clone()
    for name, numbers in values.items():
        at = interface.place_of("clock" if name == "clock" else f"{name}[skill]")
        context[:, at] = torch.tensor(numbers)
    return replace(obs, context=context)


def choice(made: World, item: Tensor) -> tuple[int, int]:
    """The skill and the kind of the first learner's item."""
    attributes = made.catalogue.attributes
    return int(attributes["skill"][item[0, 0]]), int(attributes["kind"][item[0, 0]])


def only(skill: int, value: float, others: float = 0.0) -> list[float]:
    """Numbers of ten skills."""
    return [value if s == skill else others for s in range(10)]


def test_new_skills_in_the_order_of_the_syllabus(place: tuple[Config, World, Interface, Obs]) -> None:
    _, made, interface, obs = place
    rule = Scheduler(made.catalogue, interface, None, taught=0.5)
    assert choice(made, rule.act(obs).items) == (0, LESSON)
    seen = {"seen": [0.1] * 10}
    half = with_columns(interface, obs, belief=only(0, 0.6, 0.2), **seen)
    assert choice(made, rule.act(half).items) == (0, PRACTICE)
    mastered = with_columns(interface, obs, belief=only(0, 0.95, 0.2), **seen)
    assert choice(made, rule.act(mastered).items) == (1, LESSON)
    all_ = with_columns(interface, obs, belief=[0.99] * 10, recall=only(7, 0.8, 0.9), **seen)
    assert choice(made, rule.act(all_).items) == (7, PRACTICE)


def test_due_reviews_come_first(place: tuple[Config, World, Interface, Obs]) -> None:
    _, made, interface, obs = place
    rule = Scheduler(made.catalogue, interface, forgotten(0.9), taught=0.5)
    weak = {"recall": only(4, 0.7, 0.85)}
    assert choice(made, rule.act(with_columns(interface, obs, **weak)).items) == (0, LESSON)  # nothing is met
    met = with_columns(interface, obs, **weak, seen=[0.1] * 10)
    assert choice(made, rule.act(met).items) == (4, REVIEW)
    fresh = with_columns(interface, obs, recall=[0.95] * 10, seen=[0.1] * 10)
    assert choice(made, rule.act(fresh).items) == (0, LESSON)


@pytest.mark.parametrize(
    ("days", "first", "row", "interval"),
    [(BOXES, 0, 0, 1), (BOXES, 0, 2, 4), (BOXES, 0, 8, 16), (SM2, 1, 0, 1), (SM2, 1, 1, 1), (SM2, 1, 2, 6)],
)
def test_intervals(days: Tensor, first: int, row: int, interval: int) -> None:
    for since, urgency in ((interval - 1, 0.0), (interval, 1.0), (interval + 1, (interval + 1) / interval)):
        see = {"row": torch.tensor([[row / 8]]), "since": torch.tensor([[since / 30]])}
        assert overdue(days, first)(see).item() == pytest.approx(urgency)


def test_syllabus_gives_each_skill_the_same_time(place: tuple[Config, World, Interface, Obs]) -> None:
    _, made, interface, obs = place
    rule = Syllabus(made.catalogue, interface, lessons=2)
    found = []
    for step in range(40):
        found.append(choice(made, rule.act(with_columns(interface, obs, clock=[step / 40])).items))
    kinds = (LESSON, LESSON, PRACTICE, PRACTICE)
    assert found == [(skill, kind) for skill in range(10) for kind in kinds]


def test_item_of_average_difficulty_that_may_be_shown(place: tuple[Config, World, Interface, Obs]) -> None:
    _, made, _, obs = place
    attributes, shelf = made.catalogue.attributes, Shelf.of(made.catalogue)
    mine = (attributes["skill"] == 3) & (attributes["kind"] == PRACTICE)
    distance = (attributes["difficulty"] - attributes["difficulty"].mean()).abs()
    order = distance.masked_fill(~mine, torch.inf).argsort()
    skill, kind = torch.full((2, 1), 3), torch.full((2, 1), PRACTICE)
    assert shelf.item(obs, skill, kind).tolist() == [[order[0]]] * 2
    mask = torch.ones(2, 60, dtype=torch.bool)
    mask[:, order[0]] = False
    assert shelf.item(replace(obs, mask=mask), skill, kind).tolist() == [[order[1]]] * 2
    mask = ~mine.expand(2, -1)  # then any item of the skill
    other = shelf.item(replace(obs, mask=mask), skill, kind)
    assert choice(made, other)[0] == 3


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rules_are_policies(name: str, place: tuple[Config, World, Interface, Obs]) -> None:
    _, made, interface, obs = place
    rules = SCHEDULERS[name].settings(made.catalogue, interface)
    assert len(rules) == 4
    for rule in rules.values():
        check_agent(partial(same, rule), obs, 60)


def same(rule: Policy) -> Policy:
    return rule


def test_columns_have_a_number_for_each_skill(place: tuple[Config, World, Interface, Obs]) -> None:
    _, _, interface, obs = place
    see = columns(interface, obs)
    assert {"belief", "recall", "row", "since", "seen", "order"} <= see.keys()
    assert all(value.shape == (2, 10) for value in see.values())

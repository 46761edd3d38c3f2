"""A course of six items of two skills, and its learner."""

from __future__ import annotations

import math

import torch

from recsys_rl.env import tutor
from recsys_rl.env.course_items import LESSON, PRACTICE, REVIEW
from recsys_rl.env.tutor import Tutor, TutorConfig
from recsys_rl.types import Catalogue, Population
from tests.env.hand import by_hand

SHOWN = torch.ones(1, 1, dtype=torch.bool)
CONFIG = TutorConfig(
    num_items=6,
    embedding_dim=2,
    max_episode_steps=6,
    prerequisites="0>1",
    items_per_day=2,
    test_delay=5,
    ability_deviation=0.5,
    overnight=0.5,
)
hand = by_hand(
    tutor,
    prior=0.3,
    lesson_rate=0.4,
    practice_rate=0.1,
    slip=0.1,
    guess=0.2,
    too_easy=0.8,
    feeling_kept=0.9,
    frustration_step=0.2,
    boredom_step=0.1,
    sameness_kept=0.75,
)
TEACH_0, ASK_0, CARD_0, TEACH_1, ASK_1, CARD_1 = range(6)  # the items


def tiny(config: TutorConfig = CONFIG, foreknowledge: tuple[float, float] = (0.0, 0.99)) -> Tutor:
    """Six items and one learner, of ability 0.4, who knows skill 0 but not skill 1, which needs it."""
    catalogue = Catalogue(
        embedding=torch.eye(6)[:, :2],
        item_ids=torch.arange(6),
        titles=(),
        popularity=torch.full((6,), 0.5),
        quality=torch.full((6,), 0.5),
        available=torch.ones(6, dtype=torch.bool),
        source="made up",
        attributes={
            "kind": torch.tensor([LESSON, PRACTICE, REVIEW] * 2),
            "skill": torch.tensor([0, 0, 0, 1, 1, 1]),
            "difficulty": torch.tensor([9.0, 0.5, 9.0, 9.0, -0.4, 9.0]),
        },
    )
    user, one = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    drawn = {"ability": torch.tensor([0.8]), "foreknowledge": torch.tensor([foreknowledge])}
    return Tutor(catalogue, Population(user, user, one, one, one[:0], attributes=drawn), config)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


HIGH, LOW = math.log(9), math.log(0.25)  # logits of 1 - slip and of guess


def right_if(margin: float, held: float = 1.0) -> float:
    """The probability of a right answer in a skill that is known and recalled with the share ``held``."""
    return held * sigmoid(HIGH + margin) + (1 - held) * sigmoid(LOW + margin)

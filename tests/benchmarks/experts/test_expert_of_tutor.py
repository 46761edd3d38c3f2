"""The expert of a course, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.experts.policy import ByEquations
from benchmarks.experts.tutor import EXPERT
from recsys_rl.env.tutor import Tutor
from recsys_rl.session import make_interface
from recsys_rl.types import Interface, Obs
from tests.env.tiny_course import ASK_0, CARD_0, right_if, tiny
from tests.env.tiny_course import hand as hand

NUMBERS = {
    "learn": 2.0,
    "open": 3.0,
    "streak": 0.5,
    "keep": 4.0,
    "calm": 0.1,
    "angry": 0.2,
    "lively": 0.3,
    "bored": 0.4,
}
PIECES = {
    "belief": [0.8, 0.25],
    "recall": [0.9, 1.0],
    "ready": [1.0, 0.8],
    "row": [2 / 8, 0.0],
    "completed": [0.0, 0.0],
    "recent[skill]": [0.3, 0.6],
    "mood": [0.5, 0.25],
}
"""Skill 1 needs skill 0, which has two right answers in a row."""
LEFT = 0.75  # share of the course


def place(model: Tutor, pieces: dict[str, list[float]]) -> tuple[Interface, Obs]:
    sizes = {name: len(values) for name, values in pieces.items()}
    names = ("clock", *pieces)
    made = make_interface(
        model.catalogue, context=names, given=sizes, signals=(), session_length=6, repeats=True
    )
    return made, Obs(torch.tensor([[1 - LEFT, *(x for values in pieces.values() for x in values)]]))


def scores(pieces: dict[str, list[float]], items: Tensor | None = None) -> Tensor:
    model = tiny()
    numbers = {name: torch.tensor(value) for name, value in NUMBERS.items()}
    return EXPERT.scores(model, *place(model, pieces), numbers, items)


def test_scores_by_hand() -> None:
    angry, bored = 0.1 + 0.2 * 0.5, 0.3 + 0.4 * 0.25  # prices of frustration and boredom
    steps = 0.2, 0.1

    def mood(strain: float, ease: float, recent: float) -> float:
        tedium = max(0.0, ease - 0.8) / 0.2 + recent
        return -angry * steps[0] * strain - bored * steps[1] * tedium

    # A lesson of skill 0: of its 0.2 x 0.4 learned, skill 1 needs it with 0.75.
    lesson_0 = 0.08 * (2 + 3 * 0.75) + mood(0.0, 0.72, 0.3)
    ask = 0.72 * right_if(-0.5) + 0.28 * right_if(-0.5, 0)
    ask_0 = (
        ask
        + 0.05 * (ask - (1 - ask))
        + LEFT
        * (0.2 * 0.1 * (2 + 3 * 0.75) + 0.5 * (ask - 2 * (1 - ask)) + 4 * 0.8 * 0.1 + mood(1 - ask, ask, 0.3))
    )
    card = 0.72 * right_if(0.0) + 0.28 * right_if(0.0, 0)
    card_0 = 0.05 * (2 * card - 1) + LEFT * (
        0.5 * (card - 2 * (1 - card)) + 4 * 0.8 * 0.1 + mood(1 - card, card, 0.3)
    )
    # A lesson of skill 1: 0.75 of the learners do not know it, and it strains those who lack skill 0.
    strain = 0.75 * 0.2
    lesson_1 = 0.75 * 0.8 * 0.4 * 2 + mood(strain, 0.25, 0.6)
    found = scores(PIECES)
    assert found.shape == (1, 6)
    expected = torch.tensor([LEFT * lesson_0, ask_0, card_0, LEFT * lesson_1 - 0.05 * strain])
    assert_close(found[0, :4], expected)
    among = scores(PIECES, torch.tensor([[CARD_0, ASK_0, -1]]))
    assert among[0, :2].tolist() == pytest.approx([card_0, ask_0])


def test_completed_skill_is_neither_completed_again_nor_learned_for_itself() -> None:
    ask = 0.72 * right_if(-0.5) + 0.28 * right_if(-0.5, 0)
    undone, done = scores(PIECES), scores({**PIECES, "completed": [1.0, 0.0]})
    gone = ask + LEFT * (0.2 * 0.1 * 2 + 0.5 * (ask - 2 * (1 - ask)))
    assert (undone - done)[0, ASK_0].item() == pytest.approx(gone, abs=1e-6)


def test_each_learner_may_have_numbers_of_their_own() -> None:
    """As in the search; the policy shows the item with the highest score."""
    model = tiny()
    interface, obs = place(model, PIECES)
    both = Obs(obs.context.repeat(2, 1))
    numbers = {name: torch.tensor([value, 0.0]) for name, value in NUMBERS.items()}
    agent = ByEquations(EXPERT, model, model.catalogue, interface, numbers)
    best = agent.act(both).items[:, 0]
    assert best.tolist() == [scores(PIECES)[0].argmax().item(), ASK_0]  # the next reward alone

"""The expert of `tutor`: the equations of a course, with what the belief expects in place of what is hidden.

For an item i of skill s, of a learner of average ability, with the belief p_s, the recall R_s, the share of
prerequisites ready_s, the right answers in a row r_s, completed c_s, the share m_s among the last items, the
supposed frustration f and boredom g, and the share ``left`` of the course that is left::

    right     = p_s R_s P1 + (1 - p_s R_s) P0                          learned = (1 - p_s) rate ready_s
    completed = [practice] right [r_s >= IN_A_ROW - 1] (1 - c_s)
    row       = [practice, review] (right - (1 - right) min(r_s, IN_A_ROW - 1)) (1 - c_s)
    needed    = sum over the skills q that need s of (1 - p_q) / number of prerequisites of q
    recalled  = [practice, review] p_s (1 - R_s)

    score = completed + 0.05 right - 0.05 strain + left x (
              learn learned (1 - c_s) + open learned needed + streak row + keep recalled
              - (calm + angry f) frustration(strain) - (lively + bored g) boredom(tedium) )

strain and tedium, and the steps of frustration and boredom by them, are those of the learners. A search finds
the eight numbers learn, open, streak, keep, calm, angry, lively and bored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.experts.form import Expert
from recsys_rl.env.course_items import IN_A_ROW, LESSON, MOST_ROW, PRACTICE
from recsys_rl.types import Interface, Obs

NUMBERS = {
    "learn": (1.0, 0.5),
    "open": (0.5, 0.5),
    "streak": (0.2, 0.2),
    "keep": (0.2, 0.3),
    "calm": (0.5, 0.5),
    "angry": (2.0, 1.0),
    "lively": (0.5, 0.5),
    "bored": (2.0, 1.0),
}
"""First value and first deviation of each number."""


def scores(
    user_model: Any, interface: Interface, obs: Obs, numbers: Mapping[str, Tensor], items: Tensor | None
) -> Tensor:
    """Scores (N, C) of the ``items`` (N, C), or (N, I) of all for None; see ``Expert``."""
    course = user_model.course
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)

    def see(piece: str) -> Tensor:
        return obs.context[:, interface.place_of(piece)]

    known, held, ready, done = (see(piece) for piece in ("belief", "recall", "ready", "completed"))  # (N, S)
    needed = (1 - known) @ course.filter.needs  # (N, S)
    at = slice(None) if items is None else items.clamp_min(0)
    kind, skill = course.kind[at], course.skill[at]  # (I,) or (N, C)

    def pick(values: Tensor) -> Tensor:
        """(N, S) to the items."""
        return values.index_select(1, skill) if items is None else values.gather(1, skill)

    lesson, practice = (kind == LESSON).float(), (kind == PRACTICE).float()
    recalled = pick(known * held)
    p1, p0 = course.answers(torch.zeros_like(course.hardness[at]), course.hardness[at])
    right = torch.lerp(p0.expand_as(recalled), p1.expand_as(recalled), recalled)
    ease = torch.lerp(right, recalled, lesson)
    right = right * (1 - lesson)
    strain = torch.lerp(1 - right, pick((1 - known) * (1 - ready)), lesson)
    undone, before = pick(1 - done), pick(MOST_ROW * see("row"))
    learned = pick((1 - known) * ready) * course.rates[kind]
    steps = course.feelings.changes(strain, course.feelings.tedium(ease, pick(see("recent[skill]"))))
    frustrated, bored = see("mood").split(1, dim=1)  # (N, 1) each

    now = practice * right * (before > IN_A_ROW - 1.5) * undone + 0.05 * (right - strain)
    later = (
        learned * (number["learn"] * undone + number["open"] * pick(needed))
        + number["streak"] * (1 - lesson) * (right - (1 - right) * before.clamp_max(IN_A_ROW - 1)) * undone
        + number["keep"] * (1 - lesson) * pick(known * (1 - held))
        - (number["calm"] + number["angry"] * frustrated) * steps[..., 0]
        - (number["lively"] + number["bored"] * bored) * steps[..., 1]
    )
    score: Tensor = now + (1 - see("clock")) * later
    return score


EXPERT = Expert(
    "The expected reward, with prices of what is learned, opened, answered in a row and recalled, and of "
    "frustration and boredom by their levels, as the belief and the equations expect them.",
    NUMBERS,
    scores,
)

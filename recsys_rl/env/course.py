"""A course as its teacher can follow it: what the items and the answers alone say about the learners.

For each skill s it holds the belief p_s (env/belief.py), the memory by FSRS-6 (stability S_s, difficulty D_s
and day l_s of the last item; env/memory.py), the right answers in a row r_s, the completed skills c_s, the
number of items, and the fading share m_s among the last items. It also supposes feelings (env/feelings.py):
wrong answers are seen, ease and readiness are believed. Learners are supposed to be of average ability and to
forget by FSRS, whatever they are. The equations of the learners stand in the file of the platform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.env import memory
from recsys_rl.env.belief import Belief
from recsys_rl.env.course_items import KINDS, LESSON, MOST_DAYS, MOST_ROW, MOST_SEEN, order_of
from recsys_rl.env.feelings import Feelings
from recsys_rl.records import Known


@dataclass(frozen=True)
class Course:
    """The items of a course, and what can be followed of learners who take it, without what is hidden.

    A record of learners is a mapping of tensors: "belief" (N, B); "stability", "difficulty", "last",
    "row", "completed", "seen" and "recent" (m), (N, S) each; "mood" (N, 2), as it is supposed; "steps"
    and "last_kind", (N,) each.
    """

    kind: Tensor  # (I,) int64
    skill: Tensor  # (I,) int64
    hardness: Tensor  # (I,): b of an exercise, 0 of other items
    graph: tuple[tuple[int, ...], ...]  # the prerequisites of each of the S skills
    exact: bool  # the belief is of all states of the skills
    day_length: int  # items of a day
    test_day: int
    prior: float  # probability that a skill is known before the course
    teaching: tuple[float, float, float]  # probability of learning, by kind, if all prerequisites are known
    slip: float
    guess: float
    sameness: float  # share of m that remains after one item
    feelings: Feelings

    @property
    def num_skills(self) -> int:
        return len(self.graph)

    @cached_property
    def filter(self) -> Belief:
        needs = torch.zeros(self.num_skills, self.num_skills, device=self.kind.device)
        for skill, before in enumerate(self.graph):
            needs[skill, list(before)] = 1 / max(1, len(before))
        return Belief(needs, self.exact)

    @cached_property
    def order(self) -> Tensor:
        """(S,): the place of each skill in a fixed syllabus, as a share 0 .. 1."""
        order = order_of(self.graph)
        places = torch.zeros(self.num_skills, device=self.kind.device)
        places[list(order)] = torch.arange(self.num_skills, device=places.device) / max(1, len(order) - 1)
        return places

    @cached_property
    def rates(self) -> Tensor:
        """(3,): the probability of learning, by kind."""
        return torch.tensor(self.teaching).to(self.hardness)

    def begin(self, number: int) -> dict[str, Tensor]:
        """The record of ``number`` learners before the course."""
        nothing = torch.zeros(number, self.num_skills, device=self.kind.device)
        stability, difficulty = memory.first(memory.GOOD)
        return {
            "belief": self.filter.begin(self.prior, number),
            "stability": nothing + stability,
            "difficulty": nothing + difficulty,
            **dict.fromkeys(("last", "row", "completed", "seen", "recent"), nothing),
            "mood": nothing.new_zeros(number, 2),
            "steps": nothing.new_zeros(number),
            "last_kind": torch.full((number,), -1, device=nothing.device),
        }

    def day(self, record: Known) -> Tensor:
        """(N,): the day of the next item."""
        return (record["steps"] / self.day_length).floor()

    def night(self, record: Known) -> Tensor:
        """(N,): the next item is the last of its day."""
        return (record["steps"] + 1) % self.day_length == 0

    def recall(self, record: Known) -> Tensor:
        """(N, S): R by FSRS."""
        return memory.recall(record["stability"], self.day(record).unsqueeze(1) - record["last"])

    def pieces(self, record: Known) -> dict[str, Tensor]:
        """The pieces of the context, (N, size) each, by name."""
        belief, day = record["belief"], self.day(record)
        known = self.filter.known(belief)
        of_skills = {
            "belief": known,
            "recall": self.recall(record),
            "ready": self.filter.ready_of(known),
            "row": record["row"].clamp_max(MOST_ROW) / MOST_ROW,
            "since": (day.unsqueeze(1) - record["last"]).clamp_max(MOST_DAYS) / MOST_DAYS,
            "seen": record["seen"].clamp_max(MOST_SEEN) / MOST_SEEN,
            "completed": record["completed"],
        }
        kinds = torch.arange(len(KINDS), device=day.device)
        into_day = record["steps"] / self.day_length - day
        return {
            **of_skills,
            **{f"{name}[skill]": value for name, value in of_skills.items()},
            "recent[skill]": record["recent"],
            "order[skill]": self.order.expand(len(day), -1),
            "last_kind": (record["last_kind"].unsqueeze(1) == kinds).float(),
            "mood": record["mood"].clamp_max(1),
            "into_day": into_day.unsqueeze(1),
        }

    def after(self, record: Known, item: Tensor, shown: Tensor, right: Tensor, completed: Tensor) -> Known:
        """The record after an item; ``item``, ``shown``, ``right`` and ``completed`` are (N,)."""
        kind, skill = self.kind[item], self.skill[item]
        at = skill.unsqueeze(1)
        asked, lesson = (kind != LESSON).float(), (kind == LESSON).float()
        there = shown.float().unsqueeze(1)  # (N, 1)
        held = self.recall(record).gather(1, at).squeeze(1)  # (N,)
        p1, p0 = self.answers(torch.zeros_like(held), self.hardness[item])
        if_known = held * p1 + (1 - held) * p0
        known, ready = (
            value.gather(1, at).squeeze(1)
            for value in (self.filter.known(record["belief"]), self.filter.ready(record["belief"]))
        )
        # Supposed: wrong answers are seen, ease and readiness are believed.
        ease = torch.lerp(known * held, known * if_known + (1 - known) * p0, asked)
        strain = asked * (1 - right) + lesson * (1 - known) * (1 - ready)
        recent = record["recent"].gather(1, at).squeeze(1)
        unknown = torch.full_like(p0, 0.5)  # nothing follows from an item without a question
        belief = self.filter.after(
            record["belief"],
            skill,
            right,
            torch.lerp(unknown, if_known, asked),
            torch.lerp(unknown, p0, asked),
            self.rates[kind],
        )
        stability, difficulty = self.remembered(record, at, kind, right)
        day = self.day(record)
        before = {name: record[name].gather(1, at) for name in ("row", "completed", "seen")}
        row = torch.lerp(before["row"], right.unsqueeze(1) * (before["row"] + 1), asked.unsqueeze(1))
        fresh = {
            "stability": stability,
            "difficulty": difficulty,
            "last": day.unsqueeze(1),
            "row": row,
            "completed": (before["completed"] + completed.unsqueeze(1)).clamp_max(1),
            "seen": before["seen"] + 1,
        }
        later = {
            name: record[name].scatter(1, at, torch.where(there > 0, value, record[name].gather(1, at)))
            for name, value in fresh.items()
        }
        mark = torch.zeros_like(record["recent"]).scatter_(1, at, 1)
        moved = torch.lerp(mark, record["recent"], self.sameness)
        mood = self.feelings.after(record["mood"], strain, self.feelings.tedium(ease, recent))
        return {
            **later,
            "belief": torch.where(there > 0, belief, record["belief"]),
            "recent": torch.where(there > 0, moved, record["recent"]),
            "mood": self.feelings.rested(torch.where(there > 0, mood, record["mood"]), self.night(record)),
            "steps": record["steps"] + 1,
            "last_kind": torch.where(shown, kind, record["last_kind"]),
        }

    def answers(self, ability: Tensor, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """P1 and P0, of a right answer if the skill is known and recalled, and if not."""
        margin = ability - hardness
        return (margin + logit(1 - self.slip)).sigmoid(), (margin + logit(self.guess)).sigmoid()

    def remembered(self, record: Known, at: Tensor, kind: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Stability and difficulty, (N, 1) each, of the skill ``at`` (N, 1) after an item of a ``kind``."""
        stability, difficulty, last = (
            record[name].gather(1, at) for name in ("stability", "difficulty", "last")
        )
        days = self.day(record).unsqueeze(1) - last
        good, again = (
            memory.review(stability, difficulty, days, rating) for rating in (memory.GOOD, memory.AGAIN)
        )
        lesson, answer = (kind == LESSON).unsqueeze(1), right.unsqueeze(1)
        taught = stability.clamp_min(memory.first(memory.GOOD)[0])
        return (
            torch.where(lesson, taught, torch.lerp(again[0], good[0], answer)),
            torch.where(lesson, difficulty, torch.lerp(again[1], good[1], answer)),
        )


def logit(p: float) -> float:
    return math.log(p / (1 - p))

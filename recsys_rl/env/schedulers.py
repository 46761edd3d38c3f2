"""Rules by which courses and flash cards are scheduled without reinforcement learning.

All but the syllabus first review what is due, by the rule that names them, and teach in the time that is
left: the first skill of the syllabus that is not mastered yet. They read columns of the context
(user_columns.py): of each skill the belief that it is known, its recall, the right answers in a row, the days
since its last item, and its place in the syllabus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.env.course_items import MOST_DAYS, MOST_ROW
from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.protocols import Policy
from recsys_rl.records import Heuristic
from recsys_rl.types import Action, Catalogue, Interface, Obs

MASTERY = 0.95  # belief at which a skill counts as known (Corbett and Anderson, 1995)
RETENTION = 0.9  # recall at which a card is due, the default of Anki
NEARLY = 0.999  # recall of what was met on the same day is 1
BOXES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])  # days, by right answers in a row from 0
SM2 = torch.tensor([1.0, 6.0, 15.0, 37.5])  # days, by right answers in a row from 1; ease 2.5 (Wozniak, 1990)
LESSONS = (2, 3, 4, 6)  # of a skill, in a fixed syllabus
TAUGHT = (0.3, 0.5, 0.7, 0.9)  # belief below which a skill gets lessons, and from which it gets exercises
LESSON, PRACTICE, REVIEW = "lesson", "practice", "review"

Columns = Mapping[str, Tensor]  # (N, S) by name


@dataclass(frozen=True)
class Scheduler:
    """Shows the most urgent due review, else a lesson or an exercise of the next skill.

    ``due``: (N, S), the urgency of reviewing each skill, above 0 if it is due; None: nothing is ever due.
    ``taught``: the belief from which a skill gets exercises in place of lessons.
    """

    catalogue: Catalogue
    interface: Interface
    due: Callable[[Columns], Tensor] | None
    taught: float

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        see = columns(self.interface, obs)
        belief, met = see["belief"], see["seen"] > 0
        weak = -see["recall"] - 0.1 * see["row"] - 0.01 * see["seen"]  # if all are mastered
        rest = torch.where(belief < MASTERY, 2 - see["order"], weak)
        skill = rest.argmax(1, keepdim=True)  # (N, 1)
        kind = torch.where(belief.gather(1, skill) < self.taught, 0, 1)
        if self.due is not None:
            urgency = self.due(see).masked_fill(~met, 0)
            most, urgent = urgency.max(1, keepdim=True)
            skill, kind = torch.where(most > 0, urgent, skill), torch.where(most > 0, 2, kind)
        return Action.certain(self.shelf.item(obs, skill, kind))

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf.of(self.catalogue)


@dataclass(frozen=True)
class Syllabus:
    """The skills one after another, each for the same share of the course: lessons, then exercises."""

    catalogue: Catalogue
    interface: Interface
    lessons: int

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        order = columns(self.interface, obs)["order"].argsort(1)  # (N, S): the skill at each place
        clock = obs.context[:, self.interface.place_of("clock")]  # (N, 1)
        step = (clock * self.interface.session_length).round()
        each = self.interface.session_length / order.shape[1]
        place = (step / each).floor().clamp_max(order.shape[1] - 1)
        kind = (step - (place * each).ceil() >= self.lessons).long()
        return Action.certain(self.shelf.item(obs, order.gather(1, place.long()), kind))

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf.of(self.catalogue)


@dataclass(frozen=True)
class Shelf:
    """The items by skill and kind."""

    skill: Tensor  # (I,) int64
    kind: Tensor  # (I,) int64: the place in LESSON, PRACTICE, REVIEW
    difficulty: Tensor  # (I,): distance from the average

    @classmethod
    def of(cls, catalogue: Catalogue) -> Shelf:
        named, names = catalogue.attributes, catalogue.classes("kind")
        places = torch.tensor([names.index(name) for name in (LESSON, PRACTICE, REVIEW)])
        kind = places.argsort().to(named["kind"].device)[named["kind"]]
        return cls(named["skill"], kind, (named["difficulty"] - named["difficulty"].mean()).abs())

    def item(self, obs: Obs, skill: Tensor, kind: Tensor) -> Tensor:
        """(N, 1): of the ``skill`` (N, 1), of the ``kind`` (N, 1) if it has any, of average difficulty."""
        scores = 2.0 * (self.skill == skill) + 1.0 * (self.kind == kind)  # (N, I)
        scores = scores - self.difficulty / (1 + self.difficulty.max())
        return highest(categorical.mask_logits(scores, obs.allowed(len(self.skill))), 1)


def columns(interface: Interface, obs: Obs) -> Columns:
    """The columns of an observation, (N, S) each, by name."""
    pieces = interface.user_columns.items()
    return {column: obs.context[:, interface.place_of(piece)] for piece, (column, _) in pieces}


def row_of(see: Columns) -> Tensor:
    """(N, S) int64: right answers in a row."""
    return (MOST_ROW * see["row"]).round().long()


def overdue(days: Tensor, first: int) -> Callable[[Columns], Tensor]:
    """Days since the last item, as a share of the interval of so many right answers in a row.

    ``days``: the intervals, from ``first`` right answers in a row on.
    """

    def due(see: Columns) -> Tensor:
        interval = days.to(see["since"].device)[(row_of(see) - first).clamp(0, len(days) - 1)]
        since = (MOST_DAYS * see["since"]).round() / interval
        return since * (since >= 1)

    return due


def forgotten(retention: float) -> Callable[[Columns], Tensor]:
    """1 minus the recall, where it is below ``retention``."""
    return lambda see: (1 - see["recall"]) * (see["recall"] < retention)


def _with(due: Callable[[Columns], Tensor] | None) -> Callable[[Catalogue, Interface], dict[str, Policy]]:
    def settings(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
        return {
            f"lessons up to a belief of {taught:g}": Scheduler(catalogue, interface, due, taught)
            for taught in TAUGHT
        }

    return settings


def _syllabus(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
    return {
        f"{lessons} lessons of each skill": Syllabus(catalogue, interface, lessons) for lessons in LESSONS
    }


SCHEDULERS = {
    "syllabus": Heuristic("The skills one after another, in the same time each.", _syllabus),
    "mastery": Heuristic(f"The next skill when the belief in the last one is {MASTERY:g}.", _with(None)),
    "leitner": Heuristic(
        "Reviews after 1, 2, 4, 8 days: the box is that of the right answers in a row.",
        _with(overdue(BOXES, 0)),
    ),
    "sm2": Heuristic("Reviews after 1, 6, 15 days, by SM-2.", _with(overdue(SM2, 1))),
    "fsrs": Heuristic(f"Reviews at a recall by FSRS below {RETENTION:g}.", _with(forgotten(RETENTION))),
    "forgetting": Heuristic(
        "The skill that is nearest to being forgotten, once a day each.", _with(forgotten(NEARLY))
    ),
}

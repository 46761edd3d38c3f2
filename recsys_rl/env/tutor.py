"""`tutor`: a course of lessons, exercises and reviews for one learner, with a test some days after its end.

A course has days of ``items_per_day`` items; item n = 0, 1, ... is on day d = floor(n / items_per_day). An
item i is of a kind [lesson, practice or review] and a skill s; an exercise has a difficulty b_i [logits].

Hidden state of a learner, for each skill s (units in brackets):

- known k_s [0 or 1] of a student `fsrs` or `exponential`; a level 0 .. 1 of a student `irt`
- half-life h_s [days] of a student `exponential`

and ability a [logits], frustration f and boredom g [0 .. 1; the learner leaves when one of them reaches 1].
A tutor can follow (env/course.py), from the items and answers alone, the memory (stability S_s, difficulty
D_s, day l_s of the last item) by FSRS-6 (env/memory.py), the right answers in a row r_s, the completed skills
c_s [0 or 1] and the fading share m_s of skill s among the last items::

    R_s     = fsrs: (1 + F t / S_s)^-w20        exponential: 2^(-t / h_s)        irt: 1         t = d - l_s
    ready_s = share of the prerequisites of s that are known, 1 without any; of `irt` their mean level
    margin  = a - [practice] b_i
    P1, P0  = sigmoid(logit(1 - slip) + margin), sigmoid(logit(guess) + margin)
    P_right = [practice, review] k_s R_s P1 + (1 - k_s R_s) P0
              irt: sigmoid(k_s logit(1 - slip) + (1 - k_s) logit(guess) + margin)
    right   ~ Bernoulli(P_right)
    learned ~ Bernoulli((1 - k_s) rate ready_s); of `irt` its mean        rate = LESSON_RATE, PRACTICE_RATE, 0
    k_s    <- k_s + learned

    r_s    <- r_s + 1 if right, 0 if wrong
    completed = [practice] right and r_s was IN_A_ROW - 1 or more and not c_s;    c_s <- c_s + completed
    lesson:   S_s <- max(S_s, S of a first Good)           h_s <- max(h_s, 2)
    others:   S_s, D_s by FSRS, Good if right, else Again; h_s <- 2 h_s if right, h_s / 2 if wrong
    l_s    <- d

    ease    = P_right; of a lesson k_s R_s
    strain  = [practice, review] wrong + [lesson] (1 - k_s) (1 - ready_s)
    tedium  = max(0, ease - TOO_EASY) / (1 - TOO_EASY) + m_s
    f      <- FEELING_KEPT f + FRUSTRATION_STEP strain;       g <- FEELING_KEPT g + BOREDOM_STEP tedium
    m      <- SAMENESS_KEPT m + (1 - SAMENESS_KEPT) onehot(s)
    f, g   <- overnight f, overnight g     after the last item of a day

    knowledge = sum over s of P_right of an exercise of difficulty 0 on the day of the test [points, 0 .. S]
    reward    = completed + 0.05 right - 0.05 strain

Before the course a learner knows skill s with probability sigmoid(logit(prior) + a), a = ability_deviation
N(0, 1), and all memories are those of a first review, Good, on day 0. The stream `knowledge` is the change of
the knowledge by each item; its weight is 0 (--weights knowledge=1 pays for it).

The tutor's belief (env/belief.py) uses P1 and P0 of average ability and the R of FSRS, whatever the student
is. Without noise (for planners) all that is drawn is replaced by its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.env import memory
from recsys_rl.env.belief import EXACT
from recsys_rl.env.course import Course, logit
from recsys_rl.env.course_items import (
    IN_A_ROW,
    ITEMS,
    KINDS,
    LESSON,
    PRACTICE,
    TEXTS,
    USERS,
    add_attributes,
    check_items,
    graph_of,
)
from recsys_rl.env.feelings import Feelings
from recsys_rl.env.schedulers import SCHEDULERS
from recsys_rl.errors import UserError
from recsys_rl.records import Known, Platform, VisitPieces
from recsys_rl.settings.fields import NonNegative, Range, Share, Size
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream

LEAST_HALF_LIFE, FIRST_HALF_LIFE, MOST_HALF_LIFE = 1 / 96, 2.0, 274.0  # days (Settles and Meeder, 2016)
PIECES = ("belief", "recall", "ready", "row", "since", "seen", "completed")
"""Pieces of the context with a number for each skill; those with [skill] are columns of the items."""
Probability = Annotated[float, Range(above=0, below=1)]
PRIOR = 0.2  # probability that a learner of average ability knows a skill before the course
LESSON_RATE = 0.3  # probability that a lesson teaches a skill whose prerequisites are known
PRACTICE_RATE = 0.1  # the same of an exercise
SLIP = 0.1  # probability of a wrong answer of average ability to an average exercise in a skill that is known
GUESS = 0.2  # probability of a right answer in a skill that is not known
TOO_EASY = 0.85  # probability of a right answer above which an item bores
FEELING_KEPT = 0.9  # share of frustration and boredom that remains after one item
FRUSTRATION_STEP = 0.15  # frustration by a wrong answer; the learner leaves at 1
# boredom by an item that is known by heart, or of the same skill as all before; they leave at 1
BOREDOM_STEP = 0.06
SAMENESS_KEPT = 0.8  # share that the fading share of a skill among the last items keeps after one item


@dataclass(frozen=True)
class TutorConfig(EnvConfig):
    """Learners of a course; the equations are at the top of the file."""

    student: Literal["fsrs", "exponential", "irt"] = "fsrs"
    """The model by which learners learn and forget: bits with the memory of FSRS, bits with half-lives, or
    levels that grow and are never forgotten. The tutor's belief is that of fsrs for all."""
    prerequisites: str | None = None
    """Prerequisites of skills, as "0>2, 1>2": 0 and 1 before 2. Default: skill s needs s - 2 and s - 3;
    "none": no skill has any."""
    items_per_day: Size = 20
    """Items of a day."""
    test_delay: Annotated[int, Range(0, 3650)] = 7
    """Days from the last day of the course to the test."""
    ability_deviation: NonNegative = 1.0
    """Standard deviation of the learners' ability, in logits."""
    overnight: Share = 0.3
    """Share of frustration and boredom that remains overnight."""


def course_of(config: TutorConfig, catalogue: Catalogue) -> Course:
    """The course of these items, with what the tutor supposes of its learners."""
    named = catalogue.attributes
    num_skills = int(named["skill"].max()) + 1
    last_day = -(-config.max_episode_steps // config.items_per_day) - 1
    return Course(
        kind=named["kind"],
        skill=named["skill"],
        hardness=named["difficulty"] * (named["kind"] == PRACTICE),
        graph=graph_of(config.prerequisites, num_skills),
        exact=num_skills <= EXACT,
        day_length=config.items_per_day,
        test_day=last_day + config.test_delay,
        prior=PRIOR,
        teaching=(LESSON_RATE, PRACTICE_RATE, 0.0),
        slip=SLIP,
        guess=GUESS,
        sameness=SAMENESS_KEPT,
        feelings=Feelings(
            kept=FEELING_KEPT,
            at_night=config.overnight,
            easy=TOO_EASY,
            steps=(FRUSTRATION_STEP, BOREDOM_STEP),
        ),
    )


@dataclass(frozen=True)
class TutorState:
    known: Tensor  # (N, S): k
    ability: Tensor  # (N,)
    half_life: Tensor  # (N, S): h; (N, 0) if the student has none
    mood: Tensor  # (N, 2): f and g
    record: Known  # what the tutor can follow


@dataclass(frozen=True)
class Tutor:
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: TutorConfig
    repeats: ClassVar[bool] = True
    context: ClassVar[tuple[str, ...]] = (
        *("clock", "into_day", "last_kind", "last_signals", "mood", *PIECES),
        *(f"{name}[skill]" for name in (*PIECES, "recent", "order")),
    )
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("right"),
        Signal("completed"),
        Signal("strain", visible=False, meaning="the frustration"),
        Signal("tedium", visible=False, high=2.0),
        Signal("learned", visible=False),
        Signal("knowledge", visible=False, low=-1.0),
    )
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType(
        dict.fromkeys(
            ("into_day", "last_kind", "mood", *PIECES, *(name for name in context if "[" in name)), 1.0
        )
    )

    def __post_init__(self) -> None:
        attributes.require("A course", self.catalogue, ITEMS, self.population.attributes, USERS)
        check_items(self.catalogue)
        graph_of(self.config.prerequisites, self.course.num_skills)
        number = self.population.attributes["foreknowledge"].shape[1]
        if number != self.course.num_skills:
            raise UserError(
                f"The items have {self.course.num_skills} skills, and the learners' first knowledge is of "
                f"{number}: make the world with make_world."
            )

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and those that are always drawn."""
        origins = attributes.origins(self.catalogue, TEXTS)
        return f"{origins}; the learners' abilities and first knowledge are assumed"

    @cached_property
    def course(self) -> Course:
        return course_of(self.config, self.catalogue)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        config = self.config
        meaning = (
            f"The gain in the expected score of the test, {config.test_delay} days after the course, of one "
            f"question for each of {self.course.num_skills} skills; a day has {config.items_per_day} steps."
        )
        return (
            Stream("completion", 1.0),
            Stream("correctness", 0.05),
            Stream("frustration", -0.05),
            Stream("knowledge", 0.0, meaning),
        )

    def sample(self, users: Tensor) -> TutorState:
        drawn = self.population.attributes
        ability = self.config.ability_deviation * drawn["ability"].index_select(0, users)
        chance = (ability + logit(PRIOR)).sigmoid().unsqueeze(1)  # (N, 1)
        known = (drawn["foreknowledge"].index_select(0, users) < chance).float()  # (N, S)
        has_half_life = self.config.student == "exponential"
        return TutorState(
            known=known,
            ability=ability,
            half_life=torch.full_like(known, FIRST_HALF_LIFE)[:, : known.shape[1] * has_half_life],
            mood=ability.new_zeros(len(users), 2),
            record=self.course.begin(len(users)),
        )

    def possible(self, user_state: TutorState) -> bool:
        record = user_state.record
        shares = (user_state.known, record["belief"], record["completed"], record["recent"])
        within = all(bool(((x >= 0) & (x <= 1 + 1e-5)).all()) for x in shares)
        mood = bool(((user_state.mood >= 0) & (user_state.mood < 1)).all())
        above = bool((record["stability"] > 0).all() and (user_state.half_life > 0).all())
        difficulty = record["difficulty"]
        above = above and bool(((difficulty >= 1) & (difficulty <= 10)).all())
        past = all(bool((record[name] >= 0).all()) for name in ("last", "row", "seen", "steps", "mood"))
        kinds = (record["last_kind"] >= -1) & (record["last_kind"] < len(KINDS))
        past = past and bool((record["last"] <= self.course.day(record).unsqueeze(1)).all())
        return within and mood and above and past and bool(kinds.all())

    def visible(self, user_state: TutorState) -> dict[str, Tensor]:
        return self.course.pieces(user_state.record)

    def respond(
        self, user_state: TutorState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        state, course, item = user_state, self.course, items[:, 0]
        kind, at = course.kind[item], course.skill[items]
        right, completed, strain, tedium, learned = (
            x.squeeze(1) for x in self._chances(state, items, lambda x: x.gather(1, at))
        )
        if generator is not None:
            chance = torch.rand(2, len(item), generator=generator, device=item.device)
            asked = (kind != LESSON).float()
            answered = (chance[0] < right).float()
            completed = answered * (completed > 0)
            strain = strain + asked * (right - answered)
            right = answered
            if self.config.student != "irt":
                learned = (chance[1] < learned).float()
        points = self._points(state, at, kind, right, learned)
        signals = torch.stack([right, completed, strain, tedium, learned, points], 1).unsqueeze(1)
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        right, completed, strain, _, _, knowledge = feedback.signals[:, 0].unbind(1)  # (N,) each
        return torch.stack([completed, right, strain, knowledge], 1)

    def advance(self, user_state: TutorState, items: Tensor, feedback: Feedback) -> tuple[TutorState, Tensor]:
        state, course, item, shown = user_state, self.course, items[:, 0], feedback.shown[:, 0]
        right, completed, strain, tedium, learned, _ = feedback.signals[:, 0].unbind(1)  # (N,) each
        kind, at = course.kind[item], course.skill[items]
        known = state.known.scatter_add(1, at, learned.unsqueeze(1)).clamp_max(1)
        half_life = state.half_life
        if half_life.shape[1]:
            fresh = self._half_life(state, at, kind, right)
            half_life = half_life.scatter(
                1, at, torch.where(shown.unsqueeze(1), fresh, half_life.gather(1, at))
            )
        mood = torch.where(shown.unsqueeze(1), course.feelings.after(state.mood, strain, tedium), state.mood)
        leaves = (mood >= 1).any(1)
        record = course.after(state.record, item, shown, right, completed)
        rested = course.feelings.rested(mood, course.night(state.record))
        later = TutorState(known, state.ability, half_life, rested, record)
        return later, leaves

    def expected_reward(self, user_state: TutorState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of showing each item of the block now; the weight of knowledge is 0."""
        skill = self.course.skill[block]
        right, completed, strain, _, _ = self._chances(user_state, block, lambda x: x.index_select(1, skill))
        of_completion, of_right, of_strain, _ = (stream.weight for stream in self.streams)
        return of_completion * completed + of_right * right + of_strain * strain

    def _chances(
        self, state: TutorState, items: Tensor | slice, pick: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """Expected signals, all but the knowledge, (N, b) each; ``pick`` takes (N, S) to the items."""
        course, record = self.course, state.record
        kind = course.kind[items]  # (b,) or (N, b)
        lesson, practice = (kind == LESSON).float(), (kind == PRACTICE).float()
        known, ready = pick(state.known), pick(course.filter.ready_of(state.known))
        held = pick(self.recalled(state, course.day(record).unsqueeze(1)))
        right = self.right_of(known, held, state.ability.unsqueeze(1), course.hardness[items])
        ease = torch.lerp(right, known * held, lesson)
        right = right * (1 - lesson)
        strain = torch.lerp(1 - right, (1 - known) * (1 - ready), lesson)
        row, done = pick(record["row"]), pick(record["completed"])
        completed = practice * right * (row >= IN_A_ROW - 1) * (1 - done)
        learned = (1 - known) * course.rates[kind] * ready
        return right, completed, strain, course.feelings.tedium(ease, pick(record["recent"])), learned

    def recalled(self, state: TutorState, day: Tensor) -> Tensor:
        """R (N, S) of the student on a ``day`` (N, 1) from now on."""
        days = day - state.record["last"]
        if self.config.student == "fsrs":
            return memory.recall(state.record["stability"], days)
        if self.config.student == "exponential":
            return torch.exp2(-days / state.half_life)
        return torch.ones_like(state.known)

    def right_of(self, known: Tensor, held: Tensor, ability: Tensor, hardness: Tensor | float) -> Tensor:
        """P_right of a question."""
        if self.config.student == "irt":
            low, high = logit(GUESS), logit(1 - SLIP)
            return (low + (high - low) * known + ability - hardness).sigmoid()
        p1, p0 = self.course.answers(ability, torch.as_tensor(hardness))
        return torch.lerp(p0.expand_as(known), p1.expand_as(known), known * held)

    def _half_life(self, state: TutorState, at: Tensor, kind: Tensor, right: Tensor) -> Tensor:
        """(N, 1): the half-life of the skill ``at`` after an item."""
        before, answer = state.half_life.gather(1, at), right.unsqueeze(1)
        factor = torch.lerp(torch.full_like(answer, 0.5), torch.full_like(answer, 2.0), answer)
        answered = (factor * before).clamp(LEAST_HALF_LIFE, MOST_HALF_LIFE)
        return torch.where((kind == LESSON).unsqueeze(1), before.clamp_min(FIRST_HALF_LIFE), answered)

    def _points(self, state: TutorState, at: Tensor, kind: Tensor, right: Tensor, learned: Tensor) -> Tensor:
        """(N,): the change of the knowledge by an item of the skill ``at`` (N, 1); other skills stay."""
        course, day = self.course, self.course.day(state.record).unsqueeze(1)
        ability, known = state.ability.unsqueeze(1), state.known.gather(1, at)
        before = self.recalled(state, torch.full_like(day, course.test_day)).gather(1, at)
        delay = course.test_day - day
        if self.config.student == "fsrs":
            after = memory.recall(course.remembered(state.record, at, kind, right)[0], delay)
        elif self.config.student == "exponential":
            after = torch.exp2(-delay / self._half_life(state, at, kind, right))
        else:
            after = before
        then = self.right_of(known + learned.unsqueeze(1), after, ability, 0.0)
        return (then - self.right_of(known, before, ability, 0.0)).squeeze(1)


VISIT_PIECES = VisitPieces(
    begin=lambda config, catalogue, profiles, hours: course_of(config, catalogue).begin(len(profiles)),
    after=lambda config, catalogue, known, items, seen: course_of(config, catalogue).after(
        known, items[:, 0], seen.shown[:, 0], *seen.signals[:, 0].clamp(0, 1).unbind(1)
    ),
    pieces=lambda config, catalogue, known: course_of(config, catalogue).pieces(known),
    consumed={"completed": 0.0},
)
PLATFORM = Platform(
    TutorConfig,
    users=Tutor,
    add_attributes=add_attributes,
    heuristics=SCHEDULERS,
    visit_pieces=VISIT_PIECES,
    question="What should be taught and what practised today, if the test is some days away?",
    presets={
        "*": {
            "data_config": {"data": "synthetic"},
            "env_config": {"num_items": 200, "embedding_dim": 8, "max_episode_steps": 200},
            "model_config": {"head": "gated"},
            # The course has a known end, which the clock shows.
            "agent_config": {"gamma": 0.99, "gae_lambda": 0.95, "bootstrap_time_limit": False},
        },
        "ppo": {
            "agent_config": {
                "lr": 2e-3,
                "ent_coef": 0.01,
                # Without a bonus in the second half the policy draws less and less, and learns what its
                # most probable items do. As long as it draws much, chance changes the skill in its place.
                "ent_fraction": 0.5,
                "num_envs": 64,
                "n_steps": 50,
                "batch_size": 800,
                "update_epochs": 4,
            },
            "train_config": {"total_timesteps": 1_500_000},
        },
        "a2c": {
            "agent_config": {"lr": 2e-3, "ent_coef": 0.02, "num_envs": 64, "n_steps": 20},
            "train_config": {"total_timesteps": 500_000, "eval_interval": 100, "save_interval": 100},
        },
    },
)

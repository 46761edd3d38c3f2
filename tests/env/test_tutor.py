"""The learners of a course: each equation by hand, what a tutor can follow, and impossible courses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.cli import main
from recsys_rl.env.course_items import (
    IN_A_ROW,
    SKILLS,
    add_attributes,
)
from recsys_rl.env.memory import AGAIN, GOOD, first, recall, review
from recsys_rl.env.tutor import Tutor, TutorState
from recsys_rl.make import make_env, make_user_model
from recsys_rl.protocols import Env
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import World
from tests.doors import DRIFT, steps
from tests.env.tiny_course import (
    ASK_0,
    ASK_1,
    CARD_0,
    CARD_1,
    CONFIG,
    HIGH,
    LOW,
    SHOWN,
    TEACH_0,
    TEACH_1,
    right_if,
    sigmoid,
    tiny,
)
from tests.env.tiny_course import hand as hand
from tests.small_runs import settings, world


def show(model: Tutor, state: TutorState, item: int) -> tuple[list[float], TutorState, bool]:
    """The signals without noise, the next state, and whether the learner leaves."""
    items = torch.tensor([[item]])
    feedback = model.respond(state, items, SHOWN, None)
    after, leaves = model.advance(state, items, feedback)
    return feedback.signals[0, 0].tolist(), after, bool(leaves)


def answered(model: Tutor, state: TutorState, item: int, right: float, learned: float = 0.0) -> TutorState:
    """The state after an item with this answer."""
    items = torch.tensor([[item]])
    feedback = model.respond(state, items, SHOWN, None)
    signals = feedback.signals.clone()
    signals[0, 0, 0], signals[0, 0, 1], signals[0, 0, 2] = right, 0.0, 1 - right
    signals[0, 0, 4] = learned
    return model.advance(state, items, replace(feedback, signals=signals))[0]


def test_responses_by_hand() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    assert state.known.tolist() == [[1.0, 0.0]] and state.ability.item() == pytest.approx(0.4)
    ask, card = right_if(0.4 - 0.5), right_if(0.4)
    new, new_card = right_if(0.4 + 0.4, 0), right_if(0.4, 0)
    ease = [1.0, ask, card, 0.0, new, new_card]
    tedium = [max(0.0, x - 0.8) / 0.2 for x in ease]
    # right, completed, strain, tedium, learned
    expected = [
        [0.0, 0.0, 0.0, tedium[0], 0.0],
        [ask, 0.0, 1 - ask, tedium[1], 0.0],
        [card, 0.0, 1 - card, tedium[2], 0.0],
        [0.0, 0.0, 0.0, tedium[3], 0.4],
        [new, 0.0, 1 - new, tedium[4], 0.1],
        [new_card, 0.0, 1 - new_card, tedium[5], 0.0],
    ]
    for item, signals in enumerate(expected):
        assert show(model, state, item)[0][:5] == pytest.approx(signals, abs=1e-6)
    reward = torch.tensor([[0.05 * row[0] - 0.05 * row[2] for row in expected]])
    assert_close(model.expected_reward(state), reward)


def test_lesson_without_its_prerequisite_teaches_nothing_and_strains() -> None:
    model = tiny(foreknowledge=(0.99, 0.99))
    signals, _, _ = show(model, model.sample(torch.tensor([0])), TEACH_1)
    assert signals[2] == 1.0 and signals[4] == 0.0


def test_first_knowledge_follows_ability() -> None:
    chance = sigmoid(math.log(0.3 / 0.7) + 0.4)
    for draw, known in ((chance - 1e-3, 1.0), (chance + 1e-3, 0.0)):
        assert tiny(foreknowledge=(draw, 0.5)).sample(torch.tensor([0])).known[0, 0] == known


def test_memory_over_days() -> None:
    """Two items a day: Good on day 0, Again on day 1, a lesson on day 2."""
    model = tiny()
    state = model.sample(torch.tensor([0]))
    s, d = (torch.tensor(value) for value in first(GOOD))
    state = answered(model, state, ASK_0, 1.0)
    s, d = review(s, d, torch.tensor(0.0), GOOD)
    state = answered(model, state, CARD_1, 0.0)  # another skill; the day ends
    assert state.record["stability"][0, 0].item() == pytest.approx(s.item())
    pieces = model.visible(state)
    held = recall(s, torch.tensor(1.0)).item()
    assert pieces["recall"][0, 0].item() == pytest.approx(held)
    assert pieces["since"][0].tolist() == pytest.approx([1 / 30] * 2)
    assert show(model, state, CARD_0)[0][0] == pytest.approx(right_if(0.4, held))
    state = answered(model, state, CARD_0, 0.0)
    s, d = review(s, d, torch.tensor(1.0), AGAIN)
    assert state.record["stability"][0, 0].item() == pytest.approx(s.item())
    assert state.record["difficulty"][0, 0].item() == pytest.approx(d.item())
    assert s < first(GOOD)[0]
    state = answered(model, answered(model, state, ASK_1, 0.0), TEACH_0, 0.0)
    assert state.record["stability"][0, 0].item() == pytest.approx(first(GOOD)[0])
    assert state.record["last"].tolist() == [[2.0, 1.0]]


def test_an_answer_says_less_of_a_skill_that_may_be_forgotten() -> None:
    """Two days after the last item of the skill: who knows it answers as if not where it isn't recalled."""
    model = tiny()
    state = model.sample(torch.tensor([0]))
    for _ in range(4):  # lessons of the other skill
        state = answered(model, state, TEACH_1, 0.0)
    held = recall(torch.tensor(first(GOOD)[0]), torch.tensor(2.0)).item()
    assert 0.5 < held < 0.95
    for right in (1.0, 0.0):
        after = answered(model, state, CARD_0, right)
        known, unknown = (x if right else 1 - x for x in (held * 0.9 + (1 - held) * 0.2, 0.2))
        belief = model.visible(after)["belief"][0, 0].item()
        assert belief == pytest.approx(0.3 * known / (0.3 * known + 0.7 * unknown), abs=1e-6)


def test_feelings_by_hand() -> None:
    """Frustration and boredom fade with each item and overnight, and either ends the course."""
    model = tiny()
    state = model.sample(torch.tensor([0]))
    state = answered(model, state, ASK_1, 0.0)
    assert state.mood[0].tolist() == pytest.approx([0.2, 0.0])
    ease = right_if(0.8, 0)
    assert ease < 0.8  # the tedium is that of sameness, 1/4 after one item
    state = answered(model, state, ASK_1, 0.0)
    assert state.mood[0].tolist() == pytest.approx([0.5 * (0.9 * 0.2 + 0.2), 0.5 * 0.1 * 0.25])
    assert state.record["recent"].tolist() == [[0.0, 0.4375]]
    angry = replace(state, mood=torch.tensor([[0.99, 0.0]]))
    bored = replace(state, mood=torch.tensor([[0.0, 1.05]]))
    assert show(model, angry, ASK_1)[2] and show(model, bored, TEACH_0)[2]
    assert not show(model, angry, TEACH_0)[2]


def test_third_right_answer_in_a_row_completes_a_skill_once() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    for _ in range(IN_A_ROW - 1):
        assert show(model, state, ASK_0)[0][1] == 0
        state = answered(model, state, ASK_0, 1.0)
    assert show(model, state, CARD_0)[0][1] == 0  # a review completes nothing
    signals, after, _ = show(model, state, ASK_0)
    assert signals[1] == pytest.approx(signals[0]) and signals[0] > 0.5
    assert after.record["completed"][0].tolist() == pytest.approx([signals[1], 0])
    assert answered(model, state, CARD_0, 0.0).record["row"].tolist() == [[0.0, 0.0]]
    done = replace(state, record={**state.record, "completed": torch.tensor([[1.0, 0.0]])})
    assert show(model, done, ASK_0)[0][1] == 0


@pytest.mark.parametrize("student", ["fsrs", "exponential", "irt"])
def test_knowledge_adds_up_to_the_change_of_the_test(student: str) -> None:
    """The stream over a course is the expected score of the test after it, minus that before it."""
    config = replace(CONFIG, student=student)  # type: ignore[arg-type]
    model = tiny(config)
    state = model.sample(torch.tensor([0]))
    day = torch.full((1, 1), 2.0 + 5)  # three days, and the test five days later
    rng, total = torch.Generator().manual_seed(0), 0.0

    def score(state: TutorState) -> float:
        return float(
            model.right_of(state.known, model.recalled(state, day), state.ability.unsqueeze(1), 0.0).sum()
        )

    before = score(state)
    for item in (ASK_0, TEACH_1, ASK_1, CARD_0, TEACH_1, ASK_1):
        items = torch.tensor([[item]])
        feedback = model.respond(state, items, SHOWN, rng)
        total += model.rewards(feedback)[0, 3].item()
        state, _ = model.advance(state, items, feedback)
    assert total == pytest.approx(score(state) - before, abs=1e-5) and total != 0


def test_score_of_the_test_by_hand() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    held = recall(torch.tensor(first(GOOD)[0]), torch.tensor(7.0)).item()
    signals, _, _ = show(model, state, TEACH_1)  # learned with 0.4, on day 0
    gained = 0.4 * (right_if(0.4, held) - right_if(0.4, 0))
    assert signals[5] == pytest.approx(gained, abs=1e-6)


def test_half_lives_by_hand() -> None:
    model = tiny(replace(CONFIG, student="exponential"))
    state = model.sample(torch.tensor([0]))
    assert state.half_life.tolist() == [[2.0, 2.0]]
    state = answered(model, state, ASK_0, 1.0)
    state = answered(model, state, ASK_1, 0.0)
    assert state.half_life.tolist() == [[4.0, 1.0]]
    assert show(model, state, CARD_0)[0][0] == pytest.approx(right_if(0.4, 2**-0.25))  # on the next day
    assert answered(model, state, TEACH_1, 0.0).half_life.tolist() == [[4.0, 2.0]]


def test_levels_grow_and_stay() -> None:
    model = tiny(replace(CONFIG, student="irt"))
    state = model.sample(torch.tensor([0]))
    state = answered(model, state, TEACH_1, 0.0, learned=0.4)
    assert show(model, state, ASK_1)[0][0] == pytest.approx(
        sigmoid(LOW + 0.4 * (HIGH - LOW) + 0.4 + 0.4), abs=1e-6
    )
    noisy = model.respond(state, torch.tensor([[TEACH_1]]), SHOWN, torch.Generator().manual_seed(0))
    assert noisy.signals[0, 0, 4].item() == pytest.approx(0.4 * 0.6)  # never drawn
    late = replace(state, record={**state.record, "steps": torch.tensor([4.0])})
    assert show(model, late, CARD_0)[0][0] == pytest.approx(right_if(0.4))


def test_belief_after_answers_by_hand() -> None:
    """The tutor supposes average ability."""
    model = tiny()
    state = model.sample(torch.tensor([0]))
    assert_close(model.visible(state)["belief"], torch.tensor([[0.3, 0.3]]))
    p1, p0 = sigmoid(HIGH - 0.5), sigmoid(LOW - 0.5)
    p = 0.3 * p1 / (0.3 * p1 + 0.7 * p0)
    p = p + (1 - p) * 0.1
    state = answered(model, state, ASK_0, 1.0)
    assert_close(model.visible(state)["belief"], torch.tensor([[p, 0.3]]))
    assert_close(model.visible(state)["ready"], torch.tensor([[1.0, p]]))
    taught = answered(model, state, TEACH_1, 0.0)
    assert_close(model.visible(taught)["belief"], torch.tensor([[p, 0.3 + 0.7 * 0.4 * p]]))


def test_answers_are_drawn_with_their_probabilities() -> None:
    model = tiny()
    state = model.sample(torch.zeros(4000, dtype=torch.int64))
    items = torch.full((4000, 1), ASK_1)
    feedback = model.respond(
        state, items, torch.ones_like(items, dtype=torch.bool), torch.Generator().manual_seed(0)
    )
    right, completed, strain, _, learned, _ = feedback.signals[:, 0].unbind(1)
    assert set(right.tolist()) == {0.0, 1.0} and torch.equal(strain, 1 - right) and not bool(completed.any())
    assert right.mean().item() == pytest.approx(right_if(0.8, 0), abs=0.03)
    assert learned.mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("student", ["fsrs", "exponential", "irt"])
def test_contract_of_the_user_model(student: str) -> None:
    for num_skills in (SKILLS, 3):  # three: an exact belief
        sizes = {"num_items": 60, "max_episode_steps": 12, "items_per_day": 3, "student": student}
        config = settings("ppo", "tutor", env_config=sizes)
        made = world(config)
        if num_skills < SKILLS:
            named = {**made.catalogue.attributes, "skill": torch.arange(60) % num_skills}
            made = add_attributes(World(replace(made.catalogue, attributes=named), made.population), 0)
        model = make_user_model(config, made)
        check_user_model(model, made.catalogue, torch.arange(20), num_steps=12)
        check_env(partial(course, config, made), 12)


def course(config: Config, made: World, seed: int) -> Env:
    return make_env(config, made, 6, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "words",
    [
        ["--prerequisites", "0>1, 1>0"],
        ["--test-delay", "-1"],
        ["--items-per-day", "0"],
        ["--num-items", "9"],  # ten skills
    ],
)
def test_impossible_course(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--env", "tutor", *DRIFT, *steps(1), "--num-items", "60", *words]) == 2
    assert capsys.readouterr().err.count("\n") < 3 and not list(tmp_path.rglob("*.pt"))


def test_train_and_evaluate_with_the_rules_of_the_trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--num-items", "60", "--max-episode-steps", "12", "--items-per-day", "4"]
    assert main(["train", "--env", "tutor", *DRIFT, *sizes, *steps(2)]) == 0
    assert main(["evaluate", "--json", "t.json"]) == 0
    rows = {row["policy"]: row for row in json.loads(Path("t.json").read_text())["rows"]}
    trade = {
        "trade-syllabus",
        "trade-mastery",
        "trade-leitner",
        "trade-sm2",
        "trade-fsrs",
        "trade-forgetting",
    }
    assert {"ppo", "random", "myopic", *trade} <= rows.keys() and "mf" not in rows
    for row in rows.values():
        streams = row["streams"]
        paid = streams["completion"] + 0.05 * streams["correctness"] - 0.05 * streams["frustration"]
        assert row["return_mean"] == pytest.approx(paid, abs=1e-4) and "knowledge" in streams
    assert from_dict(Config, {"env": "tutor"}).data_config.data == "synthetic"

"""The test of `tutor` beside a real exam, mathexam14w of the R package psychotools (729 students).

    python -m benchmarks.once.calibration_tutor --exam mathexam14w.csv

The file has columns solved_1 .. solved_13, 0 or 1 (psychotools::MathExam14W, exported from R). Learners take
the course by a fixed syllabus, and then a test of 13 exercises with difficulties of deviation DIFFICULTY, of
the skills in their order. Rows: mean and standard deviation of the score, Cronbach's alpha, and the
Wasserstein distance of the scores, for some values of ``ability_deviation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.env.course_items import DIFFICULTY
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.schedulers import Syllabus
from recsys_rl.env.tutor import Tutor, TutorState
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import tree_map

QUESTIONS, LESSONS = 13, 4
DEVIATIONS = (0.7, 1.0, 1.3)


def answers_of(path: Path) -> Tensor:
    """(n, 13): 1 for a right answer."""
    frame = pl.read_csv(path).select(f"solved_{number}" for number in range(1, QUESTIONS + 1))
    return frame.to_torch(dtype=pl.Float32)


@torch.inference_mode()
def simulated(config: Config, learners: int, seed: int) -> Tensor:
    """(learners, 13): answers in the test after the course."""
    world = make_world(config)
    users = torch.arange(learners) % len(world.population.user_ids)
    env = make_env(config, world, learners, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv) and isinstance(env.user_model, Tutor)
    rule, obs = Syllabus(world.catalogue, env.interface, LESSONS), env.reset(users)
    last, there = env.user_state, torch.ones(learners, dtype=torch.bool)
    for _ in range(env.interface.session_length):
        step = env.step_without_reset(rule.act(obs).items)
        last, obs = kept(there, env.user_state, last), step.obs
        there = there & ~step.terminated
    model, noise = env.user_model, torch.Generator().manual_seed(seed)
    hardness = torch.randn(QUESTIONS, generator=noise)
    hardness = DIFFICULTY * (hardness - hardness.mean()) / hardness.std()
    held = model.recalled(last, torch.full((learners, 1), float(model.course.test_day)))
    skill = torch.arange(QUESTIONS) % model.course.num_skills
    chance = model.right_of(last.known[:, skill], held[:, skill], last.ability.unsqueeze(1), hardness)
    return (torch.rand(chance.shape, generator=noise) < chance).float()


def kept(there: Tensor, fresh: TutorState, old: TutorState) -> TutorState:
    """``fresh`` where learners are still there, and the state in which the others left."""
    return tree_map(lambda a, b: torch.where(there.view(-1, *[1] * (a.ndim - 1)), a, b), fresh, old)


def statistics(answers: Tensor) -> tuple[float, float, float]:
    """Mean and standard deviation of the score, and alpha."""
    score, number = answers.sum(1), answers.shape[1]
    alpha = number / (number - 1) * (1 - answers.var(0).sum() / score.var())
    return score.mean().item(), score.std().item(), alpha.item()


def rows(exam: Tensor, learners: int, seed: int) -> Iterator[Row]:
    def row(whose: str, answers: Tensor) -> Row:
        mean, deviation, alpha = statistics(answers)
        at = (torch.arange(len(exam)) + 0.5) / len(exam)
        apart = (answers.sum(1).quantile(at) - exam.sum(1).quantile(at)).abs().mean().item()
        return {"of": whose, "mean": mean, "deviation": deviation, "alpha": alpha, "wasserstein": apart}

    yield row("exam", exam)
    for deviation in DEVIATIONS:
        config = from_dict(Config, {"env": "tutor", "env_config": {"ability_deviation": deviation}})
        yield row(f"ability_deviation {deviation:g}", simulated(config, learners, seed))


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--exam", type=Path, required=True, help="the file of the exam")
    parser.add_argument("--learners", type=int, default=1458)
    parser.add_argument("--seed", type=int, default=1)
    args = tables.parse(parser, "calibration_tutor")
    tables.publish(list(rows(answers_of(args.exam), args.learners, args.seed)), args)


if __name__ == "__main__":
    tables.run(main)

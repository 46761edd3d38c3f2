"""The test of `tutor` beside a real exam, mathexam14w of the R package psychotools (729 students).

    python -m benchmarks.once.calibration_tutor --exam mathexam14w.csv

The file has columns solved_1 .. solved_13, 0 or 1 (psychotools::MathExam14W, exported from R). Learners take
the course by a fixed syllabus, and then a test of 13 exercises, of the skills in their order. In the rows
`equated` the share of learners with a right answer to each exercise is that of the students with a right
answer to the exam's question. The rows `drawn` have drawn difficulties of deviation DIFFICULTY.

Columns: mean and standard deviation of the score, Cronbach's alpha, the Wasserstein distance of the scores
and its largest value, over TIMES draws of the answers; the deviations of ability and difficulty by a Rasch
model of one draw (marginal maximum likelihood, normal ability); the deviation of the difficulties themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
DEVIATIONS = (0.7, 1.0, 1.15, 1.3)
DRAWS = 4  # of difficulties
TIMES = 20


def answers_of(path: Path) -> Tensor:
    """(n, 13): 1 for a right answer."""
    frame = pl.read_csv(path).select(f"solved_{number}" for number in range(1, QUESTIONS + 1))
    return frame.to_torch(dtype=pl.Float32)


def rasch(answers: Tensor) -> tuple[Tensor, float]:
    """The difficulties (13,), with mean 0, and the deviation of ability, from ``answers`` (n, 13).

    Marginal maximum likelihood: P(right) = sigmoid(mean + deviation x - b), x normal, integrated on a grid.
    """
    x = torch.linspace(-5, 5, 81, dtype=torch.float64)
    weight = (-x.square() / 2).log_softmax(0)  # (81,)
    score, right = answers.double().sum(1), answers.double().sum(0)  # (n,), (13,)
    times = torch.bincount(score.long(), minlength=QUESTIONS + 1).double()  # (14,): learners by score
    scores = torch.arange(QUESTIONS + 1, dtype=torch.float64)
    b, level = torch.zeros(QUESTIONS, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    parameters = [b.requires_grad_(), level.requires_grad_()]
    fit = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        fit.zero_grad()
        ability = level[0] + level[1].exp() * x  # (81,)
        # log P(answers | x) = score ability - sum of the b of right answers - sum log(1 + e^(ability - b))
        wrong = torch.nn.functional.softplus(ability.unsqueeze(1) - (b - b.mean())).sum(1)  # (81,)
        of_score = (weight - wrong + scores.unsqueeze(1) * ability).logsumexp(1)  # (14,)
        value = -(times @ of_score - right @ (b - b.mean())) / len(answers)
        value.backward()
        return value

    fit.step(loss)
    return (b - b.mean()).detach().float(), level[1].exp().item()


def drawn(seed: int) -> Tensor:
    """(13,): difficulties of mean 0 and deviation DIFFICULTY."""
    b = torch.randn(QUESTIONS, generator=torch.Generator().manual_seed(seed))
    return DIFFICULTY * (b - b.mean()) / b.std()


@dataclass(frozen=True)
class Taught:
    """Learners after a course."""

    model: Tutor
    state: TutorState

    @classmethod
    def of(cls, deviation: float, learners: int, seed: int) -> Taught:
        """The learners after a course by the syllabus, or at the time at which they left it."""
        config = from_dict(Config, {"env": "tutor", "env_config": {"ability_deviation": deviation}})
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
        return cls(env.user_model, last)

    def chances(self, hardness: Tensor) -> Tensor:
        """(learners, 13): the probabilities of right answers to questions with this ``hardness`` (13,)."""
        model, state = self.model, self.state
        day = torch.full_like(state.ability, float(model.course.test_day)).unsqueeze(1)
        held = model.recalled(state, day)
        skill = torch.arange(QUESTIONS) % model.course.num_skills
        ability = state.ability.unsqueeze(1)
        return model.right_of(state.known[:, skill], held[:, skill], ability, hardness)

    def equated(self, shares: Tensor) -> Tensor:
        """(13,): the difficulties with which ``shares`` (13,) of the learners are right, by bisection."""
        low, high = torch.full_like(shares, -10.0), torch.full_like(shares, 10.0)
        for _ in range(40):
            middle = (low + high) / 2
            easy = self.chances(middle).mean(0) > shares
            low, high = torch.where(easy, middle, low), torch.where(easy, high, middle)
        return low

    def answers(self, hardness: Tensor, seed: int) -> Tensor:
        """(learners, 13): drawn answers."""
        chances = self.chances(hardness)
        return (torch.rand(chances.shape, generator=torch.Generator().manual_seed(seed)) < chances).float()


def kept(there: Tensor, fresh: TutorState, old: TutorState) -> TutorState:
    """``fresh`` where learners are still there, and the state in which the others left."""
    return tree_map(lambda a, b: torch.where(there.view(-1, *[1] * (a.ndim - 1)), a, b), fresh, old)


def statistics(answers: Tensor) -> tuple[float, float, float]:
    """Mean and standard deviation of the score, and alpha."""
    score, number = answers.sum(1), answers.shape[1]
    alpha = number / (number - 1) * (1 - answers.var(0).sum() / score.var())
    return score.mean().item(), score.std().item(), alpha.item()


@torch.inference_mode()
def rows(exam: Tensor, learners: int, seed: int) -> Iterator[Row]:
    at = (torch.arange(len(exam)) + 0.5) / len(exam)

    def apart(answers: Tensor) -> float:
        return (answers.sum(1).quantile(at) - exam.sum(1).quantile(at)).abs().mean().item()

    def row(whose: str, draws: list[Tensor], hardness: Tensor | None = None) -> Row:
        numbers = torch.tensor([(*statistics(answers), apart(answers)) for answers in draws])  # (TIMES, 4)
        with torch.inference_mode(False):
            difficulties, ability = rasch(draws[0].clone())
        known: Row = {"of": whose}
        known |= zip(("mean", "deviation", "alpha", "wasserstein"), numbers.mean(0).tolist(), strict=True)
        known |= {"wasserstein_most": numbers[:, 3].max().item()}
        known |= {"rasch_ability": ability, "rasch_difficulty": difficulties.std(correction=0).item()}
        return known | {"difficulty": None if hardness is None else hardness.std(correction=0).item()}

    def simulated(whose: str, taught: Taught, questions: Tensor) -> Row:
        return row(whose, [taught.answers(questions, seed + time) for time in range(TIMES)], questions)

    yield row("exam", [exam])
    for deviation in DEVIATIONS:
        taught = Taught.of(deviation, learners, seed)
        yield simulated(f"equated, ability_deviation {deviation:g}", taught, taught.equated(exam.mean(0)))
        for number in range(DRAWS if deviation == 1 else 0):
            yield simulated(f"drawn {number}", taught, drawn(number))


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--exam", type=Path, required=True, help="the file of the exam")
    parser.add_argument("--learners", type=int, default=1458)
    parser.add_argument("--seed", type=int, default=1)
    args = tables.parse(parser, "calibration_tutor")
    tables.publish(list(rows(answers_of(args.exam), args.learners, args.seed)), args)


if __name__ == "__main__":
    tables.run(main)

"""CMA-ES finds a known optimum, keeps its budget, and plays other users than those to choose with."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import cast

import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.form_search import POPULATION, Trials, parted, search_numbers
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.types import World
from tests.doors import ROOT
from tests.evaluation.rivals.test_tuning import trainees
from tests.small_runs import settings, world

OPTIMUM = torch.tensor([0.5, -1.0, 2.0])
STEPS = 5  # of a session


@dataclass
class Played:
    returns: Tensor
    lengths: Tensor


@dataclass
class Bowl:
    """Sessions of STEPS steps that pay 10 minus the squared distance to OPTIMUM, with noise between users."""

    noise: float
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def interface(self) -> Bowl:
        return self

    session_length = STEPS

    def draw(self, count: int) -> Tensor:
        return torch.arange(count)

    def play(self, agent: Tensor, users: Tensor) -> Played:
        assert len(agent) == len(users)
        shaken = self.noise * torch.randn(len(users), generator=self.generator)
        return Played(10 - (agent - OPTIMUM).square().sum(1) + shaken, torch.full_like(users, STEPS))


def found(noise: float, budget: int, seed: int = 0) -> tuple[Tensor, Trials]:
    bowl = Bowl(noise, torch.Generator().manual_seed(seed))
    trials = Trials(cast(Trainees, bowl))
    first, spread = torch.zeros(3), torch.ones(3)
    return search_numbers(trials, lambda x: cast(Policy, x), first, spread, budget), trials


def test_search_finds_the_optimum() -> None:
    numbers, trials = found(0.0, 60_000)
    torch.testing.assert_close(numbers, OPTIMUM, atol=0.01, rtol=0)
    assert 50_000 < trials.steps <= 60_000


def test_noise_of_a_tenth_of_the_return_moves_the_result_little() -> None:
    for seed in range(3):
        numbers, _ = found(1.0, 120_000, seed)
        assert float((numbers - OPTIMUM).square().sum()) < 0.2  # 5.25 at the start


def test_a_tiny_budget_is_one_generation_of_one_user() -> None:
    _, trials = found(0.0, 0)
    assert trials.sessions == POPULATION and trials.steps == STEPS * POPULATION


def test_the_same_generator_gives_the_same_numbers() -> None:
    assert torch.equal(found(1.0, 9_000)[0], found(1.0, 9_000)[0])
    assert not torch.equal(found(1.0, 9_000)[0], found(1.0, 9_000, 1)[0])


@pytest.fixture(scope="module")
def small() -> tuple[Config, World]:
    sizes = {"num_items": 60, "embedding_dim": 8}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 200})
    return config, world(config)


def test_the_parts_of_the_training_users_share_nobody(small: tuple[Config, World]) -> None:
    config, place = small
    whole = trainees(config, place)
    searching, choosing = parted(whole, 0.25)
    ids = [part.population.user_ids[part.population.train].tolist() for part in (searching, choosing)]
    assert [len(part) for part in ids] == [120, 40]
    assert sorted(ids[0] + ids[1]) == sorted(whole.population.user_ids.tolist())
    row = int(choosing.population.train[7])
    before = whole.population.user_ids.tolist().index(int(choosing.population.user_ids[row]))
    assert torch.equal(choosing.population.taste[row], whole.population.taste[before])


def test_no_module_loads_the_search_when_it_is_imported() -> None:
    """`cmaes` loads scipy.stats, which every start of `record`, `ope` and `evaluate` would wait for."""
    slow = {"cmaes", "scipy.stats"}
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "recsys_rl").rglob("*.py")}
    named = {path: text for path, text in texts.items() if "cmaes" in text or "scipy" in text}
    assert len(named) > 3
    for path, text in named.items():
        for node in ast.parse(text).body:
            names = [x.name for x in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{x.name}" for x in node.names)]
            assert slow.isdisjoint(names), path

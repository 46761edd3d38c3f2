"""Hyperparameters of `mf` and `mmr`, and the table's `rule`: from training users, never held-out ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.evaluation.play import play_all
from recsys_rl.evaluation.players import heldout_users
from recsys_rl.evaluation.rivals import form_search, rule_search, tuning
from recsys_rl.evaluation.rivals.rankers import MaximalMarginalRelevance
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from recsys_rl.protocols import Env
from recsys_rl.settings.config import Config
from recsys_rl.types import Population, World
from tests.doors import SATIATION, steps, train_in
from tests.small_runs import settings, world

CPU = torch.device("cpu")


Small = tuple[Config, World]


def trainees(config: Config, place: World) -> tuning.Trainees:
    catalogue, population = place

    def make(part: Population, rows: int, noise: torch.Generator) -> Env:
        return make_env(config, World(catalogue, part), rows, noise, training=False)

    part = tuning.training_part(population)
    interface = make(part, 1, torch.Generator()).interface
    return tuning.Trainees(make, catalogue, part, interface, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small() -> Small:
    sizes = {"num_items": 60, "embedding_dim": 8}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 200})
    return config, world(config)


def test_training_part_excludes_other_users(small: Small) -> None:
    _, (_, population) = small
    part = tuning.training_part(population)
    assert len(part.taste) == len(part.profile) == len(part.user_ids) == len(population.train) == 160
    assert torch.equal(part.taste[part.train], population.taste[population.train])
    assert not set(part.user_ids.tolist()) & set(population.user_ids[population.heldout].tolist())
    assert len(part.heldout) == 0


def test_tuned_values_are_the_best_of_those_tried(small: Small) -> None:
    """`mmr` with weight 0 is the ranking by profile: the tuned one earns no less on training users."""
    config, place = small
    catalogue, population = place
    agent, note = tuning.tune_mmr(trainees(config, place))
    assert isinstance(agent, MaximalMarginalRelevance) and note.startswith(
        f"weight {agent.weight:g}, window "
    )
    assert agent.weight > 0  # diversity pays where users tire of likeness
    users = population.train
    both = []
    for one in (agent, MaximalMarginalRelevance(catalogue, 0.0, 1, 0.0)):
        noise = torch.Generator().manual_seed(2)
        env = make_env(config, place, len(users), noise)
        both.append(play(env, one, users).returns.mean().item())
    assert both[0] > both[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    home = tmp_path_factory.mktemp("trained")
    return load(train_in(home / "run", *SATIATION, *steps(20)))


def played(checkpoint: Checkpoint, cache_dir: Path) -> dict[str, Played]:
    users = heldout_users(checkpoint.world, 0, 0)
    options = EvaluateConfig(cache_dir=cache_dir)
    return play_all([Entry(Path("x"), checkpoint, "ppo")], users, options, CPU)


def test_tuned_values_are_independent_of_held_out_users(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """All held-out users are replaced, and the training users stay. Each search has its own cache."""
    population = checkpoint.population
    taste, profile = population.taste.clone(), population.profile.clone()
    taste[population.heldout], profile[population.heldout] = (
        -taste[population.heldout],
        -profile[population.heldout],
    )
    strangers = dataclasses.replace(population, taste=taste, profile=profile)
    others = dataclasses.replace(checkpoint, world=World(checkpoint.catalogue, strangers))
    one, two = played(checkpoint, tmp_path / "one"), played(others, tmp_path / "two")
    assert {name: x.note for name, x in one.items()} == {name: x.note for name, x in two.items()}
    searched = ("rule", "searched")
    assert all(one[name].note for name in ("mf", "mmr", *searched))
    files = sorted((tmp_path / "one").iterdir())
    assert [file.name.split("-")[0] for file in files] == sorted(searched)
    for file, other in zip(files, sorted((tmp_path / "two").iterdir()), strict=True):
        assert file.name == other.name and file.read_bytes() == other.read_bytes()
    assert not torch.equal(one["rule"].sessions.returns, two["rule"].sessions.returns)


def test_second_evaluation_makes_no_search(
    checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = played(checkpoint, tmp_path)
    said = capsys.readouterr().err
    monkeypatch.setattr(rule_search, "search_rule", None)  # to be called is to fail
    monkeypatch.setattr(form_search, "grow", None)
    second = played(checkpoint, tmp_path)
    for name in ("rule", "searched"):
        assert f"searching `{name}` with at most 480 steps" in said
        assert second[name].note == first[name].note
        assert torch.equal(second[name].sessions.items, first[name].sessions.items)

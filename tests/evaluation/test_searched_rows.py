"""The cache of searched weights: its key depends on the inputs of the search, not on held-out users."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_rl.env.satiation import SatiationConfig
from recsys_rl.evaluation import searched_rows
from recsys_rl.evaluation.searched_rows import cache_file, cached, search_key
from recsys_rl.settings.config import Config
from recsys_rl.types import Population
from tests.tiny_world import tiny_catalogue

CONFIG = Config(algo="ppo", env="satiation")
PEOPLE = Population(
    taste=torch.eye(3, 2),
    profile=torch.eye(3, 2),
    user_ids=torch.arange(3),
    train=torch.tensor([0, 1]),
    heldout=torch.tensor([2]),
)


class Search:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {"a": torch.tensor(1.5), "b": torch.tensor([2.0])}


def test_one_search_for_each_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search, path = Search(), cache_file("rule", "k" * 64, str(tmp_path))
    first = cached(path, ("a", "b"), search)
    assert first["a"] == 1.5
    assert f"kept for the next evaluation: {tmp_path}" in capsys.readouterr().err
    second = cached(path, ("a", "b"), search)
    assert search.calls == 1 and second.keys() == first.keys()
    assert all(torch.equal(second[name], first[name]) for name in first)
    cached(cache_file("rule", "l" * 64, str(tmp_path)), ("a", "b"), search)
    assert search.calls == 2


def test_invalid_cache_file_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search, path = Search(), cache_file("rule", "k" * 64, str(tmp_path))
    cached(path, ("a",), search)
    cached(path, ("a", "b"), search)  # which the first file lacks
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    cached(path, ("a", "b"), search)
    assert search.calls == 3 and "is damaged; made again." in capsys.readouterr().err
    cached(path, ("a", "b"), search)
    assert search.calls == 3


def test_key_depends_on_all_inputs_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = tiny_catalogue()
    key = search_key(CONFIG, catalogue, PEOPLE, 100)
    assert key == search_key(
        dataclasses.replace(
            CONFIG, algo="a2c", agent_config=Config(algo="a2c", env="satiation").agent_config
        ),
        catalogue,
        PEOPLE,
        100,
    )
    moved = PEOPLE.taste.clone()
    moved[0] += 1
    noisy = dataclasses.replace(CONFIG, env_config=SatiationConfig(noise=0.2))
    others = [
        search_key(CONFIG, catalogue, PEOPLE, 101),
        search_key(noisy, catalogue, PEOPLE, 100),
        search_key(CONFIG, dataclasses.replace(catalogue, quality=catalogue.popularity), PEOPLE, 100),
        search_key(CONFIG, catalogue, dataclasses.replace(PEOPLE, taste=moved), 100),
        search_key(CONFIG, catalogue, dataclasses.replace(PEOPLE, profile=moved), 100),
        search_key(CONFIG, catalogue, dataclasses.replace(PEOPLE, train=torch.tensor([0])), 100),
    ]
    monkeypatch.setattr(searched_rows, "VERSION", 0)
    others.append(search_key(CONFIG, catalogue, PEOPLE, 100))
    assert len({key, *others}) == 8


def test_key_is_independent_of_held_out_users() -> None:
    taste, profile = PEOPLE.taste.clone(), PEOPLE.profile.clone()
    taste[2], profile[2] = 7.0, 7.0
    other = dataclasses.replace(PEOPLE, taste=taste, profile=profile, heldout=torch.tensor([2, 2]))
    catalogue = tiny_catalogue()
    assert search_key(CONFIG, catalogue, PEOPLE, 9) == search_key(CONFIG, catalogue, other, 9)

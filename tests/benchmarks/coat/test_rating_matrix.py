"""Worlds of matrices of ratings, known and estimated, the source of the game of Coat, and a whole command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.coat import factorise as module
from benchmarks.coat.factorise import FACTOR_PENALTY, Factorised, draw_users, factorise
from benchmarks.coat.rating_matrix import matrix_world
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config
from recsys_rl.types import UserError, World
from tests.worlds import shared_data

GAME = "benchmarks.coat.matrix_users:PLATFORM"
COAT, OWN = "benchmarks.coat.game:SOURCE", "benchmarks.coat.rating_matrix:SOURCE"
TRUE = "coat_pseudoGT_ratingM.ascii"
TINY = ["--embedding-dim", "4", "--hidden-dims", "8", "--total-timesteps", "64", "--num-envs", "4"]
SHORT = ["--n-steps", "8", "--batch-size", "16", "--eval-interval", "0"]


def low_rank(users: int = 40, items: int = 30, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(count, 2, generator=rng) for count in (users, items))
    return (3 + 0.8 * left @ right.T).clamp(1, 5)


def write_coat(folder: Path, users: int = 12, items: int = 40) -> Path:
    """Files like Coat's with made-up ratings."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    true = rng.integers(1, 6, (users, items))
    np.savetxt(folder / TRUE, true, "%d")
    np.savetxt(folder / "train.ascii", true * (rng.random(true.shape) < 0.3), "%d")
    return folder


def test_factorise_finds_the_cells_of_a_low_rank_matrix() -> None:
    whole = low_rank()
    known = torch.rand(whole.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    found = factorise(whole * known, known, 3, 0)
    error = (found.ratings - whole)[~known].square().mean().sqrt()
    assert error < 0.6 * (whole[~known] - whole[known].mean()).square().mean().sqrt()
    assert found.users.shape == (40, 3) and found.items.shape == (30, 3)
    low, high = whole[known].min(), whole[known].max()
    assert bool(((found.ratings >= low) & (found.ratings <= high)).all())


def test_last_step_is_the_ridge_regression_of_each_item() -> None:
    """The items' factors, against numpy's least squares with rows for the penalty."""
    whole = low_rank(seed=2)
    known = torch.rand(whole.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    found = factorise(whole * known, known, 2, 0)
    free = factorise(whole * known, known, 2, 0)
    assert torch.equal(found.ratings, free.ratings)  # the same seed, the same fit
    rest = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    there = (torch.rand(5, 7, generator=torch.Generator().manual_seed(5)) < 0.6).double()
    others = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    got = module._factors(rest * there, there, others)
    for row in range(5):
        use = there[row] > 0
        inputs = np.vstack([others[use].numpy(), FACTOR_PENALTY**0.5 * np.eye(3)])
        wanted = np.linalg.lstsq(inputs, np.append(rest[row, use].numpy(), np.zeros(3)), rcond=None)[0]
        assert_close(got[row], torch.from_numpy(wanted))


def test_users_without_ratings_are_at_the_mean_of_each_item() -> None:
    ratings = torch.tensor([[1.0, 5.0], [1.0, 5.0], [0.0, 0.0]])
    found = factorise(ratings, ratings > 0, 1, 0)
    assert float(found.users[2].abs().max()) == 0.0
    assert found.ratings[2, 0] < 3 < found.ratings[2, 1]
    with pytest.raises(ValueError, match="no rating is known"):
        factorise(ratings, torch.zeros_like(ratings, dtype=torch.bool), 1, 0)


def test_draws_of_users_have_the_posterior_by_hand() -> None:
    """One user with two known items, q = (1, 2): variance v / (5 + FACTOR_PENALTY) of p, v from the error."""
    ratings = torch.tensor([[2.0, 4.0, 0.0], [3.0, 3.0, 3.0], [3.0, 3.0, 3.0]])
    known = ratings > 0
    estimate = torch.tensor([[2.5, 3.0, 3.0], [3.0, 3.0, 3.0], [3.0, 3.0, 3.0]])
    fit = Factorised(estimate, torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [0.1]]))
    drawn = torch.stack([draw_users(fit, ratings, known, seed) for seed in range(3000)])
    moved = (drawn - estimate)[:, 0, 2] / 0.1
    # 8 known ratings, 5/10 + 2 * 5.01/10.01 weights of factors, 6 biases: at least one is left, and the error
    # .25 + 1 is the variance.
    wanted = 1.25 / (5 + FACTOR_PENALTY)
    assert float(moved.var()) == pytest.approx(wanted, rel=0.1)
    assert float(moved.mean()) == pytest.approx(0, abs=0.03)


def made(ratings: Tensor, **more: object) -> World:
    settings = {"source": "made up", "heldout_fraction": 0.5, "everyone": False, "seed": 0, "num_items": 9}
    size = ratings.shape[1]
    return matrix_world(ratings, torch.eye(size), torch.eye(len(ratings), size), **{**settings, **more})  # type: ignore[arg-type]


def test_world_of_a_matrix_by_hand() -> None:
    ratings = torch.tensor([[1.0, 5.0, 1.0], [1.0, 2.0, 5.0]])
    catalogue, population = made(ratings, everyone=True, num_items=2)
    assert catalogue.num_items == 2 and catalogue.source == "made up: the first 2 of 3 items"
    assert catalogue.attributes["distance"].flatten().tolist() == pytest.approx([0, 17**0.5, 17**0.5, 0])
    assert catalogue.popularity.tolist() == [0.0, 0.5]  # ratings of at least 4 on the scale 1 .. 5
    assert_close(catalogue.quality, torch.tensor([0.0, 0.625]))
    assert population.train.tolist() == population.heldout.tolist() == [0, 1]
    assert "all of them for training and test" in population.source
    assert population.attributes["ratings"].tolist() == [[1, 5], [1, 2]]
    parted, split = made(ratings)
    (row,) = split.train.tolist()
    assert_close(parted.quality, (ratings[row] - 1) / 4)  # of the training user alone
    assert parted.popularity.tolist() == (ratings[row] >= 4).float().tolist()
    assert sorted([*split.train.tolist(), *split.heldout.tolist()]) == [0, 1]


def test_matrices_that_do_not_fit() -> None:
    ratings = torch.ones(2, 3)
    with pytest.raises(UserError):
        made(ratings, true=torch.ones(3, 2))
    with pytest.raises(UserError):
        made(ratings, tags=(("a",), torch.ones(4, 1)))


def test_matrices_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 users and 40 items: the distances have 1,600 cells, and with 30 items 900."""
    monkeypatch.setattr("benchmarks.coat.rating_matrix.MOST_CELLS", 1000)
    with pytest.raises(UserError):
        made(low_rank(8, 40), num_items=40)
    assert made(low_rank(8, 40), num_items=30).catalogue.num_items == 30


def test_coat_game_estimates_from_the_training_file_alone(tmp_path: Path) -> None:
    folder = write_coat(tmp_path / "coat")
    settings: dict[str, Any] = {
        "env": GAME,
        "data": COAT,
        "data_dir": str(folder),
        "embedding_dim": 12,
    }
    first = make_world(Config(**settings))
    true = np.loadtxt(folder / TRUE)
    assert first.population.attributes["true_ratings"].tolist() == true.tolist()
    other = true.copy()
    other[:, 0] = 6 - other[:, 0]
    np.savetxt(folder / TRUE, other, "%d")
    second = make_world(Config(**settings))
    for name in ("ratings",):
        assert torch.equal(first.population.attributes[name], second.population.attributes[name])
    assert torch.equal(first.catalogue.embedding, second.catalogue.embedding)
    assert not torch.equal(first.catalogue.attributes["distance"], second.catalogue.attributes["distance"])
    refit = make_world(Config(**settings, seed=1))
    assert not torch.equal(first.population.attributes["ratings"], refit.population.attributes["ratings"])


@pytest.mark.parametrize("data", [COAT, OWN])
def test_item_features_do_not_depend_on_ratings_of_heldout_users(tmp_path: Path, data: str) -> None:
    folder = write_coat(tmp_path / "coat")
    file = folder / "train.ascii" if data == COAT else tmp_path / "ratings.csv"
    given = np.loadtxt(file) if data == COAT else low_rank(12, 40).numpy()
    place: dict[str, Any] = {"data_dir": str(folder)} if data == COAT else {"matrix": str(file)}
    config = Config(env=GAME, data=data, embedding_dim=4, **place)
    np.savetxt(file, given)
    first = make_world(config)
    changed = given.copy()
    rows = first.population.heldout.numpy()
    changed[rows] = np.where(given[rows] > 0, 6 - given[rows], 0)
    np.savetxt(file, changed)
    second = make_world(config)
    for name in ("embedding", "popularity", "quality"):
        assert torch.equal(getattr(first.catalogue, name), getattr(second.catalogue, name)), name
    train, heldout = first.population.train, first.population.heldout
    assert torch.equal(first.population.profile[train], second.population.profile[train])
    assert not torch.allclose(first.population.profile[heldout], second.population.profile[heldout])


def test_users_are_folded_in_by_least_squares_with_the_items_fixed() -> None:
    """Ratings of users outside ``train`` are estimated from theirs, and none of them moves the items."""
    whole = low_rank()
    known = torch.rand(whole.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    train = torch.arange(30)
    found = factorise(whole * known, known, 3, 0, train)
    alone = factorise((whole * known)[train], known[train], 3, 0)
    assert torch.equal(found.items, alone.items) and torch.equal(found.users[train], alone.users)
    others = ~known.clone()
    others[train] = False
    error = (found.ratings - whole)[others].square().mean().sqrt()
    assert error < 0.7 * (whole[others] - whole[known].mean()).square().mean().sqrt()


def test_commands_on_a_made_coat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training in the estimates, then the table; the rows that need a profile are left out by a sentence."""
    monkeypatch.chdir(tmp_path)
    write_coat(tmp_path / "coat")
    options = ["--env", GAME, "--data", COAT, "--data-dir", "coat", "--everyone"]
    game = ["--max-episode-steps", "6", "--threshold", "3", "--window", "2", "--relative"]
    assert main(["train", *options, *game, *TINY, *SHORT, "--name", "a"]) == 0
    capsys.readouterr()
    command = ["evaluate", "runs/a/ppo.pt", "--env", GAME]
    assert main([*command, "--json", "table.json", "--report"]) == 0
    out, err = capsys.readouterr()
    assert "12 users of the training, one session each" in out and "held-out" not in out
    assert "warning: the users of this table are those of the training" in err
    assert "12 users of the training" in Path("runs/a/report.html").read_text()
    rows = [row["policy"] for row in json.loads(Path("table.json").read_text())["rows"]]
    simple = ["random", "popularity", "one-item", "static-list", "myopic", "informed", "planner"]
    assert rows == ["ppo", "ppo-greedy", "untrained", "expected", *simple]
    checkpoint = load(Path("runs/a/ppo.pt"), GAME)
    assert checkpoint.interface.relative and not checkpoint.interface.profile
    assert main([*command, "--policy", "linucb"]) == 2  # it starts at the user's profile


def test_bad_input_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["train", "--env", GAME, "--data", OWN, *TINY, *SHORT]
    coat = ["train", "--env", GAME, "--data", COAT, "--data-dir", "coat", *TINY, *SHORT]
    np.savetxt("good.csv", low_rank(8, 40).numpy(), delimiter=",")
    np.savetxt("fewer.csv", low_rank(7, 40).numpy(), delimiter=",")
    np.savetxt("tags.csv", np.full((40, 2), 3), delimiter=",")
    good = [*own, "--matrix", "good.csv"]
    assert main(own) == 2
    assert main([*good, "--true-matrix", "fewer.csv"]) == 2
    assert main([*good, "--item-tags", "tags.csv"]) == 2
    assert main([*good, "--ratings", "true"]) == 2
    assert main([*good, "--relative", "--history-length", "3"]) == 2
    assert main(coat) == 2
    write_coat(tmp_path / "coat")
    Path("coat", TRUE).unlink()
    assert main(coat) == 2
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.pt"))


def test_coat_as_published() -> None:
    """290 users, 300 items, the mean of the true ratings, and close items, of the real files."""
    folder = shared_data("coat")
    world = make_world(Config(env=GAME, data=COAT, data_dir=str(folder), everyone=True, embedding_dim=16))
    true = world.population.attributes["true_ratings"]
    assert true.shape == (290, 300) and float(true.mean()) == pytest.approx(2.2337, abs=1e-4)
    close = world.catalogue.attributes["distance"] < 6
    assert int(close.sum()) - 300 == 1496  # ordered pairs of different coats
    assert len(world.population.train) == len(world.population.heldout) == 290

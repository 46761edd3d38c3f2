"""The check of a world against its log, and popularity as a part of the affinity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.data import bias
from recsys_rl.data.catalogue import build_world
from recsys_rl.data.embeddings import first_likes, is_earlier
from recsys_rl.data.new_users import new_users
from recsys_rl.data.tables.events import make_log
from recsys_rl.data.world_check import about_check, ndcg
from recsys_rl.recommender import load
from recsys_rl.types import Catalogue, InteractionLog, Population, tensors_of
from tests.data.tables.test_read import RUN
from tests.data.test_new_items_and_data import SIZES
from tests.worlds import two_camps


def popular(num_users: int = 150, num_items: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of a log in which all draw from one Zipf law, and nobody has a taste."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, num_items + 1)
    items = [rng.choice(num_items, 10, replace=False, p=chance / chance.sum()) for _ in range(num_users)]
    return np.repeat(np.arange(num_users), 10), np.concatenate(items)


def build(
    log: InteractionLog, folder: Path, share: float = 0.0, num_items: int = 40
) -> tuple[Catalogue, Population]:
    sizes = {**SIZES, "like_threshold": None, "num_items": num_items, "cache_dir": folder}
    return build_world(log, embedding_dim=5, popularity_share=share, **sizes)  # type: ignore[arg-type]


def test_ndcg_by_hand() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6], [9.0, 8, 7, 6]])
    seen = torch.tensor([[True, False, False, False], [False] * 4])
    relevant = torch.tensor([[False, False, True, True], [True, False, False, False]])
    found = ndcg(scores, seen, relevant, k=2)
    # The first row ranks 1, 2, 3: a hit in place 2 of two, where two hits were possible.
    assert found.tolist() == pytest.approx([(1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1.0])


def test_tastes_of_a_log_with_tastes_pass(tmp_path: Path) -> None:
    _, population = build(two_camps(), tmp_path)
    assert population.ranking["embeddings"] > population.ranking["popularity"]
    said = about_check(population.ranking)
    assert said.startswith("the embeddings rank the later likes of") and "warning" not in said
    assert "drawn" not in population.ranking and "--popularity-share" not in said


def by_artist(num_users: int = 200, num_items: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A log sorted by item within each user, in which users of two camps like what is popular in theirs."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, num_items + 1)
    users, items = [], []
    for user in range(num_users):
        own = chance * np.where(np.arange(num_items) % 2 == user % 2, 20, 1)
        users.append(np.full(15, user))
        items.append(np.sort(rng.choice(num_items, 15, replace=False, p=own / own.sum())))
    return np.concatenate(users), np.concatenate(items)


def test_shuffled_rows_of_a_log_without_times_make_the_same_world(tmp_path: Path) -> None:
    users, items = by_artist()
    found = []
    for folder, rows in (
        ("a", np.arange(len(users))),
        ("b", np.random.default_rng(1).permutation(len(users))),
    ):
        log = make_log(users[rows], items[rows], source="made")
        found.append(build(log, tmp_path / folder, num_items=60))
    for first, second in zip(*found, strict=True):
        for name, values in tensors_of(first).items():
            torch.testing.assert_close(values, tensors_of(second)[name], rtol=0, atol=0, equal_nan=True)
    ranking = found[0][1].ranking
    # Sorted by item, the likes that are held back are the least popular of each user: popularity has 0.05.
    assert ranking["popularity"] > 0.2 and ranking["drawn"] == 1
    said = about_check(ranking)
    assert "hash" in said and "later" not in said
    assert "hash" in found[0][1].source


def test_share_of_popularity_is_named_wherever_it_ranks_better() -> None:
    """Also where the embeddings win; not within the noise, and not where it is in use."""
    values = {"users": 100, "embeddings": 0.26, "popularity": 0.1, "error": 0.02, "share": 0.25, "best": 0.34}
    ranking = {name: torch.tensor(value) for name, value in values.items()}
    said = about_check(ranking)
    assert "--popularity-share 0.25" in said and "warning" not in said
    assert "--popularity-share" not in about_check(ranking | {"best": torch.tensor(0.29)})
    assert "--popularity-share" not in about_check(ranking, share=0.25)


def test_log_without_tastes_gets_a_warning_and_a_way_out(tmp_path: Path) -> None:
    users, items = popular()
    log = make_log(users, items, source="made")
    catalogue, population = build(log, tmp_path)
    found = {name: float(x) for name, x in population.ranking.items()}
    assert found["embeddings"] < found["popularity"] - 2 * found["error"]
    said = about_check(population.ranking)
    assert said.startswith("warning: ") and f"--popularity-share {found['share']:g}" in said
    catalogue, population = build(log, tmp_path, share=found["share"])
    mended = float(population.ranking["embeddings"])  # from factors of one number less
    assert mended > found["embeddings"] + 2 * found["error"]
    assert mended == pytest.approx(found["best"], abs=0.1)
    assert "warning" not in about_check(population.ranking, bias.share_of(catalogue))
    for vectors in (catalogue.embedding, population.taste, population.profile):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_affinity_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """Those of embeddings of one number less, and of popularity."""
    users, items = popular()
    log, share = make_log(users, items, source="made"), 0.36
    catalogue, population = build(log, tmp_path, share)
    plain = build_world(
        log,
        embedding_dim=4,
        **{**SIZES, "like_threshold": None, "num_items": 40, "cache_dir": tmp_path},  # type: ignore[arg-type]
    )
    z = catalogue.popularity.double().log()
    t = (0.3 * (z - z.mean()) / z.std(correction=0)).tanh()
    cosine = plain[1].taste.double() @ plain[0].embedding.double().T
    wanted = 0.8 * (1 - t.square()).sqrt() * cosine + 0.6 * t
    torch.testing.assert_close(
        population.taste.double() @ catalogue.embedding.double().T, wanted, rtol=1e-5, atol=1e-6
    )
    assert "popularity_share" not in plain[0].factors


def test_profile_of_a_stranger_is_the_profile_of_the_data(tmp_path: Path) -> None:
    """The factors without popularity fold the user in, and popularity's share is added."""
    log = two_camps()
    catalogue, population = build(log, tmp_path, share=0.5)
    users, items = first_likes(log, 4.0)
    events = is_earlier(users, 0.8)
    row = population.heldout[0]
    user = int((log.user_ids == population.user_ids[row]).nonzero())
    own = events & (users == user)
    alone = make_log(users[own].tolist(), log.item_ids[items[own]].tolist(), source="one")
    stranger = new_users(catalogue, alone, None, 0.99999)
    torch.testing.assert_close(stranger.taste[0], population.profile[row], rtol=1e-4, atol=1e-4)


def test_train_and_report_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    users, items = popular()
    pl.DataFrame({"user": users, "item": items}).write_csv("log.csv")
    run = ["train", "--data", "log.csv", *RUN, "--num-items", "40", "--cache-dir", "cache"]
    assert main([*run, "--name", "plain"]) == 0
    said = capsys.readouterr().err.splitlines()
    (warning,) = [line for line in said if line.startswith("warning: the embeddings rank")]
    assert main(["evaluate", "runs/plain/ppo.pt", "--max-users", "4", "--report", "page.html"]) == 0
    assert warning.split(":")[1].strip() in Path("page.html").read_text()
    capsys.readouterr()
    assert main([*run, "--popularity-share", "0.75", "--name", "mended"]) == 0
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if "the embeddings rank" in line]
    assert not line.startswith("warning")
    recommender = load("runs/mended/ppo.pt")
    likes = recommender.population.likes_of(torch.tensor([0]))[1].tolist()
    assert float(recommender.fold_in(likes).norm()) == pytest.approx(1)

"""The world made from a log: no leak from held-out users, and a correct cache."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.data import catalogue as module
from recsys_rl.data.catalogue import build_world, split_users
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.types import Catalogue, InteractionLog, Population, UserError
from recsys_rl.utils.user_hashes import user_hashes
from tests.worlds import make_log, two_camps

SETTINGS: dict[str, Any] = {
    "num_items": 30,
    "embedding_dim": 4,
    "like_threshold": 4.0,
    "min_item_likes": 3,
    "heldout_fraction": 0.25,
    "profile_fraction": 0.8,
    "seed": 0,
}
MOST_LIKED_ALL = {"num_items": 40}  # all items, so the result shows the items that pass min_item_likes


def build(log: InteractionLog, folder: Path, **changes: Any) -> tuple[Catalogue, Population]:
    return build_world(log, **{**SETTINGS, "cache_dir": folder, **changes})


def assert_same(first: object, second: object, skip: tuple[str, ...] = ()) -> None:
    """Bit for bit, NaN included."""
    for name, value in vars(first).items():
        other = getattr(second, name)
        if name in skip:
            continue
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype and value.shape == other.shape, name
            assert value.numpy().tobytes() == other.numpy().tobytes(), name
        elif isinstance(value, dict):
            assert value.keys() == other.keys(), name
            assert all(value[key].numpy().tobytes() == other[key].numpy().tobytes() for key in value), name
        else:
            assert value == other, name


def with_ratings(log: InteractionLog, rows: torch.Tensor, seed: int) -> InteractionLog:
    """Other random ratings, 1 to 5, in the event rows given by the mask (E,)."""
    other = torch.randint(1, 6, log.ratings.shape, generator=torch.Generator().manual_seed(seed)).float()
    return dataclasses.replace(log, ratings=torch.where(rows, other, log.ratings))


def vectors_of(population: Population, rows: torch.Tensor) -> dict[int, tuple[bytes, bytes]]:
    """Bytes of (taste, profile) by source id."""
    return {
        int(population.user_ids[row]): (
            population.taste[row].numpy().tobytes(),
            population.profile[row].numpy().tobytes(),
        )
        for row in rows.tolist()
    }


@pytest.mark.parametrize("seed", range(3))
def test_heldout_user_has_no_influence_on_items_or_other_users(tmp_path: Path, seed: int) -> None:
    log = two_camps()
    heldout = torch.from_numpy(split_users(log.user_ids.tolist(), 0.25, 0))[log.users]  # (E,)
    changed = with_ratings(log, heldout, seed)
    for settings in ({}, MOST_LIKED_ALL, {"min_item_likes": 12}):
        catalogue, population = build(log, tmp_path, **settings)
        other_catalogue, other_population = build(changed, tmp_path, **settings)
        assert_same(catalogue, other_catalogue)
        before, after = (vectors_of(p, p.train) for p in (population, other_population))
        assert len(before) >= 20
        assert before == after
    # The test can fail: the held-out users' own vectors changed, and training users' ratings have an effect.
    assert vectors_of(population, population.heldout) != vectors_of(
        other_population, other_population.heldout
    )
    trained, _ = build(with_ratings(log, ~heldout, seed), tmp_path)
    assert not torch.equal(trained.quality, build(log, tmp_path)[0].quality)


def test_later_likes_have_no_influence_on_the_profile(tmp_path: Path) -> None:
    log = two_camps()
    _, population = build(log, tmp_path)
    user = int(population.heldout[0])
    row = int(population.user_ids[user]) - 100
    likes = torch.nonzero((log.users == row) & (log.ratings >= 4)).flatten()  # in order of time
    cut = int(0.8 * len(likes))
    unseen = [item for item in range(40) if item not in log.items[log.users == row].tolist()]

    def swap(events: torch.Tensor) -> Population:
        items = log.items.clone()
        items[events] = torch.tensor(unseen[: len(events)])
        return build(dataclasses.replace(log, items=items), tmp_path)[1]

    later, earlier = swap(likes[cut:]), swap(likes[:1])
    assert torch.equal(later.profile, population.profile)
    assert not torch.equal(later.taste[user], population.taste[user])
    assert not torch.equal(earlier.profile[user], population.profile[user])


def test_embeddings_have_unit_norm_and_documented_shapes(tmp_path: Path) -> None:
    catalogue, population = build(two_camps(), tmp_path)
    assert catalogue.embedding.shape == (30, 4)
    for vectors in (catalogue.embedding, population.taste, population.profile):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert catalogue.available.all() and catalogue.available.shape == (30,)
    assert catalogue.titles == tuple(f"title {i - 1000}" for i in catalogue.item_ids.tolist())
    assert torch.equal(catalogue.attributes["year"], catalogue.item_ids - 1000 + 1950.0)
    assert torch.equal(catalogue.tags[:, 1], (catalogue.item_ids % 2).float())
    assert sorted([*population.train.tolist(), *population.heldout.tolist()]) == list(range(60))
    of_data = split_users((population.user_ids).tolist(), 0.25, 0)
    assert population.heldout.tolist() == of_data.nonzero()[0].tolist()


def test_catalogue_holds_the_items_most_liked_by_training_users(tmp_path: Path) -> None:
    log = two_camps()
    training = ~torch.from_numpy(split_users(log.user_ids.tolist(), 0.25, 0))[log.users]
    likes = torch.bincount(log.items[training & (log.ratings >= 4)], minlength=40)
    small, _ = build(log, tmp_path)
    chosen = small.item_ids - 1000
    left_out = [item for item in range(40) if item not in chosen.tolist()]
    assert likes[chosen].min() >= likes[left_out].max()
    training_users = int(log.users[training].unique().numel())
    torch.testing.assert_close(small.popularity, likes[chosen] / training_users)
    ending = "with at least 3 likes by training users"
    assert small.source == f"made up: the 30 most liked of 40 items {ending}"
    large, _ = build(log, tmp_path, num_items=1000)
    assert large.num_items == 40
    assert large.source == f"made up: all 40 items (1000 were asked for) {ending}"


def test_quality_is_the_shrunk_mean_rating() -> None:
    # Ratings 5, 5 of item 0 and 1 of item 1 are 1, 1 and 0 on 0..1, of mean 2/3; user 2 is held out.
    log = make_log(users=[0, 1, 1, 2], items=[0, 0, 1, 1], times=[0, 0, 1, 0], ratings=[5, 5, 1, 5])
    quality = module._quality(log, torch.tensor([False, False, True]).numpy())
    torch.testing.assert_close(quality, torch.tensor([(2 + 10 / 3) / 7, (0 + 10 / 3) / 6]))


def test_user_stays_on_his_side_when_others_are_added() -> None:
    ids = two_camps().user_ids.tolist()
    heldout = split_users(ids, 0.25, 7)
    assert (split_users(ids[::-1], 0.25, 7)[::-1] == heldout).all()
    assert (split_users(ids, 0.25, 8) != heldout).any()
    newcomers: list[int | str] = [-5, 10_000, "a name"]
    assert (split_users([*newcomers, *ids], 0.25, 7)[3:] == heldout).all()
    assert (split_users([str(user) for user in ids], 0.25, 7) == heldout).all()  # one name makes all ids text


def test_split_follows_the_written_hash() -> None:
    # BLAKE2b (RFC 7693) of "42" with the key "split 3": its first 53 bits as a share of 1.
    value = int(hashlib.blake2b(b"42", digest_size=8, key=b"split 3").hexdigest(), 16) / 2**64
    assert user_hashes([42], "split 3")[0] == pytest.approx(value, abs=1e-15)
    assert split_users([42], value + 1e-9, 3).all() and not split_users([42], value - 1e-9, 3).any()


@pytest.mark.parametrize("seed", range(5))
def test_about_the_asked_share_is_held_out(seed: int) -> None:
    # 20,000 users: five standard deviations of a binomial share are 0.0141.
    assert split_users(range(20_000), 0.2, seed).mean() == pytest.approx(0.2, abs=0.0142)


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again = (build(two_camps(), tmp_path / name) for name in ("a", "b"))
    other = build(two_camps(), tmp_path, seed=1)
    for one, two, three in zip(first, again, other, strict=True):
        assert_same(one, two)
        with pytest.raises(AssertionError):
            assert_same(one, three)


def no_learning(*_: object, **__: object) -> None:
    raise AssertionError("learned again")


def test_cache_gives_the_same_bytes_without_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(two_camps(), tmp_path)
    monkeypatch.setattr(module, "learn_embeddings", no_learning)
    for one, two in zip(first, build(two_camps(), tmp_path), strict=True):
        assert_same(one, two)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    assert build(dataclasses.replace(two_camps(), source="elsewhere"), tmp_path)[0].source.startswith(
        "elsewhere"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"num_items": 31},
        {"embedding_dim": 5},
        {"like_threshold": 4.5},
        {"min_item_likes": 4},
        {"heldout_fraction": 0.3},
        {"profile_fraction": 0.7},
        {"popularity_share": 0.5},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_is_part_of_the_cache_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    build(two_camps(), tmp_path)
    monkeypatch.setattr(module, "learn_embeddings", no_learning)
    with pytest.raises(AssertionError, match="learned again"):
        build(two_camps(), tmp_path, **change)


@pytest.mark.parametrize("field", ["users", "items", "times", "ratings", "rating_range"])
def test_each_part_of_the_log_is_part_of_the_cache_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    log = two_camps()
    build(log, tmp_path)
    monkeypatch.setattr(module, "learn_embeddings", no_learning)
    value: Any = (0.0, 5.0) if field == "rating_range" else getattr(log, field).flip(0)
    with pytest.raises(AssertionError, match="learned again"):
        build(dataclasses.replace(log, **{field: value}), tmp_path)


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "foreign"])
def test_damaged_cache_file_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    first = build(two_camps(), tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes(
        {"empty": b"", "truncated": whole[:-50], "flipped": flipped, "foreign": b"PK" * 40}[damage]
    )
    capsys.readouterr()
    for one, two in zip(first, build(two_camps(), tmp_path), strict=True):
        assert_same(one, two)
    assert "is damaged" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_cache_folder_without_write_access_is_only_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    catalogue, _ = build(two_camps(), blocked / "cache")
    assert catalogue.num_items == 30
    assert "Can't write the cache" in capsys.readouterr().err
    assert blocked.read_text() == "in the way"


@pytest.mark.parametrize(
    "changes",
    [
        {"min_item_likes": 1000},
        {"heldout_fraction": 0.0},
        {"heldout_fraction": 1.0},
        {"like_threshold": 5.5},
    ],
)
def test_too_few_items_or_users_is_a_user_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(two_camps(), tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_users_with_fewer_than_five_likes_are_removed(tmp_path: Path) -> None:
    log = two_camps()
    liked = torch.nonzero((log.users == 7) & (log.ratings >= 4)).flatten()
    ratings = log.ratings.clone()
    ratings[liked[4:]] = 1.0
    _, population = build(dataclasses.replace(log, ratings=ratings), tmp_path, min_item_likes=1)
    assert sorted(set(range(100, 160)) - set(population.user_ids.tolist())) == [107]
    likes = sorted(
        max(1, int(0.8 * count + 1e-9))
        for user in range(60)
        if (count := int(((log.users == user) & (ratings >= 4)).sum())) >= 5
    )
    assert population.source == (
        "1,200 events, 595 likes (50%) at rating >= 4 of 1..5; "
        "59 of 60 users, those with enough likes among them (at least 5), with profiles from "
        f"{likes[len(likes) // 2]} likes each (median; {likes[0]} to {likes[-1]})"
    )


def test_each_event_of_a_log_without_ratings_is_a_like(tmp_path: Path) -> None:
    log = two_camps()
    plain = dataclasses.replace(log, ratings=torch.ones_like(log.ratings), rating_range=(0.0, 1.0))
    catalogue, population = build(plain, tmp_path)
    assert torch.equal(catalogue.quality, torch.ones(30))
    assert len(population.user_ids) == 60


def test_synthetic_world() -> None:
    catalogue, population = synthetic_world(50, 20, 8, 0.2, seed=3)
    assert catalogue.embedding.shape == (50, 8) and population.taste.shape == (20, 8)
    for vectors in (catalogue.embedding, population.taste):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert torch.equal(population.taste, population.profile)
    assert not torch.equal(catalogue.embedding[:20], population.taste)
    assert (len(population.train), len(population.heldout)) == (16, 4)
    assert catalogue.tags.shape == (50, 0) and catalogue.attributes["year"].isnan().all()
    assert catalogue.titles[17] == "item 17"
    for one, two in zip((catalogue, population), synthetic_world(50, 20, 8, 0.2, seed=3), strict=True):
        assert_same(one, two)
    assert not torch.equal(catalogue.embedding, synthetic_world(50, 20, 8, 0.2, seed=4)[0].embedding)
    with pytest.raises(UserError):
        synthetic_world(50, 20, 8, 0.0, seed=3)


def test_synthetic_popularity_has_hits_and_a_long_tail() -> None:
    catalogue, _ = synthetic_world(10_000, 20, 2, 0.2, seed=3)
    popularity, quality = catalogue.popularity, catalogue.quality
    assert popularity.dtype == quality.dtype == torch.float32
    # log-uniform on 0.01..1: the median is 0.1, a quarter lies above 0.01**0.25 = 0.316
    assert popularity.min() >= 0.01 and popularity.max() <= 1
    assert abs(popularity.median() - 0.1) < 0.01
    assert abs((popularity > 0.01**0.25).float().mean() - 0.25) < 0.02
    # Beta(5, 3): mean 5/8, variance 15 / (64 * 9) = 0.0260
    assert quality.min() >= 0 and quality.max() <= 1
    assert abs(quality.mean() - 0.625) < 0.01 and abs(quality.var() - 0.0260) < 0.002
    assert abs(torch.corrcoef(torch.stack([popularity.log(), quality]))[0, 1]) < 0.05
    other, _ = synthetic_world(10_000, 20, 2, 0.2, seed=4)
    assert not torch.equal(popularity, other.popularity) and not torch.equal(quality, other.quality)

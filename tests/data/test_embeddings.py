"""Fold-in against a hand-solved example and against implicit; the order of likes; recall."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares

from benchmarks.embeddings import recall_at_k
from recsys_rl.data.catalogue import split_users
from recsys_rl.data.embeddings import (
    ALPHA,
    REGULARIZATION,
    first_likes,
    fold_in,
    is_earlier,
    learn_embeddings,
    learn_items,
    like_matrix,
    unit_rows,
)
from recsys_rl.data.movielens import load_movielens
from tests.worlds import make_log, shared_data, two_camps


def test_fold_in_by_hand() -> None:
    # YᵀY + I = [[3, 1], [1, 2]]; user 0 likes item 1: + 2 [[1, 1], [1, 1]], right side 3 [1, 1];
    # user 1 likes both: + 2 [[1, 0], [0, 0]] more, right side 3 [2, 1]; user 2 likes nothing.
    factors = np.array([[1.0, 0.0], [1.0, 1.0]])
    likes = like_matrix(np.array([0, 1, 1]), np.array([1, 0, 1]), (3, 2))
    vectors = fold_in(likes, factors, regularization=1.0, alpha=3.0)
    by_hand = np.array([[3 / 11, 6 / 11], [15 / 19, 3 / 19], [0.0, 0.0]])
    np.testing.assert_allclose(vectors, by_hand, rtol=1e-12)


def test_fold_in_agrees_with_implicit() -> None:
    log = two_camps()
    likes = like_matrix(*first_likes(log, 4.0), (60, 40))
    model = AlternatingLeastSquares(
        factors=8, regularization=REGULARIZATION, alpha=ALPHA, num_threads=1, random_state=3
    )
    model.fit(likes, show_progress=False)
    theirs = model.recalculate_user(np.arange(60), likes)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(fold_in(likes, model.item_factors.astype(np.float64)), theirs, atol=2e-4)


def test_fold_in_of_one_user_does_not_depend_on_the_batch() -> None:
    likes = like_matrix(*first_likes(two_camps(), 4.0), (60, 40))
    factors = learn_items(likes, 8, seed=0)
    together = fold_in(likes, factors)
    np.testing.assert_allclose(together[17], fold_in(likes[17], factors)[0], rtol=1e-10)
    np.testing.assert_allclose(together[::-1], fold_in(likes[::-1], factors), rtol=1e-10)


def test_first_likes_are_ordered_by_time_and_count_once() -> None:
    log = make_log(
        users=[1, 0, 0, 0, 1, 0],
        items=[2, 1, 0, 1, 0, 2],
        times=[5, 9, 3, 4, 1, 7],
        ratings=[4, 5, 4, 5, 3, 4],
    )
    users, items = first_likes(log, 4.0)  # user 0: item 0 at 3, item 1 at 4 (and again at 9), item 2 at 7
    assert users.tolist() == [0, 0, 0, 1]
    assert items.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("count", "fraction", "earlier"), [(5, 0.8, 4), (9, 0.8, 7), (100, 0.29, 29), (3, 0.1, 1), (4, 1.0, 4)]
)
def test_earlier_share_is_rounded_down_to_at_least_one(count: int, fraction: float, earlier: int) -> None:
    assert is_earlier(np.zeros(count, dtype=np.int64), fraction).tolist() == [True] * earlier + [False] * (
        count - earlier
    )


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_earlier_likes_of_each_user_are_chosen_separately(owners: list[int], fraction: float) -> None:
    users = np.sort(np.array(owners))
    earlier = is_earlier(users, fraction)
    for user in np.unique(users):
        alone = is_earlier(np.zeros((users == user).sum(), dtype=np.int64), fraction)
        np.testing.assert_array_equal(earlier[users == user], alone)


def test_recall_ignores_seen_items() -> None:
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    seen = torch.tensor([[True, False, False, False, False], [False] * 5])
    targets = torch.tensor([[False, True, False, True, False], [True, True, False, False, True]])
    # user 0 is shown items 1 and 2: one of two targets; user 1 items 4 and 3: one of three
    torch.testing.assert_close(recall_at_k(scores, seen, targets, 2), torch.tensor([1 / 2, 1 / 3]))


def test_unit_rows() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, -2.0]]))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_embeddings_separate_two_groups_of_users() -> None:
    log = two_camps()  # even users like even items, odd users odd items
    learned = learn_embeddings(
        log,
        split_users(log.user_ids.tolist(), 0.25, 0),
        embedding_dim=4,
        like_threshold=4.0,
        min_item_likes=3,
        profile_fraction=0.8,
        seed=0,
    )
    affinity = unit_rows(learned.profile) @ unit_rows(learned.item_factors).T  # (U, I)
    same = torch.from_numpy(learned.user_rows[:, None] % 2 == learned.item_rows % 2)
    assert learned.heldout.tolist() == split_users(log.user_ids.tolist(), 0.25, 0).tolist()
    assert affinity[same].mean() > 0.5
    assert affinity[~same].mean() < 0.2


def test_embeddings_predict_real_likes_better_than_popularity() -> None:
    log = load_movielens(data_dir=shared_data("movielens-latest-small"))
    learned = learn_embeddings(
        log,
        split_users(log.user_ids.tolist(), 0.2, 0),
        embedding_dim=32,
        like_threshold=4.0,
        min_item_likes=5,
        profile_fraction=0.8,
        seed=0,
    )
    test = learned.heldout
    seen, targets = (torch.from_numpy(x[test].toarray()).bool() for x in (learned.earlier, learned.later))
    cosine = unit_rows(learned.profile[test]) @ unit_rows(learned.item_factors).T
    popularity = torch.from_numpy(learned.item_likes).double().expand(seen.shape)
    gain = recall_at_k(cosine, seen, targets, 20) - recall_at_k(popularity, seen, targets, 20)
    assert gain.mean() - 1.96 * gain.std() / len(gain) ** 0.5 > 0

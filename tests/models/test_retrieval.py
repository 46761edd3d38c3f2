"""The first stage: exact and approximate search, one build of the index, and available items only."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.data.clustered import clustered_items
from recsys_rl.models import retrieval
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.retrieval import Retriever, mark_unusable
from recsys_rl.types import UserError

NUM_ITEMS, DIM = 30_000, 32


@pytest.fixture(scope="module")
def items() -> SplitFeatures:
    """Clustered embeddings, two columns of noise and a 1."""
    embedding = torch.cat([torch.from_numpy(part) for part in clustered_items(NUM_ITEMS, DIM, 0)])
    noise = torch.randn(NUM_ITEMS, 2, generator=torch.Generator().manual_seed(1))
    return SplitFeatures(embedding, torch.cat([noise, torch.ones(NUM_ITEMS, 1)], 1))


def queries(items: SplitFeatures, num: int = 100, columns: float = 0.0) -> Tensor:
    """Queries as actors make them: near the sum of two items, with some weight on the columns."""
    generator = torch.Generator().manual_seed(2)
    liked = torch.randint(NUM_ITEMS, (num, 2), generator=generator)
    near = items.embedding[liked].sum(1) + 0.05 * torch.randn(num, DIM, generator=generator)
    return torch.cat([near, columns * torch.randn(num, 3, generator=generator)], 1)


def everything(items: SplitFeatures) -> Tensor:
    return torch.ones(items.shape[0], dtype=torch.bool)


def brute_force(items: SplitFeatures, query: Tensor, k: int) -> Tensor:
    features = torch.cat([items.embedding, items.columns], 1)
    return (query @ features.T).topk(k, 1).indices


def recall(found: Tensor, truth: Tensor) -> float:
    shares = [len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), truth.tolist(), strict=True)]
    return sum(shares) / len(shares)


def test_exact_equals_brute_force(items: SplitFeatures) -> None:
    query = queries(items, columns=1.0)
    found = Retriever(items, everything(items), "exact").search(query, 50)
    scores = query @ torch.cat([items.embedding, items.columns], 1).T
    best = scores.topk(50, 1).values  # compared by score: rounding may exchange two items that are as good
    assert_close(scores.gather(1, found), best, atol=1e-5, rtol=1e-5)
    assert all(len(set(row)) == 50 for row in found.tolist())


def test_auto() -> None:
    def kind(num_items: int) -> str:
        items = SplitFeatures(torch.zeros(num_items, 1), torch.zeros(num_items, 1))
        return Retriever(items, torch.ones(num_items, dtype=torch.bool), "auto").kind

    assert kind(20_000) == "exact"
    pytest.importorskip("faiss")
    assert kind(20_001) == "ivf"


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
@pytest.mark.parametrize("columns", [0.0, 0.1])
def test_recall(index: str, columns: float, items: SplitFeatures) -> None:
    """Of the 96 best of 30,000 items, at least 90 % are found, and the best in 95 % of the queries."""
    pytest.importorskip("faiss")
    query = queries(items, columns=columns)
    found = Retriever(items, everything(items), index).search(query, 96)
    truth = brute_force(items, query, 96)
    assert recall(found, truth) >= 0.9
    assert recall(found, truth[:, :1]) >= 0.95
    assert all(len(set(row)) == 96 for row in found.tolist()) and int(found.min()) >= 0


def test_error_with_all_clusters_is_the_codes_error(
    items: SplitFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte a number, and the scaling of the columns cancels out."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(retrieval, "NUM_PROBES", 10_000)
    query = queries(items, columns=2.0)
    found = Retriever(items, everything(items), "ivf").search(query, 96)
    assert recall(found, brute_force(items, query, 96)) >= 0.95


def test_index_is_deterministic(items: SplitFeatures) -> None:
    pytest.importorskip("faiss")
    query = queries(items)
    one, two = (Retriever(items, everything(items), "ivf").search(query, 96) for _ in range(2))
    assert torch.equal(one, two)


def test_index_is_built_again_only_after_a_change(items: SplitFeatures) -> None:
    pytest.importorskip("faiss")
    own = SplitFeatures(items.embedding[:3000].clone(), items.columns[:3000])
    available = torch.ones(3000, dtype=torch.bool)
    retriever = Retriever(own, available, "ivf")
    query = torch.cat([own.embedding[:5], torch.zeros(5, 3)], 1)
    assert retriever.builds == 0
    for _ in range(3):
        assert retriever.search(query, 10)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert retriever.builds == 1

    own.embedding[:5] = own.embedding[5:10].clone()  # written to: 0 and 5 are alike now, and 0 is gone
    moved = retriever.search(query, 10)
    assert retriever.builds == 2 and not set(moved[:, 0].tolist()) & set(range(5))

    own.embedding = items.embedding[:3000].clone()  # another tensor
    assert retriever.search(query, 10)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert retriever.builds == 3

    available[:5] = False
    found = retriever.search(query, 10)
    assert retriever.builds == 4 and int(found.min()) >= 5
    assert retriever.rows.tolist() == list(range(5, 3000)) and retriever.builds == 4


@pytest.mark.parametrize("index", ["exact", "ivf", "hnsw"])
def test_unavailable_items_are_never_found(index: str, items: SplitFeatures) -> None:
    if index != "exact":
        pytest.importorskip("faiss")
    available = torch.arange(NUM_ITEMS) % 3 == 0
    query = queries(items)
    found = Retriever(items, available, index).search(query, 30)
    assert bool((found % 3 == 0).all())
    only = brute_force(SplitFeatures(items.embedding[::3], items.columns[::3]), query, 30) * 3
    assert recall(found, only) >= (0.999 if index == "exact" else 0.9)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_short_search_results_are_completed(
    index: str, items: SplitFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cluster of about 20 items can't fill a list of 100; nor can a list be longer than what there is."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(retrieval, "NUM_PROBES", 1)
    few = SplitFeatures(items.embedding[:400], items.columns[:400])
    query = queries(items, 20)
    found = Retriever(few, everything(few), index).search(query, 400)
    assert found.sort(1).values.tolist() == [list(range(400))] * 20
    available = torch.arange(400) < 3
    assert (
        Retriever(few, available, index).search(query, 5).sort(1).values.tolist() == [[-1, -1, 0, 1, 2]] * 20
    )


def test_search_for_no_candidates(items: SplitFeatures) -> None:
    assert Retriever(items, everything(items), "exact").search(queries(items, 3), 0).shape == (3, 0)


@pytest.mark.parametrize("index", ["auto", "ivf", "hnsw"])
def test_without_faiss(index: str, items: SplitFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError):
        Retriever(items, everything(items), index)


def test_mark_unusable_by_hand() -> None:
    #                          sure     drawn
    candidates = torch.tensor([[5, 2, 9, 2, 7, 7, 9], [1, 0, 3, 4, 4, 4, 6]])
    exclude = torch.tensor([[7, -1], [0, 0]])
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, 5] = mask[1, 6] = False

    def marked(*without: Any) -> Any:
        return mark_unusable(candidates, 3, *without).tolist()

    assert marked(None, None) == [[5, 2, 9, -1, 7, -1, -1], [1, 0, 3, 4, -1, -1, 6]]
    assert marked(exclude, None) == [[5, 2, 9, -1, -1, -1, -1], [1, -1, 3, 4, -1, -1, 6]]
    assert marked(exclude, mask) == [[-1, 2, 9, -1, -1, -1, -1], [1, -1, 3, 4, -1, -1, -1]]
    assert mark_unusable(candidates[:, :3], 3, None, None).tolist() == [[5, 2, 9], [1, 0, 3]]

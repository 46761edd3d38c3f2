"""Blocked top-k: the result of torch.topk on the whole matrix, without the matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.functional import top_k

SCORES = torch.tensor([[3.0, 1.0, 4.0, 1.5, 5.0], [2.0, 7.0, 1.0, 8.0, -2.0]])


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "BLOCK_SCORES", 4)  # two items at a time, the last block one
    scores, items = top_k.blocked_top_k(lambda block: SCORES[:, block], 2, 5, 3)
    assert scores.tolist() == [[5.0, 4.0, 3.0], [8.0, 7.0, 2.0]]
    assert items.tolist() == [[4, 2, 0], [3, 1, 0]]


def test_forbidden_items_are_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "BLOCK_SCORES", 2)
    masked = SCORES.masked_fill(SCORES < 3.5, -torch.inf)
    items = top_k.blocked_top_k(lambda block: masked[:, block], 2, 5, 3)[1]
    assert items.tolist() == [[4, 2, -1], [3, 1, -1]]


def test_k_larger_than_the_catalogue() -> None:
    with pytest.raises(ValueError, match="only 5 items"):
        top_k.blocked_top_k(lambda block: SCORES[:, block], 2, 5, 6)


@given(st.data())
def test_equals_topk(data: st.DataObject) -> None:
    """Few different scores make ties, and small blocks make k larger than a block."""
    n, num_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    k = data.draw(st.integers(1, num_items))
    values = data.draw(st.lists(st.integers(-3, 3), min_size=n * num_items, max_size=n * num_items))
    matrix = torch.tensor(values, dtype=torch.float32).view(n, num_items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_k, "BLOCK_SCORES", data.draw(st.integers(1, 50)))
        scores, items = top_k.blocked_top_k(lambda block: matrix[:, block], n, num_items, k)
    assert torch.equal(scores, matrix.topk(k, 1).values)
    assert torch.equal(matrix.gather(1, items), scores)
    assert all(len(set(row)) == k for row in items.tolist())


def test_blocks_respect_the_maximum_of_scores() -> None:
    sizes = [block.stop - block.start for block in top_k.blocks(64, 100_000)]
    assert max(sizes) == 2**20 // 64 and sum(sizes) == 100_000
    assert [block.stop for block in top_k.blocks(2**21, 3)] == [1, 2, 3]  # one item at least

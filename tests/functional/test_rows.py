"""Rows of tables, compiled and by torch: each against a loop, or worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import rows
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def users_and_items(n: int, k: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (n, size), a table of 5 rows, items (n, k), shown (n, k)."""
    x, table = torch.randn(n, size, generator=rng(0)), torch.randn(5, size, generator=rng(1))
    items = torch.randint(5, (n, k), generator=rng(2))
    return x, table, items, torch.rand(n, k, generator=rng(3)) >= 0.3


def test_by_hand() -> None:
    x, table = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 2.0]])
    items = torch.tensor([[2, 1], [0, 0]])
    assert rows.dot_rows(x, table, items).tolist() == [[6.0, -1.5], [3.0, 3.0]]
    shown = torch.tensor([[True, False], [True, True]])
    assert rows.add_rows(x, table, items, shown, 0.5).tolist() == [[2.0, 3.0], [4.0, 4.0]]
    last = torch.tensor([[-1], [1]])
    assert rows.beside_rows(x, table, last).tolist() == [[1.0, 2.0, 0.0, 0.0], [3.0, 4.0, 0.5, -1.0]]
    queue, first = torch.tensor([[-1, 4, 6], [1, 2, 3]]), torch.tensor([[True], [False]])
    assert rows.push_rows(queue, torch.tensor([[9], [9]]), first).tolist() == [[4, 6, 9], [1, 2, 3]]
    assert rows.rows_hold(queue, torch.tensor([[6], [6]])).tolist() == [[True], [False]]
    assert rows.rows_hold(queue, torch.tensor([[6, 5], [6, 3]])).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(("n", "k", "size"), [(0, 1, 3), (1, 1, 1), (7, 3, 19), (3000, 1, 33)])
def test_any_size(n: int, k: int, size: int) -> None:
    """Against a loop over the positions; 3,000 rows are enough for several threads."""
    x, table, items, shown = users_and_items(n, k, size)
    dots = torch.stack([(x * table[items[:, place]]).sum(1) for place in range(k)], 1)
    assert_close(rows.dot_rows(x, table, items), dots, atol=1e-5, rtol=1e-5)
    added = x.clone()
    for place in range(k):
        added += 0.3 * table[items[:, place]] * shown[:, place : place + 1]
    assert_close(rows.add_rows(x, table, items, shown, 0.3), added, atol=1e-5, rtol=1e-5)
    assert torch.equal(
        rows.beside_rows(x, table, items[:, :1].contiguous()), torch.cat([x, table[items[:, 0]]], 1)
    )
    length = size + 1
    queue, first = torch.randint(4, (n, length), generator=rng(6)), shown[:, :1].contiguous()
    newest = items[:, :1].contiguous()
    pushed = torch.where(first, torch.cat([queue[:, 1:], newest], 1), queue)
    assert torch.equal(rows.push_rows(queue, newest, first), pushed)
    assert torch.equal(rows.rows_hold(queue, newest), (queue == newest).any(1, keepdim=True))
    held = torch.stack([(queue == items[:, [place]]).any(1) for place in range(k)], 1)
    assert torch.equal(rows.rows_hold(queue, items), held)


def test_result_is_independent_of_threads() -> None:
    x, table, items, shown = users_and_items(3000, 2, 33)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append([rows.dot_rows(x, table, items), rows.add_rows(x, table, items, shown)])
            last, first = items[:, :1].contiguous(), shown[:, :1].contiguous()
            found[-1].append(rows.beside_rows(x, table, last))
            queue = items.repeat(1, 9)
            found[-1] += [rows.push_rows(queue, last, first), rows.rows_hold(queue, last)]
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_types_strides_and_shapes_of_rows() -> None:
    """Histories of ids, signals with another axis, flags, and tensors that only torch can take."""
    signals, first = torch.arange(12.0).view(2, 3, 2), torch.tensor([[True], [False]])
    pushed = rows.push_rows(signals, torch.full((2, 1, 2), 9.0), first)
    assert pushed.tolist() == [[[2, 3], [4, 5], [9, 9]], signals[1].tolist()]
    x, table, items, shown = users_and_items(4, 2, 6)
    expected = rows.dot_rows(x, table, items), rows.add_rows(x, table, items, shown)
    strided = x.T.contiguous().T
    assert_close(rows.dot_rows(strided, table, items), expected[0])
    assert_close(rows.add_rows(strided, table, items, shown), expected[1])
    assert_close(rows.dot_rows(x.double(), table.double(), items).float(), expected[0])
    assert_close(rows.add_rows(x, table, items, shown.T.contiguous().T), expected[1])
    wide = torch.cat([items, items], 1)
    assert_close(rows.dot_rows(x, table, wide[:, 2:]), expected[0])


@pytest.mark.parametrize("item", [5, -2, 2**40])
def test_rows_outside_a_table(item: int) -> None:
    """They are rejected before memory outside is read or written."""
    x, table, items, shown = users_and_items(4, 2, 6)
    items[3, 1] = item
    last = items[:, 1:].contiguous()
    with pytest.raises(IndexError):
        rows.dot_rows(x, table, items)
    with pytest.raises(IndexError):
        rows.add_rows(x, table, items, shown)
    with pytest.raises(IndexError):
        rows.beside_rows(x, table, last)


def test_shapes_that_do_not_fit() -> None:
    """They are rejected before an address is passed to C."""
    x, table, items, shown = users_and_items(4, 2, 6)
    for users, theirs in ((x[:3], items), (x[:, :5].contiguous(), items)):
        with pytest.raises(ValueError, match="don't fit"):
            rows.dot_rows(users, table, theirs)
    one = items[:, :1].contiguous()
    with pytest.raises(ValueError, match="shown"):
        rows.add_rows(x, table, items, shown[:, :1].contiguous())
    with pytest.raises(ValueError, match="one for each user"):
        rows.beside_rows(x, table, items)
    for fresh, first in ((items, shown[:, :1]), (one, shown), (one.int(), shown[:, :1])):
        with pytest.raises(ValueError, match="fit"):
            rows.push_rows(items, fresh, first.contiguous())
    with pytest.raises(ValueError, match="must have"):
        rows.rows_hold(items, items[:1])

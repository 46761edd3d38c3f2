"""Mean and pushes of deep sets in one node: by hand, and beside the layers over entries in double."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels
from recsys_rl.models.deep_sets import STOCKS, DeepSets
from recsys_rl.models.fast import deep_sets
from recsys_rl.models.sequence import make_encoder, summarise
from recsys_rl.types import Obs

N, L, F, ITEMS, DIMS = 37, 6, 9, 11, 4

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the kernels were not compiled here")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(num_signals: int, profile: bool) -> tuple[DeepSets, Obs, Tensor]:
    """An encoder, histories with padding at any place, and the features of the items."""
    at = slice(1, 1 + DIMS) if profile else None
    encoder = make_encoder("deep-sets", F, num_signals, L, at, rng(0))
    assert isinstance(encoder, DeepSets)
    history = torch.randint(-1, ITEMS, (N, L), generator=rng(1))
    history[0] = -1
    signals = torch.randn(N, L, num_signals, generator=rng(2))
    return (
        encoder,
        Obs(torch.randn(N, 7, generator=rng(3)), history, signals),
        torch.randn(ITEMS, F, generator=rng(4)),
    )


def by_one_node(result: Tensor) -> bool:
    """True if the graph of ``result`` has the node of this file."""
    ahead, seen = [result.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [behind for behind, _ in node.next_functions]
    return any(type(node).__name__ == "_SessionUnitsBackward" for node in seen)


def found(encoder: DeepSets, obs: Obs, items: Tensor) -> list[Tensor]:
    summary = summarise(encoder, obs, items)
    weights = torch.randn(summary.shape, generator=rng(5), dtype=torch.float64).to(summary)
    return [summary, *torch.autograd.grad((summary * weights).sum(), list(encoder.parameters()))]


def test_by_hand() -> None:
    """Two entries of a window of four; entries have a feature, a signal, and the product with the profile."""
    weight, to_stocks, first = torch.zeros(3, 16), torch.zeros(16, STOCKS), torch.zeros(STOCKS)
    weight[:, 0] = torch.tensor([3.0, -1.0, 1.0])
    to_stocks[0, 1], to_stocks[3, 1], to_stocks[5, 7], first[7] = 0.5, 1.0, -2.0, 0.5
    history, signals = torch.tensor([[-1, 0, -1, 1]]), torch.tensor([[[9.0], [2.0], [9.0], [9.0]]])
    items, profile, bias = torch.tensor([[2.0], [7.0]]), torch.tensor([[2.5]]), torch.ones(16)
    window = history, signals, items, profile
    mean, pushes = deep_sets.session_units(weight, bias, to_stocks, first, *window)
    one, two = 1 + 3 * 2 - 2 + 2.5 * 2, 1 + 3 * 7 - 9 + 2.5 * 7
    assert mean[0, 0].item() == (one + two) / 4
    assert mean[0, 1:].tolist() == [2 / 4] * 15
    assert pushes[0, :, 1].tolist() == [0, one / 2 + 1, 0, two / 2 + 1]
    assert pushes[0, :, 7].tolist() == [0, -1.5, 0, -1.5]
    assert not bool(pushes[..., [0, *range(2, 7)]].any())
    weight[2, 0] = -2.0
    mean, _ = deep_sets.session_units(weight, bias, to_stocks, first, *window)
    assert mean[0, 0].item() == 0  # 1 + 6 - 2 - 10 and 1 + 21 - 9 - 35 are below 0


@pytest.mark.parametrize("profile", [True, False])
@pytest.mark.parametrize("num_signals", [1, 3])
def test_summary_and_gradients_equal_the_layer_in_double(num_signals: int, profile: bool) -> None:
    encoder, obs, items = made(num_signals, profile)
    one = found(encoder, obs, items)
    assert by_one_node(one[0])
    assert not bool(one[0][0].any())  # no entry
    assert obs.signals is not None
    exact = replace(obs, context=obs.context.double(), signals=obs.signals.double())
    other = found(encoder.double(), exact, items.double())
    assert not by_one_node(other[0])
    for result, wanted in zip(one, other, strict=True):
        assert (
            float((result.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max())
            < 2e-6
        )


def test_more_items_than_entries_are_left_to_the_layer() -> None:
    encoder, obs, items = made(1, True)
    few = obs.rows(torch.tensor([1]))
    alone = summarise(encoder, few, items)
    assert not by_one_node(alone)
    torch.testing.assert_close(alone, summarise(encoder, obs, items)[1:2], rtol=1e-5, atol=1e-6)


def test_threads_change_no_more_than_rounding() -> None:
    encoder, obs, items = made(1, True)
    many = obs.rows(torch.arange(N).repeat(60))
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(found(encoder, many, items))
    torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):  # products of torch's own threads differ in rounding
        assert float(((one - other).abs().max() / one.abs().max()).detach()) < 2e-6


def test_inputs_that_do_not_fit() -> None:
    encoder, obs, items = made(1, True)
    assert obs.history is not None and obs.signals is not None
    with pytest.raises(IndexError):
        summarise(encoder, replace(obs, history=obs.history + 1), items)
    with pytest.raises(ValueError, match="don't fit"):
        summarise(encoder, obs, items[:, 1:].contiguous())
    known = encoder.layer.weight, encoder.layer.bias, encoder.push.weight, encoder.push.bias
    wide = torch.zeros(N, items.shape[1] + 1)
    with pytest.raises(ValueError, match="doesn't fit"):
        deep_sets.session_units(*known, obs.history, obs.signals, items, wide)

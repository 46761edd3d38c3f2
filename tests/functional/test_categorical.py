"""The masked categorical distribution: literal numbers, exact frequencies, and the edges of rounding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import categorical
from recsys_rl.functional.categorical import Categorical
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels

LOGITS = torch.tensor([1.0, 2.0, 4.0, 1.0]).log()  # probabilities 1/8, 1/4, 1/2, 1/8
MASK = torch.tensor([True, True, False, True])  # leaves 1/4, 1/2, -, 1/4
BELOW_ONE = 1 - 2.0**-24  # torch.rand's largest float32


def test_logprob() -> None:
    index = torch.tensor([0, 1, 2, 3])
    free = categorical.logprob(LOGITS.expand(4, 4), index)
    assert_close(free.exp(), torch.tensor([0.125, 0.25, 0.5, 0.125]))
    masked = categorical.logprob(categorical.mask_logits(LOGITS, MASK).expand(4, 4), index)
    assert_close(masked.exp(), torch.tensor([0.25, 0.5, 0.0, 0.25]))
    assert masked[2] == -torch.inf


def test_no_mask_leaves_logits_unchanged() -> None:
    assert categorical.mask_logits(LOGITS, None) is LOGITS
    assert torch.equal(categorical.mask_logits(LOGITS, torch.ones(4, dtype=torch.bool)), LOGITS)


def test_entropy() -> None:
    # 2/8 ln 8 + 1/4 ln 4 + 1/2 ln 2 = 7/4 ln 2; with the mask 2/4 ln 4 + 1/2 ln 2 = 3/2 ln 2
    assert_close(categorical.entropy(LOGITS), torch.tensor(1.75 * math.log(2)))
    assert_close(categorical.entropy(categorical.mask_logits(LOGITS, MASK)), torch.tensor(1.5 * math.log(2)))
    alone = categorical.mask_logits(LOGITS, torch.tensor([False, False, True, False]))
    assert categorical.entropy(alone).item() == 0.0


def test_forbidden_alternatives_have_zero_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    masked = categorical.mask_logits(logits, MASK)
    (categorical.entropy(masked) + categorical.logprob(masked, torch.tensor(0))).backward()
    assert logits.grad is not None and logits.grad[2] == 0.0
    # d log p_0 = (3/4, -1/2, -1/4); dH = -p (log p + H), with H + log p = -ln(2)/2, ln(2)/2, -ln(2)/2
    half = math.log(2) / 2
    assert_close(logits.grad[[0, 1, 3]], torch.tensor([0.75 + half / 4, -0.5 - half / 2, -0.25 + half / 4]))


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30), st.data())
def test_probabilities_sum_to_one_and_entropy_has_its_bounds(
    numbers: list[float], data: st.DataObject
) -> None:
    allowed = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)).filter(any))
    logits = categorical.mask_logits(torch.tensor(numbers), torch.tensor(allowed))
    every = torch.arange(len(numbers))
    total = categorical.logprob(logits.expand(len(numbers), -1), every).exp().sum()
    assert_close(total, torch.tensor(1.0))
    assert -1e-5 <= categorical.entropy(logits) <= math.log(sum(allowed)) + 1e-5


@pytest.mark.parametrize(
    ("masked", "shares"), [(False, [0.125, 0.25, 0.5, 0.125]), (True, [0.25, 0.5, 0.0, 0.25])]
)
def test_frequencies(masked: bool, shares: list[float]) -> None:
    """A chi-square test of 40,000 draws with a fixed seed."""
    logits = categorical.mask_logits(LOGITS, MASK if masked else None).expand(40_000, 4).contiguous()
    drawn = categorical.sample(logits, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=4)
    possible = torch.tensor(shares) > 0
    assert not counts[~possible].any()
    assert chisquare(counts[possible], 40_000 * torch.tensor(shares)[possible]).pvalue > 0.01


def test_chi_square_detects_a_wrong_distribution() -> None:
    drawn = categorical.sample(LOGITS.expand(40_000, 4).contiguous(), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=4)
    assert chisquare(counts, 40_000 * torch.tensor([0.13, 0.26, 0.49, 0.12])).pvalue < 1e-3


def test_draw_returns_the_logprob_of_the_drawn_index() -> None:
    logits = torch.randn(50, 2, 300, generator=torch.Generator().manual_seed(1))
    logits[:, :, ::7] = -torch.inf
    drawn, log_p = categorical.draw(logits, torch.Generator().manual_seed(0))
    assert_close(log_p, categorical.logprob(logits, drawn), atol=1e-5, rtol=1e-5)


def test_frequencies_in_a_wide_catalogue() -> None:
    """A chi-square test over 1,000 items of very different probability, in five groups of 200."""
    logits = torch.arange(1000).div(200, rounding_mode="floor") * math.log(2.0)  # 1 : 2 : 4 : 8 : 16
    drawn = categorical.sample(logits.expand(40_000, 1000).contiguous(), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.div(200, rounding_mode="floor"), minlength=5)
    assert chisquare(counts, 40_000 * torch.tensor([1.0, 2, 4, 8, 16]).double() / 31).pvalue > 0.01
    within = torch.bincount(drawn % 200, minlength=200)
    assert chisquare(within).pvalue > 0.01


def test_draws_are_independent_of_threads() -> None:
    logits = torch.randn(64, 1, 1000, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(categorical.draw(logits, torch.Generator().manual_seed(0)))
    torch.set_num_threads(before)
    for index, log_p in found[1:]:
        assert torch.equal(index, found[0][0])
        assert_close(log_p, found[0][1])


def test_positions_are_drawn_independently() -> None:
    logits = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]).log().expand(2000, 2, 3).contiguous()
    drawn = categorical.sample(logits, torch.Generator().manual_seed(0))  # (2000, 2)
    assert drawn.shape == (2000, 2) and drawn.dtype == torch.int64
    pairs = torch.bincount(2 * drawn[:, 0] + drawn[:, 1] - 1, minlength=4)  # four pairs, alike
    assert len(pairs) == 4 and chisquare(pairs).pvalue > 0.01


def test_draws_depend_only_on_the_generator() -> None:
    logits = torch.zeros(100, 50)
    before = torch.get_rng_state()
    first, again = (categorical.sample(logits, torch.Generator().manual_seed(7)) for _ in range(2))
    other = categorical.sample(logits, torch.Generator().manual_seed(8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("uniform", "item"),
    [(0.0, 1), (0.249, 1), (0.25, 3), (0.749, 3), (0.75, 4), (BELOW_ONE, 4), (1.0, 4)],
)
def test_draw_inverts_the_cumulative_distribution(
    monkeypatch: pytest.MonkeyPatch, uniform: float, item: int
) -> None:
    """Probabilities 0, 1/4, 0, 1/2, 1/4, 0: a border belongs to the next allowed item."""
    monkeypatch.setattr(torch, "rand", lambda size, **rest: torch.full(size, uniform))
    logits = torch.tensor([0.0, 1.0, 0.0, 2.0, 1.0, 0.0]).log()
    assert categorical.sample(logits.expand(3, 6).contiguous()).tolist() == [item] * 3


@settings(max_examples=200)
@given(
    st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=40),
    st.sampled_from([0.0, 2.0**-24, 0.5, BELOW_ONE, 1.0]),
    st.data(),
)
def test_forbidden_alternatives_are_never_drawn(
    numbers: list[float], uniform: float, data: st.DataObject
) -> None:
    allowed = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)).filter(any))
    logits = categorical.mask_logits(torch.tensor([numbers]), torch.tensor(allowed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda size, **rest: torch.full(size, uniform))
        assert allowed[int(categorical.sample(logits))]


def test_forbid_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])  # (N, K, A)
    exclude = torch.tensor([[-1, -1], [0, -1], [2, 2]])  # padding is not item 0, and twice is once
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    off = -torch.inf
    got = categorical.forbid_(logits.clone(), mask, exclude)
    assert got[:, 0].tolist() == [[1.0, 2.0, 3.0], [off, 2.0, off], [1.0, 2.0, off]]
    assert categorical.forbid_(logits, None, None) is logits


def test_forbid_refuses_other_ids() -> None:
    with pytest.raises((IndexError, RuntimeError)):
        categorical.forbid_(torch.zeros(2, 1, 3), None, torch.tensor([[0], [3]]))


def test_forbid_of_several_positions() -> None:
    got = categorical.forbid_(torch.zeros(1, 2, 3), None, torch.tensor([[1, -1]]))
    assert got.isinf().tolist() == [[[False, True, False]] * 2]


def test_gradient_of_forbidden_logits_needs_no_copy() -> None:
    """In a network logits are a view. A write through ``detach`` would make autograd copy their gradient."""
    flat = torch.zeros(2, 3, requires_grad=True) + 0
    logits = categorical.forbid_(flat.unsqueeze(1), None, torch.tensor([[1], [-1]]))
    assert logits.grad_fn is not None and logits.grad_fn.name() == "UnsqueezeBackward0"


def test_forbid_keeps_the_gradient_of_allowed_alternatives() -> None:
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    categorical.logprob(
        categorical.forbid_(logits + 0, None, torch.tensor([[1]])), torch.tensor([[0]])
    ).sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == [[[0.5, 0.0, -0.5]]]


@pytest.mark.parametrize("exclude", [[-1, -1, -1], [-1, 3, 0], [4, 1, 4], [0, 1, 2]])
def test_uniform_frequencies_without_excluded_items(exclude: list[int]) -> None:
    """A chi-square test of 20,000 draws among the remaining ones of five items."""
    rows = torch.tensor([exclude]).expand(20_000, -1)
    item, logprob = categorical.uniform(20_000, 5, rows, torch.Generator().manual_seed(0))
    left = [i for i in range(5) if i not in exclude]
    counts = torch.bincount(item, minlength=5)
    assert counts.sum() == counts[left].sum() and chisquare(counts[left]).pvalue > 0.01
    assert_close(logprob, torch.full((20_000,), -math.log(len(left))))


def test_uniform_without_exclusion() -> None:
    item, logprob = categorical.uniform(20_000, 4, None, torch.Generator().manual_seed(0))
    assert chisquare(torch.bincount(item, minlength=4)).pvalue > 0.01
    assert_close(logprob, torch.full((20_000,), -math.log(4)))


# The distribution of a policy, and its gradient in closed form.


def evaluated(logits: Tensor, index: Tensor, by_logprob: Tensor, by_entropy: Tensor) -> list[Tensor]:
    """Log-probability, entropy, and the gradient of their weighted sum at the logits."""
    logits = logits.clone().requires_grad_()
    logprob, entropy = Categorical(logits).evaluate(index)
    (logprob * by_logprob + entropy * by_entropy).sum().backward()
    assert logits.grad is not None
    return [logprob.detach(), entropy.detach(), logits.grad]


def by_autograd(logits: Tensor, index: Tensor, by_logprob: Tensor, by_entropy: Tensor) -> list[Tensor]:
    """The same numbers from the single equations, in float64."""
    logits = logits.double().requires_grad_()
    logprob = categorical.logprob(logits, index).sum(-1)
    entropy = categorical.entropy(logits).sum(-1)
    (logprob * by_logprob + entropy * by_entropy).sum().backward()
    assert logits.grad is not None
    return [logprob.detach(), entropy.detach(), logits.grad]


def test_gradient_by_hand() -> None:
    # p = (3/4, 1/4), H = 0.5623351; [j = 0] - p_j, and -p_j (log p_j + H) with log p = -0.2876821, -1.3862944
    logits, one, none = torch.tensor([[[3.0, 1.0]]]).log(), torch.ones(1), torch.zeros(1)
    logprob, entropy, gradient = evaluated(logits, torch.tensor([[0]]), one, none)
    assert_close(logprob, torch.tensor([math.log(0.75)]))
    assert_close(entropy, torch.tensor([0.5623351]))
    assert_close(gradient, torch.tensor([[[0.25, -0.25]]]))
    gradient = evaluated(logits, torch.tensor([[0]]), none, one)[2]
    assert_close(gradient, torch.tensor([[[-0.2059898, 0.2059898]]]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 6),
    positions=st.integers(1, 3),
    size=st.sampled_from([1, 2, 5, 63, 64, 65, 200]),
    masked=st.booleans(),
    ent_coef=st.sampled_from([0.0, 0.01, 3.0]),
)
def test_evaluate_equals_autograd(
    seed: int, batch: int, positions: int, size: int, masked: bool, ent_coef: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, positions, size, generator=rng)
    allowed = torch.rand(logits.shape, generator=rng) < 0.6
    allowed[..., 0] = True
    logits = categorical.mask_logits(logits, allowed if masked else None)
    index, logprob = Categorical(logits).draw(rng)
    by_logprob = torch.randn(batch, generator=rng) * (torch.rand(batch, generator=rng) < 0.7)
    by_entropy = torch.full((batch,), ent_coef)
    found = evaluated(logits, index, by_logprob, by_entropy)
    for one, other in zip(found, by_autograd(logits, index, by_logprob, by_entropy), strict=True):
        assert_close(one, other.to(one.dtype), atol=2e-5, rtol=2e-5)
    assert_close(found[0], logprob, atol=2e-5, rtol=2e-5)
    assert_close(found[1], Categorical(logits).entropy(), atol=2e-5, rtol=2e-5)
    assert not found[2][logits == -torch.inf].any()


def test_best_is_the_most_probable_of_each_position() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0], [3.0, -torch.inf, 1.0]]])
    assert Categorical(logits).best().tolist() == [[1, 0]]


def test_draw_at_replays_a_draw() -> None:
    logits = torch.randn(9, 1, 50, generator=torch.Generator().manual_seed(1))
    u = torch.rand(9, 1, 1, generator=torch.Generator().manual_seed(2))
    drawn, logprob = categorical.draw_at(logits, u)
    again, _ = Categorical(logits).draw(torch.Generator().manual_seed(2))
    assert torch.equal(drawn, again)
    assert_close(logprob.sum(-1), Categorical(logits).logprob(drawn), atol=1e-5, rtol=1e-5)


def test_far_logits_and_a_large_entropy_bonus_stay_finite() -> None:
    logits = torch.tensor([[[3e4, 3e4 - 1, -3e4, -torch.inf]]])
    arguments = torch.tensor([[1]]), torch.ones(1), torch.full((1,), 8.0)
    found = evaluated(logits, *arguments)
    assert bool(found[2].isfinite().all())
    for one, other in zip(found, by_autograd(logits, *arguments), strict=True):
        assert_close(one, other.float(), atol=1e-4, rtol=1e-4)


def test_nan_logits_give_nan() -> None:
    logits = torch.tensor([[[torch.nan, 0.0]]])
    logprob, _, gradient = evaluated(logits, torch.tensor([[0]]), torch.ones(1), torch.zeros(1))
    assert bool(logprob.isnan().all()) and bool(gradient.isnan().any())


def test_gradient_is_independent_of_threads() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 1, 1000, generator=rng)
    index, logprob = Categorical(logits).draw(rng)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(evaluated(logits, index, logprob, torch.ones(64))[2])
    torch.set_num_threads(before)
    assert_close(found[0], found[1], atol=1e-6, rtol=1e-6)


def test_backward_twice_gives_the_same_and_leaves_the_logits() -> None:
    leaf = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = leaf * 1.0
    before = logits.detach().clone()
    logprob, entropy = Categorical(logits).evaluate(torch.tensor([[0], [1], [4]]))
    loss = (logprob + 0.1 * entropy).sum()
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(first, second) and torch.equal(logits, before)


@pytest.mark.parametrize("item", [-1, 3, 15])
def test_index_out_of_range(item: int) -> None:
    with pytest.raises((IndexError, RuntimeError), match=r"outside|out of bounds"):
        Categorical(torch.zeros(2, 1, 3)).evaluate(torch.tensor([[0], [item]]))
    with pytest.raises(ValueError, match="doesn't fit"):
        Categorical(torch.zeros(2, 1, 3)).evaluate(torch.tensor([[0]]))


def test_exploring_by_hand() -> None:
    """Logits 0, ln 2, ln 4 and an impossible one: r is 0, 1/2, 1. Equal ones stay equal."""
    logits = torch.tensor([[1.0, 2.0, 4.0, 0.0], [3.0, 3.0, 0.0, 3.0], [0.0, 5.0, 0.0, 0.0]]).log()
    found = categorical.exploring(logits, 0.1).softmax(1)
    alike = torch.tensor([1.0, math.exp(0.5), math.e, 0.0])
    wanted = 0.9 * torch.tensor([1.0, 2.0, 4.0, 0.0]) / 7 + 0.1 * alike / alike.sum()
    assert_close(found[0], wanted)
    assert_close(found[1], torch.tensor([1.0, 1.0, 0.0, 1.0]) / 3)
    assert_close(found[2], torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_exploring_bounds_each_probability_and_keeps_the_order() -> None:
    """Also of items whose probability float32 can't hold beside the others."""
    logits = 200 * torch.rand(300, 50, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = -torch.inf
    found = categorical.exploring(logits, 0.1)
    chances = found.double().softmax(1)
    assert torch.equal(chances[:, 7], torch.zeros(300).double())
    rest = chances[:, torch.arange(50) != 7]
    assert float(rest.min()) > 0.1 / (math.e * 49)
    order = logits.argsort(1, descending=True)[:, :49]
    assert float(found.gather(1, order).diff(dim=1).max()) <= 0
    assert torch.equal(found.argmax(1), logits.argmax(1))
    assert bool((found.gather(1, order)[:, :10].diff(dim=1) < 0).double().mean() > 0.99)


def test_exploring_leaves_rows_without_an_alternative_and_faults_as_they_are() -> None:
    logits = torch.tensor([[-torch.inf, -torch.inf], [torch.nan, 1.0]])
    found = categorical.exploring(logits, 0.1)
    assert torch.equal(found[0], logits[0]) and bool(found[1].isnan().any())


def test_effective_number_of_alternatives_by_hand() -> None:
    """Four alike are 4; a half and two quarters have an entropy of 1.5 ln 2; a sure one is 1."""
    chances = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(categorical.effective(chances.log()), torch.tensor([4.0, 2**1.5, 1.0]))

"""Each equation of the losses of PPO and A2C, against numbers worked out by hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import losses
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels
from recsys_rl.functional.item_scores import ItemScores
from recsys_rl.functional.plackett_luce import PlackettLuce
from tests.compiled import without_kernels  # noqa: F401

FLOATS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8)


def logs(*ratios: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B,) new and old, of these ratios."""
    old = torch.full((len(ratios),), -1.25)
    return old + torch.tensor(ratios).log(), old


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 3.0, -3.0),
        (1.1, 2.0, -2.2),
        (2.0, 1.0, -1.2),  # no credit beyond 1 + eps
        (0.5, 1.0, -0.5),
        (2.0, -1.0, 2.0),  # full blame beyond 1 + eps
        (0.5, -1.0, 0.8),  # no credit for avoiding it below 1 - eps
    ],
)
def test_surrogate_of_one_sample(ratio: float, advantage: float, loss: float) -> None:
    found = losses.clipped_surrogate(*logs(ratio), torch.tensor([advantage]), 0.2)
    assert_close(found, torch.tensor(loss))


def test_surrogate_is_the_mean() -> None:
    # -(1.2 + 0.5 - 2 - 0.8) / 4
    found = losses.clipped_surrogate(*logs(2.0, 0.5, 2.0, 0.5), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    assert_close(found, torch.tensor(0.275))


def test_clipped_surrogate_has_zero_gradient() -> None:
    logprob, old = logs(2.0, 0.5, 2.0, 0.5)
    logprob.requires_grad_()
    losses.clipped_surrogate(logprob, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2).backward()
    assert logprob.grad is not None
    assert_close(logprob.grad, torch.tensor([0.0, -0.125, 0.5, 0.0]))  # -ratio * A / 4 where it pulls


@given(FLOATS, st.floats(0.01, 0.9))
def test_surrogate_is_a_lower_bound_of_the_unclipped_objective(numbers: list[float], eps: float) -> None:
    logprob, advantage = torch.tensor(numbers), torch.tensor(numbers[::-1])
    old = torch.zeros_like(logprob)
    unclipped = -(logprob.exp() * advantage).mean()
    assert losses.clipped_surrogate(logprob, old, advantage, eps) >= unclipped - 1e-5


def test_policy_gradient() -> None:
    # -(-1 * 3 + -2 * -0.5) / 2
    assert losses.policy_gradient(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -0.5])).item() == 1.0


def test_value_loss() -> None:
    # 0.5 * (1 + 4) / 2
    assert losses.value_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 1.25


@pytest.mark.parametrize(
    ("value", "old_value", "returns", "loss"),
    [
        (0.6, 0.5, 1.0, 0.08),  # a small move: 0.5 * 0.4^2
        (2.0, 1.0, 4.0, 3.92),  # towards the return and too far: 0.5 * (1.2 - 4)^2
        (1.0, 0.5, 0.0, 0.5),  # away from the return: the larger of 1^2 and 0.7^2, halved
        (0.0, 1.0, 4.0, 8.0),  # away, downwards: the larger of 4^2 and 3.2^2, halved
    ],
)
def test_clipped_value_loss(value: float, old_value: float, returns: float, loss: float) -> None:
    found = losses.clipped_value_loss(
        torch.tensor([value]), torch.tensor([old_value]), torch.tensor([returns]), 0.2
    )
    assert_close(found, torch.tensor(loss))


@given(FLOATS, st.floats(0.01, 0.9))
def test_clipped_value_loss_is_pessimistic(numbers: list[float], eps: float) -> None:
    value, returns = torch.tensor(numbers), torch.tensor(numbers[::-1])
    clipped = losses.clipped_value_loss(value, value.roll(1), returns, eps)
    assert clipped >= losses.value_loss(value, returns)
    assert_close(losses.clipped_value_loss(value, value, returns, eps), losses.value_loss(value, returns))


def value_gradient(value: Tensor, returns: Tensor, old: Tensor | None = None, eps: float = 0.2) -> Tensor:
    """Of the value loss at the values, (B,)."""
    value = value.clone().requires_grad_()
    if old is None:
        loss = losses.value_loss(value, returns)
    else:
        loss = losses.clipped_value_loss(value, old, returns, eps)
    loss.backward()
    assert value.grad is not None
    return value.grad


def test_value_gradient_by_hand() -> None:
    """(V - R) / B."""
    assert value_gradient(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).tolist() == [0.5, -1.0]
    # towards the return and too far: the clipped branch is the larger and doesn't move
    assert value_gradient(torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([1.0])).tolist() == [0.0]
    # away from the return: the unclipped branch is the larger
    assert value_gradient(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.5])).tolist() == [1.0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_value_gradient_within_the_clip_range_is_the_unclipped_one(scale: float) -> None:
    """Rounding must not make the clipped error larger by one unit in the last place: gradient 0."""
    rng = torch.Generator().manual_seed(0)
    value, error, move = torch.randn(3, 10_000, generator=rng)
    value, returns, old = scale * value, scale * (value + error), scale * value + 0.15 * move.tanh()
    assert_close(value_gradient(value, returns, old), value_gradient(value, returns), atol=0, rtol=1e-6)
    assert_close(losses.clipped_value_loss(value, old, returns, 0.2), losses.value_loss(value, returns))


# ---- the whole loss, with its compiled gradient and without


def ppo_loss(samples: Tensor, clip_vloss: bool) -> tuple[Tensor, Tensor]:
    """The loss of ``samples`` (7, B), and its gradient (3, B) at log-probability, entropy and value."""
    outputs = logprob, entropy, value = [x.clone().requires_grad_() for x in samples[:3]]
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.1, vf_coef=0.5, clip_vloss=clip_vloss)
    old, old_value, returns, advantage = samples[3:]
    loss = losses.ppo_loss(logprob, entropy, value, old, old_value, returns, advantage, coefficients)
    return loss.detach(), torch.stack(torch.autograd.grad(loss, outputs))


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest) -> str:
    """The test runs with the compiled loss and with torch's operators."""
    if request.param == "torch":
        request.getfixturevalue("without_kernels")
    elif kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    return str(request.param)


@pytest.mark.parametrize("clip_vloss", [False, True])
def test_ppo_loss_by_hand(way: str, clip_vloss: bool) -> None:
    """Two samples: ratio 2 with advantage 1 and ratio 0.5 with advantage 1; errors 1 and -2."""
    ratio = torch.tensor([2.0, 0.5])
    old = torch.tensor([-1.0, -1.0])
    value, returns, old_value = torch.tensor([[3.0, 0.0], [2.0, 2.0], [2.9, 1.0]])
    samples = torch.stack([old + ratio.log(), torch.tensor([1.0, 3.0]), value, old, old_value, returns])
    loss, gradient = ppo_loss(torch.cat([samples, torch.ones(1, 2)]), clip_vloss)
    # surrogate -(1.2 + 0.5) / 2, entropy 2, squared errors 1 and 4; clipped, 0 counts as 0.8, nearer
    assert_close(loss, torch.tensor(-0.85 - 0.1 * 2 + 0.5 * 0.5 * 2.5))
    assert_close(gradient, torch.tensor([[0.0, -0.25], [-0.05, -0.05], [0.25, -0.5]]))


@pytest.mark.parametrize("clip_vloss", [False, True])
def test_compiled_ppo_loss_equals_autograd(clip_vloss: bool) -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    samples = 0.3 * torch.randn(7, 1000, generator=torch.Generator().manual_seed(0))
    samples[:, :10] = 0.0  # ratio 1, advantage 0, error 0
    found = ppo_loss(samples, clip_vloss)
    exact = ppo_loss(samples.double(), clip_vloss)  # the compiled loss takes single precision alone
    assert_close(found[0], exact[0].float(), rtol=1e-6, atol=1e-7)
    assert_close(found[1], exact[1].float(), rtol=1e-5, atol=1e-8)


def test_ppo_loss_keeps_nan(way: str) -> None:
    for row in range(7):
        samples = torch.zeros(7, 4)
        samples[row, 2] = torch.nan
        assert ppo_loss(samples, clip_vloss=True)[0].isnan()


def test_ppo_loss_has_no_second_derivative() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    logprob = torch.zeros(3, requires_grad=True)
    one, coefficients = torch.ones(3), losses.Coefficients(clip_eps=0.2, ent_coef=0.0, vf_coef=0.5)
    loss = losses.ppo_loss(logprob, one, one, one, one, one, one, coefficients)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logprob, create_graph=True)


def of_logits(logits: Tensor, places: Tensor, samples: Tensor, clip_vloss: bool) -> list[Tensor]:
    """Loss, log-probability and entropy, and the gradients of 3 times the loss at logits and value.

    ``logits`` (B, K, A), ``places`` (B, K); ``samples`` (5, B) begin with the value.
    """
    logits, value = logits.clone().requires_grad_(), samples[0].clone().requires_grad_()
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.1, vf_coef=0.5, clip_vloss=clip_vloss)
    old, old_value, returns, advantage = samples[1:]
    found = losses.evaluate_ppo_loss(
        Categorical(logits), places, value, old, old_value, returns, advantage, coefficients
    )
    assert not (found[1].requires_grad or found[2].requires_grad)
    return [*(x.detach() for x in found), *torch.autograd.grad(3 * found[0], (logits, value))]


@pytest.mark.parametrize("clip_vloss", [False, True])
@pytest.mark.parametrize(("positions", "width"), [(1, 1000), (1, 7), (3, 5)])
def test_loss_of_logits_equals_autograd(way: str, clip_vloss: bool, positions: int, width: int) -> None:
    """Against single operators in double precision, with forbidden items and ratios far outside the range."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(64, positions, width, generator=rng)
    logits[::2, :, 3] = -torch.inf
    places = torch.randint(3, (64, positions), generator=rng)  # none of them forbidden
    samples = torch.randn(5, 64, generator=rng)
    samples[1] = Categorical(logits).logprob(places) + 0.3 * samples[1]  # the old log-probability
    found = of_logits(logits, places, samples, clip_vloss)
    exact = of_logits(logits.double(), places, samples.double(), clip_vloss)
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other.float(), rtol=1e-4, atol=1e-6)
    assert found[3][::2, :, 3].eq(0).all()


def test_backward_of_the_loss_of_logits(way: str) -> None:
    """``loss.backward()`` twice adds the same gradient twice."""
    logits, value = torch.zeros(2, 1, 4, requires_grad=True), torch.zeros(2, requires_grad=True)
    old, one = torch.full((2,), -math.log(4)), torch.ones(2)
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.0, vf_coef=0.5)
    loss, logprob, entropy = losses.evaluate_ppo_loss(
        Categorical(logits), torch.zeros(2, 1, dtype=torch.int64), value, old, one, one, one, coefficients
    )
    assert_close(logprob, old)
    assert_close(entropy, -old)
    once = torch.tensor([-0.375, 0.125, 0.125, 0.125]).expand(2, 1, 4)  # -1/2 ([1, 0, 0, 0] - 1/4)
    for times in (1, 2):
        loss.backward(retain_graph=True)
        assert logits.grad is not None and value.grad is not None
        assert_close(logits.grad, times * once)
        assert_close(value.grad, torch.full((2,), -0.25 * times))


def test_loss_of_an_unknown_alternative_is_an_error(way: str) -> None:
    for place in (-4, 3):
        with pytest.raises((IndexError, RuntimeError)):
            of_logits(torch.zeros(2, 1, 3), torch.tensor([[0], [place]]), torch.ones(5, 2), False)
    with pytest.raises(ValueError, match="doesn't fit"):
        of_logits(torch.zeros(2, 1, 3), torch.tensor([[0]]), torch.ones(5, 2), False)


def of_scores(
    given: list[Tensor], exclude: Tensor | None, places: Tensor, samples: Tensor, late: bool
) -> list[Tensor]:
    """Loss, log-probability and entropy, and the gradients of 3 times the loss at what it depends on.

    ``given`` has query, temperature, items and tower; ``late`` leaves the scores to the loss.
    """
    query, temperature, items, tower = given
    query, temperature, tower = (x.clone().requires_grad_() for x in (query, temperature, tower))
    value = samples[0].clone().requires_grad_()
    policy = Categorical(ItemScores(query, temperature, items, tower, exclude))
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.1, vf_coef=0.5)
    old, old_value, returns, advantage = samples[1:]
    policy = policy if late else Categorical(policy.logits)
    found = losses.evaluate_ppo_loss(policy, places, value, old, old_value, returns, advantage, coefficients)
    assert not (found[1].requires_grad or found[2].requires_grad)
    gradients = torch.autograd.grad(3 * found[0], (query, temperature, tower, value))
    return [*(x.detach() for x in found), *gradients]


@pytest.mark.parametrize(("rows", "width", "excluded"), [(1, 5, 0), (40, 70, 2), (600, 1000, 20)])
def test_loss_of_scores_equals_the_loss_of_their_logits(
    way: str, rows: int, width: int, excluded: int
) -> None:
    """Against scores that are computed before, in double precision: one block of rows, and several."""
    rng = torch.Generator().manual_seed(0)
    query, items = torch.randn(rows, 7, generator=rng), torch.randn(width, 4, generator=rng)
    given = [query, torch.tensor(0.7), items, torch.randn(3, width, generator=rng)]
    places = torch.randint(5, (rows, 1), generator=rng)
    exclude = None
    if excluded:  # ids twice, padding, and none of the items that were taken
        exclude = torch.randint(5, width, (rows, excluded), generator=rng)
        exclude[:, 0] = exclude[:, 1]
        exclude[::3, 1:] = -1
    samples = torch.randn(5, rows, generator=rng)
    policy = Categorical(ItemScores(given[0], given[1], given[2], given[3], exclude))
    samples[1] = policy.logprob(places) + 0.3 * samples[1]  # the old log-probability
    found = of_scores(given, exclude, places, samples, late=True)
    exact = of_scores([x.double() for x in given], exclude, places, samples.double(), late=False)
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other.float(), rtol=1e-4, atol=1e-5)


def test_loss_of_scores_is_the_same_for_any_number_of_threads() -> None:
    rng = torch.Generator().manual_seed(0)
    query, items = torch.randn(300, 7, generator=rng), torch.randn(130, 4, generator=rng)
    given = [query, torch.tensor(0.7), items, torch.randn(3, 130, generator=rng)]
    places, samples = torch.randint(130, (300, 1), generator=rng), torch.randn(5, 300, generator=rng)
    assert query.shape[0] * len(items) > kernels.MIN_PARALLEL
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(of_scores(given, None, places, samples, late=True))
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert_close(one, two, rtol=1e-4, atol=1e-5)
        assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_loss_of_scores_of_an_unknown_item_is_an_error(way: str) -> None:
    given = [torch.ones(2, 3), torch.tensor(1.0), torch.ones(4, 2), torch.ones(1, 4)]
    for place in (-4, 4):
        with pytest.raises((IndexError, RuntimeError)):
            of_scores(given, None, torch.tensor([[0], [place]]), torch.ones(5, 2), late=True)


def test_loss_of_scores_reads_no_memory_outside_its_arguments(way: str) -> None:
    places, samples = torch.zeros(2, 1, dtype=torch.int64), torch.ones(5, 2)
    items, tower, temperature = torch.ones(4, 2), torch.ones(1, 4), torch.tensor(1.0)
    with pytest.raises(RuntimeError, match="shape"):  # a query wider than the features of the items
        of_scores([torch.ones(2, 4), temperature, items, tower], None, places, samples, late=True)
    given = [torch.ones(2, 3), temperature, items, tower]
    with pytest.raises(RuntimeError, match="size"):  # more rows of items to exclude than users
        of_scores(given, torch.full((3, 1), 3), places, samples, late=True)
    int32 = of_scores(given, None, places.int(), samples, late=True)
    for one, other in zip(int32, of_scores(given, None, places, samples, late=True), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_logits_first_read_without_a_gradient_still_have_one(mode: Callable[[], Any]) -> None:
    query = torch.ones(2, 3, requires_grad=True)
    policy = Categorical(ItemScores(query, torch.tensor(1.0), torch.ones(4, 2), torch.ones(1, 4)))
    with mode():
        places = policy.best()
    (gradient,) = torch.autograd.grad(policy.logprob(places.clone()).sum(), query)
    assert_close(gradient, torch.zeros(2, 3))


def test_loss_of_scores_of_a_wide_catalogue_fits_a_small_stack(way: str) -> None:
    """A row of the loss's scratch is wider than the stack of this thread (512 KB, as on macOS)."""
    given = [torch.ones(1, 3), torch.tensor(1.0), torch.ones(200_000, 2), torch.ones(1, 200_000)]
    place = torch.zeros(1, 1, dtype=torch.int64)
    found: list[Tensor] = []

    def run() -> None:
        found.extend(of_scores(given, None, place, torch.ones(5, 1), late=True))

    before = threading.stack_size(2**19)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert_close(found[1], torch.tensor([-math.log(200_000)]))


def test_loss_of_scores_has_no_second_derivative() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    query = torch.ones(2, 3, requires_grad=True)
    policy = Categorical(ItemScores(query, torch.tensor(1.0), torch.ones(4, 2), torch.ones(1, 4)))
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.1, vf_coef=0.5)
    places, one = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2)
    loss, *_ = losses.evaluate_ppo_loss(policy, places, one, one, one, one, one, coefficients)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, query, create_graph=True)


def test_loss_of_slates_is_evaluate_and_loss(way: str) -> None:
    rng = torch.Generator().manual_seed(0)
    slates = PlackettLuce(torch.randn(16, 9, generator=rng, requires_grad=True), 3)
    places, _ = slates.draw(rng)
    value, old, old_value, returns, advantage = torch.randn(5, 16, generator=rng)
    targets = old, old_value, returns, advantage
    coefficients = losses.Coefficients(clip_eps=0.2, ent_coef=0.1, vf_coef=0.5)
    loss, logprob, entropy = losses.evaluate_ppo_loss(slates, places, value, *targets, coefficients)
    assert_close(logprob, slates.logprob(places))
    assert_close(entropy, slates.evaluate(places)[1])
    assert_close(loss, losses.ppo_loss(logprob, entropy, value, *targets, coefficients))


def test_approx_kl() -> None:
    assert_close(losses.approx_kl(*logs(2.0, 1.0)), torch.tensor((1 - math.log(2)) / 2))
    # Old policy (1/2, 1/2), new (1/4, 3/4), each arm drawn once: the estimate is the divergence itself,
    # ln(2)/2 + ln(2/3)/2.
    assert_close(losses.approx_kl(*logs(0.5, 1.5)), torch.tensor(0.1438410362))


@given(FLOATS)
def test_approx_kl_is_never_negative(numbers: list[float]) -> None:
    logprob = torch.tensor(numbers)
    assert losses.approx_kl(logprob, torch.zeros_like(logprob)) >= -1e-6
    assert losses.approx_kl(logprob, logprob).item() == 0.0


def test_clip_fraction() -> None:
    assert losses.clip_fraction(*logs(0.79, 0.81, 1.0, 1.19, 1.21), 0.2).item() == pytest.approx(0.4)

"""PPO's loss in one pass, against the equations of functional/losses.py and the lines of agents/ppo.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.ppo import PPO
from recsys_rl.experience.rollout import collect
from recsys_rl.functional import losses
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.fast import ppo_loss
from recsys_rl.models.policy import Targets
from recsys_rl.types import tree_map
from tests.small_runs import begin, settings

EPS, ENT_COEF, VF_COEF = 0.2, 0.1, 0.5


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")


def by_equations(
    logits: Tensor, places: Tensor, value: Tensor, targets: Targets, clip_vloss: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, log-probability and entropy, by single operators."""
    log_p = logits.log_softmax(-1)  # (B, K, A)
    logprob = log_p.gather(-1, places.unsqueeze(-1)).sum((1, 2))
    entropy = -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum((1, 2))
    surrogate = losses.clipped_surrogate(logprob, targets.old_logprob, targets.advantage, EPS)
    error = losses.value_loss(value, targets.returns)
    if clip_vloss:
        error = losses.clipped_value_loss(value, targets.old_value, targets.returns, EPS)
    return surrogate - ENT_COEF * entropy.mean() + VF_COEF * error, logprob, entropy


def numbers(logits: Tensor, places: Tensor, samples: Tensor, clip_vloss: bool, fast: bool) -> list[Tensor]:
    """Loss, log-probability and entropy, and the gradients of 3 times the loss at logits and value.

    ``logits`` (B, K, A), ``places`` (B, K); ``samples`` (5, B) begin with the value.
    """
    logits, value = logits.clone().requires_grad_(), samples[0].clone().requires_grad_()
    targets = Targets(*samples[1:])
    if fast:
        policy = Categorical(logits)
        assert ppo_loss.serves(policy, places, value, targets)
        found = ppo_loss.evaluate(policy, places, value, targets, EPS, ENT_COEF, VF_COEF, clip_vloss)
        assert not (found[1].requires_grad or found[2].requires_grad)
    else:
        found = by_equations(logits, places, value, targets, clip_vloss)
    return [*(x.detach() for x in found), *torch.autograd.grad(3 * found[0], (logits, value))]


@pytest.mark.parametrize("clip_vloss", [False, True])
@pytest.mark.parametrize(("positions", "width"), [(1, 1000), (1, 7), (3, 5)])
def test_equals_autograd(clip_vloss: bool, positions: int, width: int) -> None:
    """Against single operators in double precision, with forbidden items and ratios far outside the range."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(64, positions, width, generator=rng)
    logits[::2, :, 3] = -torch.inf
    places = torch.randint(3, (64, positions), generator=rng)  # none of them forbidden
    samples = torch.randn(5, 64, generator=rng)
    samples[1] = Categorical(logits).logprob(places) + 0.3 * samples[1]  # the old log-probability
    found = numbers(logits, places, samples, clip_vloss, fast=True)
    exact = numbers(logits.double(), places, samples.double(), clip_vloss, fast=False)
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other.float(), rtol=1e-4, atol=1e-6)
    assert found[3][::2, :, 3].eq(0).all()


@pytest.mark.parametrize("clip_vloss", [False, True])
def test_by_hand(clip_vloss: bool) -> None:
    """Two rows of two equal logits: log-probability -ln 2, ratios 2 and 0.5, advantage 1, errors 1 and -2."""
    ratio, value = torch.tensor([2.0, 0.5]), torch.tensor([3.0, 0.0])
    old_value, returns = torch.tensor([2.9, 1.0]), torch.tensor([2.0, 2.0])
    samples = torch.stack([value, -math.log(2) - ratio.log(), old_value, returns, torch.ones(2)])
    places = torch.zeros(2, 1, dtype=torch.int64)
    loss, logprob, entropy, by_logits, by_value = numbers(
        torch.zeros(2, 1, 2), places, samples, clip_vloss, fast=True
    )
    assert_close(logprob, torch.full((2,), -math.log(2)))
    assert_close(entropy, -logprob)
    # surrogate -(1.2 + 0.5) / 2, squared errors 1 and 4; clipped, 0 counts as 0.8, nearer
    assert_close(loss, torch.tensor(-0.85 - 0.1 * math.log(2) + 0.5 * 0.5 * 2.5))
    # the first row is clipped; the second has w = -0.5 / 2, times [1, 0] - [1/2, 1/2], times 3
    assert_close(by_logits, torch.tensor([[[0.0, 0.0]], [[-0.375, 0.375]]]))
    assert_close(by_value, torch.tensor([0.75, -1.5]))


def test_backward_twice_adds_the_gradient_twice() -> None:
    logits, value = torch.zeros(2, 1, 4, requires_grad=True), torch.zeros(2, requires_grad=True)
    one, places = torch.ones(2), torch.zeros(2, 1, dtype=torch.int64)
    targets = Targets(torch.full((2,), -math.log(4)), one, one, one)
    loss, *_ = ppo_loss.evaluate(Categorical(logits), places, value, targets, EPS, 0.0, VF_COEF)
    once = torch.tensor([-0.375, 0.125, 0.125, 0.125]).expand(2, 1, 4)  # -1/2 ([1, 0, 0, 0] - 1/4)
    for times in (1, 2):
        loss.backward(retain_graph=True)
        assert logits.grad is not None and value.grad is not None
        assert_close(logits.grad, times * once)
        assert_close(value.grad, torch.full((2,), -0.25 * times))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_nan_stays() -> None:
    places = torch.zeros(4, 1, dtype=torch.int64)
    for row in range(5):
        samples = torch.zeros(5, 4)
        samples[row, 2] = torch.nan
        assert numbers(torch.zeros(4, 1, 3), places, samples, True, fast=True)[0].isnan()
    logits = torch.zeros(4, 1, 3)
    logits[1, 0, 2] = torch.nan
    assert numbers(logits, places, torch.zeros(5, 4), True, fast=True)[0].isnan()


def test_unknown_alternatives_and_what_is_left_to_torch() -> None:
    """The compiled loop reads the memory behind tensors, so it takes none that don't fit."""
    for place in (-4, 3):
        with pytest.raises(IndexError):
            numbers(torch.zeros(2, 1, 3), torch.tensor([[0], [place]]), torch.ones(5, 2), False, fast=True)
    logits, places, value = torch.zeros(2, 1, 3), torch.zeros(2, 1, dtype=torch.int64), torch.ones(2)
    fitting, targets = Categorical(logits), Targets(value, value, value, value)
    assert ppo_loss.serves(fitting, places, value, targets)
    assert not ppo_loss.serves(PlackettLuce(logits[:, 0], 1), places, value, targets)
    assert not ppo_loss.serves(Categorical(logits.double()), places, value, targets)
    assert not ppo_loss.serves(Categorical(torch.zeros(2, 3, 2).mT), places.repeat(1, 2), value, targets)
    for wrong in (places[:1], places.int(), places.repeat(1, 2)):
        assert not ppo_loss.serves(fitting, wrong, value, targets)
    assert not ppo_loss.serves(fitting, places, value[:1], targets)
    assert not ppo_loss.serves(fitting, places, value, targets._replace(returns=value.double()))


def test_result_is_independent_of_threads() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, samples = torch.randn(300, 1, 130, generator=rng), torch.randn(5, 300, generator=rng)
    places = torch.randint(130, (300, 1), generator=rng)
    assert logits.numel() > kernels.MIN_PARALLEL
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(numbers(logits, places, samples, False, fast=True))
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert_close(one, two, rtol=1e-4, atol=1e-5)
        assert_close(one, three, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_vloss", [False, True])
@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("head", ["two-tower", "dense", "scorer", "gated"])
def test_a_gradient_step_is_that_of_the_lines(
    head: str, encoder: str, clip_vloss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics and gradient, with ratios and values inside the clip range and outside it."""
    dials = {"clip_vloss": clip_vloss}
    metrics, gradient, served = step("satiation", head, encoder, dials, True, monkeypatch)
    of_lines, gradient_of_lines, not_served = step("satiation", head, encoder, dials, False, monkeypatch)
    assert (served, not_served) == ([True], [False])
    assert metrics == pytest.approx(of_lines, rel=1e-4, abs=1e-6)
    assert 0 < metrics["clipfrac"] < 1 and bool(gradient.any())
    assert_close(gradient, gradient_of_lines, rtol=1e-3, atol=1e-5)


def test_gradient_of_the_whole_loss_equals_autograd_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset of satiation with all compiled loops, and the operators of torch in double precision."""
    sizes = {"env_config": {"num_items": 30}, "data_config": {"num_users": 40}}
    dials = {"num_envs": 8, "n_steps": 12, "batch_size": 96, "update_epochs": 1}

    def doubled(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    def gradients(exact: bool) -> list[Tensor]:
        world, agent = begin(settings("ppo", "satiation", agent_config=dials, **sizes))
        weights = agent.optimizer.weights
        agent.optimizer.write(
            weights + 0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
        )
        rollout, _ = collect(world, agent, world.reset(), 12)
        found: list[Tensor] = []
        with monkeypatch.context() as patch:
            patch.setattr(agent.optimizer, "step", lambda: found.extend(agent.optimizer._gradients()))
            if exact:
                patch.setattr(kernels, "library", lambda: None)
                agent.model.double()
                rollout = replace(tree_map(doubled, rollout), obs=tree_map(doubled, rollout.obs))
            agent.update(rollout)
        return found

    pairs = list(zip(gradients(False), gradients(True), strict=True))
    assert len(pairs) > 20
    for one, other in pairs:
        assert float((one - other).abs().max() / other.abs().max()) < 5e-6
    one, other = (torch.cat([x.flatten().double() for x in every]) for every in zip(*pairs, strict=True))
    assert float((one - other).norm() / other.norm()) < 5e-7


@pytest.mark.parametrize("head", ["two-tower", "scorer"])
def test_slates_take_the_lines(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, gradient, served = step("long-video", head, "mlp", {}, True, monkeypatch)
    assert served == [False] and bool(gradient.any())


def step(
    env: str, head: str, encoder: str, dials: dict[str, Any], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], Tensor, list[bool]]:
    """The metrics and the gradient (P,) of one step of PPO, and whether the fast path took it.

    The old log-probabilities and values differ from those of the network, as after some steps.
    """
    config = settings(
        "ppo",
        env,
        env_config={"num_items": 40, "embedding_dim": 4, "max_episode_steps": 5},
        data_config={"num_users": 40},
        agent_config={"n_steps": 8, "num_envs": 6, "batch_size": 48, "update_epochs": 1, **dials},
        model_config={"hidden_dims": [16, 8], "head": head, "encoder": encoder},
    )
    world, agent = begin(config, 10)
    assert isinstance(agent, PPO)
    rollout, _ = collect(world, agent, world.reset(), 8)
    moved = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1))
    rollout = replace(rollout, logprobs=rollout.logprobs + 0.2 * moved[0], values=rollout.values + moved[1])
    served: list[bool] = []
    serves = ppo_loss.serves

    def watched(*arguments: Any) -> bool:
        served.append(fast and serves(*arguments))
        return served[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ppo_loss, "serves", watched)
        metrics = agent.update(rollout)
    return metrics, agent.optimizer.gradient, served


@pytest.mark.parametrize("clip_vloss", [False, True])
def test_the_lines_are_the_equations(clip_vloss: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss that a step minimises is the one of functional/losses.py, which the log reports."""
    taken: list[Tensor] = []
    backward: Any = Tensor.backward

    def watched(loss: Tensor) -> None:
        taken.append(loss.detach())
        backward(loss)

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "backward", watched)
        metrics, *_ = step("satiation", "dense", "mlp", {"clip_vloss": clip_vloss}, False, monkeypatch)
    assert [x.item() for x in taken] == pytest.approx([metrics["loss"]], rel=1e-5)

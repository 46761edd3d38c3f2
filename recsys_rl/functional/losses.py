"""The losses of PPO and A2C, used by the agents. Each function is one equation, a mean over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels
from recsys_rl.functional.item_scores import ItemScores
from recsys_rl.functional.plackett_luce import PlackettLuce


def clipped_surrogate(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_eps: float) -> Tensor:
    """Negative clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7)::

        ratio = exp(logprob - old_logprob)
        loss  = -mean(min(ratio A, clip(ratio, 1 - eps, 1 + eps) A))
              =  mean(max(ratio B, clip(ratio, 1 - eps, 1 + eps) B)), B = -A

    Args: (B,) each. Returns: a scalar.
    """
    ratio = (logprob - old_logprob).exp()
    clipped = ratio.clamp(1 - clip_eps, 1 + clip_eps)
    minus = -advantage
    return torch.maximum(ratio * minus, clipped * minus).mean()


class Coefficients(NamedTuple):
    """The settings of PPO's loss."""

    clip_eps: float
    ent_coef: float
    vf_coef: float
    clip_vloss: bool = False


def ppo_loss(
    logprob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_logprob: Tensor,
    old_value: Tensor,
    returns: Tensor,
    advantage: Tensor,
    coefficients: Coefficients,
) -> Tensor:
    """The loss of PPO (arXiv:1707.06347, eq. 9, to be minimised)::

        loss = clipped_surrogate - ent_coef mean(entropy) + vf_coef value_loss

    compiled/kernels.c computes the loss and its gradient in one pass. Autograd takes some thirty small
    operators, which need half the time of the matrix products of a minibatch of 64.

    Args: (B,) each. Gradients flow to ``logprob``, ``entropy`` and ``value``. Returns: a scalar.
    """
    tensors = logprob, entropy, value, old_logprob, old_value, returns, advantage
    if kernels.library() is not None and _fit(tensors, len(logprob)):
        loss: Tensor = _PPOLoss.apply(None, *tensors[:3], None, tensors[3:], coefficients)  # type: ignore[no-untyped-call]
        return loss
    clip_eps, ent_coef, vf_coef, _ = coefficients
    policy_loss = clipped_surrogate(logprob, old_logprob, advantage, clip_eps)
    error = value_loss_of(value, old_value, returns, coefficients)
    return policy_loss - ent_coef * entropy.mean() + vf_coef * error


def evaluate_ppo_loss(
    distribution: Categorical | PlackettLuce,
    places: Tensor,
    value: Tensor,
    old_logprob: Tensor,
    old_value: Tensor,
    returns: Tensor,
    advantage: Tensor,
    coefficients: Coefficients,
) -> tuple[Tensor, Tensor, Tensor]:
    """``ppo_loss`` of the actions ``places`` (B, K), with their log-probability and the entropy.

    It equals ``distribution.evaluate(places)`` and then ``ppo_loss``. With a categorical distribution
    kernels.c does both in one pass over the logits, and the gradient with them: each exponential is taken
    once, and autograd has one node fewer. Scores that are not computed yet are computed in the same pass.

    Args: (B,) each. Gradients flow from the loss to the logits, or to what scores are computed from, and to
    ``value``. Returns: the loss (a scalar), logprob (B,) and entropy (B,), which have no gradient. Raises as
    ``evaluate`` does.
    """
    targets, places = (old_logprob, old_value, returns, advantage), places.contiguous()
    given = distribution.given if isinstance(distribution, Categorical) else None
    number = places.shape[0]
    if isinstance(given, ItemScores) and _served(given, places) and _fit((value, *targets), number):
        logprob, entropy = torch.empty_like(old_logprob), torch.empty_like(old_logprob)
        loss: Tensor = _PPOLossOfScores.apply(  # type: ignore[no-untyped-call]
            given.query,
            given.temperature,
            given.tower,
            value,
            given,
            (logprob, entropy, places),
            targets,
            coefficients,
        )
        return loss, logprob, entropy
    logits = distribution.logits
    if (
        isinstance(distribution, Categorical)
        and kernels.serving(logits) is not None
        and kernels.plain_ids(places)
        and places.shape == logits.shape[:2]
        and _fit((value, *targets), number)
    ):
        logprob, entropy = torch.empty_like(old_logprob), torch.empty_like(old_logprob)
        loss = _PPOLoss.apply(  # type: ignore[no-untyped-call]
            logits, logprob, entropy, value, places, targets, coefficients
        )
        return loss, logprob, entropy
    logprob, entropy = distribution.evaluate(places)
    return ppo_loss(logprob, entropy, value, *targets, coefficients), logprob.detach(), entropy.detach()


def _fit(tensors: Sequence[Tensor], number: int) -> bool:
    """True if the compiled loss can take these vectors of ``number`` elements."""
    return all([kernels.plain(x) and x.shape == (number,) for x in tensors])  # noqa: C419 (a generator is slower)


class _PPOLoss(torch.autograd.Function):
    """``ppo_loss`` or, if ``logits`` are given, ``evaluate_ppo_loss``, with the gradient in closed form.

    ``logprob`` and ``entropy`` are read in the first case and written in the second.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor | None,
        logprob: Tensor,
        entropy: Tensor,
        value: Tensor,
        places: Tensor | None,
        targets: Sequence[Tensor],
        coefficients: Coefficients,
    ) -> Tensor:
        number = value.shape[0]
        loss, work = value.new_empty(()), value.new_empty(4, number)
        of_logits: Tensor | None = None
        scores = None, None, None, 0, 0, 1, None, 0, None, None  # none: the logits are given, or none at all
        first: tuple[int | None, ...] = None, None, None, number, 0, 0, 1
        if logits is not None and places is not None:
            of_logits = torch.empty_like(logits)
            first = logits.data_ptr(), places.data_ptr(), of_logits.data_ptr(), *logits.shape
            first = *first, kernels.threads(logits)
        library = kernels.library()
        assert library is not None
        outside = library.ppo_loss(
            *scores,
            *first,
            *coefficients,
            *[x.data_ptr() for x in (*targets, value, logprob, entropy, work, loss)],
        )
        if outside:
            raise IndexError("an alternative is outside the logits")
        ctx.save_for_backward(of_logits, work)
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        of_logits, work = ctx.saved_tensors
        if by_loss.item() != 1:  # It is 1 in loss.backward(). A product would be one more pass over logits.
            of_logits, work = None if of_logits is None else of_logits * by_loss, work * by_loss
        if of_logits is None:
            return None, work[0], work[1], work[2], None, None, None
        return of_logits, None, None, work[2], None, None, None


def _served(scores: ItemScores, places: Tensor) -> bool:
    """True if the compiled loss can compute these scores: of B rows, with places (B, 1), and shapes that fit.

    It reads the memory behind these tensors. What doesn't fit is left to torch, which refuses it.
    """
    query, items, tower, exclude = scores.query, scores.items, scores.tower, scores.exclude
    if kernels.library() is None or not all(map(kernels.plain, (query, items, tower))):
        return False
    if exclude is not None and not (kernels.plain_ids(exclude) and len(exclude) == len(query)):
        return False
    fitting = query.shape[1] == items.shape[1] + len(tower) and places.shape == (len(query), 1)
    return fitting and kernels.plain_ids(places)


class _PPOLossOfScores(torch.autograd.Function):
    """``evaluate_ppo_loss`` of a distribution whose ``ItemScores`` are not computed yet.

    A block of scores, the loss of its rows and the gradients at query and tower are computed while the block
    lies in the cache: all scores of a minibatch would be written to memory and read again several times.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        temperature: Tensor,
        tower: Tensor,
        value: Tensor,
        scores: ItemScores,
        results: tuple[Tensor, Tensor, Tensor],
        targets: Sequence[Tensor],
        coefficients: Coefficients,
    ) -> Tensor:
        """``results``: logprob and entropy, which are written, and the places (B, 1)."""
        logprob, entropy, places = results
        rows, size = query.shape
        learned, width = tower.shape
        # Of the number of rows alone, so that sums have one order for any number of threads.
        chunk = min(128, max(16, rows // 4))
        chunks = -(-rows // chunk)
        threads = min(kernels.threads(rows * width), max(1, chunks))
        scaled = temperature * query
        table, across = torch.cat([scores.items.T, tower]), torch.cat([scores.items, tower.T], 1)
        by_scaled, by_tower = torch.empty_like(query), query.new_empty(chunks, learned, width)
        # Each thread's scores, and one more row for exponentials: a row of millions would overflow its stack.
        block = query.new_empty(threads, chunk + 1, width)
        loss, work = value.new_empty(()), value.new_empty(4, rows)
        exclude = scores.exclude
        library = kernels.library()
        assert library is not None
        outside = library.ppo_loss(
            *[x.data_ptr() for x in (scaled, table, across)],
            *(size, learned, chunk),
            None if exclude is None else exclude.data_ptr(),
            0 if exclude is None else exclude.shape[1],
            *[x.data_ptr() for x in (by_scaled, by_tower, block, places)],
            *(None, rows, 1, width, threads),
            *coefficients,
            *[x.data_ptr() for x in (*targets, value, logprob, entropy, work, loss)],
        )
        if outside:
            raise IndexError(f"an alternative, or an id of exclude, is outside 0 .. {width - 1}")
        by_temperature = torch.dot(query.flatten(), by_scaled.flatten())
        ctx.save_for_backward(by_scaled.mul_(temperature), by_temperature, by_tower.sum(0), work[2])
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        gradients = ctx.saved_tensors
        if by_loss.item() != 1:
            gradients = [by_loss * x for x in gradients]
        return *gradients, None, None, None, None


def policy_gradient(logprob: Tensor, advantage: Tensor) -> Tensor:
    """Negative policy-gradient objective, -mean(logprob A) (Mnih et al. 2016, arXiv:1602.01783)."""
    return -(logprob * advantage).mean()


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of the value: (B,), (B,) -> scalar."""
    return 0.5 * mse_loss(value, returns)


def clipped_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip_eps: float) -> Tensor:
    """Value loss with the value clipped to ``clip_eps`` around the old value (PPO's reference code)::

    0.5 mean(max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2))
    """
    clipped = value.clamp(old_value - clip_eps, old_value + clip_eps)
    return 0.5 * torch.maximum((value - returns).square(), (clipped - returns).square()).mean()


def value_loss_of(value: Tensor, old_value: Tensor, returns: Tensor, coefficients: Coefficients) -> Tensor:
    """``clipped_value_loss`` if the settings have ``clip_vloss``, else ``value_loss``. Args: (B,) each."""
    if coefficients.clip_vloss:
        return clipped_value_loss(value, old_value, returns, coefficients.clip_eps)
    return value_loss(value, returns)


def approx_kl(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    """KL(old || new) estimated from the old policy's samples, mean(ratio - 1 - log ratio) >= 0.

    The estimator "k3" of Schulman (2020), joschu.net/blog/kl-approx.html: unbiased, low variance.
    """
    log_ratio = logprob - old_logprob
    return (log_ratio.exp() - 1 - log_ratio).mean()


def clip_fraction(logprob: Tensor, old_logprob: Tensor, clip_eps: float) -> Tensor:
    """Share of the samples whose ratio lies outside [1 - eps, 1 + eps]."""
    ratio = (logprob - old_logprob).exp()
    return ((ratio - 1).abs() > clip_eps).float().mean()

"""Off-policy REINFORCE with the top-K correction (Chen et al. 2019, arXiv:1812.02353) from a log.

With mu the logged propensity, G the return that followed the decision, and sg(x) the number x without a
gradient::

    w = min(sg(pi(a | s)) / mu, cap)        lambda_K = K (1 - sg(pi(a | s)))^(K - 1)
    L = - mean w lambda_K A log pi(a | s) - kl_coef mean log pi(a | s) + vf_coef mean (V(s) - G)^2 / 2

A is G - V(s) for K = 1, and G itself for more: there a baseline would move the optimum. A is divided by its
root mean square. The second term keeps the policy near its data: it is KL(mu || pi) up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional.losses import policy_gradient, top_k_factor, value_loss
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.diagnostics import StartValues, StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import NonNegative, Positive, Share, Size, check_used
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.types import Transitions


@dataclass(frozen=True)
class ReinforceConfig(LoggedConfig):
    """Off-policy REINFORCE with the top-K correction (Chen et al. 2019, arXiv:1812.02353)."""

    gamma: Share = 0.5
    """Discount per step."""
    weight_cap: Positive = 10.0
    """Largest importance weight, probability of the policy by that of the log."""
    top_k: Size = 1
    """K of the top-K correction: the policy is made for a list of K of its draws; 1 = for a single item."""
    kl_coef: NonNegative = 0.1
    """Weight of the cross-entropy to the log, which keeps the policy near its data."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""


class Reinforce(NetworkPolicy[ReinforceConfig]):
    """An actor that makes the logged decisions with high returns more likely."""

    def __init__(
        self,
        model: ActorCritic,
        config: ReinforceConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As NetworkPolicy. Raises UserError for a top-K correction of slates."""
        of_slates = config.top_k > 1 and model.shapes.slate_size > 1
        check_used(("top_k", of_slates, "a slate here has its own exact probability"))
        super().__init__(model, config, num_updates, generators, average)

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        config = self.config
        averages = StepMeans()
        starts = StartValues()
        for minibatch in batch.split(config.batch_size):
            returns = minibatch.returns_to_go  # (B,)
            assert returns is not None
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            distribution, value = self.model(obs)
            logprob = corrected(distribution, weights).logprob(obs.places_of(minibatch.items))  # (B,)
            ratio = (logprob.detach() - minibatch.logprobs).exp().to(value)
            weight = ratio.clamp_max(config.weight_cap) * top_k_factor(logprob.detach(), config.top_k)
            advantage = returns - value.detach() if config.top_k == 1 else returns
            advantage = advantage / advantage.square().mean().sqrt().clamp_min(1e-8)
            policy_loss = policy_gradient(logprob, weight * advantage)
            fit = value_loss(value, returns)
            loss = policy_loss - config.kl_coef * logprob.mean() + config.vf_coef * fit
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            starts.add(minibatch, lambda rows: self.value(rows.obs))
            capped = (ratio > config.weight_cap).float().mean()
            weighing = {"weight_mean": ratio.mean(), "capped_share": capped}
            averages.add(loss=loss, policy_loss=policy_loss, value_loss=fit, **weighing)
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(ReinforceConfig, Reinforce, LOGGED, needs=("propensities", "rewards"))

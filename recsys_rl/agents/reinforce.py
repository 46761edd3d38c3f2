"""Off-policy REINFORCE with the top-K correction (Chen et al. 2019, arXiv:1812.02353) from a log.

With mu the logged propensity, G the return that followed the decision, and sg(x) the number x without a
gradient::

    w = min(sg(pi(a | s)) / mu, cap)        lambda_K = K (1 - sg(pi(a | s)))^(K - 1)
    L = - mean w lambda_K A log pi(a | s) - kl_coef mean log pi(a | s) + vf_coef mean (V(s) - G)^2 / 2

A is G - V(s) for K = 1, and G itself for more: there a baseline would move the optimum. A is divided by its
root mean square. The second term keeps the policy near its data: it is KL(mu || pi) up to a constant.

A slate of which each place has a reward is learned by place, as a session is by decision. With r_k the
reward of place k, mu_k and pi_k the probabilities of its item given those above it, and G_k = G - r_1 - ...
- r_{k-1} what this place and those below it brought::

    w_k = min(sg(pi_k) / mu_k, cap)        A_k = G_k - (V(s) - mean (r_1 + ... + r_{k-1}))
    - mean sum_k w_k A_k log pi_k          in place of the first term

Such a policy draws by the order of the items (plackett_luce.by_rank).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional.losses import policy_gradient, top_k_factor, value_loss
from recsys_rl.functional.plackett_luce import PlackettLuce
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
            distribution, index = corrected(distribution, weights), obs.places_of(minibatch.items)
            if minibatch.place_rewards is None:
                terms = distribution.logprob(index).unsqueeze(1)  # (B, 1): a slate is one decision
                behaviour, above = minibatch.logprobs.unsqueeze(1), terms.new_zeros(terms.shape)
            else:
                assert isinstance(distribution, PlackettLuce) and minibatch.place_logprobs is not None
                self.draw_by_rank()
                terms = distribution.terms(index)  # (B, K)
                behaviour, above = minibatch.place_logprobs, rewards_above(minibatch.place_rewards)
            logprob = terms.sum(1)  # (B,)
            ratio = (terms.detach() - behaviour).exp().to(value)  # (B, K), as all below
            weight = ratio.clamp_max(config.weight_cap) * top_k_factor(terms.detach(), config.top_k)
            advantage = returns.unsqueeze(1) - above
            if config.top_k == 1:
                advantage = advantage - (value.detach().unsqueeze(1) - above.mean(0))
            advantage = advantage / advantage.square().mean().sqrt().clamp_min(1e-8)
            policy_loss = terms.shape[1] * policy_gradient(terms, weight * advantage)
            fit = value_loss(value, returns)
            loss = policy_loss - config.kl_coef * logprob.mean() + config.vf_coef * fit
            self.optimizer.zero_grad()
            (loss + self.reward_loss(minibatch, obs)).backward()
            self.optimizer.step()
            starts.add(minibatch, lambda rows: self.value(rows.obs))
            capped = (ratio > config.weight_cap).float().mean()
            weighing = {"weight_mean": ratio.mean(), "capped_share": capped}
            averages.add(loss=loss, policy_loss=policy_loss, value_loss=fit, **weighing)
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}


def rewards_above(rewards: Tensor) -> Tensor:
    """(B, K): the sum of the ``rewards`` (B, K) of the places above each place."""
    return rewards.cumsum(1) - rewards


ALGORITHM = Algorithm(ReinforceConfig, Reinforce, LOGGED, needs=("propensities", "rewards"))

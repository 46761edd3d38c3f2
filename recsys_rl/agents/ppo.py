"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), top to bottom.

docs/03_theory_ppo.md derives each formula; docs/ppo_details.md lists the implementation details.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional import losses
from recsys_rl.functional.returns import explained_variance, standardize_parts
from recsys_rl.models.expected import Beside, means
from recsys_rl.models.fast import ppo_loss
from recsys_rl.models.policy import OnPolicyLearner, Samples, Targets
from recsys_rl.records import Algorithm
from recsys_rl.settings.fields import Count, NonNegative, Range, Size
from recsys_rl.settings.shared import OnPolicyConfig
from recsys_rl.types import Rollout


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    clip_eps: Annotated[float, Range(above=0, below=1)] = 0.2
    """Clip range of the probability ratio."""
    update_epochs: Size = 4
    """Passes over each rollout."""
    batch_size: Count = 512
    """Samples per gradient step."""
    target_kl: NonNegative = 0.0
    """End the epochs of an update when approx_kl exceeds this value; 0 = never."""
    clip_vloss: bool = False
    """Also clip the value loss, within clip_eps of the old value."""


class Outputs(NamedTuple):
    """Outputs of the network, (S,) each, as they were before the gradient step of their minibatch."""

    logprob: Tensor
    entropy: Tensor
    value: Tensor


class PPO(OnPolicyLearner[PPOConfig]):
    """An actor-critic that takes several epochs of clipped gradient steps on each rollout."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One PPO update. Returns its diagnostics, read from the device once at the end."""
        config, ent_coef = self.config, self.anneal()
        every, size = self.samples(rollout), config.batch_size  # S = T N samples, B of a minibatch
        epochs: list[tuple[Targets, Outputs]] = []
        asides: list[Beside] = []  # of each minibatch
        for _ in range(config.update_epochs):
            order = torch.randperm(
                len(every.places), generator=self.generators["shuffle"], device=every.places.device
            )
            samples = every.rows(order)
            if config.normalize_advantage:
                weights = standardize_parts(samples.targets.advantage, size)
                samples = samples._replace(targets=samples.targets._replace(advantage=weights))
            outputs = self._epoch(samples.split(size), ent_coef, asides)
            epochs.append((samples.targets, outputs))
            if config.target_kl > 0 and self._kl(samples.targets, outputs, size) > config.target_kl:
                break

        self.updates += 1
        metrics = self._diagnostics(epochs, ent_coef)
        metrics |= means(asides[: -(-len(every.places) // size)])  # of the first epoch
        metrics["explained_variance"] = explained_variance(every.targets.old_value, every.targets.returns)
        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}

    def _epoch(self, batches: list[Samples], ent_coef: float, asides: list[Beside]) -> Outputs:
        """One gradient step for each minibatch.

        What is learned beside the policy is appended to ``asides``.
        """
        eps, vf_coef, clip_vloss = self.config.clip_eps, self.config.vf_coef, self.config.clip_vloss
        seen: list[Outputs] = []
        for obs, places, targets, lessons in batches:
            old_logprob, old_value, returns, advantage = targets  # (B,) each
            distribution, value, aside = self.model.learn(obs, lessons)  # value (B,)
            if ppo_loss.serves(distribution, places, value, targets):  # the lines below in one pass
                loss, logprob, entropy = ppo_loss.evaluate(
                    distribution, places, value, targets, eps, ent_coef, vf_coef, clip_vloss
                )
            else:
                logprob, entropy = distribution.evaluate(places)  # (B,) each
                ratio = (logprob - old_logprob).exp()
                clipped_ratio = ratio.clamp(1 - eps, 1 + eps)
                surrogate = torch.minimum(ratio * advantage, clipped_ratio * advantage).mean()
                error = (value - returns).square()
                if clip_vloss:
                    clipped_value = value.clamp(old_value - eps, old_value + eps)
                    error = torch.maximum(error, (clipped_value - returns).square())
                value_loss = 0.5 * error.mean()
                loss = -surrogate - ent_coef * entropy.mean() + vf_coef * value_loss
            if aside is not None:  # what is learned beside the policy
                asides.append(aside)
                loss = loss + aside.loss
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()  # with the gradient scaled down to max_grad_norm
            seen.append(Outputs(logprob.detach(), entropy.detach(), value.detach()))
        return Outputs(*map(torch.cat, zip(*seen, strict=True)))

    def _diagnostics(self, epochs: list[tuple[Targets, Outputs]], ent_coef: float) -> dict[str, Tensor]:
        """Means over all samples of an update, with the outputs as they were before each gradient step."""
        config = self.config
        of_targets, of_outputs = zip(*epochs, strict=True)
        old_logprob, old_value, returns, advantage = map(torch.cat, zip(*of_targets, strict=True))
        logprob, entropies, value = map(torch.cat, zip(*of_outputs, strict=True))
        policy_loss = losses.clipped_surrogate(logprob, old_logprob, advantage, config.clip_eps)
        value_loss = (
            losses.clipped_value_loss(value, old_value, returns, config.clip_eps)
            if config.clip_vloss
            else losses.value_loss(value, returns)
        )
        entropy = entropies.mean()
        return {
            "loss": policy_loss - ent_coef * entropy + config.vf_coef * value_loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": losses.approx_kl(logprob, old_logprob),
            "clipfrac": losses.clip_fraction(logprob, old_logprob, config.clip_eps),
        }

    def _kl(self, targets: Targets, outputs: Outputs, size: int) -> Tensor:
        """approx_kl of an epoch's last minibatch of ``size``, averaged over processes: all stop together."""
        last = -(len(outputs.logprob) % size or size)
        kl = losses.approx_kl(outputs.logprob[last:], targets.old_logprob[last:])
        if self.average is not None:
            self.average(kl)
        return kl


ALGORITHM = Algorithm(PPOConfig, PPO)

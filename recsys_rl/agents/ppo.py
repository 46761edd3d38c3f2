"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), top to bottom.

docs/03_theory_ppo.md derives each formula and lists the implementation details.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from recsys_rl.dials import OnPolicyConfig
from recsys_rl.functional import losses
from recsys_rl.functional.returns import explained_variance, gae, standardize_parts
from recsys_rl.models.next_signals import Entries, next_entries
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.protocols import Algorithm
from recsys_rl.schema import Count, NonNegative, Range, Size
from recsys_rl.types import Obs, Rollout


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


class Targets(NamedTuple):
    """Recorded numbers that the loss compares with the network's outputs, (S,) each."""

    old_logprob: Tensor
    old_value: Tensor
    returns: Tensor
    advantage: Tensor


class Outputs(NamedTuple):
    """Outputs of the network for the same samples, (S,) each."""

    logprob: Tensor
    entropy: Tensor
    value: Tensor


class Samples(NamedTuple):
    """Rows of a rollout in the shuffled order of one epoch, (S, ...) each."""

    obs: Obs
    places: Tensor  # (S, K): of the items among the alternatives
    targets: Targets
    entries: Entries | None  # that the steps added to the history; None without an encoder

    def split(self, size: int) -> list[Samples]:
        """Minibatches of ``size`` rows each; the last may have fewer."""
        targets = map(Targets._make, zip(*(x.split(size) for x in self.targets), strict=True))
        observations = self.obs.split(size)
        entries = [None] * len(observations) if self.entries is None else self.entries.split(size)
        parts = zip(observations, self.places.split(size), targets, entries, strict=True)
        return [Samples(*part) for part in parts]


class PPO(NetworkPolicy[PPOConfig]):
    """An actor-critic that takes several epochs of clipped gradient steps on each rollout."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One PPO update. Returns its diagnostics, read from the device once at the end."""
        config = self.config
        remaining = self.remaining
        self.optimizer.lr = config.lr * (remaining if config.anneal_lr else 1)
        ent_coef = config.ent_coef * (remaining if config.anneal_ent else 1)

        done = rollout.terminated | rollout.truncated
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated if config.bootstrap_time_limit else done,
            done,
            config.gamma,
            config.gae_lambda,
            rollout.discounts,
        )  # (T, N)
        obs = rollout.obs.map(lambda x: x.flatten(0, 1))
        places = obs.places_of(rollout.items.flatten(0, 1))  # (S, K), S = T N from here on
        number, size = done.numel(), config.batch_size  # S, B
        returns = advantages + rollout.values  # (T, N)
        record = (
            rollout.logprobs.flatten(),
            rollout.values.flatten(),
            returns.flatten(),
            advantages.flatten(),
        )
        entries = None if self.model.next_signals is None else next_entries(rollout.obs, done)
        epochs: list[tuple[Targets, Outputs]] = []
        signal_losses: list[Tensor] = []  # of each minibatch
        for _ in range(config.update_epochs):
            order = torch.randperm(number, generator=self.generators["shuffle"], device=done.device)
            targets = Targets(*(x.index_select(0, order) for x in record))
            if config.normalize_advantage:
                weights = standardize_parts(targets.advantage, size)
                targets = targets._replace(advantage=weights)
            samples = Samples(
                obs.rows(order),
                places.index_select(0, order),
                targets,
                None if entries is None else entries.rows(order),
            )
            outputs = self._epoch(samples.split(size), ent_coef, signal_losses)
            epochs.append((targets, outputs))
            if config.target_kl > 0 and self._kl(targets, outputs, size) > config.target_kl:
                break

        self.updates += 1
        metrics = self._diagnostics(epochs, ent_coef)
        if signal_losses:
            metrics["signal_loss"] = torch.stack(signal_losses).mean()
        metrics["explained_variance"] = explained_variance(rollout.values, returns)
        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}

    def _epoch(self, batches: list[Samples], ent_coef: float, signal_losses: list[Tensor]) -> Outputs:
        """One gradient step for each minibatch. Returns the outputs as they were before each step.

        The loss of the signals that an encoder expects is appended to ``signal_losses``.
        """
        seen: list[Outputs] = []
        coefficients = self._coefficients(ent_coef)
        for batch in batches:
            obs = self.model.summarised(batch.obs)
            distribution, value = self.model(obs)  # value (B,), B = batch_size
            loss, logprob, entropy = losses.evaluate_ppo_loss(
                distribution, batch.places, value, *batch.targets, coefficients
            )
            if batch.entries is not None:
                signal_loss = self.model.signal_loss(obs, batch.entries)
                loss = loss + self.model.signal_coef * signal_loss
                signal_losses.append(signal_loss.detach())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            seen.append(Outputs(logprob, entropy, value.detach()))
        return Outputs(*map(torch.cat, zip(*seen, strict=True)))

    def _coefficients(self, ent_coef: float) -> losses.Coefficients:
        config = self.config
        return losses.Coefficients(config.clip_eps, ent_coef, config.vf_coef, config.clip_vloss)

    def _diagnostics(self, epochs: list[tuple[Targets, Outputs]], ent_coef: float) -> dict[str, Tensor]:
        """Means over all samples of an update, with the outputs as they were before each gradient step."""
        config = self.config
        of_targets, of_outputs = zip(*epochs, strict=True)
        targets = Targets(*map(torch.cat, zip(*of_targets, strict=True)))
        outputs = Outputs(*map(torch.cat, zip(*of_outputs, strict=True)))
        coefficients = self._coefficients(ent_coef)
        return {
            "loss": losses.ppo_loss(*outputs, *targets, coefficients),
            "policy_loss": losses.clipped_surrogate(
                outputs.logprob, targets.old_logprob, targets.advantage, config.clip_eps
            ),
            "value_loss": losses.value_loss_of(
                outputs.value, targets.old_value, targets.returns, coefficients
            ),
            "entropy": outputs.entropy.mean(),
            "approx_kl": losses.approx_kl(outputs.logprob, targets.old_logprob),
            "clipfrac": losses.clip_fraction(outputs.logprob, targets.old_logprob, config.clip_eps),
        }

    def _kl(self, targets: Targets, outputs: Outputs, size: int) -> Tensor:
        """approx_kl of an epoch's last minibatch of ``size``, averaged over processes: all stop together."""
        last = -(len(outputs.logprob) % size or size)
        kl = losses.approx_kl(outputs.logprob[last:], targets.old_logprob[last:])
        if self.average is not None:
            self.average(kl)
        return kl


ALGORITHM = Algorithm(PPOConfig, PPO)

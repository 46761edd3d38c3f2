"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), top to bottom.

docs/03_theory_ppo.md derives each formula and lists the implementation details.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.config import PPOConfig
from recsys_rl.functional import categorical, losses
from recsys_rl.functional.policy_loss import clipped_policy_gradient_
from recsys_rl.functional.returns import explained_variance, gae, standardize_parts
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.optimizer import FlatAdam
from recsys_rl.types import Action, Obs, Rollout


class Samples(NamedTuple):
    """What minibatches are cut from, (S, ...) each."""

    obs: Obs
    places: Tensor  # (S, K): of the items among the alternatives
    old_logprob: Tensor
    old_value: Tensor
    target: Tensor  # returns
    advantage: Tensor

    def split(self, size: int) -> list[Samples]:
        parts = zip(*(x.split(size) for x in self), strict=True)
        return [Samples(*part) for part in parts]


class Seen(NamedTuple):
    """What an epoch leaves for the diagnostics, (S,) each, as it was before the step of its minibatch."""

    logprob: Tensor
    entropy: Tensor
    objective: Tensor
    value: Tensor
    old_logprob: Tensor
    old_value: Tensor
    target: Tensor


class PPO:
    """An actor-critic that improves itself by clipped, repeated passes over each rollout."""

    def __init__(
        self,
        model: ActorCritic,
        config: PPOConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """``num_updates`` is the length of the run, over which dials are annealed.

        ``generators`` holds the streams "policy" (actions) and "shuffle" (minibatches). ``average``
        replaces a tensor by its mean over all processes that train together, in place.
        """
        self.model = model
        self.config = config
        self.num_updates = num_updates
        self.generators = generators
        self.average = average
        self.optimizer = FlatAdam(model, config.lr, config.max_grad_norm, average)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: Obs, greedy: bool = False) -> Action:
        obs = self.model.propose(obs, greedy, self.generators["policy"])
        logits, value = self.model(obs)  # (N, K, A), (N,)
        if greedy:
            index = logits.argmax(-1)  # (N, K)
            logprob = categorical.logprob(logits, index)
        else:
            index, logprob = categorical.draw(logits, self.generators["policy"])
        return Action(obs.items_at(index), logprob.sum(-1), value, obs.candidates)

    @torch.inference_mode()
    def value(self, obs: Obs) -> Tensor:
        return self.model.value(obs)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One PPO update. Returns its diagnostics, read from the device once at the end."""
        config = self.config
        remaining = 1 - self.updates / self.num_updates  # 1 at the first update, towards 0 at the last
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
        )  # (T, N)
        obs = rollout.obs.map(lambda x: x.flatten(0, 1))
        record = (
            obs.places_of(rollout.items.flatten(0, 1)),  # (S, K), S = T N from here on
            rollout.logprobs.flatten(),
            rollout.values.flatten(),
            (advantages + rollout.values).flatten(),  # returns
            advantages.flatten(),
        )
        num_samples = rollout.num_steps
        seen: list[Seen] = []
        for _ in range(config.update_epochs):
            order = torch.randperm(
                num_samples, generator=self.generators["shuffle"], device=rollout.rewards.device
            )
            samples = Samples(obs.rows(order), *(x.index_select(0, order) for x in record))
            if config.normalize_advantage:
                weights = standardize_parts(samples.advantage, config.batch_size)
                samples = samples._replace(advantage=weights)
            found = self._epoch(samples, ent_coef)
            seen.append(Seen._make((*found, samples.old_logprob, samples.old_value, samples.target)))
            if config.target_kl is not None and self._kl(seen[-1]) > config.target_kl:
                break

        self.updates += 1
        metrics = self._diagnostics(Seen(*map(torch.cat, zip(*seen, strict=True))), ent_coef)
        metrics["explained_variance"] = explained_variance(rollout.values, advantages + rollout.values)
        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}

    def _epoch(self, samples: Samples, ent_coef: float) -> tuple[Tensor, ...]:
        """A gradient step for each minibatch of the samples, in their order.

        Returns log-probability, entropy, objective and value of each sample (S,), before its step.
        """
        config, seen = self.config, []
        for batch in samples.split(config.batch_size):
            logits, value = self.model(batch.obs)  # (B, K, A), (B,), B = batch_size
            policy = clipped_policy_gradient_(
                logits, batch.places, batch.old_logprob, batch.advantage, config.clip_eps, ent_coef
            )
            old_value = batch.old_value if config.clip_vloss else None
            value_gradient = losses.value_gradient(
                value, batch.target, config.vf_coef, old_value, config.clip_eps
            )
            gradients = policy.gradient, value_gradient
            self.model.backward((logits, value), gradients, into=self.optimizer.gradients)
            self.optimizer.step()
            seen.append((policy.logprob, policy.entropy, policy.objective, value.detach()))
        return tuple(map(torch.cat, zip(*seen, strict=True)))

    def _diagnostics(self, seen: Seen, ent_coef: float) -> dict[str, Tensor]:
        """Means over all samples of an update, each as it was before its gradient step."""
        config = self.config
        value_loss = losses.value_loss(seen.value, seen.target)
        if config.clip_vloss:
            value_loss = losses.clipped_value_loss(seen.value, seen.old_value, seen.target, config.clip_eps)
        surrogate, entropy = -seen.objective.mean(), seen.entropy.mean()
        return {
            "loss": surrogate - ent_coef * entropy + config.vf_coef * value_loss,
            "policy_loss": surrogate,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": losses.approx_kl(seen.logprob, seen.old_logprob),
            "clipfrac": losses.clip_fraction(seen.logprob, seen.old_logprob, config.clip_eps),
        }

    def _kl(self, seen: Seen) -> Tensor:
        """approx_kl of an epoch's last minibatch, the same on all processes, which stop together."""
        last = -(len(seen.logprob) % self.config.batch_size or self.config.batch_size)
        kl = losses.approx_kl(seen.logprob[last:], seen.old_logprob[last:])
        if self.average is not None:
            self.average(kl)
        return kl

    def state_dict(self) -> dict[str, Tensor]:
        return self.optimizer.state_dict() | {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; KeyError, RuntimeError or ValueError where it doesn't fit."""
        self.optimizer.load_state_dict(state)
        self.updates = int(state["updates"])
        if self.updates < 0:
            raise ValueError(f"{self.updates} updates")

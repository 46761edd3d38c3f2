"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), top to bottom.

docs/03_theory_ppo.md derives each formula and lists the implementation details.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys_rl.config import PPOConfig
from recsys_rl.functional import choice, losses
from recsys_rl.functional.policy_loss import clipped_policy_loss
from recsys_rl.functional.returns import explained_variance, gae
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.state import pack, unpack
from recsys_rl.types import Action, Obs, Rollout


class PPO:
    """An actor-critic that improves itself by clipped, repeated passes over each rollout."""

    def __init__(
        self,
        model: ActorCritic,
        config: PPOConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        """``num_updates`` is the length of the run, over which dials are annealed.

        ``generators`` holds the streams "policy" (actions) and "shuffle" (minibatches).
        """
        self.model = model
        self.config = config
        self.num_updates = num_updates
        self.generators = generators
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, eps=1e-5, fused=True)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: Obs, greedy: bool = False) -> Action:
        obs = self.model.propose(obs, greedy, self.generators["policy"])
        logits, value = self.model(obs)  # (N, K, A), (N,)
        index = logits.argmax(-1) if greedy else choice.sample(logits, self.generators["policy"])  # (N, K)
        return Action(obs.items_at(index), choice.logprob(logits, index).sum(-1), value, obs.candidates)

    @torch.inference_mode()
    def value(self, obs: Obs) -> Tensor:
        return self.model.value(obs)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One PPO update. Returns its diagnostics, read from the device once at the end."""
        config = self.config
        remaining = 1 - self.updates / self.num_updates  # 1 at the first update, towards 0 at the last
        self.optimizer.param_groups[0]["lr"] = config.lr * (remaining if config.anneal_lr else 1)
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
        returns = (advantages + rollout.values).flatten()  # (B,), B = T N from here on
        advantages = advantages.flatten()
        obs = rollout.obs.map(lambda x: x.flatten(0, 1))
        items = obs.places_of(rollout.items.flatten(0, 1))  # (B, K)
        old_logprobs, old_values = rollout.logprobs.flatten(), rollout.values.flatten()

        history: list[Tensor] = []  # (6,) diagnostics of each minibatch
        for _ in range(config.update_epochs):
            order = torch.randperm(len(items), generator=self.generators["shuffle"], device=items.device)
            for batch in order.split(config.batch_size):
                logits, value = self.model(obs.rows(batch))
                advantage = advantages[batch]
                if config.normalize_advantage:
                    advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)

                policy = clipped_policy_loss(
                    logits, items[batch], old_logprobs[batch], advantage, config.clip_eps, ent_coef
                )
                if config.clip_vloss:
                    value_loss = losses.clipped_value_loss(
                        value, old_values[batch], returns[batch], config.clip_eps
                    )
                else:
                    value_loss = losses.value_loss(value, returns[batch])
                loss = policy.loss + config.vf_coef * value_loss

                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
                self.optimizer.step()

                kl = losses.approx_kl(policy.logprob, old_logprobs[batch])
                clipped = losses.clip_fraction(policy.logprob, old_logprobs[batch], config.clip_eps)
                row = [loss.detach(), policy.surrogate, value_loss.detach(), policy.entropy, kl, clipped]
                history.append(torch.stack(row))
            if config.target_kl is not None and history[-1][4] > config.target_kl:
                break

        self.updates += 1
        names = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")
        metrics = dict(zip(names, torch.stack(history).mean(0).tolist(), strict=True))
        metrics["explained_variance"] = explained_variance(old_values, returns).item()
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        return pack(self.model, self.optimizer) | {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        unpack(state, self.model, self.optimizer)
        self.updates = int(state["updates"])

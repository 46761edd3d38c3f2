"""A bandit for the first steps of a user without a profile, then a trained policy with what was learned.

The trained policy sees, in place of the profile of zeros, the vector theta that the bandit's regression has
learned from all answers of the session so far, scaled to the mean length of the training users' profiles.
Users with a profile get the trained policy from the first step on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from recsys_rl.protocols import Policy
from recsys_rl.types import Action, Interface, Obs, UserError


def check_steps(steps: int, interface: Interface) -> None:
    """Raise UserError where no user could be handed over after ``steps`` steps."""
    most = interface.session_length
    if interface.history_length:
        most = min(most, interface.history_length // interface.slate_size + 1)
    if steps >= most:
        raise UserError(
            f"--handover is {steps}: a user must have answered in that many steps and still be there, and "
            f"here the observation shows it up to {most - 1}; lower it."
        )


class HandOver:
    """The first ``steps`` steps are a bandit's, the later ones a trained policy's.

    It is a function of the observation: the history tells the steps of the session. Where the history holds
    events instead of all shown items, ``steps`` events are waited for.
    """

    def __init__(
        self,
        bandit: Policy,
        learned: Callable[[Obs], Tensor],
        policy: Policy,
        steps: int,
        interface: Interface,
        length: float,
    ) -> None:
        """Make the policy.

        Args:
            learned: theta (N, D) of the bandit for an observation.
            length: the norm of a profile.
        """
        self.bandit, self.learned, self.policy, self.length = bandit, learned, policy, length
        self.size = interface.context[0][1]  # D
        self.entries = steps * (1 if interface.events else interface.slate_size)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert obs.history is not None
        first = self._unknown(obs) & ((obs.history >= 0).sum(1) < self.entries)  # (N,)
        rows = [which.nonzero().squeeze(1) for which in (first, ~first)]
        parts: list[Action] = []
        if len(rows[0]):
            parts.append(self.bandit.act(obs.rows(rows[0]), greedy))
        if len(rows[1]):
            parts.append(self.policy.act(self.folded_in(obs.rows(rows[1])), greedy))
        order = torch.cat(rows).argsort()
        items, logprob = (
            torch.cat([getattr(x, name) for x in parts])[order] for name in ("items", "logprob")
        )
        return Action(items, logprob)

    def folded_in(self, obs: Obs) -> Obs:
        """The observation with a profile made from the answers of the session, where there is none."""
        found = torch.nn.functional.normalize(self.learned(obs), dim=1) * self.length  # (N, D)
        profile = torch.where(self._unknown(obs).unsqueeze(1), found, obs.context[:, : self.size])
        return dataclasses.replace(obs, context=torch.cat([profile, obs.context[:, self.size :]], 1))

    def _unknown(self, obs: Obs) -> Tensor:
        """(N,) bool: the user has no profile."""
        return ~obs.context[:, : self.size].any(1)

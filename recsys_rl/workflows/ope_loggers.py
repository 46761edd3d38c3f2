"""The policies that made a log, where their probability of every item is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.agents.baselines import RandomPolicy
from recsys_rl.decisions.table import OwnLog
from recsys_rl.evaluation.behaviours import Behaviours
from recsys_rl.ope.logged import Prepared, Probabilities, judge
from recsys_rl.ope.logged_slates import uniform_choices
from recsys_rl.protocols import SEERS, Behaviour
from recsys_rl.types import Obs


@dataclass(frozen=True)
class Loggers:
    """The loggers of a log."""

    prepared: Prepared
    behaviours: Sequence[Behaviours]  # of each checkpoint; empty for a log without one
    own: OwnLog | None  # people's own file
    estimated: bool  # True if the propensities are estimated, so that no policy can be recognised by them

    def probabilities(self) -> Probabilities | None:
        """The probability of each item under the average of the loggers; None if it is unknown."""
        of, size = self.prepared, self.prepared.catalogue.num_items
        if self.own is not None and self.own.probabilities is not None:
            every = self.own.probabilities
            return lambda rows, obs: every[rows]
        names = of.log.header.loggers
        if len(names) == 1 and uniform_choices(of) is not None:
            anything = RandomPolicy((size,), torch.Generator())  # draws nothing here
            return lambda rows, obs: anything.item_probabilities(obs, size)
        shares = of.log.loggers.bincount(minlength=len(names)).double() / of.log.num_rows
        found = [(float(share), self.behaviour(place)) for place, share in enumerate(shares) if share > 0]
        if any(policy is None for _, policy in found):
            return None

        def average(rows: Tensor, obs: Obs) -> Tensor:
            parts = [share * x.item_probabilities(obs, size) for share, x in found if x is not None]
            return torch.stack(parts).sum(0)

        return average

    def behaviour(self, place: int) -> Behaviour | None:
        """The logger, if a checkpoint has a policy with its name and its probabilities."""
        name = self.prepared.log.header.loggers[place]
        mixed = re.fullmatch(r"\S+ (\S+) \+ (\S+) (\S+)", name)
        parts = [mixed[1], mixed[3]] if mixed else [name]
        if self.estimated:
            return None
        for behaviours in self.behaviours:
            if any(part not in behaviours.names or part in SEERS for part in parts):
                continue
            policy = behaviours.mix(parts[0], parts[1], float(mixed[2])) if mixed else behaviours.make(name)
            if self._logged_by(policy, place):
                return policy
        return None

    def _logged_by(self, policy: Behaviour, place: int) -> bool:
        """True if ``policy`` gives the log's own probabilities under the logger at ``place``."""
        log = self.prepared.log
        theirs = log.logprobs if log.logger_logprobs is None else log.logger_logprobs[:, place]
        mine = judge(self.prepared, policy, 0).logprobs
        # Logarithms: in a large catalogue all probabilities are near 0, and so near each other.
        return torch.allclose(mine, theirs, rtol=1e-4, atol=1e-3)

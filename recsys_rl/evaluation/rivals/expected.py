"""The row ``expected``: the items of which the network of a policy expects the highest reward now.

Most feeds rank so. The network knows the same as the policy, which looks ahead. So the distance between the
two rows is what reinforcement learning adds.
"""

from __future__ import annotations

from typing import Any

from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.functional import categorical
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.protocols import Reader
from recsys_rl.types import Action, Obs


class ByExpectedReward:
    """Shows the slate of the highest expected rewards; with a first stage, among its candidates."""

    def __init__(self, agent: NetworkPolicy[Any], slate: BestSlate) -> None:
        self.agent, self.slate = agent, slate

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        obs = self.agent.propose(obs, greedy=True)
        rewards = self.agent.expected_rewards(obs)
        assert rewards is not None
        forbidden = (obs.mask, obs.exclude) if obs.candidates is None else (obs.candidates >= 0, None)
        scores = categorical.forbid_(rewards.unsqueeze(1), *forbidden).squeeze(1)
        index = self.slate.best(scores)  # (N, K)
        return Action.certain(obs.items_at(index.clamp_min(0)).masked_fill(index < 0, -1))

    def reader(self) -> Reader | None:
        return self.agent.reader()

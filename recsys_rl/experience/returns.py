"""Returns of sessions that go on from one batch to the next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class SessionReturns:
    """Adds up the rewards of each user across rollouts, and returns the sums of finished sessions."""

    def __init__(self, num_envs: int) -> None:
        self.running = torch.zeros(num_envs)  # (N,)
        self.lengths = torch.zeros(num_envs)  # (N,)

    def add(self, rewards: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """Add (T, N) rewards and ends; give the returns and lengths (finished,) of finished sessions."""
        returns, lengths = [], []
        self.running, self.lengths = self.running.to(rewards), self.lengths.to(rewards)
        for t in range(rewards.shape[0]):
            self.running = self.running + rewards[t]
            self.lengths = self.lengths + 1
            returns.append(self.running[done[t]])
            lengths.append(self.lengths[done[t]])
            self.running = torch.where(done[t], 0.0, self.running)
            self.lengths = torch.where(done[t], 0.0, self.lengths)
        return torch.cat(returns), torch.cat(lengths)

    def state_dict(self) -> dict[str, Tensor]:
        """The unfinished sessions."""
        return {"running": self.running.cpu(), "lengths": self.lengths.cpu()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises ValueError for impossible values or another shape."""
        running, lengths = state["running"], state["lengths"]
        if running.shape != self.running.shape or lengths.shape != self.lengths.shape:
            raise ValueError("sessions of another number of users")
        if not bool(running.isfinite().all() & lengths.isfinite().all() & (lengths >= 0).all()):
            raise ValueError("sessions of an infinite return or length")
        self.running, self.lengths = running, lengths

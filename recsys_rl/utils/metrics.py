"""Means with intervals, and the returns of finished sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.special import stdtrit  # the same as t.ppf of scipy.stats, which loads 50 MB more
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided 95 % interval (Student's t over independent samples)."""

    mean: float
    low: float
    high: float


def interval(samples: Tensor) -> Interval:
    """Mean of ``samples`` (n,) with its 95 % interval; with one sample the bounds are NaN."""
    samples = samples.double()
    n, mean = samples.numel(), samples.mean().item()
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stdtrit(n - 1, 0.975)) * samples.std().item() / n**0.5
    return Interval(mean, mean - half, mean + half)


class SessionReturns:
    """Adds up the rewards of each user across rollouts, and returns the sums of finished sessions."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.running = torch.zeros(num_envs, device=device)  # (N,)
        self.lengths = torch.zeros(num_envs, device=device)  # (N,)

    def add(self, rewards: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """Add (T, N) rewards and ends; give the returns and lengths (finished,) of finished sessions."""
        returns, lengths = [], []
        for t in range(rewards.shape[0]):
            self.running = self.running + rewards[t]
            self.lengths = self.lengths + 1
            returns.append(self.running[done[t]])
            lengths.append(self.lengths[done[t]])
            self.running = torch.where(done[t], 0.0, self.running)
            self.lengths = torch.where(done[t], 0.0, self.lengths)
        return torch.cat(returns), torch.cat(lengths)

    def state_dict(self) -> dict[str, list[float]]:
        """The unfinished sessions, as JSON primitives."""
        return {"running": self.running.tolist(), "lengths": self.lengths.tolist()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """The inverse of ``state_dict``. Raises ValueError for impossible values or another shape."""
        running, lengths = (torch.tensor(state[name]).to(self.running) for name in ("running", "lengths"))
        if running.shape != self.running.shape or lengths.shape != self.lengths.shape:
            raise ValueError("sessions of another number of users")
        if not bool(running.isfinite().all() & lengths.isfinite().all() & (lengths >= 0).all()):
            raise ValueError("sessions of no finite return or length")
        self.running, self.lengths = running, lengths

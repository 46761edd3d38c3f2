"""Running mean and variance, and the normalisation of observations and rewards by them.

Batches are merged by the parallel update of Chan, Golub and LeVeque (1983, "Algorithms for computing the
sample variance"), the batched form of Welford's update. Engstrom et al. 2020 (arXiv:2005.12729) measure
the effect of normalisation on PPO.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.types import UserError

# Normalised values are cut: an entry that is 1 in one observation of 300, and else 0, would be 17.
OBS_CUT, REWARD_CUT = 3.0, 10.0
EPSILON = 1e-8  # added to the variance


class RunningMoments:
    """Mean and population variance of all rows seen so far, in float64."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.sum_of_squares = torch.zeros(size, dtype=torch.float64, device=device)  # around the mean

    def clear(self) -> None:
        """Forget all rows."""
        for own in vars(self).values():
            own.zero_()

    def update(self, rows: Tensor) -> None:
        """Add ``rows`` (N, size)."""
        rows = rows.double()
        count, mean = rows.shape[0], rows.mean(0)
        total, gap = self.count + count, mean - self.mean
        within = (rows - mean).square().sum(0)
        self.sum_of_squares = self.sum_of_squares + within + gap.square() * self.count * count / total
        self.mean = self.mean + gap * count / total
        self.count = total

    @property
    def deviation(self) -> Tensor:
        """Standard deviation (size,); 1 if there are fewer than two rows."""
        variance = self.sum_of_squares / self.count.clamp_min(1)
        return torch.where(self.count > 1, (variance + EPSILON).sqrt(), 1.0)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: own.clone() for name, own in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises UserError for impossible or non-finite numbers."""
        finite = all(bool(state[name].isfinite().all()) for name in vars(self))
        if not finite or bool((state["count"] < 0) | (state["sum_of_squares"] < 0).any()):
            raise UserError(
                "The saved statistics of observations or rewards are not a mean and a variance: give a whole "
                "checkpoint of this version, or train again."
            )
        for name, own in vars(self).items():
            setattr(self, name, state[name].to(own).clone())


def normalize_obs(moments: RunningMoments, context: Tensor) -> Tensor:
    """(context - mean) / deviation, cut to -OBS_CUT .. OBS_CUT, for ``context`` (N, F)."""
    return ((context - moments.mean) / moments.deviation).clamp(-OBS_CUT, OBS_CUT).float()


def scale_reward(moments: RunningMoments, reward: Tensor) -> Tensor:
    """reward / deviation of the discounted return, cut to -REWARD_CUT .. REWARD_CUT.

    The mean is not subtracted: that would change the task.
    """
    return (reward / moments.deviation).clamp(-REWARD_CUT, REWARD_CUT).float()

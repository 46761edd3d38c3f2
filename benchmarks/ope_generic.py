"""Features of a decision that know nothing of our platforms, for a second `world` in benchmarks.ope."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.ope.features import Features
from recsys_rl.types import Obs


class Generic(Features):
    """What a team would take that knows no platform: the columns as they are, and plain means of the past.

    Those of ope/features.py have, beside these, the item's fit with the user, its overlap with what was
    shown (the latest items count the most, as on `satiation`), how much more popular than good it is, and
    sums of products over the session.
    """

    def __call__(self, obs: Obs, items: Tensor) -> Tensor:
        """(B, F) float32: the observation, item (means over a slate), and means of the session so far."""
        known = (items >= 0).float().unsqueeze(2)  # (B, K, 1)
        rows, count = items.clamp_min(0), known.sum(1).clamp_min(1)
        numbers = torch.cat([self.embedding, self.item[:, :2]], 1)  # (I, D + 2): popular, good
        columns = [obs.context, (numbers[rows] * known).sum(1) / count]
        if obs.history is not None and obs.signals is not None:
            shown = (obs.history >= 0).float().unsqueeze(2)  # (B, L, 1)
            number = shown.sum(1)
            past = torch.cat([numbers[obs.history.clamp_min(0)], obs.signals], 2) * shown
            columns += [past.sum(1) / number.clamp_min(1), obs.signals[:, -1], number]
        return torch.cat(columns, 1)

    def past(self, obs: Obs) -> Tensor:
        """(B, 0): nothing more."""
        return obs.context.new_zeros(len(obs.context), 0)

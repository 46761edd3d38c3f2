"""A recommender for strangers on `satiation` that knows all equations and how tastes are spread.

The taste of a stranger is Gaussian with mean and covariance of the training users' tastes. An answer y to
item i shows logit(y) = base_i + catchiness_gain catch_i, up to noise, and so u . e_i, linearly: a Kalman
filter updates the belief after each answer. Near 0 and 1, as after each catchy item, the logit is hardly
known and the belief hardly moves. Patience and weariness follow from the equations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.env.satiation import Satiation
from recsys_rl.types import Action, Obs

TURN = 0.7
"""Share of the longest session after which catchy items are shown."""
MARGIN = 0.02
"""Answers are read as lying at least so far from 0 and 1."""


class Filter:
    """Shows the item that should satisfy most, and near the end of the session the most appealing one."""

    def __init__(self, users: Satiation, tastes: Tensor, learns: bool = True) -> None:
        """``tastes`` (U, D): of the training users. ``learns``: False keeps their mean."""
        self.users, self.learns, self.mean = users, learns, tastes.mean(0)
        self.covariance = torch.cov(tastes.T) + 1e-4 * torch.eye(tastes.shape[1])

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert obs.history is not None and obs.signals is not None
        config, embedding, genres = self.users.config, self.users.catalogue.embedding, self.users.genres
        catch, n = config.catchiness_gain * self.users.catch, obs.num_rows
        mean, covariance = self.mean.repeat(n, 1), self.covariance.repeat(n, 1, 1)
        weary, of_genres = torch.zeros_like(mean), genres.new_zeros(n, genres.shape[1])
        patience = mean.new_full((n,), config.patience_start)
        for items, answers in zip(obs.history.T, obs.signals[:, :, 0].T, strict=True):  # the oldest first
            there, at = (items >= 0).unsqueeze(1), items.clamp_min(0)
            e, g = embedding[at], genres[at]  # (N, D), (N, G)
            offset = self._offset((weary * e).sum(1), (of_genres * g).sum(1), patience)  # (N,)
            y = answers.clamp(MARGIN, 1 - MARGIN)
            seen = (y.logit() - catch[at] - offset) / config.affinity_gain  # u . e, with this variance:
            spread = (config.noise / (y * (1 - y)) / config.affinity_gain).square()
            gain = (covariance @ e.unsqueeze(2)).squeeze(2)  # (N, D)
            step = gain / ((e * gain).sum(1) + spread).unsqueeze(1) * there
            if self.learns:
                mean = mean + step * (seen - (mean * e).sum(1)).unsqueeze(1)
                covariance = covariance - step.unsqueeze(2) * gain.unsqueeze(1)
            satisfied = (config.affinity_gain * (mean * e).sum(1) + offset - catch[at]).sigmoid()
            after = (patience - config.patience_cost * (0.5 - satisfied)).clamp(
                MARGIN, 1
            )  # they are still there
            patience = torch.where(there[:, 0], after, patience)
            keep = config.satiation_recovery
            weary = torch.where(there, keep * (weary + e), weary)
            of_genres = torch.where(there, keep * (of_genres + g), of_genres)
        base = config.affinity_gain * mean @ embedding.T  # (N, I)
        base -= config.satiation_strength * ((weary @ embedding.T).clamp_min(0) + of_genres @ genres.T)
        late = (obs.history >= 0).sum(1) >= TURN * config.max_episode_steps  # (N,)
        scores = torch.where(late.unsqueeze(1), base + catch, base - catch)
        scores = scores.masked_fill(~obs.allowed(len(embedding)), -torch.inf)
        return Action.certain(scores.argmax(1, keepdim=True))

    def _offset(self, wear: Tensor, wear_of_genres: Tensor, patience: Tensor) -> Tensor:
        """(N,): logits of appeal without affinity and catch."""
        config = self.users.config
        mood = config.patience_gain * (patience - config.patience_start)
        worn = config.satiation_strength * (wear.clamp_min(0) + wear_of_genres)
        return mood - worn - config.affinity_gain * config.affinity_midpoint

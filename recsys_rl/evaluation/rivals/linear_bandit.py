"""Linear bandits over the item embeddings: LinUCB and linear Thompson sampling.

Each user under way has their own ridge regression. With e_i the embedding of item i, x_k that of the k-th
item shown and r_k its reward::

    theta_0 = gain u                 u: the profile; for a user without one, the training users' mean
    P       = (ridge I + sum_k x_k x_k^T)^-1
    theta   = theta_0 + P sum_k x_k (r_k - level - x_k . theta_0)

    LinUCB:   score_i = theta . e_i + alpha sqrt(e_i . P e_i)           (Li et al. 2010, WWW)
    Thompson: score_i = theta' . e_i,   theta' ~ N(theta, scale^2 P)    (Agrawal and Goyal 2013, ICML)

The reward r_k is read from the observation, as a recommender knows nothing else: it is the sum of the visible
signals of the item, each with the weight of the reward stream of the same name; where no visible signal has
the name of a stream, it is the first visible signal (``signal_weights``). ``level`` is what an item earns on
average.

Both policies are functions of the observation: without a ``reader`` the regression is made from the whole
history. The reader makes the same from that of the step before, by rank-one updates (Sherman and Morrison
1950) of P and, for LinUCB, of each item's mean and variance. Where the history is a window, the regression is
of that window.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import SINGLE, BestSlate
from recsys_rl.functional import categorical, top_k
from recsys_rl.functional.recency import weighted_rows
from recsys_rl.types import Action, Catalogue, Interface, Obs, Stream, UserError

CHUNK = 128
"""Users whose items are updated together: their numbers stay in the cache of a core."""
ROUNDING = 1e-6
"""Largest error of one update of a variance, as a share of the first variance."""
MAX_SCORES = 2**28
"""Largest product of users and items for which the means and variances are kept: two tensors of 1 GiB."""
BANDITS = ("linucb", "lints")
"""The names of their rows in the table."""
DRAWS = 1000
"""Draws from which a probability of Thompson sampling is estimated."""
DRAWN_SCORES = 2**24  # scores of draws that are held at a time


@dataclass(frozen=True)
class BanditSettings:
    """The numbers of a linear bandit."""

    explore: float
    """alpha of LinUCB, or scale of Thompson sampling; 0 shows what the means say."""
    gain: float
    """Reward for each unit of the product of profile and item, before any answer."""
    ridge: float = 1.0
    """Weight of what is known before the first answer, in answers; above 0."""
    level: float = 0.0
    """Mean reward of an item."""


def make_bandit(
    name: str,
    catalogue: Catalogue,
    settings: BanditSettings,
    weights: Tensor,
    generators: tuple[torch.Generator, torch.Generator],
    start: Tensor,
    slate: BestSlate,
    estimates: bool,
) -> LinUCB | Thompson:
    """The bandit of the row ``name``; the arguments are those of ``Thompson``."""
    if name == "linucb":
        return LinUCB(catalogue, settings, weights, start, slate)
    return Thompson(catalogue, settings, weights, generators, start, slate, estimates)


def signal_weights(signals: Sequence[str], streams: Sequence[Stream]) -> Tensor:
    """The weight (S,) of each visible signal in the reward that a bandit learns from."""
    weights = {stream.name: stream.weight for stream in streams}
    values = [weights.get(name, 0.0) for name in signals]
    return torch.tensor(values if any(values) else [1.0, *[0.0] * (len(signals) - 1)])


def check_feedback(interface: Interface, name: str) -> None:
    """Raise UserError about the bandit ``name`` where observations hold no answers to learn from."""
    if not (interface.history_length and interface.signals):
        raise UserError(
            f"{name} learns from a user's answers during the session, and the observations here hold none "
            "(no history with signals): leave it out."
        )
    if not interface.profile:
        raise UserError(
            f"{name} starts at the user's profile, and the observations here hold none: leave it out."
        )


def check_size(users: int, num_items: int) -> None:
    """Raise UserError if LinUCB would keep too many numbers for so many users at once."""
    if users * num_items > MAX_SCORES:
        raise UserError(
            f"linucb keeps a mean and a variance for {users:,} users and {num_items:,} items, more than "
            f"{MAX_SCORES:,} of each: play fewer users together (--max-users)."
        )


class LinearBandit:
    """The regression of LinUCB and Thompson sampling, and the choice of the K highest scores."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: BanditSettings,
        weights: Tensor,
        start: Tensor | None = None,
        slate: BestSlate = SINGLE,
    ) -> None:
        """Make the policy.

        Args:
            weights: (S,) of the visible signals, from ``signal_weights``.
            start: (D,) profile of a user without one, whose profile is zero; None for zeros.
        """
        self.catalogue, self.settings, self.slate = catalogue, settings, slate
        self.embedding = catalogue.embedding  # (I, D)
        self.weights = weights.to(self.embedding.device)
        self.start = self.embedding.new_zeros(self.embedding.shape[1]) if start is None else start

    def prior(self, obs: Obs) -> Tensor:
        """theta_0 (N, D)."""
        profile = obs.context[:, : self.embedding.shape[1]]
        unknown = ~profile.any(1, keepdim=True)  # (N, 1)
        return self.settings.gain * torch.where(unknown, self.start, profile)

    def answers(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """The items shown (N, L), -1 padding, and r_k - level (N, L)."""
        assert obs.history is not None and obs.signals is not None
        return obs.history, obs.signals @ self.weights - self.settings.level

    def choose(self, obs: Obs, scores: Tensor) -> Action:
        """Show the K allowed items with the highest ``scores`` (N, I), which are overwritten."""
        if obs.candidates is not None:
            of_candidates = scores.gather(1, obs.candidates.clamp_min(0))  # (N, C)
            of_candidates.masked_fill_(obs.candidates < 0, -torch.inf)
            return Action.certain(obs.items_at(top_k.highest(of_candidates, self.slate.size)))
        scores = categorical.forbid_(scores.unsqueeze(1), obs.mask, obs.exclude).squeeze(1)
        return Action.certain(self.slate.best(scores))


class LinUCB(LinearBandit):
    """Shows the items with the highest upper confidence bounds. It draws nothing."""

    def reader(self) -> Regressions:
        return Regressions(self, by_item=True)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """``greedy`` changes nothing."""
        now = obs if obs.summary is not None else self.reader().follow(obs)
        assert now.summary is not None
        return self.choose(obs, now.summary)  # -inf at forbidden items does no harm to it


class Thompson(LinearBandit):
    """Shows the best items by a draw from the regression; greedy, by its mean.

    The draw needs no factor of P: theta' = theta + scale P (sqrt(ridge) z_0 + sum_k z_k x_k) with standard
    normal numbers z has covariance scale^2 P (ridge I + sum_k x_k x_k^T) P = scale^2 P.

    The probability of an item has no formula. It is estimated by DRAWS draws with a generator of their own,
    so that estimates do not change the choices. Estimates are of policies of single items.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: BanditSettings,
        weights: Tensor,
        generators: tuple[torch.Generator, torch.Generator],
        start: Tensor | None = None,
        slate: BestSlate = SINGLE,
        estimates: bool = True,
    ) -> None:
        """Make the policy.

        Args:
            generators: of the choices, and of the estimates of their probabilities.
            estimates: False for tables, which need no probabilities: ``act`` then has the logprob NaN. An
                estimate takes many times as long as the choice.
        """
        super().__init__(catalogue, settings, weights, start, slate)
        self.generator, self.of_estimates = generators
        self.estimates = estimates
        self._last: tuple[Obs, Tensor] | None = None  # an observation and its item_probabilities

    def reader(self) -> Regressions:
        return Regressions(self, by_item=False)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """The choice, with its estimated probability; greedy, it is certain."""
        theta, inverse = self._regression(obs)  # (N, D), (N, D, D)
        if not greedy:
            history, _ = self.answers(obs)
            size = (obs.num_rows, theta.shape[1] + history.shape[1])
            z = torch.randn(size, generator=self.generator, device=theta.device)  # (N, D + L)
            own, of_answers = z[:, : theta.shape[1]], z[:, theta.shape[1] :] * (history >= 0)
            noise = math.sqrt(self.settings.ridge) * own + weighted_rows(of_answers, self.embedding, history)
            theta = theta + self.settings.explore * (noise.unsqueeze(1) @ inverse).squeeze(1)
        action = self.choose(obs, theta @ self.embedding.T)
        if greedy:
            return action
        if not self.estimates:
            return dataclasses.replace(action, logprob=torch.full_like(action.logprob, torch.nan))
        return dataclasses.replace(action, logprob=self.place_logprobs(obs, action.items).sum(1).float())

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: the share of DRAWS draws that show each item; for policies of single items.

        The same observation has the same estimate until another one is estimated.
        """
        if self._last is None or self._last[0] is not obs:
            each = max(1, DRAWN_SCORES // (DRAWS * num_items))
            self._last = obs, torch.cat([self._shares(block, num_items) for block in obs.split(each)])
        return self._last[1]

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """(N, 1) float64: log of the estimated probability of ``items`` (N, 1), -inf where one is forbidden.

        It is (h + 1) / (DRAWS + 1) with h of DRAWS draws that show the item: the choice itself is one more
        draw, and without it a rare choice would have probability 0.
        """
        num_items = self.catalogue.num_items
        hits = self.item_probabilities(obs, num_items).gather(1, items.clamp_min(0)) * DRAWS
        allowed = obs.showable(num_items).gather(1, items.clamp_min(0)) & (items >= 0)
        return torch.where(allowed, ((hits + 1) / (DRAWS + 1)).log(), -torch.inf)

    def _shares(self, obs: Obs, num_items: int) -> Tensor:
        """``item_probabilities`` of a few rows."""
        theta, inverse = self._regression(obs)
        # P is symmetric up to rounding, which the factorisation must not see.
        factor = torch.linalg.cholesky((inverse + inverse.mT) / 2)  # (n, D, D)
        shape = (len(theta), theta.shape[1], DRAWS)
        z = torch.randn(shape, generator=self.of_estimates, device=theta.device)
        drawn = theta.unsqueeze(2) + self.settings.explore * factor @ z  # (n, D, DRAWS)
        scores = (self.embedding @ drawn).mT  # (n, DRAWS, I)
        scores = scores.masked_fill(~obs.showable(num_items).unsqueeze(1), -torch.inf)
        counts = torch.zeros(len(theta), num_items, dtype=torch.float64, device=theta.device)
        chosen = scores.argmax(2)  # (n, DRAWS)
        return counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64)) / DRAWS

    def _regression(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """theta (N, D) and P (N, D, D)."""
        now = obs if obs.summary is not None else self.reader().follow(obs)
        assert now.summary is not None
        size = self.embedding.shape[1]
        return now.summary[:, :size], now.summary[:, size:].unflatten(1, (size, size))


class Regressions:
    """The regressions of N users while they act (protocols.Reader).

    ``follow`` writes them to ``Obs.summary``: of LinUCB the upper bounds (N, I) of all items; of Thompson
    sampling theta beside P, (N, D + D D). The next ``follow`` changes that tensor in place.
    """

    def __init__(self, bandit: LinearBandit, by_item: bool) -> None:
        self.bandit, self.by_item = bandit, by_item
        self.known: tuple[Tensor, Tensor, Tensor] | None = None  # prior, items and answers of the last call
        self.tables: _Tables

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """The observation with the ``summary``; ``ended`` is not needed, as the history tells it."""
        prior, (items, answers) = self.bandit.prior(obs), self.bandit.answers(obs)  # (N, D), (N, L) each
        count = (items >= 0).sum(1)  # (N,)
        if self.known is None or self.known[1].shape != items.shape:
            if self.by_item:
                check_size(obs.num_rows, self.bandit.catalogue.num_items)
            self.tables = self._from_scratch(prior, items, answers)
        else:
            new = count - (self.known[1] >= 0).sum(1)  # (N,): answers since the last call
            goes_on = self._goes_on(prior, items, answers, new)
            again = (~goes_on).nonzero().squeeze(1)  # (R,): new sessions, or windows that have slid
            if len(again):
                fresh = self._from_scratch(
                    *(tensor.index_select(0, again) for tensor in (prior, items, answers))
                )
                self.tables.put(again, fresh)
            self._learn(self.tables, items, answers, new.where(goes_on, torch.zeros_like(new)))
        self.known = prior, items, answers
        return dataclasses.replace(obs, summary=self.tables.summary(self.bandit.settings.explore))

    def _goes_on(self, prior: Tensor, items: Tensor, answers: Tensor, new: Tensor) -> Tensor:
        """(N,) bool: the history begins with that of the last call, and the prior is the same."""
        assert self.known is not None
        old_prior, old_items, old_answers = self.known
        least, most = map(int, new.aminmax()) if len(new) else (0, 0)
        if 0 <= least == most:  # the usual case, by slices
            overlap = items.shape[1] - most
            same = (items[:, :overlap] == old_items[:, most:]) & (
                answers[:, :overlap] == old_answers[:, most:]
            )
            same |= old_items[:, most:] < 0
            return same.all(1) & (old_items[:, :most] < 0).all(1) & (prior == old_prior).all(1)
        places = torch.arange(items.shape[1], device=items.device) - new.unsqueeze(1)  # (N, L)
        places = places.clamp(0, items.shape[1] - 1)
        same = (items.gather(1, places) == old_items) & (answers.gather(1, places) == old_answers)
        same |= old_items < 0
        return same.all(1) & (new >= 0) & (prior == old_prior).all(1)

    def _from_scratch(self, prior: Tensor, items: Tensor, answers: Tensor) -> _Tables:
        tables = _Tables(prior, self.bandit.settings.ridge, self.bandit.embedding, self.by_item)
        self._learn(tables, items, answers, (items >= 0).sum(1))
        return tables

    def _learn(self, tables: _Tables, items: Tensor, answers: Tensor, new: Tensor) -> None:
        """Learn the last ``new`` (N,) answers of each user, the oldest first."""
        for back in range(int(new.max()) if len(new) else 0, 0, -1):
            column = items.shape[1] - back
            shown = self.bandit.embedding.index_select(0, items[:, column].clamp_min(0))  # (N, D)
            tables.learn(shown * (new >= back).unsqueeze(1), answers[:, column])


class _Tables:
    """theta and P of N users in one tensor, and for LinUCB the mean and the variance of each item."""

    def __init__(self, prior: Tensor, ridge: float, embedding: Tensor, by_item: bool) -> None:
        n, size = prior.shape
        self.embedding = embedding
        self.both = prior.new_empty(n, size + size * size)
        self.theta, self.inverse = self.both[:, :size], self.both[:, size:].unflatten(1, (size, size))
        self.theta.copy_(prior)
        self.inverse.copy_(torch.eye(size, device=prior.device) / ridge)
        self.mean = self.variance = None
        if by_item:
            self.mean = prior @ embedding.T  # (N, I)
            first = embedding.square().sum(1) / ridge  # (I,)
            self.variance = first.repeat(n, 1)  # (N, I)
            self.bounds = torch.empty_like(self.mean)  # kept: new memory takes 2 ms for 4,096 x 1,000
            self.updates, self.most = 0, float(first.max())

    def learn(self, x: Tensor, answer: Tensor) -> None:
        """One answer (N,) to the items with embeddings ``x`` (N, D); zeros change nothing.

        With g = P x and s = 1 + x . g::

            theta <- theta + g (answer - theta . x) / s
            P     <- P - g g^T / s
            mean_i     <- mean_i + (e_i . g) (answer - theta . x) / s
            variance_i <- variance_i - (e_i . g)^2 / s
        """
        g = (x.unsqueeze(1) @ self.inverse).squeeze(1)  # (N, D): P x, as P is symmetric, and faster
        root = (1 + (x * g).sum(1, keepdim=True)).sqrt_()  # (N, 1)
        g /= root
        surprise = (answer.unsqueeze(1) - (self.theta * x).sum(1, keepdim=True)) / root  # (N, 1)
        self.theta.addcmul_(g, surprise)
        self.inverse.addcmul_(g.unsqueeze(2), g.unsqueeze(1), value=-1)
        if self.mean is not None and self.variance is not None:
            self.updates += 1
            parts = (tensor.split(CHUNK) for tensor in (g, surprise, self.mean, self.variance))
            for of_user, by, mean, variance in zip(*parts, strict=True):
                change = of_user @ self.embedding.T  # (n, I)
                mean.addcmul_(change, by)
                variance.addcmul_(change, change, value=-1)

    def put(self, rows: Tensor, fresh: _Tables) -> None:
        """Replace these rows (R,)."""
        self.both[rows] = fresh.both
        if self.mean is not None and self.variance is not None:
            assert fresh.mean is not None and fresh.variance is not None
            self.mean[rows], self.variance[rows] = fresh.mean, fresh.variance
            self.updates = max(self.updates, fresh.updates)

    def summary(self, alpha: float) -> Tensor:
        if self.mean is None or self.variance is None:
            return self.both
        parts = (tensor.split(CHUNK) for tensor in (self.bounds, self.mean, self.variance))
        negative = self.may_be_negative
        for out, mean, variance in zip(*parts, strict=True):
            torch.sqrt(variance.clamp_min(0) if negative else variance, out=out)
            torch.add(mean, out, alpha=alpha, out=out)
        return self.bounds

    @property
    def may_be_negative(self) -> bool:
        """True if a variance may be below 0 by rounding.

        After k updates it is at least its first value, v_i = e_i . e_i / ridge, divided by 1 + k max_j v_j.
        The error of k updates is at most ROUNDING k v_i.
        """
        return ROUNDING * self.updates * (1 + self.updates * self.most) > 0.1

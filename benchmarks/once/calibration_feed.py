"""The rows of `social-feed`: time spent under fixed loads of ads, and clicks after ads of good and bad fit.

Users live for 12 months of 30 days under a fixed share of ads. Posts are drawn from the user's POSTS best
by profile, and ads uniformly, or from the half that fits the user better or worse. Time is counted in places.
A user who never returns spends no more time. All loads have the same users.

The slope of the time spent in the load is relative to the time without ads in the same months. Goli et al.
2025 ("Measuring consumer sensitivity to audio advertising: a long-run field experiment on Pandora") found
that the effect of ads on listening grew to three times that of the first month. Clicks for each ad: Hohnhold,
O'Brien and Tang 2015 ("Focusing on the long-term: it's good for users and business").
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness.turns import Row
from benchmarks.once.calibration_rows import row
from recsys_rl.env.social_feed import AD, POST, SocialFeed, SocialFeedState
from recsys_rl.env.visits import LONGEST_GAP
from recsys_rl.make import make_user_model
from recsys_rl.settings.config import Config
from recsys_rl.types import World, tree_map

ENV = "social-feed"
LOADS = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2)
MONTHS = 12
USERS = 2000  # of each load
POSTS = 100
VISIT, FIRST, LATE = slice(0, 1), slice(1, 2), slice(-3, None)  # the first visit, and months
GOLI = "Goli et al. 2025"
HOHNHOLD = "Hohnhold et al. 2015"
RESAMPLES = 1000


@dataclass(frozen=True)
class Lives:
    """Sums for each user of one load: (1 + months, n) float64 each, of the first visit and of each month."""

    places: NDArray[np.float64]
    ads: NDArray[np.float64]
    clicks: NDArray[np.float64]  # on ads
    engagement: NDArray[np.float64]
    dwell: NDArray[np.float64]
    revenue: NDArray[np.float64]

    def earned(self, engagement: float, dwell: float, revenue: float) -> NDArray[np.float64]:
        """The rewards (1 + months, n) with these weights of the streams."""
        return engagement * self.engagement + dwell * self.dwell + revenue * self.revenue


def live(
    config: Config,
    world: World,
    loads: tuple[float, ...],
    fits: tuple[str, ...],
    users: int,
    seed: int,
    months: int = MONTHS,
) -> list[Lives]:
    """The lives of ``users`` users under each pair of a load and a fit of the ads."""
    config = dataclasses.replace(config, env_config=dataclasses.replace(config.env_config, visits=2))
    model = make_user_model(config, world)
    assert isinstance(model, SocialFeed)
    generator = torch.Generator().manual_seed(seed)
    number = len(world.population.user_ids)
    one = torch.randperm(number, generator=generator).repeat(-(-users // number))[:users]
    who, load = one.repeat(len(loads)), torch.tensor(loads).repeat_interleave(users)  # (N,) each
    posts, ads = _choices(model, who, [fit for fit in fits for _ in range(users)])
    state: SocialFeedState = model.sample(who)
    nothing = torch.zeros(len(who))
    steps, day, due = nothing.long(), nothing.clone(), torch.rand(len(who), generator=generator)
    start = torch.randint(POSTS, (len(who),), generator=generator)
    rows = torch.arange(len(who))  # of the sums
    sums = torch.zeros(6, 1 + months, len(who), dtype=torch.float64)
    first = torch.ones(len(who), dtype=torch.float64)  # 1 in the first visit
    length = config.env_config.max_episode_steps
    while len(rows):
        due = due + load
        ad = due >= 1
        due = due - ad.float()
        pick = torch.randint(ads.shape[1], (len(rows),), generator=generator)
        post = posts.gather(1, ((start + steps) % posts.shape[1]).unsqueeze(1))
        items = torch.where(ad.unsqueeze(1), ads.gather(1, pick.unsqueeze(1)), post)  # (N, 1)
        feedback = model.respond(state, items, torch.ones_like(items, dtype=torch.bool), generator)
        engagement, dwell, revenue = model.rewards(feedback).unbind(1)  # (r,) each
        month = (day // 30).long()
        values = (torch.ones_like(dwell), ad, revenue > 0, engagement, dwell, revenue)
        for index, value in enumerate(values):
            sums[index].index_put_((1 + month, rows), value.double(), accumulate=True)
            sums[index, 0].index_add_(0, rows, value * first)
        state, leaves = model.advance(state, items, feedback)
        steps = steps + 1
        ended = (leaves | (steps >= length)).nonzero().squeeze(1)
        if not len(ended):
            continue
        chance = torch.rand(len(rows), generator=generator)[ended]
        rested, gap = model.come_back(tree_map(lambda x, at=ended: x[at], state), chance)
        state = tree_map(lambda x, y, at=ended: x.index_copy(0, at, y), state, rested)
        day = day.index_add(0, ended, torch.where(gap > LONGEST_GAP, 1e6, gap.float()))
        steps, first = steps.index_fill(0, ended, 0), first.index_fill(0, ended, 0)
        start = start.index_copy(0, ended, torch.randint(POSTS, (len(ended),), generator=generator))
        left = (day < 30 * months).nonzero().squeeze(1)
        if len(left) < len(rows):
            state = tree_map(lambda x, at=left: x[at], state)
            rows, load, steps, day, due, start, posts, ads, first = (
                values[left] for values in (rows, load, steps, day, due, start, posts, ads, first)
            )
    return [Lives(*of_load.numpy()) for of_load in sums.split(users, 2)]


def _choices(model: SocialFeed, who: Tensor, fits: list[str]) -> tuple[Tensor, Tensor]:
    """The posts (N, POSTS) and the ads (N, A) that are drawn for each user."""
    embedding = model.catalogue.embedding
    profile, taste = model.population.profile[who], model.population.taste[who]
    posts, ads = ((model.kind == kind).nonzero().squeeze(1) for kind in (POST, AD))
    best = posts[(profile @ embedding[posts].T).topk(min(POSTS, len(posts))).indices]
    order = ads[(taste @ embedding[ads].T).argsort(1, descending=True)]  # (N, ads)
    half = len(ads) // 2
    bad = torch.tensor([fit == "bad" for fit in fits]).unsqueeze(1)
    any_ad = torch.tensor([fit == "any" for fit in fits]).unsqueeze(1)
    halves = torch.where(bad, order[:, -half:], order[:, :half])
    return best, torch.where(any_ad, order, halves.repeat(1, 3)[:, : len(ads)])


def feed_rows(
    config: Config, world: World, users: int = USERS, months: int = MONTHS, seed: int = 0
) -> list[Row]:
    """The rows of the table. ``months``: length of a life, at least 3."""
    early, late = "the first month", f"months {months - 2} to {months}"
    of_loads = live(config, world, LOADS, ("any",) * len(LOADS), users, seed, months)
    places = np.stack([lives.places for lives in of_loads])  # (loads, 1 + months, n)
    lines = {name: fit_line(places[:, at].sum(1).mean(1)) for name, at in ((early, FIRST), (late, LATE))}
    ratio = lines[late][0] / lines[early][0]
    low, high = np.quantile([_growth(places[:, :, index]) for index in resamples(users)], (0.025, 0.975))
    rows = [
        _least(f"time spent falls linearly in the load, R^2, {name}", fit, 0.98)
        for name, (_, fit) in lines.items()
    ]
    growth = row(f"slope in {late} over that in {early}", GOLI, 3.0, ratio, abs(ratio - 3), 0.3, ENV)
    rows.append({**growth, "note": f"95 % interval {low:.2f} .. {high:.2f}"})
    for name, (slope, _) in lines.items():
        rows.append(_shown(f"time spent at 20 % ads over none, {name}", 1 + LOADS[-1] * slope))
    rows.append(_shown(f"places of a user in {early}, no ads", float(places[0, FIRST].mean())))
    good, bad = live(config, world, (0.16, 0.16), ("good", "bad"), users, seed + 1, months)
    rates = {"good": _click_rates(good, users), "bad": _click_rates(bad, users)}
    for name, ratios in rates.items():
        rows.append(_below_one(f"clicks for each ad of {name} fit (16 % ads), {late} over {early}", ratios))
    rows.append(_below_one("the same, ads of bad fit over ads of good fit", rates["bad"] / rates["good"]))
    return rows


def fit_line(time: NDArray[np.float64]) -> tuple[float, float]:
    """Slope, relative to the time without ads, and R^2 of ``time`` (loads,) against LOADS."""
    loads, relative = np.array(LOADS), time / time[0]
    slope, start = np.polyfit(loads, relative, 1)
    error = ((relative - start - slope * loads) ** 2).sum()
    return float(slope), float(1 - error / ((relative - relative.mean()) ** 2).sum())


def _growth(places: NDArray[np.float64]) -> float:
    first, late = (fit_line(places[:, at].sum(1).mean(1))[0] for at in (FIRST, LATE))
    return late / first


def resamples(users: int) -> list[NDArray[np.int64]]:
    """RESAMPLES draws (users,) of the users, with replacement; the same in each call."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, users, users) for _ in range(RESAMPLES)]


def _click_rates(lives: Lives, users: int) -> NDArray[np.float64]:
    """Clicks for each ad in the late months over those of the first, (RESAMPLES,) by users."""

    def rate(at: slice, index: NDArray[np.int64]) -> float:
        return float(lives.clicks[at][:, index].sum() / lives.ads[at][:, index].sum())

    return np.array([rate(LATE, sample) / rate(FIRST, sample) for sample in resamples(users)])


def _least(statistic: str, value: float, least: float) -> Row:
    """A number that must be at least ``least``."""
    return {**row(statistic, GOLI, None, value, 1 - value, 1 - least, ENV), "note": f"at least {least}"}


def _below_one(statistic: str, ratios: NDArray[np.float64]) -> Row:
    """A ratio, (RESAMPLES,), whose interval must lie below 1."""
    low, high = np.quantile(ratios, (0.025, 0.975))
    result = row(statistic, HOHNHOLD, None, float(ratios.mean()), float(high), 1.0, ENV)
    return {**result, "distance": None, "note": f"95 % interval {low:.3f} .. {high:.3f}; below 1"}


def _shown(statistic: str, value: float) -> Row:
    """A number without a real value, to be seen."""
    result = row(statistic, "none", None, value, 0.0, 1.0, ENV)
    return {**result, "distance": None, "limit": None, "passed": None, "note": "assumed"}

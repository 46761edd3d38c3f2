"""Calibration of `long-video`: a fit of its choice model to its own log gives back the settings.

No log of suggestions beside a video that plays is open, so no real value can be set against these users.
Instead these rows compare the settings of the simulator with their maximum-likelihood estimates from a log of
random slates. Short and long videos are drawn more often than those of medium length, so that ``length_cost``
has a standard error of 2.1 % and not 2.9 %. They show that the platform follows its equations
(env/long_video.py), and that such a log holds enough to estimate them. The log holds the hidden taste, wear
and trust of the users, which a real log lacks: a fit to real requests would have to infer these as well.

The likelihood of a request is that of its pick (multinomial logit over the seen places, summed over the
number of places that may have been seen). Where a video plays and nothing is picked, the likelihood of
watching on multiplies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.turns import Row
from benchmarks.once.calibration_rows import relative, row
from recsys_rl.env.long_video import CLICKED, COMPLETION, LongVideo, LongVideoConfig, LongVideoState
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.functional import rows
from recsys_rl.functional.choice_model import position_based
from recsys_rl.make import make_env
from recsys_rl.settings.config import Config
from recsys_rl.types import World

ENV = "long-video"
REQUESTS = 160_000
STEPS = 40  # requests in a row of each simulated user
SOURCE = "settings; own log with the hidden state"
LIMITS = {"seeing_exponent": 0.02, "wear_gain": 0.1}
UTILITY_LIMIT = 0.05  # of the other settings


@dataclass(frozen=True)
class Requests:
    """R requests with K places; numbers are float64."""

    affinity: Tensor  # (R, K): u . e_i of the places
    catch: Tensor  # (R, K)
    wear: Tensor  # (R, K): w . g_i
    shown: Tensor  # (R, K) bool: False where the place shows nothing
    trust: Tensor  # (R,)
    playing: Tensor  # (R,): 1 while a video c plays, 0 at home
    playing_affinity: Tensor  # (R,): u . e_c, of any video at home
    playing_catch: Tensor  # (R,)
    playing_longer: Tensor  # (R,): ln(duration_c / 10 min)
    pick: Tensor  # (R,) int64: the picked place, K for none
    watches_on: Tensor  # (R,): 1 if the user watched another quarter
    completion: Tensor  # (R,): of the video that is left, NaN if none is


def simulate(config: Config, world: World, count: int, seed: int = 0) -> Requests:
    """``count`` requests (a multiple of STEPS) with random slates.

    The chance of an item is proportional to the distance of its log duration from the mean.
    """
    everyone = torch.arange(len(world.population.user_ids))
    num_envs = count // STEPS
    env = make_env(config, world, num_envs, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    env.users = everyone
    env.reset(everyone.repeat(-(-num_envs // len(everyone)))[:num_envs])
    generator = torch.Generator().manual_seed(seed + 1)
    longer = env.catalogue.attributes["duration"].log()  # (I,)
    weight = (longer - longer.mean()).abs().clamp_min(1e-3)  # above 0, so that all can be drawn
    with torch.inference_mode():
        parts = [_request(env, weight, generator) for _ in range(STEPS)]
    return Requests(*(torch.cat(column).clone() for column in zip(*parts, strict=True)))


def _request(env: RecEnv, weight: Tensor, generator: torch.Generator) -> list[Tensor]:
    """One request of each user, with items drawn by ``weight`` (I,): the columns of ``Requests``."""
    users, state, catalogue = env.user_model, env.user_state, env.catalogue
    assert isinstance(users, LongVideo) and isinstance(state, LongVideoState)
    weights = weight.expand(env.num_envs, -1)
    items = torch.multinomial(weights, users.slate_size, generator=generator)  # (N, K), none twice
    current = state.current.clamp_min(0)
    numbers_of_state = [
        rows.dot_rows(state.taste, catalogue.embedding, items),
        users.catch[items],
        rows.dot_rows(state.wear, users.categories, items),
    ]
    of_playing = [
        state.trust,
        state.current >= 0,
        rows.dot_rows(state.taste, catalogue.embedding, current.unsqueeze(1))[:, 0],
        users.catch[current],
        (catalogue.attributes["duration"][current] / 600).log(),
    ]
    feedback = env.step(items).feedback
    assert feedback is not None and feedback.events is not None
    clicked = feedback.signals[..., CLICKED] > 0  # (N, K)
    picked, left = clicked.any(1), feedback.events.items[:, 0] >= 0
    completion = feedback.events.signals[:, 0, COMPLETION]
    watches_on = of_playing[1] & ~picked & (~left | (completion == 1))
    return [
        *(number.double() for number in numbers_of_state),
        feedback.shown,
        *(number.double() for number in of_playing),
        torch.where(picked, clicked.int().argmax(1), items.shape[1]),
        watches_on.double(),
        torch.where(left, completion, torch.nan).double(),
    ]


def settings(config: LongVideoConfig) -> dict[str, float]:
    """The values that a fit should give back. ``none`` is the utility of none at home, in logits.

    It is that against a suggestion with a cosine of 0, without catch, wear and trust.
    """
    names = ("seeing_exponent", "want_gain", "lure_gain", "trust_gain")
    more = ("hold_bias", "hold_gain", "length_cost", "go_on_bias", "wear_gain")
    none = config.want_gain * config.fit_midpoint + config.trust_gain * config.trust_start
    values = {name: float(getattr(config, name)) for name in (*names, *more)}
    return {**values, "none": none}


def loss(log: Requests, names: list[str], values: Tensor, fit_midpoint: float) -> Tensor:
    """Minus the mean log-likelihood () of a request, with the settings ``values`` (P,) called ``names``."""
    of = dict(zip(names, values, strict=True))
    utility = of["want_gain"] * log.affinity + of["lure_gain"] * log.catch  # (R, K)
    utility = utility + of["trust_gain"] * log.trust.unsqueeze(1)
    if "wear_gain" in of:
        utility = utility - of["wear_gain"] * log.wear
    hold = of["hold_bias"] + of["hold_gain"] * (log.playing_affinity - fit_midpoint)
    hold = hold - of["lure_gain"] * log.playing_catch - of["length_cost"] * log.playing_longer  # (R,)
    none = of["none"] + log.playing * (of["go_on_bias"] + hold)
    chance = position_based(utility.masked_fill(~log.shown, -torch.inf), none, of["seeing_exponent"])
    chance = torch.cat([chance, 1 - chance.sum(1, keepdim=True)], 1)  # (R, K + 1)
    picks = chance.gather(1, log.pick.unsqueeze(1))[:, 0].clamp_min(1e-12).log()
    decides = log.playing * (log.pick == chance.shape[1] - 1)  # (R,): 1 where the user watches on or leaves
    goes = torch.nn.functional.binary_cross_entropy_with_logits(hold, log.watches_on, reduction="none")
    return (decides * goes - picks).mean()


def fit(log: Requests, names: list[str], fit_midpoint: float) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood estimates (P,) and their standard errors (P,), from the second derivatives."""
    values = torch.full((len(names),), 0.5, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [values], max_iter=200, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(log, names, values, fit_midpoint)
        value.backward()
        return value

    search.step(closure)
    optimum = values.detach()
    curvature = torch.autograd.functional.hessian(lambda x: loss(log, names, x, fit_midpoint), optimum)
    return optimum, torch.linalg.inv(len(log.pick) * curvature).diagonal().sqrt()


def choice_rows(config: Config, world: World, count: int = REQUESTS, seed: int = 0) -> list[Row]:
    """A row for each setting of the choice, and one of completion by duration.

    In a world without categories there is no wear, and wear_gain has no row.
    """
    users = config.env_config
    assert isinstance(users, LongVideoConfig)
    log, wanted = simulate(config, world, count, seed), settings(users)
    if not bool(log.wear.any()):
        del wanted["wear_gain"]
    values, errors = fit(log, list(wanted), users.fit_midpoint)
    rows = []
    for (name, real), value, error in zip(wanted.items(), values.tolist(), errors.tolist(), strict=True):
        limit = LIMITS.get(name, UTILITY_LIMIT)
        made = relative(f"fit to {count:,} requests, {name}", SOURCE, real, value, limit, ENV)
        rows.append({**made, "note": f"relative standard error {error / real:.4f}"})
    return [*rows, completion_row(log)]


def completion_row(log: Requests) -> Row:
    """Mean completion of the videos left, by fifth of duration; the distance is the largest rise."""
    left = ~log.completion.isnan()
    longer, completion = log.playing_longer[left].numpy(), log.completion[left].numpy()
    fifth = np.searchsorted(np.quantile(longer, (0.2, 0.4, 0.6, 0.8)), longer)
    means = np.array([completion[fifth == k].mean() for k in range(5)])
    text = " ".join(f"{mean:.3f}" for mean in means)
    rise = float(np.diff(means).max())
    return row("completion by fifth of duration, falling", "none", None, text, rise, 0.0, ENV)

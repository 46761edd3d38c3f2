"""The expert of `short-video`: the expected reward, with prices of patience and of tiresome videos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.experts.form import Expert, FollowedObs, Walk
from benchmarks.experts.kalman import measured
from recsys_rl.env import short_video as platform
from recsys_rl.env.short_video import REMEMBERED, Facts, ShortVideo, ShortVideoState
from recsys_rl.env.watch_time import HIGHEST_RATIO
from recsys_rl.functional.recency import products
from recsys_rl.records import Known
from recsys_rl.types import Feedback, Interface, Obs

LEAST_PATIENCE = 0.1
"""The walk's lower bound of the patience: a user who is still there has some left."""


def begin(users: ShortVideo, interface: Interface, obs: Obs) -> Known:
    """The state at the start of a session as a recommender knows it.

    ``latent`` (N, 4) are the numbers that the answers betray: the mood along both axes, ease and loop habit.
    ``doubt`` (N, 4, 4) is their covariance.
    """
    profile = obs.context[:, interface.place_of("profile")]
    n, config = len(profile), users.config
    deviation = profile.new_tensor([0.0, 0.0, config.ease_deviation, config.loop_deviation])
    return {
        "taste": profile,
        "latent": profile.new_zeros(n, 4),
        "doubt": deviation.square().diag().expand(n, -1, -1),
        "recent": torch.full((n, REMEMBERED), -1, device=profile.device),
        "weary_of_tags": profile.new_zeros(n, users.tags.shape[1]),
        "patience": profile.new_full((n,), config.first_patience),
        "begun": torch.zeros(n, dtype=torch.bool, device=profile.device),
        "steps": torch.zeros(n, dtype=torch.int64, device=profile.device),
    }


def as_state(users: ShortVideo, known: Known) -> ShortVideoState:
    """The state of users of whom this is known, with the average spread of the ratios."""
    mood, ease, habit = known["latent"].split([2, 1, 1], 1)
    return ShortVideoState(
        taste=known["taste"],
        profile=known["taste"],
        ease=ease[:, 0],
        habit=habit[:, 0],
        spread=torch.full_like(ease[:, 0], users.config.ratio_noise),
        restoring=users._restoring(known["taste"]),
        mood=mood,
        hour=torch.zeros_like(ease[:, 0]),
        recent=known["recent"],
        weary_of_tags=known["weary_of_tags"],
        patience=known["patience"],
        begun=known["begun"],
    )


def step(
    users: ShortVideo, known: Known, items: Tensor, signals: Tensor, numbers: Mapping[str, Tensor]
) -> Known:
    """The same after a video and its watch ratio and like.

    A ratio tells whether the user stayed, by the densities of both cases. What the answer says of the appeal
    moves the latent numbers (kalman.py), and the taste along the video by ``learned``. Then the
    state goes on by the equations.
    """
    config, state, places = users.config, as_state(users, known), items.unsqueeze(1)  # (N, 1)
    facts = Facts(*users.facts[places].unbind(-1))  # (N, 1) each
    appeal = users._appeal_of(state, places, facts)
    location = users._of_stayers(state, appeal, facts)[:, 0]
    appeal, ratio, liked = appeal[:, 0], signals[:, 0], signals[:, 1]  # (N,) each
    heard, leaves = ratio.clamp_min(1e-6).log(), (facts.leave - facts.duration.log())[:, 0]
    variance = config.ratio_noise**2 * (1 + config.loop_spread**2)  # of users with any loop noise, roughly
    stay = -0.5 * ((heard - location).square() / variance + math.log(variance))
    leave = -0.5 * ((heard - leaves) / config.leave_noise).square() - math.log(config.leave_noise)
    stays, chance = (appeal + (stay - leave).clamp(-20, 20)).sigmoid(), appeal.sigmoid()  # with it, before it
    likes = (appeal - platform.LIKE_COST).sigmoid()
    push = stays - chance + stays * (liked - likes)
    weight = chance * (1 - chance) + stays * likes * (1 - likes)
    before, one = known["latent"], torch.ones_like(places, dtype=appeal.dtype)
    of_appeal = torch.cat([users.coordinates[items], one, torch.zeros_like(one)], 1)  # (N, 4)
    latent, doubt = measured(before, known["doubt"], of_appeal, push, weight)
    of_ratio = torch.cat([platform.RATIO_SLOPE * of_appeal[:, :3], one], 1)
    certain = stays * (ratio < HIGHEST_RATIO) / variance
    residual = heard - location - (of_ratio * (latent - before)).sum(1)
    latent, doubt = measured(latent, doubt, of_ratio, certain * residual, certain)

    felt = (appeal + (of_appeal * (latent - before)).sum(1)).sigmoid()  # satisfaction
    # The signals from seconds on, of which ``advance`` needs the satisfaction; the mood's steps are unknown.
    answer = torch.nn.functional.pad(felt.view(-1, 1, 1), (7, 3))
    after, _ = users.advance(state, places, Feedback(answer, torch.ones_like(places, dtype=torch.bool)))
    decay = latent.new_tensor([platform.MOOD_KEPT, platform.MOOD_KEPT, 1.0, 1.0])
    steps = torch.where(known["begun"], 1 - platform.MOOD_KEPT**2, 1.0) * config.mood_deviation**2  # (N,)
    moods = latent.new_tensor([1.0, 1.0, 0.0, 0.0]).diag()
    return {
        "taste": state.taste + (numbers["learned"] * push).unsqueeze(1) * users.catalogue.embedding[items],
        "latent": latent * decay,
        "doubt": doubt * decay.unsqueeze(1) * decay + steps.view(-1, 1, 1) * moods,
        "recent": after.recent,
        "weary_of_tags": after.weary_of_tags,
        "patience": after.patience.clamp_min(LEAST_PATIENCE),
        "begun": after.begun,
        "steps": known["steps"] + 1,
    }


def prospects(users: ShortVideo, state: ShortVideoState, items: Tensor | None) -> tuple[Tensor, Tensor]:
    """``ShortVideo.prospects`` of the ``items`` (N, C), -1 padding; None for all items."""
    if items is None:
        return users.prospects(state)
    items = items.clamp_min(0)
    return users._outlook(
        state,
        products(state.taste, users.catalogue.embedding, items),
        products(state.mood, users.coordinates, items),
        products(state.weary_of_tags, users.tags, items),
        users._creator_weariness(state).gather(1, users.catalogue.attributes["creator"][items]),
        products(state.restoring, users.coordinates, items),
        Facts(*users.facts[items].unbind(-1)),
    )


def tiresomeness(users: ShortVideo, state: ShortVideoState, profile: Tensor, items: Tensor | None) -> Tensor:
    """``ShortVideo.tiresomeness`` by ``profile`` (N, D) of the ``items`` (N, C), -1 padding; None for all."""
    if items is None:
        return users.tiresomeness(replace(state, taste=profile))
    by_creator, of_tags, user = users.favourites(profile)
    items = items.clamp_min(0)
    wear = by_creator[user].gather(1, users.catalogue.attributes["creator"][items])
    return wear.add_(products(of_tags[user], users.tags, items), alpha=platform.TAG_WEAR)


def scores(
    users: ShortVideo,
    interface: Interface,
    obs: FollowedObs,
    numbers: Mapping[str, Tensor],
    items: Tensor | None,
) -> Tensor:
    """The expected reward, with a price of patience and one of tiresome videos, by the state of the walk.

    ::

        score_i = reward_i + price min(change of patience_i, MOST_PATIENCE - p) - near (n - 1) / 100 tires_i
        price   = exp(level + lack (1 - p / first_patience) + ahead ln(n / 100))         [n steps are left]
    """
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    state = as_state(users, obs.known)
    reward, change = prospects(users, state, items)  # (N, C) each
    left = (interface.session_length - obs.known["steps"].unsqueeze(1)).clamp_min(1)  # (N, 1)
    lack = 1 - state.patience.unsqueeze(1) / users.config.first_patience
    level = number["level"] + number["lack"] * lack + number["ahead"] * (left / 100).log()
    worth = reward.addcmul_(level.clamp_max(4).exp(), change)
    tires = tiresomeness(users, state, obs.context[:, interface.place_of("profile")], items)
    return worth.addcmul_(number["near"] * (left - 1) / 100, tires, value=-1)


EXPERT = Expert(
    "The expected reward, with a price of patience by its lack and the steps that are left, and one of "
    "videos near the user's favourites; mood, ease and patience are followed by equations and answers.",
    {
        "level": (0.3, 0.5),
        "lack": (0.5, 0.5),
        "ahead": (0.3, 0.3),
        "near": (0.3, 0.3),
        "learned": (0.0, 0.02),
    },
    scores,
    Walk(begin, step, stock="patience"),
)

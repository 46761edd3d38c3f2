"""The expert of `social-feed`: the expected reward, with a price of patience and offsets of the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.experts.form import Expert
from recsys_rl.env import social_feed as platform
from recsys_rl.env.social_feed import FOLLOWS, LEAST_PATIENCE, MOST_PATIENCE, STORY, SocialFeed
from recsys_rl.functional.recency import products
from recsys_rl.types import Interface, Obs


def scores(
    users: SocialFeed,
    interface: Interface,
    obs: Obs,
    numbers: Mapping[str, Tensor],
    items: Tensor | None,
    held: bool = False,
) -> Tensor:
    """The expected reward by the equations, with a price of patience and offsets of the kinds.

    Tolerance and patience are followed through the session with the equations of the platform; the
    profile stands for the taste and the dwell d_k of place k for its satisfaction. The answers move profile
    and ease, with s_k the satisfaction that the profile expects::

        u       = profile + move sum_k (d_k - s_k) e_k             ease = of_user mean_k (d_k - s_k)
        appeal_i = ease + the appeal of the equations, LIKENESS_COST times wear
        price    = patience sigmoid(steep (pace (steps left) - p))
        score_i  = reward(appeal_i) + price min(change of p, MOST_PATIENCE - p) - spare (share left) near_i
                   + [ad] ad + [suggestion] suggestion (share left) P(followed) + [story] story

    near_i is the loss of logits that item i costs the FAVOURITES. ``held``: with sameness, tolerance and
    patience held at their start, to see what following them gains.
    """
    assert obs.history is not None and obs.signals is not None
    embedding, every = users.catalogue.embedding, users.facts
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    profile, clock, follows = (
        obs.context[:, interface.place_of(name)] for name in ("profile", "clock", FOLLOWS)
    )
    session = Followed.through(users, profile, follows, obs.history, obs.signals[..., 0])
    if held:
        one = torch.ones_like(session.patience)
        session = replace(
            session, same=0 * session.same, tolerance=one, patience=platform.START_PATIENCE * one
        )
    taste = profile + number["move"] * session.moved  # (N, D)
    ease = number["of_user"] * session.residual
    at = slice(None) if items is None else items.clamp_min(0)
    facts, kind, creator = every[at], users.kind[at], users.creator[at]  # (b, 5) or (N, b, 5), ...
    organic, ad = facts[..., 1], facts[..., 2]
    known = follows.index_select(1, creator) if items is None else follows.gather(1, creator)
    likeness = number["wear"] * platform.LIKENESS_COST * products(session.same, embedding, items).clamp_min(0)
    appeal = platform.FIT_GAIN * products(taste, embedding, items) + ease + facts[..., 0]
    appeal = appeal - organic * (platform.STRANGER_COST * (1 - known) + likeness)
    appeal = appeal - ad * platform.AD_WEARINESS * (1 - session.tolerance)
    left = (1 - clock) * interface.session_length  # (N, 1)
    need = number["pace"] * left - session.patience
    price = number["patience"] * (number["steep"] * need).sigmoid()
    fed = users.fed(ad, appeal.sigmoid(), session.tolerance)
    near = products(users.favourites(profile), embedding, items).clamp_min(0) * organic
    near = platform.LIKENESS_COST * (1 - platform.LIKENESS_KEPT) * near
    found = users.reward_of(appeal, facts) + price * torch.minimum(fed, MOST_PATIENCE - session.patience)
    found = found - number["spare"] * (1 - clock) * near
    followed = facts[..., 3] * (appeal - platform.FOLLOW_COST).sigmoid()
    found = found + number["ad"] * ad + number["suggestion"] * (1 - clock) * followed
    return found + number["story"] * (kind == STORY)


@dataclass(frozen=True)
class Followed:
    """The stocks after the session so far, followed by the equations, and what the answers tell."""

    same: Tensor  # (N, D)
    tolerance: Tensor  # (N, 1)
    patience: Tensor  # (N, 1)
    moved: Tensor  # (N, D): sum of (d_k - s_k) e_k
    residual: Tensor  # (N, 1): mean of d_k - s_k

    @classmethod
    def through(
        cls, users: SocialFeed, profile: Tensor, follows: Tensor, history: Tensor, dwell: Tensor
    ) -> Followed:
        """The state after the items (N, L), -1 padding first, and their dwells (N, L)."""
        config, there = users.config, (history >= 0).to(profile)  # (N, L)
        shown = history.clamp_min(0)
        base, organic, ad, _, _ = users.facts[shown].unbind(-1)  # (N, L) each
        organic, ad, embedding = organic * there, ad * there, users.catalogue.embedding[shown]
        # Item j weighs (1 - kept) kept^n in m, with n the posts and stories after it.
        so_far = organic.cumsum(1)  # (N, L)
        weight = (1 - platform.LIKENESS_KEPT) * organic * platform.LIKENESS_KEPT ** (so_far[:, -1:] - so_far)
        same = (weight.unsqueeze(1) @ embedding).squeeze(1)  # (N, D)
        before = (so_far - organic).unsqueeze(2) - so_far.unsqueeze(1)  # (N, L, L): between j and k
        earlier = torch.ones_like(before).tril(-1) * organic.unsqueeze(1)
        kernel = (1 - platform.LIKENESS_KEPT) * earlier * platform.LIKENESS_KEPT ** before.clamp_min(0)
        sameness = ((kernel @ embedding) * embedding).sum(-1).clamp_min(0)  # (N, L)
        affinity = (embedding @ profile.unsqueeze(2)).squeeze(2)  # (N, L)
        drained = config.ad_drain * ad * (1 + platform.MISFIT_DRAIN * (1 - affinity) / 2)
        tolerance = (1 - drained.cumsum(1)).clamp_min(0)  # (N, L): after each place
        then = (tolerance + drained).clamp_max(1)  # before it
        known = follows.gather(1, users.creator[shown])
        cost = platform.STRANGER_COST * (1 - known) + platform.LIKENESS_COST * sameness
        appeal = (
            platform.FIT_GAIN * affinity + base - organic * cost - ad * platform.AD_WEARINESS * (1 - then)
        )
        residual = there * (dwell - appeal.sigmoid())
        # With a cap, a sum falls behind by the most that it was above the cap so far.
        total = platform.START_PATIENCE + (there * users.fed(ad, dwell, then)).cumsum(1)
        above = (total - MOST_PATIENCE).clamp_min(0).cummax(1).values
        return cls(
            same=same,
            tolerance=tolerance[:, -1:],
            patience=(total - above)[:, -1:].clamp_min(LEAST_PATIENCE),
            moved=(residual.unsqueeze(1) @ embedding).squeeze(1),
            residual=residual.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1),
        )


EXPERT = Expert(
    "The expected reward by the profile and the answers, with the follows, and a price of the patience that "
    "is left.",
    {
        "move": (0.1, 0.1),
        "of_user": (1.0, 0.5),
        "wear": (1.0, 0.5),
        "patience": (1.0, 0.5),
        "pace": (0.15, 0.1),
        "steep": (0.5, 0.5),
        "spare": (0.0, 0.5),
        "ad": (0.0, 0.2),
        "suggestion": (0.1, 0.3),
        "story": (0.0, 0.2),
    },
    scores,
)

"""`social-feed`: posts, ads, suggested creators and stories in one feed, one place at a time.

Hidden state of a user (units in brackets):

- taste u [unit vector], from all of the user's log; a recommender sees the profile, from its first part
- follows F_c [0 or 1] of each creator c, which a recommender knows
- sameness m [vector, at most 1 long]: a fading mean of the embeddings e of the posts and stories just shown
- ad tolerance t [0..1, 1 = rested]: ads drain it and time away restores it
- patience p [START_PATIENCE at the start, MOST_PATIENCE at most; the user leaves at 0]
- ease a [logits], drawn once for each user

The taste, the tolerance, the patience and the ease are hidden from a recommender.

Item i has an embedding e_i, a creator c_i, a kind k_i, a pull x_i (the sum of the z-scores of log popularity
and quality, as a z-score), a bid b_i [0 but for ads], and a story has the hours in which it lives. Showing
it, where [k] is 1 for items of that kind and 0 for others::

    appeal = base_k + FIT_GAIN u . e_i + INTEREST_DEVIATION a
             + [post, story] (POST_PULL x_i - STRANGER_COST (1 - F_ci) - LIKENESS_COST max(0, m . e_i))
             - [ad] AD_WEARINESS (1 - t)                                                            [logits]
    satisfaction = sigmoid(appeal)                                                                    [0..1]
    dwell     = clip(satisfaction + dwell_noise N(0, 1), 0, 1)                                [share of 30 s]
    clicked   ~ [post, story] Bernoulli(sigmoid(appeal - CLICK_COST))
    liked     ~ [post, story] Bernoulli(sigmoid(appeal - LIKING_COST))
    shared    ~ liked Bernoulli(SHARING_RATE)              replied ~ liked Bernoulli(REPLY_RATE)
    followed  ~ [suggestion] Bernoulli(sigmoid(appeal - FOLLOW_COST))
    ad_clicked ~ [ad] Bernoulli(sigmoid(appeal - AD_CLICK_COST))
    engagement = clicked + liked + shared + replied + followed           revenue = b_i ad_clicked

    p <- min(MOST_PATIENCE, p + [not ad] (SATISFACTION_GAIN satisfaction - place_cost) - [ad] ad_cost
             - tolerance_cost (1 - t))
    t <- max(0, t - [ad] ad_drain (1 + MISFIT_DRAIN (1 - u . e_i) / 2))
    m <- LIKENESS_KEPT m + (1 - LIKENESS_KEPT) e_i                     [post, story]
    F_ci <- 1 if followed

    reward = 0.3 engagement + 0.3 dwell + 0.4 revenue

The column "follows" of the items for a user (user_columns.py) is F_ci of a post or story, whose author is its
creator, and 0 of an ad or suggestion, which has no author.

A place may not show: an ad if one of the last AD_GAP places was an ad; a story outside its hours, which come
again each week; a suggestion of a creator whom the user follows. The follow is the only one of the responses
that changes what the user answers to afterwards. Without noise (for planners) F is the probability so far.

With ``visits`` above 1 an episode is a user's life (env/visits.py has the days of return). The feeling of a
place is its change of patience before the cap; a user's habit, and the feeling he is used to at first, are::

    habit = habit_base + habit_deviation N(0, 1), drawn once                                         [logits]
    usual = SATISFACTION_GAIN sigmoid(POST_BASE + INTEREST_DEVIATION a) - place_cost

A gap of g days leaves 1 - t at tolerance_kept^g, m at overnight^g and the same share of the distance of
patience from START_PATIENCE. Each visit begins at the same hour of the day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.data.attributes import zscore
from recsys_rl.env import visits
from recsys_rl.env.heuristics import AD_THRESHOLD, FIXED_LOAD
from recsys_rl.env.visits import VisitsConfig
from recsys_rl.errors import UserError
from recsys_rl.functional import rows
from recsys_rl.records import Known, Platform, Split, VisitPieces
from recsys_rl.settings.fields import Finite, NonNegative, Range, Share
from recsys_rl.types import (
    Catalogue,
    Feedback,
    ItemFeature,
    Population,
    Signal,
    Stream,
    World,
)

KINDS = ("post", "ad", "suggestion", "story")
POST, AD, SUGGESTION, STORY = range(4)
SHARES = (0.7, 0.1, 0.1, 0.1)  # of the items, by kind
AD_GAP = 4  # places between two ads
MOST_BID = 20.0
STORY_HOURS = 24.0
SECONDS = 30.0  # of a dwell of 1
MOST_PATIENCE = 10.0
FOLLOWED = 30  # creators that a user follows at first
SHARED_TASTE = 10.0  # logits of following a creator per unit of affinity with the mean of his items
LEAST_PATIENCE = 0.2  # that a planner supposes of a user who has not left
MOST_PLACES = 10  # since the last ad, as an observation counts them
FOLLOWS = "follows[author]"  # the piece of the context with F
FAVOURITES = 50  # a user's best items, over which ``tiresomeness`` averages
POST_BASE = -0.5  # logits of appeal of an average post by a creator whom the user follows
STORY_BASE = -0.3  # the same of a story
SUGGESTION_BASE = -1.5  # the same of a suggested creator
AD_BASE = -2.0  # the same of an ad
FIT_GAIN = 3.0  # logits of appeal per unit of affinity (cosine of user and item)
INTEREST_DEVIATION = 0.4  # standard deviation between users of the logits of appeal
POST_PULL = 0.4  # logits of appeal per standard deviation of a post's pull
STRANGER_COST = 1.0  # logits of appeal that a post or story loses if the user does not follow its creator
LIKENESS_COST = 1.5  # logits of appeal lost per unit of likeness to what was just shown
LIKENESS_KEPT = 0.8  # share of the sameness that remains after one post or story
CLICK_COST = 1.0  # appeal, in logits, of a post that half of the users click
LIKING_COST = 2.0  # appeal, in logits, of a post that half of the users like
SHARING_RATE = 0.05  # share of the likes that come with a share
REPLY_RATE = 0.1  # share of the likes that come with a reply
FOLLOW_COST = 0.5  # appeal, in logits, of a suggestion that half of the users follow
AD_CLICK_COST = 1.0  # appeal, in logits, of an ad that half of the users click
START_PATIENCE = 5.0  # patience at the start of a session; the largest is 10
SATISFACTION_GAIN = 0.5  # patience gained per unit of satisfaction
MISFIT_DRAIN = 1.0  # share by which an ad of the worst fit costs more
AD_WEARINESS = 1.0  # logits of appeal that an ad loses if the tolerance is used up


@dataclass(frozen=True)
class SocialFeedConfig(VisitsConfig):
    """Users of a feed with ads; the equations are at the top of the file."""

    dwell_noise: NonNegative = 0.2
    """Standard deviation of the dwell around the satisfaction."""
    place_cost: NonNegative = 0.45
    """Patience that each other place costs."""
    ad_cost: NonNegative = 0.215
    """Patience that an ad costs at once."""
    tolerance_cost: NonNegative = 0.06
    """Patience that each place costs a user whose ad tolerance is used up."""
    ad_drain: Share = 0.002
    """Ad tolerance that an ad of perfect fit costs."""
    tolerance_kept: Annotated[float, Range(0, below=1)] = 0.985
    """Share of the used-up ad tolerance that remains after a day away."""
    habit_base: Finite = 1.0
    """Logits of returning on the next day after a visit as usual; habits matter only with visits above 1."""
    habit_deviation: NonNegative = 1.0
    """Standard deviation of these logits between users."""
    habit_fade: NonNegative = 0.1
    """Logits of returning lost on each day away."""
    visit_gain: NonNegative = 5.0
    """Logits of returning per unit of patience and place by which a visit was better than usual."""
    usual_rate: Share = 0.0
    """Share by which the usual feeling moves to that of a visit. 0: nobody gets used to ads."""


@dataclass(frozen=True)
class SocialFeedState:
    taste: Tensor  # (N, D)
    profile: Tensor  # (N, D)
    ease: Tensor  # (N,): logits
    follows: Tensor  # (N, C) float32: F, 0 .. 1
    followed: Tensor  # (N,): number of creators followed, the sum of F
    followed_sum: Tensor  # (N, D): sum of their embeddings
    same: Tensor  # (N, D): m
    tolerance: Tensor  # (N,)
    patience: Tensor  # (N,)
    supposed: Tensor  # (N, 2): tolerance and patience as a recommender can follow them
    since_ad: Tensor  # (N,): places since the last ad, MOST_PLACES at most
    last_kind: Tensor  # (N,) int64; -1 before the first place
    hour: Tensor  # (N,): of the week, 0 .. 168, from Monday at midnight
    life: visits.Life = field(default_factory=dict)  # (N,) each; empty if an episode is one visit


@dataclass(frozen=True)
class SocialFeed(visits.Visiting):
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: SocialFeedConfig
    repeats: ClassVar[bool] = False
    context: ClassVar[tuple[str, ...]] = (
        *("profile", "followed_items", "last_item", "last_signals"),
        *("clock", "last_kind", "since_ad", "diversity", FOLLOWS),
    )
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("dwell"),
        Signal("engagement", high=4.0),
        Signal("followed"),
        Signal("revenue", high=MOST_BID),
        Signal("satisfaction", visible=False, meaning="the satisfaction"),
    )
    streams: ClassVar[tuple[Stream, ...]] = (
        Stream("engagement", 0.3),
        Stream("dwell", 0.3),
        Stream("revenue", 0.4),
    )
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType(
        dict.fromkeys(("profile", "followed_items", "last_kind", "since_ad", "diversity", FOLLOWS), 1.0)
    )

    def __post_init__(self) -> None:
        items, users = self.catalogue, self.population.attributes
        needed = {**ITEMS, "author": attributes.creators}, {**USERS, "follows": attributes.normal}
        attributes.require("A feed", items, needed[0], users, needed[1])
        check_items(items)
        posts, length = int((items.attributes["kind"] == POST).sum()), self.config.max_episode_steps
        if posts < length:
            raise UserError(
                f"The catalogue has {posts} posts, and a session of {length} places may need as many: lower "
                "max_episode_steps, or use a larger catalogue."
            )
        follows = users["follows"]
        if bool(((follows < 0) | (follows >= self.num_creators)).any()):
            raise UserError(
                f"A user follows a creator who has no item: creators are 0 to {self.num_creators - 1}."
            )

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and those that are always drawn."""
        origins = attributes.origins(self.catalogue, {"kind": KIND_TEXT, "creator": attributes.CREATORS})
        returns = "; so are the days on which users return" if self.visits > 1 else ""
        return f"{origins}; bids, the hours of stories and who follows whom are assumed{returns}"

    @cached_property
    def kind(self) -> Tensor:
        """(I,) int64: the place in KINDS."""
        return self.catalogue.attributes["kind"]

    @cached_property
    def creator(self) -> Tensor:
        """(I,) int64"""
        return self.catalogue.attributes["creator"].long()

    @cached_property
    def num_creators(self) -> int:
        """C"""
        return int(self.creator.max()) + 1

    @cached_property
    def of_creators(self) -> Tensor:
        """(C, D): the direction of the mean embedding of each creator's items."""
        return creator_embeddings(self.catalogue)

    @cached_property
    def graph(self) -> Tensor:
        """(U, C) float32: 1 if the user follows the creator at first."""
        follows = self.population.attributes["follows"]
        graph = torch.zeros(len(follows), self.num_creators, device=follows.device)
        return graph.scatter_(1, follows, 1.0)

    @cached_property
    def graph_sums(self) -> Tensor:
        """(U, D): the sum of the embeddings of the creators whom the user follows at first."""
        return self.graph @ self.of_creators

    @cached_property
    def facts(self) -> Tensor:
        """(I, 5): base logits; 1 for a post or story, for an ad and for a suggestion; the bid."""
        kind = self.kind
        base = torch.tensor([POST_BASE, AD_BASE, SUGGESTION_BASE, STORY_BASE])
        pull = zscore(zscore((self.catalogue.popularity + 1e-3).log()) + zscore(self.catalogue.quality))
        organic = ((kind == POST) | (kind == STORY)).float()
        columns = (
            base.to(pull)[kind] + POST_PULL * pull * organic,
            organic,
            (kind == AD).float(),
            (kind == SUGGESTION).float(),
            self.catalogue.attributes["bid"],
        )
        return torch.stack(columns, 1)

    def sample(self, users: Tensor) -> SocialFeedState:
        config, drawn = self.config, self.population.attributes
        taste = self.population.taste.index_select(0, users)  # (N, D)
        ease = INTEREST_DEVIATION * drawn["ease"].index_select(0, users)
        hour = drawn["opened"].index_select(0, users)
        life: visits.Life = {}
        if self.visits > 1:
            life = visits.begin(
                habit=config.habit_base + config.habit_deviation * drawn["habit"].index_select(0, users),
                usual=SATISFACTION_GAIN * (POST_BASE + ease).sigmoid() - config.place_cost,
                opened=hour,
            )
        return SocialFeedState(
            taste=taste,
            profile=self.population.profile.index_select(0, users),
            ease=ease,
            follows=self.graph.index_select(0, users),
            followed=torch.full_like(ease, drawn["follows"].shape[1]),
            followed_sum=self.graph_sums.index_select(0, users),
            same=torch.zeros_like(taste),
            tolerance=torch.ones_like(ease),
            patience=torch.full_like(ease, START_PATIENCE),
            supposed=torch.stack([torch.ones_like(ease), torch.full_like(ease, START_PATIENCE)], 1),
            since_ad=torch.full_like(ease, MOST_PLACES),
            last_kind=torch.full_like(users, -1),
            hour=hour,
            life=life,
        )

    def possible(self, user_state: SocialFeedState) -> bool:
        patience, tolerance, since = user_state.patience, user_state.tolerance, user_state.since_ad
        within = (patience > 0) & (patience <= MOST_PATIENCE) & (tolerance >= 0) & (tolerance <= 1)
        supposed = user_state.supposed
        within &= (supposed[:, 0] >= 0) & (supposed[:, 0] <= 1) & (supposed[:, 1] <= MOST_PATIENCE)
        within &= (user_state.hour >= 0) & (user_state.hour < visits.HOURS)
        within &= (since >= 0) & (since <= MOST_PLACES)
        within &= (user_state.last_kind >= -1) & (user_state.last_kind < len(KINDS))
        follows = (user_state.follows >= 0) & (user_state.follows <= 1)
        return bool(within.all() and follows.all()) and visits.possible(user_state.life)

    def visible(self, user_state: SocialFeedState) -> dict[str, Tensor]:
        return {
            "profile": user_state.profile,
            **pieces_of_feed({name: getattr(user_state, name) for name in FEED}),
        }

    def permits(self, user_state: SocialFeedState, items: Tensor | None = None) -> Tensor:
        if items is None:
            return permitted(
                self.catalogue, self.places, user_state.since_ad, user_state.hour, user_state.follows
            )
        kind, known = self.kind[items], user_state.follows.gather(1, self.creator[items])  # (N, K)
        allowed = living(self.catalogue, user_state.hour, items) & ((kind != SUGGESTION) | (known < 0.5))
        return allowed & ((kind != AD) | (user_state.since_ad >= AD_GAP).unsqueeze(1))

    @cached_property
    def places(self) -> tuple[Tensor, ...]:
        """The items of each kind, in the order of KINDS."""
        return places_of_kinds(self.catalogue)

    def respond(
        self, user_state: SocialFeedState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        config = self.config
        base, organic, ad, suggestion, bid = self.facts[items].unbind(-1)  # (N, K) each
        affinity = rows.dot_rows(user_state.taste, self.catalogue.embedding, items)
        sameness = rows.dot_rows(user_state.same, self.catalogue.embedding, items)
        known = user_state.follows.gather(1, self.creator[items])
        appeal = self._appeal(user_state, (base, organic, ad), affinity, sameness, known)
        satisfaction = appeal.sigmoid()
        clicks, likes = (appeal - CLICK_COST).sigmoid(), (appeal - LIKING_COST).sigmoid()
        follows, of_ad = (appeal - FOLLOW_COST).sigmoid(), (appeal - AD_CLICK_COST).sigmoid()
        if generator is None:
            dwell, followed, ad_clicked = satisfaction, follows * suggestion, of_ad * ad
            engaged = organic * (clicks + likes * (1 + SHARING_RATE + REPLY_RATE))
        else:
            chance = torch.rand(4, *appeal.shape, generator=generator, device=appeal.device)
            noise = torch.randn(appeal.shape, generator=generator, device=appeal.device)
            dwell = (satisfaction + config.dwell_noise * noise).clamp(0, 1)
            followed, ad_clicked = suggestion * (chance[0] < follows), ad * (chance[0] < of_ad)
            liked = (chance[1] < likes).float()
            more = (chance[2] < SHARING_RATE).float() + (chance[3] < REPLY_RATE)
            engaged = organic * ((chance[0] < clicks) + liked * (1 + more))
        signals = torch.stack([dwell, engaged + followed, followed, bid * ad_clicked, satisfaction], -1)
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        dwell, engagement, _, revenue, _ = feedback.signals.sum(1).unbind(1)  # (N,) each
        return torch.stack([engagement, dwell, revenue], 1)

    def advance(
        self, user_state: SocialFeedState, items: Tensor, feedback: Feedback
    ) -> tuple[SocialFeedState, Tensor]:
        config, state, item, shown = self.config, user_state, items[:, 0], feedback.shown[:, 0]
        dwell, _, followed, _, satisfaction = feedback.signals[:, 0].unbind(1)  # (N,) each
        ad = self.facts[item, 2] * shown  # (N,)
        tolerance, patience, fed = self._stocks(
            state.tolerance, state.patience, ad, state.taste, items, satisfaction
        )
        # As the recommender knows them: from the profile, and the dwell, the noisy satisfaction.
        guess, guessed = state.supposed.unbind(1)
        supposed = self._stocks(guess, guessed, ad, state.profile, items, dwell)[:2]
        feed = {name: getattr(state, name) for name in FEED}
        later = replace(
            state,
            **after_place(config, self.catalogue, self.of_creators, feed, item, shown, dwell, followed),
            tolerance=tolerance,
            patience=patience,
            supposed=torch.stack(supposed, 1),
            life=visits.feel(state.life, fed),
        )
        return later, later.patience <= 0

    def come_back(self, user_state: SocialFeedState, chance: Tensor) -> tuple[SocialFeedState, Tensor]:
        config, state = self.config, user_state
        life, gap = visits.next_visit(state.life, chance, config)
        left = config.overnight**gap  # (N,)
        beyond = state.patience.clamp_min(0) - START_PATIENCE  # (N,)
        return replace(
            state,
            same=state.same * left.unsqueeze(1),
            tolerance=1 - (1 - state.tolerance) * config.tolerance_kept**gap,
            patience=START_PATIENCE + left * beyond,
            supposed=torch.stack(
                [
                    1 - (1 - state.supposed[:, 0]) * config.tolerance_kept**gap,
                    START_PATIENCE + left * (state.supposed[:, 1].clamp_min(0) - START_PATIENCE),
                ],
                1,
            ),
            since_ad=torch.full_like(state.since_ad, MOST_PLACES),
            last_kind=torch.full_like(state.last_kind, -1),
            hour=life["opened"],
            life=life,
        ), gap

    def expected_reward(self, user_state: SocialFeedState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of showing each item of the block now."""
        return self.prospects(user_state, block)[0]

    def prospects(self, user_state: SocialFeedState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Expected reward and expected change of patience, (N, b) each, of showing each item now."""
        embedding, facts = self.catalogue.embedding[block], self.facts[block]
        known = user_state.follows.index_select(1, self.creator[block])  # (N, b)
        affinity, sameness = user_state.taste @ embedding.T, user_state.same @ embedding.T
        base, organic, ad = facts[:, 0], facts[:, 1], facts[:, 2]
        appeal = self._appeal(user_state, (base, organic, ad), affinity, sameness, known)
        reward = self.reward_of(appeal, facts)
        fed = self.fed(ad, appeal.sigmoid(), user_state.tolerance.unsqueeze(1))
        return reward, torch.minimum(fed, (MOST_PATIENCE - user_state.patience).unsqueeze(1))

    def patience(self, user_state: SocialFeedState) -> Tensor:
        return user_state.patience

    def tiresomeness(self, user_state: SocialFeedState) -> Tensor:
        """Mean loss of logits, over the user's FAVOURITES best posts and stories, from each item: (N, I)."""
        organic = self.facts[:, 1]
        likeness = (self.favourites(user_state.taste) @ self.catalogue.embedding.T).clamp_min(0)
        return LIKENESS_COST * (1 - LIKENESS_KEPT) * organic * likeness

    def favourites(self, taste: Tensor) -> Tensor:
        """(N, D): the mean embedding of the FAVOURITES best posts and stories by ``taste`` (N, D)."""
        embedding, organic = self.catalogue.embedding, self.facts[:, 1]
        affinity = (taste @ embedding.T).masked_fill(organic == 0, -torch.inf)  # (N, I)
        return embedding[affinity.topk(min(FAVOURITES, int(organic.sum()))).indices].mean(1)

    def as_known(self, user_state: SocialFeedState) -> SocialFeedState:
        """The state as a recommender knows a user: the profile for the taste, and average ease.

        Tolerance and patience are those that follow from the profile and the dwells. A user who is still
        there has some patience left.
        """
        tolerance, patience = user_state.supposed.unbind(1)
        return replace(
            user_state,
            taste=user_state.profile,
            ease=torch.zeros_like(user_state.ease),
            tolerance=tolerance,
            patience=patience.clamp_min(LEAST_PATIENCE),
        )

    def reward_of(self, appeal: Tensor, facts: Tensor) -> Tensor:
        """The expected reward (N, b) of items with this ``appeal`` (N, b); ``facts`` (b, 5) or (N, b, 5)."""
        _, organic, ad, suggestion, bid = facts.unbind(-1)
        engaged, dwelt, paid = (stream.weight for stream in self.streams)
        likes = (1 + SHARING_RATE + REPLY_RATE) * (appeal - LIKING_COST).sigmoid()
        reward = dwelt * appeal.sigmoid()
        reward = reward + engaged * organic * ((appeal - CLICK_COST).sigmoid() + likes)
        reward = reward + engaged * suggestion * (appeal - FOLLOW_COST).sigmoid()
        return reward + paid * (bid * ad) * (appeal - AD_CLICK_COST).sigmoid()

    def _stocks(
        self,
        tolerance: Tensor,
        patience: Tensor,
        ad: Tensor,
        taste: Tensor,
        items: Tensor,
        satisfaction: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tolerance and patience (N,) after a place, and the change of patience before the cap."""
        config = self.config
        fed = self.fed(ad, satisfaction, tolerance)
        affinity = rows.dot_rows(taste, self.catalogue.embedding, items)[:, 0]
        drained = config.ad_drain * ad * (1 + MISFIT_DRAIN * (1 - affinity) / 2)
        return (tolerance - drained).clamp_min(0), (patience + fed).clamp_max(MOST_PATIENCE), fed

    def fed(self, ad: Tensor, satisfaction: Tensor, tolerance: Tensor) -> Tensor:
        """The change of patience, before the cap; ``ad`` is 1 for an ad and 0 for others."""
        config = self.config
        fed = (1 - ad) * (SATISFACTION_GAIN * satisfaction - config.place_cost)
        return fed - config.ad_cost * ad - config.tolerance_cost * (1 - tolerance)

    def _appeal(
        self,
        user_state: SocialFeedState,
        facts: tuple[Tensor, Tensor, Tensor],
        affinity: Tensor,
        sameness: Tensor,
        known: Tensor,
    ) -> Tensor:
        """The appeal (N, b), from base logits, organic and ad of the items; ``known`` (N, b) is F."""
        base, organic, ad = facts
        cost = STRANGER_COST * (1 - known) + LIKENESS_COST * sameness.clamp_min(0)
        wear = AD_WEARINESS * (1 - user_state.tolerance).unsqueeze(1)  # (N, 1)
        of_user = user_state.ease.unsqueeze(1) + base
        return FIT_GAIN * affinity + of_user - organic * cost - ad * wear


FEED = ("follows", "followed", "followed_sum", "same", "since_ad", "last_kind", "hour")
"""The fields that a recommender knows of a feed under way, in the simulator's state and in a visit."""


def pieces_of_feed(feed: Known) -> dict[str, Tensor]:
    """The follows, the mean of the creators followed, the kind of the last item, places since the last ad.

    Also the diversity, ``1 - |m|^2``, in [0, 1].
    """
    kinds = torch.arange(len(KINDS), device=feed["last_kind"].device)
    return {
        "followed_items": feed["followed_sum"] / feed["followed"].clamp_min(1).unsqueeze(1),
        "last_kind": (feed["last_kind"].unsqueeze(1) == kinds).float(),
        "since_ad": feed["since_ad"].unsqueeze(1) / MOST_PLACES,
        "diversity": 1 - feed["same"].square().sum(1, keepdim=True),
        FOLLOWS: feed["follows"],
    }


def after_place(
    config: SocialFeedConfig,
    catalogue: Catalogue,
    of_creators: Tensor,
    feed: Known,
    item: Tensor,
    shown: Tensor,
    dwell: Tensor,
    followed: Tensor,
) -> dict[str, Tensor]:
    """``feed`` (FEED) after a place with ``item``, ``shown``, ``dwell`` and ``followed``, (N,) each.

    ``of_creators``: (C, D), of ``creator_embeddings``.
    """
    kind, embedding = catalogue.attributes["kind"][item], catalogue.embedding[item]
    organic = ((kind == POST) | (kind == STORY)) & shown
    fresh = organic.unsqueeze(1) * (1 - LIKENESS_KEPT)  # (N, 1)
    creator = catalogue.attributes["creator"][item].long()  # (N,)
    of_item = creator.unsqueeze(1)  # (N, 1)
    of_creator = feed["follows"].gather(1, of_item)
    # Nobody is followed twice, however often and with whatever value a caller says so.
    new = (1 - of_creator) * followed.clamp(0, 1).unsqueeze(1)  # (N, 1)
    return {
        "follows": feed["follows"].scatter(1, of_item, of_creator + new),
        "followed": feed["followed"] + new.squeeze(1),
        "followed_sum": feed["followed_sum"] + new * of_creators[creator],
        "same": feed["same"] + fresh * (embedding - feed["same"]),
        "since_ad": (feed["since_ad"] + 1).masked_fill((kind == AD) & shown, 0).clamp_max(MOST_PLACES),
        "last_kind": torch.where(shown, kind, feed["last_kind"]),
        "hour": (feed["hour"] + dwell * SECONDS / 3600) % visits.HOURS,
    }


def living(catalogue: Catalogue, hour: Tensor, items: Tensor) -> Tensor:
    """(N, K) bool: True if the ``items`` (N, K) or (K,) live at these hours (N,) of the week."""
    born, expires = catalogue.attributes["born"][items], catalogue.attributes["expires"][items]
    return (hour.unsqueeze(1) - born) % visits.HOURS < expires - born


def places_of_kinds(catalogue: Catalogue) -> tuple[Tensor, ...]:
    """The items of each kind, in the order of KINDS."""
    kind = catalogue.attributes["kind"]
    return tuple((kind == number).nonzero().squeeze(1) for number in range(len(KINDS)))


def permitted(
    catalogue: Catalogue, places: tuple[Tensor, ...], since_ad: Tensor, hour: Tensor, follows: Tensor
) -> Tensor:
    """(N, I) bool: the items that may be shown; ``places`` has the items of each kind."""
    allowed = torch.ones(len(hour), catalogue.num_items, dtype=torch.bool, device=hour.device)
    ads = (since_ad >= AD_GAP).unsqueeze(1)  # (N, 1)
    suggested = catalogue.attributes["creator"].long()[places[SUGGESTION]]
    allowed.index_copy_(1, places[AD], ads.expand(-1, len(places[AD])))
    allowed.index_copy_(1, places[STORY], living(catalogue, hour, places[STORY]))
    return allowed.index_copy_(1, places[SUGGESTION], follows.index_select(1, suggested) < 0.5)


def creator_embeddings(catalogue: Catalogue) -> Tensor:
    """(C, D): the direction of the mean embedding of each creator's items; 0 for a creator without items."""
    creator = catalogue.attributes["creator"].long()
    total = torch.zeros(int(creator.max()) + 1, catalogue.embedding.shape[1], device=creator.device)
    total.index_add_(0, creator, catalogue.embedding)
    return torch.nn.functional.normalize(total, dim=1)


def kinds(count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64: kinds with SHARES of the items, in random order; at least one item of each."""
    numbers = [max(1, round(share * count)) for share in SHARES[1:]]
    kind = torch.zeros(count, dtype=torch.int64)
    kind[: sum(numbers)] = torch.repeat_interleave(torch.arange(1, len(KINDS)), torch.tensor(numbers))
    return kind[torch.randperm(count, generator=generator)]


def hours(count: int, generator: torch.Generator) -> Tensor:
    """(count,): hours of the week, uniform."""
    return visits.HOURS * torch.rand(count, generator=generator)


def no_hours(count: int, generator: torch.Generator) -> Tensor:
    """(count,): 0, in whose place ``add_attributes`` puts the end of each item's hours."""
    return torch.zeros(count)


KIND_TEXT = "70 % posts, 10 % ads, 10 % suggested creators and 10 % stories, at random"
ITEMS = {
    "kind": kinds,
    "creator": attributes.creators,
    "bid": attributes.log_normal(3.0, 0.7, 0.1, MOST_BID),
    "born": hours,
    "expires": no_hours,
}
"""Attributes of items; they come from the data where these have them."""
USERS = {"ease": attributes.normal, "habit": attributes.normal, "opened": visits.opening_hours}


def add_attributes(world: World, seed: int) -> World:
    """The world with the attributes that this platform needs, and the graph of users and creators.

    A user follows FOLLOWED creators, drawn without repetition. The weight of a creator is his number of items
    times exp(SHARED_TASTE times the cosine of the user's taste and the mean embedding of his items).
    """
    world = attributes.with_attributes(world, ITEMS, USERS, seed)
    catalogue, population = world
    named = dict(catalogue.attributes)
    for name in ("bid", "born", "expires"):
        if name not in catalogue.drawn and not named[name].is_floating_point():
            raise UserError(f"The column '{name}' of the file about the items holds texts: give numbers.")
    if "kind" not in catalogue.drawn:
        named["kind"] = _kinds_of_data(named["kind"])
    ad, story = named["kind"] == AD, named["kind"] == STORY
    named["bid"] = named["bid"] * ad
    if "expires" in catalogue.drawn:
        named["born"] = named["born"] * story
        named["expires"] = named["born"] + torch.where(story, STORY_HOURS, float(visits.HOURS))
    organic = (named["kind"] == POST) | story
    named["author"] = torch.where(organic, named["creator"].long(), -1)
    own = (ItemFeature("kind", "classes", KINDS), ItemFeature("bid", "log"))
    others = (feature for feature in catalogue.features if feature.name not in ("kind", "bid"))
    catalogue = dataclasses.replace(catalogue, attributes=named, features=(*others, *own))
    check_items(catalogue)
    centres, creator = creator_embeddings(catalogue), named["creator"].long()
    weight = torch.bincount(creator, minlength=len(centres)).log()  # (C,), -inf without items
    chance = attributes.uniform("follows", (len(population.taste), len(centres)), seed)  # (U, C)
    scores = SHARED_TASTE * population.taste @ centres.T + weight - (-chance.log()).log()  # Gumbel
    follows = scores.topk(min(FOLLOWED, -(-len(centres) // 4))).indices  # (U, F)
    return World(
        catalogue,
        dataclasses.replace(population, attributes={**population.attributes, "follows": follows}),
    )


def _kinds_of_data(kind: Tensor) -> Tensor:
    """The kinds of a file about items as int64. Whole numbers stand for texts (data/tables/items.py).

    Raises UserError.
    """
    if not kind.is_floating_point() or not bool(torch.isin(kind, torch.arange(len(KINDS)).to(kind)).all()):
        names = ", ".join(f"{number} ({name})" for number, name in enumerate(KINDS))
        raise UserError(f"The column 'kind' of the file about the items must hold the numbers {names}.")
    return kind.long()


def check_items(catalogue: Catalogue) -> None:
    """Raise UserError for bids or hours that can't be."""
    bid, born, expires = (catalogue.attributes[name] for name in ("bid", "born", "expires"))
    for wrong, text in (
        (~((bid >= 0) & (bid <= MOST_BID)), f"has a bid that is not a number from 0 to {MOST_BID:g}"),
        (~(expires > born), "expires before it is born"),
    ):
        if bool(wrong.any()):
            name = catalogue.id_of(int(wrong.nonzero()[0]))
            raise UserError(f"Item {name} {text}: mend the file about the items.")


def begin_visit(config: SocialFeedConfig, catalogue: Catalogue, profiles: Tensor, hours: Tensor) -> Known:
    """The known pieces at the start of visits, but for ``of_people``."""
    number = len(profiles)
    return {
        "profile": profiles,
        "hour": hours,
        "same": torch.zeros_like(profiles),
        "since_ad": torch.full((number,), float(MOST_PLACES)),
        "last_kind": torch.full((number,), -1),
    }


def of_people(world: World, people: Tensor, likes: Sequence[Sequence[int]]) -> Known:
    """The creators that these people follow: users of the data by the graph, strangers by their likes.

    A stranger names a creator by a liked suggestion of this creator.
    """
    catalogue, population = world
    kind, creator = catalogue.attributes["kind"], catalogue.attributes["creator"].long()
    follows = torch.zeros(len(people), int(creator.max()) + 1)
    known = (people >= 0).nonzero().squeeze(1)
    graph = population.attributes["follows"][people[known]]  # (n, F)
    follows[known] = follows[known].scatter(1, graph, 1.0)
    for row in (people < 0).nonzero().squeeze(1).tolist():
        liked = torch.tensor([*likes[row]], dtype=torch.int64)
        follows[row, creator[liked[kind[liked] == SUGGESTION]]] = 1.0
    centres = creator_embeddings(catalogue)
    return {"follows": follows, "followed": follows.sum(1), "followed_sum": follows @ centres}


def after_visit(
    config: SocialFeedConfig, catalogue: Catalogue, known: Known, items: Tensor, seen: Feedback
) -> Known:
    """The known pieces of visits after a place."""
    dwell, _, followed, _ = seen.signals[:, 0].unbind(1)  # (N,) each
    centres, shown = creator_embeddings(catalogue), seen.shown[:, 0]
    later = after_place(config, catalogue, centres, known, items[:, 0], shown, dwell, followed)
    return {"profile": known["profile"], **later}


def pieces_of_visit(config: SocialFeedConfig, catalogue: Catalogue, known: Known) -> Mapping[str, Tensor]:
    return {"profile": known["profile"], **pieces_of_feed(known)}


def permitted_in_visit(config: SocialFeedConfig, catalogue: Catalogue, known: Known) -> Tensor:
    """(N, I) bool, as ``SocialFeed.permits``."""
    places = places_of_kinds(catalogue)
    return permitted(catalogue, places, known["since_ad"], known["hour"], known["follows"])


VISIT_PIECES = VisitPieces(
    begin=begin_visit,
    after=after_visit,
    pieces=pieces_of_visit,
    permits=permitted_in_visit,
    of_people=of_people,
    lasting=("follows", "followed", "followed_sum"),
    by_hour=True,
    consumed={"engagement": 1.0, "followed": 0.0, "revenue": 0.0},
)


PLATFORM = Platform(
    SocialFeedConfig,
    users=SocialFeed,
    add_attributes=add_attributes,
    heuristics={"fixed-load": FIXED_LOAD, "ad-threshold": AD_THRESHOLD},
    split=Split(lambda obs, interface: obs.context[:, interface.place_of("clock")].squeeze(1), searched=True),
    visit_pieces=VISIT_PIECES,
    presets={
        "*": {
            "env_config": {"max_episode_steps": 40},
            "model_config": {"head": "scorer"},
            # Most of an item's reward is paid at once, and ads are clicked rarely: short traces, less noise.
            "agent_config": {"gamma": 0.97, "gae_lambda": 0.8},
        },
        "ppo": {
            "agent_config": {
                "lr": 2e-3,
                "ent_coef": 0.002,
                "num_envs": 256,
                "n_steps": 40,
                "batch_size": 2048,
                "update_epochs": 3,
            },
            "train_config": {"total_timesteps": 600_000},
        },
        "a2c": {
            "agent_config": {"lr": 2e-3, "ent_coef": 0.03, "num_envs": 64, "n_steps": 16},
            "train_config": {"total_timesteps": 500_000, "eval_interval": 100, "save_interval": 100},
        },
    },
    question="How many ads can a feed carry, if each one drains a tolerance that only time restores?",
)

"""`short-video`: a vertical feed of short videos, one at a time, until the user has had enough.

Hidden state of a user (units in brackets):

- taste u [unit vector], from all of the user's log; a recommender sees the profile, from its first part
- mood m [logits, one number for each of 2 axes]: a slow random walk that only the history betrays
- weariness of creators c and of tags w [1 = one such video just now]; both fade by WEARINESS_KEPT a video
- patience p [first_patience at the start, MOST_PATIENCE at most; the user leaves at 0]
- habits, drawn once for each user: ease a [logits], loop habit l and loop noise n [standard normal]

Video i has an embedding e_i, tags g_i (unit norm), a creator, a duration d_i [s], a pull x_i (the sum of the
z-scores of log popularity and quality, as a z-score), a hook h_i [standard normal] and coordinates z_i on the
axes: the two leading principal axes of all embeddings, each standardised. Showing it::

    wear      = CREATOR_WEAR c_i + TAG_WEAR w . g_i                                                  [logits]
    appeal    = appeal_base + pull_gain x_i + ease_deviation a + TASTE_GAIN u . e_i + m . z_i
                + PATIENCE_PULL (p - first_patience) - wear                                          [logits]
    stays     ~ Bernoulli(sigmoid(appeal))
    ratio     = exp(ratio_base + RATIO_SLOPE (appeal - pull_gain x_i) + loop_deviation l
                - max(0, ln(d_i / 60)) + ratio_noise exp(loop_spread n) N(0, 1))   if the user stays [of d_i]
              = leave_seconds exp(hook_spread h_i + leave_noise N(0, 1)) / d_i                      otherwise
    watch_ratio = min(ratio, 5)                     seconds = watch_ratio d_i
    skip      = the user leaves within SKIP_SECONDS
    liked     ~ Bernoulli(sigmoid(appeal - LIKE_COST)) if the user stays, else 0
    shared    ~ liked Bernoulli(SHARE_RATE)         followed ~ liked Bernoulli(FOLLOW_RATE)
    commented ~ liked Bernoulli(COMMENT_RATE)       (hidden and unpaid)
    satisfaction = sigmoid(appeal)                                                                    [0..1]
    after     = z_i . q_u                                                                [standard deviations]

    p <- min(MOST_PATIENCE, p - PATIENCE_DRAIN + PATIENCE_FEED satisfaction + after_gain after)
    m <- MOOD_KEPT m + mood_deviation sqrt(1 - MOOD_KEPT^2) N(0, 1)   [first step: mood_deviation N(0, 1)]

    reward    = -0.5 skip + 0.4 watch_ratio (0 if skipped) + 0.3 liked + 0.2 shared + 0.1 followed

A long video is watched for at most about a minute. The time until a user leaves depends on the video and not
on its length. The after-effect is *assumed*: some videos restore a user and others drain him, and neither the
ratio nor the likes show it. q_u is the unit vector at a right angle to the user's taste in the plane of the
two axes. So the after-effect differs between users and is independent of the fit in that plane (wanting is
not valuing: Kleinberg, Mullainathan and Raghavan 2022, "The challenge of understanding what users want"). A
video that may not be shown brings no reward, satisfaction or weariness, and costs patience.

With ``visits`` above 1 an episode is a user's life (env/visits.py has the days of return). The feeling of a
video is its change of patience before the cap. A user's habit, and the feeling he is used to at first, are::

    habit = habit_base + habit_deviation N(0, 1), drawn once                                         [logits]
    usual = PATIENCE_FEED sigmoid(appeal_base + ease_deviation a) - PATIENCE_DRAIN

A gap of g days leaves the share overnight^g of the weariness of creators and tags, and of the distance of
patience from first_patience. Each visit has a new mood, and begins at the same hour of the day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.data.attributes import principal_axes, zscore
from recsys_rl.env import visits, watch_time
from recsys_rl.env.heuristics import FRESH_CREATORS
from recsys_rl.env.visits import VisitsConfig
from recsys_rl.env.watch_time import HIGHEST_RATIO, Watched
from recsys_rl.functional import rows
from recsys_rl.records import Known, Platform, VisitPieces
from recsys_rl.settings.fields import Finite, NonNegative, Positive, Range
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream, World

MOST_PATIENCE = 10.0
SKIP_SECONDS = 3.0  # a user who leaves sooner has skipped the video
LONG = 60.0  # seconds: people watch at most about this much of a video
REMEMBERED = 16  # latest videos whose creators can tire
FAVOURITES = 50  # a user's best items, over which ``tiresomeness`` averages
TASTE_GAIN = 2.6  # logits of appeal per unit of affinity (cosine of user and video)
MOOD_KEPT = 0.98  # share of the mood that remains after one video
CREATOR_WEAR = 1.0  # logits of appeal lost after one video of the same creator
TAG_WEAR = 0.4  # logits of appeal lost after one video with the same tags
WEARINESS_KEPT = 0.85  # share of the weariness that remains after one video
RATIO_SLOPE = 0.15  # increase of this logarithm per logit of appeal, the video's pull aside
LIKE_COST = 2.5  # appeal, in logits, of a video that half of the users who stay like
SHARE_RATE = 0.006  # share of the likes that come with a forward
FOLLOW_RATE = 0.009  # share of the likes that come with a new follow of the creator
COMMENT_RATE = 0.036  # share of the likes that come with a comment, which is neither observed nor paid
PATIENCE_DRAIN = 0.3  # patience that each video costs
PATIENCE_FEED = 0.24  # patience gained per unit of satisfaction
PATIENCE_PULL = 0.1  # logits of appeal per unit of patience above (or below) first_patience


@dataclass(frozen=True)
class ShortVideoConfig(VisitsConfig):
    """Users of a feed of short videos; the equations are at the top of the file."""

    appeal_base: Finite = 0.65
    """Logits of staying with an average video."""
    pull_gain: NonNegative = 3.3
    """Logits of appeal per standard deviation of a video's pull."""
    ease_deviation: NonNegative = 0.65
    """Standard deviation between users of the logits of staying."""
    mood_deviation: NonNegative = 1.5
    """Strength of the mood: standard deviation of the logits of appeal that it adds to a video one standard
    deviation out along one of its two axes. 0: no mood."""
    ratio_base: Finite = -0.21
    """Logarithm of the watch ratio of users who stay, at an appeal of 0."""
    ratio_noise: Positive = 0.24
    """Standard deviation of this logarithm between the videos of an average user."""
    loop_deviation: NonNegative = 0.25
    """Standard deviation of this logarithm between users."""
    loop_spread: Annotated[float, Range(0, high=10)] = 0.45
    """Standard deviation between users of the logarithm of ratio_noise."""
    leave_seconds: Positive = 4.5
    """Median of the seconds after which a user leaves a video."""
    hook_spread: NonNegative = 0.6
    """Standard deviation between videos of the logarithm of these seconds."""
    leave_noise: Positive = 0.1
    """Standard deviation of this logarithm for one video."""
    first_patience: Annotated[float, Range(above=0, high=10)] = 5.0
    """Patience at the start of a session; the largest is 10."""
    after_gain: NonNegative = 0.2
    """Patience gained per standard deviation of a video's after-effect."""


@dataclass(frozen=True)
class ShortVideoState:
    taste: Tensor  # (N, D)
    profile: Tensor  # (N, D)
    ease: Tensor  # (N,): logits
    habit: Tensor  # (N,): added to the log watch ratio
    spread: Tensor  # (N,): standard deviation of the log watch ratio
    restoring: Tensor  # (N, 2): q, which depends on the taste alone
    mood: Tensor  # (N, 2)
    recent: Tensor  # (N, REMEMBERED) int64: creators of the latest videos, latest last, -1 padding
    weary_of_tags: Tensor  # (N, G): w
    patience: Tensor  # (N,)
    begun: Tensor  # (N,) bool: a video was shown in this session
    hour: Tensor  # (N,): of the week, 0 .. 168, from Monday at midnight
    life: visits.Life = field(default_factory=dict)  # (N,) each; empty if an episode is one visit


class Facts(NamedTuple):
    """Numbers of videos, (I,) each, or (N, K) after a choice."""

    pull: Tensor  # logits
    less: Tensor  # taken from the log watch ratio of a user who stays
    leave: Tensor  # mean logarithm of the seconds until a user leaves
    duration: Tensor  # seconds
    left_ratio: Tensor  # expected watch ratio of a user who leaves
    left_watch: Tensor  # the same, with 0 for skips
    left_skip: Tensor  # probability that a user who leaves skips

    @property
    def of_leavers(self) -> Watched:
        return Watched(self.left_ratio, self.left_watch, self.left_skip)


@dataclass(frozen=True)
class ShortVideo(visits.Visiting):
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: ShortVideoConfig
    repeats: ClassVar[bool] = False
    history_length: ClassVar[int] = 50
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item", "last_signals", "time_of_week", "streak")
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("watch_ratio", high=HIGHEST_RATIO),
        Signal("liked"),
        Signal("shared"),
        Signal("followed"),
        Signal("skip", visible=False),
        Signal("watch", visible=False, high=HIGHEST_RATIO),
        Signal("seconds", visible=False, high=math.inf),
        Signal("satisfaction", visible=False, meaning="the satisfaction"),
        Signal("mood_step_1", visible=False, low=-math.inf, high=math.inf),
        Signal("mood_step_2", visible=False, low=-math.inf, high=math.inf),
        Signal("commented", visible=False),
    )
    streams: ClassVar[tuple[Stream, ...]] = (
        Stream("skip", -0.5),
        Stream("watch", 0.4),
        Stream("like", 0.3),
        Stream("share", 0.2),
        Stream("follow", 0.1),
        Stream("seconds", 0.0),
    )
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({"profile": 1.0, "time_of_week": 1.0})

    def __post_init__(self) -> None:
        # Worlds of earlier versions have no habit, which a single visit doesn't need.
        needed = {name: draw for name, draw in USERS.items() if self.visits > 1 or name != "habit"}
        items, users = self.catalogue, self.population.attributes
        attributes.require("A feed of short videos", items, ITEMS, users, needed)

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and those that are always drawn."""
        origins = attributes.origins(self.catalogue, {"duration": DURATIONS, "creator": attributes.CREATORS})
        always = "hooks of videos, habits of users and the after-effect are assumed"
        returns = "; so are the days on which users return" if self.visits > 1 else ""
        return f"{origins}; {always}{returns}"

    @cached_property
    def _of_streams(self) -> Tensor:
        """(M,): the places of the signals that the streams sum."""
        places = {signal.name: index for index, signal in enumerate(self.signals)}
        names = ("skip", "watch", "liked", "shared", "followed", "seconds")
        return torch.tensor([places[name] for name in names], device=self.catalogue.embedding.device)

    @cached_property
    def tags(self) -> Tensor:
        """(I, G) tags as unit vectors (zero where a video has none)."""
        return self.catalogue.unit_tags

    @cached_property
    def axes(self) -> Tensor:
        """(D, 2): the leading principal axes of the embeddings, each with a positive largest entry."""
        return principal_axes(self.catalogue.embedding, 2)

    @cached_property
    def coordinates(self) -> Tensor:
        """(I, 2): z, the standardised coordinates of the videos on the axes."""
        return torch.stack(
            [zscore(coordinate) for coordinate in (self.catalogue.embedding @ self.axes).unbind(1)], 1
        )

    @cached_property
    def facts(self) -> Tensor:
        """(I, 7): the columns of ``Facts``."""
        config, items = self.config, self.catalogue.attributes
        pull = zscore(zscore((self.catalogue.popularity + 1e-3).log()) + zscore(self.catalogue.quality))
        duration = items["duration"]
        leave = math.log(config.leave_seconds) + config.hook_spread * items["hook"]
        left = watch_time.expected_of_leavers(leave, config.leave_noise, duration, SKIP_SECONDS)
        columns = Facts(
            config.appeal_base + config.pull_gain * pull,
            RATIO_SLOPE * config.pull_gain * pull + (duration / LONG).log().clamp_min(0),
            *(leave, duration, *left),
        )
        return torch.stack(columns, 1)

    def sample(self, users: Tensor) -> ShortVideoState:
        config, n = self.config, len(users)
        taste = self.population.taste.index_select(0, users)  # (N, D)
        drawn = self.population.attributes
        habits = {name: drawn[name].index_select(0, users) for name in USERS if name in drawn}
        ease = config.ease_deviation * habits["ease"]
        life: visits.Life = {}
        if self.visits > 1:
            life = visits.begin(
                habit=config.habit_base + config.habit_deviation * habits["habit"],
                usual=PATIENCE_FEED * (config.appeal_base + ease).sigmoid() - PATIENCE_DRAIN,
                opened=habits["opened"],
            )
        return ShortVideoState(
            taste=taste,
            profile=self.population.profile.index_select(0, users),
            ease=ease,
            habit=config.loop_deviation * habits["loop_habit"],
            spread=config.ratio_noise * (config.loop_spread * habits["loop_noise"]).exp(),
            restoring=self._restoring(taste),
            mood=taste.new_zeros(n, 2),
            recent=users.new_full((n, REMEMBERED), -1),
            weary_of_tags=taste.new_zeros(n, self.tags.shape[1]),
            patience=taste.new_full((n,), config.first_patience),
            begun=torch.zeros_like(users, dtype=torch.bool),
            hour=habits["opened"],
            life=life,
        )

    def possible(self, user_state: ShortVideoState) -> bool:
        patience, recent, hour = user_state.patience, user_state.recent, user_state.hour
        known = (recent >= -1) & (recent < self.num_creators)
        within = (
            (patience > 0)
            & (patience <= MOST_PATIENCE)
            & (hour >= 0)
            & (hour < visits.HOURS)
            & (user_state.spread > 0)
        )
        weary = user_state.weary_of_tags
        return bool(known.all() and within.all() and (weary >= 0).all()) and visits.possible(user_state.life)

    def visible(self, user_state: ShortVideoState) -> dict[str, Tensor]:
        return {"profile": user_state.profile, "time_of_week": time_of_week(user_state.hour)}

    def respond(
        self, user_state: ShortVideoState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        facts = Facts(*self.facts[items].unbind(-1))  # (N, K) each
        appeal = self._appeal_of(user_state, items, facts)  # (N, K)
        satisfaction = appeal.sigmoid()
        config = self.config
        location, spread = self._of_stayers(user_state, appeal, facts), user_state.spread.unsqueeze(1)
        likes = (appeal - LIKE_COST).sigmoid()
        if generator is None:
            watching = watch_time.expected(satisfaction, location, spread, facts.of_leavers)
            liked = satisfaction * likes
            shared, followed = SHARE_RATE * liked, FOLLOW_RATE * liked
            commented = COMMENT_RATE * liked
            steps = [torch.zeros_like(appeal)] * 2
        else:
            chance = torch.rand(4, *appeal.shape, generator=generator, device=appeal.device)
            normal = torch.randn(3, *appeal.shape, generator=generator, device=appeal.device)
            stays = chance[0] < satisfaction
            of_leaving = facts.leave, config.leave_noise, facts.duration, SKIP_SECONDS
            watching = watch_time.drawn(stays, location, spread, *of_leaving, normal[0])
            liked = (stays & (chance[1] < likes)).float()
            shared = liked * (chance[2] < SHARE_RATE)
            followed = liked * (chance[3] < FOLLOW_RATE)
            # Given a like, chance[1] / likes is uniform and independent of the other draws.
            commented = liked * (chance[1] < likes * COMMENT_RATE)
            steps = self._steps_of_mood(user_state, normal[1:])
        signals = torch.stack(
            [
                *(watching.ratio, liked, shared, followed, watching.skip, watching.watch),
                *(watching.ratio * facts.duration, satisfaction, *steps, commented),
            ],
            -1,
        )  # (N, K, S)
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals.sum(1).index_select(1, self._of_streams)  # (N, M)

    def advance(
        self, user_state: ShortVideoState, items: Tensor, feedback: Feedback
    ) -> tuple[ShortVideoState, Tensor]:
        config, shown = self.config, feedback.shown
        felt = feedback.signals[:, 0, 6:10]  # (N, 4)
        seconds, satisfaction, steps = felt[:, 0], felt[:, 1], felt[:, 2:]  # (N,), (N,), (N, 2)
        after = (self.coordinates.index_select(0, items[:, 0]) * user_state.restoring).sum(1)  # (N,)
        fed = PATIENCE_FEED * satisfaction - PATIENCE_DRAIN
        fed = fed + config.after_gain * after * shown[:, 0]
        tags = rows.add_rows(user_state.weary_of_tags, self.tags, items, shown)  # (N, G)
        creator = self.catalogue.attributes["creator"].take(items)  # (N, 1)
        state = replace(
            user_state,
            mood=MOOD_KEPT * user_state.mood + steps,
            recent=rows.push_rows(user_state.recent, creator, shown),
            weary_of_tags=tags.mul_(WEARINESS_KEPT),
            patience=(user_state.patience + fed).clamp_max(MOST_PATIENCE),
            begun=user_state.begun | shown[:, 0],
            hour=later(user_state.hour, seconds),
            life=visits.feel(user_state.life, fed),
        )
        return state, state.patience <= 0

    def come_back(self, user_state: ShortVideoState, chance: Tensor) -> tuple[ShortVideoState, Tensor]:
        config = self.config
        life, gap = visits.next_visit(user_state.life, chance, config)
        left = config.overnight**gap  # (N,)
        beyond = user_state.patience.clamp_min(0) - config.first_patience  # (N,)
        return replace(
            user_state,
            mood=torch.zeros_like(user_state.mood),
            recent=self._forget(user_state.recent, left),
            weary_of_tags=user_state.weary_of_tags * left.unsqueeze(1),
            patience=config.first_patience + left * beyond,
            begun=torch.zeros_like(user_state.begun),
            hour=life["opened"],
            life=life,
        ), gap

    def expected_reward(self, user_state: ShortVideoState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of showing each video of the block now."""
        return self.prospects(user_state, block)[0]

    def prospects(self, user_state: ShortVideoState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Expected reward and expected change of patience, (N, b) each, of showing each video now."""
        tags, creators = self.tags[block], self.catalogue.attributes["creator"][block]
        return self._outlook(
            user_state,
            user_state.taste @ self.catalogue.embedding[block].T,
            user_state.mood @ self.coordinates[block].T,
            user_state.weary_of_tags @ tags.T,
            self._creator_weariness(user_state)[:, creators],
            user_state.restoring @ self.coordinates[block].T,
            Facts(*self.facts[block].unbind(1)),
        )

    def _outlook(
        self,
        user_state: ShortVideoState,
        affinity: Tensor,
        along: Tensor,
        of_tags: Tensor,
        of_creators: Tensor,
        after: Tensor,
        facts: Facts,
    ) -> tuple[Tensor, Tensor]:
        """The prospects (N, ...) from u . e, m . z, w . g, c and q . z (N, ...), and ``facts`` (...)."""
        config = self.config
        appeal = torch.add(along, affinity, alpha=TASTE_GAIN).add_(facts.pull)
        appeal = appeal.add_(self._offset(user_state).unsqueeze(1)).sub_(of_tags, alpha=TAG_WEAR)
        appeal = appeal.sub_(of_creators, alpha=CREATOR_WEAR)  # (N, b)
        stays = appeal.sigmoid()
        location = self._of_stayers(user_state, appeal, facts)
        watching = watch_time.expected(stays, location, user_state.spread.unsqueeze(1), facts.of_leavers)
        liked = stays * (appeal - LIKE_COST).sigmoid()
        weight = {stream.name: stream.weight for stream in self.streams}
        by_like = weight["like"]
        by_like += weight["share"] * SHARE_RATE + weight["follow"] * FOLLOW_RATE
        reward = weight["watch"] * watching.watch + by_like * liked + weight["skip"] * watching.skip
        fed = PATIENCE_FEED * stays - PATIENCE_DRAIN + config.after_gain * after
        return reward, torch.minimum(fed, (MOST_PATIENCE - user_state.patience).unsqueeze(1))

    def patience(self, user_state: ShortVideoState) -> Tensor:
        return user_state.patience

    def tiresomeness(self, user_state: ShortVideoState) -> Tensor:
        """Mean loss of logits, over the user's FAVOURITES best videos, from showing each video: (N, I)."""
        by_creator, of_tags, user = self.favourites(user_state.taste)
        wear = by_creator[:, self.catalogue.attributes["creator"]]
        return (wear + TAG_WEAR * (of_tags @ self.tags.T))[user]

    def favourites(self, taste: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Wear (n, C) by each creator and mean tags (n, G) of the FAVOURITES best videos by each taste.

        The third tensor (N,) is the row of each user.
        """
        distinct, user = torch.unique(taste, dim=0, return_inverse=True)  # a planner plays few users
        affinity = distinct @ self.catalogue.embedding.T  # (n, I)
        appeal = TASTE_GAIN * affinity + self.facts[:, 0]
        best = appeal.topk(min(FAVOURITES, appeal.shape[1])).indices  # (n, F)
        creators = self.catalogue.attributes["creator"]
        count = torch.zeros(len(best), self.num_creators, device=best.device)  # (n, C)
        count.scatter_add_(1, creators[best], torch.ones_like(best, dtype=count.dtype))
        return CREATOR_WEAR * count / best.shape[1], self.tags[best].mean(1), user

    def as_known(self, user_state: ShortVideoState) -> ShortVideoState:
        """The state as a recommender knows a user: the profile for the taste, average habits, no mood."""
        nothing = torch.zeros_like(user_state.ease)
        return replace(
            user_state,
            taste=user_state.profile,
            ease=nothing,
            habit=nothing,
            spread=torch.full_like(nothing, self.config.ratio_noise),
            restoring=self._restoring(user_state.profile),
            mood=torch.zeros_like(user_state.mood),
        )

    @cached_property
    def num_creators(self) -> int:
        return int(self.catalogue.attributes["creator"].max()) + 1

    @cached_property
    def fading(self) -> Tensor:
        """(REMEMBERED,): weariness left of each of the latest videos, the latest last."""
        age = torch.arange(REMEMBERED, 0, -1, device=self.catalogue.embedding.device)
        return WEARINESS_KEPT**age

    def _appeal_of(self, user_state: ShortVideoState, items: Tensor, facts: Facts) -> Tensor:
        """The appeal (N, K) of the videos shown."""
        same = user_state.recent.unsqueeze(1) == self.catalogue.attributes["creator"].take(items).unsqueeze(2)
        wear = CREATOR_WEAR * (same * self.fading).sum(2)  # (N, K)
        wear += TAG_WEAR * rows.dot_rows(user_state.weary_of_tags, self.tags, items)
        affinity = rows.dot_rows(user_state.taste, self.catalogue.embedding, items)
        along = rows.dot_rows(user_state.mood, self.coordinates, items)
        offset = self._offset(user_state).unsqueeze(1)  # (N, 1)
        return TASTE_GAIN * affinity + along + facts.pull + offset - wear

    def _forget(self, recent: Tensor, left: Tensor) -> Tensor:
        """``recent`` (N, REMEMBERED) after so many videos without a creator that ``left`` (N,) of c stays."""
        moved = (left.log() / math.log(WEARINESS_KEPT)).clamp_max(REMEMBERED).round()
        slot = torch.arange(REMEMBERED, device=recent.device) + moved.long().unsqueeze(1)  # (N, REMEMBERED)
        return recent.gather(1, slot.clamp_max(REMEMBERED - 1)).masked_fill(slot >= REMEMBERED, -1)

    def _offset(self, user_state: ShortVideoState) -> Tensor:
        """(N,): logits that are the same for every video."""
        left = user_state.patience - self.config.first_patience
        return user_state.ease + PATIENCE_PULL * left

    def _creator_weariness(self, user_state: ShortVideoState) -> Tensor:
        """(N, C): c of each creator."""
        known, recent = user_state.recent >= 0, user_state.recent.clamp_min(0)
        worn = torch.zeros(len(recent), self.num_creators, device=recent.device)
        return worn.scatter_add_(1, recent, known * self.fading)

    def _restoring(self, taste: Tensor) -> Tensor:
        """(N, 2): q, the unit vector at a right angle to the taste (N, D) in the plane of the axes."""
        first, second = (taste @ self.axes).unbind(1)
        across = torch.stack([-second, first], 1)
        size: Tensor = across.norm(dim=1, keepdim=True)  # (N, 1)
        return across / size.clamp_min(1e-6)

    def _of_stayers(self, user_state: ShortVideoState, appeal: Tensor, facts: Facts) -> Tensor:
        """Mean logarithm of the watch ratio of users who stay, of the shape of ``appeal``."""
        location = self.config.ratio_base + RATIO_SLOPE * appeal - facts.less
        return location + user_state.habit.unsqueeze(1)

    def _steps_of_mood(self, user_state: ShortVideoState, normal: Tensor) -> list[Tensor]:
        """The steps (N, K) of the mood along both axes, from the noise ``normal`` (2, N, K)."""
        config = self.config
        later = config.mood_deviation * (1 - MOOD_KEPT**2) ** 0.5
        scale = torch.where(user_state.begun, later, config.mood_deviation).unsqueeze(1)
        return [scale * normal[0], scale * normal[1]]


def time_of_week(hour: Tensor) -> Tensor:
    """(N, 4): sines, then cosines, of the hour of the day and of the ``hour`` (N,) of the week."""
    turn = 2 * math.pi * hour
    angles = torch.stack([turn / 24, turn / visits.HOURS], 1)  # (N, 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


def later(hour: Tensor, seconds: Tensor) -> Tensor:
    """(N,): the hour of the week after so many ``seconds`` (N,) of watching."""
    return (hour + seconds / 3600) % visits.HOURS


def after_video(
    config: ShortVideoConfig, catalogue: Catalogue, known: Known, items: Tensor, seen: Feedback
) -> Known:
    """The known pieces of visits after a video: the clock goes on while it is watched."""
    seconds = seen.signals[:, 0, 0] * catalogue.attributes["duration"].take(items[:, 0])  # the watch ratio
    return {**known, "hour": later(known["hour"], seconds)}


VISIT_PIECES = VisitPieces(
    begin=lambda config, catalogue, profiles, hours: {"profile": profiles, "hour": hours},
    after=after_video,
    pieces=lambda config, catalogue, known: {
        "profile": known["profile"],
        "time_of_week": time_of_week(known["hour"]),
    },
    by_hour=True,
    consumed={"liked": 0.0, "shared": 0.0, "followed": 0.0},
)


DURATIONS = "log-normal with median 10 s and log deviation 0.5, within 3 .. 300 s"
ITEMS = {
    "duration": attributes.log_normal(10.0, 0.5, 3.0, 300.0),
    "creator": attributes.creators,
    "hook": attributes.normal,
}
"""Attributes of videos; the first two come from the data where these have them."""
USERS = {
    "ease": attributes.normal,
    "loop_habit": attributes.normal,
    "loop_noise": attributes.normal,
    "opened": visits.opening_hours,
    "habit": attributes.normal,
}


def add_attributes(world: World, seed: int) -> World:
    """The world with the attributes that this platform needs."""
    return attributes.with_attributes(world, ITEMS, USERS, seed)


PLATFORM = Platform(
    ShortVideoConfig,
    users=ShortVideo,
    add_attributes=add_attributes,
    heuristics={"fresh-creators": FRESH_CREATORS},
    visit_pieces=VISIT_PIECES,
    presets={
        "*": {
            "env_config": {"max_episode_steps": 200},
            "agent_config": {"gamma": 0.99, "gae_lambda": 0.88},
        },
        "ppo": {
            "agent_config": {
                "lr": 2e-3,
                "ent_coef": 0.003,
                "num_envs": 128,
                "n_steps": 64,
                "update_epochs": 3,
            },
            "train_config": {"total_timesteps": 2_400_000},
        },
        "a2c": {
            "agent_config": {
                "lr": 2e-3,
                "ent_coef": 0.03,
                # With 0.88, as above, the policy would follow a critic that knows little at first.
                "gae_lambda": 0.95,
                "num_envs": 64,
                "n_steps": 16,
            },
            "train_config": {
                "total_timesteps": 2_000_000,
                # A tenth of the platform's weights. Values of 40 take the critic a quarter of the gradient
                # steps to reach, and its gradient would be ten times that of the policy and clipped with it.
                "weights": ("skip=-0.05", "watch=0.04", "like=0.03", "share=0.02", "follow=0.01"),
                "eval_interval": 100,
                "save_interval": 100,
            },
        },
    },
    question="Which videos keep a user in the feed, if the time watched does not show what tires him?",
)

"""`long-video`: two surfaces, suggestions that compete with the video that plays, and trust.

A session is a series of requests, each with an ordered slate of K suggestions. While nothing plays the slate
is the **home** page. While a video plays it is the **sidebar**: one request at the start of each quarter of
the video, which therefore stays over several requests. Hidden state of a user (units in brackets):

- taste u [unit vector], from all of the user's log; a recommender only sees the profile, from its first part
- wear w [vector]: recency-weighted sum of the categories g of the videos started (1 = one started just now)
- trust t [0..1; trust_start at the start]
- the video c that plays, and the number q of its quarters watched; both are visible

With catch_i = max(0, (popularity_i - quality_i) / sqrt(2)) of z-scores (more popular than good)::

    fit_i   = u . e_i - fit_midpoint                                                    [cosine]
    want_i  = want_gain fit_i + lure_gain catch_i - wear_gain w . g_i
              + trust_gain (t - trust_start)                                            [logits, to pick it]
    hold_c  = hold_bias + hold_gain fit_c - lure_gain catch_c - length_cost ln(duration_c / 10 min)
                                                                                        [logits, to go on]
    none    = 0 at home, and go_on_bias + hold_c while c plays                          [logits]

Place k is seen with probability k^-seeing_exponent, from the top. Among the seen places the user picks one or
none by multinomial logit (functional/choice_model.py, ``position_based``). Then:

- a pick ends the video c that plays, and starts the picked one;
- without a pick, the user watches another quarter of c with probability sigmoid(hold_c), and else leaves c
  for the home page. After the fourth quarter c ends and the first place starts by itself (autoplay).

When c is left after q quarters, completion = q / 4 is paid, the user subscribes to its creator with
probability completion x sigmoid(SUBSCRIBE_BIAS + SUBSCRIBE_GAIN fit_c), but only once, and::

    t <- clip(t + TRUST_RATE (completion - TRUST_MIDPOINT), 0, 1)        w <- WEAR_RECOVERY w + g_started

    reward = 0.6 completion + 0.2 clicked + 0.2 subscribed - SAMENESS_COST sameness + 0 ad_clicks

``sameness`` is the mean cosine of a started video to the videos started before. With probability AD_SHARE an
ad runs before a video, and AD_CLICK_RATE of these ads are clicked. A session ends after idle_limit requests
in a row in which nothing was picked and no quarter finished. A video that plays at the time limit pays
nothing.

With ``visits`` above 1 an episode is a user's life (env/visits.py has the days of return). Its feelings are
completion - TRUST_MIDPOINT of each video that is left, and -TRUST_MIDPOINT of each request at home without a
pick. A user's habit, and the feeling that he is used to at first, are::

    habit = habit_base + habit_deviation N(0, 1), drawn once                                         [logits]
    usual = first_usual

A gap of g days leaves the share overnight^g of the wear. Trust and subscriptions stay. The next visit begins
at home, with no video watched.

There are three reasons to plan ahead. Completion is paid requests after the pick that earned it. A catchy
video is picked, left early, and costs trust, without which no suggestion is picked. A good suggestion beside
a good video takes the user away from it.
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
from recsys_rl.data.attributes import catch
from recsys_rl.env import visits
from recsys_rl.env.heuristics import UP_NEXT
from recsys_rl.env.visits import VisitsConfig
from recsys_rl.functional import rows
from recsys_rl.functional.choice_model import draw_at, position_based
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.records import Known, Platform, Split, VisitPieces
from recsys_rl.settings.fields import Finite, NonNegative, Range
from recsys_rl.types import (
    Catalogue,
    Events,
    Feedback,
    Interface,
    Obs,
    Population,
    Signal,
    Stream,
    World,
)

FAVOURITES = 50
"""Number of a user's best items that ``tiresomeness`` averages over."""
QUARTERS = 4
MEMORY = 16
"""Number of creators, the latest, that a user remembers a subscription to."""
MODULUS, FACTOR, SUMMAND = 2**32, 1664525, 1013904223
"""The linear congruential generator of Press et al. (1992, "Numerical Recipes in C", section 7.1)."""
FIRST = (2654435761, 2246822519)
"""Odd factors that spread the rows of users over 0 .. MODULUS - 1."""

# Places of the signals in a feedback. The first four are visible, one entry for each video that was left.
COMPLETION, CLICKED, SUBSCRIBED, AD_CLICKED, STARTED, SAMENESS, CHANCE, TRUST = range(8)
WEAR_RECOVERY = 0.95  # share of the wear that remains after one request, in [0, 1)
TRUST_RATE = 0.25  # trust gained per unit of completion above (or lost below) TRUST_MIDPOINT
TRUST_MIDPOINT = 0.5  # completion that leaves the trust as it is
SUBSCRIBE_BIAS = -2.0  # logits of subscribing after a whole video that is neither good nor bad
SUBSCRIBE_GAIN = 4.0  # logits of subscribing per unit of fit
SAMENESS_COST = 0.1  # reward lost when a video starts, per unit of mean cosine to the videos before
AD_SHARE = 0.5  # share of the videos with an ad before them
AD_CLICK_RATE = 0.02  # share of the ads that are clicked


@dataclass(frozen=True)
class LongVideoConfig(VisitsConfig):
    """Users who watch long videos; the equations are at the top of the file."""

    suggestions: Annotated[int, Range(1, 100)] = 6
    """K: ordered suggestions of a request."""
    watched_window: Annotated[int, Range(1, 10_000)] = 50
    """Videos in the visible history, the last ones that were left."""
    seeing_exponent: NonNegative = 0.7
    """Place k is seen with probability k to the power of minus this."""
    fit_midpoint: Annotated[float, Range(-1, 1)] = 0.25
    """Cosine of user and item of a video that is neither good nor bad."""
    want_gain: NonNegative = 4.0
    """Logits of picking a suggestion per unit of fit."""
    lure_gain: NonNegative = 1.5
    """Logits that a catchy video adds to picking and takes from watching on, per unit of catch."""
    wear_gain: NonNegative = 0.7
    """Logits of picking lost per unit of wear of the video's categories."""
    trust_gain: NonNegative = 5.0
    """Logits of picking per unit of trust above (or below) trust_start."""
    trust_start: Annotated[float, Range(0, 1)] = 0.5
    """Trust at the start of a session, from 0 to 1."""
    hold_bias: Finite = 1.0
    """Logits of watching another quarter of a video of ten minutes that is neither good nor bad."""
    hold_gain: NonNegative = 4.0
    """Logits of watching another quarter per unit of fit."""
    length_cost: NonNegative = 0.3
    """Logits of watching another quarter lost each time that the duration is e times as long."""
    go_on_bias: Finite = 0.5
    """Logits of picking no suggestion while a video of hold 0 plays."""
    idle_limit: Annotated[int, Range(1, 10_000)] = 5
    """Requests in a row without a pick and without a finished quarter that end a session."""
    visit_gain: NonNegative = 5.0
    """Logits of returning per unit of completion by which the visit's videos were better than usual."""
    first_usual: Annotated[float, Range(-1, 1)] = -0.4
    """Feeling that users are used to before their first visit; it matters only with visits above 1."""


@dataclass(frozen=True)
class LongVideoState:
    taste: Tensor  # (N, D)
    profile: Tensor  # (N, D)
    wear: Tensor  # (N, G): w
    trust: Tensor  # (N,): t
    current: Tensor  # (N,) int64: the video that plays, -1 at home
    quarters: Tensor  # (N,) int64: quarters of it that were watched, 0 .. 3
    clicked: Tensor  # (N,): 1 if it was picked, 0 if it started by itself
    ad_clicked: Tensor  # (N,): 1 if an ad before it was clicked
    watched: Tensor  # (N, D): sum of the embeddings of the videos started
    num_watched: Tensor  # (N,)
    subscribed: Tensor  # (N, MEMORY) int64: creators subscribed to, the latest last, -1 padding
    idle: Tensor  # (N,) int64: requests in a row without a pick and without a finished quarter
    luck: Tensor  # (N, 2) int64 in 0 .. MODULUS - 1: in place of draws where there is no generator
    life: visits.Life = field(default_factory=dict)  # (N,) each; empty if an episode is one visit


class Watching(NamedTuple):
    """The video that plays, and the requests since the last use; all is visible."""

    current: Tensor  # (N,) int64: the video that plays, -1 at home
    quarters: Tensor  # (N,) int64: quarters of it that were watched, 0 .. 3
    idle: Tensor  # (N,) int64: requests in a row without a pick and without a finished quarter

    def after(self, starts: Tensor, picked: Tensor, left: Tensor, completion: Tensor) -> Watching:
        """The state after a request in which ``starts`` (N,), -1 for none, starts.

        ``picked`` (N,): by a pick. ``left`` (N,): the video that played was left, with this ``completion``.
        """
        watches_on = (self.current >= 0) & ~left
        finished = watches_on | (left & (completion == 1))  # a quarter
        return Watching(
            current=torch.where(starts >= 0, starts, torch.where(watches_on, self.current, -1)),
            quarters=torch.where(watches_on, self.quarters + 1, 0),
            idle=torch.where(picked | finished, 0, self.idle + 1),
        )

    def pieces(self, config: LongVideoConfig, catalogue: Catalogue, surfaces: Tensor) -> dict[str, Tensor]:
        """The pieces of the context; ``surfaces`` (5, 5) has home and the quarters as one of five."""
        playing = self.current >= 0
        embedding = catalogue.embedding.index_select(0, self.current.clamp_min(0))
        return {
            "current_item": embedding.masked_fill_(~playing.unsqueeze(1), 0.0),  # (N, D)
            "progress": surfaces.index_select(0, (self.quarters + 1) * playing),  # (N, 5)
            "idle": (self.idle / config.idle_limit).unsqueeze(1),  # (N, 1)
        }


class Odds(NamedTuple):
    """Probabilities of a request with each item alone in the first place."""

    picks: Tensor  # (N, b): the user picks the item
    starts: Tensor  # (N, b): the item starts, by a pick or by itself
    goes_on: Tensor  # (N,): another quarter of the video that plays is watched, if nothing is picked
    ends: Tensor  # (N,): and it is the last


@dataclass(frozen=True)
class LongVideo(visits.Visiting):
    """The user model. Without a generator the numbers of a sequence take the place of random draws."""

    catalogue: Catalogue
    population: Population
    config: LongVideoConfig
    repeats: ClassVar[bool] = False
    num_events: ClassVar[int] = 1
    context: ClassVar[tuple[str, ...]] = ("profile", "current_item", "progress", "idle", "clock")
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("completion"),
        Signal("clicked"),
        Signal("subscribed"),
        Signal("ad_clicked"),
        Signal("started", visible=False, chosen=True),
        Signal("sameness", visible=False, low=-1.0),
        Signal("chance", visible=False),
        Signal("trust", visible=False, meaning="the trust before the request"),
    )
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"profile": 1.0, "current_item": 1.0, "progress": 1.0, "idle": 1.0}
    )

    def __post_init__(self) -> None:
        needed = USERS if self.visits > 1 else {}  # a single visit needs no habit
        held = self.population.attributes
        attributes.require("A site of long videos", self.catalogue, ITEMS, held, needed)

    @property
    def slate_size(self) -> int:
        return self.config.suggestions

    @property
    def history_length(self) -> int:
        return max(self.config.watched_window, self.slate_size)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        return (
            Stream("completion", 0.6),
            Stream("clicked", 0.2),
            Stream("subscribed", 0.2),
            Stream("sameness", -SAMENESS_COST),
            Stream("ad_clicks", 0.0),
        )

    @cached_property
    def _of_streams(self) -> Tensor:
        """(M,): what the streams sum, among the signals of the slate and then those of the event."""
        event = len(self.signals)
        places = [event + COMPLETION, CLICKED, event + SUBSCRIBED, SAMENESS, AD_CLICKED]
        return torch.tensor(places, device=self.catalogue.embedding.device)

    @cached_property
    def _surfaces(self) -> Tensor:
        """(5, 5): each surface as one of five."""
        return torch.eye(QUARTERS + 1, device=self.catalogue.embedding.device)

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and what the data lack."""
        texts = [attributes.origins(self.catalogue, {"duration": DURATIONS, "creator": attributes.CREATORS})]
        if not self.catalogue.knows_quality:
            texts.append("the data hold no ratings that differ, so no video is catchy")
        if not bool(self.catalogue.tags.any()):
            texts.append("the data hold no categories, so no user tires of a category")
        if self.visits > 1:
            texts.append("habits of users and the days on which they return are assumed")
        return "; ".join(texts)

    @cached_property
    def catch(self) -> Tensor:
        """(I,): catch_i of each item, in z-scores, at least 0."""
        return catch(self.catalogue)

    @cached_property
    def categories(self) -> Tensor:
        """(I, G) genres as unit vectors (zero where an item has none)."""
        return self.catalogue.unit_tags

    @cached_property
    def hold_of_item(self) -> Tensor:
        """(I,): hold of each item without the taste, in logits."""
        config, duration = self.config, self.catalogue.attributes["duration"]  # (I,) seconds
        longer = (duration.float() / 600).clamp_min(1e-3).log()
        offset = config.hold_bias - config.hold_gain * config.fit_midpoint
        return offset - config.lure_gain * self.catch - config.length_cost * longer

    @cached_property
    def creator(self) -> Tensor:
        """(I,) int64: the creator of each item, at least 0."""
        return self.catalogue.attributes["creator"].long()

    def sample(self, users: Tensor) -> LongVideoState:
        config = self.config
        taste = self.population.taste.index_select(0, users)  # (N, D)
        n, zeros = len(users), taste.new_zeros(len(users))
        life: visits.Life = {}
        if self.visits > 1:
            habit = self.population.attributes["habit"].index_select(0, users)
            life = visits.begin(
                config.habit_base + config.habit_deviation * habit, zeros + config.first_usual
            )
        spread = torch.tensor(FIRST, device=users.device)
        return LongVideoState(
            taste=taste,
            profile=self.population.profile.index_select(0, users),
            wear=taste.new_zeros(n, self.categories.shape[1]),
            trust=taste.new_full((n,), config.trust_start),
            current=torch.full_like(users, -1),
            quarters=torch.zeros_like(users),
            clicked=zeros,
            ad_clicked=zeros,
            watched=torch.zeros_like(taste),
            num_watched=zeros,
            subscribed=torch.full((n, MEMORY), -1, device=users.device),
            idle=torch.zeros_like(users),
            luck=column(users + 1) * spread % MODULUS,
            life=life,
        )

    def scenario(self, user_state: LongVideoState, shifts: Tensor) -> LongVideoState:
        """The state with the numbers in place of draws shifted by ``shifts`` (N,), in [0, 1)."""
        moved = user_state.luck + column((shifts.double() * MODULUS).long())
        return replace(user_state, luck=moved % MODULUS)

    def possible(self, user_state: LongVideoState) -> bool:
        state, num_items = user_state, self.catalogue.num_items
        ranges = (
            (state.trust, 0, 1),
            (state.current, -1, num_items - 1),
            (state.quarters, 0, QUARTERS - 1),
            (state.clicked, 0, 1),
            (state.ad_clicked, 0, 1),
            (state.idle, 0, self.config.idle_limit - 1),
            (state.luck, 0, MODULUS - 1),
            (state.wear, 0, math.inf),
            (state.num_watched, 0, math.inf),
            (state.subscribed, -1, math.inf),
        )
        within = all(bool(((values >= low) & (values <= high)).all()) for values, low, high in ranges)
        return within and visits.possible(state.life)

    def visible(self, user_state: LongVideoState) -> dict[str, Tensor]:
        """The profile, the video that plays, its quarter 1 .. 4 (or home) as one of five, and idleness."""
        at = Watching(user_state.current, user_state.quarters, user_state.idle)
        return {"profile": user_state.profile, **at.pieces(self.config, self.catalogue, self._surfaces)}

    def respond(
        self, user_state: LongVideoState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        state, config, n = user_state, self.config, len(items)
        random = (
            as_uniform(state.luck)
            if generator is None
            else torch.rand(n, 2, generator=generator, device=items.device, dtype=state.trust.dtype)
        )
        embedding = self.catalogue.embedding
        want = self._want(  # (N, K)
            rows.dot_rows(state.taste, embedding, items),
            self.catch.take(items),
            rows.dot_rows(state.wear, self.categories, items),
            state.trust,
        ).masked_fill_(~shown, -torch.inf)
        affinity = self._affinity_of_current(state)  # (N,)
        hold, none = self._hold(state, affinity)  # (N,) each
        chance = position_based(want, none, config.seeing_exponent)  # (N, K)
        index = draw_at(chance, random[:, 0])  # (N,), -1 for none
        playing, picked = state.current >= 0, index >= 0
        watches_on = playing & ~picked & (random[:, 1] < hold.sigmoid())
        ends = watches_on & (state.quarters == QUARTERS - 1)
        left = playing & (ends | ~watches_on)
        started = torch.where(picked, index, torch.where(ends & shown[:, 0], 0, -1))  # (N,)

        completion = torch.where(ends, 1.0, state.quarters / QUARTERS)  # (N,)
        subscribed = completion * self._subscribes(state, affinity)
        ad_clicked = state.trust.new_full((n,), AD_SHARE * AD_CLICK_RATE)  # expected
        if generator is not None:
            random = torch.rand(n, 2, generator=generator, device=items.device, dtype=state.trust.dtype)
            subscribed = (random[:, 0] < subscribed).float()
            ad_clicked = (random[:, 1] < ad_clicked).float()

        at = torch.arange(items.shape[1], device=items.device) == started.unsqueeze(1)  # (N, K)
        mean = state.watched / state.num_watched.clamp_min(1).unsqueeze(1)  # (N, D)
        sameness = rows.dot_rows(mean, embedding, items).clamp(-1, 1)  # (N, K)
        nothing = torch.zeros_like(
            chance
        )  # (N, K): completion and subscription belong to the video that is left
        columns = {
            CLICKED: (at & picked.unsqueeze(1)).float(),
            AD_CLICKED: at * ad_clicked.unsqueeze(1),
            STARTED: at.float(),
            SAMENESS: at * sameness,
            CHANCE: chance,
            TRUST: shown * state.trust.unsqueeze(1),
        }
        signals = torch.stack([columns.get(index, nothing) for index in range(8)], -1)  # (N, K, S)
        event = torch.stack([completion, state.clicked, subscribed, state.ad_clicked], -1)  # (N, 4)
        event = torch.nn.functional.pad(event * left.unsqueeze(1), (0, 4)).unsqueeze(1)  # (N, 1, S)
        events = Events(state.current.masked_fill(~left, -1).unsqueeze(1), event)
        return Feedback(signals, shown, events)

    def rewards(self, feedback: Feedback) -> Tensor:
        assert feedback.events is not None
        shown, left = feedback.signals.sum(1), feedback.events.signals[:, 0]  # (N, S) each
        return torch.cat([shown, left], 1).index_select(1, self._of_streams)  # (N, M)

    def advance(
        self, user_state: LongVideoState, items: Tensor, feedback: Feedback
    ) -> tuple[LongVideoState, Tensor]:
        assert feedback.events is not None
        state, config = user_state, self.config
        signals, event = feedback.signals, feedback.events.signals[:, 0]  # (N, K, S), (N, S)
        started = signals[..., STARTED] != 0  # (N, K)
        starts, picked = started.any(1), (signals[..., CLICKED] > 0).any(1)  # (N,) each
        item = (items * started).sum(1)  # (N,)
        left = feedback.events.items[:, 0] >= 0  # (N,)
        watches_on = (state.current >= 0) & ~left
        now = Watching(state.current, state.quarters, state.idle)
        now = now.after(torch.where(starts, item, -1), picked, left, event[:, COMPLETION])
        gain = TRUST_RATE * (event[:, COMPLETION] - TRUST_MIDPOINT)
        faded = state.wear * WEAR_RECOVERY  # (N, G)
        creator = self.creator.index_select(0, state.current.clamp_min(0))  # (N,)
        subscribes = (event[:, SUBSCRIBED] >= 1).unsqueeze(1)  # fractions, without a generator, are not kept
        nothing = (state.current < 0) & ~picked  # (N,): a request at home without a pick; its completion is 0
        after = replace(
            state,
            wear=rows.add_rows(faded, self.categories, items, started),
            trust=torch.where(left, (state.trust + gain).clamp(0, 1), state.trust),
            current=now.current,
            quarters=now.quarters,
            clicked=torch.where(watches_on, state.clicked, picked.float()),
            ad_clicked=torch.where(watches_on, state.ad_clicked, signals[..., AD_CLICKED].sum(1)),
            watched=rows.add_rows(state.watched, self.catalogue.embedding, items, started),
            num_watched=state.num_watched + starts,
            subscribed=rows.push_rows(state.subscribed, creator.unsqueeze(1), subscribes),
            idle=now.idle,
            luck=(state.luck * FACTOR + SUMMAND) % MODULUS,
            life=visits.feel(state.life, event[:, COMPLETION] - TRUST_MIDPOINT, left | nothing),
        )
        return after, now.idle >= config.idle_limit

    def come_back(self, user_state: LongVideoState, chance: Tensor) -> tuple[LongVideoState, Tensor]:
        state, config = user_state, self.config
        life, gap = visits.next_visit(state.life, chance, config)
        return replace(
            state,
            wear=state.wear * column(config.overnight**gap),
            current=torch.full_like(state.current, -1),
            quarters=torch.zeros_like(state.quarters),
            clicked=torch.zeros_like(state.clicked),
            ad_clicked=torch.zeros_like(state.ad_clicked),
            watched=torch.zeros_like(state.watched),
            num_watched=torch.zeros_like(state.num_watched),
            idle=torch.zeros_like(state.idle),
            life=life,
        ), gap

    def expected_reward(self, user_state: LongVideoState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of the next step if the item stands alone in the first place.

        The completion of the item itself is paid later and is not in it.
        """
        return self.prospects(user_state, block)[0]

    def prospects(self, user_state: LongVideoState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Expected reward of the next step and expected change of trust, (N, b) each, of each item alone.

        The trust is counted until the started video is left, as if nothing took the user away from it.
        """
        state, embedding = user_state, self.catalogue.embedding[block]
        w_complete, w_click, w_subscribe, w_sameness, w_ad = stream_weights(self.streams).tolist()
        affinity = state.taste @ embedding.T  # (N, b)
        of_playing = self._affinity_of_current(state)  # (N,)
        hold, none = self._hold(state, of_playing)  # (N,) each
        subscribes = self._subscribes(state, of_playing)  # (N,), after a whole video
        p, starts, goes_on, ends = self._odds(state, affinity, hold, none, block)
        playing = (state.current >= 0).float()  # (N,)
        done = state.quarters / QUARTERS  # (N,)

        def paid(completion: Tensor) -> Tensor:  # (N,): by leaving the current video
            value: Tensor = playing * completion * (w_complete + w_subscribe * subscribes)
            return value

        left_now = paid(done)
        stays = (1 - goes_on) * left_now + ends * paid(torch.ones_like(hold))  # (N,): expected without a pick
        mean = state.watched / column(state.num_watched.clamp_min(1))  # (N, D)
        start = (w_sameness * mean) @ embedding.T + w_ad * AD_SHARE * AD_CLICK_RATE  # (N, b)
        reward = torch.addcmul(column(stays), p, column(w_click + left_now - stays)).addcmul_(starts, start)

        of_current = expected_completion(hold.sigmoid(), state.quarters)  # (N,)
        lost = playing * (of_current - done)  # (N,)
        trust_step = playing * (of_current - TRUST_MIDPOINT)  # (N,)
        trust = torch.addcmul(column(trust_step), starts, self._completes(affinity, block) - TRUST_MIDPOINT)
        trust = trust.addcmul_(p, column(-lost)).mul_(TRUST_RATE)  # (N, b)
        return reward, torch.minimum(trust, column(1 - state.trust))

    def credited_reward(self, user_state: LongVideoState, block: slice = slice(None)) -> Tensor:
        """``expected_reward`` (N, b), with the completion of the item itself and the subscription after it.

        They are counted as if nothing took the user away from the item once it has started.
        """
        state = user_state
        w_complete, _, w_subscribe, *_ = stream_weights(self.streams).tolist()
        affinity = state.taste @ self.catalogue.embedding[block].T  # (N, b)
        hold, none = self._hold(state, self._affinity_of_current(state))  # (N,) each
        starts = self._odds(state, affinity, hold, none, block).starts
        already = rows.rows_hold(state.subscribed, self.creator[block].expand(len(affinity), -1).contiguous())
        subscribes = self._subscribes_to(affinity).masked_fill(already, 0.0)  # (N, b)
        later = self._completes(affinity, block) * (w_complete + w_subscribe * subscribes)
        return self.expected_reward(state, block).addcmul_(starts, later)

    def patience(self, user_state: LongVideoState) -> Tensor:
        """Infinite: a session without trust goes on, but earns little."""
        return torch.full_like(user_state.trust, torch.inf)

    def tiresomeness(self, user_state: LongVideoState) -> Tensor:
        """Mean loss of logits, over the user's FAVOURITES best items, from starting each item: (N, I)."""
        near, user = self.favourites(user_state.taste)
        return self.config.wear_gain * (near @ self.categories.T)[user]

    def favourites(self, taste: Tensor) -> tuple[Tensor, Tensor]:
        """Mean categories (n, G) of the FAVOURITES best items by each distinct ``taste``.

        The second tensor (N,) is the row of each user.
        """
        distinct, user = torch.unique(taste, dim=0, return_inverse=True)  # a planner plays few users
        top = (distinct @ self.catalogue.embedding.T).topk(min(FAVOURITES, self.catalogue.num_items)).indices
        return self.categories[top].mean(1), user

    def as_known(self, user_state: LongVideoState) -> LongVideoState:
        """The state with the profile in place of the taste, as a recommender knows the user."""
        return replace(user_state, taste=user_state.profile)

    def _want(self, affinity: Tensor, catch: Tensor, wear: Tensor, trust: Tensor) -> Tensor:
        """Logits (N, ...) to pick items, from u . e_i, catch_i and w . g_i (N, ...), and t (N,)."""
        config = self.config
        offset = config.trust_gain * (trust - config.trust_start) - config.want_gain * config.fit_midpoint
        want = torch.add(config.lure_gain * catch, affinity, alpha=config.want_gain)
        return want.add_(wear, alpha=-config.wear_gain).add_(column(offset))

    def _odds(
        self, state: LongVideoState, affinity: Tensor, hold: Tensor, none: Tensor, block: slice
    ) -> Odds:
        """The odds for the affinity u . e_i (N, b). ``_hold`` returns ``hold`` and ``none`` (N,)."""
        wear = state.wear @ self.categories[block].T  # (N, b)
        want = self._want(affinity, self.catch[block], wear, state.trust)
        picks = want.sub_(column(none)).sigmoid_()  # (N, b)
        goes_on = (state.current >= 0).float() * hold.sigmoid()  # (N,)
        ends = goes_on * (state.quarters == QUARTERS - 1)  # (N,)
        return Odds(picks, torch.addcmul(column(ends), picks, column(1 - ends)), goes_on, ends)

    def _completes(self, affinity: Tensor, block: slice) -> Tensor:
        """Expected completion (N, b) of each item once it has started, from u . e_i (N, b)."""
        holds = torch.add(self.hold_of_item[block], affinity, alpha=self.config.hold_gain).sigmoid_()
        return expected_completion(holds)

    def _affinity_of_current(self, state: LongVideoState) -> Tensor:
        """u . e_c (N,) of the video that plays, or of any video at home."""
        current = state.current.clamp_min(0).unsqueeze(1)  # (N, 1)
        return rows.dot_rows(state.taste, self.catalogue.embedding, current)[:, 0]

    def _hold(self, state: LongVideoState, affinity: Tensor) -> tuple[Tensor, Tensor]:
        """hold_c (N,), for any item at home, and the utility (N,) of picking nothing."""
        hold = self.hold_of_item.index_select(0, state.current.clamp_min(0))  # (N,)
        hold = hold + self.config.hold_gain * affinity
        return hold, torch.where(state.current >= 0, self.config.go_on_bias + hold, 0.0)

    def _subscribes(self, state: LongVideoState, affinity: Tensor) -> Tensor:
        """Probability (N,) of subscribing when the current video is left after its end."""
        current = state.current.clamp_min(0).unsqueeze(1)  # (N, 1)
        already = rows.rows_hold(state.subscribed, self.creator.take(current))[:, 0]
        return self._subscribes_to(affinity).masked_fill(already, 0.0)

    def _subscribes_to(self, affinity: Tensor) -> Tensor:
        """The same for u . e_i (...) of any items, if the user has not subscribed to their creators."""
        config = self.config
        logit = SUBSCRIBE_BIAS + SUBSCRIBE_GAIN * (affinity - config.fit_midpoint)
        return logit.sigmoid()


def expected_completion(p: Tensor, quarters: Tensor | None = None) -> Tensor:
    """Expected share of a video that is watched, if each further quarter is with probability ``p`` (...).

    ``quarters`` (...) of it are watched already; None for 0.
    """
    if quarters is None:
        return p * (1 + p * (1 + p * (1 + p))) / QUARTERS
    total, reached = quarters.to(p.dtype), torch.ones_like(p)
    for quarter in range(QUARTERS):
        reached = reached * torch.where(quarters <= quarter, p, 1.0)
        total = total + reached * (quarters <= quarter)
    return total / QUARTERS


def as_uniform(luck: Tensor) -> Tensor:
    """Numbers (N, 2) in [0, 1) from integers in 0 .. MODULUS - 1; exact in float32."""
    return (luck >> 8).float() / 2**24


def column(values: Tensor) -> Tensor:
    """(N,) beside (N, b)."""
    return values.unsqueeze(-1)


DURATIONS = "log-normal with median 10 min and log deviation 0.8, within 1 min .. 2 h"
ITEMS = {"duration": attributes.log_normal(600.0, 0.8, 60.0, 7200.0), "creator": attributes.creators}
"""Attributes of videos, from the data where these have them."""
USERS = {"habit": attributes.normal}


def add_attributes(world: World, seed: int) -> World:
    """The world with the attributes that this platform needs."""
    return attributes.with_attributes(world, ITEMS, USERS, seed)


def at_home(config: LongVideoConfig, catalogue: Catalogue, profiles: Tensor, hours: Tensor) -> Known:
    """The known pieces of visits that begin on the home page, without a video that plays."""
    nothing = torch.zeros(len(profiles), dtype=torch.int64, device=profiles.device)
    return {"profile": profiles, "current": nothing - 1, "quarters": nothing, "idle": nothing}


def after_request(
    config: LongVideoConfig, catalogue: Catalogue, known: Known, items: Tensor, seen: Feedback
) -> Known:
    """The known pieces of visits after a request.

    A click shows the video that starts. After the last quarter of a video without a click, the first place
    starts by itself.
    """
    assert seen.events is not None
    clicked = seen.signals[..., CLICKED] > 0  # (N, K)
    picked, left = clicked.any(1), seen.events.items[:, 0] >= 0  # (N,) each
    completion = seen.events.signals[:, 0, COMPLETION]
    follows = ~picked & left & (completion == 1) & seen.shown[:, 0]  # (N,)
    picks = items.gather(1, clicked.int().argmax(1, keepdim=True)).squeeze(1)  # (N,)
    starts = torch.where(picked, picks, torch.where(follows, items[:, 0], -1))
    now = Watching(known["current"], known["quarters"], known["idle"]).after(starts, picked, left, completion)
    return {"profile": known["profile"], **now._asdict()}


def pieces_of(config: LongVideoConfig, catalogue: Catalogue, known: Known) -> dict[str, Tensor]:
    """The pieces of the context that the platform passes in."""
    now = Watching(known["current"], known["quarters"], known["idle"])
    surfaces = torch.eye(QUARTERS + 1, device=catalogue.embedding.device)
    return {"profile": known["profile"], **now.pieces(config, catalogue, surfaces)}


VISIT_PIECES = VisitPieces(at_home, after_request, pieces_of, consumed={"subscribed": 0.0, "ad_clicked": 0.0})


def surface(obs: Obs, interface: Interface) -> Tensor:
    """(N,): 0 at home, 1 beside a video, 2 in its last quarter, at whose end the first place may start."""
    progress = obs.context[:, interface.place_of("progress")]  # (N, 5): home, quarters 1 .. 4
    return 1 - progress[:, 0] + progress[:, -1]


PLATFORM = Platform(
    LongVideoConfig,
    users=LongVideo,
    add_attributes=add_attributes,
    heuristics={"up-next": UP_NEXT},
    split=Split(surface, num_sets=3),
    slate_field="suggestions",
    visit_pieces=VISIT_PIECES,
    presets={
        "*": {
            "env_config": {"max_episode_steps": 40},
            "agent_config": {
                "gamma": 0.99,
                "gae_lambda": 0.5,
                "ent_coef": 0.01,  # of a slate: a larger bonus keeps six places random
                "num_envs": 64,
                "bootstrap_time_limit": False,  # the clock shows the number of steps left
            },
        },
        "ppo": {"agent_config": {"lr": 1e-3}, "train_config": {"total_timesteps": 900_000}},
        "a2c": {
            "agent_config": {"lr": 2e-3, "ent_coef": 0.012, "n_steps": 8},
            # Updates are of 512 steps: evaluations each 10 of them took 17 to 32 % of the time.
            "train_config": {"total_timesteps": 600_000, "eval_interval": 100, "save_interval": 100},
        },
    },
    question="Which suggestions earn trust, and which ones take the user away from a good video?",
)

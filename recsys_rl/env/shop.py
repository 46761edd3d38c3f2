"""`shop`: products, videos and shoppable videos, with carts, prices, a budget and returns of goods.

A screen is a slate of two places: a product alone, a video alone, or a video with a product below it; the
other place holds the item `empty`. With ``discounts`` a third place holds a coupon, of 0 % or more.

Hidden state of a visitor (units in brackets):

- taste u [unit vector], from all of the user's log; a recommender sees the profile, from its first part
- ease a and price level y [logits, log price], drawn once for each user
- sameness m [vector, at most 1 long]: a fading mean of the embeddings e of the items just shown
- need h_c [0 .. 1] that purchases have met in category c; it fades
- budget B [money, at most its cap]: purchases spend it, and it refills day by day
- patience p [arrival_patience at the start, MOST_PATIENCE at most; the visitor leaves at 0]

A shop can follow the share w of videos among the last screens, the cart (the product that was last put there
and not bought), and the reference r [log price]: the discount that visitors have got used to.

Item i has an embedding e_i and a pull x_i (the sum of the z-scores of log popularity and quality, as a
z-score). A product has a category c_i and a price P_i, a video a category. With T_c the mean log price of the
products of category c, d the discount of the coupon, and [x] 1 where x holds::

    appeal  = VIDEO_BASE + TASTE_LOGITS u . e_v + a + VIDEO_PULL x_v - MONOTONY_COST max(0, m . e_v)
              - VIDEO_WEARINESS w - [product] SELLING_COST                              [logits]
    watched = clip(sigmoid(appeal) + WATCH_NOISE N(0, 1), 0, 1)
    liked   ~ Bernoulli(sigmoid(appeal - PRAISE_COST))    saved ~ Bernoulli(sigmoid(appeal - SAVING_COST))

    match   = TASTE_LOGITS u . e_p + a + PRODUCT_PULL x_p - MONOTONY_COST max(0, m . e_p) - need_cost h_c
              + [video of category c] SHOWING_GAIN watched                              [logits]
    saved   ~ Bernoulli(sigmoid(match - SAVING_COST))
    paid    = P_p (1 - d)
    wish    = match - elasticity (ln paid - T_c - y - r)
    carted  ~ Bernoulli(sigmoid(wish - cart_cost))
    bought  ~ carted [paid <= B] Bernoulli(sigmoid(wish - buy_cost))
    B <- B - paid bought        h_c <- max(h_c, bought)        r <- r + reference_rate (ln(1 - d) - r)

    s = sigmoid(appeal) of a video, sigmoid(match - INTEREST_COST) of a product alone
    p <- min(MOST_PATIENCE, p + PLEASURE_GAIN s - SCREEN_COST)
    m <- MONOTONY_KEPT m + (1 - MONOTONY_KEPT) e of the video, or of the product alone
    w <- WEARY_KEPT w + (1 - WEARY_KEPT) [video]

    revenue = paid bought          margin = (paid - COST_SHARE P_p) bought
    reward  = 0.4 watched + 0.2 liked + 0.3 bought + 0.1 saved

Price counts in both steps: for 1 % of the price the purchases for each view of a product fall by elasticity
times 2 - P(carted) - P(bought | carted) percent. The first video, product and coupon of a
slate count; others have no response. No video and no product is shown twice in a visit.

With ``visits`` above 1 an episode is a user's life (env/visits.py has the days of return). The feeling of a
screen is its change of patience. On the first screen of a later visit the product in the cart is bought, at
its full price and if B allows it, with the probability cart_kept sigmoid(wish - buy_cost); then the cart is
empty, and a product of the screen has the rest of B. A good, also from the cart, is sent back with the
probability ``return_share``, and this is known RETURN_DAYS days later: on the first screen from then on its
revenue and margin are taken back, minus HANDLING_COST. A life ends if the visitor never returns, or is cut
after 35 days; what is still due is taken back on its last screen. So no earlier visit sees its returns. A
learner adds no value of further visits to a life that was cut: it would hold the same returns again.
A gap of g days leaves h_c at need_kept^g, and m and the distance of patience from arrival_patience at
overnight^g; w begins at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from recsys_rl.data import attributes
from recsys_rl.env import sales, screens, visits
from recsys_rl.env.assortment import (
    ITEMS,
    TEXTS,
    USERS,
    add_attributes,
    check_items,
    check_kinds,
    facts_of_items,
)
from recsys_rl.env.retail import TRADE_RULES
from recsys_rl.env.sales import RETURN_DAYS
from recsys_rl.env.screens import Screen
from recsys_rl.env.visitor_record import LASTING, Follower
from recsys_rl.env.visits import VisitsConfig
from recsys_rl.records import Known, Platform, VisitPieces
from recsys_rl.settings.fields import Finite, NonNegative, Range, Share
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream

LEVEL_DEVIATION, BUDGET_DEVIATION = 0.15, 1.3  # between users, of log prices and of log budgets
SCREENS_KEPT = 20  # of the history
MOST_PATIENCE = 10.0
VIDEO_BASE = -0.6  # logits of appeal of an average video
TASTE_LOGITS = 2.5  # logits of appeal or match per unit of affinity (cosine of user and item)
EASE_SPREAD = 0.4  # standard deviation between users of the logits of appeal and match
VIDEO_PULL = 0.4  # logits of appeal per standard deviation of a video's pull
PRODUCT_PULL = 0.4  # logits of match per standard deviation of a product's pull
MONOTONY_COST = 1.5  # logits lost per unit of likeness to what was just shown
VIDEO_WEARINESS = 1.0  # logits of appeal that a video loses if the last screens were all videos
WEARY_KEPT = 0.8  # share that the fading share of videos keeps after one screen
WATCH_NOISE = 0.2  # standard deviation of the share that is watched
PRAISE_COST = 2.0  # appeal, in logits, of a video that half of the visitors like
SAVING_COST = 3.5  # appeal or match, in logits, of an item that half of the visitors save
INTEREST_COST = 1.0  # match, in logits, of a product alone that satisfies by half
SCREEN_COST = 0.5  # patience that each screen costs
PLEASURE_GAIN = 0.7  # patience gained per unit of satisfaction
MONOTONY_KEPT = 0.8  # share of the sameness that remains after one screen
SELLING_COST = 0.2  # logits of appeal that a video loses with a product below it
SHOWING_GAIN = 1.0  # logits of match by a video of the same category that is watched to its end
COST_SHARE = 0.7  # what a product costs the shop, as a share of its full price
HANDLING_COST = 1.0  # what a good that is sent back costs the shop beside its margin, in money


@dataclass(frozen=True)
class ShopConfig(VisitsConfig):
    """Visitors of a shop; the equations are at the top of the file."""

    discounts: bool = False
    """Give each screen a third place with a coupon."""
    cart_cost: Finite = 4.1
    """Wish, in logits, for a product that half of the visitors put in the cart."""
    buy_cost: Finite = 2.4
    """Wish, in logits, for a product in the cart that half of the visitors buy."""
    elasticity: NonNegative = 1.5
    """Logits of both steps, to the cart and from there, per unit of log price above the reference price."""
    need_cost: NonNegative = 0.8
    """Logits of match lost by a category that was just bought."""
    need_kept: Annotated[float, Range(0, below=1)] = 0.7
    """Share of a met need that remains met after a day; matters only with visits above 1."""
    reference_rate: Share = 0.03
    """Share by which one product moves the reference price to the one shown; matters only with discounts."""
    budget: Annotated[float, Range(above=0)] = 20.0
    """Median budget of a month, in money."""
    return_share: Share = 0.17
    """Share of the goods that are sent back; matters only with visits above 1, as the next two."""
    cart_kept: Share = 0.3
    """Share of the visitors who look into the cart of the last visit."""
    arrival_patience: Annotated[float, Range(above=0, high=MOST_PATIENCE)] = 3.0
    """Patience at the start of a visit; the largest is 10."""

    @property
    def slate_size(self) -> int:
        """K: places of a screen."""
        return 3 if self.discounts else 2


@dataclass(frozen=True)
class ShopState:
    taste: Tensor  # (N, D)
    profile: Tensor  # (N, D)
    ease: Tensor  # (N,): a
    level: Tensor  # (N,): y
    same: Tensor  # (N, D): m
    need: Tensor  # (N, C): h
    budget: Tensor  # (N,): B
    cap: Tensor  # (N,): the largest budget
    patience: Tensor  # (N,)
    record: Known  # what the shop can follow: see ``Follower``
    life: visits.Life = field(default_factory=dict)  # (N,) each; empty if an episode is one visit
    due: Tensor | None = None  # (N, 3, RETURN_DAYS), see sales.py
    back: Tensor | None = None  # (N, 3)


@dataclass(frozen=True)
class Shop(visits.Visiting):
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: ShopConfig
    repeats: ClassVar[bool] = True  # the items `empty` and the coupons; ``permits`` forbids the others
    context: ClassVar[tuple[str, ...]] = (
        *("profile", "cart_item", "last_item", "last_signals", "clock"),
        *("last_screen", "videos", "reference", "spent", "bought[category]"),
    )
    signals: ClassVar[tuple[Signal, ...]] = sales.SIGNALS
    streams: ClassVar[tuple[Stream, ...]] = sales.STREAMS
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType(
        {
            **dict.fromkeys(("profile", "cart_item", "last_screen", "videos", "spent"), 1.0),
            "reference": 10.0,
            "bought[category]": 1.0,
        }
    )

    def __post_init__(self) -> None:
        attributes.require("A shop", self.catalogue, ITEMS, self.population.attributes, USERS)
        check_items(self.catalogue)
        check_kinds(self.catalogue, self.config.max_episode_steps, self.config.discounts)

    @property
    def slate_size(self) -> int:
        return self.config.slate_size

    @property
    def history_length(self) -> int:
        return SCREENS_KEPT * self.slate_size  # the empty place and the coupons are entries too

    @property
    def patterns(self) -> tuple[tuple[int, ...], ...]:
        return screens.patterns(self.config.discounts)

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and those that are always drawn."""
        return f"{attributes.origins(self.catalogue, TEXTS)}; budgets and price levels of users are assumed"

    @cached_property
    def follower(self) -> Follower:
        return follower(self.config, self.catalogue)

    @cached_property
    def facts(self) -> Tensor:
        """(I, 5): see ``facts_of_items``."""
        return facts_of_items(self.catalogue, VIDEO_PULL, PRODUCT_PULL)

    @property
    def price(self) -> Tensor:
        """(I,): P; 0 of items that are no products."""
        return self.catalogue.attributes["price"]

    @cached_property
    def category(self) -> Tensor:
        """(I,) int64; 0 of items without one."""
        return self.catalogue.attributes["category"].clamp_min(0)

    def sample(self, users: Tensor) -> ShopState:
        config, drawn = self.config, self.population.attributes
        taste = self.population.taste.index_select(0, users)  # (N, D)
        profile = self.population.profile.index_select(0, users)
        ease, level, purse = (drawn[name].index_select(0, users) for name in ("ease", "level", "purse"))
        ease, cap = EASE_SPREAD * ease, config.budget * (BUDGET_DEVIATION * purse).exp()
        record, life = self.follower.begin(profile), dict[str, Tensor]()
        due = back = None
        if self.visits > 1:
            life |= visits.begin(
                habit=config.habit_base + config.habit_deviation * drawn["habit"].index_select(0, users),
                usual=PLEASURE_GAIN * (VIDEO_BASE + ease).sigmoid() - SCREEN_COST,
            )
            due, back = ease.new_zeros(len(users), 3, RETURN_DAYS), ease.new_zeros(len(users), 3)
        return ShopState(
            taste=taste,
            profile=profile,
            ease=ease,
            level=LEVEL_DEVIATION * level,
            same=torch.zeros_like(taste),
            need=torch.zeros_like(record["bought"]),
            budget=cap,
            cap=cap,
            patience=torch.full_like(ease, config.arrival_patience),
            record=record,
            life=life,
            due=due,
            back=back,
        )

    def possible(self, user_state: ShopState) -> bool:
        state = user_state
        within = (state.patience > 0) & (state.patience <= MOST_PATIENCE)
        within &= (state.budget >= -1e-3) & (state.budget <= state.cap * (1 + 1e-5)) & (state.cap > 0)
        within &= ((state.need >= 0) & (state.need <= 1)).all(1)
        if state.due is not None:
            within &= (state.due[:, 0] >= 0).all(1)
        return bool(within.all()) and self.follower.possible(state.record) and visits.possible(state.life)

    def visible(self, user_state: ShopState) -> dict[str, Tensor]:
        return {"profile": user_state.profile, **self.follower.pieces(user_state.record)}

    def permits(self, user_state: ShopState, items: Tensor | None = None) -> Tensor:
        return self.follower.permits(user_state.record, items)

    def respond(
        self, user_state: ShopState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        config, state, screen = self.config, user_state, Screen.of(self.catalogue, items, shown)
        chance = noise = None
        if generator is not None:
            chance = torch.rand(8, len(items), generator=generator, device=items.device)
            noise = torch.randn(len(items), generator=generator, device=items.device)
        dots, video = self._dots(state, screen.video), self.facts.index_select(0, screen.video)
        appeal = self.appeal(dots, video[:, 0], state.ease, state.record["videos"])
        appeal = appeal - SELLING_COST * screen.has[:, 1]
        satisfaction = appeal.sigmoid()
        watched = satisfaction if noise is None else (satisfaction + WATCH_NOISE * noise).clamp(0, 1)
        same = (self.category[screen.video] == self.category[screen.product]) * screen.has[:, 0]
        match, wish, facts = self._offer(state, screen.product, screen.log_share, same * watched)
        price = facts[:, 4] * screen.log_share.exp()
        liked, saved, kept, carted, bought, sent_back = (
            answer(p, chance, at)
            for at, p in enumerate(
                (
                    (appeal - PRAISE_COST).sigmoid(),
                    (appeal - SAVING_COST).sigmoid(),
                    (match - SAVING_COST).sigmoid(),
                    (wish - config.cart_cost).sigmoid(),
                    (wish - config.buy_cost).sigmoid(),
                    torch.full_like(wish, config.return_share),
                )
            )
        )
        left, of_cart = state.budget, None
        if state.back is not None:
            of_cart = self._late(state, chance) * shown.any(1, keepdim=True)
            left = left - self.price[state.record["cart"].clamp_min(0)] * sales.of(of_cart, "recovered")
        bought = carted * bought * (price <= left)
        of_video = sales.row(watched=watched, liked=liked, saved=saved, satisfaction=satisfaction)
        of_product = sales.row(
            saved=kept,
            carted=carted,
            purchased=bought,
            revenue=price * bought,
            margin=(price - COST_SHARE * facts[:, 4]) * bought,
            sent_back=sent_back * bought,
            satisfaction=self.interest(match),
        )
        signals = screen.places @ torch.stack([of_video, of_product], 1)  # (N, K, S)
        if of_cart is not None:
            signals = sales.on_first_place(signals, shown, of_cart)
        return Feedback(signals, shown)

    def _late(self, state: ShopState, chance: Tensor | None) -> Tensor:
        """(N, S): on the first screen of a later visit, the purchase from the cart and what is taken back."""
        assert state.back is not None
        cart, zero = state.record["cart"], torch.zeros_like(state.budget)
        _, wish, facts = self._offer(state, cart.clamp_min(0), zero, zero)
        waiting = (state.record["steps"] == 0) & (cart >= 0) & (facts[:, 4] <= state.budget)
        bought = waiting * answer(self.config.cart_kept * (wish - self.config.buy_cost).sigmoid(), chance, 6)
        sent_back = answer(torch.full_like(wish, self.config.return_share), chance, 7) * bought
        paid = facts[:, 4] * bought
        of_cart = sales.row(
            recovered=bought,
            revenue=paid,
            margin=(1 - COST_SHARE) * paid,
            cart_sent_back=sent_back,
        )
        return of_cart + sales.taken_back(state.back)

    def settle(self, user_state: ShopState, feedback: Feedback, ended: Tensor) -> Feedback:
        """Take back all that is due on the last screen of the lives that ``ended`` (N,)."""
        state = user_state
        assert state.due is not None and state.back is not None
        more = sales.taken_back(state.back + state.due.sum(2)) * ended.unsqueeze(1)
        signals = sales.on_first_place(feedback.signals, feedback.shown, more)
        return replace(feedback, signals=signals)

    def rewards(self, feedback: Feedback) -> Tensor:
        return sales.paid(feedback.signals)

    def advance(self, user_state: ShopState, items: Tensor, feedback: Feedback) -> tuple[ShopState, Tensor]:
        state, record = user_state, user_state.record
        screen = Screen.of(self.catalogue, items, feedback.shown)
        has_video, has_product = screen.has.unbind(1)
        video, product = (screen.places.transpose(1, 2) @ feedback.signals).unbind(1)  # (N, S) each
        satisfied = [sales.of(place, "satisfaction") for place in (product, video)]
        satisfaction = torch.lerp(satisfied[0], satisfied[1], has_video)
        main = torch.where(has_video > 0, screen.video, screen.product)
        fresh = (1 - MONOTONY_KEPT) * ((has_video + has_product) > 0).float().unsqueeze(1)
        fed = PLEASURE_GAIN * satisfaction - SCREEN_COST
        patience = (state.patience + fed).clamp_max(MOST_PATIENCE)
        bought, sent_back = (sales.of(product, name) for name in ("purchased", "sent_back"))
        recovered, cart_sent_back = (
            sales.of(feedback.signals, name).sum(1) for name in ("recovered", "cart_sent_back")
        )
        need, spent, due, back = state.need, torch.zeros_like(state.budget), state.due, state.back
        for item, share, number, late in (
            (screen.product, screen.log_share.exp(), bought, sent_back),
            (record["cart"].clamp_min(0), 1.0, recovered, cart_sent_back),
        ):
            paid = self.price[item] * share
            spent = spent + paid * number
            need = need.scatter_reduce(1, self.category[item].unsqueeze(1), number.unsqueeze(1), "amax")
            if due is not None:
                lost = paid - COST_SHARE * self.price[item] + HANDLING_COST
                due = sales.sold(due, late, paid, lost)
        if back is not None:
            back = back * ~feedback.shown.any(1, keepdim=True)  # without a screen it waits
        seen = Feedback(feedback.signals[..., : sales.VISIBLE], feedback.shown)
        return replace(
            state,
            same=state.same + fresh * (self.catalogue.embedding.index_select(0, main) - state.same),
            need=need,
            budget=state.budget - spent,
            patience=patience,
            record=self.follower.after(record, screen, seen),
            life=visits.feel(state.life, fed),
            due=due,
            back=back,
        ), patience <= 0

    def come_back(self, user_state: ShopState, chance: Tensor) -> tuple[ShopState, Tensor]:
        config, state = self.config, user_state
        assert state.due is not None and state.back is not None
        life, gap = visits.next_visit(state.life, chance, config)
        left = config.overnight**gap  # (N,)
        due, back = sales.after_gap(state.due, gap)
        return replace(
            state,
            same=state.same * left.unsqueeze(1),
            need=state.need * (config.need_kept**gap).unsqueeze(1),
            budget=torch.minimum(state.cap, state.budget + state.cap * gap / 30),
            patience=config.arrival_patience + left * (state.patience.clamp_min(0) - config.arrival_patience),
            record=self.follower.next_visit(state.record, state.profile),
            life=life,
            due=due,
            back=state.back + back,
        ), gap

    def expected_reward(self, user_state: ShopState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of showing each item of the block alone now."""
        state, record, facts = user_state, user_state.record, self.facts[block]
        embedding = self.catalogue.embedding[block]
        dots = torch.stack([state.taste @ embedding.T, state.same @ embedding.T], 2)  # (N, b, 2)
        ease, videos, budget = (x.unsqueeze(1) for x in (state.ease, record["videos"], state.budget))
        used_to = (state.level + record["reference"]).unsqueeze(1)
        appeal = self.appeal(dots, facts[:, 0], ease, videos)
        match = self.match(dots, facts[:, 0], ease, state.need.index_select(1, self.category[block]))
        wish = self.wish(match, facts[:, 3], used_to)
        return self.rewards_of(appeal, match, wish, (self.price[block] <= budget).float(), facts)

    def rewards_of(
        self, appeal: Tensor, match: Tensor, wish: Tensor, affordable: Tensor | float, facts: Tensor
    ) -> Tensor:
        """The expected reward (N, b) of items alone; ``affordable`` is 1 for products within the budget."""
        config = self.config
        of_watched, of_liked, of_bought, of_saved = (stream.weight for stream in self.streams[:4])
        of_video = of_watched * appeal.sigmoid() + of_liked * (appeal - PRAISE_COST).sigmoid()
        of_video = of_video + of_saved * (appeal - SAVING_COST).sigmoid()
        of_product = of_saved * (match - SAVING_COST).sigmoid()
        carted = (wish - config.cart_cost).sigmoid()
        of_product = of_product + of_bought * affordable * carted * (wish - config.buy_cost).sigmoid()
        return of_video * facts[..., 1] + of_product * facts[..., 2]

    def appeal(self, dots: Tensor, pull: Tensor, ease: Tensor, videos: Tensor) -> Tensor:
        """The appeal of a video without a product; ``dots`` (..., 2): u . e and m . e."""
        appeal = VIDEO_BASE + TASTE_LOGITS * dots[..., 0] + ease + pull
        return appeal - MONOTONY_COST * dots[..., 1].clamp_min(0) - VIDEO_WEARINESS * videos

    def match(self, dots: Tensor, pull: Tensor, ease: Tensor, need: Tensor) -> Tensor:
        """The match of a product without a video; ``need`` is h of its category."""
        config = self.config
        match = TASTE_LOGITS * dots[..., 0] + ease + pull
        return match - MONOTONY_COST * dots[..., 1].clamp_min(0) - config.need_cost * need

    def interest(self, match: Tensor) -> Tensor:
        """The satisfaction by a product without a video."""
        return (match - INTEREST_COST).sigmoid()

    def wish(self, match: Tensor, above: Tensor, used_to: Tensor) -> Tensor:
        """The wish for a product at its price; ``above``: ln paid - T_c, ``used_to``: y + r."""
        return match - self.config.elasticity * (above - used_to)

    def _offer(
        self, state: ShopState, product: Tensor, log_share: Tensor, watched: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match and wish (N,) of the products (N,), and their facts (N, 5).

        ``watched`` (N,): of a video of the same category.
        """
        facts = self.facts[product]
        need = state.need.gather(1, self.category[product].unsqueeze(1)).squeeze(1)
        match = self.match(self._dots(state, product), facts[:, 0], state.ease, need)
        match = match + SHOWING_GAIN * watched
        used_to = state.level + state.record["reference"]
        return match, self.wish(match, facts[:, 3] + log_share, used_to), facts

    def _dots(self, state: ShopState, items: Tensor) -> Tensor:
        """(N, 2): the products of the embedding of ``items`` (N,) with taste and sameness."""
        both = torch.stack([state.taste, state.same], 1)  # (N, 2, D)
        return (both @ self.catalogue.embedding.index_select(0, items).unsqueeze(2)).squeeze(2)


def answer(p: Tensor, chance: Tensor | None, at: int) -> Tensor:
    """1 with probability ``p`` (N,), by row ``at`` of the noise; ``p`` itself without noise."""
    return p if chance is None else (chance[at] < p).float()


def follower(config: ShopConfig, catalogue: Catalogue) -> Follower:
    return Follower(
        catalogue,
        length=config.max_episode_steps,
        discounts=config.discounts,
        budget=config.budget,
        rate=config.reference_rate,
        kept=WEARY_KEPT,
    )


def after_visit(
    config: ShopConfig, catalogue: Catalogue, known: Known, items: Tensor, seen: Feedback
) -> Known:
    """The retailer's knowledge of visits after a screen."""
    screen = Screen.of(catalogue, items, seen.shown)
    return {"profile": known["profile"], **follower(config, catalogue).after(known, screen, seen)}


VISIT_PIECES = VisitPieces(
    begin=lambda config, catalogue, profiles, hours: {
        "profile": profiles,
        **follower(config, catalogue).begin(profiles),
    },
    after=after_visit,
    pieces=lambda config, catalogue, known: {
        "profile": known["profile"],
        **follower(config, catalogue).pieces(known),
    },
    permits=lambda config, catalogue, known: follower(config, catalogue).permits(known),
    lasting=LASTING,
    consumed=dict.fromkeys(("liked", "saved", "carted", "purchased", "recovered"), 0.0),
    taken=("purchased",),
)


PLATFORM = Platform(
    ShopConfig,
    users=Shop,
    add_attributes=add_attributes,
    heuristics=TRADE_RULES,
    visit_pieces=VISIT_PIECES,
    question="Does a policy that sells as much as it can in a session lose money over a month?",
    presets={
        "*": {
            "env_config": {"num_items": 1000, "max_episode_steps": 20},
            "model_config": {"head": "gated"},
            "agent_config": {"gamma": 0.95, "gae_lambda": 0.9},
        },
        "ppo": {
            "agent_config": {
                "lr": 2e-3,
                "ent_coef": 0.003,
                "num_envs": 256,
                "n_steps": 20,
                "batch_size": 1280,
                "update_epochs": 3,
            },
            "train_config": {"total_timesteps": 600_000},
        },
        "a2c": {
            "agent_config": {"lr": 2e-3, "ent_coef": 0.01, "num_envs": 64, "n_steps": 10},
            "train_config": {"total_timesteps": 300_000, "eval_interval": 100, "save_interval": 100},
        },
    },
)

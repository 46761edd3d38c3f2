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

    appeal  = video_base + taste_logits u . e_v + a + video_pull x_v - monotony_cost max(0, m . e_v)
              - video_weariness w - [product] selling_cost                              [logits]
    watched = clip(sigmoid(appeal) + watch_noise N(0, 1), 0, 1)
    liked   ~ Bernoulli(sigmoid(appeal - praise_cost))    saved ~ Bernoulli(sigmoid(appeal - saving_cost))

    match   = taste_logits u . e_p + a + product_pull x_p - monotony_cost max(0, m . e_p) - need_cost h_c
              + [video of category c] showing_gain watched                              [logits]
    saved   ~ Bernoulli(sigmoid(match - saving_cost))
    paid    = P_p (1 - d)
    wish    = match - elasticity (ln paid - T_c - y - r)
    carted  ~ Bernoulli(sigmoid(wish - cart_cost))
    bought  ~ carted [paid <= B] Bernoulli(sigmoid(wish - buy_cost))
    B <- B - paid bought        h_c <- max(h_c, bought)        r <- r + reference_rate (ln(1 - d) - r)

    s = sigmoid(appeal) of a video, sigmoid(match - interest_cost) of a product alone
    p <- min(MOST_PATIENCE, p + pleasure_gain s - screen_cost)
    m <- monotony_kept m + (1 - monotony_kept) e of the video, or of the product alone
    w <- weary_kept w + (1 - weary_kept) [video]

    revenue = paid bought          margin = (paid - cost_share P_p) bought
    reward  = 0.4 watched + 0.2 liked + 0.3 bought + 0.1 saved

Price counts in both steps: for 1 % of the price the purchases for each view of a product fall by elasticity
times 2 - P(carted) - P(bought | carted) percent. The first video, product and coupon of a
slate count; others have no response. No video and no product is shown twice in a visit.

With ``visits`` above 1 an episode is a user's life (env/visits.py has the days of return). The feeling of a
screen is its change of patience. On the first screen of a later visit the product in the cart is bought, at
its full price and if B allows it, with the probability cart_kept sigmoid(wish - buy_cost); then the cart is
empty, and a product of the screen has the rest of B. A good, also from the cart, is sent back with the
probability ``return_share``, and this is known RETURN_DAYS days later: on the first screen from then on its
revenue and margin are taken back, minus handling_cost. A life ends if the visitor never returns, or is cut
after 35 days; what is still due is taken back on its last screen. So no earlier visit sees its returns.
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
from recsys_rl.data.attributes import zscore
from recsys_rl.env import goods_due, visits
from recsys_rl.env.assortment import (
    COUPON,
    EMPTY,
    ITEMS,
    KINDS,
    MOST,
    PRODUCT,
    TEXTS,
    USERS,
    VIDEO,
    add_attributes,
    check_items,
)
from recsys_rl.env.goods_due import RETURN_DAYS
from recsys_rl.env.retail import TRADE_RULES
from recsys_rl.env.screens import (
    LASTING,
    SCREENS,
    Screen,
    after_screen,
    begin_record,
    ever_permitted,
    permitted,
    pieces_of_record,
)
from recsys_rl.env.visits import VisitsConfig
from recsys_rl.errors import UserError
from recsys_rl.functional import rows
from recsys_rl.functional.recency import products
from recsys_rl.records import Expert, Known, Platform, VisitPieces
from recsys_rl.settings.fields import Finite, NonNegative, Range, Share
from recsys_rl.types import Catalogue, Feedback, Interface, Obs, Population, Signal, Stream

LEVEL_DEVIATION, BUDGET_DEVIATION = 0.15, 1.3  # between users, of log prices and of log budgets
SCREENS_KEPT = 20  # of the history
MOST_PATIENCE = 10.0


@dataclass(frozen=True)
class ShopConfig(VisitsConfig):
    """Visitors of a shop; the equations are at the top of the file."""

    discounts: bool = False
    """Give each screen a third place with a coupon."""
    video_base: Finite = -0.6
    """Logits of appeal of an average video."""
    taste_logits: NonNegative = 2.5
    """Logits of appeal or match per unit of affinity (cosine of user and item)."""
    ease_spread: NonNegative = 0.4
    """Standard deviation between users of the logits of appeal and match."""
    video_pull: NonNegative = 0.4
    """Logits of appeal per standard deviation of a video's pull."""
    product_pull: NonNegative = 0.4
    """Logits of match per standard deviation of a product's pull."""
    monotony_cost: NonNegative = 1.5
    """Logits lost per unit of likeness to what was just shown."""
    monotony_kept: Annotated[float, Range(0, below=1)] = 0.8
    """Share of the sameness that remains after one screen."""
    video_weariness: NonNegative = 1.0
    """Logits of appeal that a video loses if the last screens were all videos."""
    weary_kept: Annotated[float, Range(0, below=1)] = 0.8
    """Share that the fading share of videos keeps after one screen."""
    selling_cost: NonNegative = 0.2
    """Logits of appeal that a video loses with a product below it."""
    watch_noise: NonNegative = 0.2
    """Standard deviation of the share that is watched."""
    praise_cost: Finite = 2.0
    """Appeal, in logits, of a video that half of the visitors like."""
    saving_cost: Finite = 3.5
    """Appeal or match, in logits, of an item that half of the visitors save."""
    showing_gain: NonNegative = 1.0
    """Logits of match by a video of the same category that is watched to its end."""
    interest_cost: Finite = 1.0
    """Match, in logits, of a product alone that satisfies by half."""
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
    cost_share: Share = 0.7
    """What a product costs the shop, as a share of its full price."""
    return_share: Share = 0.17
    """Share of the goods that are sent back; matters only with visits above 1, as the next two."""
    handling_cost: NonNegative = 1.0
    """What a good that is sent back costs the shop beside its margin, in money."""
    cart_kept: Share = 0.3
    """Share of the visitors who look into the cart of the last visit."""
    arrival_patience: Annotated[float, Range(above=0, high=MOST_PATIENCE)] = 3.0
    """Patience at the start of a visit; the largest is 10."""
    screen_cost: NonNegative = 0.5
    """Patience that each screen costs."""
    pleasure_gain: NonNegative = 0.7
    """Patience gained per unit of satisfaction."""

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
    record: Known  # what the shop can follow: see ``begin_record``
    life: visits.Life = field(default_factory=dict)  # (N,) each; empty if an episode is one visit
    due: Tensor | None = None  # (N, 3, RETURN_DAYS), see goods_due.py
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
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("watched"),
        Signal("liked"),
        Signal("saved"),
        Signal("carted"),
        Signal("purchased"),
        Signal("recovered"),
        Signal("revenue", visible=False, low=-MOST, high=MOST),
        Signal("margin", visible=False, low=-MOST, high=MOST),
        Signal("returned", visible=False, high=MOST),
        Signal("sent_back", visible=False),
        Signal("cart_sent_back", visible=False),
        Signal("satisfaction", visible=False, meaning="the satisfaction"),
    )
    streams: ClassVar[tuple[Stream, ...]] = (
        Stream("watch_ratio", 0.4),
        Stream("liked", 0.2),
        Stream("purchased", 0.3, "Goods that one visitor has bought."),
        Stream("saved", 0.1),
        Stream("revenue", 0.0),
        Stream("margin", 0.0, "What one visitor has paid, minus what the goods cost and what came back."),
        Stream("returned", 0.0),
    )
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
        kind, length = self.catalogue.attributes["kind"], self.config.max_episode_steps
        for number in (VIDEO, PRODUCT):
            count = int((kind == number).sum())
            if count < length:
                raise UserError(
                    f"The catalogue has {count} items of the kind {KINDS[number]!r}, and a visit of {length} "
                    "screens may need as many: lower max_episode_steps, or use a larger catalogue."
                )
        for number in (EMPTY, *([COUPON] if self.config.discounts else [])):
            if not bool((kind == number).any()):
                raise UserError(
                    f"The catalogue has no item of the kind {KINDS[number]!r}, which a screen may need: "
                    "add one to the file about the items."
                )

    @property
    def slate_size(self) -> int:
        return self.config.slate_size

    @property
    def history_length(self) -> int:
        return SCREENS_KEPT * self.slate_size  # the empty place and the coupons are entries too

    @property
    def patterns(self) -> tuple[tuple[int, ...], ...]:
        coupon = (COUPON,) if self.config.discounts else ()
        return tuple((*screen, *coupon) for screen in SCREENS)

    @property
    def assumptions(self) -> str:
        """Part of a sentence: where the attributes come from, and those that are always drawn."""
        return f"{attributes.origins(self.catalogue, TEXTS)}; budgets and price levels of users are assumed"

    @cached_property
    def facts(self) -> Tensor:
        """(I, 5): pull in logits, 1 for a video, 1 for a product, ln P - T_c, P; 0 of other items."""
        named, config = self.catalogue.attributes, self.config
        kind, price = named["kind"], named["price"]
        video, product = (kind == VIDEO).float(), (kind == PRODUCT).float()
        goods = (video + product) > 0
        popular = zscore((self.catalogue.popularity[goods] + 1e-3).log())
        of_goods = zscore(popular + zscore(self.catalogue.quality[goods]))
        pull = torch.zeros_like(price).masked_scatter(goods, of_goods)
        log_price = torch.where(product > 0, price, torch.ones_like(price)).log()
        category = named["category"].clamp_min(0)
        total, count = (
            torch.zeros(self.num_categories, device=kind.device).index_add_(0, category, column)
            for column in (product * log_price, product)
        )
        above = product * (log_price - (total / count.clamp_min(1))[category])
        gain = config.video_pull * video + config.product_pull * product
        return torch.stack([gain * pull, video, product, above, price], 1)

    @property
    def kind(self) -> Tensor:
        """(I,) int64: the place in KINDS."""
        return self.catalogue.attributes["kind"]

    @cached_property
    def num_categories(self) -> int:
        """C"""
        return int(self.catalogue.attributes["category"].max()) + 1

    def sample(self, users: Tensor) -> ShopState:
        config, drawn = self.config, self.population.attributes
        taste = self.population.taste.index_select(0, users)  # (N, D)
        profile = self.population.profile.index_select(0, users)
        ease, level, purse = (drawn[name].index_select(0, users) for name in ("ease", "level", "purse"))
        ease, cap = config.ease_spread * ease, config.budget * (BUDGET_DEVIATION * purse).exp()
        life: visits.Life = {}
        due = back = None
        if self.visits > 1:
            life = visits.begin(
                habit=config.habit_base + config.habit_deviation * drawn["habit"].index_select(0, users),
                usual=config.pleasure_gain * (config.video_base + ease).sigmoid() - config.screen_cost,
            )
            due, back = ease.new_zeros(len(users), 3, RETURN_DAYS), ease.new_zeros(len(users), 3)
        return ShopState(
            taste=taste,
            profile=profile,
            ease=ease,
            level=LEVEL_DEVIATION * level,
            same=torch.zeros_like(taste),
            need=ease.new_zeros(len(users), self.num_categories),
            budget=cap,
            cap=cap,
            patience=torch.full_like(ease, config.arrival_patience),
            record=begin_record(config.max_episode_steps, self.catalogue, profile),
            life=life,
            due=due,
            back=back,
        )

    def possible(self, user_state: ShopState) -> bool:
        state, record = user_state, user_state.record
        within = (state.patience > 0) & (state.patience <= MOST_PATIENCE)
        within &= (state.budget >= -1e-3) & (state.budget <= state.cap * (1 + 1e-5)) & (state.cap > 0)
        within &= (record["videos"] >= 0) & (record["videos"] <= 1) & (record["spent"] >= 0)
        within &= (record["reference"] <= 0) & (record["steps"] >= 0)
        within &= (record["last"] >= -1) & (record["last"] < len(SCREENS))
        shares = all(bool(((x >= 0) & (x <= 1)).all()) for x in (state.need, record["bought"]))
        items = torch.cat([record["seen"], record["cart"].unsqueeze(1)], 1)
        known = bool(((items >= -1) & (items < self.catalogue.num_items)).all())
        late = state.due is None or bool((state.due[:, 0] >= 0).all())
        return bool(within.all()) and shares and known and late and visits.possible(state.life)

    def visible(self, user_state: ShopState) -> dict[str, Tensor]:
        pieces = pieces_of_record(self.config.budget, self.catalogue, user_state.record)
        return {"profile": user_state.profile, **pieces}

    def permits(self, user_state: ShopState, items: Tensor | None = None) -> Tensor:
        if items is None:
            return permitted(self.config.discounts, self.catalogue, user_state.record)
        allowed = self._ever[items] & ~rows.rows_hold(user_state.record["seen"], items)
        return allowed

    @cached_property
    def _ever(self) -> Tensor:
        """(I,) bool: False for coupons without discounts."""
        return ever_permitted(self.config.discounts, self.catalogue)

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
        appeal = appeal - config.selling_cost * screen.has[:, 1]
        satisfaction = appeal.sigmoid()
        watched = satisfaction if noise is None else (satisfaction + config.watch_noise * noise).clamp(0, 1)
        same = (self.category[screen.video] == self.category[screen.product]) * screen.has[:, 0]
        match, wish, facts = self._offer(state, screen.product, screen.log_share, same * watched)
        price = facts[:, 4] * screen.log_share.exp()
        liked, saved, kept, carted, bought, sent_back = (
            answer(p, chance, at)
            for at, p in enumerate(
                (
                    (appeal - config.praise_cost).sigmoid(),
                    (appeal - config.saving_cost).sigmoid(),
                    (match - config.saving_cost).sigmoid(),
                    (wish - config.cart_cost).sigmoid(),
                    (wish - config.buy_cost).sigmoid(),
                    torch.full_like(wish, config.return_share),
                )
            )
        )
        left, of_cart = state.budget, None
        if state.back is not None:
            of_cart = self._late(state, chance) * shown.any(1, keepdim=True)
            left = left - self.facts[state.record["cart"].clamp_min(0), 4] * of_cart[:, 5]
        bought = carted * bought * (price <= left)
        zero = torch.zeros_like(bought)
        margin = price - config.cost_share * facts[:, 4]
        of_place = torch.stack(
            [
                torch.stack([watched, liked, saved, *[zero] * 8, satisfaction], 1),
                torch.stack(
                    [
                        *(zero, zero, kept, carted, bought, zero, price * bought, margin * bought, zero),
                        *(sent_back * bought, zero, (match - config.interest_cost).sigmoid()),
                    ],
                    1,
                ),
            ],
            1,
        )  # (N, 2, S)
        signals = screen.places @ of_place  # (N, K, S)
        if of_cart is not None:
            signals = goods_due.on_first_place(signals, shown, of_cart)
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
        earned = (1 - self.config.cost_share) * paid
        of_cart = [*[zero] * 5, bought, paid, earned, zero, zero, sent_back, zero]
        return torch.stack(of_cart, 1) + self._taken_back(state.back)

    def _taken_back(self, back: Tensor) -> Tensor:
        """(N, S): the signals of goods that are taken back, ``back`` (N, 3)."""
        number, revenue, margin = back.unbind(1)
        zero = torch.zeros_like(number)
        return torch.stack([*[zero] * 6, -revenue, -margin, number, *[zero] * 3], 1)

    def settle(self, user_state: ShopState, feedback: Feedback, ended: Tensor) -> Feedback:
        """Take back all that is due on the last screen of the lives that ``ended`` (N,)."""
        state = user_state
        assert state.due is not None and state.back is not None
        more = self._taken_back(state.back + state.due.sum(2)) * ended.unsqueeze(1)
        signals = goods_due.on_first_place(feedback.signals, feedback.shown, more)
        return replace(feedback, signals=signals)

    def rewards(self, feedback: Feedback) -> Tensor:
        of_screen = feedback.signals.sum(1)
        watched, liked, saved, _, bought, recovered, revenue, margin, returned, *_ = of_screen.unbind(1)
        return torch.stack([watched, liked, bought + recovered, saved, revenue, margin, returned], 1)

    def advance(self, user_state: ShopState, items: Tensor, feedback: Feedback) -> tuple[ShopState, Tensor]:
        config, state, record = self.config, user_state, user_state.record
        screen = Screen.of(self.catalogue, items, feedback.shown)
        has_video, has_product = screen.has.unbind(1)
        of_places = (screen.places.transpose(1, 2) @ feedback.signals).unbind(1)  # (N, S) each
        video, product = of_places
        satisfaction = torch.lerp(product[:, -1], video[:, -1], has_video)
        bought, recovered = product[:, 4], feedback.signals[:, :, 5].sum(1)
        main = torch.where(has_video > 0, screen.video, screen.product)
        fresh = (1 - config.monotony_kept) * ((has_video + has_product) > 0).float().unsqueeze(1)
        fed = config.pleasure_gain * satisfaction - config.screen_cost
        patience = (state.patience + fed).clamp_max(MOST_PATIENCE)
        price = self.facts[screen.product, 4] * screen.log_share.exp()
        cart, need = record["cart"].clamp_min(0), state.need
        for item, number in ((screen.product, bought), (cart, recovered)):
            at = self.category[item].unsqueeze(1)
            need = need.scatter_reduce(1, at, number.unsqueeze(1), "amax")
        spent = price * bought + self.facts[cart, 4] * recovered
        due, back = state.due, state.back
        if due is not None and back is not None:
            for item, number, paid in (
                (screen.product, product[:, 9], price),
                (cart, feedback.signals[:, :, 10].sum(1), self.facts[cart, 4]),
            ):
                lost = paid - config.cost_share * self.facts[item, 4] + config.handling_cost
                due = goods_due.sold(due, number, paid, lost)
            back = back * ~feedback.shown.any(1, keepdim=True)  # without a screen it waits
        seen = Feedback(feedback.signals[..., :6], feedback.shown)
        return ShopState(
            taste=state.taste,
            profile=state.profile,
            ease=state.ease,
            level=state.level,
            same=state.same + fresh * (self.catalogue.embedding.index_select(0, main) - state.same),
            need=need,
            budget=state.budget - spent,
            cap=state.cap,
            patience=patience,
            record=follow(config, self.catalogue, record, screen, seen),
            life=visits.feel(state.life, fed),
            due=due,
            back=back,
        ), patience <= 0

    def come_back(self, user_state: ShopState, chance: Tensor) -> tuple[ShopState, Tensor]:
        config, state = self.config, user_state
        assert state.due is not None
        life, gap = visits.next_visit(state.life, chance, config)
        left = config.overnight**gap  # (N,)
        due, back = goods_due.after_gap(state.due, gap)
        if state.back is not None:
            back = back + state.back
        return replace(
            state,
            same=state.same * left.unsqueeze(1),
            need=state.need * (config.need_kept**gap).unsqueeze(1),
            budget=torch.minimum(state.cap, state.budget + state.cap * gap / 30),
            patience=config.arrival_patience + left * (state.patience.clamp_min(0) - config.arrival_patience),
            record={
                **begin_record(config.max_episode_steps, self.catalogue, state.profile),
                **{name: state.record[name] for name in LASTING},
            },
            life=life,
            due=due,
            back=back,
        ), gap

    def expected_reward(self, user_state: ShopState, block: slice = slice(None)) -> Tensor:
        """Expected reward (N, b) of showing each item of the block alone now."""
        state, facts = user_state, self.facts[block]
        embedding = self.catalogue.embedding[block]
        dots = torch.stack([state.taste @ embedding.T, state.same @ embedding.T], 2)  # (N, b, 2)
        ease, videos, budget, used_to = (
            x.unsqueeze(1)
            for x in (
                state.ease,
                state.record["videos"],
                state.budget,
                state.level + state.record["reference"],
            )
        )
        appeal = self.appeal(dots, facts[:, 0], ease, videos)
        match = self.match(dots, facts[:, 0], ease, state.need.index_select(1, self.category[block]))
        wish = self.wish(match, facts[:, 3], used_to)
        return self.rewards_of(appeal, match, wish, (facts[:, 4] <= budget).float(), facts)

    def rewards_of(
        self, appeal: Tensor, match: Tensor, wish: Tensor, affordable: Tensor | float, facts: Tensor
    ) -> Tensor:
        """The expected reward (N, b) of items alone; ``affordable`` is 1 for products within the budget."""
        config = self.config
        of_watched, of_liked, of_bought, of_saved = (stream.weight for stream in self.streams[:4])
        of_video = of_watched * appeal.sigmoid() + of_liked * (appeal - config.praise_cost).sigmoid()
        of_video = of_video + of_saved * (appeal - config.saving_cost).sigmoid()
        of_product = of_saved * (match - config.saving_cost).sigmoid()
        carted = (wish - config.cart_cost).sigmoid()
        of_product = of_product + of_bought * affordable * carted * (wish - config.buy_cost).sigmoid()
        return of_video * facts[..., 1] + of_product * facts[..., 2]

    def appeal(self, dots: Tensor, pull: Tensor, ease: Tensor, videos: Tensor) -> Tensor:
        """The appeal of a video without a product; ``dots`` (..., 2): u . e and m . e."""
        config = self.config
        appeal = config.video_base + config.taste_logits * dots[..., 0] + ease + pull
        return appeal - config.monotony_cost * dots[..., 1].clamp_min(0) - config.video_weariness * videos

    def match(self, dots: Tensor, pull: Tensor, ease: Tensor, need: Tensor) -> Tensor:
        """The match of a product without a video; ``need`` is h of its category."""
        config = self.config
        match = config.taste_logits * dots[..., 0] + ease + pull
        return match - config.monotony_cost * dots[..., 1].clamp_min(0) - config.need_cost * need

    def wish(self, match: Tensor, above: Tensor, used_to: Tensor) -> Tensor:
        """The wish for a product at its price; ``above``: ln paid - T_c, ``used_to``: y + r."""
        return match - self.config.elasticity * (above - used_to)

    def _offer(
        self, state: ShopState, product: Tensor, log_share: Tensor, watched: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match and wish (N,) of the products (N,), and their facts (N, 5).

        ``watched`` (N,): of a video of the same category.
        """
        facts, need = (
            self.facts[product],
            state.need.gather(1, self.category[product].unsqueeze(1)).squeeze(1),
        )
        match = self.match(self._dots(state, product), facts[:, 0], state.ease, need)
        match = match + self.config.showing_gain * watched
        used_to = state.level + state.record["reference"]
        return match, self.wish(match, facts[:, 3] + log_share, used_to), facts

    def _dots(self, state: ShopState, items: Tensor) -> Tensor:
        """(N, 2): the products of the embedding of ``items`` (N,) with taste and sameness."""
        both = torch.stack([state.taste, state.same], 1)  # (N, 2, D)
        return (both @ self.catalogue.embedding.index_select(0, items).unsqueeze(2)).squeeze(2)

    @cached_property
    def category(self) -> Tensor:
        """(I,) int64; 0 of items without one."""
        return self.catalogue.attributes["category"].clamp_min(0)


def answer(p: Tensor, chance: Tensor | None, at: int) -> Tensor:
    """1 with probability ``p`` (N,), by row ``at`` of the noise; ``p`` itself without noise."""
    return p if chance is None else (chance[at] < p).float()


def follow(
    config: ShopConfig, catalogue: Catalogue, record: Known, screen: Screen, seen: Feedback
) -> dict[str, Tensor]:
    """The record after a screen; the signals of ``seen`` are the visible ones."""
    return after_screen(catalogue, record, screen, seen, config.reference_rate, config.weary_kept)


def after_visit(
    config: ShopConfig, catalogue: Catalogue, known: Known, items: Tensor, seen: Feedback
) -> Known:
    """The retailer's knowledge of visits after a screen."""
    screen = Screen.of(catalogue, items, seen.shown)
    return {"profile": known["profile"], **follow(config, catalogue, known, screen, seen)}


VISIT_PIECES = VisitPieces(
    begin=lambda config, catalogue, profiles, hours: {
        "profile": profiles,
        **begin_record(config.max_episode_steps, catalogue, profiles),
    },
    after=after_visit,
    pieces=lambda config, catalogue, known: {
        "profile": known["profile"],
        **pieces_of_record(config.budget, catalogue, known),
    },
    permits=lambda config, catalogue, known: permitted(config.discounts, catalogue, known),
    lasting=LASTING,
    consumed=dict.fromkeys(("liked", "saved", "carted", "purchased", "recovered"), 0.0),
    taken=("purchased",),
)


def expert_scores(
    users: Shop, interface: Interface, obs: Obs, numbers: Mapping[str, Tensor], items: Tensor | None
) -> Tensor:
    """The best screen by the equations, the profile for the taste, and the last items for the sameness.

    Video v and product p are the best of their kind by the expected reward R of each alone. With s the
    satisfaction, the screen with the highest value is shown: its items have the highest scores::

        video: R_v + patience s_v        product: R_p + patience s_p + alone
        both: R_v + patience s_v + R_p + pair
    """
    config = users.config
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    profile, last, videos, reference, met = (
        obs.context[:, interface.place_of(name)]
        for name in ("profile", "last_item", "videos", "reference", "bought[category]")
    )
    at = slice(None) if items is None else items.clamp_min(0)
    facts, kind, category = users.facts[at], users.kind[at], users.category[at]
    allowed = obs.allowed(users.catalogue.num_items) if items is None else items >= 0
    need = met.index_select(1, category) if items is None else met.gather(1, category)
    embedding = users.catalogue.embedding
    near = number["wear"] * products(last, embedding, items)
    dots = torch.stack([products(profile, embedding, items), near], -1)
    zero = torch.zeros_like(videos)  # (N, 1)
    appeal = users.appeal(dots, facts[..., 0], zero, number["weary"] * videos)
    match = users.match(dots, facts[..., 0], zero, need)
    wish = users.wish(match, facts[..., 3], reference)
    reward = users.rewards_of(appeal, match, wish, 1.0, facts)
    satisfaction = torch.where(kind == VIDEO, appeal, match - config.interest_cost).sigmoid()
    value = reward + number["patience"] * satisfaction
    (of_video, video), (of_product, product), (_, empty) = (
        value.masked_fill(~(allowed & (kind == place)), -torch.inf).max(1, keepdim=True)
        for place in (VIDEO, PRODUCT, EMPTY)
    )
    below = reward.gather(1, product) + number["pair"]
    screen = torch.cat([of_product + number["alone"], of_video, of_video + below], 1).argmax(1, keepdim=True)
    scores = (
        reward - 50 * (kind == EMPTY) + (kind == COUPON) * (1 - users.catalogue.attributes["discount"][at])
    )
    for place, needed, above in (
        (video, screen != 0, 100.0),
        (product, screen != 1, 90.0),
        (empty, screen != 2, 80.0),
    ):
        scores = scores.scatter_add(1, place, above * needed.to(scores))
    return scores


EXPERT = Expert(
    "The screen with the highest expected reward by the equations, with a price of patience and of kinds.",
    {
        "wear": (1.0, 0.5),
        "weary": (1.0, 0.5),
        "patience": (0.3, 0.3),
        "alone": (0.0, 0.2),
        "pair": (0.0, 0.1),
    },
    expert_scores,
)
PLATFORM = Platform(
    ShopConfig,
    users=Shop,
    add_attributes=add_attributes,
    heuristics=TRADE_RULES,
    expert=EXPERT,
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

"""The equations of `shop` against numbers worked by hand, late streams, discounts and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.env.assortment import add_attributes
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.retail import TRADE_RULES
from recsys_rl.env.sales import RETURN_DAYS
from recsys_rl.env.shop import Shop, ShopConfig, ShopState
from recsys_rl.errors import UserError
from recsys_rl.logs.reader import header_of_log, read_pieces
from recsys_rl.logs.writer import write_decisions
from recsys_rl.make import make_agent, make_env, make_user_model
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import ItemFeature, World
from tests.doors import SERVED, steps, train_in
from tests.small_runs import settings, world

VIDEO, OTHER_VIDEO, CHEAP, DEAR, EMPTY, FULL_PRICE, HALF = range(7)
KINDS = torch.tensor([0, 0, 1, 1, 2, 3, 3])
PRICES = torch.tensor([0.0, 0.0, 2.0, 8.0, 0.0, 0.0, 0.0])  # of one category: T = ln 4


def tiny() -> World:
    """Two videos, two products, the empty place and coupons of 0 and 50 %; all users are alike."""
    drawn = add_attributes(World(*synthetic_world(20, 4, 2, 0.5, seed=0)), 0)
    catalogue, population = drawn
    right, up = [1.0, 0.0], [0.0, 1.0]
    named = {
        "kind": KINDS,
        "category": torch.tensor([0, 1, 0, 0, -1, -1, -1]),
        "price": PRICES,
        "discount": torch.tensor([0.0, 0, 0, 0, 0, 0, 0.5]),
    }
    even = torch.full((7,), 0.5)
    catalogue = dataclasses.replace(
        catalogue,
        embedding=torch.tensor([right, up, right, up, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
        item_ids=torch.arange(7),
        titles=(),
        popularity=even,
        quality=even,
        available=torch.ones(7, dtype=torch.bool),
        attributes=named,
    )
    users = torch.tensor([right] * 4)
    nothing = {name: torch.zeros(4) for name in population.attributes}
    population = dataclasses.replace(population, taste=users, profile=users, attributes=nothing)
    return World(catalogue, population)


def shop(**changes: Any) -> Shop:
    sizes = {"max_episode_steps": 2, "budget": 5.0, **changes}
    return Shop(*tiny(), ShopConfig(**sizes))


def played(users: Shop, state: ShopState, *slate: int) -> tuple[dict[str, list[float]], Tensor, ShopState]:
    """Signals by name (K,), the streams (M,) and the next state of one visitor, without noise."""
    items = torch.tensor([slate])
    feedback = users.respond(state, items, torch.ones_like(items, dtype=torch.bool), None)
    streams, (later, _) = users.rewards(feedback), users.advance(state, items, feedback)
    names = [signal.name for signal in users.signals]
    return dict(zip(names, feedback.signals[0].T.tolist(), strict=True)), streams[0], later


def first(users: Shop) -> ShopState:
    return users.sample(torch.tensor([0]))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_shoppable_video_by_hand() -> None:
    users = shop()
    found, streams, later = played(users, first(users), VIDEO, CHEAP)
    appeal = -0.6 + 2.5 - 0.2
    watched = sigmoid(appeal)  # 0.8455
    match = 2.5 + 1.0 * watched
    wish = match - 1.5 * (math.log(2) - math.log(4))
    carted = sigmoid(wish - 4.1)
    bought = carted * sigmoid(wish - 2.4)
    assert found["watched"] == pytest.approx([watched, 0])
    assert found["liked"] == pytest.approx([sigmoid(appeal - 2), 0])
    assert found["saved"] == pytest.approx([sigmoid(appeal - 3.5), sigmoid(match - 3.5)])
    assert found["carted"] == pytest.approx([0, carted])
    assert carted == pytest.approx(0.5709, abs=1e-4)
    assert found["purchased"] == pytest.approx([0, bought])
    assert bought == pytest.approx(0.5019, abs=1e-4)
    saved = sigmoid(appeal - 3.5) + sigmoid(match - 3.5)
    expected = [watched, sigmoid(appeal - 2), bought, saved, 2 * bought, 0.6 * bought, 0]
    assert_close(streams, torch.tensor(expected))
    weights = torch.tensor([stream.weight for stream in users.streams])
    assert_close(weights, torch.tensor([0.4, 0.2, 0.3, 0.1, 0, 0, 0]))
    assert later.patience.item() == pytest.approx(3 + 0.7 * watched - 0.5)
    assert later.budget.item() == pytest.approx(5 - 2 * bought)
    assert later.need[0].tolist() == pytest.approx([bought, 0])
    assert later.same[0].tolist() == pytest.approx([0.2, 0])
    record = later.record
    assert record["videos"].item() == pytest.approx(0.2)
    assert record["last"].item() == 2 and record["seen"][0, -2:].tolist() == [VIDEO, CHEAP]
    # The next video is worn by the last one, and by the share of videos.
    found = played(users, later, VIDEO, EMPTY)[0]
    assert found["watched"][0] == pytest.approx(sigmoid(-0.6 + 2.5 - 1.5 * 0.2 - 1.0 * 0.2))


def test_screens_of_one_item_and_the_order_of_places() -> None:
    users = shop()
    state = first(users)
    alone = played(users, state, CHEAP, EMPTY)[0]
    match = 2.5
    carted = sigmoid(match + 1.5 * math.log(2) - 4.1)
    assert alone["carted"] == pytest.approx([carted, 0])
    assert alone["satisfaction"] == pytest.approx([sigmoid(match - 1), 0])
    video = played(users, state, VIDEO, EMPTY)[0]
    assert video["watched"] == pytest.approx([sigmoid(1.9), 0]) and video["carted"] == [0, 0]
    pair, turned = played(users, state, VIDEO, CHEAP)[0], played(users, state, CHEAP, VIDEO)[0]
    assert all(turned[name] == pytest.approx(values[::-1]) for name, values in pair.items())
    # A second product has no response, and a video of another category shows no product.
    assert played(users, state, CHEAP, DEAR)[0]["carted"][1] == 0
    assert played(users, state, OTHER_VIDEO, CHEAP)[0]["carted"][1] == pytest.approx(carted)


def test_budget_and_prices() -> None:
    """A product of 8 is too dear for a budget of 5; half its price is not."""
    users = shop(discounts=True)
    state = first(users)
    dear = played(users, state, DEAR, EMPTY, FULL_PRICE)[0]
    assert dear["carted"][0] > 0 and dear["purchased"] == [0, 0, 0]
    found, streams, _ = played(users, state, DEAR, EMPTY, HALF)
    # The match of a product of another taste is 0; with the coupon its price is the mean of its category.
    bought = sigmoid(-4.1) * sigmoid(-2.4)
    assert found["purchased"][0] == pytest.approx(bought)
    assert_close(streams[4:6], torch.tensor([4 * bought, (4 - 0.7 * 8) * bought]))


def test_visitors_wait_for_discounts() -> None:
    """After n products at half price r is ln 0.5 (1 - 0.97^n), and the wish falls by 1.5 |r|."""
    users = shop(discounts=True, budget=1e6)
    state = first(users)
    chance = [played(users, state, CHEAP, EMPTY, FULL_PRICE)[0]["purchased"][0]]
    for _ in range(30):
        late = played(users, state, CHEAP, EMPTY, HALF)[2]
        # Only the reference price is kept: needs and sameness would fall too.
        state = dataclasses.replace(
            first(users), record={**state.record, "reference": late.record["reference"]}
        )
    used_to = math.log(0.5) * (1 - 0.97**30)
    assert state.record["reference"].item() == pytest.approx(used_to, rel=1e-4)
    chance.append(played(users, state, CHEAP, EMPTY, FULL_PRICE)[0]["purchased"][0])
    wishes = 2.5 + 1.5 * math.log(2), 2.5 + 1.5 * (math.log(2) + used_to)
    assert chance == pytest.approx([sigmoid(wish - 4.1) * sigmoid(wish - 2.4) for wish in wishes], rel=1e-4)
    # A product at full price moves it back; a video alone does not.
    assert played(users, state, CHEAP, EMPTY, FULL_PRICE)[2].record["reference"].item() > used_to
    assert played(users, state, VIDEO, EMPTY, HALF)[2].record["reference"].item() == pytest.approx(
        used_to, rel=1e-4
    )


def test_returns_are_late_and_carts_are_bought_at_the_next_visit() -> None:
    """Everybody comes back on the next day, so that goods are taken back at the 14th visit after."""
    users = shop(visits=35, habit_base=50.0, return_share=1.0, cart_kept=1.0)
    state = first(users)
    found, streams, state = played(users, state, CHEAP, EMPTY)
    bought = found["purchased"][0]
    assert found["sent_back"][0] == pytest.approx(bought) and streams[6] == 0
    assert state.due is not None and state.due[0, 0].tolist() == pytest.approx([0.0] * 13 + [bought])
    cart = {**state.record, "cart": torch.tensor([CHEAP])}
    state = dataclasses.replace(state, record=cart)
    for day in range(1, RETURN_DAYS + 1):
        state, gap = users.come_back(state, torch.tensor([0.5]))
        assert gap.item() == 1
        _, streams, later = played(users, state, EMPTY, VIDEO)
        if day == 1:
            # The budget has refilled by a thirtieth of its cap, and the need for the category is at 0.7.
            budget = min(5.0, 5 - 2 * bought + 5 / 30)
            assert state.budget.item() == pytest.approx(budget)
            want = 2.5 - 1.5 * 0.2 * 0.3 - 0.8 * 0.7 * bought - 2.4 + 1.5 * math.log(2)
            assert streams[2].item() == pytest.approx(sigmoid(want), rel=1e-4)
            assert streams[4].item() == pytest.approx(2 * sigmoid(want), rel=1e-4)
            assert later.record["cart"].item() == -1
            state = dataclasses.replace(state, record={**state.record, "cart": torch.tensor([-1])})
    assert streams[6].item() == pytest.approx(bought)
    assert_close(streams[4:6], torch.tensor([-2 * bought, -(0.6 + 1.0) * bought]), rtol=1e-4, atol=1e-6)
    assert later.back is not None and not later.back.any()


def test_a_product_of_the_screen_has_what_the_cart_leaves_of_the_budget() -> None:
    """A budget of 3, and products of 2: from the cart or on the screen, not both."""
    users = shop(visits=35, cart_kept=1.0, cart_cost=-50.0, buy_cost=-50.0, budget=3.0, arrival_patience=9.0)
    state = first(users)
    state = dataclasses.replace(state, record={**state.record, "cart": torch.tensor([CHEAP])})
    found, streams, later = played(users, state, EMPTY, CHEAP)
    assert found["recovered"] == pytest.approx([1, 0]) and found["purchased"] == [0, 0]
    assert streams[2].item() == pytest.approx(1) and later.budget.item() == pytest.approx(1)
    assert users.possible(later)
    state = dataclasses.replace(state, budget=torch.tensor([4.0]), cap=torch.tensor([4.0]))
    found, streams, later = played(users, state, EMPTY, CHEAP)
    assert found["purchased"] == pytest.approx([0, 1]) and later.budget.item() == pytest.approx(0, abs=1e-5)
    assert streams[4].item() == pytest.approx(4)


def eager(**changes: Any) -> RecEnv:
    """Lives of people who buy much of what they see, and send half of it back."""
    sizes = {"num_items": 80, "max_episode_steps": 4, "embedding_dim": 4, "visits": 35, "cart_kept": 1.0}
    wishes = {"cart_cost": -1.0, "buy_cost": 2.0, "return_share": 0.5, "budget": 40.0}
    config = settings("ppo", "shop", env_config={**sizes, **wishes, **changes})
    env = make_env(config, world(config), 40, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    return env


def test_all_goods_that_are_sent_back_are_taken_back_before_the_life_has_ended() -> None:
    env, random = eager(habit_base=1.0), torch.Generator().manual_seed(1)
    obs, alive = env.reset(), torch.ones(40, dtype=torch.bool)
    names = [signal.name for signal in env.signals]
    sent, returned, of_signals, recovered = (torch.zeros(40) for _ in range(4))
    churned = torch.zeros(40, dtype=torch.bool)
    while bool(alive.any()):
        shown = torch.rand(40, 80, generator=random).masked_fill(~obs.allowed(80), -1).topk(2).indices
        step = env.step_without_reset(shown)
        assert step.feedback is not None
        of = dict(zip(names, step.feedback.signals.sum(1).T, strict=True))
        sent += alive * (of["sent_back"] + of["cart_sent_back"])
        recovered += alive * of["cart_sent_back"]
        returned += alive * step.streams[:, 6]
        of_signals += alive * of["returned"]
        churned |= alive & step.terminated
        alive &= ~(step.terminated | step.truncated)
        obs = step.obs
    assert sent.tolist() == returned.tolist() == of_signals.tolist()
    assert 0 < int(churned.sum()) < 40 and float(recovered.sum()) > 0
    assert float(sent[churned].sum()) > 0 and float(sent[~churned].sum()) > 0


def test_budgets_stay_above_0_and_saved_sessions_can_go_on() -> None:
    env, random = eager(budget=4.0), torch.Generator().manual_seed(1)
    obs = env.reset()
    for _ in range(60):
        shown = torch.rand(40, 80, generator=random).masked_fill(~obs.allowed(80), -1).topk(2).indices
        obs = env.step(shown).obs
        assert float(env.user_state.budget.min()) > -1e-4
        env.load_state_dict(env.state_dict())


def test_due_streams_and_the_cart_wait_for_a_screen_that_shows_something() -> None:
    users = shop(visits=35, cart_kept=1.0)
    state = first(users)
    state = dataclasses.replace(
        state, back=torch.tensor([[1.0, 2.0, 1.6]]), record={**state.record, "cart": torch.tensor([CHEAP])}
    )
    items = torch.tensor([[VIDEO, CHEAP]])
    feedback = users.respond(state, items, torch.zeros_like(items, dtype=torch.bool), None)
    assert not bool(feedback.signals.any())
    later, _ = users.advance(state, items, feedback)
    found, streams, last = played(users, later, VIDEO, EMPTY)
    assert streams[6].item() == 1 and found["recovered"][0] > 0
    assert last.back is not None and not last.back.any() and last.record["cart"].item() == -1


def test_the_empty_place_and_coupons_look_like_nothing() -> None:
    config = settings("ppo", "shop", env_config={"num_items": 90, "max_episode_steps": 20, "discounts": True})
    catalogue = world(config).catalogue
    none = catalogue.attributes["kind"] >= 2
    assert int(none.sum()) == 4
    for values in (catalogue.embedding, catalogue.popularity, catalogue.quality, catalogue.tags):
        assert not bool(values[none].any())
    assert bool((catalogue.embedding[~none].norm(dim=1) > 0.99).all())
    env = make_env(config, world(config), 3, torch.Generator().manual_seed(0))
    assert env.interface.history_length == 20 * 3
    # The pull of the others is a z-score among themselves, times 0.4 logits.
    users = make_user_model(config, world(config))
    assert isinstance(users, Shop)
    pull = users.facts[:, 0] / 0.4
    assert pull[~none].mean().item() == pytest.approx(0, abs=1e-5)
    assert pull[~none].std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert not bool(pull[none].any())


def test_no_video_and_no_product_is_shown_twice_in_a_visit() -> None:
    users = shop()
    state = played(users, first(users), VIDEO, CHEAP)[2]
    assert users.permits(state)[0].tolist() == [False, True, False, True, True, False, False]
    assert shop(discounts=True).permits(state)[0].tolist() == [False, True, False, True, True, True, True]


@pytest.mark.parametrize("discounts", [False, True])
@pytest.mark.parametrize("visits", [1, 35])
def test_contracts(discounts: bool, visits: int) -> None:
    sizes = {"num_items": 60, "max_episode_steps": 4, "embedding_dim": 4}
    config = settings("ppo", "shop", env_config={**sizes, "discounts": discounts, "visits": visits})
    place = world(config)
    check_user_model(make_user_model(config, place), place.catalogue, torch.arange(5))
    check_env(lambda seed: make_env(config, place, 6, torch.Generator().manual_seed(seed)), 4)
    env = make_env(config, place, 8, torch.Generator().manual_seed(0))
    agent, obs = make_agent(config, env.interface, place.catalogue), env.reset()
    kinds = {tuple(kinds) for kinds in place.catalogue.attributes["kind"][agent.act(obs).items].tolist()}
    assert kinds <= {*env.interface.patterns} and len(env.interface.patterns) == 3
    for heuristic in TRADE_RULES.values():
        for policy in heuristic.settings(place.catalogue, env.interface).values():
            shown = place.catalogue.attributes["kind"][policy.act(obs).items]
            assert {tuple(kinds) for kinds in shown.tolist()} <= {*env.interface.patterns}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"price": torch.where(PRICES > 2, 0.0, PRICES)}, "price"),
        ({"price": torch.where(PRICES > 2, math.nan, PRICES)}, "price"),
        ({"discount": torch.ones(7)}, "discount"),
        ({"category": torch.full((7,), -1)}, "category"),
        ({"kind": KINDS.masked_fill(KINDS == 0, 2)}, "'video'"),
        ({"kind": KINDS.masked_fill(KINDS == 1, 0)}, "'product'"),
        ({"kind": KINDS.masked_fill(KINDS == 2, 3)}, "'empty'"),
        ({"kind": KINDS.masked_fill(KINDS == 3, 2)}, "'coupon'"),
    ],
)
def test_impossible_items_are_refused(changes: dict[str, Tensor], word: str) -> None:
    catalogue, population = tiny()
    catalogue = dataclasses.replace(catalogue, attributes={**catalogue.attributes, **changes})
    with pytest.raises(UserError, match=word):
        Shop(catalogue, population, ShopConfig(max_episode_steps=2, discounts=True))


def test_items_from_a_file() -> None:
    """Kinds and categories are texts of the file; texts for prices are refused."""
    catalogue, population = synthetic_world(6, 4, 2, 0.5, seed=0)
    kinds = ItemFeature("kind", "classes", ("coupon", "empty", "product", "video"))
    named = {
        "kind": torch.tensor([3, 3, 2, 2, 1, 0]),
        "category": torch.tensor([0, 1, 0, 1, 0, 0]),
        "price": torch.tensor([1.0, 1, 2, 3, 1, 1]),
        "discount": torch.tensor([0.3] * 6),
    }
    catalogue = dataclasses.replace(catalogue, attributes=named, features=(kinds,))
    made = add_attributes(World(catalogue, population), 0).catalogue.attributes
    assert made["kind"].tolist() == [0, 0, 1, 1, 2, 3]
    assert made["category"].tolist() == [0, 1, 0, 1, -1, -1]
    assert made["price"].tolist() == [0, 0, 2, 3, 0, 0]
    assert_close(made["discount"], torch.tensor([0.0, 0, 0, 0, 0, 0.3]))
    for name in ("price", "kind"):
        wrong = {**named, name: named["kind"] if name == "price" else named["price"]}
        with pytest.raises(UserError):
            add_attributes(World(dataclasses.replace(catalogue, attributes=wrong), population), 0)


@pytest.mark.proof_of("shop-coupons-3")
@pytest.mark.parametrize(("run", "places"), [("shop", 2), ("shop-coupons", 3)])
def test_pairs_in_training_log_and_judgement(tmp_path: Path, run: str, places: int) -> None:
    checkpoint, log = train_in(tmp_path / "run", *SERVED[run], *steps(2)), tmp_path / "log.parquet"
    recording = ["record", "--checkpoint", str(checkpoint), "--out", str(log), "--sessions", "20"]
    assert main([*recording, "--quiet"]) == 0
    frame = pl.read_parquet(log)
    summed = (frame["place_logprobs"].list.sum() - frame["logprob"]).abs().to_list()
    assert frame["items"].list.len().unique().to_list() == [places] and max(summed) < 1e-6
    said = tmp_path / "said.json"
    assert main(["ope", "--log", str(log), "--checkpoint", str(checkpoint), "--json", str(said)]) == 0
    rows = {row["estimator"]: row for row in json.loads(said.read_text())["rows"]}
    # The policy that made the log has weights of 1; logits of other batches differ by rounding.
    assert rows["pdis"]["largest_weight"] == pytest.approx(1, abs=1e-5) == rows["pdis"]["mean_weight"]
    assert rows["pdis"]["unsupported"] == 0


def test_a_log_with_slates_that_no_policy_can_show_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, log = train_in(tmp_path / "run", *SERVED["shop"], *steps(1)), tmp_path / "log.parquet"
    recording = ["record", "--checkpoint", str(checkpoint), "--policy", "ppo", "--policy", "random"]
    assert main([*recording, "--sessions", "20", "--users", "all", "--quiet", "--out", str(log)]) == 0
    learning = ["train", "--algo", "bc", "--checkpoint", str(checkpoint), "--batch-size", "16"]
    assert main([*learning, "--log", str(log), *steps(1)]) == 0  # random shows possible slates
    kinds = load(checkpoint).catalogue.attributes["kind"]
    header = header_of_log(log)
    decisions = next(iter(read_pieces(log, header)))
    twins = (kinds == kinds[decisions.items[0, 0]]).nonzero()[:2, 0]  # two items of one kind
    items = decisions.items.clone()
    items[3] = twins
    wrong = tmp_path / "wrong.parquet"
    write_decisions(wrong, dataclasses.replace(decisions, items=items))
    assert main([*learning, "--log", str(wrong), *steps(1)]) == 2
    error = capsys.readouterr().err
    assert "1 decisions with slates" in error and str((int(kinds[twins[0]]),) * 2) in error


@pytest.mark.proof
def test_a_table_says_that_the_training_had_other_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The returns of the table are of the platform's own weights, which differ from those of the training."""
    weights = ("--weights", "margin=1", "watch_ratio=0")
    checkpoint = train_in(tmp_path / "run", *SERVED["shop"], *steps(2), *weights)
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--json", str(tmp_path / "table.json")]) == 0
    assert "margin=1 watch_ratio=0" in capsys.readouterr().err
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    row = next(row for row in rows if row["policy"] == "ppo")
    own = {"watch_ratio": 0.4, "liked": 0.2, "purchased": 0.3, "saved": 0.1}
    expected = sum(weight * row["streams"][name] for name, weight in own.items())
    assert row["return_mean"] == pytest.approx(expected, rel=1e-4)

"""The money of whole lives on `shop`: carts, goods that come back, and the end of a life."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_rl.env import sales
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.sales import RETURN_DAYS
from recsys_rl.functional.returns import gae
from recsys_rl.make import make_env
from recsys_rl.types import Step, World
from tests.env.test_shop import CHEAP, DEAR, EMPTY, VIDEO, first, played, shop, sigmoid
from tests.small_runs import settings, world

SIZES = {"num_items": 60, "embedding_dim": 4, "max_episode_steps": 3}
USERS = 24


def test_purchases_from_the_cart_and_on_the_screen_with_several_goods_due_by_hand() -> None:
    """The cart holds a good of 8, and a pair sells one of 2; two goods of an earlier visit come back."""
    users = shop(visits=35, cart_kept=0.5, budget=9.0, return_share=0.25)
    state = first(users)
    back = torch.tensor([[2.0, 10.0, 5.6]])
    later_due = torch.zeros(1, 3, RETURN_DAYS)
    later_due[0, :, 6] = torch.tensor([1.0, 2.0, 1.6])
    cart = {**state.record, "cart": torch.tensor([DEAR])}
    state = dataclasses.replace(state, back=back, due=later_due, record=cart)
    found, streams, later = played(users, state, VIDEO, CHEAP)

    of_cart = 0.5 * sigmoid(-1.5 * math.log(2) - 2.4)  # of another taste, and twice the mean price
    wish = 2.5 + sigmoid(-0.6 + 2.5 - 0.2) + 1.5 * math.log(2)
    bought = sigmoid(wish - 4.1) * sigmoid(wish - 2.4)
    assert found["recovered"] == pytest.approx([of_cart, 0]) and of_cart == pytest.approx(0.01554, abs=1e-5)
    assert found["purchased"] == pytest.approx([0, bought]) and bought == pytest.approx(0.5019, abs=1e-4)
    assert found["sent_back"] == pytest.approx([0, bought / 4])
    assert found["cart_sent_back"] == pytest.approx([of_cart / 4, 0])
    margin = 0.3 * 8 * of_cart + 0.6 * bought - 5.6
    expected = [bought + of_cart, 8 * of_cart + 2 * bought - 10, margin, 2]
    assert streams[[2, 4, 5, 6]].tolist() == pytest.approx(expected, rel=1e-5)
    assert later.budget.item() == pytest.approx(9 - 8 * of_cart - 2 * bought, rel=1e-5)
    assert later.need[0, 0].item() == pytest.approx(bought) and later.record["cart"].item() == -1
    assert later.due is not None and later.back is not None and not bool(later.back.any())
    assert later.due[0, :, 6].tolist() == pytest.approx([1, 2, 1.6])
    # Each that comes back takes its price back, and its margin with 1.0 for handling.
    lost = (8 * 0.3 + 1) * of_cart + (0.6 + 1) * bought
    due = [(of_cart + bought) / 4, (8 * of_cart + 2 * bought) / 4, lost / 4]
    assert later.due[0, :, -1].tolist() == pytest.approx(due, rel=1e-5)
    # For a budget of 2.1 the good in the cart is too dear, and leaves all of it to the other.
    found = played(users, dataclasses.replace(state, budget=torch.tensor([2.1])), VIDEO, CHEAP)[0]
    assert found["recovered"][0] == 0 and found["purchased"][1] == pytest.approx(bought)


def test_all_goods_due_within_a_gap_come_back_together() -> None:
    due = torch.zeros(3, 3, RETURN_DAYS)
    for place, good in ((0, [1.0, 2, 1.5]), (4, [2.0, 10, 7]), (5, [1.0, 8, 3]), (13, [1.0, 4, 2])):
        due[:, :, place] = torch.tensor(good)  # in place + 1 days
    moved, back = sales.after_gap(due, torch.tensor([1, 5, 30]))
    assert back.tolist() == [[1, 2, 1.5], [3, 12, 8.5], [5, 24, 13.5]]
    assert {place for _, _, place in moved[:1].nonzero().tolist()} == {3, 4, 12}
    assert moved[1, 0].tolist() == [1, *[0] * 7, 1, *[0] * 5] and not bool(moved[2].any())


def test_nothing_follows_a_life_that_was_cut_and_settled() -> None:
    """A good of 2 is bought on the first of two days, and taken back as the life is cut on the second.

    A value of 10 of the third day would hold goods that come back, too: the learner leaves it out.
    """
    sure = {"cart_cost": -50.0, "buy_cost": -50.0, "return_share": 1.0, "habit_base": 50.0}
    users = shop(visits=2, day_discount=0.5, max_episode_steps=1, **sure)
    generator = torch.Generator().manual_seed(0)
    env = RecEnv(users, users.catalogue, users.config, torch.arange(4), 1, generator)
    env.reset()
    steps: list[Step] = [env.step(torch.tensor([[item, EMPTY]])) for item in (CHEAP, VIDEO)]
    assert [bool(step.truncated) for step in steps] == [False, True]
    assert not any(bool(step.terminated) for step in steps)
    assert [float(step.discount) for step in steps if step.discount is not None] == [0.5, 0]
    margins = torch.stack([step.streams[:, 5] for step in steps])  # (2, 1)
    assert margins.squeeze(1).tolist() == pytest.approx([0.6, -1.6])
    discounts = torch.tensor([[0.5], [0.0]])
    ends = torch.tensor([[False], [True]])
    values = torch.full((2, 1), 10.0)
    advantages = gae(margins, values, values, torch.zeros_like(ends), ends, 1.0, 1.0, discounts)
    assert_close((advantages + values).squeeze(1), torch.tensor([0.6 - 0.5 * 1.6, -1.6]))


@pytest.fixture(scope="module")
def place() -> World:
    return world(settings("ppo", "shop", env_config=SIZES))


@given(
    discounts=st.booleans(),
    visits=st.integers(2, 8),
    budget=st.floats(0.5, 20),
    cart_kept=st.floats(0, 1),
    return_share=st.floats(0, 1),
    habit_base=st.floats(-2, 3),
    seed=st.integers(0, 99),
)
@example(discounts=False, visits=8, budget=4.0, cart_kept=1.0, return_share=0.5, habit_base=3.0, seed=1)
@of_hypothesis(deadline=None, max_examples=12)
def test_budgets_and_goods_that_come_back_in_any_lives(place: World, seed: int, **changes: float) -> None:
    """Eager visitors: no budget is ever below 0, and a finished life has taken back what it sent back."""
    wishes = {"cart_cost": -1.0, "buy_cost": 2.0}
    config = settings("ppo", "shop", env_config={**SIZES, **wishes, **changes})
    env = make_env(config, place, USERS, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    random = torch.Generator().manual_seed(seed)
    names = [stream.name for stream in env.streams]
    signals = [signal.name for signal in env.signals]
    obs, alive = env.reset(), torch.ones(USERS, dtype=torch.bool)
    sums, sent = torch.zeros(USERS, len(names)), torch.zeros(USERS)
    while bool(alive.any()):
        chance = torch.rand(USERS, 60, generator=random).masked_fill(~obs.allowed(60), -1)
        slates = chance.topk(env.interface.slate_size).indices
        slates[:, 1:] = slates[:, 1:].masked_fill(torch.rand(slates[:, 1:].shape, generator=random) < 0.2, -1)
        step = env.step_without_reset(slates)
        assert step.feedback is not None
        of = step.feedback.signals.sum(1)
        sums += alive.unsqueeze(1) * step.streams
        sent += alive * (of[:, signals.index("sent_back")] + of[:, signals.index("cart_sent_back")])
        assert float(env.user_state.budget.min()) >= -1e-4
        alive &= ~(step.terminated | step.truncated)
        obs = step.obs
    of_stream = dict(zip(names, sums.T, strict=True))
    assert of_stream["returned"].tolist() == sent.tolist()
    assert bool((of_stream["returned"] <= of_stream["purchased"]).all())
    assert float(of_stream["revenue"].min()) >= -1e-3  # no more is paid back than was paid

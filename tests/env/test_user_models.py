"""The two user models, step by step by hand, and the independence of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.env.drift import Drift, best_return
from recsys_rl.env.satiation import Satiation
from recsys_rl.make import make_user_model
from recsys_rl.protocols import UserModel, UserState
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import UserError, World
from tests.tiny_world import DRIFT, SATIATION, env_of, tiny_drift, tiny_satiation, with_genres

SHOWN = torch.ones(1, 1, dtype=torch.bool)


def show(user_model: UserModel, state: UserState, item: int) -> tuple[UserState, float, float, bool]:
    """Show one item to the one user: state afterwards, first and last signal, and whether the user leaves."""
    items = torch.tensor([[item]])
    feedback = user_model.respond(state, items, SHOWN, None)
    after, leaves = user_model.advance(state, items, feedback)
    first, last = feedback.signals[0, 0, 0].item(), feedback.signals[0, 0, -1].item()
    return after, first, last, bool(leaves)


def test_drift_by_hand() -> None:
    model = tiny_drift([[1.0, 0.0]])
    state = model.sample(torch.tensor([0]))
    assert_close(model.expected_reward(state), torch.tensor([[1.0, 0.0, 0.6]]))
    state, reward, _, leaves = show(model, state, 2)
    assert reward == pytest.approx(0.6) and not leaves
    assert_close(model.visible(state)["user"], torch.tensor([[1.06, 0.08]]))
    # u . e = 1.06, 0.08, 0.7; times 0.9
    assert_close(model.expected_reward(state), torch.tensor([[0.954, 0.072, 0.63]]))
    state, reward, _, leaves = show(model, state, 0)
    assert reward == pytest.approx(0.954) and not leaves
    assert_close(model.visible(state)["user"], torch.tensor([[1.16, 0.08]]))
    _, reward, _, leaves = show(model, state, 0)
    assert reward == pytest.approx(1.16 * 0.81) and not leaves


def test_place_that_is_not_shown_does_not_change_a_drift_user() -> None:
    model = tiny_drift([[1.0, 0.0]])
    before = model.sample(torch.tensor([0]))
    item = torch.tensor([[0]])
    feedback = model.respond(before, item, ~SHOWN, None)
    assert feedback.signals.tolist() == [[[0.0]]]
    after, leaves = model.advance(before, item, feedback)
    assert_close(after.user, before.user)
    assert after.step.tolist() == [1.0]
    assert leaves.tolist() == [False]


def test_catalogue_smaller_than_a_session() -> None:
    world = World(*synthetic_world(9, 20, 4, 0.5, 0))
    dials = {"embedding_dim": 4, "max_episode_steps": 10}
    with pytest.raises(UserError):
        make_user_model(from_dict(Config, {"env": "satiation", "env_config": dials}), world)
    make_user_model(from_dict(Config, {"env": "drift", "env_config": dials}), world)


def test_drift_best_return_by_hand() -> None:
    model = tiny_drift([[1.0, 0.0], [0.0, -1.0]])
    best = best_return(model.population.profile, model.catalogue.embedding, DRIFT)
    # the best first dot product is 1 for the one and 0 for the other: (m + 0.1 t) * 0.9**t
    assert_close(best, torch.tensor([1 + 1.1 * 0.9 + 1.2 * 0.81, 0 + 0.1 * 0.9 + 0.2 * 0.81]))
    assert model.best_items(model.sample(torch.tensor([0, 1]))).tolist() == [[0], [0]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), items=st.lists(st.integers(0, 29), min_size=3, max_size=3))
def test_closed_form_bounds_every_sequence(seed: int, items: list[int]) -> None:
    catalogue, population = synthetic_world(30, 10, 2, 0.2, seed % 1000)
    model = Drift(catalogue, population, DRIFT)
    state = model.sample(torch.arange(10))
    total = torch.zeros(10)
    for item in items:
        chosen = torch.full((10, 1), item)
        feedback = model.respond(state, chosen, torch.ones_like(chosen, dtype=torch.bool), None)
        state, _ = model.advance(state, chosen, feedback)
        total += model.rewards(feedback)[:, 0]
    assert bool((total <= best_return(population.profile, catalogue.embedding, DRIFT) + 1e-5).all())


def test_satiation_by_hand() -> None:
    model = tiny_satiation([[1.0, 0.0]])
    assert_close(model.catch, torch.tensor([3**0.5, 0.0, 0.0]), atol=1e-5, rtol=0)
    state = model.sample(torch.tensor([0]))
    # base = 4 * (u . e - 1/2) = 2, -2, 0.4; catch adds sqrt(3) to the first
    assert_close(model.expected_reward(state), torch.tensor([[0.976616, 0.119203, 0.598688]]))
    # Patience is full and can't rise: satisfaction 0.566589 and 0.598688 bring nothing.
    assert_close(model.prospects(state)[1], torch.tensor([[0.0, 0.5 * (0.119203 - 0.5), 0.0]]))

    state, engagement, satisfaction, leaves = show(model, state, 1)
    assert engagement == satisfaction == pytest.approx(0.119203, abs=1e-6) and not leaves
    assert_close(state.weary_of, torch.tensor([[0.0, 0.5]]))
    assert_close(state.weary_of_genres, torch.tensor([[0.0, 0.5]]))
    assert state.patience.item() == pytest.approx(0.809601, abs=1e-6)  # 1 - 0.5 * (0.5 - 0.119203)
    # wear = 0, 0.5 + 0.5, 0.4 + 0.5 / sqrt(2); base = 2, -3, -0.353553
    assert_close(model.expected_reward(state), torch.tensor([[0.976616, 0.047426, 0.412521]]))

    state, engagement, satisfaction, leaves = show(model, state, 0)
    assert engagement == pytest.approx(0.976616, abs=1e-6)
    assert satisfaction == pytest.approx(0.566589, abs=1e-5) and not leaves  # sigmoid(2 - sqrt(3))
    assert_close(state.weary_of, torch.tensor([[0.5, 0.25]]))
    assert_close(state.weary_of_genres, torch.tensor([[0.5, 0.25]]))
    assert state.patience.item() == pytest.approx(0.809601 + 0.5 * 0.066589, abs=1e-5)


def test_prospects_equal_the_simulated_step() -> None:
    """For each item, the announced reward and change of patience are those of showing it."""
    model = tiny_satiation([[0.8, 0.6]])
    state, *_ = show(model, model.sample(torch.tensor([0])), 1)
    reward, patience = model.prospects(state)
    for item in range(3):
        after, engagement, _, _ = show(model, state, item)
        assert reward[0, item].item() == pytest.approx(engagement, abs=1e-6)
        assert patience[0, item].item() == pytest.approx((after.patience - state.patience).item(), abs=1e-6)


def test_patience_changes_the_appeal_of_all_items() -> None:
    """From patience 1/2: 2 logits for each unit above or below it."""
    config = replace(SATIATION, patience_start=0.5, patience_gain=2.0)
    model = tiny_satiation([[1.0, 0.0]], config)
    state = model.sample(torch.tensor([0]))
    assert state.patience.tolist() == [0.5]
    assert_close(model.expected_reward(state), torch.tensor([[0.976616, 0.119203, 0.598688]]))  # as before
    state, *_ = show(model, state, 1)
    assert state.patience.item() == pytest.approx(0.309601, abs=1e-6)  # 0.5 - 0.5 * (0.5 - 0.119203)
    # bases 2 + sqrt(3), -3, -0.353553 (as in test_satiation_by_hand), less 2 * (0.5 - 0.309601) = 0.380797
    assert_close(model.expected_reward(state), torch.tensor([[0.966146, 0.032901, 0.324241]]))


def test_tiresomeness_by_hand() -> None:
    """Three items are all of a user's favourites: their mean is (1.6, 1.8) / 3, and that of their genres."""
    model = tiny_satiation([[1.0, 0.0]], replace(SATIATION, satiation_strength=2.0))
    genre = (1 + 2**-0.5) / 3  # mean of 1, 0, 1 / sqrt(2)
    both = 2 * genre * 2**-0.5
    expected = [1.6 / 3 + genre, 1.8 / 3 + genre, 0.6 * 1.6 / 3 + 0.8 * 1.8 / 3 + both]
    found = model.tiresomeness(model.sample(torch.tensor([0])))
    assert_close(found, 2 * torch.tensor([expected]))


def test_without_differing_ratings_no_item_is_catchy() -> None:
    """Popularity alone does not show that an item disappoints."""
    model = tiny_satiation([[1.0, 0.0]])
    assert model.assumptions == ""
    unrated = replace(model, catalogue=replace(model.catalogue, quality=torch.full((3,), 0.7)))
    assert unrated.catch.tolist() == [0.0, 0.0, 0.0]
    assert unrated.assumptions == "the data hold no ratings that differ, so no item is catchy"


def test_opposite_item_does_not_lower_weariness() -> None:
    model = tiny_satiation([[1.0, 0.0]])
    fresh = model.sample(torch.tensor([0]))
    opposite = replace(fresh, weary_of=torch.tensor([[-1.0, 0.0]]))
    assert_close(model.expected_reward(opposite), model.expected_reward(fresh))


def test_patience_never_exceeds_one() -> None:
    model = tiny_satiation([[0.0, 1.0]])
    state, _, satisfaction, _ = show(model, model.sample(torch.tensor([0])), 1)
    assert satisfaction > 0.5 and state.patience.item() == 1.0


@pytest.mark.parametrize(
    ("patience", "left", "leaves"), [(0.3, 0.05, False), (0.25, 0.0, True), (0.2, -0.05, True)]
)
def test_place_that_is_not_shown_costs_patience_without_weariness(
    patience: float, left: float, leaves: bool
) -> None:
    model = tiny_satiation([[1.0, 0.0]])
    state = replace(
        model.sample(torch.tensor([0])),
        patience=torch.tensor([patience]),
        weary_of=torch.tensor([[0.4, 0.2]]),
        weary_of_genres=torch.tensor([[1.0, 0.0]]),
    )
    items = torch.tensor([[0]])
    feedback = model.respond(state, items, ~SHOWN, None)
    assert feedback.signals.tolist() == [[[0.0, 0.0]]]
    assert not feedback.shown.item()
    after, gone = model.advance(state, items, feedback)
    assert after.patience.item() == pytest.approx(left) and bool(gone) == leaves  # minus 0.5 * 0.5
    assert_close(after.weary_of, torch.tensor([[0.2, 0.1]]))  # recovery goes on
    assert_close(after.weary_of_genres, torch.tensor([[0.5, 0.0]]))


def test_noise_changes_only_engagement_within_bounds() -> None:
    model = tiny_satiation([[1.0, 0.0]], replace(SATIATION, noise=0.2))
    state = model.sample(torch.zeros(4000, dtype=torch.int64))
    items = torch.full((4000, 1), 2)
    feedback = model.respond(
        state, items, torch.ones_like(items, dtype=torch.bool), torch.Generator().manual_seed(0)
    )
    engagement, satisfaction = feedback.signals[:, 0].unbind(-1)  # (N,) each
    assert satisfaction.max() == satisfaction.min()
    assert engagement.min() >= 0 and engagement.max() <= 1
    # 0.598688 lies two deviations below 1: clipping moves the mean by 0.0017 only
    assert engagement.mean().item() == pytest.approx(0.5988, abs=0.012)
    assert engagement.std().item() == pytest.approx(0.2, abs=0.012)


@pytest.mark.parametrize(
    ("platform", "config"), [(Drift, DRIFT), (Satiation, replace(SATIATION, satiation_recovery=0.9))]
)
def test_rows_never_mix(platform: Callable[..., UserModel], config: EnvConfig) -> None:
    """All users at once, in another order, or one by one: the same three steps."""
    catalogue, population = synthetic_world(20, 12, 4, 0.25, 3)
    genres = (torch.rand(20, 5, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    model = platform(with_genres(catalogue, genres), population, config)
    items = torch.randint(20, (3, 12, 1), generator=torch.Generator().manual_seed(0))  # (T, N, K)
    shown = torch.rand(3, 12, 1, generator=torch.Generator().manual_seed(2)) >= 0.2

    def session(users: torch.Tensor) -> tuple[torch.Tensor, UserState]:
        state, seen = model.sample(users), []
        for item, there in zip(items[:, users], shown[:, users], strict=True):
            feedback = model.respond(state, item, there, None)
            seen += [model.expected_reward(state), feedback.signals.flatten(1), model.rewards(feedback)]
            state, leaves = model.advance(state, item, feedback)
            seen.append(leaves.unsqueeze(-1).float())
        return torch.cat(seen, -1), state

    together, last = session(torch.arange(12))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    shuffled, last_shuffled = session(order)
    assert_close(shuffled, together[order])
    for field in fields(last):
        assert_close(getattr(last_shuffled, field.name), getattr(last, field.name)[order])
    alone = torch.cat([session(torch.tensor([user]))[0] for user in range(12)])
    assert_close(alone, together)


def test_item_that_becomes_unavailable_between_steps_is_not_shown() -> None:
    """The catalogue may be changed between steps."""
    model = tiny_drift([[1.0, 0.0]])
    env = env_of(model, model.catalogue, DRIFT, torch.tensor([0]))
    assert env.step(torch.tensor([[0]])).reward.tolist() == [1.0] and env.observe().mask is None
    model.catalogue.available[0] = False
    step = env.step(torch.tensor([[0]]))
    assert step.reward.tolist() == [0.0] and step.feedback is not None and not bool(step.feedback.shown)
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[False, True, True]]


def test_session_copies_the_tensors_of_the_caller() -> None:
    model = tiny_drift([[1.0, 0.0]])
    env = env_of(model, model.catalogue, DRIFT, torch.tensor([0]))
    items = torch.tensor([[1]])
    step = env.step(items)
    before = env.state_dict()["session.history"].tolist(), env.observe().context.tolist()
    items.fill_(2)
    step.reward.fill_(7.0)
    assert (env.state_dict()["session.history"].tolist(), env.observe().context.tolist()) == before
    assert env.state_dict()["session.signals"].flatten().tolist() == [0.0]
    assert step.feedback is not None and step.feedback.signals.tolist() == [[[0.0]]]

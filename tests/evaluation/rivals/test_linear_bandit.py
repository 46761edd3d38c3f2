"""LinUCB and linear Thompson sampling against a plain numpy version, which begins anew at each step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.errors import UserError
from recsys_rl.evaluation.rivals import linear_bandit
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.linear_bandit import (
    BanditSettings,
    LinearBandit,
    LinUCB,
    Thompson,
    signal_weights,
)
from recsys_rl.testing import check_agent
from recsys_rl.types import Catalogue, Interface, Obs, Stream
from tests.tiny_world import tiny_catalogue

USERS, ITEMS, DIM, STEPS = 70, 30, 5, 8  # more than one chunk of users
DIALS = BanditSettings(explore=0.7, gain=0.3, ridge=2.0, level=0.4)


def catalogue() -> Catalogue:
    noise = torch.Generator().manual_seed(0)
    table = torch.nn.functional.normalize(torch.randn(ITEMS, DIM, generator=noise), dim=1)
    return dataclasses.replace(
        tiny_catalogue(),
        embedding=table,
        item_ids=torch.arange(ITEMS),
        available=torch.ones(ITEMS, dtype=torch.bool),
    )


def generators() -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)


def thompson(slate_size: int = 1) -> Thompson:
    weights, estimates = torch.tensor([1.0]), slate_size == 1
    return Thompson(catalogue(), DIALS, weights, generators(), None, BestSlate(slate_size), estimates)


def sessions(length: int = STEPS) -> list[Obs]:
    """The observations of sessions in which users see random items, each once; some begin again."""
    noise = torch.Generator().manual_seed(3)
    profile = torch.randn(USERS, DIM, generator=noise)
    order = torch.rand(USERS, ITEMS, generator=noise).argsort(1)
    answers = torch.rand(USERS, ITEMS, 1, generator=noise)
    found = []
    for step in range(STEPS + 1):
        history = torch.full((USERS, length), -1)
        signals = torch.zeros(USERS, length, 1)
        for user in range(USERS):
            first = 4 if user % 7 == 0 and step >= 4 else 0  # another session after step 4
            shown = order[user, first:step][-length:]
            history[user, length - len(shown) :] = shown
            signals[user, length - len(shown) :] = answers[user, first:step][-length:]
        context = torch.cat([profile, torch.zeros(USERS, 2)], 1)
        found.append(Obs(context, history, signals, exclude=history))
    return found


def regression(obs: Obs, user: int, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """theta and P of one user, by the formula."""
    assert obs.history is not None and obs.signals is not None
    start = DIALS.gain * obs.context[user, :DIM].double().numpy()
    precision, answers = DIALS.ridge * np.eye(DIM), np.zeros(DIM)
    for item, answer in zip(obs.history[user].tolist(), obs.signals[user, :, 0].tolist(), strict=True):
        if item >= 0:
            x = table[item]
            precision += np.outer(x, x)
            answers += x * (answer - DIALS.level - x @ start)
    inverse = np.linalg.inv(precision)
    return start + inverse @ answers, inverse


def allowed(obs: Obs, user: int, scores: np.ndarray) -> np.ndarray:
    assert obs.exclude is not None
    scores = scores.copy()
    scores[[item for item in obs.exclude[user].tolist() if item >= 0]] = -np.inf
    return scores


def by_numpy_ucb(obs: Obs) -> list[int]:
    table, found = catalogue().embedding.double().numpy(), []
    for user in range(USERS):
        theta, inverse = regression(obs, user, table)
        width = np.sqrt(np.einsum("id,de,ie->i", table, inverse, table))
        found.append(int(allowed(obs, user, table @ theta + DIALS.explore * width).argmax()))
    return found


def by_numpy_thompson(obs: Obs, noise: torch.Generator) -> list[int]:
    assert obs.history is not None
    table, found = catalogue().embedding.double().numpy(), []
    draws = torch.randn(USERS, DIM + obs.history.shape[1], generator=noise).double().numpy()
    for user in range(USERS):
        theta, inverse = regression(obs, user, table)
        total = np.sqrt(DIALS.ridge) * draws[user, :DIM]
        for place, item in enumerate(obs.history[user].tolist()):
            if item >= 0:
                total = total + draws[user, DIM + place] * table[item]
        drawn = theta + DIALS.explore * inverse @ total
        found.append(int(allowed(obs, user, table @ drawn).argmax()))
    return found


def shown(action_items: Tensor) -> list[int]:
    return action_items[:, 0].tolist()


@pytest.mark.parametrize("length", [STEPS, 3])  # 3: the window slides
def test_linucb_chooses_as_numpy_does(length: int) -> None:
    agent = LinUCB(catalogue(), DIALS, torch.tensor([1.0]))
    reader = agent.reader()
    for obs in sessions(length):
        expected = by_numpy_ucb(obs)
        assert shown(agent.act(reader.follow(obs)).items) == expected
        assert shown(agent.act(obs).items) == expected  # from the observation alone


@pytest.mark.parametrize("agent", [LinUCB(catalogue(), DIALS, torch.tensor([1.0])), thompson()])
@pytest.mark.parametrize("others_go_on", [True, False])
def test_a_new_user_in_the_place_of_another_begins_anew(agent: LinUCB | Thompson, others_go_on: bool) -> None:
    """The histories are the same, and the first pieces of the context, from which it begins, are not."""
    before, after = (sessions()[step] for step in (2, 3 if others_go_on else 2))
    reader = agent.reader()
    reader.follow(before)
    assert before.history is not None and after.history is not None
    assert before.signals is not None and after.signals is not None
    after.history[5], after.signals[5] = before.history[5], before.signals[5]
    after.context[5] += 1.0
    found, expected = reader.follow(after).summary, agent.reader().follow(after).summary
    assert found is not None and expected is not None
    assert_close(found, expected)


@pytest.mark.parametrize("length", [STEPS, 3])
def test_thompson_chooses_as_numpy_does_for_the_same_draws(length: int) -> None:
    followed, alone = thompson(), thompson()
    reader, noise = followed.reader(), torch.Generator().manual_seed(1)
    for obs in sessions(length):
        expected = by_numpy_thompson(obs, noise)
        assert shown(followed.act(reader.follow(obs)).items) == expected
        assert shown(alone.act(obs).items) == expected


def test_draws_have_the_covariance_of_the_regression() -> None:
    """Choices are the best items by N(theta, scale^2 P): their shares are the estimated probabilities."""
    obs = sessions()[STEPS].rows(torch.tensor([1]))
    agent = Thompson(catalogue(), DIALS, torch.tensor([1.0]), generators(), estimates=False)
    many = obs.map(lambda x: x.repeat(20_000, *[1] * (x.ndim - 1)))
    drawn = agent.act(many).items[:, 0].bincount(minlength=ITEMS) / 20_000
    estimated = agent.item_probabilities(obs, ITEMS)[0]
    assert float(estimated.sum()) == pytest.approx(1)
    assert float((drawn - estimated).abs().max()) < 0.08  # five standard deviations of 1,000 draws


def test_probability_of_the_choice_is_never_zero_and_that_of_a_forbidden_item_is() -> None:
    obs, agent = sessions()[3], thompson()
    assert obs.history is not None
    state = agent.generator.get_state()
    terms = agent.place_logprobs(obs, agent.act(obs).items)
    assert terms.dtype == torch.float64 and bool(terms.isfinite().all()) and bool((terms <= 0).all())
    assert bool((agent.place_logprobs(obs, obs.history[:, -1:]) == -torch.inf).all())
    shares = agent.item_probabilities(obs, ITEMS)
    assert bool((shares.gather(1, obs.history[:, -1:]) == 0).all())
    again = thompson()  # estimates do not change the choices
    assert torch.equal(again.generator.get_state(), state)
    again.item_probabilities(obs, ITEMS)
    assert torch.equal(again.act(obs).items, thompson().act(obs).items)


def test_contract_of_a_policy() -> None:
    obs = sessions()[4]
    check_agent(lambda: LinUCB(catalogue(), DIALS, torch.tensor([1.0])), obs, ITEMS)
    check_agent(thompson, obs, ITEMS)


def test_greedy_thompson_shows_the_mean() -> None:
    obs, agent = sessions()[5], thompson()
    state = agent.generator.get_state()
    table = catalogue().embedding.double().numpy()
    best = [
        int(allowed(obs, user, table @ regression(obs, user, table)[0]).argmax()) for user in range(USERS)
    ]
    assert shown(agent.act(obs, greedy=True).items) == best
    assert torch.equal(agent.generator.get_state(), state)


@pytest.mark.parametrize("kind", ["linucb", "thompson"])
def test_slates_masks_and_candidates(kind: str) -> None:
    weights = torch.tensor([1.0])
    ucb = LinUCB(catalogue(), DIALS, weights, slate=BestSlate(3))
    agent: LinearBandit | Thompson = ucb if kind == "linucb" else thompson(3)
    assert isinstance(agent, LinUCB | Thompson)
    obs = sessions()[4]
    items = agent.act(obs).items
    assert items.shape == (USERS, 3) and all(len(set(row)) == 3 for row in items.tolist())
    mask = torch.zeros(USERS, ITEMS, dtype=torch.bool)
    mask[:, [2, 5]] = True
    few = dataclasses.replace(obs, exclude=None, mask=mask)
    for row in agent.act(few).items.tolist():
        assert sorted(row) == [-1, 2, 5]  # the last place stays empty
    candidates = torch.tensor([[7, 9, 11, 13, -1]]).repeat(USERS, 1)
    for row in agent.act(obs.among(candidates)).items.tolist():
        assert len(set(row)) == 3 and set(row) <= {7, 9, 11, 13}


def test_user_without_a_profile_begins_with_the_start() -> None:
    """With gain 1 and nothing to explore, east is best for the start (1, 0), north for the profile (0, 1)."""
    settings = BanditSettings(explore=0.0, gain=1.0)
    agent = LinUCB(tiny_catalogue(), settings, torch.tensor([1.0]), start=torch.tensor([1.0, 0.0]))
    context = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    obs = Obs(context, torch.full((2, 3), -1), torch.zeros(2, 3, 1))
    assert shown(agent.act(obs).items) == [0, 1]


def test_reward_is_read_from_visible_signals() -> None:
    streams = (Stream("watch", 0.5), Stream("cost", -0.2), Stream("hidden", 0.3))
    assert signal_weights(("cost", "likes", "watch"), streams).tolist() == pytest.approx([-0.2, 0.0, 0.5])
    assert signal_weights(("ratio", "likes"), streams).tolist() == [1.0, 0.0]


def test_observations_without_answers_and_too_many_items_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError):
        linear_bandit.check_feedback(Interface((("user", 5),), (ITEMS,)), "lints")
    linear_bandit.check_feedback(
        Interface((("user", 5),), (ITEMS,), history_length=3, signals=("match",)), "lints"
    )
    monkeypatch.setattr(linear_bandit, "MAX_SCORES", USERS * ITEMS - 1)
    with pytest.raises(UserError):
        LinUCB(catalogue(), DIALS, torch.tensor([1.0])).act(sessions()[0])


def test_bounds_are_finite_where_rounding_could_make_a_variance_negative() -> None:
    """The same item 300 times with a ridge of 1e-5: its variance is a hair above 0."""
    settings = BanditSettings(explore=1.0, gain=0.0, ridge=1e-5)
    agent = LinUCB(catalogue(), settings, torch.tensor([1.0]))
    history = torch.full((3, 300), 7)
    obs = Obs(torch.zeros(3, DIM + 2), history, torch.ones(3, 300, 1))
    reader = agent.reader()
    bounds = reader.follow(obs).summary
    assert reader.tables.may_be_negative and bounds is not None
    assert bool(bounds.isfinite().all())
    assert_close(bounds[:, 7], torch.ones(3), rtol=0.1, atol=0)
    usual = LinUCB(catalogue(), DIALS, torch.tensor([1.0])).reader()
    for step in sessions():
        usual.follow(step)
    assert not usual.tables.may_be_negative

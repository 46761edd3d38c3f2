"""The baselines and references of every table: by hand in a tiny world, and their order by return."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.env.drift import Drift, DriftConfig, best_return
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation, SatiationConfig
from recsys_rl.evaluation.rivals import baselines
from recsys_rl.evaluation.rivals.baselines import (
    FixedList,
    RandomPolicy,
    mean_return,
    most_popular,
    random_policy,
    simple_baselines,
)
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.references import (
    Myopic,
    Oracle,
    Planner,
    base_scores,
    best_first_items,
    most_promising,
    upper_bounds,
)
from recsys_rl.experience.rollout import play
from recsys_rl.protocols import Policy
from recsys_rl.testing import check_agent
from recsys_rl.types import Action, Obs, Population
from tests.tiny_world import SATIATION, env_of, tiny_drift, tiny_satiation, with_genres

TRAP = replace(SATIATION, catchiness_gain=3.0, patience_cost=2.1)
"""Item 0 appeals most to one who likes item 1, and drives that user away at once."""


def tiny_env(user_model: Drift | Satiation) -> RecEnv:
    return env_of(user_model, user_model.catalogue, user_model.config, user_model.population.heldout)


def synthetic_env(num_users: int = 40, steps: int = 12, noise: float = 0.0, **dials: Any) -> RecEnv:
    """Satiation over 60 synthetic items with genres, without noise, so that plans are exact."""
    catalogue, population = synthetic_world(60, num_users, 8, 0.5, 1)
    genres = (torch.rand(60, 6, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    catalogue = with_genres(catalogue, genres)
    sizes = SatiationConfig(num_items=60, embedding_dim=8, max_episode_steps=steps)
    config = replace(sizes, patience_cost=1.0, noise=noise, **dials)
    return env_of(Satiation(catalogue, population, config), catalogue, config, torch.arange(num_users))


def returns_of(env: RecEnv, agent: Policy) -> Tensor:
    return play(env, agent, env.users).returns


class Heuristic:
    """One base policy of the planner: the reward plus price times patience of the next step."""

    def __init__(self, env: RecEnv, price: float) -> None:
        self.env, self.price = env, price

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        reward, patience = self.env.user_model.prospects(self.env.user_state)  # type: ignore[attr-defined]
        scores = reward + self.price * patience
        item = scores.masked_fill(~obs.allowed(scores.shape[1]), -torch.inf).argmax(1, keepdim=True)
        return Action(item, torch.zeros(len(item)))


def test_random_is_uniform_over_allowed_items() -> None:
    mask = torch.tensor([True, False, True, True]).expand(3000, 4)
    obs = Obs(torch.zeros(3000, 2), mask=mask)
    action = RandomPolicy((4,), torch.Generator().manual_seed(0)).act(obs)
    assert_close(action.logprob, torch.full((3000,), -math.log(3)))
    counts = Counter(action.items[:, 0].tolist())
    assert set(counts) == {0, 2, 3} and all(abs(count - 1000) < 100 for count in counts.values())


def test_random_over_several_positions() -> None:
    action = RandomPolicy((2, 5), torch.Generator().manual_seed(0)).act(Obs(torch.zeros(1000, 3)))
    assert action.items.amin(0).tolist() == [0, 0] and action.items.amax(0).tolist() == [1, 4]
    assert_close(action.logprob, torch.full((1000,), -math.log(10)))


def test_list_position_follows_each_users_history() -> None:
    history = torch.tensor([[-1, -1, -1], [-1, -1, 7], [-1, 7, 5], [7, 5, 3]])
    obs = Obs(torch.zeros(4, 2), history)
    assert FixedList(torch.tensor([7, 5, 3])).act(obs).items.tolist() == [[7], [5], [3], [3]]
    assert FixedList(torch.tensor([7])).act(obs).items.tolist() == [[7]] * 4
    assert FixedList(torch.tensor([7, 5, 3])).act(Obs(torch.zeros(2, 2))).items.tolist() == [[7], [7]]


def test_most_popular_excludes_unavailable_items() -> None:
    catalogue = replace(
        tiny_satiation([[1.0, 0.0]]).catalogue,
        popularity=torch.tensor([0.2, 0.9, 0.5]),
        available=torch.tensor([True, False, True]),
    )
    assert most_popular(catalogue, 3).tolist() == [2, 0]
    assert most_popular(catalogue, 1).tolist() == [2]


@pytest.mark.parametrize("tiny", [tiny_drift, tiny_satiation])
def test_unavailable_items_are_not_shown(tiny: Callable[[list[list[float]]], Drift | Satiation]) -> None:
    """Item 0 would be the best for this user, but it is not available."""
    model = tiny([[1.0, 0.0]])
    model = replace(model, catalogue=replace(model.catalogue, available=torch.tensor([False, True, True])))
    env = tiny_env(model)
    agents = simple_baselines(env, env.users, torch.Generator()) | upper_bounds(env)
    if model.repeats:  # there is no mask: it can't know
        del agents["random"]
    for name, agent in agents.items():
        assert agent.act(env.reset(env.users)).items.item() != 0, name


def test_drift_baselines_by_hand() -> None:
    """One user likes east and one north. The most popular item is east; the best for both is between."""
    model = tiny_drift([[1.0, 0.0], [0.0, 1.0]])
    env, users = tiny_env(model), torch.tensor([0, 1])
    agents = simple_baselines(env, users, torch.Generator().manual_seed(0))
    assert list(agents) == ["random", "popularity", "one-item", "static-list"]
    sessions = {name: play(env, agent, users) for name, agent in agents.items()}
    assert sessions["popularity"].items.squeeze(-1).tolist() == [[0, 0]] * 3
    assert sessions["one-item"].items.squeeze(-1).tolist() == [[2, 2]] * 3
    assert sessions["static-list"].items.squeeze(-1).tolist() == [[2, 2]] * 3
    # east: u . e = 1 and 0; between: 0.6 and 0.8; both grow by 0.1 a step and fade by 0.9**t
    assert_close(sessions["popularity"].returns, torch.tensor([2.962, 0.252]))
    assert_close(
        sessions["one-item"].returns, torch.tensor([0.6 + 0.7 * 0.9 + 0.8 * 0.81, 0.8 + 0.81 + 0.81])
    )


def test_static_list_is_optimal_under_drift() -> None:
    """No list of the tiny world has a higher mean return (all 27 are tried)."""
    model = tiny_drift([[1.0, 0.0], [0.28, 0.96], [-0.6, 0.8]])
    users = torch.arange(3)
    found = baselines.static_list(model, model.catalogue, users, 3)
    everything = [
        mean_return(model, users, torch.tensor(items)) for items in itertools.product(range(3), repeat=3)
    ]
    assert_close(mean_return(model, users, found), torch.stack(everything).max())


def test_satiation_baselines_by_hand() -> None:
    model = tiny_satiation([[1.0, 0.0], [1.0, 0.0]])
    env, users = tiny_env(model), torch.tensor([0, 1])
    agents = simple_baselines(env, users, torch.Generator().manual_seed(0))
    sessions = {name: play(env, agent, users) for name, agent in agents.items()}
    assert sessions["popularity"].items[:, 0, 0].tolist() == [0, 1, 2]
    assert sessions["static-list"].items[:, 0, 0].tolist() == [0, 2, 1]
    # bases of [0, 1, 2]: 2 + sqrt(3), -2, 0.4 - (0.15 + 0.4 + 0.75 / sqrt(2))
    assert_close(sessions["popularity"].returns, torch.full((2,), 0.976616 + 0.119203 + 0.336188))
    # bases of [0, 2, 1]: 2 + sqrt(3), 0.4 - (0.3 + 0.5 / sqrt(2)), -2 - (0.4 + 0.353553)
    assert_close(sessions["static-list"].returns, torch.full((2,), 0.976616 + 0.436949 + 0.059886))


def test_repeated_item_is_not_shown_until_the_user_leaves() -> None:
    """Patience: 1 after the first showing, then 0.75, 0.5, 0.25, 0: gone after five steps."""
    config = replace(SATIATION, max_episode_steps=9)
    env = tiny_env(tiny_satiation([[1.0, 0.0]], config))
    one_item = simple_baselines(env, torch.tensor([0]), torch.Generator())["one-item"]
    session = play(env, one_item, torch.tensor([0]))
    assert session.items[:, 0, 0].tolist() == [0] * 5
    assert_close(session.rewards[:, 0], torch.tensor([0.976616, 0, 0, 0, 0]))
    assert session.left.tolist() == [True]


def test_static_list_ignores_users_after_they_left() -> None:
    """Three users leave after the first item; the second place belongs to the one who stays.

    Item 0 comes first (it appeals to all, and the price is 0); otherwise the three who like
    item 1 outvote the one who likes item 2 more.
    """
    model = tiny_satiation([[0.0, 1.0]] * 3 + [[0.96, 0.28]], TRAP)
    users = torch.arange(4)
    assert baselines.greedy_list(model, model.catalogue, users, 3, 0.0).tolist() == [0, 2, 1]
    patient = replace(model, config=replace(TRAP, patience_cost=0.0))
    assert baselines.greedy_list(patient, model.catalogue, users, 3, 0.0).tolist() == [0, 1, 2]


def test_static_list_beats_popularity_on_training_users() -> None:
    """The users are patient, so that sessions are long enough for the order of a list to matter."""
    env = synthetic_env(
        affinity_gain=8.0,
        affinity_midpoint=0.3,
        satiation_recovery=0.8,
        catchiness_gain=2.0,
        patience_start=1.0,
        patience_gain=0.0,
    )
    agents = simple_baselines(env, env.users, torch.Generator().manual_seed(0))
    popularity, static = (returns_of(env, agents[name]) for name in ("popularity", "static-list"))
    assert static.mean() > 1.2 * popularity.mean()
    assert isinstance(agents["static-list"], FixedList)
    promised = mean_return(env.user_model, env.users, agents["static-list"].items)
    assert_close(static.mean(), promised)


def test_planner_avoids_the_trap_by_hand() -> None:
    env = tiny_env(tiny_satiation([[0.0, 1.0]], TRAP))
    myopic = play(env, Myopic(env), env.users)
    assert myopic.items[:, 0, 0].tolist() == [0]
    assert_close(myopic.returns, torch.tensor([0.960689]))  # sigmoid(-2 + 3 sqrt(3)), then gone
    planned = play(env, Planner(env), env.users)
    assert planned.items[:, 0, 0].tolist() == [2, 1, 0]  # the trap is free at the very end
    # bases: 1.2;  2 - (0.4 + 0.353553);  -2 - (0.15 + 0.176777) + 3 sqrt(3)
    assert_close(planned.returns, torch.tensor([0.768525 + 0.776684 + 0.946312]))


def test_informed_planner_with_the_taste_as_profile_is_the_planner() -> None:
    """The profile of a synthetic user is the taste. With another user's profile the planner earns less."""
    env = synthetic_env(steps=6)
    planned = returns_of(env, Planner(env))
    assert_close(returns_of(env, Planner(env, informed=True)), planned)
    people: Population = env.user_model.population  # type: ignore[attr-defined]
    mistaken = replace(people, profile=people.taste.roll(1, 0))
    env = tiny_env(Satiation(env.catalogue, mistaken, env.user_model.config))  # type: ignore[attr-defined]
    misled = returns_of(env, Planner(env, informed=True))
    assert misled.mean() < planned.mean() - 0.5
    assert_close(returns_of(env, Planner(env)), planned[env.users])


def test_scores_under_prices_of_patience_and_weariness() -> None:
    """A score falls by the price times the tiresomeness times the share of the session that is left."""
    model = tiny_satiation([[0.6, 0.8]], replace(SATIATION, max_episode_steps=2))
    state = model.sample(torch.tensor([0]))
    prices = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])  # (1, 3, 2): free, patience, weariness
    reward, patience = model.prospects(state)  # (1, 3) each, as the tiresomeness
    tiresome = model.tiresomeness(state)
    half = torch.full((1, 3), 0.5)  # of the session is left
    scores = base_scores(reward.unsqueeze(1), patience.unsqueeze(1), tiresome.unsqueeze(1), prices, half)
    assert_close(scores[:, 0], reward)
    assert_close(scores[:, 1], reward + 2.0 * patience)
    assert_close(scores[:, 2], reward - 0.5 * tiresome)


def test_planner_uses_each_users_steps_left() -> None:
    """The same user with 1, 2 and 3 steps left: only the last step should show the trap."""
    model = tiny_satiation([[0.0, 1.0]], TRAP)
    state = model.sample(torch.zeros(4, dtype=torch.int64))
    allowed = torch.ones(4, 3, dtype=torch.bool)
    allowed[3, 0] = False  # and one who was shown the trap before
    assert best_first_items(model, state, allowed, torch.tensor([1, 2, 3, 1]), 3).tolist() == [
        [0],
        [1],
        [2],
        [1],
    ]


def test_planner_shows_no_forbidden_item() -> None:
    """The only allowed item would earn more after a pause, but a forbidden item can't serve as a pause."""
    model = tiny_satiation([[0.0, 1.0]])
    weary = replace(model.sample(torch.tensor([0])), weary_of_genres=torch.tensor([[0.0, 8.0]]))
    only_north = torch.tensor([[False, True, False]])
    assert best_first_items(model, weary, only_north, torch.tensor([2]), 3).tolist() == [[1]]


def test_most_promising_branch_by_hand() -> None:
    """Of five branches three are kept, then two, with twice the futures. The first is lucky at the start."""
    means = torch.tensor([[1.0, 2.0, 5.0, 3.0, 4.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    calls: list[tuple[list[list[int]], list[float]]] = []

    def returns(places: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        calls.append((places.tolist(), sorted(shifts.tolist())))
        lucky = (places == 0) & (torch.tensor([[len(calls)], [0]]) == 1)
        return len(shifts) * means.gather(1, places) + 9 * lucky

    branches = torch.arange(5).expand(2, -1)
    assert most_promising(returns, branches, 2).tolist() == [2, 0]
    assert calls == [
        ([[0, 1, 2, 3, 4]] * 2, [0.0, 0.5]),
        ([[0, 2, 4], [0, 1, 2]], [0.25, 0.75]),  # sums 11, 4, 10, 6, 8 of the first row
        ([[2, 4], [0, 1]], [0.125, 0.375, 0.625, 0.875]),  # 13, 20, 16
    ]
    calls.clear()
    assert most_promising(returns, branches, 1).tolist() == [0, 0] and len(calls) == 1  # an exact simulation


def test_planner_is_optimal_over_two_steps() -> None:
    """Each of three items is tried first, and the last step is greedy, which is optimal."""
    tastes = torch.nn.functional.normalize(
        torch.randn(30, 2, generator=torch.Generator().manual_seed(4)), dim=1
    )
    model = tiny_satiation(tastes.tolist(), replace(TRAP, max_episode_steps=2))
    env = tiny_env(model)
    planned = returns_of(env, Planner(env))
    for user in range(30):
        row = torch.tensor([user])
        pairs = [mean_return(model, row, torch.tensor(pair)) for pair in itertools.permutations(range(3), 2)]
        assert planned[user].item() == pytest.approx(max(pairs).item(), abs=1e-5)


def test_planner_is_not_below_myopic_and_base_policies() -> None:
    """It holds for each user, as the simulation is exact without noise."""
    env = synthetic_env()
    planned, myopic = returns_of(env, Planner(env)), returns_of(env, Myopic(env))
    assert bool((planned >= myopic - 1e-4).all()) and planned.mean() > 1.15 * myopic.mean()
    for price in (0.0, 0.5, 2.0, 8.0):
        heuristic = returns_of(env, Heuristic(env, price))
        assert bool((planned >= heuristic - 1e-4).all()) and planned.mean() > heuristic.mean()


def test_planner_is_independent_of_the_order_of_users() -> None:
    """40 users are planned in chunks, and another order gives other chunks."""
    env = synthetic_env(steps=4)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for agent in (Planner(env), Myopic(env)):
        assert_close(play(env, agent, order).returns, play(env, agent, torch.arange(40)).returns[order])


def test_oracle_return_equals_the_closed_form() -> None:
    catalogue, population = synthetic_world(50, 20, 4, 0.5, 2)
    config = DriftConfig(num_items=50, embedding_dim=4)
    env = env_of(Drift(catalogue, population, config), catalogue, config, torch.arange(20))
    best = best_return(population.profile, catalogue.embedding, config)
    assert_close(returns_of(env, Oracle(env)), best, atol=1e-5, rtol=0)
    # Items pull the user towards themselves, so that the best item stays the best: myopia is optimal here.
    assert_close(returns_of(env, Myopic(env)), best, atol=1e-5, rtol=0)
    shown = play(env, Oracle(env), env.users).items
    assert bool((shown == shown[0]).all())


def test_names_of_upper_rows() -> None:
    assert list(upper_bounds(tiny_env(tiny_drift([[1.0, 0.0]])))) == ["myopic", "oracle"]
    assert list(upper_bounds(tiny_env(tiny_satiation([[1.0, 0.0]])))) == ["myopic", "informed", "planner"]


@pytest.mark.parametrize("steps_before", [0, 5])
def test_contracts_in_satiation(steps_before: int) -> None:
    """At the start, and in the middle of sessions, after some users have left."""
    env = synthetic_env(noise=0.1)
    obs = env.reset(env.users)
    agent = RandomPolicy((60,), torch.Generator().manual_seed(0))
    for _ in range(steps_before):
        obs = env.step(agent.act(obs).items).obs
    if steps_before:
        assert env.session.steps.max() > env.session.steps.min()
    check_agent(lambda: RandomPolicy((60,), torch.Generator().manual_seed(1)), obs, 60, random_greedy=True)
    for make in (Myopic, Planner):
        check_agent(lambda make=make: make(env), obs, 60)  # type: ignore[misc]


def test_contracts_of_the_lists() -> None:
    env = synthetic_env()
    agents = simple_baselines(env, env.users, torch.Generator().manual_seed(0))
    for name in ("popularity", "one-item", "static-list"):
        agent = agents[name]
        obs = env.reset(env.users)
        check_agent(lambda agent=agent: agent, obs, 60)  # type: ignore[misc]
        obs = env.step(agent.act(obs).items).obs
        if name == "one-item":
            with pytest.raises(AssertionError, match="forbidden"):
                check_agent(lambda agent=agent: agent, obs, 60)  # type: ignore[misc]
        else:
            check_agent(lambda agent=agent: agent, obs, 60)  # type: ignore[misc]


def test_contracts_in_drift() -> None:
    env = tiny_env(tiny_drift([[1.0, 0.0], [0.0, 1.0]]))
    obs = env.reset(env.users)
    agents = simple_baselines(env, env.users, torch.Generator()) | upper_bounds(env)
    del agents["random"]
    for agent in agents.values():
        check_agent(lambda agent=agent: agent, obs, 3)  # type: ignore[misc]
    check_agent(lambda: RandomPolicy((3,), torch.Generator().manual_seed(1)), obs, 3, random_greedy=True)


def test_random_slates_of_kinds_draw_a_pattern_and_an_allowed_item_of_each_kind() -> None:
    slate = BestSlate(2, ((0, 1), (1, 2)), torch.tensor([0, 0, 1, 1, 2]))
    policy = random_policy(slate, 5, torch.Generator().manual_seed(0))
    number = 4000
    obs = Obs(torch.zeros(number, 3), exclude=torch.full((number, 1), 3))
    action = policy.act(obs)
    # Item 3 may not be shown: (0, 2) and (1, 2) have 1/4 each, (2, 4) has 1/2.
    expected = {(0, 2): 0.25, (1, 2): 0.25, (2, 4): 0.5}
    drawn = Counter(map(tuple, action.items.tolist()))
    assert set(drawn) == set(expected)
    for slate_of_two, chance in expected.items():
        assert drawn[slate_of_two] / number == pytest.approx(chance, abs=0.03)
    assert action.logprob.exp().tolist() == pytest.approx([expected[tuple(x)] for x in action.items.tolist()])
    few = Obs(torch.zeros(4, 3), exclude=torch.tensor([[3, -1], [3, -1], [3, -1], [2, 3]]))
    items = torch.tensor([[0, 2], [2, 4], [0, 1], [-1, -1]])
    chances = policy.logprob(few, items).exp()
    assert chances.tolist() == pytest.approx([0.25, 0.5, 0.0, 1.0])
    assert policy.act(few).items[3].tolist() == [-1, -1]

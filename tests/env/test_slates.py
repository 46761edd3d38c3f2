"""Slates of three items with two reward streams, from the environment to the table, on a toy platform."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from torch.testing import assert_close

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.printing import print_table
from recsys_rl.evaluation.rivals import rule_search, tuning
from recsys_rl.evaluation.rivals.baselines import FixedList, RandomPolicy, mean_return, simple_baselines
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.rankers import MaximalMarginalRelevance, Rule, RuleWeights
from recsys_rl.evaluation.rivals.references import Myopic, Planner, upper_bounds
from recsys_rl.evaluation.table import Played, mean_rows, summarise
from recsys_rl.experience.rollout import play
from recsys_rl.foreign import ids as gymnasium_ids
from recsys_rl.protocols import Policy
from recsys_rl.testing import check_agent
from recsys_rl.testing.agents import check_action
from recsys_rl.testing.envs import check_env, walk
from recsys_rl.types import Action, Obs, Population, UserError
from tests.feed import Feed, FeedConfig, FeedState, feed_env
from tests.tiny_world import tiny_catalogue


def test_environment_of_slates_keeps_the_contract() -> None:
    check_env(lambda seed: feed_env(seed=seed), max_episode_steps=4)
    check_env(lambda seed: feed_env(seed=seed, history_length=4), max_episode_steps=4)


def test_step_of_a_slate_by_hand() -> None:
    """User (1, 0): items 0, 2 and 1 have the fits 1, 0.6 and 0, and item 2 is paid."""
    catalogue = replace(tiny_catalogue(), attributes={"bid": torch.tensor([0.0, 0.0, 1.0])})
    catalogue = replace(catalogue, attributes={**catalogue.attributes, "creator": torch.tensor([1, 1, 1])})
    taste = torch.tensor([[1.0, 0.0]])
    people = Population(taste, taste, torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    config = FeedConfig(num_items=3, embedding_dim=2, max_episode_steps=1)
    env = RecEnv(Feed(catalogue, people, config), catalogue, config, people.train, 1, torch.Generator())
    env.reset()
    step = env.step(torch.tensor([[0, 2, 1]]))
    watched = [0.982014, 0.916827 / 2, 0.5 / 3]  # sigmoid(4), sigmoid(2.4) / 2, sigmoid(0) / 3
    assert step.feedback is not None
    pleasure = [watched[0], watched[1] - 0.5, watched[2]]
    expected = torch.tensor([[pleasure, watched, [0.0, watched[1], 0.0]]]).transpose(1, 2)
    assert_close(step.feedback.signals, expected, atol=1e-5, rtol=0)
    assert_close(step.streams, torch.tensor([[sum(watched) / 3, watched[1]]]), atol=1e-5, rtol=0)
    assert_close(step.reward, torch.tensor([sum(watched) / 3 + 0.5 * watched[1]]), atol=1e-5, rtol=0)
    end = step.final_obs
    assert end.history is not None and end.signals is not None and end.history.tolist() == [[0, 2, 1]]
    assert_close(end.signals, expected[:, :, 1:], atol=1e-5, rtol=0)  # what pleases is hidden


def test_empty_place_is_not_shown() -> None:
    env = feed_env(2)
    env.reset()
    step = env.step(torch.tensor([[4, -1, 7], [-1, -1, 9]]))
    assert step.feedback is not None
    assert step.feedback.shown.tolist() == [[True, False, True], [False, False, True]]
    assert not step.feedback.signals[~step.feedback.shown].any()
    assert step.obs.history is not None and step.obs.history[:, -3:].tolist() == [[-1, 4, 7], [-1, -1, 9]]
    again = env.step(torch.tensor([[7, 8, 2], [1, 9, 3]]))
    assert again.feedback is not None
    assert again.feedback.shown.tolist() == [[False, True, True], [True, False, True]]


@pytest.mark.parametrize(
    "items",
    [
        [[1, 2, 1], [3, 4, 5]],
        [[1, 2], [3, 4]],
        [[1, 2, 3]],
        [[1, 2, 3], [-2, 4, 5]],
        [[1, 30, 3], [4, 5, -1]],
    ],
)
def test_invalid_slates(items: list[list[int]]) -> None:
    env = feed_env(2)
    before = env.reset()
    with pytest.raises(UserError):
        env.step(torch.tensor(items))
    assert torch.equal(env.observe().context, before.context)  # and nothing was lost


def test_slate_larger_than_the_catalogue() -> None:
    with pytest.raises(UserError):
        feed_env(config=FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=1, slate_size=31))


def test_hidden_state_and_hidden_signals_never_reach_the_observation() -> None:
    """Users with other patience and other pleasure have the same observation."""
    env, other = feed_env(), feed_env()
    env.reset(), other.reset()
    state: FeedState = other.user_state
    other.user_state = replace(state, patience=state.patience / 2)
    hidden = other.user_model.signals[0].name
    assert hidden == "pleasure" and hidden not in other.interface.signals
    items = torch.arange(15).view(5, 3)
    seen = [one.step(items).final_obs for one in (env, other)]
    for name, x in vars(seen[0]).items():
        assert x is None or torch.equal(x, getattr(seen[1], name)), name


def policies(env: RecEnv) -> dict[str, Policy]:
    """All baselines of the table."""
    some = RuleWeights(*(torch.tensor(x) for x in (0.1, 0.1, 0.2, 0.1, 0.5, 0.2, 0.1)))
    return {
        **simple_baselines(env, env.users, torch.Generator().manual_seed(0)),
        "mf": Rule(env.catalogue, RuleWeights.zeros(), BestSlate(3)),
        "mmr": MaximalMarginalRelevance(env.catalogue, 0.3, 4, 0.2, BestSlate(3)),
        "rule": Rule(env.catalogue, some, BestSlate(3)),
        **upper_bounds(env),
    }


@pytest.mark.parametrize("steps_before", [0, 2])
def test_policies_show_slates_of_allowed_items(steps_before: int) -> None:
    env = feed_env()
    assert list(policies(env))[-3:] == ["myopic", "informed", "planner"]
    for name, agent in policies(env).items():
        obs = env.reset(env.users[:5])
        for step in walk(env, obs, steps_before):
            obs = step.obs
        if name in ("popularity", "one-item", "static-list") and steps_before:
            continue  # they go by what they have shown themselves

        def make(name: str = name, agent: Policy = agent) -> Policy:
            return RandomPolicy((30,), torch.Generator().manual_seed(1), 3) if name == "random" else agent

        check_agent(make, obs, 30, slate_size=3, random_greedy=name == "random")


def test_random_slates_are_uniform_over_ordered_slates() -> None:
    """Of five items one is excluded: 4 x 3 ordered pairs, 1000 draws each, with a deviation of 30."""
    obs = Obs(torch.zeros(12_000, 1), exclude=torch.full((12_000, 1), 2))
    action = RandomPolicy((5,), torch.Generator().manual_seed(0), 2).act(obs)
    counts = Counter(map(tuple, action.items.tolist()))
    assert set(counts) == set(itertools.permutations([0, 1, 3, 4], 2))
    assert all(abs(count - 1000) < 150 for count in counts.values())
    assert_close(action.logprob, torch.full((12_000,), -math.log(12)))
    masked = Obs(torch.zeros(50, 1), mask=(torch.arange(5) != 2).expand(50, 5))
    items = RandomPolicy((5,), torch.Generator().manual_seed(0), 4).act(masked).items
    assert items.sort(1).values.tolist() == [[0, 1, 3, 4]] * 50


def test_rankings_of_slates_by_hand() -> None:
    """User (0.6, 0.8): fits 0.6, 0.8, 1 of east, north and between, which has 0.6 and 0.8 with these."""
    obs = Obs(torch.tensor([[0.6, 0.8, 0.0, 0.0]]))
    assert Rule(tiny_catalogue(), RuleWeights.zeros(), BestSlate(3)).act(obs).items.tolist() == [[2, 1, 0]]
    mild, strong = (MaximalMarginalRelevance(tiny_catalogue(), x, 5, 0.0, BestSlate(3)) for x in (0.2, 0.6))
    assert mild.act(obs).items.tolist() == [[2, 1, 0]]
    # after between, with weight 0.6: east 0.4 x 0.6 - 0.6 x 0.6 = -0.12, north 0.4 x 0.8 - 0.6 x 0.8 = -0.16
    assert strong.act(obs).items.tolist() == [[2, 0, 1]]


def test_lists_of_slates() -> None:
    env = feed_env(20, config=FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=4, fatigue=0.0))
    agents = simple_baselines(env, env.users, torch.Generator())
    popularity, one_item, static = (agents[name] for name in ("popularity", "one-item", "static-list"))
    assert isinstance(static, FixedList) and static.items.shape == (12,) == static.items.unique().shape
    shown = play(env, popularity, env.users).items
    order = env.catalogue.popularity.sort(descending=True, stable=True).indices[:12]
    assert torch.equal(shown[:, 0].flatten(), order)
    first = play(env, one_item, env.users).items
    assert bool((first == first[0, 0]).all()) and first[0, 0].unique().shape == (3,)
    returns = play(env, static, env.users).returns
    assert_close(returns.mean(), mean_return(env.user_model, env.users, static.items))
    assert returns.mean() >= play(env, popularity, env.users).returns.mean() - 1e-5


def test_planner_of_slates_is_not_below_its_base_policies() -> None:
    """With price 0 a base policy is myopic. Users tire of paid items, so planning increases the return."""
    env = feed_env(20, config=FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=4, fatigue=3.0))
    planned, myopic = (play(env, agent, env.users).returns for agent in (Planner(env), Myopic(env)))
    assert bool((planned >= myopic - 1e-4).all()) and planned.mean() > 1.05 * myopic.mean()


def test_hyperparameters_are_tuned_on_slates() -> None:
    env = feed_env()
    model = env.user_model
    assert isinstance(model, Feed)
    part = tuning.training_part(model.population)

    def make(people: Population, num_envs: int, noise: torch.Generator) -> RecEnv:
        return RecEnv(
            replace(model, population=people), env.catalogue, env.config, people.train, num_envs, noise
        )

    def trainees() -> tuning.Trainees:
        return tuning.Trainees(make, env.catalogue, part, env.interface, torch.Generator().manual_seed(0))

    obs = env.reset()
    for agent, note in (tuning.tune_mf(trainees()), tuning.tune_mmr(trainees())):
        assert agent.act(obs).items.shape == (5, 3) and "fold-in" in note
    found = rule_search.search_rule(trainees(), 2000)
    assert 0 < found.steps <= 2000 and bool(found.weights.fold_in >= 0)


def table() -> dict[str, Any]:
    env = feed_env(20)
    played = {
        name: Played(play(env, agent, env.users), torch.arange(20)) for name, agent in policies(env).items()
    }
    played["ppo"] = played["ppo-greedy"] = played["myopic"]
    return summarise("feed", played, ["ppo"], (), env.catalogue)


def test_table_counts_items_over_places_and_shows_each_stream(capsys: pytest.CaptureFixture[str]) -> None:
    result = table()
    rows = {row["policy"]: row for row in result["rows"]}
    assert rows["one-item"]["distinct_mean"] == 3 and rows["one-item"]["coverage"] == 0.1
    assert rows["popularity"]["distinct_mean"] == 3 * rows["popularity"]["length_mean"]
    for row in rows.values():  # the return is the weighted sum of the streams
        assert list(row["streams"]) == ["watch", "revenue"]
        total = row["streams"]["watch"] + 0.5 * row["streams"]["revenue"]
        assert row["return_mean"] == pytest.approx(total, abs=1e-5)
    mean = mean_rows([result["rows"], result["rows"]])
    assert mean[0]["streams"] == pytest.approx(rows["random"]["streams"])
    print_table(result, "feed", 0)
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("policy"))
    assert head.split()[-2:] == ["watch", "revenue"]
    first = next(line for line in lines if line.startswith("random"))
    assert first.split()[-2:] == [f"{rows['random']['streams'][name]:.3f}" for name in ("watch", "revenue")]


def test_reactions_are_kept_for_the_report() -> None:
    env = feed_env(4)
    sessions = play(env, RandomPolicy((30,), torch.Generator().manual_seed(0), 3))
    assert sessions.items.shape[2] == 3 and len(sessions.reactions) == len(sessions.items)
    assert sessions.reactions[0].signals.shape == (3, 3, 3)  # three users, three places, three signals


def test_gymnasium_takes_slates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checker may draw an item twice; such places stay empty."""
    monkeypatch.setattr(gymnasium_ids, "make_rec_env", lambda _, num_envs: feed_env(num_envs))
    env = gymnasium_ids.RecSysEnv("feed")
    assert env.action_space == gymnasium.spaces.MultiDiscrete([30] * 3)
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    assert env.observation_space["signals"].shape == (12, 2)
    gymnasium_check(env, skip_render_check=True)
    env.reset(seed=0)
    obs, *_ = env.step(np.array([4, 4, 9]))
    assert obs["history"][-3:].tolist() == [-1, 4, 9] and np.flatnonzero(
        obs["action_mask"] == 0
    ).tolist() == [4, 9]
    assert env.observation_space.contains(obs)
    envs = gymnasium_ids.RecSysVectorEnv("feed", 2)
    envs.reset(seed=0)
    after, *_ = envs.step(np.array([[1, 2, 3], [4, 5, 5]]))
    assert after["history"][:, -3:].tolist() == [[1, 2, 3], [-1, 4, 5]]


def test_repeated_items_leave_their_places_empty() -> None:
    items = torch.tensor([[4, 4, 4], [1, 2, 1], [0, 3, 5]])
    without = [[4, -1, -1], [1, 2, -1], [0, 3, 5]]
    assert gymnasium_ids.without_repeats(items).tolist() == without
    for row, expected in zip(items, without, strict=True):  # one session
        assert gymnasium_ids.without_repeats(row[None]).tolist() == [expected]


def test_one_session_refuses_an_item_twice() -> None:
    env = feed_env(1)
    env.reset()
    env.step(torch.tensor([[-1, 5, -1]]))
    with pytest.raises(UserError):
        env.step(torch.tensor([[4, 3, 4]]))


# ---- empty places


def narrow_env(*allowed: int) -> RecEnv:
    """Sessions in which only these items may be shown, a step after their start."""
    env = feed_env(4)
    env.reset(env.users[:4])
    env.step(torch.tensor([[0, 1, 2]] * 4))
    env.catalogue.available[:] = False
    env.catalogue.available[list(allowed)] = True
    return env


@pytest.mark.parametrize("allowed", [(7, 9), (1,), (2, 5, 9)])
def test_places_without_an_allowed_item_stay_empty(allowed: tuple[int, ...]) -> None:
    """Items 0 to 2 were shown, so that fewer than K = 3 are left."""
    left = sorted(set(allowed) - {0, 1, 2})
    for name in policies(narrow_env(*allowed)):
        env = narrow_env(*allowed)
        agent, obs = policies(env)[name], env.observe()
        if isinstance(agent, FixedList):  # it goes by its position in the list, not by the mask
            assert sorted(agent.items[:3].tolist()) == sorted([-1] * (3 - len(allowed)) + list(allowed))
            continue
        action = agent.act(obs)
        for row in action.items.tolist():
            assert sorted(row) == [-1] * (3 - len(left)) + left, name
        if name == "random":  # each order of the items that are left
            assert_close(action.logprob.exp(), torch.full((4,), 1 / math.factorial(len(left))))
        check_action(action, obs, 30, 3)
        step = env.step(action.items)
        assert bool(step.reward.isfinite().all()) and step.feedback is not None
        assert torch.equal(step.feedback.shown, action.items >= 0), name


def test_random_slates_beyond_the_excluded_items() -> None:
    obs = Obs(torch.zeros(50, 1), exclude=torch.tensor([[0, 3, -1]]).expand(50, -1))
    action = RandomPolicy((4,), torch.Generator().manual_seed(0), 3).act(obs)
    assert {tuple(row) for row in action.items.tolist()} == {(1, 2, -1), (2, 1, -1)}
    assert_close(action.logprob, torch.full((50,), -math.log(2)))


class Sparse:
    """Shows an item only in every second step, in the second place."""

    def __init__(self) -> None:
        self.step = 0

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items = torch.full((obs.num_rows, 3), -1)
        if self.step % 2:
            items[:, 1] = self.step
        self.step += 1
        return Action.certain(items)


def test_sessions_with_empty_slates_are_counted_in_full() -> None:
    """Four steps, of which two show one item each: 2 distinct items of 30."""
    env = feed_env(6, config=FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=4, fatigue=0.0))
    sessions = play(env, Sparse(), env.users[:6])
    assert sessions.lengths.tolist() == [4] * 6 and sessions.items[:, :, 0].eq(-1).all()
    assert sessions.items[:, 0, 1].tolist() == [-1, 1, -1, 3]
    played = {name: Played(sessions, torch.arange(6)) for name in ("random", "ppo", "ppo-greedy")}
    row = summarise("feed", played, ["ppo"], (), env.catalogue)["rows"][0]
    assert (row["length_mean"], row["distinct_mean"], row["coverage"]) == (4, 2, 2 / 30)
    assert row["streams"]["watch"] == pytest.approx(sessions.rewards.sum(0).mean().item(), abs=1) and all(
        math.isfinite(x) for x in row["streams"].values()
    )
    end = env.observe()
    assert end.exclude is not None and end.exclude.shape == (6, 12)

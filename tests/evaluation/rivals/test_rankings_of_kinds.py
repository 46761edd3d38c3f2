"""Each ranking on a shop, whose places have kinds: slates that fit, and the strongest of their form."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import FixedList, most_popular, static_list
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.linear_bandit import BanditSettings, LinUCB
from recsys_rl.evaluation.rivals.rankers import MaximalMarginalRelevance, Rule, RuleWeights
from recsys_rl.evaluation.rivals.references import Myopic
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from recsys_rl.models.heads import MOST_TOGETHER, PatternHead, slate_layout
from recsys_rl.models.shapes import HeadSizes
from recsys_rl.models.towers import TOWER_SIZE
from tests.env.test_shop import tiny
from tests.small_runs import settings, world

LENGTH = 5


def shop(**options: Any) -> RecEnv:
    sizes = {"num_items": 60, "max_episode_steps": LENGTH, **options}
    config = settings("ppo", "shop", env_config=sizes, data_config={"num_users": 60})
    env = make_env(config, world(config), 20, torch.Generator().manual_seed(0), training=False)
    assert isinstance(env, RecEnv)
    return env


def rankings(env: RecEnv) -> dict[str, Any]:
    catalogue, slate = env.catalogue, BestSlate.of(env.interface, env.catalogue)
    count = len(env.interface.signals)
    return {
        "mf": Rule(catalogue, RuleWeights.zeros(), slate),
        "mmr": MaximalMarginalRelevance(catalogue, 0.3, 4, 0.1, slate),
        "linucb": LinUCB(catalogue, BanditSettings(0.5, 1.0), torch.ones(count), None, slate),
        "myopic": Myopic(env),
        "popularity": FixedList(most_popular(catalogue, LENGTH, slate), slate.size, env.interface),
        "static-list": FixedList(
            static_list(env.user_model, catalogue, env.users, LENGTH), slate.size, env.interface
        ),
    }


@pytest.mark.parametrize("discounts", [False, True])
def test_slates_have_the_patterns_and_nothing_comes_twice(discounts: bool) -> None:
    env = shop(discounts=discounts)
    kind = env.catalogue.attributes["kind"]
    for name, policy in rankings(env).items():
        sessions = play(env, policy, env.users[:20])
        for user, length in enumerate(sessions.lengths.tolist()):
            slates = sessions.items[:length, user]
            assert {tuple(kind[slate].tolist()) for slate in slates} <= {*env.interface.patterns}, name
            once = [item for item in slates.flatten().tolist() if kind[item] < 2]
            assert len({*once}) == len(once), name


def test_the_best_of_each_kind_earns_more_than_the_two_best() -> None:
    env = shop()
    of_kinds, of_any = (
        Rule(env.catalogue, RuleWeights.zeros(), slate)
        for slate in (BestSlate.of(env.interface, env.catalogue), BestSlate(2))
    )
    earned = [play(env, policy, env.users.repeat(10)).returns.mean() for policy in (of_kinds, of_any)]
    assert earned[0] > 1.05 * earned[1]


def test_popular_slates_by_hand() -> None:
    """Two videos, three products and an empty place; with a list of three slates the videos come again."""
    world = tiny()
    catalogue = dataclasses.replace(
        world.catalogue, popularity=torch.tensor([0.2, 0.9, 0.5, 0.7, 0.0, 0.0, 0.0])
    )
    slate = BestSlate(2, ((1, 2), (0, 2), (0, 1)), catalogue.attributes["kind"])
    assert most_popular(catalogue, 2, slate).tolist() == [1, 3, 0, 2]
    assert most_popular(catalogue, 3, slate).tolist() == [1, 3, 1, 3, 1, 3]


def test_the_gain_of_a_pair_is_bounded() -> None:
    env = shop()
    layout = slate_layout(env.catalogue, env.interface.patterns)
    head = PatternHead(HeadSizes(5, 4, 0, 3, 0), layout, torch.Generator())
    logits = torch.zeros(1, 1, env.catalogue.num_items)
    for value, expected in ((0.0, 0.0), (0.1, 0.4999), (1e3, MOST_TOGETHER), (-1e3, -MOST_TOGETHER)):
        with torch.no_grad():
            head.together.fill_(value)
        found = head.distribution(torch.zeros(1, 3 + TOWER_SIZE + 3), logits, None)
        assert found.together.item() == pytest.approx(expected, abs=1e-4)

"""The expert of a shop: the sameness that it follows, and the screens that it shows."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks.experts.policy import ByEquations
from benchmarks.experts.shop import EXPERT, sameness
from recsys_rl.evaluation.rivals import rankers
from recsys_rl.make import make_env, make_user_model
from recsys_rl.types import Obs
from tests.evaluation.rivals.test_rankings_of_kinds import LENGTH, shop
from tests.small_runs import settings, world


def test_the_expert_follows_the_sameness_of_the_equations() -> None:
    env = shop()
    obs = env.reset(env.users[:20])
    expert = ByEquations(
        EXPERT,
        env.user_model,
        env.catalogue,
        env.interface,
        {name: torch.tensor(first) for name, (first, _) in EXPERT.numbers.items()},
    )
    kind, kinds_of_screens = env.catalogue.attributes["kind"], set()
    for step in range(LENGTH - 1):
        assert_close(sameness(env.user_model, env.interface, obs), env.user_state.same)
        items = expert.act(obs).items
        if step == 1:  # a product alone
            allowed = obs.allowed(env.catalogue.num_items) & (kind == 1)
            items = torch.stack([allowed.float().argmax(1), (kind == 2).float().argmax().expand(20)], 1)
        kinds_of_screens |= {tuple(kind[slate].tolist()) for slate in items}
        obs = env.step_without_reset(items).obs
    assert len(kinds_of_screens) > 1


def test_obs_without_history_has_no_sameness() -> None:
    env = shop()
    obs = env.reset(env.users[:20])
    assert obs.history is not None
    empty = Obs(obs.context, torch.full_like(obs.history, -1))
    assert not sameness(env.user_model, env.interface, empty).any()


def test_the_expert_shows_screens_in_a_catalogue_beyond_the_shortlist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings("ppo", "shop", env_config={"num_items": 80, "max_episode_steps": 4, "discounts": True})
    place = world(config)
    env = make_env(config, place, 8, torch.Generator().manual_seed(0))
    obs, users = env.reset(), make_user_model(config, place)
    numbers = {name: torch.tensor(value) for name, (value, _) in EXPERT.numbers.items()}
    row = ByEquations(EXPERT, users, place.catalogue, env.interface, numbers)
    items = row.act(obs).items
    monkeypatch.setattr(rankers, "SHORTLIST", 10)
    assert row.act(obs).items.tolist() == items.tolist()
    kinds = place.catalogue.attributes["kind"][items].tolist()
    assert {tuple(slate) for slate in kinds} <= {*env.interface.patterns}
    # Of given items, too.
    allowed = torch.arange(80).expand(8, -1).masked_fill(~obs.allowed(80), -1)
    assert row.act(obs.among(allowed)).items.tolist() == items.tolist()

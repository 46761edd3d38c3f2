"""The expert of a feed: the stocks that it follows, and its scores by the equations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from benchmarks.experts.policy import ByEquations
from benchmarks.experts.social_feed import EXPERT, Followed, scores
from recsys_rl.env import social_feed
from recsys_rl.env.social_feed import AD, FOLLOWS, LEAST_PATIENCE, MOST_PATIENCE, SocialFeed
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from tests.env.test_social_feed import made, walked


@pytest.mark.parametrize("number", [0, 1, 11])
def test_expert_follows_the_stocks_through_the_session(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the history alone it has the sameness, and the stocks that the simulator says can be known."""
    env, obs = walked(number, monkeypatch)
    model, state = env.user_model, env.user_state
    assert isinstance(model, SocialFeed) and obs.history is not None and obs.signals is not None
    profile, follows = (obs.context[:, env.interface.place_of(x)] for x in ("profile", FOLLOWS))
    found = Followed.through(model, profile, follows, obs.history, obs.signals[..., 0])
    assert_close(found.same, state.same)
    tolerance, patience = state.supposed.unbind(1)
    assert_close(found.tolerance[:, 0], tolerance)
    assert_close(found.patience[:, 0], patience.clamp_min(LEAST_PATIENCE), atol=1e-4, rtol=0)
    if number == 11:
        assert bool((patience == MOST_PATIENCE).any()) and bool((tolerance < 1).any())


def test_scores_of_the_expert() -> None:
    """Before the first place they are the equations' reward, a price of patience and an offset of ads."""
    _, home, env = made()
    model, obs = env.user_model, env.reset(home.population.train[:5])
    assert isinstance(model, SocialFeed)
    zero = {name: torch.tensor(0.0) for name in EXPERT.numbers} | {"wear": torch.tensor(1.0)}
    known = model.as_known(env.user_state)
    reward, fed = model.prospects(known)
    assert_close(EXPERT.scores(model, env.interface, obs, zero, None), reward)
    priced = zero | {"patience": torch.tensor(0.6), "ad": torch.tensor(0.5)}  # half of the price: steep is 0
    wanted = reward + 0.3 * fed + 0.5 * (model.kind == AD)
    assert_close(EXPERT.scores(model, env.interface, obs, priced, None), wanted)
    among = torch.tensor([[4, 2, -1]]).expand(5, -1)
    found = EXPERT.scores(model, env.interface, obs, priced, among)
    assert_close(found[:, :2], wanted[:, [4, 2]])


def test_expert_gains_from_the_stocks_that_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same form with sameness, tolerance and patience held at their start earns less."""
    monkeypatch.setattr(social_feed, "LIKENESS_COST", 4.0)
    config, home, env = made(num_items=300, max_episode_steps=20)
    numbers = {name: torch.tensor(first) for name, (first, _) in EXPERT.numbers.items()}
    earned = {}
    for held in (False, True):
        form = replace(EXPERT, scores=partial(scores, held=held))
        agent = ByEquations(form, env.user_model, home.catalogue, env.interface, numbers)
        here = make_env(config, home, 1, torch.Generator().manual_seed(1))
        earned[held] = play(here, agent, home.population.train.repeat(5)).returns.mean()
    assert earned[False] > earned[True]

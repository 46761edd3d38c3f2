"""The environment worked by hand: observations, items that are not shown, ends and starts of sessions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.env.drift import Drift
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import collect
from recsys_rl.types import Obs, Signal, Step, UserError
from tests.small_runs import begin, settings, world
from tests.tiny_world import DRIFT, SATIATION, env_of, tiny_catalogue, tiny_drift, tiny_satiation

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
ANGRY = replace(SATIATION, patience_cost=3.0)
"""A user who likes east leaves when shown north: satisfaction 0.119203 costs 3 * (1/2 - 0.119203) = 1.14."""


@pytest.mark.parametrize("item", [-1, 3, 2**40])
def test_item_outside_the_catalogue(item: int) -> None:
    for env in (drift_env([1.0, 0.0], [0.0, 1.0]), satiation_env([1.0, 0.0], [0.0, 1.0])):
        before = env.reset()
        with pytest.raises(UserError):
            env.step(torch.tensor([[0], [item]]))
        assert torch.equal(env.observe().context, before.context)


def drift_env(*tastes: list[float]) -> RecEnv:
    model = tiny_drift(tastes)
    return env_of(model, model.catalogue, DRIFT, torch.arange(len(tastes)))


def satiation_env(*tastes: list[float], config: Any = SATIATION, available: Any = (True,) * 3) -> RecEnv:
    model = tiny_satiation(tastes, config)
    model = replace(model, catalogue=replace(tiny_catalogue(), available=torch.tensor(available)))
    return env_of(model, model.catalogue, config, torch.arange(len(tastes)))


def show(*items: int) -> Tensor:
    return torch.tensor(items).unsqueeze(1)  # (N, 1)


def numbers(obs: Obs) -> dict[str, Any]:
    return {name: x.clone() for name, x in vars(obs).items() if x is not None}


def assert_same(first: Obs, second: Obs) -> None:
    one, two = numbers(first), numbers(second)
    assert one.keys() == two.keys() and all(torch.equal(x, two[name]) for name, x in one.items())


def test_context_of_drift() -> None:
    """The user as it drifts, and the embedding of the last item, zero before the first."""
    env = drift_env(EAST, NORTH)
    obs = env.observe()
    assert obs.context.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert obs.history is obs.signals is obs.exclude is obs.mask is None
    step = env.step(show(2, 0))
    seen = torch.tensor([[1.06, 0.08, 0.6, 0.8], [0.1, 1.0, 1.0, 0.0]])
    assert_close(step.obs.context, seen)
    assert_same(step.obs, step.final_obs)
    assert_same(step.obs, env.observe())
    assert_close(step.reward, torch.tensor([0.6, 0.0]))
    assert step.feedback is not None
    assert_close(step.feedback.signals, torch.tensor([[[0.6]], [[0.0]]]))
    step = env.step(show(1, 1))
    assert_close(step.obs.context, torch.tensor([[1.06, 0.18, 0.0, 1.0], [0.1, 1.1, 0.0, 1.0]]))
    assert_close(step.reward, torch.tensor([0.08 * 0.9, 0.9]))


def test_history_signals_and_exclusion_of_satiation() -> None:
    env = satiation_env(EAST)
    obs = env.observe()
    assert obs.context.tolist() == [[1.0, 0.0, 0.0, 0.0]] and obs.mask is None
    assert obs.history is not None and obs.history.tolist() == [[-1, -1, -1]]
    before = numbers(obs)
    step = env.step(show(1))
    assert step.obs.context.tolist() == [[1.0, 0.0, 0.0, 1.0]]  # the profile stays, the last item is north
    first, second = 0.119203, 0.976616  # tests/env/test_user_models.py works them out
    assert_close(step.reward, torch.tensor([first]))
    assert step.obs.history is not None and step.obs.exclude is not None and step.obs.signals is not None
    assert step.obs.history.tolist() == step.obs.exclude.tolist() == [[-1, -1, 1]]
    assert_close(step.obs.signals, torch.tensor([[[0.0], [0.0], [first]]]))
    assert_same(step.obs, step.final_obs)
    assert_same(step.obs, env.observe())
    earlier, kept = step.obs, numbers(step.obs)
    step = env.step(show(0))
    assert step.obs.history is not None and step.obs.signals is not None
    assert step.obs.history.tolist() == [[-1, 1, 0]]
    assert_close(step.obs.signals, torch.tensor([[[0.0], [first], [second]]]))
    assert step.obs.context.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    for given, was in ((obs, before), (earlier, kept)):  # what was given out is never written to
        assert all(torch.equal(x, was[name]) for name, x in numbers(given).items())


def test_time_limit() -> None:
    """After three steps: truncated, the end of the old session apart from the start of the new one."""
    env = satiation_env(EAST)
    for item in (1, 0):
        step = env.step(show(item))
        assert step.truncated.tolist() == step.terminated.tolist() == [False]
    step = env.step(show(2))
    assert step.truncated.tolist() == [True] and step.terminated.tolist() == [False]
    # m = (1/2, 1/4), w = (1/2, 1/4): base = 4 * (0.6 - 1/2) - 0.5 - 0.75 / sqrt(2)
    assert_close(step.reward, torch.tensor([0.347436]), atol=1e-5, rtol=0)
    end, start = step.final_obs, step.obs
    assert end.history is not None and end.history.tolist() == [[1, 0, 2]]
    assert_close(end.context, torch.tensor([[1.0, 0.0, 0.6, 0.8]]))
    assert end.signals is not None
    assert_close(end.signals.flatten(), torch.tensor([0.119203, 0.976616, 0.347436]), atol=1e-5, rtol=0)
    assert start.history is not None and start.history.tolist() == [[-1, -1, -1]]
    assert start.exclude is not None and start.exclude.tolist() == [[-1, -1, -1]]
    assert start.signals is not None and not start.signals.any()
    assert start.context.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert_same(start, env.observe())
    assert_close(env.step(show(1)).reward, torch.tensor([0.119203]))  # rested and patient again
    assert env.session.steps.tolist() == [1]


def test_leaving_user() -> None:
    """The row of the leaving user is terminated and starts again; the other row goes on."""
    env = satiation_env(EAST, NORTH, config=ANGRY)
    env.users = torch.tensor([1])  # who comes next
    step = env.step(show(1, 1))
    assert step.terminated.tolist() == [True, False] and step.truncated.tolist() == [False, False]
    assert step.final_obs.history is not None and step.obs.history is not None
    assert step.final_obs.history.tolist() == [[-1, -1, 1], [-1, -1, 1]]
    assert step.obs.history.tolist() == [[-1, -1, -1], [-1, -1, 1]]
    assert step.final_obs.context.tolist() == [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]
    assert step.obs.context.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    assert env.session.steps.tolist() == [0, 1] and env.session.users.tolist() == [1, 1]
    assert_close(env.user_state.patience, torch.tensor([1.0, 1.0]))
    assert_close(env.user_state.weary_of, torch.tensor([[0.0, 0.0], [0.0, 0.5]]))
    step = env.step(show(2, 2))
    assert step.obs.history is not None and step.obs.history.tolist() == [[-1, -1, 2], [-1, 1, 2]]


def test_leaving_in_the_last_step_is_a_termination() -> None:
    env = satiation_env(EAST, NORTH, config=replace(ANGRY, max_episode_steps=1))
    step = env.step(show(1, 1))
    assert step.terminated.tolist() == [True, False] and step.truncated.tolist() == [False, True]
    assert step.left_early.tolist() == [False, False]  # nothing was left of the session
    longer = satiation_env(EAST, NORTH, config=replace(ANGRY, max_episode_steps=2))
    assert longer.step(show(1, 1)).left_early.tolist() == [True, False]


def test_item_chosen_twice_is_shown_once() -> None:
    """The reward is 0 and the history is unchanged, but time passes and patience falls by a quarter."""
    env = satiation_env(EAST)
    first = env.step(show(2))
    step = env.step(show(2))
    assert step.feedback is not None and step.feedback.shown.tolist() == [[False]]
    assert step.reward.tolist() == [0.0]
    assert_same(step.obs, first.obs)
    assert env.session.steps.tolist() == [2]
    assert_close(env.user_state.patience, torch.tensor([0.75]))
    step = env.step(show(2))
    assert step.truncated.tolist() == [True]
    assert step.final_obs.history is not None and step.final_obs.history.tolist() == [[-1, -1, 2]]


def test_unavailable_item_is_not_shown_without_repeats() -> None:
    env = satiation_env(EAST, EAST, available=(False, True, True))
    obs = env.observe()
    assert obs.mask is not None and obs.mask.tolist() == [[False, True, True]] * 2
    step = env.step(show(0, 1))
    assert step.feedback is not None and step.feedback.shown.tolist() == [[False], [True]]
    assert_close(step.reward, torch.tensor([0.0, 0.119203]))
    assert step.obs.history is not None and step.obs.history.tolist() == [[-1, -1, -1], [-1, -1, 1]]
    assert step.obs.context.tolist() == [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    assert not env.user_state.weary_of[0].any()
    step = env.step(show(1, 1))  # an available item is not shown again
    assert step.feedback is not None and step.feedback.shown.tolist() == [[True], [False]]


def test_unavailable_item_is_not_shown_with_repeats() -> None:
    env = drift_env(EAST)
    env.catalogue.available[0] = False
    step = env.step(show(0))
    assert step.reward.tolist() == [0.0]
    assert step.obs.context.tolist() == [[1.0, 0.0, 0.0, 0.0]]  # no drift, and no last item
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[False, True, True]]
    env.catalogue.available[0] = True
    step = env.step(show(0))
    assert step.obs.mask is None
    assert_close(step.reward, torch.tensor([0.9]))
    assert_close(step.obs.context, torch.tensor([[1.1, 0.0, 1.0, 0.0]]))


def test_expected_reward_of_allowed_items() -> None:
    env = satiation_env(EAST, EAST, available=(True, True, False))
    env.step(show(1, 0))
    expected = env.expected_reward()
    off = -torch.inf
    assert (expected == off).tolist() == [[False, True, True], [True, False, True]]
    assert_close(expected[0, 0], torch.tensor(0.976616))
    for block in (slice(0, 1), slice(1, 3), slice(2, 3)):
        assert_close(env.expected_reward(block), expected[:, block])


def test_users_are_drawn_from_the_given_users() -> None:
    env = drift_env(EAST, NORTH, [-1.0, 0.0], [0.0, -1.0])
    env.users, env.num_envs = torch.tensor([1, 3]), 40
    env.reset()
    assert env.session.users.unique().tolist() == [1, 3]
    assert env.reset(torch.tensor([2, 0])).context[:, :2].tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    for _ in range(3):
        step = env.step(show(0, 0))
    assert step.truncated.all() and set(env.session.users.tolist()) <= {1, 3}


def test_random_stream_is_independent_of_leaving_users() -> None:
    """So the actions of one user never change the users in other rows."""
    states = []
    for item in (0, 1):  # the user stays, or leaves
        env = satiation_env(EAST, NORTH, config=ANGRY)
        step = env.step(show(item, 2))
        states.append((bool(step.terminated.any()), env.generator.get_state()))
    assert [left for left, _ in states] == [False, True]
    assert torch.equal(states[0][1], states[1][1])


SATIATION_STATE: dict[str, float] = {
    "user_state.patience": torch.nan,
    "user_state.taste": torch.inf,
    "user_state.profile": torch.nan,
    "user_state.weary_of": torch.nan,
    "user_state.weary_of_genres": -1.0,
    "session.steps": 3,
    "session.history": 3,
    "session.signals": torch.nan,
}


@pytest.mark.parametrize("name", SATIATION_STATE)
def test_saved_sessions_out_of_range(name: str) -> None:
    env = satiation_env(EAST, NORTH)
    env.step(show(1, 2))
    saved = {key: x.clone() for key, x in env.state_dict().items()}
    env.load_state_dict(saved)
    assert_close(env.session.history, torch.tensor([[-1, -1, 1], [-1, -1, 2]]))
    with pytest.raises(UserError):
        env.load_state_dict(saved | {name: torch.full_like(saved[name], SATIATION_STATE[name])})
    assert env.session.steps.tolist() == [1, 1]  # and the sessions go on as they were
    fewer = {key: x[:1] for key, x in saved.items()}
    with pytest.raises(UserError):
        env.load_state_dict(fewer)


class Silent(Drift):
    """Users whose only signal is hidden."""

    signals = (Signal("match", visible=False, low=-math.inf, high=math.inf),)


def test_platform_without_visible_signals() -> None:
    config = settings("ppo", "drift")
    home = world(config)
    users = Silent(*home, config.env_config)
    env = RecEnv(users, home.catalogue, config.env_config, home.population.train, 3, torch.Generator())
    env.reset()
    step = env.step(torch.tensor([[0], [1], [2]]))
    assert env.interface.signals == () and bool((step.reward != 0).all())


def test_item_that_becomes_unavailable_within_a_rollout() -> None:
    """Rows before have a mask that allows everything."""
    config = settings("ppo", "drift")
    env, agent = begin(config)
    assert isinstance(env, RecEnv)
    step, calls = env.step, []

    def and_take_one_away(items: Tensor) -> Step:
        calls.append(items)
        if len(calls) == 2:
            env.catalogue.available[7] = False
        return step(items)

    env.step = and_take_one_away  # type: ignore[method-assign]
    rollout, _ = collect(env, agent, env.reset(), 4)
    assert rollout.obs.mask is not None
    assert rollout.obs.mask[:2].all() and not rollout.obs.mask[2:, :, 7].any()
    assert not (rollout.items[2:] == 7).any()

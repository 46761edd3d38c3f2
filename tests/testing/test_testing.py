"""The shipped checks accept correct objects, and name the faulty method of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation, SatiationState
from recsys_rl.evaluation.rivals.baselines import FixedList, RandomPolicy
from recsys_rl.make import make_user_model
from recsys_rl.protocols import UserState
from recsys_rl.testing import check_agent, check_env, check_user_model
from recsys_rl.types import Action, Feedback, Obs, Step
from tests.feed import FeedConfig, feed_env
from tests.small_runs import settings, world


def satiation(kind: type[Satiation] = Satiation) -> Satiation:
    sizes = {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 12})
    return kind(*world(config), config.env_config)


@pytest.mark.parametrize("platform", ["drift", "satiation"])
def test_our_user_models_keep_the_contract(platform: str) -> None:
    sizes = {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings("ppo", platform, env_config=sizes, data_config={"num_users": 12})
    home = world(config)
    check_user_model(make_user_model(config, home), home.catalogue, home.population.train)


def test_user_model_of_slates_keeps_the_contract() -> None:
    env = feed_env(config=FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=4, jitter=0.3))
    check_user_model(env.user_model, env.catalogue, env.users)


class MixedResponse(Satiation):
    """The response depends on the mean user of the batch."""

    def respond(self, user_state: SatiationState, items: Tensor, *rest: Any) -> Feedback:
        feedback = super().respond(user_state, items, *rest)
        signals = feedback.signals
        return replace(feedback, signals=(signals - 0.1 * signals.mean(0)).clamp(0, 1))


class MixedAdvance(Satiation):
    """Patience moves to the user in the next row."""

    def advance(
        self, user_state: SatiationState, items: Tensor, feedback: Feedback
    ) -> tuple[SatiationState, Tensor]:
        after, leaves = super().advance(user_state, items, feedback)
        return replace(after, patience=after.patience.roll(1)), leaves


class WritingAdvance(Satiation):
    """The state is changed in place."""

    def advance(
        self, user_state: SatiationState, items: Tensor, feedback: Feedback
    ) -> tuple[SatiationState, Tensor]:
        user_state.weary_of.add_(1.0)
        return super().advance(user_state, items, feedback)


class LoudEmptyPlace(Satiation):
    """A place that is not shown has signals."""

    def respond(self, user_state: SatiationState, items: Tensor, *rest: Any) -> Feedback:
        feedback = super().respond(user_state, items, *rest)
        return replace(feedback, signals=feedback.signals + 0.01)


class BoundlessSignal(Satiation):
    """A signal leaves its declared range."""

    def respond(self, user_state: SatiationState, items: Tensor, *rest: Any) -> Feedback:
        feedback = super().respond(user_state, items, *rest)
        return replace(feedback, signals=3 * feedback.signals)


class WrongExpectation(Satiation):
    """The expected reward differs from the true one."""

    def prospects(self, user_state: SatiationState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        reward, patience = super().prospects(user_state, block)
        return 0.9 * reward, patience


class MixedSight(Satiation):
    def visible(self, user_state: SatiationState) -> dict[str, Tensor]:
        return {"profile": user_state.profile - 0.1 * user_state.profile.mean(0)}


class Restless(Satiation):
    """Adds noise without a generator."""

    def respond(self, user_state: SatiationState, items: Tensor, shown: Tensor, generator: Any) -> Feedback:
        return super().respond(user_state, items, shown, RESTLESS)


RESTLESS = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (MixedResponse, "respond mixes rows"),
        (MixedAdvance, "advance mixes rows"),
        (MixedSight, "visible mixes rows"),
        (WritingAdvance, "advance changes its arguments"),
        (Restless, "respond gives another result when it is called again"),
        (LoudEmptyPlace, "respond: the signals of a place that is not shown must be 0"),
        (BoundlessSignal, r"respond: 'engagement' is outside 0 \.\. 1"),
        (WrongExpectation, "expected_reward differs from the reward without noise"),
    ],
)
def test_user_model_that_breaks_the_contract_is_named(kind: type[Satiation], sentence: str) -> None:
    model = satiation(kind)
    with pytest.raises(AssertionError, match=sentence):
        check_user_model(model, model.catalogue, model.population.train)


class Twice(RecEnv):
    """Both ends at once."""

    def step(self, items: Tensor) -> Step:
        step = super().step(items)
        return replace(step, terminated=step.terminated | step.truncated)


class Forgetful(RecEnv):
    """Loaded sessions start again."""

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.session = replace(self.session, steps=torch.zeros_like(self.session.steps))


class Stale(RecEnv):
    """The observation of a new session is the one of the old session."""

    def step(self, items: Tensor) -> Step:
        step = super().step(items)
        return replace(step, obs=step.final_obs)


class OneUser(RecEnv):
    """Every session is of the first user, so that two seeds differ in nothing."""

    def _draw_users(self) -> Tensor:
        return self.users[:1].expand(self.num_envs)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Twice, "step: terminated and truncated are both True"),
        (Forgetful, "load_state_dict: the resumed sessions gave other steps"),
        (Stale, "step: obs is not the first of a new session"),
        (OneUser, "reset: environments of two seeds began alike"),
    ],
)
def test_environment_that_breaks_the_contract_is_named(kind: type[RecEnv], sentence: str) -> None:
    def make(seed: int) -> RecEnv:
        env = feed_env(seed=seed)
        return kind(env.user_model, env.catalogue, env.config, env.users, 5, env.generator)

    with pytest.raises(AssertionError, match=sentence):
        check_env(make, max_episode_steps=4)


class Shouting(RandomPolicy):
    """Writes to its observation."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        action = super().act(obs, greedy)
        obs.context.add_(1.0)
        return action


def always(*items: int) -> Callable[[], FixedList]:
    return lambda: FixedList(torch.tensor(items), 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Shouting((30,), torch.Generator().manual_seed(0), 3), "act changed the observation"),
        (always(1, 2, 1), "act: an item is twice in a slate"),
        (always(1, 2, 30), "act: there is no such item: they are 0 to 29"),
        (lambda: FixedList(torch.tensor([4])), r"they must be torch.int64 of \(5, 3\)"),
        (lambda: RandomPolicy((30,), torch.Generator().manual_seed(0), 3), "act: greedy is not determin"),
    ],
)
def test_agent_that_breaks_the_contract_is_named(make: Callable[[], Any], sentence: str) -> None:
    obs = feed_env().reset()
    with pytest.raises(AssertionError, match=sentence):
        check_agent(make, obs, 30, slate_size=3)


def test_state_rejected_by_possible_is_named() -> None:
    class Strict(Satiation):
        def possible(self, user_state: UserState) -> bool:
            return bool((user_state.patience == self.config.patience_start).all())

    model = satiation(Strict)
    with pytest.raises(AssertionError, match="possible is False for a state of a played session"):
        check_user_model(model, model.catalogue, model.population.train)

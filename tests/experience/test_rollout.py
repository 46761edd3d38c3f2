"""Rollouts and sessions: the value after each step, and one session per user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.experience.rollout import collect, play
from recsys_rl.settings.config import Config
from recsys_rl.types import (
    Action,
    Feedback,
    Interface,
    Obs,
    Rollout,
    Signal,
    Step,
    Stream,
    UserError,
)
from tests.proofs import Proof
from tests.small_runs import Toy, learn, settings, toy_agent


class Scripted:
    """Rows count upwards from 0, 10, 20 ...; ``ends`` has the number of steps of each row, with a sign.

    Positive: the user leaves. Negative: the time limit cuts. A fresh session begins 100 further on.
    """

    interface = Interface((("number", 1),), (1000,))
    streams: tuple[Stream, ...] = (Stream("number"), Stream("double", 0.0))
    signals: tuple[Signal, ...] = (Signal("seen"), Signal("felt", visible=False))

    def __init__(self, ends: list[int], normalises: bool = False, limit: int | None = None) -> None:
        self.num_envs = len(ends)
        self.ends = torch.tensor(ends)
        self.normalises = normalises
        self.limit = limit
        self.reset()

    def reset(self, users: Tensor | None = None) -> Obs:
        self.asked = users
        self.base = 10.0 * torch.arange(self.num_envs)
        self.clock = torch.zeros(self.num_envs, dtype=torch.int64)
        return self.observe()

    def observe(self) -> Obs:
        return Obs((self.base + self.clock).unsqueeze(1))

    def step(self, items: Tensor) -> Step:
        reward = 0.5 * items[:, 0]
        self.clock = self.clock + 1
        final_obs = self.observe()
        terminated, truncated = self.clock == self.ends, self.clock == -self.ends
        at_limit = None if self.limit is None else self.clock == self.limit
        self.base = torch.where(terminated | truncated, self.base + 100, self.base)
        self.clock = torch.where(terminated | truncated, 0, self.clock)
        signals = torch.stack([reward, 0.25 * reward], -1).unsqueeze(1)  # (N, 1, 2)
        feedback = Feedback(signals, items >= 0)
        raw = 1000 + reward if self.normalises else reward
        streams = torch.stack([raw, 2 * raw], -1)  # (N, 2)
        return Step(
            self.observe(), final_obs, reward, terminated, truncated, streams, feedback, at_limit=at_limit
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...

    def statistics(self) -> dict[str, Tensor]:
        return {}

    def load_statistics(self, state: Mapping[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class Echo:
    """Shows its observation's number, with that number plus a half as its value, and counts its calls."""

    def __init__(self) -> None:
        self.valued: list[list[float]] = []
        self.greedy: set[bool] = set()

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        self.greedy.add(greedy)
        number = obs.context[:, 0]
        return Action(number.long().unsqueeze(1), -number, number + 0.5)

    def value(self, obs: Obs) -> Tensor:
        self.valued.append(obs.context[:, 0].tolist())
        return obs.context[:, 0] + 0.5

    def update(self, rollout: Rollout) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def test_collect_by_hand() -> None:
    """Row 0 is cut after 2 steps, row 1 leaves after 3, row 2 goes on."""
    agent, env = Echo(), Scripted([-2, 3, 99])
    rollout, obs = collect(env, agent, env.reset(), 4)
    seen = [[0.0, 10.0, 20.0], [1.0, 11.0, 21.0], [100.0, 12.0, 22.0], [101.0, 110.0, 23.0]]
    assert rollout.obs.context.squeeze(-1).tolist() == seen
    assert rollout.items.squeeze(-1).tolist() == seen and rollout.items.shape == (4, 3, 1)
    assert_close(rollout.values, torch.tensor(seen) + 0.5)
    assert_close(rollout.logprobs, -torch.tensor(seen))
    assert_close(rollout.rewards, torch.tensor(seen) / 2)
    assert torch.equal(rollout.streams, torch.stack([rollout.rewards, 2 * rollout.rewards], -1))
    assert rollout.truncated.tolist() == [
        [False] * 3,
        [True, False, False],
        [False] * 3,
        [True, False, False],
    ]
    assert rollout.terminated.tolist() == [[False] * 3, [False] * 3, [False, True, False], [False] * 3]
    assert obs.context.tolist() == [[200.0], [111.0], [24.0]]
    assert rollout.num_steps == 12


def test_next_values_are_those_of_the_true_successor() -> None:
    env, agent = Scripted([-2, 3, 99]), Echo()
    rollout, _ = collect(env, agent, env.reset(), 4)
    # Where row 0 was cut, after 1 came 2 (and not 100, the next user); after the last step too.
    next_values = torch.tensor(
        [[1.5, 11.5, 21.5], [2.5, 12.5, 22.5], [101.5, -1.0, 23.5], [102.5, 111.5, 24.5]]
    )
    ended = rollout.terminated  # nothing follows, whatever stands there
    assert_close(rollout.next_values[~ended], next_values[~ended])
    assert bool(rollout.next_values.isfinite().all())
    # and V is asked for a second time only of who was cut, and at the end
    assert agent.valued == [[2.0], [102.0, 111.0, 24.0]]


@pytest.mark.parametrize("cut", range(5))
def test_next_value_after_a_cut_in_any_step(cut: int) -> None:
    """Any of five steps may be cut, including the first and the last; row 1 is never cut."""
    env, agent = Scripted([-(cut + 1), 99]), Echo()
    rollout, _ = collect(env, agent, env.reset(), 5)
    assert rollout.truncated.nonzero()[0].tolist() == [cut, 0]
    assert rollout.next_values[cut].tolist() == [cut + 1.5, 11.5 + cut]  # 100.5 is the next user's
    if cut < 4:
        assert rollout.values[cut + 1, 0].item() == 100.5


def test_collect_continues_from_its_last_observation() -> None:
    env, agent = Scripted([-3, 5]), Echo()
    whole, _ = collect(env, agent, env.reset(), 7)
    obs = env.reset()
    parts = []
    for steps in (1, 4, 2):
        rollout, obs = collect(env, agent, obs, steps)
        parts.append(rollout)
    for name in ("items", "values", "rewards", "terminated", "truncated", "logprobs"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    known = ~whole.terminated
    assert torch.equal(torch.cat([part.next_values for part in parts])[known], whole.next_values[known])


def test_streams_are_not_normalised() -> None:
    env = Scripted([-2], normalises=True)
    rollout, _ = collect(env, Echo(), env.reset(), 2)
    assert rollout.rewards.tolist() == [[0.0], [0.5]]
    assert rollout.streams.tolist() == [[[1000.0, 2000.0]], [[1000.5, 2001.0]]]


def test_play_by_hand() -> None:
    """Sessions of 1, 3 and 2 steps: rewards after the end of a session are not counted."""
    env, agent = Scripted([1, -3, 2]), Echo()
    users = torch.tensor([7, 8, 9])
    sessions = play(env, agent, users, greedy=True)
    assert env.asked is users and agent.greedy == {True}
    assert sessions.items.squeeze(-1).tolist() == [[0, 10, 20], [-1, 11, 21], [-1, 12, -1]]
    assert sessions.rewards.tolist() == [[0.0, 5.0, 10.0], [0.0, 5.5, 10.5], [0.0, 6.0, 0.0]]
    felt = torch.stack([step.signals[:, 0, 1] for step in sessions.reactions])  # (T, N), also after the end
    assert felt[:, 1].tolist() == [1.25, 1.375, 1.5] and felt[:2, 2].tolist() == [2.5, 2.625]
    assert torch.equal(sessions.streams["number"], sessions.rewards)
    assert torch.equal(sessions.streams["double"], 2 * sessions.rewards)
    assert sessions.left.tolist() == [True, False, True]
    assert sessions.returns.tolist() == [0.0, 16.5, 20.5]
    assert sessions.lengths.tolist() == [1, 3, 2]


def test_leaving_at_the_last_possible_step_is_not_early() -> None:
    """At most 3 steps: row 0 leaves after 2, row 1 after all 3, row 2 is cut. Targets see both leave."""
    env = Scripted([2, 3, -3], limit=3)
    rollout, _ = collect(env, Echo(), env.reset(), 3)
    assert rollout.left_early is not None
    assert rollout.left_early.tolist() == [[False] * 3, [True, False, False], [False] * 3]
    assert rollout.terminated.tolist() == [[False] * 3, [True, False, False], [False, True, False]]
    sessions = play(env, Echo())
    assert sessions.left_early is not None
    assert sessions.left_early.tolist() == [True, False, False]
    assert sessions.left.tolist() == [True, True, False]


def test_reactions_of_the_first_users_are_kept() -> None:
    sessions = play(Scripted([-2] * 5), Echo())
    assert [step.signals.shape for step in sessions.reactions] == [(3, 1, 2)] * 2
    assert [step.shown.shape for step in sessions.reactions] == [(3, 1)] * 2


def test_short_sessions_count_once() -> None:
    """Ninety-nine steps of one user, and ninety-nine sessions of another in the same time: two sessions."""
    sessions = play(Scripted([1, -99]), Echo())
    assert sessions.lengths.tolist() == [1, 99]
    assert (sessions.items[:, 0] >= 0).sum() == 1


def test_endless_sessions_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.experience.rollout.MAX_STEPS", 7)
    env = Scripted(ends=[3, 99])
    with pytest.raises(UserError):
        play(env, Echo())
    assert env.clock[1].item() == 7


def endless(bootstrap: bool) -> Config:
    agent: dict[str, Any] = {
        "gamma": 0.9,
        "gae_lambda": 0.9,
        "lr": 0.02,
        "n_steps": 10,
        "num_envs": 10,
        "batch_size": 50,
        "update_epochs": 6,
        "max_grad_norm": 10.0,
        "bootstrap_time_limit": bootstrap,
    }
    model = {"head": "dense", "hidden_dims": [16]}
    return settings("ppo", "gym:Endless", agent_config=agent, model_config=model)


@pytest.mark.learning
@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [
        # 1 / (1 - 0.9), whatever the clock says: the time limit is only the recorder's
        (True, [10.0, 10.0, 10.0, 10.0, 10.0]),
        # 1 + 0.9 + 0.81 + ..., as many terms as there are steps left
        (False, [4.0951, 3.439, 2.71, 1.9, 1.0]),
    ],
)
def test_infinite_horizon(bootstrap: bool, expected: list[float], proof: Proof) -> None:
    """Reward 1 at every step, cut after 5: the learned value depends on bootstrap_time_limit."""
    env = Toy(10, 5, lambda clock, item: torch.ones(len(clock)))
    agent = toy_agent(endless(bootstrap), env, 120)
    learn(env, agent, 120)
    found = agent.value(env.seen(torch.arange(5)))
    proof((found - torch.tensor(expected)).abs().max().item(), below=0.15)

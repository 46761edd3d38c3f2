"""Hand-over: a bandit for the first steps of a user without a profile, then a trained policy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.handover import HandOver, check_steps
from recsys_rl.agents.linear_bandit import BanditDials, LinUCB
from recsys_rl.errors import UserError
from recsys_rl.types import Action, Interface, Obs
from tests.tiny_world import tiny_catalogue

INTERFACE = Interface(
    (("user", 2), ("last_item", 2)),
    (3,),
    repeats=False,
    history_length=3,
    signals=("match",),
    session_length=3,
)


class Shows:
    """Always shows item 1, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Obs] = []

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        self.seen.append(obs)
        return Action(torch.ones(obs.num_rows, 1, dtype=torch.int64), torch.full((obs.num_rows,), -0.5))


def hand_over(policy: Shows, steps: int, length: float = 1.0) -> HandOver:
    first = bandit()
    return HandOver(first, first.learned, policy, steps, INTERFACE, length)


def bandit() -> LinUCB:
    """It shows item 0 first to everybody without a profile."""
    dials = BanditDials(explore=0.0, gain=1.0, ridge=1.0)
    return LinUCB(tiny_catalogue(), dials, torch.tensor([1.0]), start=torch.tensor([0.1, 0.0]))


def observation(profiles: Tensor, history: list[list[int]], answers: list[list[float]]) -> Obs:
    shown = torch.tensor(history)
    context = torch.cat([profiles, torch.zeros(len(profiles), 2)], 1)
    return Obs(context, shown, torch.tensor(answers).unsqueeze(2), exclude=shown)


def test_rows_of_one_step_by_hand() -> None:
    """A stranger at the start, one after an answer, one after two, and a known user at the start.

    After item 0, east, with the answer 1: P = diag(1/2, 1), and theta = start + P x (1 - 0.1) = (0.55, 0).
    After item 0 with answer 0 and item 1, north, with answer 1: theta = (0.1 - 0.05, 0.5).
    """
    profiles = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    obs = observation(
        profiles,
        [[-1, -1, -1], [-1, -1, 0], [-1, 0, 1], [-1, -1, -1]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    )
    policy = Shows()
    action = hand_over(policy, 1, 2.0).act(obs)
    assert action.items.tolist() == [[0], [1], [1], [1]]
    assert action.logprob.tolist() == [0.0, -0.5, -0.5, -0.5]
    (seen,) = policy.seen
    third = torch.tensor([0.05, 0.5])
    expected = torch.stack([torch.tensor([2.0, 0.0]), 2 * third / third.norm(), profiles[3]])
    assert_close(seen.context[:, :2], expected)
    assert_close(seen.context[:, 2:], obs.context[1:, 2:])
    later = hand_over(policy, 2, 2.0)
    assert later.act(obs).items[:, 0].tolist() == [0, 2, 1, 1]  # the second stranger is still the bandit's


def test_all_users_may_be_in_one_part() -> None:
    nothing = observation(torch.zeros(2, 2), [[-1, -1, -1]] * 2, [[0.0] * 3] * 2)
    policy = Shows()
    assert hand_over(policy, 1).act(nothing).items.tolist() == [[0], [0]]
    assert not policy.seen
    known = observation(torch.eye(2), [[-1, -1, -1]] * 2, [[0.0] * 3] * 2)
    assert hand_over(policy, 1).act(known).items.tolist() == [[1], [1]]


def test_steps_that_no_observation_shows_are_refused() -> None:
    check_steps(2, INTERFACE)
    with pytest.raises(UserError, match="--handover is 3"):
        check_steps(3, INTERFACE)
    window = Interface(
        (("user", 2),), (9,), history_length=4, signals=("a",), session_length=50, slate_size=2
    )
    check_steps(2, window)
    with pytest.raises(UserError, match="--handover is 3"):
        check_steps(3, window)

"""Returns of sessions longer than a rollout."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.experience.returns import SessionReturns


def test_session_returns_across_rollouts() -> None:
    sessions = SessionReturns(2)
    returns, lengths = sessions.add(torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.zeros(2, 2) > 0)
    assert returns.tolist() == [] and lengths.tolist() == []
    # user 0 ends with 1 + 2 + 3; user 1 with 10 + 20 + 30 + 40, and both begin again at 0
    done = torch.tensor([[True, False], [False, True], [True, False]])
    returns, lengths = sessions.add(torch.tensor([[3.0, 30.0], [4.0, 40.0], [5.0, 50.0]]), done)
    assert returns.tolist() == [6.0, 100.0, 9.0] and lengths.tolist() == [3.0, 4.0, 2.0]
    returns, lengths = sessions.add(torch.tensor([[7.0, 60.0]]), torch.tensor([[True, True]]))
    assert returns.tolist() == [7.0, 110.0] and lengths.tolist() == [1.0, 2.0]


@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_session_returns_do_not_depend_on_rollout_length(seed: int, cuts: list[int]) -> None:
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 9, (sum(cuts), 3), generator=rng).float()
    done = torch.rand(rewards.shape, generator=rng) < 0.3
    whole = SessionReturns(3).add(rewards, done)
    pieces, sessions = [], SessionReturns(3)
    for part, ends in zip(rewards.split(cuts), done.split(cuts), strict=True):
        pieces.append(sessions.add(part, ends))
    for number in (0, 1):
        assert torch.equal(torch.cat([piece[number] for piece in pieces]), whole[number])

"""Observations and transitions of a DecisionLog, worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.transitions import observations, observe, transition_table
from recsys_rl.session import make_interface
from recsys_rl.types import UserError

CATALOGUE, _ = synthetic_world(8, 5, 4, 0.2, 0)
INTERFACE = make_interface(
    CATALOGUE, context=("profile", "clock"), given={"profile": 1}, signals=["liked"], session_length=4
)
LENGTHS = (2, 1, 3)


def three_sessions() -> DecisionLog:
    """Sessions of 2, 1 and 3 steps of the users 5, 6 and 5; a hidden signal; items 0, 1, 2 in turn."""
    steps = torch.cat([torch.arange(n) for n in LENGTHS])
    rows = len(steps)
    last = torch.tensor([False, True, True, False, False, True])
    signals = torch.stack([torch.full((rows, 1), 9.0), torch.arange(1.0, rows + 1).unsqueeze(1)], -1)
    return DecisionLog(
        header=DecisionHeader(("one",), INTERFACE, ("hidden", "liked")),
        users=torch.tensor([5, 5, 6, 5, 5, 5]),
        sessions=torch.tensor([0, 0, 1, 2, 2, 2]),
        steps=steps,
        times=torch.tensor([10, 11, 10, 30, 31, 32]),
        items=steps.unsqueeze(1),
        logprobs=torch.zeros(rows).double(),
        signals=signals,  # (E, 1, 2)
        terminated=last & (torch.arange(rows) < 5),
        truncated=last & (torch.arange(rows) == 5),
        loggers=torch.zeros(rows, dtype=torch.int64),
        given={"profile": torch.arange(rows).float().unsqueeze(1)},
    )


def test_observations_hold_the_history_before_each_decision() -> None:
    obs = observe(three_sessions(), CATALOGUE)
    assert obs.history is not None and obs.signals is not None and obs.exclude is not None
    # The last row: items 0 and 1 were shown in this session, with the visible signals 4 and 5.
    assert obs.history.tolist()[5] == obs.exclude.tolist()[5] == [-1, -1, 0, 1]
    assert obs.signals[5].flatten().tolist() == [0, 0, 4, 5]
    assert obs.context.tolist() == [[0, 0], [1, 0.25], [2, 0], [3, 0], [4, 0.25], [5, 0.5]]
    assert bool((obs.history[[0, 2, 3]] == -1).all())


def test_an_empty_place_of_a_slate_is_no_part_of_the_history() -> None:
    """Slates of two places: [0, -1], then [-1, 1]; the third decision follows them."""
    interface = dataclasses.replace(INTERFACE, slate_size=2, history_length=8)
    log = three_sessions().rows(torch.tensor([3, 4, 5]))
    items = torch.tensor([[0, -1], [-1, 1], [2, 3]])
    signals = torch.full((3, 2, 2), 7.0) * (items >= 0).unsqueeze(-1)
    header = dataclasses.replace(log.header, interface=interface)
    obs = observe(dataclasses.replace(log, header=header, items=items, signals=signals), CATALOGUE)
    assert obs.history is not None and obs.signals is not None and obs.exclude is not None
    shown = obs.history[2] >= 0
    assert obs.history[2][shown].tolist() == [0, 1] and obs.signals[2, :, 0][shown].tolist() == [7, 7]
    assert obs.allowed(8)[2].tolist() == [False, False] + 6 * [True]


def test_observations_come_in_groups_of_whole_sessions() -> None:
    log = three_sessions()
    groups = list(observations(log, CATALOGUE, sessions=2))
    assert [rows.tolist() for rows, _ in groups] == [[0, 1, 2], [3, 4, 5]]
    whole = observe(log, CATALOGUE)
    for rows, obs in groups:
        assert torch.equal(obs.context, whole.context[rows])


def test_excluded_items_and_unavailable_items_are_not_allowed() -> None:
    available = CATALOGUE.available.clone()
    available[3] = False
    exclude = torch.tensor([[2, -1]] * 6)
    log = dataclasses.replace(
        three_sessions(), exclude=exclude, items=torch.tensor([[0], [1], [0], [0], [1], [4]])
    )
    allowed = observe(log, dataclasses.replace(CATALOGUE, available=available)).allowed(CATALOGUE.num_items)
    assert (~allowed[5]).nonzero().flatten().tolist() == [
        0,
        1,
        2,
        3,
    ]  # two shown, one excluded, one unavailable
    assert (~allowed[0]).nonzero().flatten().tolist() == [2, 3]


def test_next_observation_is_that_of_the_next_row() -> None:
    log = three_sessions()
    rewards = torch.arange(6.0)
    batch = transition_table(log, CATALOGUE, rewards).at(torch.arange(6))
    assert torch.equal(batch.rewards, rewards) and torch.equal(batch.terminated, log.terminated)
    assert torch.equal(batch.obs.context, observe(log, CATALOGUE).context)
    for row in (0, 3, 4):
        assert torch.equal(batch.next_obs.rows(torch.tensor([row])).context[0], batch.obs.context[row + 1])
    after = batch.next_obs
    assert after.exclude is not None
    # After the last step: its own profile, the clock moved on, its item excluded.
    assert after.context[5].tolist() == [5, 0.75] and after.exclude[5].tolist() == [-1, 0, 1, 2]


def test_returns_to_go_end_with_the_session() -> None:
    table = transition_table(three_sessions(), CATALOGUE, torch.tensor([1.0, 2, 4, 8, 16, 32]), gamma=0.5)
    # 1 + 2 / 2; 2; 4; 8 + (16 + 32 / 2) / 2; 16 + 32 / 2; 32
    assert table.returns_to_go.tolist() == [2, 2, 4, 24, 32, 32]
    assert table.steps_left.tolist() == [2, 1, 1, 3, 2, 1]


def test_possible_returns_count_the_steps_that_are_left() -> None:
    """Sessions have 4 steps at most; rewards lie between -1 and 2, and a session may end early."""
    rewards = torch.tensor([2.0, 0, -1, 0, 0, 0])
    table = transition_table(three_sessions(), CATALOGUE, rewards)
    assert table.steps.tolist() == [0, 1, 0, 0, 1, 2]
    assert table.possible.tolist() == [[-4, 8], [-3, 6], [-4, 8], [-4, 8], [-3, 6], [-2, 4]]
    table = transition_table(three_sessions(), CATALOGUE, rewards, gamma=0.5, span=(1.0, 4.0))
    assert table.possible[:2].tolist() == [[0, 7.5], [0, 7]]  # 4 (1 + 1/2 + 1/4 + 1/8), and one less
    endless = transition_table(three_sessions(), CATALOGUE, rewards, gamma=0.5, endless=True)
    assert endless.possible[0].tolist() == [-2, 4]  # 2 / (1 - 1/2)
    never = transition_table(three_sessions(), CATALOGUE, rewards.clamp_min(0), endless=True)
    assert never.possible[0].tolist() == [0, torch.inf]


def test_candidates_limit_the_observations_and_the_next_ones() -> None:
    candidates = torch.tensor([[0, 1, 2, 4]] * 6)
    log = dataclasses.replace(three_sessions(), candidates=candidates)
    batch = transition_table(log, CATALOGUE, torch.zeros(6)).at(torch.arange(6))
    assert batch.obs.candidates is not None and batch.next_obs.candidates is not None
    assert batch.obs.exclude is None
    # Without the items that the session has shown.
    assert batch.obs.candidates.tolist() == [
        [0, 1, 2, 4],
        [-1, 1, 2, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 4],
        [-1, 1, 2, 4],
        [-1, -1, 2, 4],
    ]
    assert batch.next_obs.candidates[0].tolist() == [-1, 1, 2, 4]  # of the next row
    assert batch.next_obs.candidates[2].tolist() == [-1, 1, 2, 4]  # after the end
    repeats = dataclasses.replace(log.header, interface=dataclasses.replace(INTERFACE, repeats=True))
    again = observe(dataclasses.replace(log, header=repeats), CATALOGUE)
    assert again.candidates is not None and torch.equal(again.candidates, candidates)


def test_candidates_leave_what_a_row_excludes_or_the_catalogue_lacks_forbidden() -> None:
    available = CATALOGUE.available.clone()
    available[7] = False
    log = dataclasses.replace(
        three_sessions(),
        candidates=torch.arange(8).expand(6, 8),
        exclude=torch.tensor([[3], [3], [3], [3], [3], [-1]]),
    )
    obs = observe(log, dataclasses.replace(CATALOGUE, available=available))
    assert obs.candidates is not None
    assert obs.candidates[4].tolist() == [-1, 1, 2, -1, 4, 5, 6, -1]  # 0 was shown
    assert obs.candidates[5].tolist() == [-1, -1, 2, 3, 4, 5, 6, -1]


@pytest.mark.parametrize("consumed", [(), (0.25,)])
def test_a_place_of_a_list_sees_the_items_above_as_consumed_and_no_feedback(
    consumed: tuple[float, ...],
) -> None:
    """The last two rows of the last session are a list; the feedback to its first item is 5."""
    log = three_sessions()
    header = dataclasses.replace(log.header, consumed=consumed)
    log = dataclasses.replace(log, header=header, list_place=torch.tensor([0, 0, 0, 0, 0, 1]))
    batch = transition_table(log, CATALOGUE, torch.zeros(6)).at(torch.tensor([4, 5]))
    assert batch.obs.history is not None and batch.obs.signals is not None
    assert batch.next_obs.history is not None and batch.next_obs.signals is not None
    of_list = consumed[0] if consumed else 1
    assert batch.obs.history.tolist() == [[-1, -1, -1, 0], [-1, -1, 0, 1]]
    assert batch.obs.signals.squeeze(-1).tolist() == [[0, 0, 0, 4], [0, 0, 4, of_list]]
    assert batch.next_obs.history.tolist() == [[-1, -1, 0, 1], [-1, 0, 1, 2]]
    assert batch.next_obs.signals.squeeze(-1).tolist() == [[0, 0, 4, of_list], [0, 4, 5, 6]]
    assert batch.obs.context.tolist() == [[4, 0.25], [5, 0.5]]


def test_no_list_holds_an_item_twice_where_sessions_may() -> None:
    interface = dataclasses.replace(INTERFACE, repeats=True)
    log = dataclasses.replace(three_sessions(), list_place=torch.tensor([0, 1, 0, 0, 0, 1]))
    log = dataclasses.replace(log, header=dataclasses.replace(log.header, interface=interface))
    for exclude in (None, torch.tensor([[7]] * 6)):
        allowed = observe(dataclasses.replace(log, exclude=exclude), CATALOGUE).allowed(8)
        mine = [] if exclude is None else [7]
        forbidden = [(~row).nonzero().flatten().tolist() for row in allowed]
        assert forbidden == [[*items, *mine] for items in ([], [0], [], [], [], [1])]


def test_rows_of_a_table_stay_together() -> None:
    table = transition_table(three_sessions(), CATALOGUE, torch.arange(6.0))
    batch = table.at(torch.tensor([4, 0, 4]))
    assert batch.rewards.tolist() == batch.obs.context[:, 0].tolist() == [4, 0, 4]
    assert [part.rewards.tolist() for part in batch.split(2)] == [[4, 0], [4]]


def test_missing_piece_of_the_context_is_refused() -> None:
    with pytest.raises(UserError):
        observe(dataclasses.replace(three_sessions(), given={}), CATALOGUE)

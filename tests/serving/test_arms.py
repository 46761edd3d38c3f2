"""Arms: who gets which, and the state that the rows of releases give."""

from __future__ import annotations

import msgspec
import pytest

from recsys_rl.serving.record.record_schema import Release, Unit
from recsys_rl.serving.releases.arms import NONE, Assigned, UnderWay, history_of, number_of

A, B, C = "a" * 64, "b" * 64, "c" * 64


def row(number: int, kind: str, champion: str = A, challenger: str = B, share: float = 0.1) -> Release:
    return Release(number, float(number), kind, champion, challenger, share, "session", "", "")  # type: ignore[arg-type]


def release(*shares: float, unit: Unit = "session") -> UnderWay:
    rows = [row(10, "start", share=shares[0])]
    rows += [row(10 * at, "share", share=share) for at, share in enumerate(shares[1:], 2)]
    found = history_of([msgspec.structs.replace(one, unit=unit) for one in rows]).under_way
    assert found is not None
    return found


@pytest.mark.parametrize("unit", ["session", "user"])
def test_a_larger_share_moves_nobody_back(unit: Unit) -> None:
    people = [f"u{at}" for at in range(2000)]
    before = {one for one in people if release(0.1, unit=unit).assigned(one, 0).arm == "challenger"}
    after = {one for one in people if release(0.1, 0.5, unit=unit).assigned(one, 0).arm == "challenger"}
    assert before < after and abs(len(before) - 200) < 50 and abs(len(after) - 1000) < 90


def test_a_session_has_the_share_of_its_begin_and_a_person_one_arm_for_all_sessions() -> None:
    by_session, by_user = release(0.1, 0.5), release(0.1, 0.5, unit="user")
    moved = next(one for one in map(str, range(100)) if 0.1 <= number_of(f"10 {B}", f"{one} 0") < 0.5)
    assert by_session.assigned(moved, 0, session=15) == Assigned("champion", 0.9)
    assert by_session.assigned(moved, 0, session=25) == Assigned("challenger", 0.5)
    assert by_session.assigned(moved, 0) == Assigned("challenger", 0.5)
    assert by_session.assigned(moved, 0, session=9) == NONE  # it began before the release
    arms = {by_user.assigned("ann", visit).arm for visit in range(50)}
    assert len(arms) == 1 and len({by_session.assigned("ann", visit).arm for visit in range(50)}) == 2


def test_two_releases_divide_the_people_independently() -> None:
    """Two of the same challenger: it meets other people in the second one."""
    people = [f"u{at}" for at in range(4000)]
    both = [history_of([row(number, "start", share=0.5)]).under_way for number in (10, 11)]
    first, second = (
        {one for one in people if of is not None and of.assigned(one, 0).arm == "challenger"} for of in both
    )
    assert abs(len(first) - 2000) < 150 and abs(len(first & second) - 1000) < 100


def test_a_frozen_release_keeps_the_arms_of_sessions_under_way() -> None:
    frozen = history_of([row(10, "start", share=0.5), row(20, "freeze", share=0.5)]).under_way
    assert frozen is not None and frozen.assigned("ann", 0) == NONE and frozen.share == 0.5
    assert frozen.assigned("ann", 0, session=21) == NONE
    assert frozen.assigned("ann", 0, session=15) == release(0.5).assigned("ann", 0)


def test_a_share_ends_a_freeze_and_sessions_from_the_freeze_have_no_arm() -> None:
    rows = [row(10, "start", share=0.5), row(20, "freeze", share=0.5), row(30, "share", share=0.5)]
    thawed = history_of(rows).under_way
    assert thawed is not None and thawed.frozen is None and thawed.share == 0.5
    assert thawed.assigned("ann", 0) == thawed.assigned("ann", 0, session=31)
    assert thawed.assigned("ann", 0) == release(0.5).assigned("ann", 0)
    assert thawed.assigned("ann", 0, session=25) == NONE
    assert thawed.assigned("ann", 0, session=15) == release(0.5).assigned("ann", 0)


def test_rows_give_the_state_that_they_left() -> None:
    start, promote = row(1, "start"), row(2, "promote", champion=B)
    again = [row(3, "start", B, C), row(4, "promote", C, C)]
    history = history_of([start, promote, *again])
    assert (history.champion, history.under_way, history.before) == (C, None, (A, B))
    first_back = history.after(row(5, "back", B, C))
    assert (first_back.champion, first_back.before) == (B, (A,))
    assert first_back.after(row(6, "back", A, B)).before == ()
    # A release that ends by back or stop leaves the promotions before it.
    ended = history.after(row(5, "start", C, A)).after(row(6, "back", C, A))
    assert (ended.champion, ended.under_way, ended.before) == (C, None, (A, B))
    # A version that was made the champion in between: what was before it is no way back.
    assert history.after(row(5, "start", "d" * 64, A)).before == ()

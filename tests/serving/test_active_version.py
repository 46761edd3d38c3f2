"""Three faults in a row: which faults count, and whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys_rl.serving.draw.rule import LATE, NOT_FINITE, RAISED
from recsys_rl.serving.draw.versions import open_version
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.releases.active_version import ActiveVersion


@pytest.fixture
def active(two: Path, tmp_path: Path) -> ActiveVersion:
    """a.pt serves."""
    return ActiveVersion(Store(tmp_path / "r.sqlite", {}), open_version(two / "a.pt", 0))


@pytest.mark.parametrize("fault", [LATE, NOT_FINITE, RAISED])
def test_a_fault_of_each_kind_counts_and_a_good_draw_ends_the_row(active: ActiveVersion, fault: str) -> None:
    draws = [fault, fault, "", fault, fault, fault]
    assert [active.count(active.version, draw) for draw in draws] == [False] * 5 + [True]


def test_faults_of_a_version_that_serves_no_more_do_not_count(active: ActiveVersion, two: Path) -> None:
    """Draws of a.pt were under way when b.pt began to serve, and fail; the challenger's count."""
    first, second = active.version, open_version(two / "b.pt", 0)
    active.serve(second)
    assert not any(active.count(first, RAISED) for _ in range(5))
    active.challenger = first
    assert [active.count(first, RAISED) for _ in range(3)] == [False, False, True]
    active.broken = True  # popularity answers in place of the champion
    assert not any(active.count(second, RAISED) for _ in range(5))

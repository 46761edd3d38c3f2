"""The arms of a release in an export: the probability of a session under both together."""

from __future__ import annotations

import math

import msgspec
import pytest

from recsys_rl.serve.export_arms import _mixed
from recsys_rl.serve.record_schema import Session, SessionRows
from tests.serve.test_snapshot import decision


def test_the_mixture_by_hand() -> None:
    """A list of two items, one by popularity, one more, and one after the release."""
    own, other = ((0.5, 0.2), (0.25,), (0.3,), (0.9,)), {1: (0.1, 0.4), 3: (0.8,)}
    made = [
        msgspec.structs.replace(
            decision(number, 9, number, 0.0),
            logprobs=tuple(map(math.log, chances)),
            application="",
            arm="" if number == 4 else "challenger",
            arm_probability=0.25,
            degraded="late" if number == 2 else "",
        )
        for number, chances in zip((1, 2, 3, 4), (own[0], own[1], own[2], own[3]), strict=True)
    ]
    rows = SessionRows(Session(9, 8, 0, 0.0, -1, (), 1.0, 1.0), made, [])
    mixed = _mixed(rows, {number: [*map(math.log, chances)] for number, chances in other.items()}).decisions
    found = [tuple(map(math.exp, row.logprobs)) for row in mixed]
    first = 0.25 * 0.5 + 0.75 * 0.1  # .2
    second = (0.25 * 0.5 * 0.2 + 0.75 * 0.1 * 0.4) / first  # .055 / .2
    third = (0.25 * 0.5 * 0.2 * 0.3 + 0.75 * 0.1 * 0.4 * 0.8) / (first * second)
    assert found == [pytest.approx(row) for row in ((first, second), own[1], (third,), own[3])]
    assert math.prod(found[0] + found[2]) == pytest.approx(0.25 * 0.03 + 0.75 * 0.032)

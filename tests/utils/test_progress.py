"""Progress on standard error where a person waits."""

from __future__ import annotations

import pytest

from recsys_rl.errors import amount
from recsys_rl.utils import progress
from recsys_rl.utils.progress import announce, counted


def test_counter_without_a_terminal_prints_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with counted("ranking users", 1200) as show:
        show(64)
        show(1200)
    assert capsys.readouterr() == ("", "ranking users: 64 of 1,200\nranking users: 1,200 of 1,200\n")
    with counted("ranking users", 1200, quiet=True) as show:
        show(64)
    announce("judging ppo")
    assert capsys.readouterr() == ("", "judging ppo\n")


def test_amounts_have_the_singular() -> None:
    assert [amount(n, "user") for n in (0, 1, 2000)] == ["0 users", "1 user", "2,000 users"]

"""Parts of the report on learned users, by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.logs.users.fit_report import (
    PRIOR,
    _by_means,
    _kolmogorov,
    _scores,
    _survival,
    print_fit_report,
)
from recsys_rl.logs.users.item_means import shrunk_means
from recsys_rl.logs.users.real_or_learned import auc, classifier_auc
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import LEVELS
from recsys_rl.types import World
from tests.tiny_world import population, tiny_catalogue

NOT_SHOWN = -1


def table(items: list[list[int]], signals: list[list[float]], left: list[bool]) -> SessionTable:
    """Sessions of single items with one signal; -1 pads."""
    shown = torch.tensor(items)
    return SessionTable(
        users=torch.arange(len(items)),
        times=torch.arange(len(items)),
        given={},
        items=shown.unsqueeze(2),
        signals=torch.tensor(signals)[:, :, None, None],
        rewards=torch.tensor(signals),
        lengths=(shown >= 0).sum(1),
        left=torch.tensor(left),
    )


SESSIONS = table([[0, 1, 0], [1, NOT_SHOWN, NOT_SHOWN]], [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]], [False, True])


def test_area_under_the_curve() -> None:
    positive = torch.tensor([True, False, True, False])
    assert auc(torch.tensor([0.9, 0.1, 0.4, 0.6]), positive) == pytest.approx(0.75)  # 3 of 4 pairs
    assert auc(torch.tensor([0.5, 0.5, 0.5, 0.5]), positive) == pytest.approx(0.5)
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([True, True])) is None


def test_means_of_items_and_of_the_session_so_far() -> None:
    # Item 0: two answers of 1; item 1: 0 and 1; the mean of all is 3/4.
    means = shrunk_means(SESSIONS, 3, PRIOR)[:, 0]
    assert_close(means, torch.tensor([(2 + 3.75) / 7, (1 + 3.75) / 7, 0.75]))
    assert_close(_by_means(SESSIONS, 0, means, False), means[[0, 1, 0, 1]])
    first = 1 - means[0]
    second = first + 0 - means[1]
    wanted = torch.stack([means[0], means[1] + first / 6, means[0] + second / 7, means[1]])
    assert_close(_by_means(SESSIONS, 0, means, True), wanted)


def test_survival_of_real_and_learned_users() -> None:
    real, learned = _survival(SESSIONS, torch.tensor([0.5, 0.2, 0.0, 0.1]))
    assert_close(real, torch.tensor([1.0, 0.5, 0.5]))  # one of two leaves after the first step
    assert_close(learned, torch.tensor([1.0, 0.7, 0.7 * 0.8]))  # mean chances: 0.3, then 0.2


def test_printed_lengths_have_their_condition(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"real": 2.0, "learned": 3.0, "distance": 0.5}
    leaving = {name: {"learned": 0.5} for name in ("loss", "auc", "calibration")}
    report = {"sessions": 2, "decisions": 4, "signals": [], "leaving": leaving}
    print_fit_report({**report, "lengths": numbers, "returns": numbers, "classifier_auc": 0.5})
    lines = capsys.readouterr().out.splitlines()
    assert (
        "mean lengths: real 2.00, learned 3.00; distance 0.500 (learned: by the chances of leaving of those "
        "who were still there in the real sessions)" in lines
    )
    assert "mean returns: real 2.00, learned 3.00; distance 0.500" in lines


def test_distance_of_distributions() -> None:
    assert _kolmogorov(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1
    assert _kolmogorov(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])) == 0.5


def test_scores_of_a_probability_and_of_quantiles() -> None:
    found = _scores({"x": torch.full((20,), 0.25)}, torch.tensor([1.0, 0, 0, 0] * 5), True)
    assert found["loss"]["x"] == pytest.approx(0.5623, abs=1e-4)  # entropy of 1/4
    assert found["auc"]["x"] == 0.5
    values = torch.linspace(0, 1, 1001)
    found = _scores({"x": torch.tensor(LEVELS).expand(1001, -1)}, values, False)
    calibration, loss = found["calibration"]["x"], found["loss"]["x"]
    assert calibration is not None and calibration < 0.002
    # Pinball loss of a uniform number at its own quantile: q (1 - q) / 2.
    wanted = sum(q * (1 - q) / 2 for q in LEVELS[1:-1]) / 9
    assert loss == pytest.approx(wanted, abs=1e-3)


def test_classifier_tells_other_sessions_apart_and_equal_ones_not() -> None:
    rng = torch.Generator().manual_seed(0)
    items = torch.stack([torch.randperm(3, generator=rng) for _ in range(400)])
    world = World(tiny_catalogue(), population([[1.0, 0.0]]))
    answers = torch.rand(400, 3, generator=rng)
    real = table(items.tolist(), answers.tolist(), [False] * 400)
    alike = torch.rand(400, 3, 1, 1, generator=rng)
    assert classifier_auc(real, alike, world) < 0.6
    assert classifier_auc(real, alike * 0.5, world) > 0.9

"""Forgetting: FSRS-6 against the package `fsrs` 6.3.2 (MIT), and the spacing of reviews."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys_rl.env.memory import AGAIN, FACTOR, GOOD, W, first, recall, review

# Histories of a card: days since the last review, 1 for Good and 0 for Again, and the numbers of `fsrs` 6.3.2
# with its default parameters: R before the review, S and D after it.
CARDS = [
    [
        (0, 1, 1.000000000, 2.306500000, 2.118103970),
        (30, 0, 0.667526334, 0.905346829, 7.394502741),
        (0, 1, 1.000000000, 0.957510869, 7.382336608),
        (2, 0, 0.842115247, 0.328745197, 9.124820212),
        (2, 1, 0.741360635, 1.431705033, 9.110923761),
        (30, 1, 0.622883207, 7.231686851, 9.097041207),
        (2, 1, 0.963682908, 9.119341052, 9.083172535),
        (30, 1, 0.800749391, 22.637290973, 9.069317732),
    ],
    [
        (0, 1, 1.000000000, 2.306500000, 2.118103970),
        (30, 1, 0.667526334, 37.420638389, 2.111214236),
        (2, 1, 0.992156009, 44.829749785, 2.104331391),
        (30, 1, 0.925164631, 129.299168804, 2.097455429),
        (0, 0, 1.000000000, 33.337296275, 7.387715706),
        (0, 1, 1.000000000, 33.337296275, 7.375556360),
        (7, 1, 0.971548912, 43.371354649, 7.363409173),
        (2, 1, 0.993205230, 46.339521955, 7.351274133),
    ],
    [
        (0, 0, 1.000000000, 0.212000000, 6.413300000),
        (7, 1, 0.582235405, 3.442048014, 6.402115069),
        (0, 0, 1.000000000, 1.126605874, 8.802628058),
        (2, 1, 0.856032420, 3.042787056, 8.789053799),
        (1, 1, 0.957848088, 4.282894943, 8.775493115),
        (0, 0, 1.000000000, 1.381804937, 9.582741283),
        (1, 0, 0.920646347, 0.377185214, 9.848078266),
        (2, 0, 0.754800874, 0.169518380, 9.935292729),
    ],
    [
        (0, 1, 1.000000000, 2.306500000, 2.118103970),
        (7, 1, 0.808309940, 21.411391980, 2.111214236),
        (7, 0, 0.958036293, 1.920603795, 7.392238132),
        (30, 1, 0.650169928, 14.897814971, 7.380074264),
        (7, 1, 0.943252056, 25.229593956, 7.367922559),
        (7, 0, 0.963580800, 1.895812074, 9.120082412),
        (3, 0, 0.865518700, 0.521382970, 9.696005442),
        (2, 1, 0.786149426, 1.435816268, 9.681537806),
    ],
]


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("card", CARDS)
def test_memory_is_that_of_the_package(card: list[tuple[float, ...]]) -> None:
    (_, right, _, s, d), *later = card
    assert first(GOOD if right else AGAIN) == pytest.approx((s, d), abs=1e-6)
    stability, difficulty = number(s), number(d)
    for days, right, r, s, d in later:
        assert recall(stability, number(days)).item() == pytest.approx(r, abs=1e-6)
        stability, difficulty = review(stability, difficulty, number(days), GOOD if right else AGAIN)
        assert (stability.item(), difficulty.item()) == pytest.approx((s, d), abs=1e-6)


def test_recall_by_hand() -> None:
    """It is 0.9 after S days, whatever S is."""
    assert pytest.approx(0.9 ** (-1 / 0.1542) - 1) == FACTOR
    assert abs(FACTOR - 0.98) < 1e-3
    for s in (0.5, 2.3065, 100.0):
        assert recall(number(s), number(s)).item() == pytest.approx(0.9)
        assert recall(number(s), number(0)).item() == 1
    assert recall(number(2.0), number(10.0)).item() == pytest.approx((1 + FACTOR * 5) ** -0.1542)
    assert len(W) == 21


def at_the_test(gap: Tensor, delay: float) -> Tensor:
    """The expected recall ``delay`` days after one review, which is ``gap`` days after a first success."""
    s, d = (torch.full_like(gap, value) for value in first(GOOD))
    held, after = recall(s, gap), torch.full_like(gap, delay)
    right, wrong = (recall(review(s, d, gap, rating)[0], after) for rating in (GOOD, AGAIN))
    return held * right + (1 - held) * wrong


def test_spacing_of_a_review() -> None:
    """The best gap grows with the delay of the test and is a falling share of it (Cepeda et al., 2008)."""
    gaps = torch.arange(10, 1000, dtype=torch.float64) / 10
    best = {delay: gaps[at_the_test(gaps, delay).argmax()].item() for delay in (7, 35, 70, 350)}
    assert best == pytest.approx({7: 4.0, 35: 8.6, 70: 11.8, 350: 17.0}, abs=0.5)
    shares = [gap / delay for delay, gap in best.items()]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == pytest.approx((0.57, 0.05), abs=0.02)
    for delay, gap in best.items():  # flat: half and twice the best gap lose little, and no gap loses more
        near, none = number(gap / 2), number(0)
        top, double = at_the_test(number(gap), delay), at_the_test(number(2 * gap), delay)
        assert 0 <= top - at_the_test(near, delay) < 0.02 and 0 <= top - double < 0.02
        assert top - at_the_test(none, delay) > 0.02

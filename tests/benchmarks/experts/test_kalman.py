"""The measurement of the filter, against the product of two normal densities."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from benchmarks.experts.kalman import measured


def test_a_normal_measurement_by_hand() -> None:
    """x_1 ~ N(1, 4), and x_2 ~ N(0, 9) apart from it; 2 x_1 is measured as 6 with variance 1.

    The precision of x_1 is then 1/4 + 4 = 17/4, and its mean (1/4 + 2 * 6) 4 / 17 = 49/17. x_2 stays.
    """
    mean, covariance = torch.tensor([[1.0, 0.0]]), torch.tensor([[[4.0, 0.0], [0.0, 9.0]]])
    along, residual = torch.tensor([[2.0, 0.0]]), torch.tensor([4.0])
    mean, covariance = measured(mean, covariance, along, push=residual, weight=torch.ones(1))
    assert_close(mean, torch.tensor([[49 / 17, 0.0]]))
    assert_close(covariance, torch.tensor([[[4 / 17, 0.0], [0.0, 9.0]]]))


def test_two_numbers_share_what_their_sum_tells() -> None:
    """x_1 ~ N(0, 1), x_2 ~ N(0, 3), and the sum is measured as 8 with variance 4: gains 1/8 and 3/8."""
    mean, covariance = torch.zeros(1, 2), torch.diag(torch.tensor([1.0, 3.0])).unsqueeze(0)
    mean, covariance = measured(mean, covariance, torch.ones(1, 2), torch.tensor([2.0]), torch.tensor([0.25]))
    assert_close(mean, torch.tensor([[1.0, 3.0]]))
    assert_close(covariance, torch.tensor([[[7 / 8, -3 / 8], [-3 / 8, 15 / 8]]]))

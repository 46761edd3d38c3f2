"""The rows of ads: slopes by hand, and lives under fixed loads."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import calibration_feed as feed
from recsys_rl.settings.config import Config
from recsys_rl.types import World
from tests.small_runs import settings, world


@pytest.fixture(scope="module")
def small() -> tuple[Config, World]:
    sizes = {"num_items": 60, "embedding_dim": 4, "max_episode_steps": 20, "place_cost": 0.5, "ad_cost": 1.0}
    config = settings("ppo", feed.ENV, env_config=sizes, data_config={"num_users": 20})
    return config, world(config)


def test_line_by_hand() -> None:
    """A fifth of the time is lost at the highest load."""
    slope, fit = feed.fit_line(50 * (1 - np.array(feed.LOADS)))
    assert slope == pytest.approx(-1.0) and fit == pytest.approx(1.0)
    bent = 50 * (1 - 5 * np.array(feed.LOADS) ** 2)
    slope, fit = feed.fit_line(bent)
    assert slope == pytest.approx(-1.0) and 0.9 < fit < 0.98


def test_growth_is_the_late_slope_over_the_first() -> None:
    places = np.ones((len(feed.LOADS), 1 + feed.MONTHS, 3))
    loads = np.array(feed.LOADS)[:, None, None]
    places[:, feed.FIRST] -= 0.5 * loads
    places[:, feed.LATE] -= 1.5 * loads
    assert feed._growth(places) == pytest.approx(3.0)


def test_loads_are_kept_and_ads_cost_time(small: tuple[Config, World]) -> None:
    none, many = feed.live(*small, (0.0, 0.2), ("any", "any"), 40, 0, 1)
    assert none.ads.sum() == 0 and none.clicks.sum() == 0
    assert many.ads.sum() / many.places.sum() == pytest.approx(0.2, abs=0.01)
    assert many.places.sum() < none.places.sum()
    assert none.places.shape == (2, 40)


def test_the_first_visit_is_a_part_of_the_first_month(small: tuple[Config, World]) -> None:
    (found,) = feed.live(*small, (0.2,), ("any",), 40, 0, 1)
    earned = found.earned(0.3, 0.3, 0.4)
    for sums in (found.places, found.ads, earned):
        assert (sums[0] <= sums[1] + 1e-9).all() and 0 < sums[0].sum() < sums[1].sum()
    assert found.places[0].min() >= 1 and found.places[0].max() <= 20  # a visit of this world
    paid = found.revenue > 0
    assert (found.clicks[paid] > 0).all() and not found.revenue[found.clicks == 0].any()
    assert found.earned(0.0, 0.0, 2.0) == pytest.approx(2 * found.revenue)


def test_ads_of_good_fit_are_clicked_more(small: tuple[Config, World]) -> None:
    good, bad = feed.live(*small, (0.2, 0.2), ("good", "bad"), 40, 0, 1)
    assert good.clicks.sum() / good.ads.sum() > bad.clicks.sum() / bad.ads.sum()

"""The fit of the choice model of `long-video`: its likelihood by hand, and the settings from a small log."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.calibration_choice import Requests, completion_row, fit, loss, settings, simulate
from recsys_rl.env.long_video import LongVideoConfig
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, from_dict

FALLING, RISING = (1.0, 0.75, 0.5, 0.25, 0.0), (1.0, 0.5, 0.75, 0.25, 0.0)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_requests() -> Requests:
    """At home the second of two places is picked; beside a video nothing is, and the user watches on.

    The first place beside it has a wear of 1. Affinities, catches and the trust are 0.
    """
    zeros, table = numbers(0, 0), torch.zeros(2, 2, dtype=torch.float64)
    return Requests(
        affinity=table,
        catch=table,
        wear=torch.tensor([[0, 0], [1, 0]], dtype=torch.float64),
        shown=torch.tensor([[True, True], [True, False]]),
        trust=zeros,
        playing=numbers(0, 1),
        playing_affinity=numbers(0, 0.25),
        playing_catch=zeros,
        playing_longer=zeros,
        pick=torch.tensor([1, 2]),
        watches_on=numbers(0, 1),
        completion=numbers(math.nan, math.nan),
    )


def test_likelihood_by_hand() -> None:
    """With eta 1 both places are seen in half of the cases.

    At home none weighs 2 and each place 1: the second is picked with 1/2 * 1/4. While a video of hold ln 3
    plays none weighs 2 * 3, and the first place 1/2: it is picked with 1/13. The second is empty. Of the
    other cases they watch on in 3 of 4.
    """
    values = dict.fromkeys(settings(LongVideoConfig()), 0.0)
    values |= {"seeing_exponent": 1.0, "none": math.log(2), "hold_bias": math.log(3)}
    values |= {"hold_gain": 9.0, "wear_gain": math.log(2)}
    found = loss(two_requests(), list(values), numbers(*values.values()), 0.25)
    assert found.item() == pytest.approx(-(math.log(1 / 8) + math.log(12 / 13) + math.log(3 / 4)) / 2)


def test_true_settings_of_the_default_world() -> None:
    """Against a suggestion with a cosine of 0, none at home is worth 4 * 0.25 + 5 * 0.5 logits."""
    found = settings(LongVideoConfig())
    assert found["none"] == 3.5 and (found["seeing_exponent"], found["wear_gain"]) == (0.7, 0.7)


def test_a_small_log_gives_the_settings_back() -> None:
    """Each estimate lies within four standard errors of its setting, and the errors are small.

    The settings differ from the defaults, so that no starting value is near.
    """
    changed = {"seeing_exponent": 1.1, "wear_gain": 1.5, "trust_gain": 3.0, "go_on_bias": -0.4}
    world = {"num_items": 300, "embedding_dim": 8, "max_episode_steps": 30}
    data = {"data": "synthetic", "num_users": 200}
    config = from_dict(Config, {"env": "long-video", "data_config": data, "env_config": {**world, **changed}})
    users = config.env_config
    assert isinstance(users, LongVideoConfig)
    log, wanted = simulate(config, make_world(config), 20_000), settings(users)
    assert log.affinity.shape == (20_000, 6)
    del wanted["wear_gain"]  # synthetic videos have no categories
    values, errors = fit(log, list(wanted), users.fit_midpoint)
    assert float(errors.max()) < 0.15
    assert ((values - numbers(*wanted.values())).abs() / errors).max() < 4
    assert values[0].item() == pytest.approx(1.1, rel=0.1)


@pytest.mark.parametrize(("means", "rise", "passed"), [(FALLING, -0.25, True), (RISING, 0.25, False)])
def test_completion_by_fifth_of_duration(means: tuple[float, ...], rise: float, passed: bool) -> None:
    """Ten videos of ten durations, two in each fifth; one request in which no video is left."""
    left = two_requests()
    columns = {name: getattr(left, name) for name in left.__dataclass_fields__}
    longer = torch.arange(11, dtype=torch.float64)
    completion = numbers(*(x for x in means for _ in range(2)), math.nan)
    row = completion_row(Requests(**{**columns, "playing_longer": longer, "completion": completion}))
    assert (row["distance"], row["passed"]) == (pytest.approx(rise), passed)

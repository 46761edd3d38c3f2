"""The rewards of a log's decisions, and of the places of its slates."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.logs.rewards import of_signals, place_rewards
from recsys_rl.types import Events, Feedback


def test_rewards_of_places_are_found_for_sums_and_refused_for_anything_else() -> None:
    rng = torch.Generator().manual_seed(0)
    signals = torch.rand(5, 3, 2, generator=rng)
    events = Events(torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1, 2))
    feedback = Feedback(signals, torch.ones(5, 3, dtype=torch.bool), events)
    found = place_rewards(lambda x: x.signals[..., 0].sum(1) + 2 * x.signals[..., 1].mean(1), feedback)
    assert found is not None
    assert torch.allclose(found, (signals[..., 0] + 2 / 3 * signals[..., 1]).double())
    assert place_rewards(lambda x: x.signals[..., 0].amax(1), feedback) is None

    def of_events(x: Feedback) -> Tensor:
        assert x.events is not None
        return x.signals[..., 0].sum(1) + x.events.signals[:, 0, 0]

    assert place_rewards(of_events, feedback) is None


def test_a_number_at_each_first_place_is_of_the_whole_slate() -> None:
    """A column of one number for each slate is read so; the places have no reward of their own."""
    signals, shown = torch.zeros(4, 3, 1), torch.ones(4, 3, dtype=torch.bool)
    signals[:, 0, 0] = torch.tensor([1.0, 0.0, 2.0, 1.0])
    of_slates = of_signals(("reward",), {"reward": 1.0})
    assert place_rewards(of_slates, Feedback(signals, shown)) is None
    signals[3, 2, 0] = 0.5
    found = place_rewards(of_slates, Feedback(signals, shown))
    assert found is not None and torch.equal(found, signals[..., 0].double())

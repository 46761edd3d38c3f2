"""Which policy of a checkpoint made a log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recsys_rl.logs.ope import playable as ope_policies
from recsys_rl.logs.ope.playable import Makers


@pytest.mark.parametrize("items", [10, 100_000])
def test_logger_is_recognised_by_its_logarithms(monkeypatch: pytest.MonkeyPatch, items: int) -> None:
    """A policy of the same name that gives an item twice the probability is another policy."""
    theirs = torch.full((4,), 1 / items, dtype=torch.float64).log()
    theirs[3] = -torch.inf  # an item that this logger never shows
    several = torch.stack([theirs, theirs], 1)
    header = SimpleNamespace(loggers=("ppo", "random"), estimated=0)
    log = SimpleNamespace(header=header, logprobs=theirs, logger_logprobs=several)
    behaviours = SimpleNamespace(names=["ppo"], make=lambda name: name)
    replayed: Any = SimpleNamespace(log=log, estimated=False)
    read: Any = SimpleNamespace(behaviours=behaviours, others=())
    makers = Makers(read)
    mine = theirs.clone()
    monkeypatch.setattr(ope_policies, "logged_places", lambda *_: mine.unsqueeze(1))
    assert makers.policy(replayed, 0) is not None
    mine[:3] += 1e-5  # rounding
    assert makers.policy(replayed, 0) is not None
    mine[0] += torch.tensor(2.0).log()
    assert makers.policy(replayed, 0) is None
    assert makers.policy(replayed, 1) is None  # the checkpoint has no policy of this name

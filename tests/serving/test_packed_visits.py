"""Visits that are kept as bytes between two draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.recommender import Visit
from recsys_rl.serving.draw.session_state import pack, unpack
from recsys_rl.serving.draw.versions import open_version
from recsys_rl.types import tensors_of


@pytest.mark.parametrize("signals", [0, 1])
def test_visits_that_are_put_together_again_are_the_same(
    checkpoint: Callable[[str], Path], signals: int
) -> None:
    """A platform may hide all its signals: then a visit has a tensor of no numbers."""
    whole = Visit.begin(open_version(checkpoint("satiation"), 1).checkpoint, torch.rand(3, 4), torch.rand(3))
    whole = whole.record(torch.tensor([[5], [6], [7]]), torch.rand(3, 1, 1))
    session = replace(whole.session, signals=whole.session.signals[..., :signals])
    whole = replace(whole, session=session, known={**whole.known, "odd": torch.rand(3) > 0.5})
    again = unpack([pack(whole)[row] for row in (2, 0, 1)])
    found, wanted = ({**tensors_of(x.session), **x.known} for x in (again, whole))
    assert found.keys() == wanted.keys() >= {"history", "signals", "odd"}
    for name, column in found.items():
        assert column.dtype == wanted[name].dtype and column.shape == wanted[name].shape, name
        assert torch.equal(column, wanted[name][[2, 0, 1]]), name


def test_visits_at_different_steps_are_put_together(checkpoint: Callable[[str], Path]) -> None:
    """One before its first step and one after it, of a platform that lists what it knows in another order."""
    version = open_version(checkpoint("social-feed"), 1).checkpoint
    first = Visit.begin(version, torch.rand(1, 4), torch.tensor([20.0]), torch.tensor([2]))
    post = (version.catalogue.attributes["kind"] == 0).nonzero()[:1]
    later = first.record(post, torch.rand(1, 1, 4))
    assert list(first.known) != list(later.known)
    found = unpack([pack(first)[0], pack(later)[0]])
    for name, column in found.known.items():
        assert torch.equal(column, torch.cat([first.known[name], later.known[name]])), name

"""Means of items by hand, and a fit that does not see an answer in the mean of its item."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.logs.users.fit import FitSizes, UserFitting
from recsys_rl.logs.users.item_means import SHRINK, item_means, means_of
from recsys_rl.logs.users.network import ContextSizes, ItemTables, UserNetwork
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import kinds_of


def sessions(items: Tensor, answers: Tensor, users: Tensor) -> SessionTable:
    """Sessions (G, T) of single items with one signal; nobody leaves."""
    g, t = items.shape
    return SessionTable(
        users=users,
        times=torch.zeros(g, dtype=torch.int64),
        given={},
        items=items.unsqueeze(2),
        signals=answers.view(g, t, 1, 1),
        rewards=answers,
        lengths=torch.full((g,), t),
        left=torch.zeros(g, dtype=torch.bool),
    )


def test_means_by_hand() -> None:
    """Two answers 1 of item 0, and two 0 of item 1: the mean of all is 1/2; item 2 was never shown."""
    table = sessions(
        torch.tensor([[0, 1], [0, 1]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([7, 8])
    )
    away = 1 / (SHRINK + 2)  # (2 + SHRINK / 2) / (2 + SHRINK) - 1/2
    wanted = torch.tensor([away, -away, 0.0])
    assert_close(means_of(table, 3).squeeze(1), wanted / wanted.std(correction=0))
    same = sessions(torch.tensor([[0, 1]]), torch.ones(1, 2), torch.tensor([7]))
    assert means_of(same, 3).tolist() == [[0.0], [0.0], [0.0]]  # a constant says nothing


def test_means_of_a_part_are_those_of_the_other_users() -> None:
    rng = torch.Generator().manual_seed(0)
    users = torch.tensor([5, 3, 5, 9, 3, 1])
    table = sessions(torch.randint(4, (6, 3), generator=rng), torch.rand(6, 3, generator=rng), users)
    found = item_means(table, 4, rng)
    assert len(found.others) == 4 and found.fold[0] == found.fold[2] and found.fold[1] == found.fold[4]
    for part, means in enumerate(found.others):
        assert_close(means, means_of(table.rows((found.fold != part).nonzero().squeeze(1)), 4))
    assert_close(found.all, means_of(table, 4))


def fitted_loss(table: SessionTable, new: SessionTable, parted: bool, items: int) -> float:
    """The loss of ``new`` sessions after a fit to ``table``, over that of a constant."""
    means = item_means(table, items, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    kinds = kinds_of(table.signals.flatten(0, 2), torch.zeros(1, dtype=torch.bool))
    network = UserNetwork(
        ItemTables((torch.zeros(items, 1),), means.all), ContextSizes("", (), 3), kinds, rng
    )
    columns = means.others if parted else [means.all] * len(means.others)
    fitting = UserFitting([network], table, table, FitSizes(epochs=1), rng, columns, means.fold)
    while not fitting.finished:
        fitting.epoch()
    with torch.no_grad():
        outputs, _ = network.of_sessions(new)
        return float(outputs.loss(new.signals).mean())


@pytest.mark.proof
def test_fit_does_not_see_an_answer_in_the_mean_of_its_item() -> None:
    """Seldom answers that are noise: what is learned of them must not cost more than a constant does."""
    rng, items = torch.Generator().manual_seed(0), 60

    def drawn(g: int) -> SessionTable:
        shown = torch.randint(items, (g, 3), generator=rng)
        return sessions(shown, (torch.rand(g, 3, generator=rng) < 0.05).float(), torch.arange(g))

    table, new = drawn(400), drawn(4000)
    share = float(new.signals.mean())
    assert math.isclose(share, 0.05, rel_tol=0.1)
    assert (
        fitted_loss(table, new, parted=True, items=items)
        < 1.1
        < fitted_loss(table, new, parted=False, items=items)
    )

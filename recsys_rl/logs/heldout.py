"""The held-out users of a log of decisions."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.data.catalogue import split_users
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.types import Population
from recsys_rl.utils.user_hashes import number_of


def heldout_rows(log: DecisionLog, population: Population, heldout_fraction: float, seed: int) -> Tensor:
    """(E,) bool: decisions for held-out users.

    They are those of the population, and of the users that it lacks those whose hash says so
    (``split_users``). Of data with text for ids, a log may know a user by the number of the text
    (``number_of``).
    """
    ids, of_heldout = population.user_ids, population.heldout
    if population.user_names:
        ids = torch.cat([ids, torch.tensor([number_of(name) for name in population.user_names])])
        of_heldout = torch.cat([of_heldout, of_heldout + len(population.user_names)])
    heldout = torch.isin(log.users, ids[of_heldout])
    strange = ~torch.isin(log.users, ids)
    heldout[strange] = heldout_strangers(log.users[strange], heldout_fraction, seed)
    return heldout


def heldout_strangers(users: Tensor, heldout_fraction: float, seed: int) -> Tensor:
    """(E,) bool: those of ``users`` (E,) int64 whose hash says that they are held out (``split_users``)."""
    others, user = users.unique(return_inverse=True)
    return torch.from_numpy(split_users(others.tolist(), heldout_fraction, seed))[user]

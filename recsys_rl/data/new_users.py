"""Users whom the training data lack: their vectors, from their events and the factors of the items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data import embeddings
from recsys_rl.data.catalogue import about_likes, about_profiles, threshold_of
from recsys_rl.data.embeddings import (
    Ints,
    confidence,
    first_likes,
    fold_in,
    is_earlier,
    item_factors,
    like_matrix,
    points_somewhere,
    user_vectors,
)
from recsys_rl.types import Catalogue, InteractionLog, Population, UserError


def new_users(
    catalogue: Catalogue, log: InteractionLog, like_threshold: float | None, profile_fraction: float
) -> Population:
    """The users of ``log`` as held-out users, with vectors folded in as those of the data are.

    The profile is made from the first ``profile_fraction`` of a user's likes, the taste from all of them
    (data/embeddings.py). Items are known by their ids; other items have no influence. Users with fewer than 5
    likes of known items are left out. ``source`` gives the numbers of events, likes, users and dropped
    events. If the log has weights, their mean is that of these users. Without factors (made-up data), the
    embeddings of the items take their place.

    Raises UserError if the catalogue has none of the items, or if no user is left.
    """
    everyone = np.zeros(len(log.user_ids), dtype=np.bool_)
    least = threshold_of(like_threshold, log, everyone)
    column = _rows(catalogue, log)
    lacking = column < 0
    if lacking.all():
        raise UserError(
            f"{log.source}: none of its {len(column):,} items is in the catalogue of the checkpoint: "
            "give the events of other people with the same items, by the same ids."
        )
    users, items = first_likes(log, least)
    trust = confidence(log, least, users, items, everyone)
    known = ~lacking[items]
    users, items, trust = users[known], column[items[known]], trust[known]
    shape = (len(everyone), catalogue.num_items)
    first = is_earlier(users, profile_fraction)
    factors, gram = item_factors(catalogue)
    taste = fold_in(like_matrix(users, items, shape, trust), factors, gram=gram)
    profile = fold_in(like_matrix(users[first], items[first], shape, trust[first]), factors, gram=gram)
    enough = np.bincount(users, minlength=shape[0]) >= embeddings.MIN_USER_LIKES
    chosen = np.flatnonzero(enough & points_somewhere(taste) & points_somewhere(profile))
    which = f"with at least {embeddings.MIN_USER_LIKES} likes of known items"
    if not len(chosen):
        raise UserError(
            f"{log.source}: none of its {shape[0]:,} users is {which}: give more of their events, or lower "
            "--like-threshold."
        )
    source = f"{log.source}: {about_likes(log, least)}; {len(chosen):,} of {shape[0]:,} users, those {which}"
    earlier = torch.from_numpy(np.bincount(users[first], minlength=shape[0])[chosen])
    source += f", with {about_profiles(earlier, log.timed)}"
    if lacking.any():
        events = int(torch.from_numpy(lacking)[log.items].sum())
        source += f"; {events:,} events of {int(lacking.sum()):,} unknown items are dropped"
    return Population(
        taste=user_vectors(catalogue, taste[chosen]),
        profile=user_vectors(catalogue, profile[chosen]),
        user_ids=log.user_ids[torch.from_numpy(chosen)],
        train=torch.zeros(0, dtype=torch.int64),
        heldout=torch.arange(len(chosen)),
        source=source,
        user_names=tuple(log.user_names[row] for row in chosen.tolist()) if log.user_names else (),
    )


def in_place_of_heldout(population: Population, new: Population) -> Population:
    """The training users of ``population``, and the users of ``new`` as held-out users.

    Ids are numbers if both have numbers, else texts. Attributes are those that both have. ``source`` is that
    of ``new``, with a warning about ids that both have.
    """
    rows = population.train
    again = shared_users(population, torch.arange(len(population.user_ids)), new, new.heldout)
    texts: tuple[str, ...] = ()
    if population.user_names or new.user_names:
        texts = (*_texts(population, rows), *_texts(new, new.heldout))
    warning = f" (warning: {again:,} of them have the id of a user of the training data)" if again else ""
    return Population(
        taste=torch.cat([population.taste[rows], new.taste]),
        profile=torch.cat([population.profile[rows], new.profile]),
        user_ids=torch.cat([population.user_ids[rows], new.user_ids]),
        train=torch.arange(len(rows)),
        heldout=torch.arange(len(new.user_ids)) + len(rows),
        source=new.source + warning,
        attributes={
            name: torch.cat([values[rows], new.attributes[name]])
            for name, values in population.attributes.items()
            if name in new.attributes
        },
        user_names=texts,
    )


def shared_users(one: Population, rows: Tensor, other: Population, other_rows: Tensor) -> int:
    """Number of users in these rows of ``one`` whose ids, as texts, are also in these rows of ``other``."""
    return len({*_texts(one, rows)} & {*_texts(other, other_rows)})


def _texts(population: Population, rows: Tensor) -> list[str]:
    return [str(population.id_of(row)) for row in rows.tolist()]


def _rows(catalogue: Catalogue, log: InteractionLog) -> Ints:
    """The row (I,) in the catalogue of each item of the log, -1 for an unknown one.

    Ids are compared as texts: a column of numbers and names in one file may be all numbers in another.
    """
    rows = {str(catalogue.id_of(row)): row for row in range(catalogue.num_items)}
    return np.array([rows.get(str(id_), -1) for id_ in log.item_names or log.item_ids.tolist()], np.int64)

"""Hashes of ids: they decide who is held out and the order of a user's items, and give names numeric ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def user_hashes(user_ids: Iterable[int | str], key: str) -> NDArray[np.float64]:
    """(U,) in [0, 1): the first 53 bits of the BLAKE2b hash of each id, as text, under this key."""
    keyed = hashlib.blake2b(digest_size=8, key=key.encode())
    hashes = []
    for user_id in user_ids:
        one = keyed.copy()
        one.update(str(user_id).encode())
        hashes.append(int.from_bytes(one.digest(), "big") >> 11)
    return np.array(hashes, dtype=np.float64) / 2**53


def number_of(name: str) -> int:
    """The 63-bit hash of a user id in text. It is the same on every machine; collisions are ignored."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def drawn_order(
    user_ids: Sequence[int | str], item_ids: Sequence[int | str], users: Rows, items: Rows
) -> Rows:
    """(E,) int64: numbers by which the items of each user have a random order, the same in any log.

    ``user_ids`` (U,) and ``item_ids`` (I,) are those of the source, ``users`` and ``items`` (E,) their rows.
    """
    hashes, other = (
        (user_hashes(ids, key) * 2**53).astype(np.uint64)[rows]
        for ids, key, rows in ((user_ids, "order of users", users), (item_ids, "order of items", items))
    )
    for word in (other, np.uint64(0)):  # mixed by the steps of splitmix64 (Steele et al. 2014)
        hashes = (hashes ^ word) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes ^= hashes >> np.uint64(31)
    return (hashes >> np.uint64(1)).astype(np.int64)

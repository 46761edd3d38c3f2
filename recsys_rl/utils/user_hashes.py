"""Numbers from a user's id alone, whoever else there is: one in [0, 1) for the side of a split, and an id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def user_hashes(user_ids: Iterable[int | str], key: str) -> NDArray[np.float64]:
    """(U,) in [0, 1): the first 53 bits of the BLAKE2b hash of each id, as text, under this key."""
    keyed = hashlib.blake2b(digest_size=8, key=key.encode())
    found = []
    for user_id in user_ids:
        one = keyed.copy()
        one.update(str(user_id).encode())
        found.append(int.from_bytes(one.digest(), "big") >> 11)
    return np.array(found, dtype=np.float64) / 2**53


def number_of(name: str) -> int:
    """A number of 63 bits for the id of a person in text: the same everywhere, and nobody else's."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1

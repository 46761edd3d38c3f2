"""64-bit hashes of the values of a log, which count distinct and repeated ones without holding the values.

Two of n values share a hash with a probability of about n^2 / 2^65 (1e-5 for 20 million).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def hashes_of(column: pl.Series) -> Hashes:
    """(n,) uint64, the same for equal values of all pieces (of ``read.plain_texts``)."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    return column.hash(seed=7).to_numpy()


def mixed(parts: Sequence[Hashes]) -> Hashes:
    """One hash (n,) of several, in their order."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = (total ^ part) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def sorted_counts(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """Distinct hashes and their counts. The array is sorted in place."""
    hashes.sort()
    starts = (
        np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        if len(hashes)
        else np.zeros(0, int)
    )
    return hashes[starts], np.diff(np.append(starts, len(hashes)))


def repeats(parts: Sequence[Hashes]) -> tuple[int, int]:
    """The number of rows whose hash an earlier row has, and the first of them, from 0; 0, 0 without any.

    ``parts``: the hashes of one piece of the rows after another.
    """
    ordered = np.concatenate(parts)
    ordered.sort()
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    return (len(again), _first_repeat(parts, np.unique(again))) if len(again) else (0, 0)


def _first_repeat(parts: Sequence[Hashes], repeated: Hashes) -> int:
    """The first row whose hash an earlier row has. ``repeated``: the hashes that occur twice, ascending."""
    seen, start = np.zeros(len(repeated), dtype=np.bool_), 0
    for part in parts:
        place = np.searchsorted(repeated, part).clip(max=len(repeated) - 1)
        for row in np.flatnonzero(repeated[place] == part):
            if seen[place[row]]:
                return start + int(row)
            seen[place[row]] = True
        start += len(part)
    raise AssertionError("a repeated hash is in two rows")

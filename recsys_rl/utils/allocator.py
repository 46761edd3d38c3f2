"""How freed memory is reused."""

from __future__ import annotations

import contextlib
import ctypes

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next allocation, where it would give it back to the system.

    Logits of 512 rows and 1,000 items take 2 MB and live for a millisecond. Given back each time, they come
    anew as 500 pages, each of which the system must find and clear: that took a third of an update. The
    process then keeps the most it ever needed. Does nothing where the allocator is another.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc accepts
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_TOP_PAD, 64 * 2**20)

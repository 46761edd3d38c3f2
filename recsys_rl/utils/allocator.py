"""Settings of the memory allocator."""

from __future__ import annotations

import contextlib
import ctypes

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory() -> None:
    """Set glibc to keep freed memory for the next allocation instead of returning it to the system.

    Logits of 512 rows and 1,000 items take 2 MB and live for a millisecond. If they are returned each time,
    the system must find and clear 500 pages for the next ones: that took a third of an update. With this
    setting the process keeps the most memory that it ever needed. No effect with other allocators.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc accepts
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_TOP_PAD, 64 * 2**20)


def share_arenas() -> None:
    """Set glibc to serve all threads from two arenas.

    Each arena reserves 64 MB of addresses, and polars starts a thread for each file that it reads: without
    this setting a loop over the parts of a log reserves 1 GB, of which it uses a fifth.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)

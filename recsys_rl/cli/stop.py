"""The end of a command that was stopped in the middle of its work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def stopping(*kinds: type[Exception], line: str = "") -> Iterator[None]:
    """Turn an exception of these kinds into KeyboardInterrupt, after its text or this ``line`` is printed."""
    try:
        yield
    except kinds as stop:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(line or stop, file=sys.stderr)
        raise KeyboardInterrupt from None

"""The one exception for mistakes that are the user's to mend; it needs no tensors, so `--help` stays fast."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave us: one sentence that says what, where, and how to mend it.

    The commands print it and exit with code 2; no traceback.
    """

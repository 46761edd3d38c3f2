"""The answers of a comparison of two policies: an estimate, the gate and a canary give these.

Apart from the estimates: a server imports it at its start.
"""

from __future__ import annotations

from typing import Final, Literal

CANT_TELL: Final = "can't tell"
BROKEN: Final = "the log is broken"
Answer = Literal["better", "worse", "can't tell", "the log is broken"]
EXIT_CODES: dict[str, int] = {"better": 0, "worse": 3, CANT_TELL: 4, BROKEN: 5}
"""Exit codes of `ope --verdict`; 2 is a mistake of the user."""

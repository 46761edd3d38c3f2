"""The walks of docs/05: the files that a command goes through, as a profiler sees them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from recsys_rl.cli import main
from tests.doors import ROOT

PACKAGE = str(ROOT / "recsys_rl") + "/"


def profiled(words: list[str], watch: Callable[[FrameType, str, Any], None]) -> None:
    """Run the command ``words`` under the profiler ``watch``."""
    sys.setprofile(watch)
    try:
        assert main(words) == 0
    finally:
        sys.setprofile(None)


def listed(heading: str) -> list[str]:
    """The files of the numbered list below ``heading`` in docs/05, in their order."""
    text = (ROOT / "docs/05_code_walkthrough.md").read_text(encoding="utf-8")
    section = text[text.index(heading) :].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.M)

"""Draw the page of a loop again from the numbers that `python -m examples.loop` left in its folder.

python -m examples.loop_page loop       # loop/loop.json -> loop/loop.html
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.loop_page.canaries import Band
from examples.loop_page.judged import Judged
from examples.loop_page.rounds import Rounds, Visited, write_rounds


def rounds_from(values: Mapping[str, Any]) -> Rounds:
    """The page's values; ``values`` are those of loop.json."""
    return Rounds(
        values["env"],
        [Visited(**row) for row in values["served"]],
        [Judged(**row) for row in values["judged"]],
        [Band(**row) for row in values["bands"]],
        *(values[name] for name in ("before", "after", "greedy", "facts")),
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_rounds(folder / "loop.html", rounds_from(json.loads((folder / "loop.json").read_text("utf-8"))))

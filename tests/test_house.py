"""Where things live: no file name stands in three rooms."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import recsys_rl


def test_no_file_name_stands_in_three_rooms() -> None:
    rooms: dict[str, list[str]] = defaultdict(list)
    package = Path(recsys_rl.__file__).parent
    for file in package.rglob("*.py"):
        if file.name != "__init__.py":
            rooms[file.name].append(str(file.relative_to(package).parent))
    crowded = {name: found for name, found in rooms.items() if len(found) > 2}
    assert not crowded

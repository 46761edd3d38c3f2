"""Where things live: no file name stands in three rooms, and no test writes into the checkout."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import recsys_rl
from recsys_rl.cli import main
from tests.doors import DRIFT, ROOT, steps


def test_no_file_name_stands_in_three_rooms() -> None:
    rooms: dict[str, list[str]] = defaultdict(list)
    package = Path(recsys_rl.__file__).parent
    for file in package.rglob("*.py"):
        if file.name != "__init__.py":
            rooms[file.name].append(str(file.relative_to(package).parent))
    crowded = {name: found for name, found in rooms.items() if len(found) > 2}
    assert not crowded


def test_a_command_of_a_test_leaves_the_checkout_as_it_was() -> None:
    before = written()
    assert main(["train", *DRIFT, *steps(1)]) == 0
    assert written() == before
    assert (Path.cwd() / "checkpoints" / "ppo.pt").is_file()


def written() -> list[tuple[str, Path]]:
    """What `train` writes where it is called, as it lies in the checkout: names and the files behind them."""
    return sorted(
        (path.name, path.resolve()) for name in ("runs", "checkpoints") for path in (ROOT / name).glob("*")
    )

"""`evaluate --jobs 2` of one table: its searches side by side, with the results of one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from recsys_rl.cli import main
from recsys_rl.evaluation.evaluate import evaluate
from tests.doors import SATIATION, steps, train_in
from tests.workers import counted_workers

T = TypeVar("T")
R = TypeVar("R")
ROWS = ["rule", "searched"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_in(tmp_path_factory.mktemp("searches") / "run", *SATIATION, *steps(20)))


def test_processes_find_what_one_process_finds(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = counted_workers(monkeypatch)
    found = []
    for name, words in (("one", []), ("two", ["--jobs", "2"])):
        out, cache = tmp_path / f"{name}.json", tmp_path / name
        words = [*words, "--no-planner", "--cache-dir", str(cache), "--json", str(out)]
        assert main(["evaluate", checkpoint, *words]) == 0
        found.append((out.read_bytes(), {path.name: path.read_bytes() for path in cache.iterdir()}))
    assert found[0] == found[1] and len(found[0][1]) == len(ROWS)
    assert len(begun) == 2
    assert json.loads(found[0][0])["notes"].keys() >= set(ROWS)


def test_only_what_the_cache_lacks_is_searched(checkpoint: str, tmp_path: Path) -> None:
    given: list[str] = []

    def engine(function: Callable[[T], R], rows: Iterable[T], /) -> Iterator[R]:
        for row in rows:
            given.append(str(row))
            yield function(row)

    def table() -> list[str]:
        given.clear()
        evaluate(checkpoint, planner=False, cache_dir=tmp_path, map_tasks=engine)
        return [*given]

    assert table() == ROWS
    assert table() == []
    (searched,) = tmp_path.glob("searched-*")
    kept = searched.read_bytes()
    searched.unlink()
    assert table() == ["searched"] and searched.read_bytes() == kept
    searched.write_bytes(b"broken")
    assert table() == [] and searched.read_bytes() == kept  # searched here, without the engine

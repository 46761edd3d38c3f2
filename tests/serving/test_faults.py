"""The quick faults of benchmarks/serving_faults.py. Servers that are killed are processes of their own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks import serving_draws
from benchmarks import serving_faults as faults
from benchmarks.harness import served
from benchmarks.harness.forked import Forked
from benchmarks.harness.said import checkpoint_in
from benchmarks.serving_abuse import mutated
from tests.serving.live import Live, live


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_in(tmp_path_factory.mktemp("faults"))


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "Server", Forked)
    monkeypatch.setattr(served, "Server", Forked)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are only stopped run in this process, which starts them faster."""

    def running(checkpoint: Path, db: Path, *options: str) -> AbstractContextManager[Live]:
        return live(checkpoint, db, **({"explore": float(options[1])} if options else {}))

    monkeypatch.setattr(faults, "running", running)
    monkeypatch.setattr(serving_draws, "running", running)


@pytest.mark.proof
def test_a_killed_server_loses_nothing_that_it_said(small: Path, tmp_path: Path) -> None:
    assert faults.kills(tmp_path, small, 2, 10) == []


def test_a_server_that_is_asked_to_stop_answers_what_it_has_taken(small: Path, tmp_path: Path) -> None:
    assert faults.terminated(tmp_path, small, 1) == []


def test_events_sent_three_times_count_once(in_process: None, small: Path, tmp_path: Path) -> None:
    assert faults.three_times(tmp_path, small, 60) == []


def test_damage_of_the_file_is_found(in_process: None, small: Path, tmp_path: Path) -> None:
    assert faults.damaged(tmp_path, small, 3, 2) == []


def test_a_server_whose_write_fails_ends_and_starts_again(
    in_process: None, small: Path, tmp_path: Path
) -> None:
    assert faults.io_error(tmp_path, small) == []


def test_a_server_whose_write_of_a_swap_fails_ends_and_serves_the_version_before(
    in_process: None, small: Path, tmp_path: Path
) -> None:
    assert faults.swap_error(tmp_path, small) == []


def test_draws_follow_the_propensities_that_are_logged(in_process: None, small: Path, tmp_path: Path) -> None:
    assert serving_draws.draws(tmp_path, small, 1200) == []


def test_mutated_bodies_are_refused_and_the_server_goes_on(small: Path, tmp_path: Path) -> None:
    assert mutated(tmp_path, small, 150) == []

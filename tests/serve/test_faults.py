"""The quick faults of benchmarks/serving_faults.py: servers in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serving_faults as faults
from benchmarks.harness.said import checkpoint_in
from benchmarks.harness.served import Server
from benchmarks.serving_abuse import by_schema, mutated
from benchmarks.serving_draws import draws


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_in(tmp_path_factory.mktemp("faults"))


def test_a_killed_server_loses_nothing_that_it_said(small: Path, tmp_path: Path) -> None:
    assert faults.kills(tmp_path, small, 2, 10) == []


def test_a_server_that_is_asked_to_stop_answers_what_it_has_taken(small: Path, tmp_path: Path) -> None:
    assert faults.terminated(tmp_path, small, 1) == []


def test_the_first_line_names_the_file_behind_a_link(small: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.pt"
    link.symlink_to(small)
    server = Server(link, tmp_path / "record.sqlite")
    try:
        assert f", policy {small.resolve()}, new record " in server.log.read_text()
    finally:
        server.kill()


def test_events_sent_three_times_count_once(small: Path, tmp_path: Path) -> None:
    assert faults.three_times(tmp_path, small, 60) == []


def test_damage_of_the_file_is_found(small: Path, tmp_path: Path) -> None:
    assert faults.damaged(tmp_path, small, 3, 2) == []


def test_a_server_whose_write_fails_ends_and_starts_again(small: Path, tmp_path: Path) -> None:
    assert faults.io_error(tmp_path, small) == []


def test_a_server_whose_write_of_a_swap_fails_ends_and_serves_the_version_before(
    small: Path, tmp_path: Path
) -> None:
    assert faults.swap_error(tmp_path, small) == []


def test_draws_follow_the_propensities_that_are_logged(small: Path, tmp_path: Path) -> None:
    assert draws(tmp_path, small, 1200) == []


def test_mutated_bodies_are_refused_and_the_server_goes_on(small: Path, tmp_path: Path) -> None:
    assert mutated(tmp_path, small, 150) == []


def test_without_schemathesis_one_sentence_says_how_to_get_it(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_schema(tmp_path, small, "no-such-program", 1) == []
    assert "pip install schemathesis" in capsys.readouterr().out

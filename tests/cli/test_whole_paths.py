"""The settings of a run name the files that it read so that they are found from any folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.evaluation.checkpoints import Entry, tables
from recsys_rl.settings.config import Config, read_toml, with_whole_paths
from tests.data.tables.test_read import RUN
from tests.data.test_new_items_and_data import write_log


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and a run whose options named the log as log.csv."""
    path = tmp_path_factory.mktemp("project")
    write_log(path / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert main(["train", "--data", "log.csv", "--cache-dir", "cache", *RUN, "--name", "first"]) == 0
    return path


def test_paths_of_files_become_absolute_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_whole_paths(Config(data="log.csv", items="../items.csv", cache_dir="/c", init_from="x.pt"))
    assert config.data_config.data == str(tmp_path / "log.csv")
    assert config.data_config.items == os.path.join(tmp_path, "..", "items.csv")
    assert (config.data_config.cache_dir, config.train_config.runs_dir) == ("/c", "runs")
    assert config.train_config.init_from == str(tmp_path / "x.pt")
    assert with_whole_paths(Config()) == Config()  # movielens is a name
    assert with_whole_paths(Config(env="gym:CartPole-v1")) == Config(env="gym:CartPole-v1")


def test_settings_of_a_run_work_from_another_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "runs/first/config.toml"
    data = read_toml(file.read_text())["data_config"]
    assert (data["data"], data["cache_dir"]) == (str(project / "log.csv"), str(project / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(file), "--seed", "1"]) == 0
    (there,) = Path("runs").glob("*/ppo.pt")
    assert there.parent.name.endswith("-log-ppo-1")
    # Both runs count as one setting on two seeds, though one was told log.csv and one the whole path.
    monkeypatch.chdir(project)
    paths = [Path("runs/first/ppo.pt"), tmp_path / there]
    assert len(tables([Entry(path, load(path)) for path in paths])) == 2


def test_moved_project_needs_only_the_new_path(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(project, moved)
    file = moved / "runs/first/config.toml"
    file.write_text(file.read_text().replace(str(project), str(tmp_path / "gone")))
    monkeypatch.chdir(moved)
    assert main(["train", "--config", str(file), "--name", "second"]) == 2
    assert str(tmp_path / "gone" / "log.csv") in capsys.readouterr().err
    words = ["--data", "log.csv", "--cache-dir", "cache", "--name", "second"]
    assert main(["train", "--config", str(file), *words]) == 0


def test_resumed_run_may_name_its_log_in_either_way(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for data in ("log.csv", str(project / "log.csv")):
        assert main(["train", "--run", "runs/first", "--data", data]) == 0
    assert main(["train", "--run", "runs/first", "--data", "other.csv"]) == 2

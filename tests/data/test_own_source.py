"""`--data module:SOURCE`: a source of one's own file is typed, and no file may name one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, from_dict, read_toml, to_dict
from recsys_rl.settings.names import source_of
from recsys_rl.settings.shared import DataConfig
from tests.doors import PPO
from tests.doors import SIZES as TINY

DATA = "own_source:SOURCE"
TEXT = """
from dataclasses import dataclass

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.settings.shared import DataConfig
from recsys_rl.records import Source
from recsys_rl.types import World


@dataclass(frozen=True)
class OwnConfig(DataConfig):
    people: int = 7


def make(config, sizes, seed):
    items, people = sizes.num_items, config.people
    return World(*synthetic_world(items, people, sizes.embedding_dim, config.heldout_fraction, seed))


SOURCE, NONE = Source(OwnConfig, make), 5
"""
SIZES = ["--num-items", "24", "--embedding-dim", "4", "--max-episode-steps", "5", "--people", "12"]
RUN = ["--data", DATA, *TINY, *SIZES, *PPO, "--total-timesteps", "48", "--eval-interval", "0"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file of a source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "own_source.py").write_text(TEXT)
    monkeypatch.delitem(sys.modules, "own_source", raising=False)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the module one that this program has not imported, and that ends it if it is."""
    monkeypatch.delitem(sys.modules, "own_source")
    Path("own_source.py").write_text("raise SystemExit('executed')")


def test_its_settings_are_options_and_its_people_play(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", *RUN, "--name", "a"]) == 0
    checkpoint = load("runs/a/ppo.pt")
    assert len(checkpoint.population.user_ids) == checkpoint.config.data_config.people == 12
    forget(monkeypatch)
    assert main(["evaluate", "runs/a/ppo.pt", "--no-planner"]) == 0  # the world lies in the checkpoint
    later = load("runs/a/ppo.pt").config.data_config
    assert type(later) is DataConfig and later.data == DATA
    Path("own_source.py").write_text(TEXT)
    assert main(["train", "--run", "runs/a", "--data", DATA]) == 0
    assert to_dict(load("runs/a/ppo.pt").config) == to_dict(checkpoint.config)


def test_no_file_imports_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", *RUN, "--name", "a"]) == 0
    forget(monkeypatch)
    assert main(["train", "--config", "runs/a/config.toml"]) == 2
    assert main(["train", "--run", "runs/a"]) == 2
    settings = read_toml(Path("runs/a/config.toml").read_text())
    settings["data_config"] = {"data": DATA}
    with pytest.raises(UserError):
        make_world(from_dict(Config, settings))
    assert "own_source" not in sys.modules


def test_a_name_in_python_is_typed(here: Path) -> None:
    config = Config(data=DATA, people=9, num_items=24, embedding_dim=4)
    assert len(make_world(config).population.user_ids) == 9


@pytest.mark.parametrize("data", ["own_source:NONE", "own_source:ABSENT", "absent:SOURCE", "own_source:"])
def test_name_of_the_wrong_form_is_refused(here: Path, data: str) -> None:
    with pytest.raises(UserError):
        source_of(data, typed=True)

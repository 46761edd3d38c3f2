"""The small checkpoint of a release, at a smaller size: the file, its card, and the commands of the card."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from examples import small_checkpoint
from recsys_rl import cli, load
from recsys_rl.cli.serve import serve_options
from recsys_rl.errors import UserError

SMALL: dict[str, Any] = {"num_items": 20, "num_users": 40, "embedding_dim": 4, "max_episode_steps": 3}
SMALL |= {"num_envs": 8, "n_steps": 8, "total_timesteps": 128, "batch_size": 32, "hidden_dims": (8,)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist") / "checkpoint"
    return small_checkpoint.make(folder, max_users=8, **SMALL)


def test_card_is_of_the_file_beside_it(made: Path) -> None:
    assert sorted(path.name for path in made.parent.iterdir()) == ["CARD.md", "ppo.pt"]
    card = made.with_name("CARD.md").read_text(encoding="utf-8")
    assert hashlib.sha256(made.read_bytes()).hexdigest() in card
    assert f"{made.stat().st_size:,} bytes" in card and "| seed | 0 |" in card
    checkpoint = load(made).checkpoint
    assert checkpoint.catalogue.source in card and checkpoint.catalogue.num_items == 20
    table = re.findall(r"^\| `([\w-]+)` \|.*\| (-?\d+\.\d\d) \|", card, re.MULTILINE)
    assert {name for name, _ in table} == set(small_checkpoint.ROWS)
    returns = [float(value) for _, value in table]
    assert returns == sorted(returns) and all(0 <= value <= 3 for value in returns)
    assert "Against `searched`, same users: " in card and "## What it is not for" in card
    assert not re.search(r"/tmp|\bnan\b", card)


def test_commands_of_the_card_work(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`recommend` and `evaluate` run; the options of `serve`, which would not end, are read."""
    card = made.with_name("CARD.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line, comments=True) for line in card.splitlines() if line.startswith("recsys-rl ")
    ]
    assert [words[1] for words in commands] == ["recommend", "evaluate", "serve"]
    recommend, evaluate, serve = (words[1:] for words in commands)
    with contextlib.chdir(made.parent):
        assert cli.main(recommend) == 0
    places = [line for line in capsys.readouterr().out.splitlines() if "(id " in line]
    assert len(places) == 5 and not any("item 7 " in line or "item 12 " in line for line in places)
    few = ["--max-users", "8", "--no-planner", "--cache-dir", str(made.parents[1] / "cache")]
    with contextlib.chdir(made.parent):
        assert cli.main([*evaluate, *few]) == 0
    rows = capsys.readouterr().out
    assert "ppo" in rows and "random" in rows
    assert serve_options(serve[1:]).checkpoint == "ppo.pt"


def test_a_folder_that_is_a_file_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError):
        small_checkpoint.make(tmp_path / "taken")

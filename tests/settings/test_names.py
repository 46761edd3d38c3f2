"""Records by name: each name finds its record, and only its file is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import recsys_rl
from recsys_rl.agents import AGENTS
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS, WITH_OWN_WORLD
from recsys_rl.errors import FieldError, UserError
from recsys_rl.records import Algorithm, Platform, Source
from recsys_rl.settings.fields import hints
from recsys_rl.settings.names import (
    algorithm_of,
    names_a_module,
    platform_of,
    source_key,
    source_of,
)
from recsys_rl.types import Interface
from recsys_rl.utils.find import find
from tests.doors import DRIFT, ROOT, steps, train_in

PACKAGE = Path(recsys_rl.__file__).parent
KINDS: list[tuple[dict[str, str], type[Any]]] = [
    (PLATFORMS, Platform),
    (AGENTS, Algorithm),
    (SOURCES, Source),
]


# A parent that has imported torch, and a fork for each program: only the first pays for that import.
PARENT = """
import json, os, sys
import torch
for name, program in json.load(sys.stdin).items():
    child = os.fork()
    if child == 0:
        out = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        exec(program, {"__name__": "__main__"})
        os.write(out, f"{name} {' '.join(sys.modules)}\\n".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def in_new_process(code: str, folder: Path, given: str = "") -> str:
    """What the Python ``code`` prints in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        input=given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def others(dict_: dict[str, str], key: str) -> set[str]:
    """The modules of the other records."""
    return {spec.partition(":")[0] for spec in dict_.values()} - {dict_[key].partition(":")[0]}


@pytest.mark.parametrize(
    ("dict_", "kind", "key"), [(dict_, kind, key) for dict_, kind in KINDS for key in dict_]
)
def test_entries_are_records(dict_: dict[str, str], kind: type[Any], key: str) -> None:
    assert type(find(dict_[key], "")) is kind


def test_names_of_platforms_algorithms_and_sources() -> None:
    assert platform_of("drift") is find("recsys_rl.env.drift:PLATFORM", "")
    assert platform_of("gym:CartPole-v1") is platform_of("gym:some.module:X-v0")
    assert algorithm_of("a2c") is find("recsys_rl.agents.a2c:ALGORITHM", "")
    assert source_of("ml-1m") is source_of("movielens") is not source_of("kuairec")
    assert source_key("there/Log.CSV.gz") == ".csv.gz" and source_key("items.npy") == ".npy"
    assert source_key(".csv") == ".csv" and source_key("csv") is None and source_key("movielens2") is None
    for name in ("drift:x", "gym:", "gym", "Drift", ""):
        with pytest.raises(FieldError):
            platform_of(name)
    with pytest.raises(FieldError):
        algorithm_of("sac")


def test_environment_names_with_a_module() -> None:
    assert [env for env in ("drift", "gym:X-v0", "gym:m:X-v0", "m:PLATFORM") if names_a_module(env)] == [
        "gym:m:X-v0",
        "m:PLATFORM",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        "no_such:PLATFORM",
        "recsys_rl.env.drift:PLATFORMS",
        "recsys_rl.env.drift:Drift",
        "recsys_rl.env.drift:",
        "a b:PLATFORM",
    ],
)
def test_module_without_a_platform(spec: str) -> None:
    with pytest.raises(UserError):
        platform_of(spec)


# ---- what is imported


def test_package_import_loads_no_heavy_modules() -> None:
    heavy = {"torch", "polars", "implicit", "scipy", "tyro", "rich"}
    assert not heavy & {*in_new_process("import recsys_rl, sys; print(*sys.modules)", ROOT).split()}


MADE_UP = [name for name in PLATFORMS if name not in WITH_OWN_WORLD and platform_of(name).file is None]
"""Platforms that need no file."""
PLAYED = """
import torch
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.make import make_agent, make_env, make_world
from recsys_rl.utils.seeding import generators
config = from_dict(Config, {{"env": "{env}", "data_config": {{"data": "synthetic"}}}})
world, streams = make_world(config), generators(0, "model", "users", "policy", "shuffle")
env = make_env(config, world, 4, streams["users"])
agent = make_agent(config, env.interface, world.catalogue, 1, streams, torch.device("cpu"))
assert env.step(agent.act(env.reset()).items).reward.shape == (4,)
"""
CHECKPOINT = """
import torch
from recsys_rl.checkpoint import load
from recsys_rl.make import make_agent, make_env
from recsys_rl.utils.seeding import generators
saved, streams = load("{path}"), generators(0, "model", "users", "policy", "shuffle")
env = make_env(saved.config, saved.world, 4, streams["users"])
agent = make_agent(saved.config, env.interface, saved.catalogue, 1, streams, torch.device("cpu"))
agent.load_state_dict(saved.agent)
assert agent.act(env.reset(), greedy=True).items.shape == (4, 1)
"""
COMMAND = """
from recsys_rl.cli import main
assert main(["train", "--data", "synthetic", "--total-timesteps", "1"]) == 0
"""
HELP = """
from recsys_rl.cli import main
try:
    main(["train", "--help"])
except SystemExit as end:
    assert not end.code
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The modules that a process has after each program; after that of a platform by its name."""
    folder = tmp_path_factory.mktemp("loaded")
    path = train_in(folder / "run", *DRIFT, *steps(1))
    programs = {env: PLAYED.format(env=env) for env in MADE_UP}
    programs |= {"checkpoint": CHECKPOINT.format(path=path), "command": COMMAND, "help": HELP}
    said = in_new_process(PARENT, folder, json.dumps(programs))
    return {name: {*modules.split()} for name, _, modules in (x.partition(" ") for x in said.splitlines())}


@pytest.mark.parametrize("env", MADE_UP)
def test_synthetic_world_and_agent_load_only_their_files(env: str, loaded: dict[str, set[str]]) -> None:
    strangers = others(PLATFORMS, env) | others(AGENTS, "ppo") | others(SOURCES, "synthetic")
    assert "recsys_rl.agents.ppo" in loaded[env]
    assert not loaded[env] & ({"polars", "implicit", "scipy.stats"} | strangers)


@pytest.mark.parametrize("program", ["checkpoint", "command"])
def test_checkpoint_and_command_load_only_their_files(program: str, loaded: dict[str, set[str]]) -> None:
    """The command is a training on made-up users, which reads no tables, in one process, without a group."""
    strangers = others(PLATFORMS, "drift") | others(AGENTS, "ppo") | others(SOURCES, "synthetic")
    strangers |= {"implicit"} if program == "checkpoint" else {"recsys_rl.distributed.group"}
    assert not loaded[program] & ({"polars", "scipy.stats"} | strangers)


def test_help_of_train_loads_no_matrix_factorisation(loaded: dict[str, set[str]]) -> None:
    assert not loaded["help"] & {"implicit", "scipy"}


# ---- where a platform is named


# "learned" is also a word, and its setting is named like the user models of all platforms.
@pytest.mark.parametrize("key", [key for key in PLATFORMS if key not in ("gym", "learned")])
def test_platform_names_are_in_three_places_only(key: str) -> None:
    own = PACKAGE / (PLATFORMS[key].partition(":")[0].removeprefix("recsys_rl.").replace(".", "/") + ".py")
    config = platform_of(key).config
    # Settings of several platforms, of which one may have another default, and fields of every session.
    shared = hints(config.__bases__[0]) | hints(Interface)
    settings = [name for name in config.__annotations__ if "_" in name and name not in shared]
    words = "|".join([key, rf"{key.title()}\w*", *settings])
    word = re.compile(rf"\b({words})\b")
    allowed = {own, PACKAGE / "env/__init__.py", *(PACKAGE / "cli").glob("*.py")}
    found = [path for path in PACKAGE.rglob("*.py") if path not in allowed and word.search(path.read_text())]
    assert found == []


def test_lookup_leaves_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the working folder are imported only if a person types their name."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    platform_of("drift"), algorithm_of("a2c"), source_of("synthetic")
    assert sys.path == before

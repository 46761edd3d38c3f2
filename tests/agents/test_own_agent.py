"""`--algo module:ALGORITHM`: an algorithm of one's own file is typed, and no file may name one."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.export import export_options
from recsys_rl.cli.serve import serve_options
from recsys_rl.errors import UserError
from recsys_rl.serving.options import ServeConfig
from recsys_rl.settings.config import Config, from_dict, read_toml
from recsys_rl.settings.names import algorithm_of
from recsys_rl.training.ranks import Ranks
from tests.doors import PPO, ROOT, SIZES, WORLD, assert_names, finish, home, start, steps
from tests.serving.servers import recommend, serving

ALGO = "steady:ALGORITHM"
RUN = ["--algo", ALGO, "--env", "satiation", *SIZES, *WORLD]
FILE = "checkpoints/steady-ALGORITHM.pt"
WITH_ALGO = ("train", "evaluate", "recommend", "export", "serve")
"""Commands with the option --algo, as the error of a checkpoint names them."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the example as steady.py."""
    (tmp_path / "steady.py").write_text((ROOT / "examples/new_agent.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("steady", None)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the module one that this program has not imported, and that ends it if it is."""
    monkeypatch.delitem(sys.modules, "steady")
    Path("steady.py").write_text("raise SystemExit('executed')")


@pytest.mark.proof
def test_own_algorithm_trains_and_is_evaluated_by_whole_commands(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training in a process of its own, as a user runs it."""
    code, _, err = finish(start(here, "train", *RUN, *steps(4), "--clip-advantage", "0.5"))
    assert code == 0, err
    folder = here / "runs/satiation-synthetic-steady-ALGORITHM-0"
    assert f"checkpoint: {(folder / 'steady-ALGORITHM.pt').relative_to(here)}" in err
    assert "clip_advantage = 0.5" in (folder / "config.toml").read_text()
    assert main(["evaluate", "--algo", ALGO, "--no-planner", "--json", "t.json", "--report", "r.html"]) == 0
    assert capsys.readouterr().out.startswith(f"satiation, {ALGO} after 96 steps; synthetic\n")
    rows = [row["policy"] for row in json.loads((here / "t.json").read_text())["rows"]]
    assert rows[:3] == [ALGO, f"{ALGO}-greedy", "untrained"]
    assert main(["recommend", "--algo", ALGO, "--user", "3", "--k", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["export", "--algo", ALGO, "--vectors", "v.npz"]) == 0


def test_own_algorithm_and_one_of_ours_share_a_table(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checkpoints are found by a pattern, and the earlier ones beside them are left out."""
    ours = ["--env", "satiation", *SIZES, *WORLD, *PPO]
    for name, argv in (("own", RUN), ("ours", ours)):
        assert main(["train", *argv, *steps(3), *home(here / f"runs/{name}"), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    files = [str(path) for path in sorted(Path("runs").glob("*/*.pt"))]
    assert [Path(file).name for file in files] == [
        *("ppo.prev.pt", "ppo.pt", "steady-ALGORITHM.prev.pt", "steady-ALGORITHM.pt")
    ]
    options = ["--no-planner", "--max-users", "4", "--json", "t.json"]
    assert main(["evaluate", "--algo", ALGO, *files, *options]) == 0
    rows = [row["policy"] for row in json.loads(Path("t.json").read_text())["rows"]]
    assert rows[:4] == ["ppo", "ppo-greedy", ALGO, f"{ALGO}-greedy"]
    left_out = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("left out"))
    assert_names(left_out, files[0], files[2])
    assert main(["evaluate", "--algo", "a2c", *files]) == 2  # none is of it
    assert_names(capsys.readouterr().err.splitlines()[-1], "a2c")
    forget(monkeypatch)
    assert main(["evaluate", *files]) == 2
    assert "steady" not in sys.modules


def test_own_algorithm_serves(here: Path) -> None:
    assert main(["train", *RUN, *steps(1)]) == 0
    with serving(here / FILE, here / "r.sqlite") as client:
        assert 0 < recommend(client, "3")["items"][0]["propensity"] < 1
    given = ["--algo", ALGO]
    assert serve_options(given).checkpoint == export_options(given).checkpoint == FILE


def test_settings_of_an_own_algorithm_reach_its_learner(here: Path) -> None:
    """At a limit near 0 the advantages are all but 0, and so is the loss of the policy."""
    for limit in ("3", "1e-6"):
        assert main(["train", *RUN, *steps(2), "--clip-advantage", limit, *home(here / f"runs/{limit}")]) == 0
    one, two = (load(f"runs/{limit}/steady-ALGORITHM.pt") for limit in ("3", "1e-6"))
    assert [x.config.agent_config.clip_advantage for x in (one, two)] == [3, 1e-6]
    assert any(not torch.equal(one.agent[name], two.agent[name]) for name in one.agent)
    config = Config(algo=ALGO, clip_advantage=0.5)
    assert config.algorithm is algorithm_of(ALGO) and config.agent_config.clip_advantage == 0.5


def test_run_of_an_own_algorithm_is_resumed_and_seeds_share_processes(here: Path) -> None:
    whole, half = home(here / "runs/whole"), home(here / "runs/half")
    assert main(["train", *RUN, *whole, *steps(6)]) == 0
    assert main(["train", *RUN, *half, *steps(6), "--seeds", "0-1", "--jobs", "2"]) == 0
    again = [load(f"runs/{name}/steady-ALGORITHM.pt").agent for name in ("whole", "half-0", "half-1")]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])
    assert any(not torch.equal(again[1][name], again[2][name]) for name in again[0])
    assert main(["train", "--resume", "--algo", ALGO]) == 0
    assert main(["train", "--run", "runs/whole", "--algo", ALGO]) == 0


def test_the_command_that_a_stopped_run_names_continues_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*RUN, *steps(3), *home(here / "runs/whole")]
    with monkeypatch.context() as stopped:
        stopped.setattr(Ranks, "stop_requests", lambda ranks: nullcontext([signal.SIGTERM]))
        assert main(["train", *argv]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert load("runs/whole/steady-ALGORITHM.pt").updates == 1
    command = shlex.split(said.partition("recsys-rl ")[2].removesuffix("."))
    assert main(command) == 0
    assert load("runs/whole/steady-ALGORITHM.pt").updates == 3


def test_algorithm_in_a_file_is_not_imported(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *RUN, *steps(1), *home(here / "runs/one")]) == 0
    settings = read_toml(Path("runs/one/config.toml").read_text())
    forget(monkeypatch)
    for argv in (
        ["evaluate", FILE],
        ["recommend", "--checkpoint", FILE, "--user", "3"],
        ["export", "--checkpoint", FILE, "--vectors", "v.npz"],
        ["serve", "--checkpoint", FILE, "--port", "0"],
        ["record", "--checkpoint", FILE, "--out", "log.parquet"],
        ["train", "--algo", "ppo", "--init-from", FILE],
        ["train", "--config", "runs/one/config.toml"],
        ["train", "--config", "runs/one/config.toml", "--algo", "ppo"],
    ):
        assert main(argv) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert_names(said, "module", f"--algo {ALGO}")
        if "--checkpoint" in argv or "--init-from" in argv:  # `record` has no --algo
            assert_names(said, "import that module first", *WITH_ALGO)
    assert main(["train", "--run", "runs/one"]) == 2
    assert_names(capsys.readouterr().err, "--run runs/one", "--algo")
    with pytest.raises(UserError):
        load(FILE)
    with pytest.raises(UserError):
        from_dict(Config, settings)
    assert "steady" not in sys.modules


@pytest.mark.parametrize(
    "algo", ["steady:SteadyConfig", "steady:ABSENT", "absent:ALGORITHM", "steady:", "a b:ALGORITHM"]
)
def test_name_of_the_wrong_form_is_refused(here: Path, algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate", "recommend", "export"):
        assert main([command, "--algo", algo]) == 2
        assert_names(capsys.readouterr().err, "--algo")
    with pytest.raises(UserError):
        ServeConfig(algo=algo)
    with pytest.raises(UserError):
        Config(algo=algo)


def test_checkpoint_of_another_algorithm_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *RUN, *steps(1)]) == 0
    for argv in (["evaluate", FILE], ["recommend", "--checkpoint", FILE, "--user", "3"]):
        assert main([*argv, "--algo", "a2c"]) == 2
        assert_names(capsys.readouterr().err.splitlines()[-1], ALGO, "a2c")
    assert main(["export", "--checkpoint", FILE, "--vectors", "v.npz", "--algo", "a2c"]) == 2
    assert not Path("v.npz").exists()

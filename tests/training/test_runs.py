"""Runs and their folders: each run has its own folder, and no run damages another."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from benchmarks import runs_survive
from benchmarks.harness.forked import CONTEXT, Fork
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.experience import on_policy
from recsys_rl.experience.rollout import collect
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training import folder as folders
from recsys_rl.training import learning_curve
from recsys_rl.training.train import Interrupted, train, updates
from recsys_rl.types import UserError
from recsys_rl.utils.logger import read_log
from tests.doors import A2C, DRIFT, PPO, ROOT, SIZES, assert_names, assert_same_weights, home, steps, train_in

FIRST = Path("runs/drift-synthetic-ppo-0")
LINK = Path("checkpoints/ppo.pt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*options: str) -> Config:
    return train_options([*DRIFT, *options]).config


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error in the last line of the command."""
    capsys.readouterr()
    assert main(argv) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and last.endswith(".")
    return last.removeprefix("error: ")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- folders and their names


def test_second_run_does_not_change_the_first(here: Path) -> None:
    """With the same command, another seed or the other algorithm; the link names the latest run."""
    assert main(["train", *DRIFT, *steps(4)]) == 0
    before = files(FIRST)
    assert set(before) == {f"{FIRST}/{name}" for name in ("config.toml", "log.csv", "ppo.pt", "ppo.prev.pt")}
    for options, folder in (
        ([*DRIFT, *steps(2)], "drift-synthetic-ppo-0-2"),
        ([*DRIFT, *steps(2)], "drift-synthetic-ppo-0-3"),
        ([*DRIFT, *steps(2), "--seed", "1"], "drift-synthetic-ppo-1"),
    ):
        assert main(["train", *options]) == 0
        assert LINK.is_symlink() and LINK.samefile(f"runs/{folder}/ppo.pt")
    assert main(["train", *A2C, *steps(2)]) == 0
    assert LINK.samefile("runs/drift-synthetic-ppo-1/ppo.pt")
    assert Path("checkpoints/a2c.pt").samefile("runs/drift-synthetic-a2c-0/a2c.pt")
    assert files(FIRST) == before
    assert {path.name for path in Path("checkpoints").iterdir()} == {"ppo.pt", "a2c.pt"}


@pytest.mark.parametrize(
    ("env", "data", "name"),
    [
        ("drift", "movielens", "drift-movielens-ppo-0"),
        ("satiation", "some/where/my plays.CSV.gz", "satiation-my-plays-ppo-0"),
        ("satiation", "plays.tsv", "satiation-plays-ppo-0"),
        ("satiation", "ml-100k/u.data", "satiation-u-ppo-0"),
        ("drift", "/a/../b/Été_2.parquet", "drift-Été_2-ppo-0"),
        ("drift", "..csv", "drift-data-ppo-0"),
        ("drift", "$(rm -rf x)\x1b[31m.csv", "drift-rm-rf-x-31m-ppo-0"),
        ("gym:CartPole-v1", "movielens", "gym-CartPole-v1-ppo-0"),
        ("gym:some.module:ALE/Pong-v5", "movielens", "gym-some.module-ALE-Pong-v5-ppo-0"),
    ],
)
def test_default_names_of_runs(env: str, data: str, name: str) -> None:
    data_config = {} if env.startswith("gym:") else {"data": data}
    config = from_dict(Config, {"env": env, "data_config": data_config})
    assert folders.default_name(config) == name


def test_given_name_and_runs_dir(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name can be used once: otherwise a script would read the earlier run's results as its own."""
    assert main(["train", *DRIFT, *steps(1), "--runs-dir", "some/where", "--name", "first"]) == 0
    assert LINK.samefile("some/where/first/ppo.pt")
    assert "name" not in Path("some/where/first/config.toml").read_text()
    before = files(here)
    said = sentence(["train", *DRIFT, *steps(1), "--runs-dir", "some/where", "--name", "first"], capsys)
    assert said.startswith("some/where/first exists")
    assert_names(said, "another name", "--run some/where/first.")
    assert files(here) == before


def test_run_that_fails_to_begin_leaves_no_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("no room")

    monkeypatch.setattr("recsys_rl.training.observers.save", full)
    with pytest.raises(UserError):
        train(settings(*steps(1)))
    assert [path for path in here.rglob("*") if path.is_file()] == [] and not FIRST.exists()


# ---- checkpoints/<algo>.pt


def test_file_in_the_place_of_the_link_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For example a checkpoint of an earlier version. Two such files get two names."""
    LINK.parent.mkdir()
    for number, content in (("", b"precious"), ("-2", b"more")):
        LINK.unlink(missing_ok=True)
        LINK.write_bytes(content)
        assert main(["train", *DRIFT, *steps(1)]) == 0
        kept = Path(f"checkpoints/ppo.kept{number}.pt")
        assert kept.read_bytes() == content and LINK.is_symlink()
        assert f"it is kept as {kept}" in capsys.readouterr().err


def test_link_that_cannot_be_made_is_reported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run continues and prints its folder."""
    LINK.mkdir(parents=True)
    (LINK / "precious").touch()
    assert main(["train", *DRIFT, *steps(1)]) == 0
    err = capsys.readouterr().err
    assert all(word in err for word in ("checkpoints/ppo.pt", "(Is a directory)", "use runs/"))
    assert f"\nrun: {FIRST}\n" in err and (LINK / "precious").exists() and load(FIRST / "ppo.pt").updates == 1
    assert [path.name for path in LINK.parent.iterdir()] == ["ppo.pt"]


def test_system_without_symbolic_links(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    LINK.parent.mkdir()
    LINK.write_bytes(b"precious")
    monkeypatch.setattr(os, "symlink", refuse)
    assert main(["train", *DRIFT, *steps(1)]) == 0
    said = f"(A required privilege is not held by the client): use {FIRST}/ppo.pt instead."
    assert said in capsys.readouterr().err
    assert LINK.read_bytes() == b"precious" and [path.name for path in LINK.parent.iterdir()] == ["ppo.pt"]


def test_resume_without_a_link(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DRIFT, *steps(1)]) == 0
    shutil.copy(FIRST / "ppo.pt", "copy.pt")
    LINK.unlink()
    assert_names(sentence(["train", "--resume"], capsys), "checkpoints/ppo.pt does not exist", "--run FOLDER")
    shutil.move("copy.pt", LINK)
    assert_names(sentence(["train", "--resume"], capsys), "checkpoints/ppo.pt is a file", "--run FOLDER")
    assert main(["train", "--run", str(FIRST)]) == 0  # the latest again, and the file is kept
    assert LINK.samefile(FIRST / "ppo.pt") and load("checkpoints/ppo.kept.pt").updates == 1
    shutil.rmtree("runs")
    target = "../runs/drift-synthetic-ppo-0/ppo.pt"
    assert_names(sentence(["train", "--resume"], capsys), "link", target, "gone", "--run FOLDER")
    assert_names(sentence(["evaluate"], capsys), "link", target, "gone", "train first")


def test_the_latest_run_is_the_one_whose_link_was_made_last(here: Path) -> None:
    for algo, options in (("ppo", DRIFT), ("a2c", A2C), ("ppo", DRIFT)):
        assert main(["train", *options, *steps(1)]) == 0
        assert EvaluateConfig().paths == (folders.latest_checkpoint(),) == (Path(f"checkpoints/{algo}.pt"),)
    train_in(Path("runs/apart"), *A2C, *steps(1))  # it moves no link
    assert folders.latest_checkpoint() == LINK and folders.latest_checkpoint("a2c").name == "a2c.pt"


def test_quiet_prints_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DRIFT, *steps(1), "--quiet"]) == 0
    assert main(["train", *DRIFT, *steps(1), "--quiet", "--seeds", "3,4"]) == 0
    assert len([*Path("runs").glob("*/ppo.pt")]) == 3
    result = evaluate(quiet=True, planner=False, max_users=4)
    assert capsys.readouterr() == ("", "")
    evaluate(planner=False, max_users=4)
    assert capsys.readouterr().out.startswith("drift, ppo after 24 steps")
    assert result["rows"][0]["policy"] == "ppo"


def test_resume_of_a_run_that_is_not_the_latest(here: Path) -> None:
    """Its log is cut at its checkpoint's step, and its end equals that of an uninterrupted run."""
    for name in ("one", "two"):
        for update in updates(settings(*steps(7)), folder=f"runs/{name}"):
            if update.run.updates == 4:
                break
    (here / "runs/one/log.csv").write_text((here / "runs/one/log.csv").read_text() + "120,9.0,loss,7.0\n")
    assert main(["train", "--run", "runs/one"]) == 0
    assert LINK.samefile("runs/one/ppo.pt") and load("runs/two/ppo.pt").updates == 4
    assert main(["train", *DRIFT, *steps(7)]) == 0
    assert_same_weights(FIRST / "ppo.pt", here / "runs/one/ppo.pt")
    one, whole = (
        [(step, name, value) for step, _, name, value in read_log(folder / "log.csv") if "second" not in name]
        for folder in (here / "runs/one", FIRST)
    )
    assert one == whole


@pytest.mark.proof
def test_run_of_another_process_is_locked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = updates(settings(*steps(9)), folder="runs/one")
    next(course)
    (log := here / "said").touch()
    other = Fork(["train", "--run", str(here / "runs/one")], log, os.environ, CONTEXT)
    assert other.wait(120) == 2 and "runs/one" in log.read_text().splitlines()[-1]
    course.close()
    assert main(["train", "--run", "runs/one"]) == 0
    assert load("runs/one/ppo.pt").updates == 9


# ---- several seeds


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,2,5", (0, 2, 5)),
        ("7", (7,)),
        ("0-2, 9,5", (0, 1, 2, 9, 5)),
        ("3,0,5-6", (3, 0, 5, 6)),
    ],
)
def test_seeds_option_is_parsed(words: str, seeds: tuple[int, ...]) -> None:
    job = train_options(["--seeds", words])
    assert job.seeds == seeds
    assert [config.train_config.seed for config in job.configs()] == list(seeds)


def test_each_seed_makes_a_run(here: Path) -> None:
    """Each run equals the run of a command with that seed."""
    assert main(["train", *DRIFT, *steps(3), "--seeds", "2,0"]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {
        "drift-synthetic-ppo-0",
        "drift-synthetic-ppo-2",
    }
    assert LINK.samefile(FIRST / "ppo.pt") and load(FIRST / "ppo.pt").config.train_config.seed == 0
    assert main(["train", *DRIFT, *steps(3), "--seed", "2"]) == 0
    two = here / "runs/drift-synthetic-ppo-2"
    assert_same_weights(two / "ppo.pt", two.with_name("drift-synthetic-ppo-2-2") / "ppo.pt")
    assert main(["train", *DRIFT, *steps(1), "--seeds", "3-4", "--name", "n"]) == 0
    assert Path("runs/n-3/ppo.pt").exists() and Path("runs/n-4/ppo.pt").exists()
    assert main(["train", *DRIFT, *steps(1), "--seeds", "2-3", "--name", "n"]) == 2  # n-3 is taken
    assert not Path("runs/n-2").exists()


def test_error_names_the_seeds_not_begun(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake: Any = types.ModuleType("recsys_rl.training.train")
    monkeypatch.setitem(sys.modules, "recsys_rl.training.train", fake)
    fake.Interrupted = Interrupted
    fake.train = raising(Interrupted("Stopped at step 8."))
    assert main(["train", "--seeds", "0-3"]) == 130
    assert capsys.readouterr().err == "Stopped at step 8.\nSeeds not started: 1, 2, 3\n"
    fake.train = raising(UserError("loss became nan."))
    assert main(["train", "--seeds", "0-3"]) == 2
    assert capsys.readouterr().err == "Seeds not started: 1, 2, 3\nerror: loss became nan.\n"


def raising(error: Exception) -> Callable[..., None]:
    def train(*_: object, **__: object) -> None:
        raise error

    return train


# ---- from Python


def test_updates_yields_each_update(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run as ``train``, without output and without files outside its folder."""
    seen = list(updates(settings(*steps(9)), folder="some/run"))
    assert [update.step for update in seen] == [24 * k for k in range(1, 10)]
    assert {"loss", "reward_mean", "approx_kl"} <= seen[0].metrics.keys()
    evaluated = [update.step for update in seen if "eval_return_mean" in update.metrics]
    assert evaluated == [96, 192, 216] and seen[0].folder == Path("some/run")
    assert list(here.iterdir()) == [here / "some"] and capsys.readouterr() == ("", "")
    path = train(settings(*steps(9)), folder="other", quiet=True)
    assert path == Path("other/ppo.pt") and capsys.readouterr() == ("", "")
    assert_same_weights(path, here / "some/run/ppo.pt")
    weights = seen[-1].agent.state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in load("some/run/ppo.pt").agent.items())
    with pytest.raises(UserError):
        train(settings(*steps(9)), folder="other")


def test_loop_that_ends_early_can_be_resumed(here: Path) -> None:
    config = settings(*steps(9), "--save-interval", "100")

    def plot() -> None:
        for update in updates(config, folder="pieces"):
            if update.run.updates == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plot()
    assert load("pieces/ppo.pt").updates == 2
    for update in updates(config, resume=True, folder="pieces"):
        if update.run.updates == 5:
            break
    assert load("pieces/ppo.pt").updates == 5
    assert train(config, resume=True, folder="pieces") == Path("pieces/ppo.pt")
    assert_same_weights(train(config, folder="whole"), here / "pieces/ppo.pt")


def test_signal_during_an_update_ends_the_loop_after_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Between two updates, Ctrl-C raises KeyboardInterrupt in the caller."""

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return collect(*arguments)

    # A test suite that runs in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    course = updates(settings(*steps(9)), folder="run")
    next(course)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(on_policy, "collect", interrupted)
    assert next(course).run.updates == 2
    with pytest.raises(
        Interrupted,
        match=r"^Stopped at step 48; run holds the run: continue it with recsys-rl train --run run",
    ):
        next(course)
    assert load("run/ppo.pt").updates == 2


def test_folder_and_name_together(here: Path) -> None:
    with pytest.raises(UserError):
        train(settings("--name", "x"), folder="y")


def test_package_import_is_light() -> None:
    program = "import sys, recsys_rl; sys.exit(bool({'torch', 'polars', 'tyro'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


def test_python_m_recsys_rl() -> None:
    command = [sys.executable, "-m", "recsys_rl", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and re.fullmatch(r"recsys-rl \d+\.\d+\.\d+\n", done.stdout)


# ---- environments without an end, errors before the work


class Endless(gymnasium.Env[Any, Any]):
    """An environment that never ends, with reward 1 in each step."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 1.0, False, False, {}


def test_gym_environment_without_a_version(here: Path) -> None:
    """Gymnasium uses the latest version, and its time limit ends the episodes of the evaluation."""
    with pytest.warns(UserWarning, match="Using the latest versioned environment"):
        assert main(["train", "--env", "gym:CartPole", *SIZES, *PPO, *steps(1)]) == 0
    assert [row[0] for row in load(LINK).info["curve"]] == [0, 24]


def test_evaluation_of_an_endless_environment_is_cut(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation is cut with one line on the console and a row in the log; the run continues."""
    gymnasium.register("RecsysTestEndless-v0", lambda **_: Endless())
    monkeypatch.setattr(learning_curve, "MAX_EVAL_STEPS", 20)
    try:
        assert main(["train", "--env", "gym:RecsysTestEndless-v0", *SIZES, *PPO, *steps(9)]) == 0
    finally:
        gymnasium.registry.pop("RecsysTestEndless-v0")
    err = capsys.readouterr().err
    said = "evaluation at step 0: 16 of 16 episodes had no end within 20 steps and were cut there"
    assert err.count("cut there") == 1 and said in err and "done: 216 steps" in err
    rows = read_log(Path("runs/gym-RecsysTestEndless-v0-ppo-0/log.csv"))
    assert [(step, value) for step, _, name, value in rows if name == "eval_cut"] == [
        (0, 16.0),
        (96, 16.0),
        (192, 16.0),
        (216, 16.0),
    ]
    assert {value for _, _, name, value in rows if name == "eval_return_mean"} == {20.0}


@pytest.mark.parametrize(
    ("options", "missing", "words"),
    [
        (["--tensorboard"], "torch.utils.tensorboard", "--tensorboard needs the package tensorboard"),
        (
            ["--candidates", "9", "--index", "ivf"],
            "faiss",
            "The ivf index needs faiss, which isn't",
        ),
        (["--candidates", "9", "--index", "hnsw"], "faiss", "The hnsw index needs faiss"),
        (["--candidates", "1001"], "", "--candidates is 1001: the catalogue has only 1000 available items"),
        (["--candidates", "9", "--explore-rate", "0.01"], "", "--explore-rate 0.01 of 9 candidates is less"),
        (
            ["--env", "satiation", "--candidates", "9"],
            "",
            "--candidates is 9, of which explore_rate 0.25",
        ),
        (["--name", "taken"], "", "runs/taken exists, and a run needs a new folder"),
    ],
)
def test_mistakes_are_found_before_data_are_read(
    options: list[str],
    missing: str,
    words: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr("recsys_rl.training.begin.make_world", read)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    Path("runs/taken").mkdir(parents=True)
    assert sentence(["train", *options], capsys).startswith(words)
    with pytest.raises(UserError):
        train(Config(), folder="runs/taken")
    assert list(here.iterdir()) == [here / "runs"] and list(Path("runs").iterdir()) == [Path("runs/taken")]


def test_settings_of_another_environment_are_reported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DRIFT, *steps(1), *home(Path("runs/one"))]) == 0
    capsys.readouterr()
    note = (
        "--config runs/one/config.toml is for ppo on drift: its settings replace the preset of ppo on "
        "satiation. These settings of --config runs/one/config.toml are left out, as this run does not have "
        "them: reward_decay, user_drift, history_length."
    )
    argv = ["--config", "runs/one/config.toml", "--env", "satiation"]
    assert train_options(argv).note == note and train_options(argv[:2]).note == ""
    assert main(["train", *argv]) == 0
    assert capsys.readouterr().err.splitlines()[0] == note


# ---- all at once


@pytest.mark.proof
def test_parallel_and_killed_runs_keep_their_folders(tmp_path: Path) -> None:
    """A small version of ``python -m benchmarks.runs_survive``, in a process that may fork."""
    program = (
        "from pathlib import Path; from benchmarks.runs_survive import survive; "
        "found = survive(Path('.'), pairs=1, kills=2, seed=1); print(found); "
        "raise SystemExit(bool(found.lost) or found.done < 5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs_survive.STEPS == 960


def test_run_that_is_stopped_from_the_callers_loop_is_saved(here: Path) -> None:
    for update in updates(settings(*steps(9), "--save-interval", "5"), folder="part"):
        update.run.stopped = update.run.updates == 3
    assert load("part/ppo.pt").updates == 3

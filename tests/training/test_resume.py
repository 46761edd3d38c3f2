"""A run that was cut off at any moment and resumed ends as the run that never was: bit for bit."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.agents import AGENTS
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.experience import on_policy
from recsys_rl.experience.replay import Replay
from recsys_rl.experience.rollout import collect
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.types import UserError
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.stopping import stop_signals
from tests.doors import (
    A2C,
    CARTPOLE,
    DQN,
    DRIFT,
    PATIENCE,
    SATIATION,
    SIZES,
    WORLD,
    assert_same_weights,
    finish,
    home,
    start,
    steps,
    train_in,
)
from tests.own_tables import decisions, table

LIVES = ["--env", "short-video", "--visits", "4", *DRIFT]
SLATES = ["--env", "long-video", "--suggestions", "3", *DRIFT]
READER = [*SATIATION, "--encoder", "transformer"]
LIMITS = [*SATIATION, "--limit", "tail_exposure<=0.3", "--limit", "engagement>=0.9", "--novelty", "0.5"]
RUNS = {
    "drift": DRIFT,
    "satiation": SATIATION,
    "gym": CARTPOLE,
    "a2c": A2C,
    "dqn": [*DQN, "--env", "satiation"],
    "lives": LIVES,
    "long-video": SLATES,
    "transformer": READER,
    "limits": LIMITS,
}
TABLE = [*SIZES[4:], "--batch-size", "8", "--gradient-steps", "3"]
"""The options of a run from a team's own table, with 24 decisions an update."""
LOGGED = [*SATIATION[:2], *WORLD, *TABLE]
"""The same of a run from a log of the platform."""


def log_of(folder: Path) -> list[tuple[int, str, float]]:
    """The log of the latest run, without the measured speed.

    A run that is killed before it has its link leaves a folder, too.
    """
    (link,) = folder.glob("checkpoints/*.pt")
    path = link.resolve().parent / "log.csv"
    return [(step, name, value) for step, _, name, value in read_log(path) if name != "steps_per_second"]


def algo_of(name: str) -> str:
    return name if name in AGENTS else "ppo"


def interrupted(play: Callable[..., Any]) -> Callable[..., Any]:
    """``play``, but somebody presses Ctrl-C in each fourth call."""
    calls = itertools.count(1)

    def played(*arguments: Any) -> Any:
        if next(calls) % 4 == 0:
            signal.raise_signal(signal.SIGINT)
        return play(*arguments)

    return played


@pytest.mark.parametrize("name", RUNS)
def test_interrupted_twice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an update, twice; weights, log, sessions, curve: all as if it never came."""
    algo = algo_of(name)
    checkpoints = []
    for folder in ("whole", "pieces"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        first = ["train", *RUNS[name], *steps(11)]
        if folder == "whole":
            assert main(first) == 0
        else:
            with monkeypatch.context() as patch:
                patch.setattr(on_policy, "collect", interrupted(collect))
                patch.setattr(Replay, "_play", interrupted(Replay._play))
                assert main(first) == 130
                assert main(["train", "--resume", *([] if algo == "ppo" else ["--algo", algo])]) == 130
            assert load(Path(f"checkpoints/{algo}.pt")).updates == 8
            assert main(["train", "--resume", "--algo", algo, "--save-interval", "1"]) == 0
        checkpoints.append(load(Path(f"checkpoints/{algo}.pt")))
    whole, pieces = checkpoints
    assert whole.step == pieces.step == 11 * 24
    assert_same_weights(tmp_path / f"whole/checkpoints/{algo}.pt", tmp_path / f"pieces/checkpoints/{algo}.pt")
    for part in ("env", "experience", "generators"):
        one, two = getattr(whole, part), getattr(pieces, part)
        assert {n: x.tolist() for n, x in one.items()} == {n: x.tolist() for n, x in two.items()}
    assert whole.info["curve"] == pieces.info["curve"] and len(whole.info["curve"]) == 4
    assert repr(log_of(tmp_path / "whole")) == repr(log_of(tmp_path / "pieces"))


# What can't be had quickly from processes that each import torch: a parent that has, and forks.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from recsys_rl.cli import main
import polars, recsys_rl.training.train

def live(path, command):
    rng, died_at = random.Random(0), set()
    resume = ["train", "--resume", "--algo", path.stem]
    saved = lambda: path.stat().st_mtime_ns if path.exists() else 0
    for number in range(6):
        before, pid = saved(), os.fork()
        if pid == 0:
            os._exit(main(resume if path.exists() else command))
        # In turn: at any moment, the start included; and soon after a checkpoint, so that the run gets on.
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while number % 2 and saved() == before and os.waitid(os.P_PID, pid, look) is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.015 if number % 2 else 0.3))
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
            died_at.add(saved())
    pid = os.fork()
    if pid == 0:
        os._exit(main(resume))
    assert os.waitpid(pid, 0)[1] == 0
    print(path.stem, len(died_at - {0}))

for name, (path, command) in json.loads(sys.argv[1]).items():
    os.mkdir(name)
    os.chdir(name)
    # A child that was forked after polars had read a file would wait for its threads.
    if "--log" not in command:
        main([*command, "--total-timesteps", "48", "--runs-dir", "../warm"])  # what is imported on the way
        Path(path).unlink()
    live(Path(path), command)
    os.chdir("..")
"""


@pytest.fixture(scope="module")
def log_of_decisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of PPO on the world of the other runs."""
    folder = tmp_path_factory.mktemp("log")
    checkpoint, log = train_in(folder / "run", *SATIATION, *steps(2)), folder / "log.parquet"
    record(RecordConfig(str(checkpoint), sessions=40, users="train", out=str(log), quiet=True))
    return log


# One run of each kind of experience, first that from a log. The others: see above, and for learners from a
# log tests/logs/experience/test_logged.py.
@pytest.mark.proof
def test_killed_at_random_moments(
    log_of_decisions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 six times, then to the end."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    monkeypatch.chdir(whole)
    logged = ["--algo", "iql", *LOGGED, "--log", str(log_of_decisions)]
    own = ["--algo", "reinforce", *TABLE, "--log", table(tmp_path / "clicks.csv", decisions(120))]
    runs = {"iql": logged, "reinforce": own, "gym": RUNS["gym"], "dqn": RUNS["dqn"]}
    commands = {
        name: (f"checkpoints/{algo_of(name)}.pt", ["train", *options, *steps(48)])
        for name, options in runs.items()
    }
    for name, (_, command) in commands.items():
        (whole / name).mkdir()
        monkeypatch.chdir(whole / name)
        assert main(command) == 0
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    code, out, err = finish(start(pieces, str(script), json.dumps(commands)))
    assert code == 0, err
    counts = [line for line in out.splitlines() if len(line.split()) == 2]  # the run on a table prints it
    for (name, (path, _)), said in zip(commands.items(), counts, strict=True):
        assert int(said.split()[1]) >= 2, "hardly any kill came between two checkpoints"
        assert_same_weights(whole / name / path, pieces / name / path)
        assert repr(log_of(whole / name)) == repr(log_of(pieces / name))


@pytest.mark.proof
def test_stop_signal(tmp_path: Path) -> None:
    """SIGTERM ends the process in its own time. SIGINT: see above. SIGHUP: see below."""
    process = start(tmp_path, "train", *DRIFT, *steps(100_000), "--save-interval", "100000")
    (log,) = wait_for(tmp_path, "runs/*/log.csv")
    size = log.stat().st_size
    while log.stat().st_size < size + 500:  # it is under way
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (130, "") and load(tmp_path / "checkpoints/ppo.pt").step > 0
    assert "--run runs/drift-synthetic-ppo-0" in err.splitlines()[-1] and "Traceback" not in err


# A terminal that is closed once the log has some lines; then the run's exit code, which was in its own time.
HANGUP = """
import os, pty, signal, sys, time
from pathlib import Path

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-m", "recsys_rl.cli", *sys.argv[1:]])
size = lambda: sum(path.stat().st_size for path in Path().rglob("log.csv"))
while size() < 2000:
    os.read(terminal, 4096)
os.close(terminal)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(f"ended by signal {-code}" if code < 0 else 0)
"""


def test_terminal_that_is_closed(tmp_path: Path) -> None:
    """The checkpoint is written, though nobody can read any more that it is."""
    script = tmp_path / "hangup.py"
    script.write_text(HANGUP)
    options = [*DRIFT, *steps(100_000), "--save-interval", "100000"]
    code, _, err = finish(start(tmp_path, str(script), "train", *options))
    assert code == 0, err
    assert load(tmp_path / "checkpoints/ppo.pt").step > 0


def test_hangup_under_nohup_is_ignored_and_a_second_one_is_no_second_request() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as requests:
            signal.raise_signal(signal.SIGHUP)
        assert requests == []
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_signals() as requests:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            assert requests[0] == signal.SIGHUP
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for(folder: Path, pattern: str) -> list[Path]:
    deadline = time.monotonic() + PATIENCE
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_resumed_finished_run_is_unchanged_and_says_how_to_train_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SATIATION, *steps(2)]) == 0
    before = Path("checkpoints/ppo.pt").read_bytes()
    capsys.readouterr()
    assert main(["train", "--resume"]) == 0
    assert Path("checkpoints/ppo.pt").read_bytes() == before
    folder = "runs/satiation-synthetic-ppo-0"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"{folder} is finished at step 48: nothing is left to train. To train longer, start a new run "
        f"from its weights: recsys-rl train --config {folder}/config.toml --init-from {folder}/ppo.pt "
        "--total-timesteps NUMBER"
    )
    assert main(["train", "--resume", "--total-timesteps", "96"]) == 2
    assert f"--init-from {folder}/ppo.pt " in capsys.readouterr().err
    assert main(["train", *SATIATION, *steps(2), "--name", "newer"]) == 0
    assert main(["train", "--run", folder]) == 0  # it trains nothing, so the link stays
    assert Path("checkpoints/ppo.pt").resolve() == Path("runs/newer/ppo.pt").resolve()
    command = last.partition("recsys-rl ")[2].replace("NUMBER", "96").split()
    assert main(command) == 0
    longer = load(Path("checkpoints/ppo.pt")).config
    assert (longer.env, longer.train_config.total_timesteps) == ("satiation", 96)


def test_module_of_a_finished_run_is_typed_to_train_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    env = "gym:gymnasium.envs.classic_control:CartPole-v1"
    assert main(["train", *CARTPOLE, *steps(1), "--env", env, *home(Path("my runs/pole"))]) == 0
    assert main(["train", "--resume", "--env", env]) == 0
    command = capsys.readouterr().err.splitlines()[-1].partition("recsys-rl ")[2]
    words = shlex.split(command.replace("NUMBER", "48"))
    assert "my runs/pole/ppo.pt" in words and words[-4:-2] == ["--env", env]
    assert main(words) == 0


# ---- whose settings a resumed run has


def test_settings_come_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SATIATION, *steps(1), *home(Path("here/one")), "--lr", "0.125"]) == 0
    job = train_options(["--resume"])
    assert job.folder == Path("here/one") and job.config == load(Path("here/one/ppo.pt")).config
    assert (job.config.env, job.config.agent_config.lr) == ("satiation", 0.125)

    Path("here").rename("there")
    Path("run.toml").write_text("[train_config]\nlog_interval = 7\n")
    job = train_options(["--config", "run.toml", "--run", "there/one", "--threads", "2"])
    settings = job.config.train_config
    assert job.folder == Path("there/one") and (settings.log_interval, settings.threads) == (7, 2)
    assert (settings.runs_dir, settings.name, job.config.agent_config.lr) == ("here", None, 0.125)


def test_resume_needs_a_typed_module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = "gym:gymnasium.envs.classic_control:CartPole-v1"
    assert main(["train", *CARTPOLE, *steps(1), "--env", env]) == 0
    with pytest.raises(
        UserError,
    ):
        train_options(["--resume"])
    assert train_options(["--resume", "--env", env]).config.env == env
    assert main(["train", "--resume", "--env", env]) == 0

"""`recsys-rl fit-users` and runs inside: whole commands, an interrupted fit, and mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.foreign.ids import make_rec_env
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.users.file import load_users
from recsys_rl.logs.users.fit import UserFitting
from recsys_rl.logs.users.from_log import of_learned
from recsys_rl.logs.writer import write_decisions
from recsys_rl.training.train import Update, train, updates
from recsys_rl.types import UserError
from tests.doors import DRIFT, PPO, SATIATION, SIZES, assert_same_weights, steps, train_in
from tests.learned_world import make_log

FIT = ["fit-users", "--members", "2", "--epochs", "2", "--quiet"]
INSIDE = ["train", "--env", "learned", "--user-model", "users.pt", *SIZES, *PPO]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of `satiation`, and a log of all its users."""
    return make_log(tmp_path_factory.mktemp("satiation"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
    return tmp_path


def fit(made: tuple[Path, Path], *options: str) -> int:
    checkpoint, log = made
    return main([*FIT, "--log", str(log), "--checkpoint", str(checkpoint), *options])


def test_users_are_learned_from_a_part_of_a_log_that_is_too_large(
    made: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, log = made
    half = read_decisions(log).num_rows // 2
    monkeypatch.setattr("recsys_rl.logs.users.fit_users.MOST_ROWS", half)
    told = [
        "fit-users",
        "--members",
        "1",
        "--epochs",
        "1",
        "--log",
        str(log),
        "--checkpoint",
        str(checkpoint),
    ]
    assert main(told) == 0
    note, fitted, *_ = capsys.readouterr().err.splitlines()
    said = re.fullmatch(r".*log\.parquet: a random (\d+) of its sessions, (\d+) of \d+ rows", note)
    assert said is not None
    number, rows = map(int, said.groups())
    assert 30 < number < 90 and rows <= half
    assert fitted.startswith("learning users from ")
    assert f"({number} sessions)" in load_users(Path("users.pt")).facts.log


def test_fit_train_resume_and_evaluate(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made, "--json", "report.json") == 0
    report = json.loads(Path("report.json").read_text())
    (engagement,) = report["signals"]
    assert engagement["name"] == "engagement" and not engagement["binary"]
    assert engagement["loss"].keys() == {"learned", "popularity", "additive", "truth"}
    assert report["leaving"]["loss"]["truth"] < 1e-5  # the simulator's users leave by their state alone
    assert 0.5 <= report["classifier_auc"] <= 1 and report["sessions"] > 10
    file = load_users("users.pt")
    assert file.facts.platform == "satiation" and not file.fitting and len(file.members) == 2

    assert main([*INSIDE, *steps(4), "--runs-dir", "whole", "--name", "one"]) == 0
    whole, world = load("whole/one/ppo.pt"), load(made[0]).world
    assert whole.interface == load(made[0]).interface  # so that it can play with the true users
    assert torch.equal(whole.catalogue.embedding, world.catalogue.embedding)
    assert torch.equal(whole.population.heldout, world.population.heldout)
    # A resumed run is as if it had never stopped.
    for update in updates_inside(*steps(4)):
        if update.run.updates == 2:
            break
    assert main(["train", "--run", "part"]) == 0
    assert_same_weights(Path("whole/one/ppo.pt"), Path("part/ppo.pt"))

    capsys.readouterr()
    assert main(["evaluate", "whole/one/ppo.pt", "--no-planner", "--json", "table.json"]) == 0
    rows = {row["policy"] for row in json.loads(Path("table.json").read_text())["rows"]}
    assert {"ppo", "untrained", "mf", "rule", "myopic"} <= rows

    # It is judged on the log of the users' platform, with that platform's reward.
    ask = ["--policy", "ppo", "--no-world", "--json", "ope.json"]
    assert main(["ope", "--log", str(made[1]), "--checkpoint", "whole/one/ppo.pt", *ask]) == 0
    assert json.loads(Path("ope.json").read_text())["rows"][0]["policy"] == "ppo"
    log = read_decisions(made[1])
    assert_close(of_learned(file.facts, log.header)(log.feedback), log.signals[:, 0, 0])
    assert_close(
        of_learned(file.facts, log.header, {"engagement": 3.0})(log.feedback), 3 * log.signals[:, 0, 0]
    )
    assert (
        main(["ope", "--log", str(made[1]), "--checkpoint", "whole/one/ppo.pt", "--weights", "spread=-1"])
        == 2
    )
    assert "names the stream spread, which does not exist" in capsys.readouterr().err


def updates_inside(*options: str) -> Iterator[Update]:
    """The updates of a run inside, in the folder ``part``."""
    return updates(train_options([*INSIDE[1:], *options]).config, folder="part")


def test_interrupted_fit_ends_with_the_same_bytes(
    made: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made, "--out", "whole.pt") == 0
    epoch, count = UserFitting.epoch, 0

    def stopped(self: UserFitting) -> float:
        nonlocal count
        count += 1
        if count in (1, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return epoch(self)

    monkeypatch.setattr(UserFitting, "epoch", stopped)
    assert fit(made, "--out", "part.pt") == 130
    said = capsys.readouterr().err
    assert "Stopped after epoch 1 of " in said and "--resume" in said
    assert main([*INSIDE[:4], "part.pt", *INSIDE[5:], *steps(1)]) == 2
    assert "fit was interrupted: finish it with recsys-rl fit-users --resume" in capsys.readouterr().err
    assert fit(made, "--out", "part.pt", "--resume", "--seed", "1") == 2
    assert "--seed was 0 at the start of this fit, and is 1 now" in capsys.readouterr().err
    assert fit(made, "--out", "part.pt", "--resume") == 130
    assert fit(made, "--out", "part.pt", "--resume") == 0
    assert Path("part.pt").read_bytes() == Path("whole.pt").read_bytes()
    assert fit(made, "--out", "part.pt", "--resume") == 2
    assert "is finished: leave --resume out" in capsys.readouterr().err


def test_python_call_takes_sizes_from_the_file(made: tuple[Path, Path], here: Path) -> None:
    assert fit(made) == 0
    path = train(
        env="learned",
        user_model="users.pt",
        folder="run",
        quiet=True,
        n_steps=6,
        num_envs=4,
        batch_size=12,
        total_timesteps=24,
    )
    config = load(path).config
    assert config.env_config.max_episode_steps == 5 and config.env_config.num_items == 24
    assert config.data_config.data == "synthetic"


def test_checkpoint_finds_its_users_from_another_folder(
    made: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(made) == 0
    assert main([*INSIDE, *steps(1), "--runs-dir", "runs", "--name", "one"]) == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["evaluate", "../runs/one/ppo.pt", "--no-planner", "--max-users", "2"]) == 0


def test_users_bring_their_items_and_sizes(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made) == 0
    for option, value in (("max-episode-steps", "9"), ("num-items", "20"), ("embedding-dim", "8")):
        assert main([*INSIDE, *steps(1), f"--{option}", value]) == 2
        said = capsys.readouterr().err
        assert f"--{option}" in said and "users.pt" in said
    assert main([*INSIDE, *steps(1), "--data", "ml-1m"]) == 2
    assert "--data" in capsys.readouterr().err
    with pytest.raises(UserError):
        make_rec_env("learned", 2, user_model="users.pt", max_episode_steps=9)


def test_log_of_another_catalogue(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train_in(Path("other"), *SATIATION, "--seed", "1", *steps(1))
    assert fit((other, made[1])) == 2
    assert "is a log of another catalogue than the checkpoint's" in capsys.readouterr().err


def test_users_of_one_catalogue_in_a_run_of_another(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made) == 0
    assert main([*INSIDE, *steps(2), "--runs-dir", "runs", "--name", "one"]) == 0
    other = make_log(Path("other"), *SATIATION, "--seed", "1")
    assert fit(other) == 0  # in the same place
    capsys.readouterr()
    assert main(["evaluate", "runs/one/ppo.pt", "--no-planner"]) == 2
    said = capsys.readouterr().err
    assert "users.pt holds users who were learned on another catalogue than that of this world" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--log", "none.parquet"], "none.parquet is not a"),
        (["--data", "synthetic"], "--data (--checkpoint has its items)"),
        (["--heldout-share", "1"], "--heldout-share"),
        (["--weights", "engagement"], "engagement is not of the form NAME=NUMBER"),
        (["--weights", "engagement=3"], "--weights (log.parquet is a log of a platform"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str], sentence: str, made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made, *options) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("error: ") and said.count("\n") == 1


def test_missing_files_and_names(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit-users"]) == 2
    assert "The log is missing: give --log" in capsys.readouterr().err
    assert main(["fit-users", "--log", str(made[1])]) == 2
    assert "The items are missing: give --checkpoint FILE, or --data SOURCE" in capsys.readouterr().err
    assert main(["train", "--env", "learned"]) == 2
    assert "learned needs its users: give --user-model FILE" in capsys.readouterr().err
    assert main(["train", "--env", "learned", "--user-model", str(made[0])]) == 2
    assert "holds no learned users: give a whole file of recsys-rl fit-users" in capsys.readouterr().err
    for more in (["--data", "synthetic"], ["--env", "drift", "--data", "synthetic"]):
        assert main(["fit-users", "--log", str(made[1]), *more]) == 2
        assert "another catalogue" in capsys.readouterr().err


def test_platform_whose_items_may_repeat(here: Path) -> None:
    assert fit(make_log(here, *DRIFT)) == 0
    assert load_users("users.pt").facts.interface.repeats
    assert main([*INSIDE, *steps(1)]) == 0


def test_log_that_people_made_needs_weights(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = read_decisions(made[1])
    own = dataclasses.replace(log, header=dataclasses.replace(log.header, platform=""))
    write_decisions(Path("own.parquet"), own)
    files = made[0], Path("own.parquet")
    assert fit(files) == 2
    assert "needs a weight: give --weights NAME=NUMBER for some of engagement, satisfaction" in (
        capsys.readouterr().err
    )
    assert fit(files, "--weights", "engagement=2") == 0
    assert [stream.weight for stream in load_users("users.pt").facts.streams] == [2.0, 0.0]


def test_signal_that_is_binary_in_one_part_of_the_log_only(made: tuple[Path, Path], here: Path) -> None:
    """Held-out users answer 0 and 3, all others 0 and 1."""
    log, (_, population) = read_decisions(made[1]), load(made[0]).world
    held = torch.isin(log.users, population.user_ids[population.heldout])
    clicks = (log.signals > 0.5).float() * torch.where(held, 3.0, 1.0).view(-1, 1, 1)
    header = dataclasses.replace(log.header, platform="")
    write_decisions(Path("own.parquet"), dataclasses.replace(log, header=header, signals=clicks))
    options = ("--weights", "engagement=1", "--json", "report.json")
    assert fit((made[0], Path("own.parquet")), *options) == 0
    assert not json.loads(Path("report.json").read_text())["signals"][0]["binary"]


def test_share_without_effect(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(made, "--heldout-share", "0.3") == 2
    said = capsys.readouterr().err
    assert "--heldout-share (only with --heldout time: log.parquet has users who are held out)" in said
    assert fit(made, "--heldout-share", "0.3", "--heldout", "time") == 0


def test_log_of_few_users(made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each error advises what then works."""
    log, (_, population) = read_decisions(made[1]), load(made[0]).world
    train = log.users[~torch.isin(log.users, population.user_ids[population.heldout])].unique()
    for number in (1, 2, 3):
        write_decisions(Path(f"{number}.parquet"), log.rows(torch.isin(log.users, train[:number])))
    one, two, three = ((made[0], Path(f"{number}.parquet")) for number in (1, 2, 3))
    assert fit(one) == 2
    assert (
        "too few users to hold out a share of 0.2: give sessions of more users.\n" in capsys.readouterr().err
    )
    assert fit(one, "--heldout", "time") == 2
    assert "leaves one user to learn from" in capsys.readouterr().err
    assert fit(two) == 2
    assert "give a log of three users or more, or --heldout time." in capsys.readouterr().err
    assert fit(two, "--heldout", "time") == 0
    assert fit(three, "--heldout-share", "0.9") == 2
    assert "give sessions of more users, or a smaller --heldout-share." in capsys.readouterr().err
    assert fit(three, "--heldout-share", "0.6") == 2
    assert "give a smaller --heldout-share, or a log of more users." in capsys.readouterr().err
    assert fit(three) == 0


def test_people_whom_the_simulator_does_not_know(made: tuple[Path, Path], here: Path) -> None:
    """They are split by the run's seed, and the report has no row of the simulator."""
    log = read_decisions(made[1])
    users = torch.where(log.users > 12, log.users + 1000, log.users)
    write_decisions(Path("other.parquet"), dataclasses.replace(log, users=users))
    assert fit((made[0], Path("other.parquet")), "--json", "report.json") == 0
    report = json.loads(Path("report.json").read_text())
    assert "truth" not in report["signals"][0]["loss"]
    assert load_users("users.pt").info["heldout_seed"] == 0


def test_outputs_replace_no_input(
    made: tuple[Path, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = made[0].read_bytes(), made[1].read_bytes()
    for path, option in zip(made, ("checkpoint", "log"), strict=True):
        assert fit(made, "--out", str(path)) == 2
        assert f"is also the file of --{option}: give another name" in capsys.readouterr().err
    assert fit(made, "--json", "users.pt") == 2
    assert "--json users.pt is also the file of --out: give another name" in capsys.readouterr().err
    assert before == (made[0].read_bytes(), made[1].read_bytes())


def test_platform_and_log_differ(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, log = make_log(here, *DRIFT)
    found = read_decisions(log)
    other = dataclasses.replace(found, header=dataclasses.replace(found.header, platform="satiation"))
    write_decisions(Path("other.parquet"), other)
    assert fit((checkpoint, Path("other.parquet"))) == 2
    assert "is a log of satiation, and" in capsys.readouterr().err

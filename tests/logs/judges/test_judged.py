"""Training in learned users that is judged on a log: curves, the best policy, the stop, and refusals."""

from __future__ import annotations

import csv
import dataclasses
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import load, save
from recsys_rl.checkpoint.home import config_of_split
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.logs.judges.judges import LogJudge
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.ope.part import heldout_of
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.logs.writer import write_decisions
from recsys_rl.make import agent_of
from recsys_rl.training.begin import begin
from recsys_rl.training.learning_curve import training_sessions
from recsys_rl.training.worlds import played_in
from tests.doors import PPO, SATIATION, SIZES, assert_same_weights, steps, train_in


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a log of all users with random items, and users learned from it."""
    folder = tmp_path_factory.mktemp("made")
    path = train_in(folder / "first", *SATIATION, *steps(2))
    of = RecordConfig(checkpoint=str(path), policy=("random",), sessions=200, out=str(folder / "all.parquet"))
    record(dataclasses.replace(of, users="all"))
    record(dataclasses.replace(of, users="train", out=str(folder / "train.parquet")))
    log, out = str(folder / "all.parquet"), str(folder / "users.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_fit, "LEAST_STEPS", 5)
        fit_users(log=log, checkpoint=str(path), out=out, members=2, epochs=1, quiet=True)
    return folder


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge's model need not be good here, and the whole fit takes half a minute."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 20)


def inside(made: Path, folder: Path, *options: str) -> Path:
    """A run in the learned users with the log ``all``."""
    own = ["--env", "learned", "--user-model", str(made / "users.pt"), *SIZES, *PPO]
    return train_in(folder, *own, "--judge-log", str(made / "all.parquet"), *options)


def rows(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The log of a run by the names of its numbers."""
    found = defaultdict(list)
    with path.with_name("log.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["name"]].append((int(row["step"]), float(row["value"])))
    return found


def test_curves_are_those_of_ope_and_of_the_world(made: Path, tmp_path: Path) -> None:
    options = ("--world", "satiation")
    path = inside(made, tmp_path / "run", *options, *steps(8))
    checkpoint = load(path)
    curves = checkpoint.info["curves"]
    assert list(curves) == ["log", "world"]
    assert [row[0] for row in curves["log"]] == [row[0] for row in curves["world"]] == [0, 96, 192]
    assert [row[0] for row in checkpoint.info["curve"]] == [0, 96, 192]
    found = rows(path)
    for name, curve in curves.items():
        for place, end in enumerate(("mean", "low", "high"), 1):
            assert found[f"{name}_return_{end}"] == [(row[0], row[place]) for row in curve]
    there = played_in(path, checkpoint, "satiation")
    sessions = training_sessions(there.config, there.world, agent_of(checkpoint), torch.device("cpu"))
    assert curves["world"][-1][1] == pytest.approx(float(sessions.returns.mean()))


def test_estimate_is_that_of_ope(made: Path, tmp_path: Path) -> None:
    """The policy in the log's platform, judged by `ope`."""
    held = str(tmp_path / "held.parquet")
    first = made / "first" / "ppo.pt"
    record(RecordConfig(checkpoint=str(first), policy=("random",), sessions=100, users="heldout", out=held))
    path = inside(made, tmp_path / "run", "--judge-log", held, *steps(2))
    save(tmp_path / "moved.pt", played_in(path, load(path), "satiation"))
    result = ope(OpeConfig(log=(held,), checkpoint=str(tmp_path / "moved.pt"), policy=("ppo-greedy",)))
    (row,) = [row for row in result.rows if row.estimator == "world"]
    value, low, high = load(path).info["curves"]["log"][-1][1:]
    assert load(path).info["judged_by"] == "world"
    # two fits of a model to 100 sessions differ
    assert low < value < high and abs(value - row.value) < row.high - row.low


def test_run_stops_when_the_estimate_stops_rising_and_keeps_the_best(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Estimates 1, 3, 2, 3 with patience 2: the run ends after the fourth, and best.pt is of the second."""
    answers = iter([1.0, 3.0, 2.0, 3.0, 9.0])

    def judge(self: LogJudge, run: object) -> tuple[float, float, float]:
        value = next(answers)
        return value, value - 1, value + 1

    monkeypatch.setattr(LogJudge, "judge", judge)
    monkeypatch.setattr("recsys_rl.logs.judges.judges.JUDGE_PATIENCE", 2)
    path = inside(made, tmp_path / "run", *steps(40))
    checkpoint, best = load(path), load(path.with_name("best.pt"))
    assert checkpoint.step == 3 * 96 and best.step == 96
    assert [row[1] for row in checkpoint.info["curves"]["log"]] == [1, 3, 2, 3]
    # Finished: a resumed run trains no further.
    assert main(["train", "--run", str(path.parent)]) == 0
    assert load(path).step == 3 * 96
    said = capsys.readouterr().err
    assert "stopped, as the estimate on the log has not risen since step 96; " in said
    assert "judging each evaluation on " in said and " held-out users of " in said
    assert "best.pt has the policy of step 96, with the highest estimate by world, 3.00 (" in said
    assert "the highest of 4 estimates, so too high on average; the held-out users that chose it are" in said


@pytest.mark.proof
def test_resumed_run_is_judged_as_if_it_had_never_stopped(made: Path, tmp_path: Path) -> None:
    whole = inside(made, tmp_path / "whole", *steps(8))
    part = inside(made, tmp_path / "part", *steps(8))
    earlier = part.with_name("ppo.prev.pt")
    assert load(earlier).step < load(part).step
    earlier.replace(part)
    assert main(["train", "--run", str(part.parent)]) == 0
    assert_same_weights(whole, part)
    assert load(whole).info["curves"] == load(part).info["curves"]


def test_people_who_were_learned_from_do_not_judge(made: Path, tmp_path: Path) -> None:
    """Of people whom the population lacks, the seed of the fit says who is held out, whatever the run's."""
    log = read_decisions(made / "all.parquet")
    path, users = (str(tmp_path / name) for name in ("other.parquet", "users.pt"))
    write_decisions(Path(path), dataclasses.replace(log, users=log.users + 1000))
    checkpoint = str(made / "first" / "ppo.pt")
    fit_users(log=path, checkpoint=checkpoint, out=users, members=1, epochs=1, quiet=True)
    own = ["--env", "learned", "--user-model", users, *SIZES, *PPO, *steps(1)]
    judged = []
    for seed in ("0", "1"):
        run = begin(
            train_options([*own, "--judge-log", path, "--seed", seed]).config, None, torch.device("cpu")
        )
        judged.append(LogJudge(path, run).log.log.users.unique())
        policy: Any = SimpleNamespace(config=run.config, info=run.info, population=run.world.population)
        other = read_decisions(path)
        judged.append(other.users[heldout_of(other, policy)].unique())  # as the gate and ope have them
        assert config_of_split(policy).train_config.seed == 0
    assert all(torch.equal(judged[0], users) for users in judged)


def test_log_without_propensities(made: Path, tmp_path: Path) -> None:
    """`world` needs none and answers the same."""
    log, bare = read_decisions(made / "all.parquet"), str(tmp_path / "bare.parquet")
    unknown = torch.full_like(log.logprobs, torch.nan)
    write_decisions(Path(bare), dataclasses.replace(log, logprobs=unknown, logger_logprobs=None))
    own = ["--env", "learned", "--user-model", str(made / "users.pt"), *SIZES, *PPO, *steps(1)]
    run = begin(train_options([*own, "--judge-log", bare]).config, None, torch.device("cpu"))
    judge, known = LogJudge(bare, run), LogJudge(str(made / "all.parquet"), run)
    assert judge.judge(run) == pytest.approx(known.judge(run), rel=1e-4)


def test_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = ["--user-model", str(made / "users.pt"), *SIZES, *PPO, *steps(1)]
    log = str(made / "all.parquet")
    cases = [
        (["--env", "learned", *users, "--judge-log", str(made / "train.parquet")], "holds no decisions of"),
        ([*SATIATION, *steps(1), "--judge-log", log], "--judge-log"),
        (["--env", "learned", *users, "--judge-log", log, "--eval-interval", "0"], "--judge-log"),
        (
            ["--env", "learned", *users, "--world", "drift"],
            "--world drift has another interface than learned",
        ),
        (["--env", "learned", *users, "--world", "gym:CartPole-v1"], "brings its own world, without items"),
    ]
    staged = read_decisions(made / "all.parquet")
    header = dataclasses.replace(staged.header, candidates="9 candidates of a first stage")
    write_decisions(tmp_path / "staged.parquet", dataclasses.replace(staged, header=header))
    lacking = ["--env", "learned", *users, "--judge-log", str(tmp_path / "staged.parquet")]
    cases.append((lacking, "as no world model predicts the candidates of a first stage: give another log"))
    for place, (options, sentence) in enumerate(cases):
        folder = tmp_path / f"run-{place}"
        assert main(["train", *options, "--runs-dir", str(tmp_path), "--name", folder.name]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and sentence in said, said
        assert not folder.exists()

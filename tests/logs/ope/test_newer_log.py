"""`ope` of a policy of a team's own log on a newer one: later sessions are judged for all users."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load, save
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.source import heldout_strangers
from recsys_rl.training.train import train
from recsys_rl.types import UserError
from recsys_rl.utils.user_hashes import number_of
from tests.own_tables import decisions, table

START, LENGTH = 1_700_000_000, 600  # seconds; a decision each second
SHORT: dict[str, Any] = {"batch_size": 32, "gradient_steps": 4, "hidden_dims": (8,), "threads": 1}


def timed(rows: int, start: int, seed: int = 0) -> pl.DataFrame:
    return decisions(rows, seed, users=80).with_columns(time=pl.int_range(start, start + rows))


def of_heldout(frame: pl.DataFrame) -> list[bool]:
    users = torch.tensor([number_of(name) for name in frame["user"]])
    found: list[bool] = heldout_strangers(users, 0.2, 0).tolist()
    return found


def learn(folder: Path, log: str, **settings: Any) -> Path:
    given: dict[str, Any] = {"algo": "reinforce", "log": (log,), "total_timesteps": 256, **SHORT}
    return train(**given, **settings, folder=folder, quiet=True)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of LENGTH decisions from START on."""
    folder = tmp_path_factory.mktemp("newer")
    return learn(folder / "run", table(folder / "log.csv", timed(LENGTH, START)))


def judged(log: str, checkpoint: Path, **options: Any) -> int:
    """The number of decisions that are judged on."""
    options = {"policy": ("random",), "world": False, **options}
    return ope(OpeConfig(log=(log,), checkpoint=str(checkpoint), **options)).about.decisions


def without_end(path: Path, to: Path) -> Path:
    """The checkpoint as an earlier version wrote it."""
    found = load(path)
    info = {name: value for name, value in found.info.items() if name != "log_end"}
    save(to, dataclasses.replace(found, info=info))
    return to


def test_the_checkpoint_knows_the_last_time_of_its_training_side(policy: Path) -> None:
    frame = timed(LENGTH, START)
    last = max(time for time, held in zip(frame["time"], of_heldout(frame), strict=True) if not held)
    assert load(policy).info["log_end"] == last * 1_000_000


def test_later_decisions_are_those_of_all_users(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = timed(400, START + LENGTH, seed=1)
    held = sum(of_heldout(newer))
    assert 0 < held < 200
    log = table(tmp_path / "newer.csv", newer)
    assert judged(log, policy) == 400
    assert "--users heldout" in capsys.readouterr().err
    assert judged(log, policy, users="heldout") == held
    assert "--users heldout" not in capsys.readouterr().err
    assert judged(log, without_end(policy, tmp_path / "old.pt")) == held
    assert judged(table(tmp_path / "bare.csv", newer.drop("time")), policy) == held


def test_decisions_that_since_leaves_out_are_named_so(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy learned from none of this log: the first half of it is left out by --since alone."""
    log = table(tmp_path / "newer.csv", timed(400, START + LENGTH, seed=1))
    assert judged(log, policy, since=str(START + LENGTH + 200)) == 200
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("judging on")]
    assert f"the other 200, of sessions before {START + LENGTH + 200} or from which" in line


def test_a_log_that_goes_on(policy: Path, tmp_path: Path) -> None:
    """The rows of the training are left out but for held-out users; numbers that are no dates are unclear."""
    both = pl.concat([timed(LENGTH, START), timed(400, START + LENGTH, seed=1)])
    held = of_heldout(both)
    assert judged(table(tmp_path / "both.csv", both), policy) == sum(held[:LENGTH]) + 400
    days = both.with_columns(pl.col("time") - START + 1)
    assert judged(table(tmp_path / "days.csv", days), policy) == sum(held)


def test_a_session_that_the_training_saw_is_not_later(tmp_path: Path) -> None:
    """100 sessions of two steps, 300 s apart, begin a second after each other; the training has 50."""
    frame = decisions(200, users=60)
    session = pl.int_range(pl.len()) // 2
    frame = frame.with_columns(
        session=session,
        user=pl.col("user").first().over(session),
        time=START + session + 300 * (pl.int_range(pl.len()) % 2),
    )
    early = frame.filter(pl.col("session") < 50)
    policy = learn(tmp_path / "run", table(tmp_path / "log.csv", early))
    assert START + 330 < load(policy).info["log_end"] / 1e6 < START + 350
    every = table(tmp_path / "all.csv", frame)
    assert judged(every, policy) == sum(of_heldout(frame))
    shifted = frame.with_columns(pl.col("time") + 350)
    assert judged(table(tmp_path / "later.csv", shifted), policy) == 200


def test_a_policy_that_began_with_another_one_has_learned_until_the_later_end(
    policy: Path, tmp_path: Path
) -> None:
    log = table(tmp_path / "earlier.csv", timed(300, START - 5_000, seed=2))
    given: dict[str, Any] = {"checkpoint": str(policy), "init_from": str(policy)}
    assert load(learn(tmp_path / "warm", log, **given)).info["log_end"] == load(policy).info["log_end"]
    old = without_end(policy, tmp_path / "old.pt")
    given = {"checkpoint": str(old), "init_from": str(old)}
    assert "log_end" not in load(learn(tmp_path / "unknown", log, **given)).info


def test_of_several_policies_the_later_end_counts(policy: Path, tmp_path: Path) -> None:
    newer = table(tmp_path / "newer.csv", timed(400, START + LENGTH, seed=1))
    second = learn(tmp_path / "second", newer, checkpoint=str(policy))
    third = timed(100, START + LENGTH + 400, seed=3)
    options: dict[str, Any] = {"policy": (str(second),)}
    assert judged(table(tmp_path / "third.csv", third), policy, **options) == 100
    assert judged(newer, policy, **options) == sum(of_heldout(timed(400, START + LENGTH, seed=1)))


def test_an_altered_end_is_refused(policy: Path, tmp_path: Path) -> None:
    found = load(policy)
    save(tmp_path / "x.pt", dataclasses.replace(found, info={**found.info, "log_end": "soon"}))
    with pytest.raises(UserError, match="last time"):
        load(tmp_path / "x.pt")

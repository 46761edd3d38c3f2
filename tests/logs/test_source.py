"""The door to logs: each kind of log by its paths, the side of its users, its rewards, and its contexts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.checkpoint.home import split_of
from recsys_rl.errors import FieldError, UserError
from recsys_rl.logs import open_log
from recsys_rl.logs.decision_log import concatenate
from recsys_rl.logs.source import LogSource, RecordedLog, TableLog, heldout_rows
from recsys_rl.logs.writer import write_decisions
from tests.logs.two_steps import two_steps
from tests.own_logs import clicks, policy, sessions, write_csv

ROWS = 10**6


def read(source: LogSource) -> torch.Tensor:
    return concatenate([*source.parts(ROWS)]).given["city"]


def test_many_texts_of_a_context_are_the_same_for_a_judge_and_a_learner(tmp_path: Path) -> None:
    """Of 51 texts the rarest is *other*, whether the table is read for its own sake or by a policy of it."""
    cities = [f"c{row % 50:02}" for row in range(499)]
    cities.insert(7, "rare")
    rows = [[f"u{row % 40}", "ab"[row % 2], int(row % 3 == 0), 0.5, city] for row, city in enumerate(cities)]
    header = ["user", "item", "clicked", "propensity", "context.city"]
    log = write_csv(tmp_path / "log.csv", header, rows)
    made = load(policy(tmp_path / "bc.pt", log))
    of_judge, of_policy = read(open_log((str(log),))), read(open_log((str(log),), made))
    assert of_judge.shape == of_policy.shape == (500, 51)
    assert torch.equal(of_judge, of_policy)
    assert of_judge[7].argmax() == 50 and of_judge[:, 50].sum() == 1


def test_each_kind_of_log_has_parts_and_sides(tmp_path: Path) -> None:
    recorded = tmp_path / "log.parquet"
    write_decisions(recorded, two_steps(8, 5, logprobs=torch.full((8,), -1.0).double()))
    assert isinstance(open_log((str(recorded),)), RecordedLog)
    table = clicks(tmp_path / "clicks.csv")
    alone = open_log((str(table),))
    assert isinstance(alone, TableLog) and alone.table is not None and alone.num_rows == 120
    made = load(policy(tmp_path / "bc.pt", table))
    by_policy = open_log((str(table),), made)
    assert by_policy.num_rows == 120 and by_policy.unit == "user" and not by_policy.has_times
    log = concatenate([*by_policy.parts(ROWS)])
    held = heldout_rows(log, made.population, *split_of(made))
    assert torch.equal(by_policy.heldout(log), held) and 0 < int(held.sum()) < 120
    parts = concatenate([*by_policy.heldout_parts(50)])
    assert torch.equal(parts.users, log.users[held])
    again = open_log((str(table),), made).fingerprint()
    assert by_policy.fingerprint() == again != open_log((str(clicks(table, seed=1)),), made).fingerprint()


def test_rewards_by_weights(tmp_path: Path) -> None:
    log = sessions(tmp_path / "log.csv")
    source = open_log((str(log),))
    (part,) = source.parts(ROWS)
    clicked, dwell = part.signals[:, 0].unbind(1)
    torch.testing.assert_close(source.rewards(["clicked=2", "dwell=1"])(part.feedback), 2 * clicked + dwell)
    with pytest.raises(UserError, match="--weights clicked=1"):
        source.rewards()
    with pytest.raises(FieldError, match="watch"):
        source.rewards(["watch=1"])


def test_a_table_of_ones_own_is_no_log_of_a_simulator(tmp_path: Path) -> None:
    from tests.doors import PPO, SIZES, WORLD, steps, train_in

    path = train_in(tmp_path / "run", "--env", "satiation", *SIZES, *WORLD, *PPO, *steps(1))
    with pytest.raises(UserError, match="is a table of your own"):
        open_log((str(clicks(tmp_path / "clicks.csv")),), load(path))

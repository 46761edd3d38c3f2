"""Importance weights of a learner: the balance heuristic over the loggers of a log, by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.experience.dealt import Decisions
from recsys_rl.logs.experience.log_facts import behaviour_logprobs, facts_of
from recsys_rl.logs.experience.logged import make_logged
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config
from tests.logs.test_own_log import opened, read
from tests.own_tables import decisions, table


def two_loggers(folder: Path, rows: int = 4) -> tuple[str, DecisionLog]:
    """A log of which `old` made three rows in four, with the probability of each row under both."""
    old = [0.5, 0.2, 0.1, 0.4] * (rows // 4)
    new = [0.1, 0.6, 0.1, 0.8] * (rows // 4)
    policies = ["old", "old", "new", "old"] * (rows // 4)
    frame = decisions(rows).drop("propensity")
    frame = frame.with_columns(
        policy=pl.Series(policies), **{"propensity.old": pl.Series(old), "propensity.new": pl.Series(new)}
    )
    path = table(folder / "two.csv", frame)
    return path, read(opened(path))


def test_a_row_weighs_by_the_average_of_the_loggers_that_could_have_made_it(tmp_path: Path) -> None:
    _, log = two_loggers(tmp_path)
    assert log.logprobs.exp().tolist() == pytest.approx([0.5, 0.2, 0.1, 0.4])  # each row's own logger
    rows = facts_of(
        [Decisions(log.rows(rows), torch.ones(2)) for rows in (torch.arange(2), torch.tensor([2, 3]))]
    )
    names = log.header.loggers
    assert dict(zip(names, rows.logger_rows.tolist(), strict=True)) == {"old": 3, "new": 1}
    average = behaviour_logprobs(log, rows.logger_rows).exp().tolist()
    by_hand = [0.75 * 0.5 + 0.25 * 0.1, 0.75 * 0.2 + 0.25 * 0.6, 0.1, 0.75 * 0.4 + 0.25 * 0.8]
    assert average == pytest.approx(by_hand)


def test_one_logger_and_a_logger_without_rows_change_nothing(tmp_path: Path) -> None:
    _, log = two_loggers(tmp_path)
    alone = dataclasses.replace(log, logger_logprobs=None)
    assert torch.equal(behaviour_logprobs(alone, torch.tensor([4])), log.logprobs)
    place = log.header.loggers.index("old")
    counts = torch.zeros(2, dtype=torch.int64).index_fill(0, torch.tensor([place]), 4)
    assert torch.allclose(behaviour_logprobs(log, counts), log.logger_logprobs[:, place])  # type: ignore[index]


def test_the_learner_gets_them(tmp_path: Path) -> None:
    path, _ = two_loggers(tmp_path, rows=40)
    from recsys_rl.cli.train import train_options

    config: Config = train_options(["--algo", "reinforce", "--log", path]).config
    logged = make_logged(config, make_world(config), torch.Generator().manual_seed(0))
    counts = facts_of(
        [Decisions(log, torch.ones(log.num_rows)) for log in opened(path).parts(100)]
    ).logger_rows
    assert float(counts.sum()) == 40
    values = set(logged.table.logprobs.exp().round(decimals=3).tolist())
    shares = logged.table.num_rows
    assert 0 < shares < 40 and len(values) <= 4 and not values & {0.5, 0.2}

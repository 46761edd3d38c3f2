"""Logs in which an application decided: its rows may lack their propensity."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.parts import parts, read_decisions, with_propensities
from recsys_rl.logs.writer import CHECKSUM, KEY, DecisionWriter, header_to_dict, write_decisions
from recsys_rl.types import Interface, UserError

INTERFACE = Interface((("profile", 2),), (10,), 1, True, 4, ("click",), 2)
HEADER = DecisionHeader(("shop", "ppo"), INTERFACE, ("click",), applications=("shop",))


def log_of(*logprobs: float, loggers: tuple[int, ...] = (0, 0, 0, 0, 1, 1)) -> DecisionLog:
    """Three sessions of two decisions, the last one of a policy."""
    rows = torch.arange(6)
    return DecisionLog(
        header=HEADER,
        users=rows // 2,
        sessions=rows // 2,
        steps=rows % 2,
        times=rows,
        items=rows.unsqueeze(1),
        logprobs=torch.tensor(logprobs, dtype=torch.float64),
        signals=rows.float().view(6, 1, 1),
        terminated=rows % 2 == 1,
        truncated=torch.zeros(6, dtype=torch.bool),
        loggers=torch.tensor(loggers),
        given={"profile": torch.arange(12.0).view(6, 2)},
    )


SOME = log_of(-1.0, math.nan, -0.5, -1.5, -2.0, -2.5)
NONE = log_of(*[math.nan] * 4, -2.0, -2.5)


@pytest.mark.parametrize("log", [SOME, NONE], ids=["some", "none"])
def test_gaps_are_read_as_they_were_written_also_in_pieces(tmp_path: Path, log: DecisionLog) -> None:
    path = tmp_path / "log.parquet"
    with DecisionWriter(path, HEADER) as writer:
        for session in range(3):  # each with a checksum of its own: the second may have no propensity at all
            writer.write(log.rows(log.sessions == session))
    whole = read_decisions(path)
    assert whole.header == HEADER
    torch.testing.assert_close(whole.logprobs, log.logprobs, equal_nan=True, atol=0, rtol=0)
    assert pl.read_parquet(path)["logprob"].null_count() == int(log.logprobs.isnan().sum())
    again = [part.logprobs for part in parts(path, 2)]
    torch.testing.assert_close(torch.cat(again), log.logprobs, equal_nan=True, atol=0, rtol=0)
    assert not describe(path).problems


def test_sessions_with_all_propensities_are_found(tmp_path: Path) -> None:
    assert SOME.known_sessions.sessions.tolist() == [1, 1, 2, 2] and not SOME.has_propensities
    assert SOME.known_sessions.has_propensities and SOME.known_sessions.num_sessions == 2
    path = tmp_path / "log.parquet"
    for log, sessions in ((SOME, [1, 2]), (NONE, [2])):
        write_decisions(path, log)
        pieces, note = with_propensities("log", HEADER, lambda: parts(path, 2))
        assert [int(x.sessions[0]) for x in pieces()] == sessions and note
        assert [int(x.sessions[0]) for x in pieces()] == sessions  # a second pass
    write_decisions(path, log_of(*[math.nan] * 6, loggers=(0,) * 6))
    pieces, note = with_propensities("log", HEADER, lambda: parts(path, 2))
    assert sum(x.num_rows for x in pieces()) == 6 and note == ""


def test_a_gap_in_a_row_of_a_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, log_of(-1.0, -1.0, -1.0, -1.0, -1.0, math.nan))
    with pytest.raises(UserError):
        read_decisions(path)


def test_propensities_in_place_of_logarithms_may_have_gaps_too(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, SOME)
    header = json.loads(pl.read_parquet_metadata(path)[KEY])
    del header[CHECKSUM]
    frame = pl.read_parquet(path).with_columns(propensity=pl.col("logprob").exp()).drop("logprob")
    frame.write_parquet(path, metadata={KEY: json.dumps(header)})
    torch.testing.assert_close(read_decisions(path).logprobs, SOME.logprobs, equal_nan=True)


def test_the_header_of_a_log_without_applications_is_as_before() -> None:
    assert "applications" not in header_to_dict(dataclasses.replace(HEADER, applications=()))


def test_an_application_must_be_a_logger(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, dataclasses.replace(SOME, header=dataclasses.replace(HEADER, applications=("x",))))
    with pytest.raises(UserError):
        read_decisions(path)

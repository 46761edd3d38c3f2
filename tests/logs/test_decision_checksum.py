"""The checksum of a log of decisions: damaged values are never read as others."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.checksum import Checksum
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.reader import check_file
from recsys_rl.logs.writer import CHECKSUM, KEY, DecisionWriter, write_decisions
from recsys_rl.types import UserError
from tests.logs.test_decisions import HEADER, assert_same, two_sessions

WRONG = "holds other values than were written to it"


def header_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pl.read_parquet_metadata(path)[KEY])
    return found


def rewrite(path: Path, frame: pl.DataFrame, header: dict[str, Any], **how: Any) -> None:
    frame.write_parquet(path, metadata={KEY: json.dumps(header)}, **how)


@pytest.mark.proof
def test_no_flipped_bit_is_read_as_other_values(tmp_path: Path) -> None:
    path, log, draw = tmp_path / "log.parquet", two_sessions(), random.Random(0)
    write_decisions(path, log)
    whole, refused = path.read_bytes(), 0
    for _ in range(250):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_decisions(path)
        except UserError:
            refused += 1
        else:
            assert_same(found, log)  # such as a flip in the statistics, which are not read
    assert refused > 100


def test_checksum_depends_neither_on_pieces_nor_on_the_encoding(tmp_path: Path) -> None:
    one, two, log = tmp_path / "one.parquet", tmp_path / "two.parquet", two_sessions()
    write_decisions(one, log)
    with DecisionWriter(two, HEADER) as writer:
        for row in range(log.num_rows):  # the candidates of the last row alone are a shorter list
            writer.write(log.rows(torch.tensor([row])))
    assert header_of(one) == header_of(two) and len(header_of(one)[CHECKSUM]) == 64
    frame = pl.read_parquet(one)
    rewrite(two, frame.select(sorted(frame.columns)), header_of(one), compression="snappy", row_group_size=2)
    assert_same(read_decisions(two), log)


def test_checksum_knows_where_a_list_ends() -> None:
    """[[1, 2], [3]] and [[1], [2, 3]] have the same items in the same order."""
    log, sums = two_sessions().rows(torch.tensor([0, 1])), []
    for lists in ([[0, 1, 2, 3], [4, 5, -1, -1]], [[0, 1, 2, -1], [3, 4, 5, -1]]):
        items = torch.tensor(lists)
        for changed in (dataclasses.replace(log, candidates=items), dataclasses.replace(log, exclude=items)):
            found = Checksum({})
            found.add(changed)
            sums.append(found.hexdigest())
    assert len(set(sums)) == 4


@pytest.mark.parametrize(
    "change",
    [
        pl.col("user") + 1,
        pl.col("items").list.reverse(),
        pl.col("candidates").list.head(6),
        pl.col("signal.hidden").list.eval(pl.element() * 1.5),
        pl.col("context.profile").list.eval(pl.element() + 1),
        pl.lit("two").alias("logger"),
        pl.col("exclude").list.tail(1),
    ],
)
def test_changed_values_are_refused_in_one_sentence(tmp_path: Path, change: pl.Expr) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    rewrite(path, pl.read_parquet(path).with_columns(change), header_of(path))
    with pytest.raises(UserError, match=WRONG):
        read_decisions(path)


def test_lost_rows_lost_columns_and_a_changed_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    frame, header = pl.read_parquet(path), header_of(path)
    for rows, fields in (
        (frame.head(3), header),
        (frame[[1, 0, 2, 3, 4, 5]], header),
        (frame.drop("exclude"), header),
        (frame, header | {"discount": 0.5}),
        (frame, header | {CHECKSUM: "0" * 64}),
    ):
        rewrite(path, rows, fields)
        with pytest.raises(UserError, match=WRONG):
            read_decisions(path)
    rewrite(path, frame, header | {CHECKSUM: 7})
    with pytest.raises(UserError, match=r"log\.parquet has a header that can't be read"):
        read_decisions(path)
    rewrite(path, frame, header | {"format": 9})
    with pytest.raises(UserError, match=r"log\.parquet has the format 9"):
        read_decisions(path)


def test_log_of_an_earlier_version_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    header = header_of(path)
    del header[CHECKSUM]
    rewrite(path, pl.read_parquet(path), header)
    assert_same(read_decisions(path), two_sessions())
    assert main(["data", "describe", str(path)]) == 0


def test_a_damaged_log_is_described_as_such(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    assert describe(path).problems == ()
    rewrite(path, pl.read_parquet(path).with_columns(pl.col("logprob") / 2), header_of(path))
    (problem,) = describe(path).problems
    assert "by the checksum in the header" in problem.text and problem.count == 6
    with pytest.raises(UserError, match=WRONG):
        check_file(path)

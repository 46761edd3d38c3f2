"""Logs in parts: a folder of files, or one file a row group at a time, give the same rows as one reading."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.cli import main
from recsys_rl.logs import reader
from recsys_rl.logs.decision_log import DecisionLog, concatenate, cut
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.parts import parts, read_decisions, sampled
from recsys_rl.logs.reader import files_of_log
from recsys_rl.logs.source import open_log, sample_of
from recsys_rl.logs.writer import KEY, PART, PARTS, DecisionWriter, write_decisions
from recsys_rl.types import UserError, tensors_of
from tests.doors import ROOT
from tests.log_in_parts import cut as pieces
from tests.log_in_parts import log_of
from tests.logs.generated_log import HEADER, STEPS, block, blocks


def assert_same(one: DecisionLog, two: DecisionLog) -> None:
    """Equal but for the width of padded lists."""
    assert one.header == two.header
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert torch.equal(*map(unpadded, (values, second[name]))), name


def test_intervals_of_a_record_share_what_only_some_of_them_have(tmp_path: Path) -> None:
    """The first interval has lists and exclusions of requests, the second one neither."""
    one, more = block(0, 4), block(4, 4)
    exclude, place = torch.full((one.num_rows, 1), -1), torch.zeros_like(one.steps)
    header = replace(one.header, consumed=(0.25,) * len(one.header.interface.signals), requested=True)
    whole = replace(one, header=header, exclude=exclude, list_place=place)
    for number, log in enumerate((whole, replace(more, exclude=None))):
        path = tmp_path / f"{number}.parquet"
        with DecisionWriter(path, log.header, interval=(number, number + 1)) as writer:
            writer.write(log)
    joined = read_decisions(tmp_path)
    assert joined.header.consumed == header.consumed and joined.header.requested
    assert joined.num_rows == one.num_rows + more.num_rows
    assert joined.list_place is not None and not joined.list_place.any()
    assert joined.exclude is not None and bool((joined.exclude < 0).all())


def unpadded(values: Tensor) -> Tensor:
    return values[values >= 0] if values.dtype == torch.int64 and values.ndim == 2 else values


@pytest.mark.parametrize("rows", [1, 7, 40, 10_000])
def test_parts_of_a_folder_are_the_rows_of_one_file(tmp_path: Path, rows: int) -> None:
    log = block(0, 30)
    write_decisions(tmp_path / "one.parquet", log)
    write_decisions(tmp_path / "many", log, rows)
    files = sorted((tmp_path / "many").iterdir())
    assert [x.name for x in files] == [f"part-{k:05}.parquet" for k in range(len(files))]
    per_part = max(STEPS, rows // STEPS * STEPS)
    assert len(files) == -(-log.num_rows // per_part)
    whole = read_decisions(tmp_path / "one.parquet")
    assert_same(whole, read_decisions(tmp_path / "many"))
    assert_same(whole, concatenate(list(parts(tmp_path / "many", 12))))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_missing_part_is_named(tmp_path: Path, lost: int) -> None:
    folder = tmp_path / "log"
    write_decisions(folder, block(0, 6), 10)
    files = sorted(folder.iterdir())
    files[lost].unlink()
    for read in (read_decisions, describe, lambda path: next(parts(path))):
        with pytest.raises(UserError, match=rf"{files[lost].name} of its 3 parts"):
            read(folder)
    assert read_decisions(files[lost - 1]).num_rows == 10  # a part that the user names
    files[lost - 1].unlink()
    with pytest.raises(UserError, match=r"and 1 more"):
        read_decisions(folder)


def test_a_folder_of_an_earlier_version_without_numbers_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_decisions(folder, block(0, 6), 10)
    for file in folder.iterdir():
        header = json.loads(pl.read_parquet_metadata(file)[KEY])
        del header[PART], header[PARTS]
        pl.read_parquet(file).write_parquet(file, metadata={KEY: json.dumps(header)})
    assert_same(read_decisions(folder), block(0, 6))
    (folder / "part-00001.parquet").unlink()
    assert read_decisions(folder).num_rows == 20


@pytest.mark.parametrize(
    "part", [{PART: -1}, {PART: 3}, {PART: "1"}, {PART: None}, {PART: 2}, {PARTS: 2}, {PARTS: 4}]
)
def test_the_number_of_a_part_is_checked(tmp_path: Path, part: dict[str, object]) -> None:
    folder = tmp_path / "log"
    write_decisions(folder, block(0, 6), 10)
    with_part(folder / "part-00001.parquet", part)
    with pytest.raises(UserError):
        read_decisions(folder)


def with_part(file: Path, part: dict[str, object]) -> None:
    header = json.loads(pl.read_parquet_metadata(file)[KEY]) | part
    pl.read_parquet(file).write_parquet(file, metadata={KEY: json.dumps(header)})


def test_two_files_are_not_one_part_and_a_huge_number_of_parts_takes_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_decisions(folder, block(0, 6), 10)
    shutil.copy(folder / "part-00000.parquet", folder / "part-00003.parquet")
    with pytest.raises(UserError):
        files_of_log(folder)
    (folder / "part-00003.parquet").unlink()
    for file in folder.iterdir():
        with_part(file, {PARTS: 10**15})
    with pytest.raises(UserError, match=r"part-00003.parquet \(and 999,999,999,999,996 more\)"):
        files_of_log(folder)


def test_sample_of_a_large_log_has_whole_sessions(tmp_path: Path) -> None:
    path, noise = tmp_path / "log.parquet", torch.Generator()
    log = block(0, 400)
    write_decisions(path, log)
    whole, note = sample_of(open_log((str(path),)), log.num_rows, noise.manual_seed(0))
    assert_same(whole, read_decisions(path))
    assert note == ""
    some, note = sample_of(open_log((str(path),)), log.num_rows // 4, noise.manual_seed(0))
    numbers, lengths = some.sessions.unique(return_counts=True)
    assert len(numbers) == 100 and lengths.unique().tolist() == [STEPS]
    assert_same(some, log.rows(torch.isin(log.sessions, numbers)))
    assert note == f"{path}: a random 100 of its sessions, {some.num_rows} of {log.num_rows:,} rows"
    again, _ = sample_of(open_log((str(path),)), log.num_rows // 4, noise.manual_seed(0))
    assert_same(some, again)


def test_sample_has_whole_sessions_and_does_not_depend_on_the_parts() -> None:
    log = log_of(300, 4)

    def drawn(parts: list[DecisionLog], rows: int) -> tuple[DecisionLog, bool]:
        return sampled(parts, rows, torch.Generator().manual_seed(3))

    found, whole = drawn([log], 200)
    assert not whole and 190 < found.num_rows <= 200
    for session in found.sessions.unique().tolist():
        assert int((found.sessions == session).sum()) == int((log.sessions == session).sum())
    for places in ((90, 200, 260), (1,), (299,)):
        other, _ = drawn(pieces(log, *places), 200)
        assert torch.equal(other.sessions, found.sessions) and torch.equal(other.items, found.items)
    assert drawn(pieces(log, 90), log.num_rows)[1]
    means = [
        float(sampled([log], 200, torch.Generator().manual_seed(k))[0].sessions.double().mean())
        for k in range(200)
    ]
    assert sum(means) / 200 == pytest.approx(float(log.sessions.double().mean()), abs=3)  # each as likely


@pytest.mark.parametrize("rows", [3, 12, 50, 149, 150])
def test_one_file_is_cut_at_the_ends_of_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(reader, "ROWS", 8)  # the pieces end inside sessions
    log = block(0, 30)
    write_decisions(tmp_path / "log.parquet", log)
    found = list(parts(tmp_path / "log.parquet", rows))
    assert all(int(part.steps[0]) == 0 and bool(part.truncated[-1]) for part in found)
    assert all(part.num_rows <= max(rows, STEPS) for part in found)
    assert_same(concatenate(found), log)


def test_cut_keeps_a_long_session_whole() -> None:
    log = block(0, 3)
    assert [x.num_rows for x in cut(log, 1)] == [5, 5, 5]
    assert [x.num_rows for x in cut(log, 11)] == [10, 5]
    assert [x.num_rows for x in cut(log, 15)] == [15]


def test_pieces_of_a_writer_fill_parts(tmp_path: Path) -> None:
    with DecisionWriter(tmp_path / "log", HEADER, 25) as writer:
        for piece in blocks(9, 2):
            writer.write(piece)
    assert [x.num_rows for x in parts(tmp_path / "log")] == [20, 25]
    assert [x.name for x in tmp_path.iterdir()] == ["log"]


def test_an_error_leaves_no_part(tmp_path: Path) -> None:
    def write() -> None:
        with DecisionWriter(tmp_path / "log", HEADER, 5) as writer:
            writer.write(block(4, 4))
            writer.write(block(7, 1))

    with pytest.raises(UserError, match="ascending"):
        write()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "old.txt").touch()
    with pytest.raises(UserError, match="already there"):
        write_decisions(tmp_path / "log", block(0, 1), 5)


def test_a_session_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_decisions(folder / "a.parquet", block(0, 3))
    write_decisions(folder / "b.parquet", block(2, 3))
    with pytest.raises(UserError, match=r"b\.parquet holds session 2, and .*sessions up to 2"):
        list(parts(folder))
    with pytest.raises(UserError, match="session 2"):
        read_decisions(folder)


def test_other_headers_and_damaged_parts_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_decisions(folder, block(0, 4), 10)
    second = folder / "part-00001.parquet"
    header = {KEY: pl.read_parquet_metadata(second)[KEY]}
    pl.read_parquet(second).with_columns(pl.col("time") + 1).write_parquet(second, metadata=header)
    with pytest.raises(UserError, match=r"part-00001\.parquet holds other values"):
        read_decisions(folder)
    assert any("checksum" in problem.text for problem in describe(folder).problems)
    header = {KEY: header[KEY].replace('"discount": 1.0', '"discount": 0.5')}
    pl.read_parquet(second).write_parquet(second, metadata=header)
    with pytest.raises(UserError, match="another header"):
        read_decisions(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no files that end in"):
        read_decisions(tmp_path / "none")


@pytest.mark.parametrize("rows", [3, 12, 50, 149, 150])
def test_one_file_in_another_order_is_gathered_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(reader, "ROWS", 8)
    path, log = tmp_path / "log.parquet", block(0, 30)
    order = torch.randperm(log.num_rows, generator=torch.Generator().manual_seed(0))
    write_decisions(path, log.rows(order))
    found = list(parts(path, rows))
    write_decisions(tmp_path / "ordered.parquet", log)
    sizes = [part.num_rows for part in parts(tmp_path / "ordered.parquet", rows)]
    assert [part.num_rows for part in found] == sizes
    assert_same(concatenate(found), log)
    assert_same(read_decisions(path), log)


def test_rows_of_a_file_in_another_order_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "ROWS", 4)
    path, log = tmp_path / "log.parquet", block(0, 4)
    log.users[13] = 999  # row 7 of the file; its session goes on with another user in row 6
    write_decisions(path, log.rows(torch.arange(20).flip(0)))
    with pytest.raises(UserError, match=r"users 999 and 2 \(row 6\)"):
        list(parts(path, 10))
    header = {KEY: pl.read_parquet_metadata(path)[KEY]}
    pl.read_parquet(path).with_columns(pl.col("time") + 1).write_parquet(path, metadata=header)
    with pytest.raises(UserError, match="checksum"):
        next(parts(path, 10))


def test_a_wrong_checksum_is_found_after_the_last_part(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, block(0, 4))
    header = {KEY: pl.read_parquet_metadata(path)[KEY]}
    pl.read_parquet(path).with_columns(pl.col("time") + 1).write_parquet(path, metadata=header)
    with pytest.raises(UserError, match="checksum"):
        list(parts(path, 10))


def test_a_row_is_named_by_its_number_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "ROWS", 4)
    path = tmp_path / "log.parquet"
    log = block(0, 4)
    log.users[13] = 999  # row 14
    write_decisions(path, log)
    for rows in (10, 1000):
        with pytest.raises(UserError, match=r"\(row 14\)"):
            list(parts(path, rows))


def test_a_folder_is_described_as_its_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_decisions(tmp_path / "one.parquet", block(0, 40))
    write_decisions(tmp_path / "many", block(0, 40), 60)
    texts = []
    for name in ("one.parquet", "many"):
        assert main(["data", "describe", str(tmp_path / name)]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "problems: none" in texts[0] and "40 sessions" in texts[0]


@pytest.mark.proof
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """100 MB more than at the start suffice for a log in parts, and not for the whole log."""
    pytest.importorskip("resource")
    folder = tmp_path / "log"
    with DecisionWriter(folder, HEADER, 250_000) as writer:
        for piece in blocks(100_000):
            writer.write(piece)
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from recsys_rl.logs.parts import parts, read_decisions
next(parts({str(folder)!r}, 20_000))  # libraries are loaded now
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000, resource.RLIM_INFINITY))
rows = [log.num_rows for log in parts({str(folder)!r}, 20_000)]
print(sum(rows), max(rows), flush=True)
print(read_decisions({str(folder)!r}).num_rows)
"""
    one = {"POLARS_MAX_THREADS": "1", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | one, timeout=200
    )
    assert done.stdout == "500000 20000\n" and done.returncode != 0, done.stdout + done.stderr[-2000:]

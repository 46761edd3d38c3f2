"""Data frames in place of paths: what is taken, what is refused, and the same answers as for a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys_rl
from recsys_rl.checkpoint import load
from recsys_rl.data.tables.frames import files_of_frames, with_files
from recsys_rl.logs.ope.check_judge import check_judge
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.types import UserError
from tests.doors import assert_same_weights
from tests.own_logs import sessions
from tests.own_tables import decisions

SHORT: dict[str, Any] = {"hidden_dims": (8,), "batch_size": 32, "gradient_steps": 5, "total_timesteps": 320}


class Streamed:
    """An object that has an Arrow stream and nothing else."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


class Broken:
    """An object whose stream can't be made, as it needs a package that is absent."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise ImportError("`Import pyarrow` failed.")


def test_frames_are_files_of_their_content(tmp_path: Path) -> None:
    one, two = decisions(50), decisions(50, seed=1)
    files = files_of_frames([one, "log.csv", Path("more.parquet"), Streamed(two)], tmp_path)
    assert files[1:3] == ("log.csv", "more.parquet")
    assert pl.read_parquet(files[0]).equals(one) and pl.read_parquet(files[3]).equals(two)
    assert files_of_frames(Streamed(one), tmp_path) == files[:1] and len([*tmp_path.iterdir()]) == 2
    with with_files({"log": one, "seed": 3}) as known:
        assert known["seed"] == 3 and pl.read_parquet(known["log"][0]).equals(one)
    assert not Path(known["log"][0]).exists()


def test_no_log_leaves_that_of_the_options(tmp_path: Path) -> None:
    with with_files({"log": None, "seed": 3, "json": None}) as known:
        assert known == {"seed": 3, "json": None}
    options = OpeConfig(log=(str(tmp_path / "mine.csv"),), policy=("random",))
    with pytest.raises(UserError, match=r"mine\.csv"):
        recsys_rl.ope(options, log=None)


def test_errors_name_the_data_frame_and_not_its_file(tmp_path: Path) -> None:
    wrong = decisions(50).with_columns(propensity=pl.lit(1.5))
    none = decisions(50).drop("propensity")
    for frame, command in (
        (wrong, partial(recsys_rl.ope, policy=("random",))),
        (wrong, check_judge),
        (none, check_judge),
    ):
        with pytest.raises(UserError, match=r"^The data frame") as caught:
            command(log=frame)
        assert ".parquet" not in str(caught.value)
    with pytest.raises(UserError, match=r"mine\.parquet"):
        recsys_rl.ope(log=str(tmp_path / "mine.parquet"), policy=("random",))


@pytest.mark.parametrize("log", [{"user": [1]}, 7, Broken(), pl.DataFrame({"item": []}), [["log.csv"]]])
def test_other_objects_are_refused(log: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (recsys_rl.ope, recsys_rl.describe, recsys_rl.fit_users):
        with pytest.raises(UserError, match=r"^[^\n]*$"):
            command(log=log)
    with pytest.raises(UserError, match=r"^[^\n]*$"):
        recsys_rl.train(algo="bc", log=log, cache_dir="cache")
    assert not [*tmp_path.rglob("*.parquet")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pl.DataFrame, str, list[Path]]]:
    """A frame, the same as a file, and a run from each."""
    folder, frame = tmp_path_factory.mktemp("frames"), decisions(600)
    frame.write_parquet(folder / "log.parquet")
    logs = (Streamed(frame), folder / "log.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        paths = [
            recsys_rl.train(algo="bc", log=log, folder=f"run{k}", quiet=True, **SHORT)
            for k, log in enumerate(logs)
        ]
        yield frame, str(folder / "log.parquet"), [path.resolve() for path in paths]


def test_train_learns_the_same(runs: tuple[pl.DataFrame, str, list[Path]]) -> None:
    frame, _, (mine, theirs) = runs
    assert_same_weights(mine, theirs)
    (kept,) = load(mine).config.agent_config.log
    assert pl.read_parquet(kept).equals(frame)


def test_train_names_the_data_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = recsys_rl.train(algo="bc", log=decisions(600), folder=tmp_path / "run", **SHORT)
    assert recsys_rl.evaluate(path)["headline"] == "bc"
    said = capsys.readouterr().err
    assert "data: the data frame;" in said and f"{path} is of the data frame," in said
    assert f"recsys_rl.ope(log=FRAME, checkpoint={str(path)!r})" in said  # what prints the estimates again
    assert str(tmp_path / "cache") not in said and ".parquet" not in said


def test_ope_gives_the_same_table(runs: tuple[pl.DataFrame, str, list[Path]]) -> None:
    frame, file, (checkpoint, _) = runs
    mine, theirs = (recsys_rl.ope(log=log, checkpoint=checkpoint, world=False) for log in (frame, file))
    assert mine.rows == theirs.rows
    table = mine.to_frame()
    assert table["estimator"].to_list() == [row.estimator for row in mine.rows]
    assert table["value"].to_list() == [row.value for row in mine.rows]
    assert table.schema["low"] == pl.Float64 and table.schema["recommended"] == pl.Boolean
    several = recsys_rl.ope(
        log=[frame.head(300), Streamed(frame.tail(300))], checkpoint=checkpoint, world=False
    )
    assert several.about.decisions == mine.about.decisions
    assert mine.about.log == "the data frame" and theirs.about.log == file


def test_describe_says_the_same(runs: tuple[pl.DataFrame, str, list[Path]], tmp_path: Path) -> None:
    frame, file, _ = runs
    mine = recsys_rl.describe(log=frame, json=tmp_path / "log.json")
    assert mine == recsys_rl.describe(log=file) and mine.rows == 600
    assert json.loads((tmp_path / "log.json").read_text())["rows"] == 600


def test_users_are_learned_from_a_frame(tmp_path: Path) -> None:
    file = sessions(tmp_path / "log.csv")
    small: dict[str, Any] = {"members": 1, "epochs": 1, "quiet": True, "weights": ("clicked=1",)}
    mine, theirs = (
        recsys_rl.fit_users(log=log, out=tmp_path / f"{k}.pt", **small)
        for k, log in enumerate((pl.read_csv(file), file))
    )
    assert mine == theirs
    half = pl.read_csv(file).with_columns(first=pl.col("session").str.tail(-1).cast(int) < 30)
    parts = [of.drop("first") for of in half.partition_by("first", maintain_order=True)]
    both = recsys_rl.fit_users(log=parts, out=tmp_path / "two.pt", **small)  # in another order of sessions
    assert both["decisions"] == mine["decisions"] and both["returns"]["real"] == mine["returns"]["real"]
    with pytest.raises(UserError, match="twice"):
        recsys_rl.fit_users(log=[pl.read_csv(file)] * 2, out=tmp_path / "two.pt", **small)

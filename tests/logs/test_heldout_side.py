"""No number of a policy of a team's own log depends on the held-out rows of that log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.errors import FieldError
from recsys_rl.logs.own_log import LogFiles, users_of
from recsys_rl.logs.source import heldout_strangers
from recsys_rl.training.train import train
from recsys_rl.types import UserError, tensors_of
from tests.own_logs import write_csv
from tests.own_tables import ITEMS, decisions, table

SHARE, SEED = 0.3, 3
SHORT: dict[str, Any] = {
    "batch_size": 32,
    "gradient_steps": 4,
    "hidden_dims": (8,),
    "total_timesteps": 256,
    "threads": 1,
}


def heldout(path: str) -> Tensor:
    """(E,) bool: the held-out rows of a table without sessions."""
    files = LogFiles((path,), {})
    ((opened, name),) = files.named
    read = files.cells(opened, opened.names)
    kinds = {"age": "number", "device": "text", "mood": "number"}
    return heldout_strangers(users_of(read, kinds, None, torch.arange(read.frame.height), name), SHARE, SEED)


def altered(frame: pl.DataFrame, rows: Tensor, columns: tuple[str, ...]) -> pl.DataFrame:
    """The frame with other values in these columns of these rows."""
    draw, there = np.random.default_rng(5), pl.Series(rows.numpy())
    values: dict[str, Any] = {
        "item": draw.choice(ITEMS[:1], len(frame)),  # the first item alone: far more popular than before
        "clicked": 1 - frame["clicked"].to_numpy(),
        "propensity": np.full(len(frame), 0.5),
        "context.mood": draw.normal(9, 5, len(frame)),
        "context.age": draw.integers(1, 9_000, len(frame)),
        "context.device": draw.choice(["watch", "tv"], len(frame)),
        "time": frame["time"].to_numpy() + 10**6,
    }
    changed = [
        pl.when(there).then(pl.Series(values[name])).otherwise(pl.col(name)).alias(name) for name in columns
    ]
    return frame.with_columns(changed)


def numbers_of(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds, but for the time of its writing and the hash of the log's file."""
    found = load(path)
    info = {name: value for name, value in found.info.items() if name != "created"}
    parts = {"agent": found.agent, "catalogue": tensors_of(found.catalogue), "streams": found.generators}
    tensors = {f"{part} {name}": values for part, of in parts.items() for name, values in of.items()}
    titles = (found.catalogue.titles, found.catalogue.item_names)
    return tensors | {"info": info, "settings": found.config.env_config, "items": titles}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        if isinstance(values, Tensor):  # a year that nobody knows is NaN
            torch.testing.assert_close(values, other[name], rtol=0, atol=0, equal_nan=True)
        else:
            assert values == other[name], name


EVERY = ("item", "clicked", "propensity", "context.mood", "context.age", "context.device", "time")


@pytest.mark.parametrize(
    ("without", "columns"), [((), EVERY), (("user",), ("item", "clicked", "propensity", "time"))]
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_held_out_rows_change_no_number_of_a_policy(
    tmp_path: Path, without: tuple[str, ...], columns: tuple[str, ...], ending: str
) -> None:
    """Without users, rows are held out by their context, which stays."""
    frame = decisions(400, users=40).with_columns(pl.int_range(1_700_000_000, 1_700_000_400).alias("time"))
    frame = frame.drop(without)
    price = write_csv(tmp_path / "items.csv", ["item", "price"], [[name, 2 * len(name)] for name in ITEMS])
    found = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        log = table(tmp_path / folder / f"log.{ending}", frame)
        rows = heldout(log)
        assert 40 < rows.sum() < 200
        given: dict[str, Any] = {"log": (log,), "items": str(price), "heldout_fraction": SHARE, "seed": SEED}
        path = train(algo="reinforce", **given, **SHORT, folder=tmp_path / folder / "run", quiet=True)
        found.append(numbers_of(path))
        frame = altered(frame, rows, columns)
    assert_same(*found)
    popularity = found[0]["catalogue popularity"]
    learned = (pl.read_csv(log) if ending == "csv" else pl.read_parquet(log)).filter(~rows.numpy())
    shown = learned["item"]
    assert popularity.tolist() == pytest.approx([(shown == name).mean() for name in ITEMS])


def test_each_of_several_seeds_has_the_encodings_of_its_own_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = table(tmp_path / "log.csv", decisions(200, users=40))
    words = ["--batch-size", "32", "--gradient-steps", "2", "--hidden-dims", "8", "--total-timesteps", "64"]
    command = ["train", "--algo", "bc", "--log", log, "--threads", "1", *words]
    assert main([*command, "--seeds", "1,2", "--name", "both"]) == 0
    assert main([*command, "--seed", "2", "--name", "alone"]) == 0
    one, two = sorted((tmp_path / "runs").glob("both*"))
    shapes = [load(folder / "bc.pt").config.env_config for folder in (one, two, tmp_path / "runs/alone")]
    assert shapes[0] != shapes[1] and shapes[1] == shapes[2]


@pytest.mark.parametrize("share", [1.5, -1, [0.2], "x", float("nan")])
def test_a_wrong_share_has_the_refusal_of_its_field(tmp_path: Path, share: Any) -> None:
    log = table(tmp_path / "log.csv", decisions(200, users=40))
    with pytest.raises(FieldError) as refused:
        train(algo="bc", log=(log,), heldout_fraction=share, folder=tmp_path / "run", quiet=True)
    assert refused.value.field == "data_config.heldout_fraction" and not (tmp_path / "run").exists()


def test_a_log_without_a_row_to_learn_from(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", decisions(20, users=2))
    with pytest.raises(UserError, match="all its users are held out"):
        train(algo="bc", log=(log,), heldout_fraction=0.999_999, folder=tmp_path / "run", quiet=True)

"""A team's own log from end to end: train, the table at its end, ope on that and a newer log, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.training.train import train
from recsys_rl.types import UserError
from tests.doors import assert_same_weights
from tests.own_tables import ITEMS, SHORT, decisions, table

BEST, LOGGED, ALONE = 0.9, 0.3, 0.3
"""Clicks by the best item of each context, by the logger (.25 .9 + .75 .1), and by any item for all."""
STEPS = ["--total-timesteps", "9600"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run of `reinforce`, and its log of 6,000 decisions."""
    folder = tmp_path_factory.mktemp("own")
    log = table(folder / "clicks.csv", decisions(6_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--algo", "reinforce", "--log", log, "--name", "mine", *SHORT, *STEPS]) == 0
    return folder / "runs/mine", log


def rows_of(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["policy"]: row for row in values["verdicts"]}


def test_the_table_at_the_end(run: tuple[Path, str]) -> None:
    """The truth lies in the interval; what is better and worse than the logger is known by construction."""
    values = json.loads((run[0] / "ope.json").read_text())
    rows = rows_of(values)
    assert [*rows] == ["logged", "best item", "clone", "reinforce", "reinforce-greedy"]
    assert values["headline"] == "reinforce" and not (run[0] / "heldout.parquet").exists()
    assert rows["logged"]["low"] < LOGGED < rows["logged"]["high"]
    assert rows["reinforce"]["answer"] == rows["reinforce-greedy"]["answer"] == "better"
    greedy = rows["reinforce-greedy"]
    assert greedy["estimator"] == "dr" and greedy["low"] < BEST and greedy["high"] > BEST - 0.1
    assert rows["best item"]["low"] < ALONE < rows["best item"]["high"]
    assert rows["clone"]["answer"] == "can't tell"
    assert {row["policy"] for row in values["rows"]} == {*rows}
    about = values["about"]
    frame = pl.read_csv(run[1])
    assert 0 < about["decisions"] < len(frame) / 2 and about["users"] < frame["user"].n_unique() / 2


def test_ope_of_the_checkpoint_gives_the_numbers_of_training(run: tuple[Path, str]) -> None:
    folder, log = run
    result = ope(OpeConfig(log=(log,), checkpoint=str(folder / "reinforce.pt"), world=False))
    before = json.loads((folder / "ope.json").read_text())["rows"]
    then = {row["estimator"]: row["value"] for row in before if row["policy"] == "reinforce"}
    now = {row.estimator: row.value for row in result.rows}
    assert now["ips"] == pytest.approx(then["ips"], rel=1e-9)
    assert now["dr"] == pytest.approx(then["dr"], rel=1e-6)


def test_a_newer_log_is_read_by_the_checkpoint(
    run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another order of columns and rows changes nothing but rounding; a new text counts as other."""
    folder, log = run
    frame = pl.read_csv(log)
    mixed = frame.select(sorted(frame.columns)).sample(fraction=1, shuffle=True, seed=1)
    for name, newer in (
        ("same", mixed),
        ("other", mixed.with_columns(pl.lit("watch").alias("context.device"))),
    ):
        path = table(tmp_path / f"{name}.parquet", newer)
        options = OpeConfig(
            log=(path,), checkpoint=str(folder / "reinforce.pt"), policy=("random",), world=False
        )
        values = {row.estimator: row.value for row in ope(options).rows}
        said = capsys.readouterr().err
        assert ("6,000 of 6,000 decisions" in said) == (name == "other")
        result = ope(
            OpeConfig(log=(log,), checkpoint=str(folder / "reinforce.pt"), policy=("random",), world=False)
        )
        assert values["ips"] == pytest.approx(
            {row.estimator: row.value for row in result.rows}["ips"], rel=1e-9
        )


@pytest.mark.proof
def test_several_logs_and_their_parts(
    run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files give what one file of both gives, also where models are fitted on a sample of the rows."""
    folder, log = run
    frame = pl.read_csv(log)
    paths = table(tmp_path / "a.csv", frame.head(1_000)), table(tmp_path / "b.parquet", frame.tail(5_000))
    checkpoint = str(folder / "reinforce.pt")

    def ips(*log: str) -> float:
        result = ope(OpeConfig(log=log, checkpoint=checkpoint, world=False))
        return next(row.value for row in result.rows if row.estimator == "ips")

    whole = ips(log)
    assert ips(*paths) == pytest.approx(whole, rel=1e-9)
    monkeypatch.setattr(ope_log, "FITTED_OWN", 200)
    monkeypatch.setattr(ope_log, "PART", 100)
    assert ips(*paths) == pytest.approx(whole, rel=1e-9)


def test_the_logger_and_the_learner_exchanged(run: tuple[Path, str], tmp_path: Path) -> None:
    """On a log of a policy that nearly always shows the best item, the same policy as before is no better."""
    log = table(tmp_path / "good.csv", decisions(3_000, loyal=0.97))
    options = OpeConfig(log=(log,), checkpoint=str(run[0] / "reinforce.pt"), policy=("random",), world=False)
    result = ope(OpeConfig(**{**vars(options), "compare": ("random", "logged")}))
    assert result.compare is not None and result.compare.value < -0.3


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("context.mood"),
        lambda frame: frame.with_columns(pl.lit("[1, 2]").alias("context.mood")),
        lambda frame: frame.with_columns(item=pl.lit("elk")),
        lambda frame: frame.drop("clicked"),
        lambda frame: frame.filter(pl.col("user") == "nobody"),
        lambda frame: frame.with_columns(propensity=pl.lit(0.0)),
    ],
)
def test_ope_refuses_a_newer_log_that_does_not_fit(
    run: tuple[Path, str], tmp_path: Path, change: Any
) -> None:
    path = table(tmp_path / "newer.csv", change(pl.read_csv(run[1])))
    out = tmp_path / "ope.json"
    assert main(["ope", "--log", path, "--checkpoint", str(run[0] / "reinforce.pt"), "--json", str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--items", "items.csv"], ["--logger", "a.pt"], ["--policy", "oracle"], ["--log", "none.csv"]]
)
def test_ope_refuses_options_that_do_not_fit(run: tuple[Path, str], words: list[str]) -> None:
    assert main(["ope", "--log", run[1], "--checkpoint", str(run[0] / "reinforce.pt"), *words]) == 2


def test_the_log_is_no_file_of_items(run: tuple[Path, str], tmp_path: Path) -> None:
    """Its first row of each item would become features, the reward of that row among them."""
    words = ["--log", run[1], "--items", run[1], "--runs-dir", str(tmp_path)]
    assert main(["train", "--algo", "bc", *words]) == 2
    assert not list(tmp_path.iterdir())


def test_evaluate_prints_the_table_and_has_no_simulator(
    run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    capsys.readouterr()
    result = evaluate(str(folder / "reinforce.pt"), json=str(tmp_path / "table.json"))
    printed = capsys.readouterr()
    assert "no simulator" in printed.err and printed.out.count("\n") == 6
    assert json.loads((tmp_path / "table.json").read_text()) == result
    assert rows_of(result).keys() == rows_of(json.loads((folder / "ope.json").read_text())).keys()
    alone = tmp_path / "alone.pt"
    alone.write_bytes((folder / "reinforce.pt").read_bytes())
    with pytest.raises(UserError):
        evaluate(str(alone))
    (tmp_path / "ope.json").write_text('{"verdicts": [{"policy": 1}], "headline": "x"}')
    with pytest.raises(UserError):
        evaluate(str(alone))
    with pytest.raises(UserError):
        evaluate(str(folder / "reinforce.pt"), report=True)


def test_the_lines_about_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data line counts decisions on both sides, and a finished run is judged once."""
    frame = decisions(300).drop("user")
    log = table(tmp_path / "clicks.csv", frame)
    path = train_quietly(tmp_path, log, quiet=False)
    said = capsys.readouterr().err
    assert "data: clicks.csv; " in said and "contexts for training" in said and "contexts held out" in said
    assert "4 items, known by their ids alone" in said and "hash of their context" in said
    assert (
        "all estimates: " in said and "recsys-rl ope --log" in said and path.with_name("ope.json").is_file()
    )


def train_quietly(folder: Path, log: str, *more: str, quiet: bool = True) -> Path:
    from recsys_rl.cli.train import train_options

    config = train_options(["--algo", "bc", "--log", log, *SHORT, "--total-timesteps", "320", *more]).config
    return train(config, folder=folder / "run", quiet=quiet)


def test_a_log_in_parts_is_judged_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read 100 at a time by the learner, the search for the best item, and the judge."""
    monkeypatch.setattr("recsys_rl.logs.experience.logged.MOST_ROWS", 100)
    monkeypatch.setattr(ope_log, "PART", 100)
    frame, tables = decisions(800), []
    for name in ("text.csv", "parts.parquet"):
        (tmp_path / name).mkdir()
        train_quietly(tmp_path / name, table(tmp_path / name / name, frame), quiet=False)
        tables.append(rows_of(json.loads((tmp_path / name / "run/ope.json").read_text())))
    monkeypatch.undo()
    (tmp_path / "whole").mkdir()
    train_quietly(tmp_path / "whole", table(tmp_path / "whole/text.csv", frame), quiet=False)
    whole = rows_of(json.loads((tmp_path / "whole/run/ope.json").read_text()))
    assert tables[0]["bc"] == tables[1]["bc"]
    for name in ("logged", "best item"):
        for values in tables:
            assert values[name]["value"] == pytest.approx(whole[name]["value"])


def test_bc_has_no_clone_beside_it(tmp_path: Path) -> None:
    """It is judged, and a log without propensities is judged by estimated ones."""
    log = table(tmp_path / "clicks.csv", decisions(300).drop("propensity"))
    train_quietly(tmp_path, log, quiet=False)
    values = json.loads((tmp_path / "run/ope.json").read_text())
    assert [row["policy"] for row in values["verdicts"]] == ["logged", "best item", "bc", "bc-greedy"]
    assert values["propensities"] is not None


def test_the_rivals_of_the_best_sessions_see_all_sessions(tmp_path: Path) -> None:
    """Of the best sessions each has a click, whatever it shows: the rivals are chosen from all of them.

    "dal" is clicked with .8 and the others with .2, and the logger shows all alike: .35 of its own.
    """
    draw = torch.Generator().manual_seed(0)
    items = torch.randint(4, (3_000,), generator=draw)
    clicked = torch.rand(3_000, generator=draw) < torch.tensor([0.2, 0.2, 0.2, 0.8])[items]
    frame = decisions(3_000).with_columns(
        item=pl.Series([ITEMS[at] for at in items.tolist()]),
        clicked=pl.Series(clicked.int().tolist()),
        propensity=pl.lit(0.25),
    )
    log = table(tmp_path / "clicks.csv", frame)
    best = ["--best-sessions", "0.3", "--total-timesteps", "6400"]
    path = train_quietly(tmp_path, log, *best, quiet=False)
    values = json.loads(path.with_name("ope.json").read_text())
    rows = rows_of(values)
    assert [*rows] == ["logged", "best item", "clone", "bc", "bc-greedy"]
    assert rows["best item"]["value"] == pytest.approx(0.8, abs=0.1) and values["best_items"] == ["dal"]
    assert rows["clone"]["value"] == pytest.approx(0.35, abs=0.07)
    assert rows["bc"]["value"] > 0.45


def test_a_resumed_run_needs_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of four updates: the same bits from the same file, and a refusal from another one."""
    from recsys_rl.cli.train import train_options
    from recsys_rl.training.train import updates

    monkeypatch.chdir(tmp_path)
    log = table(tmp_path / "clicks.csv", decisions(200))
    words = ["--algo", "reinforce", "--log", log, *SHORT, "--total-timesteps", "640"]
    whole = train(train_options(words).config, folder=tmp_path / "whole", quiet=True)
    begun = updates(train_options(words).config, folder=tmp_path / "pieces")
    next(begun), next(begun)
    begun.close()
    pieces = tmp_path / "pieces/reinforce.pt"
    assert load(pieces).updates == 2
    text = Path(log).read_bytes()
    Path(log).write_bytes(text.replace(b",1,", b",0,", 1))
    assert main(["train", "--run", str(pieces.parent)]) == 2
    assert load(pieces).updates == 2
    Path(log).write_bytes(text)
    assert main(["train", "--run", str(pieces.parent)]) == 0
    assert_same_weights(whole, pieces)


def test_bad_logs_leave_no_run_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = decisions(60)
    for change in (
        frame.with_columns(propensity=pl.lit(0.0)),
        frame.with_columns(user=pl.lit("u")),
        frame.with_columns(item=pl.lit("ale")),
        frame.drop("propensity"),
        frame.with_columns(clicked=pl.lit(1)),
        pl.concat([frame] * 5).with_columns(
            item=pl.Series((["ale"] * 9 + ["bun"]) * 30), propensity=pl.lit(0.5)
        ),
    ):
        log = table(tmp_path / "bad.csv", change)
        assert main(["train", "--algo", "reinforce", "--log", log, *SHORT]) == 2
    assert main(["train", "--algo", "dt", "--log", table(tmp_path / "one.csv", frame), *SHORT]) == 2
    assert not (tmp_path / "runs").exists() and not (tmp_path / "checkpoints").exists()


def test_several_signals_with_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clicks minus a view: the weights lie in the checkpoint, and the estimates are of them."""
    monkeypatch.chdir(tmp_path)
    frame = (
        decisions(200).rename({"clicked": "signal.clicked"}).with_columns(pl.lit(1).alias("signal.viewed"))
    )
    log = table(tmp_path / "clicks.csv", frame)
    assert main(["train", "--algo", "bc", "--log", log, *SHORT]) == 2  # what counts?
    weights = ["--weights", "clicked=2", "viewed=-1"]
    path = train_quietly(tmp_path, log, *weights, quiet=False)
    values = rows_of(json.loads(path.with_name("ope.json").read_text()))
    config = load(path).config
    assert config.env_config.weights == {"clicked": 2.0, "viewed": -1.0}
    assert -1 <= values["logged"]["value"] < 0.5 and torch.isfinite(torch.tensor(values["bc"]["value"]))

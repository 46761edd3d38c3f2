"""The commands with --limit and --novelty: lists, refusals, verdicts and logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.utils.logger import read_log
from tests.doors import A2C, CARTPOLE, DRIFT, SATIATION, home, steps, train_in, weights


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_the_streams_and_trains_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SATIATION, "--limit", "help"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["tail_exposure", "early_end", "engagement"]
    assert main(["train", *CARTPOLE, "--limit", "help"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["early_end", "reward"]
    assert not list(folder.iterdir())


def test_limit_that_no_policy_met_is_named_at_the_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside one that was met. The log has the values and the multipliers of all."""
    hard = ["--limit", "engagement>=0.99", "--limit", "early_end<=1"]
    assert main(["train", *SATIATION, *steps(4), *hard, *home(folder / "run")]) == 0
    said = capsys.readouterr().err
    assert "The limit engagement>=0.99 is not met" in said and "no policy of this run" in said
    assert "The limit early_end<=1 is met" in said
    rows = {name: value for _, _, name, value in read_log(folder / "run" / "log.csv")}
    assert rows["limits_met"] == 0.5 and rows["multiplier_early_end_max"] == 0
    assert rows["multiplier_engagement_min"] > 0 and 0 <= rows["limit_engagement"] < 0.99


@pytest.mark.parametrize("options", [SATIATION, A2C], ids=["ppo", "a2c"])
def test_limit_that_does_not_bind_changes_nothing(options: list[str], folder: Path) -> None:
    free = weights(train_in(folder / "free", *options, *steps(3)))
    within = weights(train_in(folder / "within", *options, *steps(3), "--limit", "early_end<=1"))
    bound = weights(train_in(folder / "bound", *options, *steps(3), "--limit", "tail_exposure<=0.01"))
    assert all(torch.equal(x, within[name]) for name, x in free.items())
    assert any(not torch.equal(x, bound[name]) for name, x in free.items())


def test_resumed_run_keeps_its_limits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = train_in(
        folder / "run", *SATIATION, *steps(3), "--limit", "tail_exposure<=0.3", "--novelty", "0.1"
    )
    assert {"limit_integral", "novelty_counts"} <= load(path).experience.keys()
    assert main(["train", "--run", "run"]) == 0
    capsys.readouterr()
    assert main(["train", "--run", "run", "--limit", "tail_exposure<=0.4"]) == 2
    assert "--limit is ['tail_exposure<=0.4'] now" in capsys.readouterr().err


def test_typed_limits_replace_those_of_a_file(folder: Path) -> None:
    Path("run.toml").write_text('[train_config]\nlimit = ["match>=0.1"]\n')
    file = [*DRIFT, "--config", "run.toml"]
    assert train_options(file).config.train_config.limit == ("match>=0.1",)
    typed = train_options([*file, "--limit", "match>=0.2", "--limit=early_end<=1"])
    assert typed.config.train_config.limit == ("match>=0.2", "early_end<=1")

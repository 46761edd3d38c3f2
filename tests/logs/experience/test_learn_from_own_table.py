"""Learners from a team's own table of decisions, whose answer is known, as whole commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.logs.source import Place, open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.settings.config import Config
from tests.proofs import Proof

DEVICES, ITEMS = ("phone", "tablet", "desk"), ("a", "b", "c", "d")
BEST = {"phone": "b", "tablet": "c", "desk": "d"}


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 decisions: each device's best item pays .8 and is shown in .04, the others pay .4 in .32 each."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("log") / "clicks.csv"
    device = rng.choice(DEVICES, 6_000)
    right = np.array([ITEMS.index(BEST[name]) for name in device])
    chances = np.where(np.arange(4)[None] == right[:, None], 0.04, 0.32)
    item = (chances.cumsum(1) > rng.random((6_000, 1))).argmax(1)
    paid = rng.random(6_000) < np.where(item == right, 0.8, 0.4)
    columns = {
        "user": np.arange(6_000),
        "item": np.array(ITEMS)[item],
        "reward": paid.astype(int),
        "propensity": chances[np.arange(6_000), item],
        "context.device": device,
    }
    pl.DataFrame(columns).write_csv(path)
    return path


@pytest.mark.learning
@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--algo", "bc", "--weighted"], 1.0),
        (["--algo", "reinforce"], 1.0),
        (["--algo", "cql", "--alpha", "0.01"], 1.0),
        (["--algo", "bc"], 0.0),
    ],
    ids=["bc-weighted", "reinforce", "cql", "bc"],
)
def test_greedy_items_are_the_best_of_each_device(
    words: list[str],
    right: float,
    clicks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proof: Proof,
) -> None:
    """A clone shows what the logger prefers, which is never right."""
    monkeypatch.chdir(tmp_path)
    options = ["--total-timesteps", "50_000", "--hidden-dims", "16", "--lr", "0.01", "--name", "run"]
    assert main(["train", *words, "--log", str(clicks), *options]) == 0
    made = load(tmp_path / "runs" / "run" / f"{words[1]}.pt")
    (part,) = open_log(made.config.agent_config.log, Place.of_run(made.config, made.world)).parts(10_000)
    obs = observe(part, made.catalogue)
    shown = agent_of(made).act(obs, greedy=True).items.squeeze(1)
    names = [made.catalogue.item_names[row] for row in shown.tolist()]
    device = pl.read_csv(clicks)["context.device"].to_list()
    share = np.mean([BEST[one] == name for one, name in zip(device, names, strict=True)])
    proof(abs(float(share) - right), below=0.01)


def test_losses_are_refused_by_a_weighted_clone(clicks: Path, tmp_path: Path) -> None:
    table = pl.read_csv(clicks).with_columns(pl.col("reward") - 0.5)
    table.write_csv(tmp_path / "losses.csv")
    table.drop("propensity").with_columns(pl.col("reward") + 0.5).write_csv(tmp_path / "unknown.csv")
    for name in ("losses", "unknown"):
        words = ["--algo", "bc", "--weighted", "--log", str(tmp_path / f"{name}.csv")]
        assert main(["train", *words, "--runs-dir", str(tmp_path / "runs")]) == 2
        assert not (tmp_path / "runs").exists()


def test_presets_of_a_table() -> None:
    """They hold for every learner, and a last row is an end."""
    config = Config(algo="cql", env="own-log")
    assert (config.agent_config.alpha, config.agent_config.gamma) == (0.03, 0.99)
    assert config.agent_config.bootstrap_time_limit is False
    config = Config(algo="bc", env="own-log")
    assert (config.agent_config.lr, config.train_config.total_timesteps) == (0.01, 320_000)

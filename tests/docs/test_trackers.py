"""The recipes of docs/api.md for MLflow and Weights & Biases, with modules that note what they get."""

from __future__ import annotations

import csv
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recsys_rl import Config
from tests.docs.test_docs import ROOT, blocks, run_blocks

SMALL: dict[str, Any] = {"env": "drift", "data": "synthetic", "num_users": 30, "num_items": 20}
SMALL |= {"embedding_dim": 4, "num_envs": 4, "n_steps": 8, "batch_size": 32, "hidden_dims": [8]}
SMALL |= {"total_timesteps": 96, "log_interval": 1, "eval_interval": 0, "seed": 3}


class Tracker:
    """Both packages: the settings of a run, its metrics by step, and whether it has ended."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.open = False

    @contextmanager
    def _run(self) -> Iterator[Tracker]:
        self.open = True
        yield self
        self.open = False

    def start_run(self, run_name: str) -> Any:
        return self._run()

    def init(self, project: str, config: dict[str, Any]) -> Any:
        self.settings = config
        return self._run()

    def log_params(self, params: dict[str, Any]) -> None:
        self.settings = params

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert self.open
        self.rows.append((step, dict(metrics)))

    log = log_metrics


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_each_update_reaches_the_tracker(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    recipe = [block for block in blocks(page, "python") if "to_mlflow" in block[1]]
    names = "from recsys_rl import Config, updates\n"
    module = run_blocks([(0, names), *recipe], "docs/api.md", monkeypatch)
    tracker, fake = Tracker(), types.ModuleType(name)
    for method in ("start_run", "log_params", "log_metrics", "init"):
        setattr(fake, method, getattr(tracker, method))
    monkeypatch.setitem(sys.modules, name, fake)
    function: Any = module[f"to_{name}"]
    function(Config(**SMALL), folder=tmp_path / "run")
    assert not tracker.open
    assert [step for step, _ in tracker.rows] == [32, 64, 96]
    seed = tracker.settings["seed"] if name == "mlflow" else tracker.settings["train_config"]["seed"]
    assert seed == 3
    with (tmp_path / "run" / "log.csv").open(newline="", encoding="utf-8") as file:
        logged = {(int(row["step"]), row["name"]): float(row["value"]) for row in csv.DictReader(file)}
    sent = {(step, key): float(value) for step, metrics in tracker.rows for key, value in metrics.items()}
    assert (32, "loss") in sent and sent == logged

"""The commands of `make train`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from recsys_rl.cli.evaluate import evaluate_options
from recsys_rl.cli.train import train_options
from tests.doors import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_number_of_cores_decides_the_threads_unless_they_are_given() -> None:
    """And the searches of the table share as many processes."""
    cores = min(2, os.cpu_count() or 1)
    for given, threads in (([], cores), (["--threads", "3"], 3)):
        command = ["make", "-n", "train", f"PYTHON={sys.executable}", f"ARGS={' '.join(given)}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        train, evaluate = (
            line.split() for line in done.stdout.splitlines() if "-m train" in line or "-m eval" in line
        )
        settings = train_options(train[train.index("train") + 1 :]).config
        assert (settings.env, settings.train_config.threads) == ("satiation", threads)
        options = evaluate[evaluate.index("evaluate") + 1 :]
        assert options[-2:] == ["--jobs", str(cores)] and evaluate_options(options).report is True

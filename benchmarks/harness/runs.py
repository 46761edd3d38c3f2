"""Trained runs of the benchmarks, which a folder can keep, and returns on the users of their curves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import commands
from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError
from recsys_rl.evaluation.players import Table, heldout_users
from recsys_rl.evaluation.row_makers import RowMakers
from recsys_rl.settings.config import to_dict
from recsys_rl.training.learning_curve import training_sessions
from recsys_rl.utils.seeding import generators


def trained(folder: Path, algo: str, words: Sequence[str]) -> float:
    """The seconds of the training ``words`` in ``folder``, which then holds checkpoints/<algo>.pt and runs/.

    The file ``done`` there has the seconds: with it, the run is not trained again. Raises UserError if that
    run has other settings than ``words``.
    """
    done = folder / "done"
    if done.exists():
        _check_settings(folder, algo, words)
        return float(done.read_text())
    for name in ("runs", "checkpoints"):  # of a training that was stopped
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    commands.recsys_rl(folder, words)
    seconds = time.monotonic() - started
    done.write_text(f"{seconds:.0f}\n")
    return seconds


def checkpoint_in(folder: Path, algo: str) -> Path:
    return folder / "checkpoints" / f"{algo}.pt"


def _check_settings(folder: Path, algo: str, words: Sequence[str]) -> None:
    """Raise UserError if the run in ``folder`` has other settings than the command ``words``."""
    stored = to_dict(load(checkpoint_in(folder, algo)).config)
    asked = to_dict(train_options(list(words[1:])).config)
    for section, settings in asked.items():
        ours, theirs = (
            value if isinstance(value, dict) else {"": value} for value in (settings, stored.get(section))
        )
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise UserError(
                    f"{folder} holds a run with {section}.{name} {theirs.get(name)}, and this benchmark asks "
                    f"for {value}: delete that folder, or name another one in --keep."
                )


def return_on_curve(path: Path, row: str) -> float | None:
    """The mean return of the table's ``row`` on the training users of the learning curve of a checkpoint.

    The row's search comes from the cache after an evaluation. None if there is no such row.
    """
    checkpoint = load(path)
    config, world = checkpoint.config, checkpoint.world
    if world.is_empty:
        return None
    streams = generators(0, "evaluation users", "random")
    table = Table(config, world, heldout_users(world, 1, 0), 0, torch.device("cpu"), streams)
    env = table.env()
    assert isinstance(env, RecEnv)
    make = RowMakers(table, env, checkpoint.total_steps, None).makers().get(row)
    if make is None:
        return None
    return training_sessions(config, world, make().agent, table.device).returns.mean().item()

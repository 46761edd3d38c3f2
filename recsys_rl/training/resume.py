"""A run to a checkpoint and back.

In the checkpoint rank 0 uses the names of a single process; names of rank 1 begin with "rank1/".
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, check_algo, load, restoring
from recsys_rl.settings.config import Config, to_dict, with_whole_paths
from recsys_rl.training.ranks import ALONE, Ranks
from recsys_rl.training.run import Run
from recsys_rl.types import UserError
from recsys_rl.utils.seeding import set_state
from recsys_rl.version import __version__

# Settings that a resumed run may change. None of them affects learning.
FREE_ON_RESUME = {
    ("data_config", "data_dir"),
    ("data_config", "cache_dir"),
    ("train_config", "log_interval"),
    ("train_config", "eval_interval"),
    ("train_config", "save_interval"),
    ("train_config", "runs_dir"),  # like the name: the run already has its folder
    ("train_config", "name"),
    ("train_config", "threads"),
    ("train_config", "device"),  # load_to_resume compares the device itself
    ("train_config", "tensorboard"),
}


def snapshot(run: Run, ranks: Ranks = ALONE) -> Checkpoint:
    """A checkpoint of the run with the state of every rank. All ranks must call it."""
    finished = run.updates == run.num_updates
    watcher = run.experience.watcher
    watched = {} if watcher is None else watcher.state_dict()
    everyone = ranks.gather(
        {f"env/{name}": tensor for name, tensor in ({} if run.env is None else run.env.state_dict()).items()}
        | {
            f"experience/{name}": tensor
            for name, tensor in {**run.experience.state_dict(finished), **watched}.items()
        }
        | {f"generators/{name}": stream.get_state() for name, stream in run.streams.items()}
    )
    states: dict[str, dict[str, Tensor]] = {"env": {}, "experience": {}, "generators": {}}
    for rank, tensors in enumerate(everyone):
        for name, tensor in tensors.items():
            section, _, rest = name.partition("/")
            states[section][f"{_prefix(rank)}{rest}"] = tensor
    info: dict[str, Any] = {
        **run.info,
        "device": run.streams["users"].device.type,
        "recsys_rl": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Checkpoint(
        run.config,
        run.interface,
        run.world,
        run.agent.state_dict(),
        states["env"],
        states["experience"],
        states["generators"],
        run.step,
        run.updates,
        info,
    )


def restore(run: Run, checkpoint: Checkpoint, device: torch.device, rank: int) -> None:
    """Load the state of the checkpoint; the opposite of ``snapshot``."""
    state = _state_of_rank(checkpoint.env, rank)
    with restoring():
        run.agent.load_state_dict({name: tensor.to(device) for name, tensor in checkpoint.agent.items()})
        streams = _state_of_rank(checkpoint.generators, rank)
        for name, stream in run.streams.items():
            set_state(stream, streams[name])
        run.updates = checkpoint.updates
        same = run.step == checkpoint.step and run.updates == int(checkpoint.agent["updates"])
        if not same or run.updates > run.num_updates:
            raise ValueError(f"step {checkpoint.step} of a run of {run.num_updates} updates")
        run.info |= {"curve": list(checkpoint.info["curve"]), "steps_before": checkpoint.steps_before}
        if "curves" in checkpoint.info:
            run.info["curves"] = {name: list(rows) for name, rows in checkpoint.info["curves"].items()}
        finished = run.updates == run.num_updates
        state_of_source = {
            name: tensor.to(device) for name, tensor in _state_of_rank(checkpoint.experience, rank).items()
        }
        run.experience.load_state_dict(state_of_source, finished)
    if run.env is None:
        return
    # An environment with its own world replays its actions. An error there comes from its code, not the file.
    with nullcontext() if run.world.is_empty else restoring():
        run.env.load_state_dict(state)


def _prefix(rank: int) -> str:
    return f"rank{rank}/" if rank else ""


def _state_of_rank(state: Mapping[str, Any], rank: int) -> dict[str, Any]:
    prefix = _prefix(rank)
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in own.items() if "/" not in name}


def load_to_resume(path: Path, config: Config, device: torch.device) -> Checkpoint:
    """Load the checkpoint at ``path``. Raises UserError if a run of ``config`` can't continue it."""
    checkpoint = load(path, config.env)
    check_algo(path, checkpoint, config.algo)
    with restoring():
        made_on = torch.device(checkpoint.info["device"]).type
    if made_on != device.type:  # generators of other devices have other states
        raise UserError(
            f"{path} was made on {made_on}, but this run is on {device.type}: resume with --device "
            f"{made_on}, or start a new run without --resume or --run."
        )
    saved, wanted = _fields(checkpoint.config), _fields(config)
    saved_whole, wanted_whole = (_fields(with_whole_paths(x)) for x in (checkpoint.config, config))
    for key, old in saved.items():
        if saved_whole[key] == wanted_whole[key] or key in FREE_ON_RESUME:
            continue
        name, new = key[1] or key[0], wanted[key]
        option = f"--{name.replace('_', '-')}"
        weights = f"; --init-from {path} gives it these weights" if name == "total_timesteps" else ""
        made = f"without {option}" if old in (None, []) else f"with {option} {old}"
        given = "left out" if new in (None, []) else new
        raise UserError(
            f"{path} was made {made}, but {option} is {given} now: leave {option} out "
            f"to resume, or start a new run without --resume or --run{weights}."
        )
    return checkpoint


def _fields(config: Config) -> dict[tuple[str, str], Any]:
    """The settings by section and name; the name of a setting without a section is empty."""
    return {
        (section, name): value
        for section, values in to_dict(config).items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }

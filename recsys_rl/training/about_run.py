"""The lines that `train` prints of a run: before its first update, and after its last one."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

from recsys_rl.data.bias import share_of
from recsys_rl.data.world_check import about_check
from recsys_rl.errors import amount, one_line
from recsys_rl.functional.compiled import kernels
from recsys_rl.make import assumptions, make_env, make_world
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.objective.limit_streams import limit_streams
from recsys_rl.settings.config import Config, preset_of
from recsys_rl.settings.names import (
    checkpoint_name,
    names_a_module,
    names_a_source,
    names_an_algorithm,
)
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.training import folder as folders
from recsys_rl.training.observers import Observer
from recsys_rl.training.run import Run
from recsys_rl.utils import terminal

ENOUGH = 0.2
"""A run with less than this share of the preset's steps is too short."""
SHOWN_GATES = 10
"""Gates of the scorer head that are printed after training, the largest ones."""


def say(*lines: str) -> None:
    """Print the lines that hold something to standard error."""
    for line in filter(None, lines):
        with contextlib.suppress(OSError):  # a terminal that was closed
            print(line, file=sys.stderr)


def say_beginning(run: Run, experience: str, folder: Path | None) -> None:
    """Print the data, the experience and the length of the run. ``folder`` is that of a resumed run."""
    asked, planned = run.config.train_config.total_timesteps, run.num_updates * run.per_update
    resuming = f"resuming {folder} at step {run.step:,} of {planned:,}"
    items = getattr(run.config.agent_config, "checkpoint", None) if folder is None else None
    words = f"whole updates of {run.per_update:,}: {planned:,} steps"
    uncompiled = "note: torch's operators replace the compiled loops and are slower: " + (
        f"{kernels.SWITCH} is off."
        if kernels.switched_off()
        else "they are missing, so install a C compiler and then this package again."
    )
    say(
        f"items of {folders.checkpoint_behind(items)} ({items})"
        if items and folders.is_latest(items)
        else "",
        _about_data(run),
        experience,
        run.note,
        getattr(run.env, "note", ""),  # of an environment from elsewhere: the candidates that it took
        resuming if folder is not None and run.updates < run.num_updates else "",
        f"total_timesteps {asked:,} is rounded to {words}" if folder is None and asked != planned else "",
        uncompiled if run.streams["users"].device.type == "cpu" and kernels.library() is None else "",
    )
    if folder is None and run.env is not None:
        say(_advice(run))


def _about_data(run: Run) -> str:
    """Lines about items, users and the platform's assumptions; "" if the world is empty."""
    catalogue, population = run.world
    if run.world.is_empty:
        return ""
    if not run.config.platform.simulates:
        from recsys_rl.data.tables.columns import log_name  # polars

        brought = run.config.platform.brought(run.config)
        paths = getattr(run.config.agent_config, "log", None) or (catalogue.source,)
        names = " + ".join(
            one_line(Path(log_name(path)).name) for path in ([paths] if isinstance(paths, str) else paths)
        )
        data = f"data: {names}; {getattr(run.experience, 'sides', '')}"
        return data if brought is None else "\n".join(filter(None, [data, brought.note]))
    whose = f"{population.source}: " if population.source else ""
    sizes = f"{amount(len(population.train), 'training user')}, {len(population.heldout):,} held out"
    lines = [f"data: {catalogue.source}; {whose}{sizes}"]
    lines += filter(None, [about_check(population.ranking, share_of(catalogue))])
    assumed = assumptions(run.config, run.world)
    return "\n".join([*lines, f"{run.config.env}: {assumed}"] if assumed else lines)


def _advice(run: Run) -> str:
    """A note about a run of too few steps; "" of enough, and in an environment with its own world."""
    if run.world.is_empty:
        return ""
    config, steps = run.config, run.config.train_config.total_timesteps
    preset = preset_of(config.algo, config.env).get("train_config", {})
    wanted = int(preset.get("total_timesteps", TrainConfig.total_timesteps))
    if steps >= ENOUGH * wanted:
        return ""
    return (
        f"note: --total-timesteps {steps:,} is {100 * steps / wanted:.2g} % of the {wanted:,} of the "
        f"preset of {config.algo} on {config.env}: a policy that is trained so briefly may lose to "
        "simple rankings"
    )


class Ending(Observer):
    """The lines about a run that has ended."""

    def __init__(self, path: Path, log: Path, begun_at: int) -> None:
        """``path``: of the checkpoint. ``begun_at``: updates before this process began to train."""
        self.path, self.log, self.begun_at = path, log, begun_at

    def ended(self, run: Run) -> str:
        folder = self.path.parent
        done = f"done: {run.step:,} steps; checkpoint: {self.path}; log: {self.log}"
        finished = (
            f"{folder} is finished at step {run.step:,}: nothing is left to train. To train longer, start a "
            f"new run from its weights: {_from_weights(run.config, folder)}"
        )
        lines = (
            done if run.updates > self.begun_at else finished,
            _about_gates(run),
            run.experience.verdict(),
        )
        return "\n".join(filter(None, lines))


def _from_weights(config: Config, folder: Path) -> str:
    """The command for a new run with the settings and the weights of the run in ``folder``."""
    data = str(getattr(config.data_config, "data", ""))
    typed = [*_modules(config), *(["--data", data] if names_a_source(data) else [])]
    weights = folder / checkpoint_name(config.algo)
    files = ["--config", str(folder / "config.toml"), "--init-from", str(weights)]
    return f"{shlex.join(['recsys-rl', 'train', *files, *typed])} --total-timesteps NUMBER"


def to_continue(config: Config, folder: Path) -> str:
    """The command that continues the run in ``folder``; of several processes on one machine."""
    size = config.train_config.num_processes
    several = ["torchrun", "--standalone", "--nproc-per-node", str(size), "-m", "recsys_rl.cli"]
    command = ["recsys-rl"] if size == 1 else several
    return shlex.join([*command, "train", "--run", str(folder), *_modules(config)])


def _modules(config: Config) -> list[str]:
    """The options that name the run's own platform and algorithm: no file may name a module."""
    typed = ["--env", config.env] if names_a_module(config.env) else []
    return typed + (["--algo", config.algo] if names_an_algorithm(config.algo) else [])


def _about_gates(run: Run) -> str:
    """A line with the largest mean gates of the scorer head; "" for another head."""
    if run.env is None or not isinstance(run.agent, NetworkPolicy):
        return ""
    gates = run.agent.mean_gates(run.env.observe(), run.interface)
    largest = sorted(gates, key=lambda name: -abs(gates[name]))[:SHOWN_GATES]
    return "mean gates: " + ", ".join(f"{name} {gates[name]:.2f}" for name in largest) if gates else ""


def list_streams(config: Config) -> None:
    """Print the name and the meaning of each stream. Raises UserError if the data can't be used."""
    world = make_world(config)
    streams = limit_streams(world.catalogue, make_env(config, world, 1).streams)
    width = max(map(len, streams))
    for name, stream in streams.items():
        terminal.say(f"{name:<{width}}  {stream.meaning}")

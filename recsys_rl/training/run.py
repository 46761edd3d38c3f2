"""A run: its parts, and what one update of it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.protocols import Experience
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, UserError, World


@dataclass
class Run:
    """The live objects whose state a checkpoint stores; each rank has its own part."""

    config: Config
    world: World  # empty if the environment has its own world
    experience: Experience
    agent: Any  # a Learner, of any algorithm
    streams: dict[str, torch.Generator]
    num_updates: int  # updates of the whole run
    updates: int = 0
    stopped: bool = False  # an observer ended it before its last update
    note: str = ""  # about the weights that it began with
    # What its checkpoints say beside the state. The learning curve has rows of step, mean, low, high.
    info: dict[str, Any] = field(default_factory=lambda: {"curve": [], "steps_before": 0})

    @property
    def interface(self) -> Interface:
        """The interface of the platform on which the agent acts."""
        return self.experience.interface

    @property
    def env(self) -> Any:
        """The environment, an Env; None: the experience is a log."""
        return self.experience.env

    @property
    def per_update(self) -> int:
        return int(self.config.agent_config.steps_per_update)

    @property
    def step(self) -> int:
        return self.updates * self.per_update

    @property
    def over(self) -> bool:
        return self.stopped or self.updates == self.num_updates

    def due(self, interval: int) -> bool:
        """True every ``interval`` updates (0 = never) and after the last update."""
        return interval > 0 and (self.updates % interval == 0 or self.updates == self.num_updates)


@dataclass(frozen=True)
class Update:
    """The run after one update. The next update changes ``run`` in place."""

    step: int  # environment steps so far, over all users
    metrics: dict[str, float]  # of this update; with returns and evaluation at their intervals
    run: Run
    folder: Path
    ended: Tensor  # (2, n): returns and lengths of the sessions that ended
    stopping: bool = False  # the run was asked to stop after this update

    @property
    def agent(self) -> Any:
        return self.run.agent


def choose_device(name: str) -> torch.device:
    """The device of that name; auto is cuda if there is one. Raises UserError if cuda is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this build of torch has no CUDA: use --device cpu.")
    return torch.device(name)

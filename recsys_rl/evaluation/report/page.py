"""The contents of an evaluation's page, and what a picture of it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.evaluation.table import Played
from recsys_rl.make import make_user_model
from recsys_rl.protocols import UserModel

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """A table that was played, and the checkpoint of its page."""

    checkpoint: Checkpoint
    users: Tensor  # (n,) rows of the population
    result: Mapping[str, Any]  # the table as plain values
    played: Mapping[str, Played]
    compared: Sequence[str]  # rows of the pictures that compare policies

    @cached_property
    def user_model(self) -> UserModel | None:
        """The users of the simulator; None in an environment without items."""
        if self.checkpoint.world.is_empty:
            return None
        return make_user_model(self.checkpoint.config, self.checkpoint.world)


@dataclass(frozen=True)
class Page:
    """The values of the page. Where a number is None or NaN, the page shows a dash. Shares are in [0, 1]."""

    env: str
    algo: str
    rows: Sequence[Row]  # one for each policy, as ``summarise`` makes them; ``users`` if fewer played
    step: int  # environment steps trained
    heldout_users: int
    seed: int
    data: str = ""
    data_check: str = ""  # a sentence about the data
    hardware: str = ""
    date: str = ""
    version: str = ""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # {section: {field: value}}
    paired: Sequence[Row] = ()  # ``policy``, ``versus``, ``mean``, ``low``, ``high``
    shares: Sequence[Row] = ()  # of the way: ``policy``, ``from``, ``to``, ``share``, ``low``, ``high``
    gains: Sequence[Row] = ()  # ``policy``, ``versus``, ``gain``, ``low``, ``high``
    learned: Sequence[str] = ()  # policies of checkpoints; without a name ``algo`` and its ``-greedy``
    yardstick: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)  # {policy: a sentence with tuned values}
    planner_steps: tuple[int, int] | None = None  # the most that the planner simulates, and of a session
    world: str = ""  # about the world of the rows, if it is another than that of the training
    trained_on: Sequence[str] = ()  # its environments, with ``world``
    everyone: bool = False  # the users of the table are those of the training
    foreign: bool = False  # an environment of Gymnasium: episodes and seeds, not sessions and users
    new_users: Mapping[str, str] | None = None  # of a ``file``, its name, and ``about`` their events
    pictures: Mapping[str, Any] = field(default_factory=dict)  # the values of each picture, by its name


@dataclass(frozen=True)
class Picture:
    """A picture of the page: what it computes and what it draws. PICTURES of html.py lists them."""

    name: str
    values: Callable[[Evaluated], Any]  # plain values
    html: Callable[[Any, Page], str]  # the section of the page with these values; "" for no section

"""The contents of an evaluation's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Curve = Mapping[str, Sequence[float]]
"""A learning curve: ``step``, ``mean``, ``low``, ``high``."""


@dataclass(frozen=True)
class Page:
    """The values of the page. Where a number is None or NaN, the page shows a dash. Shares are in [0, 1]."""

    env: str
    algo: str
    rows: Sequence[Row]
    """One for each policy: ``policy``, ``return_mean``, ``return_low``, ``return_high``, ``length_mean``,
    ``distinct_mean``, ``coverage``. Optional: ``users`` if fewer played, ``streams`` {name: mean} if there
    are several, of lives ``active_days``, ``d1``, ``d7``, ``d30`` and ``churn``, ``creator_gini``, and
    ``limit_streams`` {name: mean}."""
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
    curve: Curve = field(default_factory=dict)  # of training users
    curves: Mapping[str, Curve] = field(default_factory=dict)  # "log": by `ope`; "world": of another world
    judged_by: str = ""  # the estimator of the curve "log"
    sessions: Sequence[Row] = ()
    """``policy``, ``user``, ``likes``, the titles nearest to the user's profile, ``return``, ``left``,
    ``limit``, the steps of the longest session if that is known, ``steps`` of ``title``, ``year``,
    ``genres``, ``reward`` and ``hidden``, by name the signals that no recommender sees, all usually in
    [0, 1]; of the item that a user chose from a slate also ``place``, None without a choice, and ``places``,
    ``visible`` signals by name, ``goes_on``, the title of an item chosen before, and ``events``, each with
    ``title`` and ``visible``."""
    tick: Row | None = None  # the hidden signal of the ticks in sessions: ``name`` and ``meaning``
    categories: Row | None = field(default_factory=dict)
    """A result of ``evaluation.categories``, which is None where the data have none; empty without items."""
    stream_curves: Sequence[Row] = ()  # results of ``evaluation.stream_curves``
    regret_by_step: Row | None = None  # a result of ``evaluation.regret``
    world: str = ""  # about the world of the rows, if it is another than that of the training
    trained_on: Sequence[str] = ()  # its environments, with ``world``
    everyone: bool = False  # the users of the table are those of the training
    new_users: Mapping[str, str] | None = None  # of a ``file``, its name, and ``about`` their events

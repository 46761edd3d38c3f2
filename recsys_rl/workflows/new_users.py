"""The people of a file in place of the held-out users of checkpoints."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from recsys_rl.errors import FieldError
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.make import with_new_users
from recsys_rl.workflows.event_file import COLUMNS, EventOptions, read_events

OF_THE_FILE = (*COLUMNS, "event_weights", "like_threshold", "separator")
"""Options that have no effect without the file."""


class PeopleOptions(EventOptions, Protocol):
    """The options of a command that takes people from the file ``users``."""

    @property
    def users(self) -> str | Path | None: ...

    @property
    def like_threshold(self) -> float | None: ...


def check_event_options(options: PeopleOptions) -> None:
    """Raise FieldError for an option about the file of ``users`` if there is none."""
    if options.users is not None:
        return
    given = [name for name in OF_THE_FILE if getattr(options, name) is not None]
    given += ["missing"] if options.missing != "refuse" else []
    if given:
        raise FieldError(given[0], "is about the file of people: give this file with --users too.")


def with_people(
    groups: Sequence[Sequence[Entry]], options: PeopleOptions, path: str | Path
) -> list[list[Entry]]:
    """The checkpoints with the users of the file ``path`` as held-out users.

    ``options`` has the fields OF_THE_FILE and ``missing``. A line about the file goes to standard error.
    Raises UserError if the file can't be read or no user of it can be folded in.
    """
    trained = groups[0][0].checkpoint.config.data_config
    log, found = read_events(path, options, trained), []
    for group in groups:
        first = group[0].checkpoint
        world = with_new_users(first.config, first.world, log, options.like_threshold)
        found.append(
            [dataclasses.replace(x, checkpoint=dataclasses.replace(x.checkpoint, world=world)) for x in group]
        )
    print(f"users: {about_people(found)}", file=sys.stderr)
    return found


def about_people(groups: Sequence[Sequence[Entry]]) -> str:
    """The text about the users of each group; each seed has its own items, so the users may differ."""
    sources = (group[0].checkpoint.population.source for group in groups)
    return "; on another seed: ".join(dict.fromkeys(sources))

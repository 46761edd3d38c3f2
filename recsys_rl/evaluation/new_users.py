"""The people of a file in place of the held-out users of checkpoints."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.data.event_file import read_events
from recsys_rl.data.tables.columns import EventFile
from recsys_rl.errors import FieldError
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.make import with_new_users
from recsys_rl.settings.fields import Finite


@dataclass(frozen=True, kw_only=True)
class PeopleFile(EventFile):
    """People who play in place of the held-out users."""

    users: str | Path | None = None
    """File of events of other people with the same items: they play in place of the held-out users, with
    profiles folded in from their likes. The options of columns, kinds and gaps are about this file."""
    like_threshold: Finite | None = None
    """A rating of at least this much in this file is a like (default: the option of the training; if that was
    not given, the threshold that fits the ratings of this file)."""


def check_event_options(options: PeopleFile) -> None:
    """Raise FieldError for an option about the file of ``users`` if there is none."""
    if options.users is not None:
        return
    given = [f.name for f in dataclasses.fields(PeopleFile) if getattr(options, f.name) != f.default]
    if given:
        raise FieldError(given[0], "is about the file of people: give this file with --users too.")


def with_people(
    groups: Sequence[Sequence[Entry]], options: PeopleFile, path: str | Path
) -> list[list[Entry]]:
    """The checkpoints with the users of the file ``path`` as held-out users.

    A line about the file goes to standard error. Raises UserError if the file can't be read or no user of it
    can be folded in.
    """
    trained = groups[0][0].checkpoint.config.data_config
    log, people = read_events(path, options, trained), []
    for group in groups:
        first = group[0].checkpoint
        world = with_new_users(first.config, first.world, log, options.like_threshold)
        people.append(
            [
                dataclasses.replace(entry, checkpoint=dataclasses.replace(entry.checkpoint, world=world))
                for entry in group
            ]
        )
    print(f"users: {about_people(people)}", file=sys.stderr)
    return people


def about_people(groups: Sequence[Sequence[Entry]]) -> str:
    """The text about the users of each group; each seed has its own items, so the users may differ."""
    sources = (group[0].checkpoint.population.source for group in groups)
    return "; on another seed: ".join(dict.fromkeys(sources))

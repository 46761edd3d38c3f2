"""The users and the items of a log of events in a file of any format (tables/events.py)."""

from __future__ import annotations

import dataclasses

from recsys_rl.data.catalogue import LikesConfig, world_of_log
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.tables.clean import Duplicates, Missing
from recsys_rl.tables.events import log_and_facts, named_columns
from recsys_rl.tables.kinds import parse_event_weights
from recsys_rl.tables.read import HEADLESS, open_table
from recsys_rl.tables.schema import EVENTS
from recsys_rl.types import UserError, World


@dataclasses.dataclass(frozen=True)
class LogConfig(LikesConfig):
    """The users and the items of a log: a text or Parquet file with a row for each event."""

    user_column: str | None = None
    """Column of the user id (default: user, or the only column with a common name such as user_id). For this
    and the other columns, - stands for none."""
    item_column: str | None = None
    """Column of the item id (default: item, or the only column with a common name such as movie_id)."""
    time_column: str | None = None
    """Column of the time (default: timestamp, or a common name). Without one, a hash of user and item draws
    the likes behind the profile; a column of row numbers makes the order of the rows the time."""
    rating_column: str | None = None
    """Column of the rating (default: rating, or a common name). Without one, every row is a like."""
    weight_column: str | None = None
    """Column of plays, seconds or purchases (default: weight, or a common name): the matrix factorisation
    trusts a like more if its weight is higher."""
    event_column: str | None = None
    """Column of the kind of event, for --event-weights (default: event_type, or a common name)."""
    event_weights: str | None = None
    """Weights of the kinds of events, as in view=0,cart=1,purchase=3. Events of a kind with weight 0 are left
    out, and each other one is a like with this weight. Without it, every row is a like."""
    separator: str | None = None
    """Separator of a text file, or tab, comma, semicolon, pipe, space (default: found in the first line)."""
    missing: Missing = "refuse"
    """Rows without a user, item, time or rating: refuse the file, or drop the rows."""
    duplicates: Duplicates = "refuse"
    """Rows with the same user, item and time: refuse the file, merge them and sum their weights, or keep the
    first."""
    items: str | None = None
    """File about the items: id, title, genres, year, and any other column as an attribute."""


def _make_world(config: LogConfig, sizes: EnvConfig, seed: int) -> World:
    given: dict[str, str | None] = {role: getattr(config, f"{role}_column") for role in EVENTS}
    table = open_table(config.data, config.separator, HEADLESS)
    event_weights = parse_event_weights(config.event_weights)
    named = named_columns(table, given, event_weights)
    if config.like_threshold is not None and "rating" not in named:
        raise UserError(
            f"--like-threshold {config.like_threshold:g} has no effect on {config.data}: no column of "
            "ratings is read, so each row counts as a like; leave it out, or give --rating-column."
        )
    log, _ = log_and_facts(
        table, named, given, config.missing, config.duplicates, config.items, event_weights
    )
    return world_of_log(log, config, sizes, seed)


SOURCE = Source(LogConfig, _make_world)

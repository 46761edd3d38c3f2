"""The users and the items of a log of events in a file of any format (data/tables/events.py)."""

from __future__ import annotations

import dataclasses

from recsys_rl.data.catalogue import LikesConfig, world_of_log
from recsys_rl.data.tables.clean import Duplicates
from recsys_rl.data.tables.columns import EventFile
from recsys_rl.data.tables.events import log_and_facts, named_columns
from recsys_rl.data.tables.kinds import parse_event_weights
from recsys_rl.data.tables.read import HEADLESS, open_table
from recsys_rl.records import Source
from recsys_rl.settings.fields import check_used
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import World


@dataclasses.dataclass(frozen=True)
class LogConfig(EventFile, LikesConfig):
    """The users and the items of a log: a text or Parquet file with a row for each event."""

    duplicates: Duplicates = "refuse"
    """Rows with the same user, item and time: refuse the file, merge them and sum their weights, or keep the
    first."""
    items: str | None = None
    """File about the items: id, title, genres, year, and any other column as an attribute."""


def _make_world(config: LogConfig, sizes: EnvConfig, seed: int) -> World:
    table, given = open_table(config.data, config.separator, HEADLESS), config.columns
    event_weights = parse_event_weights(config.event_weights)
    named = named_columns(table, given, event_weights)
    idle = config.like_threshold is not None and "rating" not in named
    check_used(("like_threshold", idle, f"no column of ratings is read from {config.data}"))
    log, _ = log_and_facts(
        table, named, given, config.missing, config.duplicates, config.items, event_weights
    )
    return world_of_log(log, config, sizes, seed)


SOURCE = Source(LogConfig, _make_world)

"""A file of people's events, as the options of a command describe it."""

from __future__ import annotations

from pathlib import Path

from recsys_rl.data.tables.columns import EventFile
from recsys_rl.data.tables.events import has_kinds, read_log
from recsys_rl.data.tables.kinds import parse_event_weights
from recsys_rl.settings.shared import DataConfig
from recsys_rl.types import InteractionLog


def read_events(path: str | Path, options: EventFile, trained: DataConfig | None = None) -> InteractionLog:
    """The events in the file, as the options for its columns and values say.

    Without weights of kinds, those of the training are taken where the file has such a column. Of repeated
    events the first is kept. Raises UserError.

    Args:
        trained: the settings of the data that the checkpoint was trained on.
    """
    weights = parse_event_weights(options.event_weights)
    of_training = parse_event_weights(getattr(trained, "event_weights", None))
    if weights is None and of_training and options.rating_column is None:
        known = has_kinds(path, options.event_column, options.separator)
        weights = of_training if known else None
    return read_log(
        path,
        **{f"{role}_column": name for role, name in options.columns.items()},
        event_weights=weights,
        separator=options.separator,
        missing=options.missing,
        duplicates="keep-first",
    )

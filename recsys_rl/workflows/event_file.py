"""A file of people's events, as the options of a command describe it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recsys_rl.data.log import read_log
from recsys_rl.types import InteractionLog

if TYPE_CHECKING:
    from recsys_rl.workflows.evaluate import EvaluateConfig
    from recsys_rl.workflows.ranking import RankingConfig

COLUMNS = ("user_column", "item_column", "time_column", "rating_column", "weight_column")
"""Options that name the columns."""


def read_events(path: str | Path, options: EvaluateConfig | RankingConfig) -> InteractionLog:
    """The events in the file, with the columns, ``separator`` and ``missing`` of the options.

    Of repeated events the first is kept. Raises UserError.
    """
    columns = {name: getattr(options, name) for name in COLUMNS}
    return read_log(
        path, **columns, separator=options.separator, missing=options.missing, duplicates="keep-first"
    )

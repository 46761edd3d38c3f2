"""The policy of a team's own place over the items of a log: an export of a record has a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.stock import find_encoding, joined, over
from recsys_rl.data.tables.items import read_items, stock_items
from recsys_rl.data.tables.read import files_of, items_beside
from recsys_rl.logs.intervals import items_of_log


def over_log(checkpoint: Checkpoint, paths: Sequence[str]) -> Checkpoint:
    """The policy over the items beside the log at ``paths``; as it is without a file of them.

    Where some file of the log is no export, the items that the policy knows beside those stay.

    Raises UserError for a file that can't be read.
    """
    file, encoding = items_of_log(paths), find_encoding(checkpoint)
    if file is None or encoding is None:
        return checkpoint
    whole = all(items_beside(part).is_file() for path in paths for part in files_of(Path(path)))
    text_ids = whole or bool(checkpoint.catalogue.item_names)
    facts = read_items(file, "item", text_ids, encoding.columns)
    items = stock_items(facts.ids, facts)
    if not whole:
        items = joined(checkpoint, items, goes_on=False, clock=facts.clock)
    return over(checkpoint, items, clock=facts.clock)

"""The policy of a team's own place over the items of a log: an export of a record has a file of them."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.stock import encoding_of, has_encoding, joined, over
from recsys_rl.data.tables.items import read_items, stock_items
from recsys_rl.logs.intervals import items_of_log


def over_log(checkpoint: Checkpoint, paths: Sequence[str]) -> Checkpoint:
    """The policy over its items and those beside the log at ``paths``; as it is without such a file.

    Raises UserError for a file that can't be read.
    """
    file = items_of_log(paths)
    if file is None or not has_encoding(checkpoint):
        return checkpoint
    text_ids = bool(checkpoint.catalogue.item_names)
    facts = read_items(file, "item", text_ids, encoding_of(checkpoint).columns)
    items = joined(checkpoint, stock_items(facts.ids, facts), goes_on=False, clock=facts.clock)
    return over(checkpoint, items, clock=facts.clock)

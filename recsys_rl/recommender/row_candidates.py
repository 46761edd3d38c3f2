"""The candidates that each row of a file of contexts names: the only items that may be shown there."""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import Cells, spread
from recsys_rl.data.tables.findings import wrong
from recsys_rl.data.tables.read import TableFile
from recsys_rl.data.tables.schema import find_columns
from recsys_rl.data.tables.values import as_lists, as_texts, on, whole_number
from recsys_rl.recommender.recommender import Recommender


def candidates_column(table: TableFile, recommender: Recommender) -> str | None:
    """The column of the candidates, by the name that it had in the training or a common one; None without.

    Raises UserError if several columns may hold them.
    """
    trained = getattr(recommender.checkpoint.config.data_config, "candidates_column", None)
    given = {"candidates": trained} if trained in table.names else {}
    return find_columns(table.path, table.names, given, ("candidates",), ()).get("candidates")


def candidate_rows(
    cells: Cells, column: str, recommender: Recommender, allowed: Tensor
) -> tuple[Tensor, int]:
    """(N, C) int64: the rows in the catalogue of each row's candidates, with -1 after the end; and a number.

    The number counts ids that the catalogue lacks, which are left out. ``allowed`` (I,) bool: the items that
    may be shown. Raises UserError for a gap, and for a row without a candidate that may be shown.
    """
    lists = on(on(cells.filled(column), as_lists), as_texts)
    lengths, flat = lists.list.len(), lists.filter(lists.list.len() > 0).explode()
    keys = flat if recommender.catalogue.item_names else on(flat, whole_number)
    places = keys.replace_strict(dict(recommender.row_of_item), default=-1, return_dtype=pl.Int64)
    found = spread(lengths, torch.from_numpy(places.to_numpy().copy()))  # (N, C)
    left = ((found >= 0) & allowed[found.clamp_min(0)]).any(1)  # (N,)
    if not bool(left.all()):
        at = int((~left).nonzero()[0, 0])
        sentence = (
            "column {column!r} has no item in {row} that may be shown: name at least one of the catalogue, "
            "or leave the row out"
        )
        raise wrong(cells.name, sentence, row=cells.row(at), column=column)
    return found, int((places == -1).sum())

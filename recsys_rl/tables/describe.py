"""Describe a log file: events, or decisions of `recsys-rl record` and of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recsys_rl.errors import listed
from recsys_rl.tables.columns import OPTIONS, find_columns
from recsys_rl.tables.decision_survey import DecisionSurvey, is_log_of_decisions
from recsys_rl.tables.description import Description
from recsys_rl.tables.event_survey import Survey
from recsys_rl.tables.read import HEADLESS, files_of, has_header, open_table, pieces
from recsys_rl.tables.reader import check_pieces, files_of_log, read_header
from recsys_rl.tables.times import format_of
from recsys_rl.types import UserError

ROLES = (
    *("user", "item", "time", "rating", "weight", "session", "reward", "propensity", "policy", "candidates"),
    "event",
)


def describe(
    path: str | Path, separator: str | None = None, given: Mapping[str, str | None] | None = None
) -> Description:
    """Describe the file at ``path``. ``given`` names columns by role.

    Raises UserError if it is not a table file, has no row or no column with a known name, or lacks a part.
    """
    table = open_table(path, separator, HEADLESS)
    if has_header(path):
        files_of_log(Path(path))
    columns, _ = find_columns(Path(path), table.names, given or {}, ROLES, required=())
    if "item" not in columns and "items" in table.names:  # a slate for each row, as in a DecisionLog
        columns["item"] = "items"
    if not columns.keys() - {"event"}:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            f"{OPTIONS['user']}, {OPTIONS['item']} and others, put a header above the first line if it is a "
            "row of the data, or give --separator if these are not columns."
        )
    form = format_of(table, columns["time"]) if "time" in columns else None
    decisions = is_log_of_decisions(columns, table.names)
    survey = DecisionSurvey(columns, form, table.names) if decisions else Survey(columns, form)
    for start, piece in pieces(table, survey.reads()):
        survey.add(start, piece)
    if survey.rows == 0:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    if not has_header(path):
        return survey.finish(table)
    if not _is_whole(Path(path), bool(survey.found.problems)):
        text = "the rows are not those that were written, by the checksum in the header"
        survey.found.count(text, survey.rows, 1)
    return replace(survey.finish(table), catalogue_items=_items_of_header(Path(path)))


def _items_of_header(path: Path) -> int | None:
    """The number of items of the catalogue; None if the header can't be read."""
    try:
        return read_header(files_of(path)[0]).header.num_items
    except UserError:
        return None


def _is_whole(path: Path, wrong_values: bool) -> bool:
    """False if a log of `recsys-rl record` does not fit its checksum, or lacks its columns.

    A log with ``wrong_values`` can't be read, and its checksum is unknown.
    """
    try:
        check_pieces(path)
    except UserError as error:
        return wrong_values and "checksum" not in str(error)
    return True

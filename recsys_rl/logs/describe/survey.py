"""Describe a log, one file or several: events, or decisions of `recsys-rl record` and of others.

The file is scanned and not held in memory. Distinct users, items and repeated rows are counted by hashes, 8
bytes each. The rules of sessions alone keep up to 30 bytes a row, with hashes in place of ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from platform import node

import polars as pl

from recsys_rl.data.tables.layout import Layout, roles_of
from recsys_rl.data.tables.pieces import TextRule
from recsys_rl.data.tables.read import HEADLESS, files_of, has_header, parsing
from recsys_rl.data.tables.several import open_tables
from recsys_rl.errors import listed, one_line
from recsys_rl.logs.decision_log import DecisionHeader
from recsys_rl.logs.describe.decision_survey import DecisionSurvey
from recsys_rl.logs.describe.description import Description
from recsys_rl.logs.describe.event_survey import EventSurvey
from recsys_rl.logs.describe.learnable_survey import survey_learnable
from recsys_rl.logs.describe.logged_choices import LoggedChoices, timeline_beside
from recsys_rl.logs.reader import check_file, files_of_log, header_of_log
from recsys_rl.types import UserError
from recsys_rl.utils.tasks import MapTasks, in_this_process, note_one_task


def describe(
    log: str | Path | Sequence[str | Path],
    separator: str | None = None,
    given: Mapping[str, str | None] | None = None,
    map_tasks: MapTasks = in_this_process,
) -> Description:
    """Describe the file or files of a ``log``. ``given`` names columns by role.

    ``map_tasks`` compares each file of a recorded log with its checksum; all else is counted here.

    Raises UserError if it is not a table file, has no row or no column with a known name, or lacks a part.
    """
    paths = [Path(log)] if isinstance(log, str | Path) else [Path(one) for one in log]
    for folder in filter(Path.is_dir, paths):
        _check_columns(folder)
    table, recorded = open_tables(paths, separator, HEADLESS), has_header(paths[0])
    path = table.path  # of a recorded log the only one
    if not recorded:
        note_one_task(map_tasks, f"{one_line(path)} has no checksums")
    elif len(files_of_log(path)) == 1:
        note_one_task(map_tasks, f"{one_line(path)} is one file")
    roles = roles_of(table, given or {})
    if not roles.keys() - {"event"}:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            "--user-column, --item-column and others, put a header above the first line if it is a row of "
            "the data, or give --separator if these are not columns."
        )
    layout = Layout(table, roles)
    survey: DecisionSurvey | EventSurvey = EventSurvey(layout)
    if layout.holds_decisions:
        survey = DecisionSurvey(layout, recorded, TextRule.of(table, given or {}))
    if not survey.rows:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    problems, header = survey.problems(), _header(path) if recorded else None
    if recorded:
        if header is not None and header.applications:  # whose decisions may lack a propensity
            problems.pop(f"column {roles.get('propensity')!r} has no value", None)
        if not _is_whole(path, bool(problems), map_tasks):
            problems["the rows are not those that were written, by the checksum in the header"] = (
                survey.rows,
                1,
            )
    description = replace(survey.facts(), catalogue_items=None if header is None else header.num_items)
    if isinstance(survey, DecisionSurvey) and description.items:
        timeline = None if recorded else timeline_beside(paths, survey.layout)
        choices = LoggedChoices(survey.layout, description.items, description.slate_size, header, timeline)
        rewards = survey.rewards(description.ranges, (given or {}).get("reward") is not None)
        pieces = survey.context.pieces
        learnable = survey_learnable(choices, rewards, description.users, pieces, not problems)
        description = replace(description, learnable=learnable)
    return replace(description, problems=survey.listed(problems | survey.repeats() | survey.alone()))


def _check_columns(folder: Path) -> None:
    """Raise UserError for a folder whose files have different columns, as intervals of a record may have."""
    first, *others = files_of(folder)
    with parsing(folder):
        columns = {*pl.read_parquet_schema(first)}
        for file in others:
            different = columns ^ {*pl.read_parquet_schema(file)}
            if different:
                raise UserError(
                    f"{folder}: {one_line(first.name)} and {one_line(file.name)} have different columns "
                    f"({listed(sorted(different))}): describe each file by its own name."
                )


def _header(path: Path) -> DecisionHeader | None:
    """The header of a recorded log; None if it can't be read."""
    try:
        return header_of_log(path)
    except UserError:
        return None


def _is_whole(path: Path, wrong_values: bool, map_tasks: MapTasks) -> bool:
    """False if a log of `recsys-rl record` does not fit its checksum, or lacks its columns.

    A log with ``wrong_values`` can't be read, and its checksum is unknown.
    """
    problems = map_tasks(_problem, [file.absolute() for file in files_of_log(path)])
    problem = next(filter(None, problems), "")
    return not problem or (wrong_values and "checksum" not in problem)


def _problem(file: Path) -> str:
    """The sentence about a file that can't be read, or does not fit its checksum; "" for a sound one.

    Raises UserError if the file is not on this machine.
    """
    if not file.is_file():
        raise UserError(f"{one_line(file)} is not on {node()}: give a path that all machines share.")
    try:
        check_file(file)
    except UserError as error:
        return str(error)
    return ""

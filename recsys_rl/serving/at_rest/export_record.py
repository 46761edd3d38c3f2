"""`recsys-rl log export`: an interval of a record as a log, of our format or as a team's own table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.errors import amount, listed, one_line
from recsys_rl.logs.intervals import late_sentence
from recsys_rl.serving.at_rest.export_log import export
from recsys_rl.serving.at_rest.export_survey import Survey
from recsys_rl.serving.at_rest.export_table import TableExport, export_table
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import Interval


@dataclass(frozen=True)
class Exported:
    """The files of an interval, and what they hold."""

    interval: Interval
    files: dict[Path, int]  # the rows of each
    sessions: int
    notes: tuple[str, ...]

    @property
    def watermark(self) -> int:
        """The number that the next export takes as ``since``."""
        return self.interval.until


def export_record(record: Record, out: Path, interval: Interval) -> Exported:
    """Write the sessions of an interval (``interval_of``). Raises UserError if it has none.

    ``record``: of ``open_snapshot``, beside a running server; or of a server that has ended.
    """
    if record.of_own_log:
        done = export_table(record, out, interval)
        return Exported(interval, done.files, done.sessions, (*_about_tables(done),))
    survey, rows = export(record, out, interval)
    return Exported(interval, {out: rows}, len(survey.sessions), (*_about_log(survey),))


def _about_log(survey: Survey) -> Iterator[str]:
    if survey.unknown:
        names = one_line(listed([str(name) for name, _ in survey.applications]))
        yield (
            f"{amount(survey.unknown, 'decision')} of {names} without a probability: bc learns from them, "
            "and what weighs decisions by it leaves their sessions out"
        )
    if survey.without_candidates:
        left_out = amount(survey.without_candidates, "session")
        yield (
            f"{left_out} left out, as popularity answered for a policy whose first stage had proposed "
            "nothing: no log can hold both probabilities"
        )
    if survey.late_feedback:
        yield late_sentence(survey.late_feedback)


def _about_tables(done: TableExport) -> Iterator[str]:
    if done.unknown:
        yield f"{amount(done.unknown, 'decision')} without a probability: bc learns, and ope estimates them"
    if done.late_feedback:
        yield late_sentence(done.late_feedback)
    if done.never_shown:
        yield f"never shown: {amount(done.never_shown, 'item')} of the place"

"""`recsys-rl log export`: the finished sessions of a record as a log of decisions, for `ope` and training.

A session is written once it has matured: it has ended, and the time in which feedback counts is over. The
pieces of the context are those that the policy saw. Each session is read twice: for what all have in common,
and to be written.
"""

from __future__ import annotations

import time
from pathlib import Path

from recsys_rl.errors import UserError
from recsys_rl.evaluation.policies import candidate_rule
from recsys_rl.serve.log_rows import log_of, rows_of
from recsys_rl.serve.reading import Record
from recsys_rl.serve.survey import Logger, Survey, check_stages, survey_of
from recsys_rl.serve.versions import Version
from recsys_rl.tables.decision_log import DecisionHeader, catalogue_hash
from recsys_rl.tables.writer import DecisionWriter


def export(record: Record, out: Path, now: float | None = None) -> tuple[Survey, int]:
    """Write the log. Returns what was found, and the number of rows. Raises UserError."""
    now = time.time() if now is None else now
    survey = survey_of(record, now)
    if not survey.loggers:
        raise UserError(
            f"{record.name} has no session for a log ({survey.not_matured:,} have not matured, and in "
            f"{survey.unknown:,} popularity answered for a policy with a first stage): wait until a session "
            "has ended and its feedback window (--feedback-window of `recsys-rl serve`) is over."
        )
    check_stages(record, survey)
    header, people = _header(survey), record.people()
    with DecisionWriter(out, header) as writer:
        for group in record.groups(record.sessions(survey.sessions)):
            writer.write(log_of(header, rows_of(record, group, survey), survey, people))
    return survey, writer.num_rows


def _header(survey: Survey) -> DecisionHeader:
    first = next(iter(survey.loggers.values())).checkpoint
    rules = {candidate_rule(x.checkpoint, x.row.name) for (number, _), x in survey.loggers.items() if number}
    return DecisionHeader(
        loggers=tuple(_names(survey.loggers)),
        interface=first.interface,
        signals=first.interface.signals,
        discount=first.config.agent_config.discount,
        platform=first.config.env,
        catalogue=catalogue_hash(first.catalogue),
        candidates=rules.pop() if len(rules) == 1 else "",
    )


def _names(loggers: dict[Logger, Version]) -> list[str]:
    """A name of each logger. The first policy of a name has it alone, as `ope` knows it."""
    found: list[str] = []
    for (number, explore), version in loggers.items():
        name = version.row.name if number else "popularity-drawn"
        if explore:
            name = f"{1 - explore:g} {name} + {explore:g} random"
        found.append(name if name not in found else f"{name} ({version.row.sha256[:8]})")
    return found

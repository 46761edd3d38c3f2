"""`recsys-rl log export`: the finished sessions of a record as a log of decisions, for `ope` and training.

A session is written once it has matured: it has ended, and the time in which feedback counts is over. The
pieces of the context are those that the policy saw. Each session is read twice: for the survey, and to be
written. A list of n single items is n rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.evaluation.policies import candidate_rule
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble
from recsys_rl.logs.writer import DecisionWriter
from recsys_rl.recommender import Visit
from recsys_rl.serving.at_rest.export_arms import with_arms
from recsys_rl.serving.at_rest.export_survey import (
    Survey,
    check_stages,
    logger_names,
    logger_of,
    survey_of,
    times_of,
)
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import Interval, nothing
from recsys_rl.serving.draw.decide_again import Replayed, replay
from recsys_rl.serving.draw.draw_request import DrawRequest, draw
from recsys_rl.serving.draw.session_state import PackedVisit, SessionState, events_left, pack
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Decision, SessionRows
from recsys_rl.session import PIECES
from recsys_rl.types import Interface
from recsys_rl.utils.user_hashes import number_of

NUMBER = re.compile("0|[1-9][0-9]{0,18}")


def export(record: Record, out: Path, interval: Interval) -> tuple[Survey, int]:
    """Write the log of an interval. Returns the survey, and the number of rows. Raises UserError."""
    survey = survey_of(record, interval)
    if not survey.loggers:
        left_out = f", and in {survey.without_candidates:,} popularity answered for a first stage"
        raise nothing(record, interval, left_out if survey.without_candidates else "")
    check_stages(record, survey)
    header = _header(survey)
    numbers, late = (interval.since, interval.until), survey.late_feedback
    with DecisionWriter(out, header, interval=numbers, late=late) as writer:
        for group in record.groups(record.sessions(survey.sessions)):
            people = record.people({rows.session.person for rows in group})
            writer.write(_log_of(header, _rows_of(record, group, survey), survey, people))
    return survey, writer.num_rows


def _header(survey: Survey) -> DecisionHeader:
    version = next(iter(survey.loggers.values()))
    first, consumed = version.checkpoint, version.full_signals
    rules = {
        candidate_rule(version.checkpoint, version.row.name)
        for logger, version in survey.loggers.items()
        if logger[0] and logger not in survey.applications
    }
    names = logger_names({logger: version.row for logger, version in survey.loggers.items()})
    loggers = tuple(names.values())
    if survey.arms and not survey.applications:  # each row has its probability under the arms together
        loggers = (" + ".join(loggers),)
    return DecisionHeader(
        loggers=loggers,
        interface=first.interface,
        signals=first.interface.signals,
        discount=first.config.agent_config.discount,
        platform=first.config.env,
        catalogue=catalogue_hash(first.catalogue),
        candidates=rules.pop() if len(rules) == 1 else "",
        applications=tuple(names[number] for number in survey.applications),
        consumed=tuple(consumed) if "list_place" in survey.limits and set(consumed) != {1.0} else (),
        requested="exclude" in survey.limits and "forbidden" not in survey.limits,
    )


@dataclass
class LogRow:
    """One row of the log."""

    session: SessionState  # at its end
    step: int
    time: int  # as of ``times_of``
    decision: Decision
    items: Sequence[int]
    logprobs: Sequence[float]  # of each place; of the whole slate, or none, where an application chose
    visit: Visit  # before it
    candidates: list[int] | None
    exclude: list[int]
    list_place: int  # rows of its list before it
    above: tuple[int, ...]  # their items
    showable: list[int]  # that could be shown; empty where the log does not name them
    by_logger: list[float] = field(default_factory=list)  # its log-probability under each logger


def _rows_of(record: Record, group: Sequence[SessionRows], survey: Survey) -> list[LogRow]:
    """The rows of some sessions, ordered by session and step. Raises UserError."""
    group = with_arms(record, group)
    ended = [record.state_of(rows) for rows in group]
    times = [times_of(session) for session in ended]
    by_session: list[list[LogRow]] = [[] for _ in group]
    for step in replay(group, record.place, report=True):
        for again in step:
            time = times[again.at][again.decision.number]
            by_session[again.at] += _rows_of_decision(ended[again.at], time, again, survey)
    rows = [row for session_rows in by_session for row in session_rows]
    if survey.each_known:
        _add_logprobs(rows, survey, record)
    return rows


def _rows_of_decision(session: SessionState, time: int, again: Replayed, survey: Survey) -> Iterator[LogRow]:
    decision, checkpoint = again.decision, again.request.version.checkpoint
    catalogue, slate = checkpoint.catalogue, checkpoint.interface.slate_size
    for index, drawn in enumerate(again.result.rounds):
        places = slice(index * slate, (index + 1) * slate)
        candidates = None
        if decision.candidates is not None:
            candidates = [*decision.candidates]
            if drawn.obs.candidates is not None:
                candidates = [item for item in drawn.obs.candidates[0].tolist() if item >= 0]
        forbidden: list[int] = []  # by the platform; the reader knows only what is available
        if drawn.obs.mask is not None:
            forbidden = (~drawn.obs.mask[0] & catalogue.available).nonzero().squeeze(1).tolist()
        if decision.application:  # what it showed could be shown there, whatever the platform forbids
            shown = decision.items[places]
            forbidden = [item for item in forbidden if item not in shown]
            candidates = None if candidates is None else [*dict.fromkeys((*candidates, *shown))]
        showable = list[int]()
        if "candidates" in survey.limits:
            could = drawn.obs.showable(catalogue.num_items)[0] & catalogue.available
            could[list(decision.items[places])] = True  # of an application, too
            showable = could.nonzero().squeeze(1).tolist()
        yield LogRow(
            session=session,
            step=decision.step + index,
            time=time,
            decision=decision,
            items=decision.items[places],
            logprobs=decision.logprobs[places],
            visit=drawn.visit,
            candidates=candidates,
            exclude=[*dict.fromkeys((*decision.exclude, *forbidden))],
            list_place=index,
            above=decision.items[: index * slate],
            showable=showable,
        )


def _add_logprobs(rows: Sequence[LogRow], survey: Survey, record: Record) -> None:
    """Add the log-probability of each row under each logger, from the checkpoints. Raises UserError."""
    for (number, explore), place in survey.loggers.items():
        version = record.version_of(place.row.sha256)
        requests = [
            DrawRequest(
                number=row.decision.number,
                version=version,
                population_row=row.session.row.population_row,
                likes=row.session.row.likes,
                began=row.decision.hour,
                packed=_packed_for(version, row.visit),
                steps=(),
                hour=row.decision.hour,
                uniforms=(0.0,) * len(row.items),
                candidates=None if row.candidates is None else tuple(row.candidates),
                exclude=(*row.exclude, *row.above),
                explore=explore,
                degraded="" if number else "other",
                items=tuple(row.items),
            )
            for row in rows
        ]
        for row, result in zip(rows, draw(requests), strict=True):
            row.by_logger.append(sum(result.logprobs) if not result.error else -torch.inf)
    loggers = [*survey.loggers]
    for row in rows:  # of its own logger the record holds the exact number
        row.by_logger[loggers.index(logger_of(row.decision))] = sum(row.logprobs)


def _packed_for(version: Version, visit: Visit) -> PackedVisit:
    return pack(replace(visit, checkpoint=version.checkpoint))[0]


def _log_of(
    header: DecisionHeader, rows: Sequence[LogRow], survey: Survey, people: Mapping[int, str]
) -> DecisionLog:
    """The rows as tensors. ``people``: the name of each person by the number in the record."""
    interface, first = header.interface, next(iter(survey.loggers.values())).checkpoint
    ids, texts = first.population.user_ids, bool(first.population.user_names)
    steps = [row.session.steps[row.step] for row in rows]
    last = [row.step + 1 == len(row.session.steps) for row in rows]
    cut = [row.session.truncated for row in rows]
    loggers = [*survey.loggers]
    several = interface.slate_size > 1
    event_items = event_signals = None
    if interface.events:
        event_items, event_signals = events_left(steps, interface, survey.most_left)
    place_logprobs, logprobs = _logprobs_of(rows, survey)
    candidates = exclude = None
    if "candidates" in survey.limits:
        candidates = _padded([row.showable for row in rows])
    if "exclude" in survey.limits:
        exclude = _padded([row.exclude for row in rows])
    return assemble(
        header,
        users=torch.tensor(
            [
                int(ids[session.population_row])
                if session.population_row >= 0
                else _id_of(people[session.person], texts)
                for session in (row.session.row for row in rows)
            ]
        ),
        sessions=torch.tensor([row.session.row.number for row in rows]),
        steps=torch.tensor([row.step for row in rows]),
        times=torch.tensor([row.time for row in rows]),
        items=torch.tensor([row.items for row in rows]),
        logprobs=logprobs,
        signals=torch.tensor([step.signals for step in steps]).view(
            len(rows), interface.slate_size, len(interface.signals)
        ),
        terminated=torch.tensor([is_last and not is_cut for is_last, is_cut in zip(last, cut, strict=True)]),
        truncated=torch.tensor([is_last and is_cut for is_last, is_cut in zip(last, cut, strict=True)]),
        loggers=torch.tensor(
            [loggers.index(logger_of(row.decision)) if len(header.loggers) > 1 else 0 for row in rows]
        ),
        given=_pieces([row.visit for row in rows], interface),
        place_logprobs=place_logprobs if several else None,
        logger_logprobs=(
            torch.tensor([row.by_logger for row in rows], dtype=torch.float64) if survey.each_known else None
        ),
        candidates=candidates,
        exclude=exclude,
        list_place=torch.tensor([row.list_place for row in rows]) if "list_place" in survey.limits else None,
        event_items=event_items,
        event_signals=event_signals,
    )


def _logprobs_of(rows: Sequence[LogRow], survey: Survey) -> tuple[Tensor | None, Tensor]:
    """The log-probabilities of the places (E, K), None where some are unknown, and of the rows (E,)."""
    if survey.factors:
        of_places = torch.tensor([row.logprobs for row in rows], dtype=torch.float64)
        return of_places, of_places.sum(1)
    sums = [sum(row.logprobs) if row.logprobs else torch.nan for row in rows]
    return None, torch.tensor(sums, dtype=torch.float64)


def _id_of(name: str, texts: bool) -> int:
    """The id of a stranger: the own one, where those of the data are numbers, too; else one made of the name.

    Later data may know this person, by the same id, and on the same side of a split by users.
    """
    number = int(name) if not texts and NUMBER.fullmatch(name) else 1 << 63
    return number if number < 1 << 63 else number_of(name)


def _pieces(visits: Sequence[Visit], interface: Interface) -> dict[str, Tensor]:
    """The pieces of the context that no session derives, (E, size) each."""
    names = [name for name, _ in interface.context if name not in PIECES]
    parts = [visit.pieces() for visit in visits]
    return {name: torch.cat([piece[name] for piece in parts]) for name in names}


def _padded(lists: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *(len(entries) for entries in lists))
    return torch.tensor([[*entries, *[-1] * (width - len(entries))] for entries in lists])

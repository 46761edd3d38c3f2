"""`recsys-rl log export`: the finished sessions of a record as a log of decisions, for `ope` and training.

A session is written once it has matured: it has ended, and the time in which feedback counts is over. A list
of n single items is n steps. The pieces of the context are those that the policy saw.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionHeader, DecisionLog, catalogue_hash
from recsys_rl.decisions.writer import DecisionWriter
from recsys_rl.errors import UserError
from recsys_rl.evaluation.policies import candidate_rule
from recsys_rl.recommender import Visit
from recsys_rl.serve.inference import Ask, Drawn, draw
from recsys_rl.serve.reading import Record
from recsys_rl.serve.replay import walk
from recsys_rl.serve.rows import Decision, Whole
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit
from recsys_rl.session import PIECES
from recsys_rl.types import Interface

Logger = tuple[int, float]
"""The number of a policy in the record, 0 for popularity, and the probability of a uniform choice."""


@dataclass
class Survey:
    """What all pieces of a log have in common, and what is left out."""

    loggers: dict[Logger, Version] = field(default_factory=dict)
    sessions: int = 0
    not_matured: int = 0
    unknown: int = 0  # sessions that are left out, as ``_unknown`` says
    late: int = 0  # sessions with an event that came after the next decision
    limits: set[str] = field(default_factory=set)  # "exclude", "candidates"
    left: int = 1  # most items that were left after a step


@dataclass
class Row:
    """One row of the log."""

    whole: Whole
    step: int
    decision: Decision
    items: Sequence[int]
    logprobs: Sequence[float]
    visit: Visit  # before it
    candidates: list[int] | None
    exclude: list[int]
    by_logger: list[float] = field(default_factory=list)


def export(record: Record, out: Path, now: float | None = None) -> tuple[Survey, int]:
    """Write the log. Returns what was found, and the number of rows. Raises UserError."""
    now = time.time() if now is None else now
    survey = _survey(record, now)
    if not survey.loggers:
        raise UserError(
            f"{record.name} has no session for a log ({survey.not_matured:,} have not matured, and in "
            f"{survey.unknown:,} popularity answered for a policy with a first stage): wait until a session "
            "has ended and its feedback window (--feedback-window of `recsys-rl serve`) is over."
        )
    _check_stages(record, survey)
    header = _header(survey)
    with DecisionWriter(out, header) as writer:
        wholes = (x for x in record.sessions() if _state(record, x).matured(now) and not _unknown(record, x))
        for group in record.groups(wholes):
            rows = list(_rows(record, group, survey))
            if len(survey.loggers) > 1:
                _judge(rows, survey)
            writer.write(_log(record, header, rows, survey))
    return survey, writer.num_rows


def _state(record: Record, whole: Whole) -> ServedVisit:
    return ServedVisit.of(whole, record.version(whole[1][0]).checkpoint.interface)


def _survey(record: Record, now: float) -> Survey:
    survey = Survey()
    for whole in record.sessions():
        state = _state(record, whole)
        if not state.matured(now):
            survey.not_matured += 1
            continue
        if _unknown(record, whole):
            survey.unknown += 1
            continue
        survey.sessions += 1
        survey.left = max(survey.left, *(len(step.left) for step in state.steps))
        following = dict(zip(state.decisions, state.decisions[1:], strict=False))
        by_number = {x.number: x for x in state.decisions}
        survey.late += any(
            (after := following.get(by_number[event.decision])) is not None and event.number > after.number
            for event in state.events
        )
        for decision in state.decisions:
            survey.loggers.setdefault(_logger(decision), record.version(decision))
            listed = len(decision.items) > 1 and state.interface.slate_size == 1
            if decision.exclude or listed or _forbids(record.version(decision)):
                survey.limits.add("exclude")
            if decision.candidates is not None:
                survey.limits.add("candidates")
    return survey


def _unknown(record: Record, whole: Whole) -> bool:
    """True if popularity answered for a policy with a first stage, whose candidates were not proposed."""
    return any(x.degraded and record.version(x).two_stages for x in whole[1])


def _check_stages(record: Record, survey: Survey) -> None:
    """Raise UserError for a first stage in a log of several policies, as its ``logger_logprobs`` are unknown.

    The record holds what the first stage of the policy that decided proposed, and that of no other. With
    another share of exploration it proposes the same.
    """
    numbers = {number for number, _ in survey.loggers}
    staged = [x.row.name for (number, _), x in survey.loggers.items() if number and x.two_stages]
    if staged and len(numbers) > 1:
        raise UserError(
            f"{record.name} has decisions of {len(numbers)} policies, and {staged[0]} chooses among "
            "candidates of its first stage, so it can't share a log: serve it with a record of its own."
        )


def _forbids(version: Version) -> bool:
    """True if the platform forbids some available items at some steps."""
    pieces = version.checkpoint.config.platform.visit_pieces
    return pieces is not None and pieces.permits is not None


def _logger(decision: Decision) -> Logger:
    return (0 if decision.degraded else decision.policy), decision.explore


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


def _rows(record: Record, group: Sequence[Whole], survey: Survey) -> Iterator[Row]:
    """The rows of some sessions, ordered by session and step."""
    by_session: list[list[Row]] = [[] for _ in group]
    for step in walk(group, record.version, report=True):
        for at, decision, ask, drawn in step:
            by_session[at] += _places(group[at], decision, ask, drawn)
    for rows in by_session:
        yield from rows


def _places(whole: Whole, decision: Decision, ask: Ask, drawn: Drawn) -> Iterator[Row]:
    catalogue = ask.version.checkpoint.catalogue
    slate = ask.version.checkpoint.interface.slate_size
    for place, seen in enumerate(drawn.places):
        of = slice(place * slate, (place + 1) * slate)
        before = decision.items[: place * slate]
        candidates = None
        if decision.candidates is not None:
            candidates = [*decision.candidates]
            if seen.obs.candidates is not None:
                candidates = [x for x in seen.obs.candidates[0].tolist() if x >= 0]
        forbidden: list[int] = []  # by the platform; the reader knows only what is available
        if seen.obs.mask is not None:
            forbidden = (~seen.obs.mask[0] & catalogue.available).nonzero().squeeze(1).tolist()
        yield Row(
            whole=whole,
            step=decision.step + place,
            decision=decision,
            items=decision.items[of],
            logprobs=decision.logprobs[of],
            visit=seen.visit,
            candidates=candidates,
            exclude=[*dict.fromkeys((*decision.exclude, *before, *forbidden))],
        )


def _judge(rows: Sequence[Row], survey: Survey) -> None:
    """Add the log-probability of each row under each logger, from the sealed versions."""
    for (number, explore), version in survey.loggers.items():
        asks = [
            Ask(
                number=row.decision.number,
                version=version,
                known=row.whole[0].known,
                likes=row.whole[0].likes,
                began=row.decision.hour,
                base=_of(row.visit, version),
                steps=(),
                hour=row.decision.hour,
                uniforms=(0.0,) * len(row.items),
                candidates=None if row.candidates is None else tuple(row.candidates),
                exclude=tuple(row.exclude),
                explore=explore,
                degraded="" if number else "other",
                items=tuple(row.items),
            )
            for row in rows
        ]
        for row, drawn in zip(rows, draw(asks), strict=True):
            row.by_logger.append(sum(drawn.logprobs) if not drawn.error else -torch.inf)
    loggers = [*survey.loggers]
    for row in rows:  # of its own logger the record holds the exact number
        row.by_logger[loggers.index(_logger(row.decision))] = sum(row.logprobs)


def _of(visit: Visit, version: Version) -> Visit:
    return replace(visit, checkpoint=version.checkpoint)


def _log(record: Record, header: DecisionHeader, rows: Sequence[Row], survey: Survey) -> DecisionLog:
    """The rows as tensors."""
    interface, first = header.interface, next(iter(survey.loggers.values())).checkpoint
    ids = first.population.user_ids
    stranger = int(ids.max()) + 1 if len(ids) else 0
    states = {row.whole[0].number: row.whole for row in rows}
    finished = {number: _state(record, whole) for number, whole in states.items()}
    steps = [finished[row.whole[0].number].steps[row.step] for row in rows]
    last = [row.step + 1 == len(finished[row.whole[0].number].steps) for row in rows]
    cut = [finished[row.whole[0].number].truncated for row in rows]
    pieces = _pieces([row.visit for row in rows], interface)
    loggers = [*survey.loggers]
    several = interface.slate_size > 1
    event_items = event_signals = None
    if interface.events:
        nothing = [0.0] * len(interface.signals)
        gaps = [survey.left - len(step.left) for step in steps]
        event_items = torch.tensor([[*x.left, *[-1] * gap] for x, gap in zip(steps, gaps, strict=True)])
        event_signals = torch.tensor(
            [[*x.left.values(), *[nothing] * gap] for x, gap in zip(steps, gaps, strict=True)]
        )
    logprobs = torch.tensor([row.logprobs for row in rows], dtype=torch.float64)  # (E, K)
    everything = first.catalogue.available.nonzero().squeeze(1).tolist()
    candidates = exclude = None
    if "candidates" in survey.limits:
        candidates = _padded([everything if x.candidates is None else x.candidates for x in rows])
    if "exclude" in survey.limits:
        exclude = _padded([row.exclude for row in rows])
    return DecisionLog(
        header=header,
        users=torch.tensor(
            [
                int(ids[x.whole[0].known]) if x.whole[0].known >= 0 else stranger + x.whole[0].person
                for x in rows
            ]
        ),
        sessions=torch.tensor([row.whole[0].number for row in rows]),
        steps=torch.tensor([row.step for row in rows]),
        times=_times(rows),
        items=torch.tensor([row.items for row in rows]),
        logprobs=logprobs.sum(1),
        signals=torch.tensor([step.signals for step in steps]).view(
            len(rows), interface.slate_size, len(interface.signals)
        ),
        terminated=torch.tensor([x and not y for x, y in zip(last, cut, strict=True)]),
        truncated=torch.tensor([x and y for x, y in zip(last, cut, strict=True)]),
        loggers=torch.tensor([loggers.index(_logger(row.decision)) for row in rows]),
        given=pieces,
        place_logprobs=logprobs if several else None,
        logger_logprobs=(
            torch.tensor([row.by_logger for row in rows], dtype=torch.float64) if len(loggers) > 1 else None
        ),
        candidates=candidates,
        exclude=exclude,
        event_items=event_items,
        event_signals=event_signals,
    )


def _times(rows: Sequence[Row]) -> Tensor:
    """(E,): milliseconds since 1970; they do not fall within a session, even if the clock was set back."""
    found, session = [0], -1
    for row in rows:
        time_ = int(1000 * row.decision.time)
        found.append(max(found[-1], time_) if row.whole[0].number == session else time_)
        session = row.whole[0].number
    return torch.tensor(found[1:])


def _pieces(visits: Sequence[Visit], interface: Interface) -> dict[str, Tensor]:
    """The pieces of the context that no session derives, (E, size) each."""
    names = [name for name, _ in interface.context if name not in PIECES]
    parts = [visit.pieces() for visit in visits]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _padded(lists: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *(len(x) for x in lists))
    return torch.tensor([[*x, *[-1] * (width - len(x))] for x in lists])

"""Sessions of a record -> rows of a log of decisions -> tensors. A list of n single items is n rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys_rl.recommender import Visit
from recsys_rl.serve.inference import Ask, Drawn, draw
from recsys_rl.serve.kept import Kept, kept
from recsys_rl.serve.reading import Record
from recsys_rl.serve.replay import walk
from recsys_rl.serve.rows import Decision, Whole
from recsys_rl.serve.survey import Survey, logger_of, state_of
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit, Step
from recsys_rl.session import PIECES
from recsys_rl.tables.decision_log import DecisionHeader, DecisionLog
from recsys_rl.types import Interface
from recsys_rl.utils.user_hashes import number_of

NUMBER = re.compile("0|[1-9][0-9]{0,18}")


@dataclass
class Row:
    """One row of the log."""

    session: ServedVisit  # at its end
    step: int
    decision: Decision
    items: Sequence[int]
    logprobs: Sequence[float]
    visit: Visit  # before it
    candidates: list[int] | None
    exclude: list[int]
    by_logger: list[float] = field(default_factory=list)


def rows_of(record: Record, group: Sequence[Whole], survey: Survey) -> list[Row]:
    """The rows of some sessions, ordered by session and step. Raises UserError."""
    ended = [state_of(record, whole) for whole in group]
    by_session: list[list[Row]] = [[] for _ in group]
    for step in walk(group, record.version, report=True):
        for at, decision, ask, drawn in step:
            by_session[at] += _places(ended[at], decision, ask, drawn)
    rows = [row for own in by_session for row in own]
    if len(survey.loggers) > 1:
        _judge(rows, survey)
    return rows


def _places(session: ServedVisit, decision: Decision, ask: Ask, drawn: Drawn) -> Iterator[Row]:
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
            session=session,
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
                known=row.session.row.known,
                likes=row.session.row.likes,
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
        row.by_logger[loggers.index(logger_of(row.decision))] = sum(row.logprobs)


def _of(visit: Visit, version: Version) -> Kept:
    return kept(replace(visit, checkpoint=version.checkpoint))[0]


def log_of(
    header: DecisionHeader, rows: Sequence[Row], survey: Survey, people: Mapping[int, str]
) -> DecisionLog:
    """The rows as tensors. ``people``: the name of each person by the number in the record."""
    interface, first = header.interface, next(iter(survey.loggers.values())).checkpoint
    ids, texts = first.population.user_ids, bool(first.population.user_names)
    steps = [row.session.steps[row.step] for row in rows]
    last = [row.step + 1 == len(row.session.steps) for row in rows]
    cut = [row.session.truncated for row in rows]
    pieces = _pieces([row.visit for row in rows], interface)
    loggers = [*survey.loggers]
    several = interface.slate_size > 1
    event_items, event_signals = _left(steps, interface, survey.left)
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
                int(ids[x.known]) if x.known >= 0 else _id_of(people[x.person], texts)
                for x in (y.session.row for y in rows)
            ]
        ),
        sessions=torch.tensor([row.session.row.number for row in rows]),
        steps=torch.tensor([row.step for row in rows]),
        times=_times(rows),
        items=torch.tensor([row.items for row in rows]),
        logprobs=logprobs.sum(1),
        signals=torch.tensor([step.signals for step in steps]).view(
            len(rows), interface.slate_size, len(interface.signals)
        ),
        terminated=torch.tensor([x and not y for x, y in zip(last, cut, strict=True)]),
        truncated=torch.tensor([x and y for x, y in zip(last, cut, strict=True)]),
        loggers=torch.tensor([loggers.index(logger_of(row.decision)) for row in rows]),
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


def _id_of(name: str, texts: bool) -> int:
    """The id of a stranger: the own one, where those of the data are numbers, too; else one made of the name.

    Later data may know this person, by the same id, and on the same side of a split by users.
    """
    number = int(name) if not texts and NUMBER.fullmatch(name) else 1 << 63
    return number if number < 1 << 63 else number_of(name)


def _left(steps: Sequence[Step], interface: Interface, most: int) -> tuple[Tensor | None, Tensor | None]:
    """Items left after each step (E, most) and their signals (E, most, S), of a history with events."""
    if not interface.events:
        return None, None
    nothing = [0.0] * len(interface.signals)
    gaps = [most - len(step.left) for step in steps]
    items = [[*x.left, *[-1] * gap] for x, gap in zip(steps, gaps, strict=True)]
    signals = [[*x.left.values(), *[nothing] * gap] for x, gap in zip(steps, gaps, strict=True)]
    return torch.tensor(items), torch.tensor(signals)


def _times(rows: Sequence[Row]) -> Tensor:
    """(E,): milliseconds since 1970; they do not fall within a session, even if the clock was set back."""
    found, session = [0], -1
    for row in rows:
        time_ = int(1000 * row.decision.time)
        found.append(max(found[-1], time_) if row.session.row.number == session else time_)
        session = row.session.row.number
    return torch.tensor(found[1:])


def _pieces(visits: Sequence[Visit], interface: Interface) -> dict[str, Tensor]:
    """The pieces of the context that no session derives, (E, size) each."""
    names = [name for name, _ in interface.context if name not in PIECES]
    parts = [visit.pieces() for visit in visits]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _padded(lists: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *(len(x) for x in lists))
    return torch.tensor([[*x, *[-1] * (width - len(x))] for x in lists])

"""A log of sessions by two loggers, and the same in parts."""

from __future__ import annotations

from pathlib import Path

import torch

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.writer import write_decisions
from recsys_rl.types import Interface

ITEMS = 4


def log_of(sessions: int, steps: int, seed: int = 0) -> DecisionLog:
    """Sessions of one up to ``steps`` steps by two loggers, one uniform."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (sessions,), generator=rng)
    session = torch.arange(sessions).repeat_interleave(lengths)
    step = torch.arange(len(session)) - (lengths.cumsum(0) - lengths)[session]
    loggers = (torch.arange(sessions) % 3 > 0).long()[session]
    chances = torch.tensor([[0.25] * 4, [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    items = torch.multinomial(chances[loggers], 1, generator=rng)  # (E, 1)
    of_items = chances[:, items[:, 0]].T.log()  # (E, 2)
    liked = torch.rand(len(session), 1, 1, generator=rng) < 0.2 * (1 + items.unsqueeze(2))
    interface = Interface(
        context=(("profile", 4),), action_sizes=(ITEMS,), repeats=True, signals=("click",),
        session_length=steps,
    )  # fmt: skip
    return DecisionLog(
        header=DecisionHeader(loggers=("a", "b"), interface=interface, signals=("click",)),
        users=session % 40,
        sessions=session,
        steps=step,
        times=step,
        items=items,
        logprobs=of_items.gather(1, loggers.unsqueeze(1)).squeeze(1),
        logger_logprobs=of_items,
        signals=liked.float(),
        terminated=step == lengths[session] - 1,
        truncated=torch.zeros(len(session), dtype=torch.bool),
        loggers=loggers,
        given={"profile": torch.randn(len(session), 4, generator=rng)},
    )


def cut(log: DecisionLog, *sessions: int) -> list[DecisionLog]:
    """The log in parts that begin at these sessions."""
    edges = torch.bucketize(log.sessions, torch.tensor(sessions), right=True)  # (E,)
    return [log.rows(edges == k) for k in range(len(sessions) + 1)]


def write_parts(folder: Path, log: DecisionLog, number: int) -> Path:
    """The folder with the log in so many files, each with as many sessions."""
    sessions = int(log.sessions[-1]) + 1
    for place, part in enumerate(cut(log, *(sessions * k // number for k in range(1, number)))):
        write_decisions(folder / f"{place:02}.parquet", part)
    return folder

"""A recorded log of sessions of two steps, two sessions a user, for tests of descriptions."""

from __future__ import annotations

from typing import Any

import torch

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.types import Interface


def two_steps(rows: int, num_items: int, repeats: bool = True, **columns: Any) -> DecisionLog:
    """A log of one logger, or of two that ``columns`` tell; these replace the columns, or add some."""
    numbers = torch.arange(rows)
    loggers = ("old",) if "logger_logprobs" not in columns else ("old", "new")
    interface = Interface(
        context=(("profile", 2),),
        action_sizes=(num_items,),
        repeats=repeats,
        signals=("click",),
        session_length=2,
    )
    return DecisionLog(
        **{
            "header": DecisionHeader(loggers=loggers, interface=interface, signals=("click",)),
            "users": numbers // 4,
            "sessions": numbers // 2,
            "steps": numbers % 2,
            "times": numbers,
            "items": (numbers % 5).unsqueeze(1),
            "signals": (numbers % 4).float().view(rows, 1, 1),
            "terminated": numbers % 2 == 1,
            "truncated": torch.zeros(rows, dtype=torch.bool),
            "loggers": torch.zeros(rows, dtype=torch.int64),
            "given": {"profile": torch.zeros(rows, 2)},
            **columns,
        }
    )

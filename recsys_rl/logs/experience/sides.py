"""The two sides of a log: decisions to learn from, and those of users who are held out."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.errors import UserError, amount
from recsys_rl.logs.decision_log import DecisionLog


class Sides:
    """Decisions and users of a log on either side: those that are learned from, and those held out."""

    def __init__(self, unit: str) -> None:
        """``unit``: the noun for a user."""
        self.unit, self.rows = unit, [0, 0]
        self.users = [torch.empty(0, dtype=torch.int64)] * 2
        self.last: int | None = None  # the last time of the side that is learned from, in the log's unit

    def add(self, log: DecisionLog, heldout: Tensor) -> None:
        """Count a part of the log; ``heldout`` (E,) bool."""
        for side, mask in enumerate((~heldout, heldout)):
            self.rows[side] += int(mask.sum())
            self.users[side] = torch.cat([self.users[side], log.users[mask]]).unique()
        if not bool(heldout.all()):
            last = int(log.times[~heldout].max())
            self.last = last if self.last is None else max(self.last, last)

    @property
    def num_users(self) -> int | None:
        """Users on both sides; None for a log without users."""
        return sum(map(len, self.users)) if self.unit == "user" else None

    def check(self, name: str) -> None:
        """Raise UserError about the log ``name`` if all its decisions are held out."""
        if self.rows[1] and not self.rows[0]:
            raise UserError(
                f"{name} holds no decisions to learn from: all its {self.unit}s are held out from training. "
                f"Give a log of more {self.unit}s; recsys-rl record --users train records those of training."
            )

    @property
    def text(self) -> str:
        train, held = (
            amount(rows, "decision") + f" of {amount(len(users), self.unit)}" * (self.unit != "decision")
            for rows, users in zip(self.rows, self.users, strict=True)
        )
        return f"{train} for training, {held} held out"

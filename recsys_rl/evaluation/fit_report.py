"""The report on learned users: their losses on held-out sessions."""

from __future__ import annotations

from typing import Any

import torch

from recsys_rl.checkpoint.users import LearnedFile
from recsys_rl.models.user_fit import loss_of
from recsys_rl.protocols import UserModel
from recsys_rl.types import SessionTable, World


def fit_report(
    file: LearnedFile, held: SessionTable, fitted: SessionTable, users: UserModel | None, world: World
) -> dict[str, Any]:
    with torch.no_grad():
        return {"loss": [float(loss_of(member, held)) for member in file.members]}


def print_fit_report(report: dict[str, Any]) -> None:
    print(report)

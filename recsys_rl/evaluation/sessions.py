"""The values of the report's page beside the table: settings, learning curve, sample sessions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.bias import share_of
from recsys_rl.data.world_check import about_check
from recsys_rl.evaluation.categories import categories
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.report import Page
from recsys_rl.evaluation.rivals.references import Search
from recsys_rl.evaluation.samples import samples
from recsys_rl.evaluation.stream_curves import stream_curves
from recsys_rl.evaluation.table import Played
from recsys_rl.make import assumptions, make_user_model
from recsys_rl.protocols import PatientUsers
from recsys_rl.settings.config import to_dict
from recsys_rl.version import __version__

STRANGERS = "strangers: all profiles are withheld"


def page_of(entry: Entry, users: Tensor, result: Mapping[str, Any], played: Mapping[str, Played]) -> Page:
    """The page of one checkpoint: the table (``result``) and what is beside it."""
    checkpoint, config = entry.checkpoint, entry.config
    compared = (f"{entry.name}-greedy", result["yardstick"], "myopic")
    sessions, tick = samples(checkpoint, users, compared, played)
    return Page(
        **{
            field.name: result[field.name]
            for field in fields(Page)
            if field.name in result and field.name != "sessions"
        },
        algo=entry.name,
        data=_data(checkpoint) + (f"; {STRANGERS}" if result.get("strangers") else ""),
        data_check=about_check(checkpoint.population.ranking, share_of(checkpoint.catalogue)),
        seed=config.train_config.seed,
        step=checkpoint.step,
        heldout_users=result["sessions"],
        hardware=f"{platform.machine()}; the table was played with --threads {torch.get_num_threads()}",
        date=datetime.now(UTC).date().isoformat(),
        version=__version__,
        config={name: section for name, section in to_dict(config).items() if isinstance(section, dict)},
        curve=_columns(checkpoint.info.get("curve", [])),
        judged_by=str(checkpoint.info.get("judged_by", "")),
        curves={name: _columns(rows) for name, rows in checkpoint.info.get("curves", {}).items()},
        sessions=sessions,
        tick=tick,
        stream_curves=_stream_curves(checkpoint, played),
        planner_steps=_planner_steps(checkpoint),
        categories=_categories(
            checkpoint, {policy: played[policy] for policy in compared if policy in played}
        ),
    )


def _columns(curve: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """A learning curve by column."""
    names = ("step", "mean", "low", "high")
    return {name: [point[index] for point in curve] for index, name in enumerate(names)}


def _planner_steps(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """The steps that the planner simulates, and those of a session; None if it can't plan here."""
    if checkpoint.world.is_empty:
        return None
    user_model = make_user_model(checkpoint.config, checkpoint.world)
    length = checkpoint.interface.session_length
    if not isinstance(user_model, PatientUsers):
        return None
    return Search.of(user_model, length).lookahead, length


def _stream_curves(checkpoint: Checkpoint, played: Mapping[str, Played]) -> list[dict[str, Any]]:
    """The pictures of the streams that have a meaning; none for an environment without items."""
    if checkpoint.world.is_empty:
        return []
    return stream_curves(make_user_model(checkpoint.config, checkpoint.world).streams, played)


def _categories(checkpoint: Checkpoint, played: Mapping[str, Played]) -> dict[str, Any] | None:
    """The picture of the categories; empty for an environment without items of a catalogue."""
    if checkpoint.world.is_empty:
        return {}
    sessions = {policy: player.sessions for policy, player in played.items()}
    length = checkpoint.interface.session_length
    return categories(checkpoint.catalogue, sessions, length)


def _data(checkpoint: Checkpoint) -> str:
    """The source of the items, and the platform's assumptions about missing data."""
    assumed = assumptions(checkpoint.config, checkpoint.world)
    source = checkpoint.catalogue.source
    return f"{source}; {assumed}" if assumed else source

"""The values of the report's page beside the table: settings, learning curve, sample sessions."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

import recsys_rl
from recsys_rl.agents.references import Search
from recsys_rl.checkpoint import Checkpoint
from recsys_rl.config import to_dict
from recsys_rl.evaluation.categories import categories
from recsys_rl.evaluation.table import Played
from recsys_rl.make import assumptions, make_user_model
from recsys_rl.protocols import PatientUsers
from recsys_rl.types import Catalogue

NUM_SAMPLE_USERS = 3


def report(
    name: str,
    checkpoint: Checkpoint,
    users: Tensor,
    result: Mapping[str, Any],
    played: Mapping[str, Played],
) -> dict[str, Any]:
    """The values of the page of the checkpoint ``name``, as report/page.py lists them."""
    config = checkpoint.config
    curve = checkpoint.info.get("curve", [])
    compared = (f"{name}-greedy", result["yardstick"], "myopic")
    return {
        **result,
        "algo": name,
        "data": _data(checkpoint),
        "seed": config.train_config.seed,
        "step": checkpoint.step,
        "heldout_users": result["sessions"],
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).date().isoformat(),
        "version": recsys_rl.__version__,
        "config": {name: part for name, part in to_dict(config).items() if isinstance(part, dict)},
        "curve": {
            key: [point[place] for point in curve]
            for place, key in enumerate(("step", "mean", "low", "high"))
        },
        "sessions": _samples(checkpoint, users, compared, played),
        **_planner_steps(checkpoint),
        **_categories(checkpoint, {policy: played[policy] for policy in compared if policy in played}),
    }


def _planner_steps(checkpoint: Checkpoint) -> dict[str, Any]:
    """The steps that the planner simulates, and those of a session; nothing if it can't plan here."""
    if checkpoint.world.is_empty:
        return {}
    user_model, length = (
        make_user_model(checkpoint.config, checkpoint.world),
        checkpoint.interface.session_length,
    )
    if not isinstance(user_model, PatientUsers):
        return {}
    return {"planner_steps": (Search.of(user_model, length).lookahead, length)}


def _categories(checkpoint: Checkpoint, played: Mapping[str, Played]) -> dict[str, Any]:
    """The picture of the categories; nothing for an environment without items of a catalogue."""
    if checkpoint.world.is_empty:
        return {}
    sessions = {policy: x.sessions for policy, x in played.items()}
    length = checkpoint.interface.session_length
    return {"categories": categories(checkpoint.catalogue, sessions, length)}


def _data(checkpoint: Checkpoint) -> str:
    """The source of the items, and the platform's assumptions about missing data."""
    assumed = assumptions(checkpoint.config, checkpoint.world)
    source = checkpoint.catalogue.source
    return f"{source}; {assumed}" if assumed else source


def _samples(
    checkpoint: Checkpoint, users: Tensor, policies: tuple[str, ...], played: Mapping[str, Played]
) -> list[dict[str, Any]]:
    """Sessions of the first few held-out users with each of the policies; of a life, its first visit."""
    catalogue, population = checkpoint.world
    if checkpoint.world.is_empty:
        return []
    shown = []
    for row, user in enumerate(users[:NUM_SAMPLE_USERS]):
        nearest = (catalogue.embedding @ population.profile[user]).topk(min(5, catalogue.num_items)).indices
        for policy in policies:
            sessions = played[policy].sessions
            length = int(sessions.lengths[row])
            left = bool(sessions.left[row])
            if sessions.days is not None:
                length = int((sessions.days[:, row] == 0).sum())
                left = length < checkpoint.interface.session_length
            hidden = {name: x[:length, row].mean(-1).tolist() for name, x in sessions.hidden.items()}
            steps = zip(
                sessions.items[:length, row].tolist(), sessions.rewards[:length, row].tolist(), strict=True
            )
            shown.append(
                {
                    "policy": policy,
                    "user": population.id_of(int(user)),
                    "likes": [catalogue.title(int(item)) for item in nearest],
                    "return": sessions.rewards[:length, row].sum().item(),
                    "left": left,
                    "steps": [
                        {
                            **_slate(catalogue, items),
                            "reward": reward,
                            "hidden": {name: values[step] for name, values in hidden.items()},
                        }
                        for step, (items, reward) in enumerate(steps)
                    ],
                }
            )
    return shown


def _slate(catalogue: Catalogue, items: Sequence[int]) -> dict[str, Any]:
    """Title, year and genres of an item. A slate has the titles and genres of all its items, and no year."""
    shown = [item for item in items if item >= 0]
    year = catalogue.year[shown[0]].item() if len(items) == 1 else math.nan
    genres = zip(catalogue.genre_names, catalogue.genres[shown].any(0).tolist(), strict=True)
    return {
        "title": ", ".join(catalogue.title(item) for item in shown),
        "year": None if math.isnan(year) else int(year),
        "genres": [name for name, has in genres if has],
    }

"""Sample sessions for the report's page: what was shown, how the user reacted, and what no policy sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import NUM_SAMPLE_USERS, Sessions
from recsys_rl.make import make_user_model
from recsys_rl.types import Catalogue, Feedback, Signal

Step = dict[str, Any]


def samples(
    checkpoint: Checkpoint, users: Tensor, policies: Sequence[str], played: Mapping[str, Played]
) -> tuple[list[Step], Step | None]:
    """Sessions of the first few held-out users with each of the policies; of a life, its first visit.

    The second is the hidden signal that the page marks: ``name`` and ``meaning``; None if no signal has one.
    """
    catalogue, population = checkpoint.world
    if checkpoint.world.is_empty:
        return [], None
    signals = make_user_model(checkpoint.config, checkpoint.world).signals
    shown = []
    for row, user in enumerate(users[:NUM_SAMPLE_USERS]):
        nearest = (catalogue.embedding @ population.profile[user]).topk(min(5, catalogue.num_items)).indices
        for policy in policies:
            sessions = played[policy].sessions
            length, left = int(sessions.lengths[row]), bool(sessions.left[row])
            if sessions.days is not None:
                length = int((sessions.days[:, row] == 0).sum())
                left = length < checkpoint.interface.session_length
            shown.append(
                {
                    "policy": policy,
                    "user": population.id_of(int(user)),
                    "likes": [catalogue.title(int(item)) for item in nearest],
                    "return": sessions.rewards[:length, row].sum().item(),
                    "left": left,
                    "limit": checkpoint.interface.session_length,
                    "steps": _steps(catalogue, signals, sessions, row, length),
                }
            )
    tick = next(
        ({"name": signal.name, "meaning": signal.meaning} for signal in signals if signal.meaning), None
    )
    return shown, tick


def _steps(
    catalogue: Catalogue, signals: Sequence[Signal], sessions: Sessions, row: int, length: int
) -> list[Step]:
    """The steps of one session. If a signal marks the chosen item of a slate, a step is of this item."""
    choice = next((index for index, signal in enumerate(signals) if signal.chosen), None)
    steps: list[Step] = []
    under_way = ""  # title of the chosen item that has no event yet
    rewards = sessions.rewards[:length, row].tolist()
    for items, reward, feedback in zip(
        sessions.items[:length, row].tolist(), rewards, sessions.reactions, strict=False
    ):
        felt = feedback.signals[row].cpu()  # (K, S)
        if choice is None:
            values = felt.mean(0)
            steps.append({**_slate(catalogue, items), "reward": reward, "hidden": _hidden(signals, values)})
            continue
        chosen = [index for index, took in enumerate(felt[:, choice].tolist()) if took > 0]
        events = _events(catalogue, signals, feedback, row)
        under_way = "" if events else under_way
        steps.append(
            {
                **_slate(catalogue, [items[index] for index in chosen]),
                "reward": reward,
                "hidden": _hidden_of_slate(signals, felt[chosen or feedback.shown[row].cpu()], bool(chosen)),
                "visible": _visible(signals, felt[chosen].sum(0)),
                "place": chosen[0] + 1 if chosen else None,
                "places": len(items),
                "goes_on": under_way,
                "events": events,
            }
        )
        under_way = steps[-1]["title"] or under_way
    return steps


def _hidden(signals: Sequence[Signal], values: Tensor) -> dict[str, float]:
    return {signal.name: v for signal, v in zip(signals, values.tolist(), strict=True) if not signal.visible}


def _hidden_of_slate(signals: Sequence[Signal], felt: Tensor, chosen: bool) -> dict[str, float]:
    """Hidden signals of the chosen item; without one, those that are equal for all shown items (n, S)."""
    if chosen:
        hidden = _hidden(signals, felt[0])
    else:
        alike = (felt == felt[:1]).all(0).tolist()
        values = felt[0].tolist() if len(felt) else []
        hidden = {
            signal.name: value
            for signal, value, same in zip(signals, values, alike, strict=False)
            if same and signal.meaning and not signal.visible
        }
    return {
        signal.name: hidden[signal.name] for signal in signals if signal.name in hidden and not signal.chosen
    }


def _visible(signals: Sequence[Signal], values: Tensor) -> dict[str, float]:
    """The visible signals that are not 0."""
    return {
        signal.name: v
        for signal, v in zip(signals, values.tolist(), strict=True)
        if signal.visible and v != 0
    }


def _events(catalogue: Catalogue, signals: Sequence[Signal], feedback: Feedback, row: int) -> list[Step]:
    """The new entries of the history: titles, and visible signals, the first of them also where it is 0."""
    if feedback.events is None:
        return []
    first = next(signal.name for signal in signals if signal.visible)
    return [
        {"title": catalogue.title(item), "visible": {first: 0.0} | _visible(signals, values)}
        for item, values in zip(
            feedback.events.items[row].tolist(), feedback.events.signals[row].cpu().unbind(0), strict=True
        )
        if item >= 0
    ]


def _slate(catalogue: Catalogue, items: Sequence[int]) -> Step:
    """Title, year and genres of an item. A slate has the titles and genres of all its items, and no year."""
    shown = [item for item in items if item >= 0]
    years = catalogue.attributes.get("year", ())
    year = float(years[shown[0]]) if len(shown) == 1 == len(items) and len(years) else math.nan
    known = catalogue.tags[torch.tensor(shown, dtype=torch.int64)].any(0).tolist()
    return {
        "title": ", ".join(catalogue.title(item) for item in shown),
        "year": None if math.isnan(year) else int(year),
        "genres": [name for name, has in zip(catalogue.tag_names, known, strict=True) if has],
    }

"""Reward streams over the session: a chart for each stream that has a meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recsys_rl.env.visits import DAYS
from recsys_rl.evaluation.report.drawing import number
from recsys_rl.evaluation.report.lines import lines_html
from recsys_rl.evaluation.report.page import Evaluated, Page, Picture, Row
from recsys_rl.evaluation.table import Played
from recsys_rl.types import Stream


def stream_curves(streams: Sequence[Stream], played: Mapping[str, Played]) -> list[dict[str, Any]]:
    """For each of ``streams`` with a meaning, what it has added up to after each step, by policy.

    Returns: ``name``, ``meaning``, ``users``, ``unit``, and ``steps`` {policy: [mean over users after step 1,
    2, ...]}. Nothing is added for users who have left. Of lives the unit is a day, and of single sessions a
    step. Rows that fewer users played are left out.
    """
    most = max((len(one.places) for one in played.values()), default=0)
    whole = {name: one.sessions for name, one in played.items() if len(one.places) == most}
    return [
        {
            "name": stream.name,
            "meaning": stream.meaning,
            "users": most,
            "unit": "day" if any(one.days is not None for one in whole.values()) else "step",
            "steps": {
                name: _by_day(sessions.streams[stream.name], sessions.days).cumsum(0).mean(1).tolist()
                for name, sessions in whole.items()
            },
        }
        for stream in streams
        if stream.meaning and whole
    ]


def _by_day(values: Tensor, days: Tensor | None) -> Tensor:
    """float64 (DAYS, N): sums of the values (T, N) of each day, -1 after the end; None: as they are."""
    if days is None:
        return values.double()
    counted = values.double().masked_fill(days < 0, 0)
    return counted.new_zeros(DAYS, values.shape[1]).scatter_add_(0, days.clamp(0, DAYS - 1), counted)


def streams_html(curves: Sequence[Row], page: Page) -> str:
    """A section of the page for each of ``curves``; "" without any, or where no row can be drawn."""
    return "".join(_section(curve, page) for curve in curves)


def _section(curve: Row, page: Page) -> str:
    name, unit = str(curve["name"]), str(curve.get("unit", "step"))
    note = (
        f"{curve['meaning']} After each {unit}, the sum so far; the mean over {number(curve['users'], 0)} "
        "users, of whom those who have left keep theirs."
    )
    heading = f"{name.capitalize()} over the {'days' if unit == 'day' else 'session'}"
    return lines_html(heading, note, curve["steps"], page, name, name.capitalize(), unit)


def _values(evaluated: Evaluated) -> list[dict[str, Any]]:
    user_model = evaluated.user_model
    return [] if user_model is None else stream_curves(user_model.streams, evaluated.played)


STREAMS = Picture("streams", _values, streams_html)

"""Reward streams over the session: the values of the report's pictures of the streams that have a meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys_rl.evaluation.table import Played
from recsys_rl.types import Stream


def stream_curves(streams: Sequence[Stream], played: Mapping[str, Played]) -> list[dict[str, Any]]:
    """For each of ``streams`` with a meaning, what it has added up to after each step, by policy.

    Returns: ``name``, ``meaning``, ``users``, and ``steps`` {policy: [mean over users after step 1, 2, ...]}.
    Nothing is added for users who have left. Rows that fewer users played are left out, and so are lives.
    """
    most = max((len(one.places) for one in played.values()), default=0)
    whole = {
        name: one.sessions
        for name, one in played.items()
        if len(one.places) == most and one.sessions.days is None
    }
    return [
        {
            "name": stream.name,
            "meaning": stream.meaning,
            "users": most,
            "steps": {
                name: sessions.streams[stream.name].cumsum(0).double().mean(1).tolist()
                for name, sessions in whole.items()
            },
        }
        for stream in streams
        if stream.meaning and whole
    ]

"""The values of a table behind its means: the return and the length of each user's session, by seed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recsys_rl.evaluation.table import Played
from recsys_rl.types import World
from recsys_rl.utils.metrics import interval


def values_of_seed(seed: int, world: World, users: Tensor, played: Mapping[str, Played]) -> dict[str, Any]:
    """The values of the table of one seed, as ``--json`` writes them.

    Each list of a row has a value for each of the ``users`` (U,); null where the policy did not play the
    user, as the planners play some of them only. Rows without users of data have the seed of each episode.
    """
    ids = users.tolist() if world.is_empty else [world.population.id_of(row) for row in users.tolist()]
    return {"seed": seed, "users": ids, "rows": [_row(name, one, len(ids)) for name, one in played.items()]}


def _row(name: str, played: Played, number: int) -> dict[str, Any]:
    sessions = played.sessions
    streams = {stream: values.sum(0) for stream, values in sessions.streams.items()}  # (n,) each

    def of_all(values: Tensor) -> list[float | None]:
        every: list[float | None] = [None] * number
        for place, value in zip(played.places.tolist(), values.tolist(), strict=True):
            every[place] = value
        return every

    return {
        "policy": name,
        "return_mean": interval(sessions.returns).mean,
        "returns": of_all(sessions.returns),
        "lengths": of_all(sessions.lengths),
    } | ({"streams": {n: of_all(x) for n, x in streams.items()}} if len(streams) > 1 else {})


def as_csv(seeds: Sequence[Mapping[str, Any]]) -> str:
    """``values_of_seed`` of all seeds as the text of a CSV file: a line for each session that was played."""
    streams = [*seeds[0]["rows"][0].get("streams", ())]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["seed", "policy", "user", "return", "length", *(f"stream.{name}" for name in streams)])
    for seed in seeds:
        for row in seed["rows"]:
            of_users = [row["returns"], row["lengths"], *(row["streams"][name] for name in streams)]
            for user, *values in zip(seed["users"], *of_users, strict=True):
                if values[0] is not None:
                    lines.writerow([seed["seed"], row["policy"], user, *values])
    return text.getvalue()

"""A log of `recsys-rl record` as a team would have it: a plain CSV file, and one about its items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.types import Catalogue


def plain_log(log: DecisionLog, catalogue: Catalogue, folder: Path) -> tuple[Path, Path]:
    """Write ``decisions.csv`` and ``items.csv`` into ``folder``, and return their paths.

    The decisions have users, sessions, steps, items by their ids, the visible signals, propensities, the ends
    of sessions, and the pieces of the context that no session derives, as lists of numbers. The items have
    titles, genres, likes (the logarithm of the popularity), ratings and embeddings. Slates have one place.
    """
    header, visible = log.header, log.visible
    names = [header.signals[index] for index in visible.tolist()]
    columns: dict[str, Any] = {
        "user": pl.Series(log.users.numpy()),
        "session": [f"s{number:09}" for number in log.sessions.tolist()],  # texts in the order of numbers
        "step": pl.Series(log.steps.numpy()),
        "item": [str(catalogue.id_of(row)) for row in log.items[:, 0].tolist()],
        **{
            f"signal.{name}": pl.Series(log.signals[:, 0, index].numpy())
            for name, index in zip(names, visible.tolist(), strict=True)
        },
        "propensity": pl.Series(log.logprobs.exp().numpy()),
        **{f"context.{name}": _lists(values.tolist()) for name, values in log.given.items()},
        "terminated": pl.Series(log.terminated.numpy()),
        "truncated": pl.Series(log.truncated.numpy()),
    }
    items: dict[str, Any] = {
        "item": [str(catalogue.id_of(row)) for row in range(catalogue.num_items)],
        "title": list(catalogue.titles),
        "genres": [
            "|".join(name for name, has in zip(catalogue.tag_names, row, strict=True) if has)
            for row in catalogue.tags.tolist()
        ],
        "likes": (catalogue.popularity + 1e-3).log().tolist(),
        "rating": catalogue.quality.tolist(),
        "embedding": _lists(catalogue.embedding.tolist()),
    }
    paths = folder / "decisions.csv", folder / "items.csv"
    for path, table in zip(paths, (columns, items), strict=True):
        pl.DataFrame(table).write_csv(path)
    return paths


def _lists(rows: list[list[float]]) -> list[str]:
    """Texts of lists, with all digits."""
    return ["|".join(map(repr, row)) for row in rows]

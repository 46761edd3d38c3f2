"""Kinds of events, such as views, carts and purchases: a column of the log, and the weight of each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from recsys_rl.errors import listed, short
from recsys_rl.types import UserError

MOST = 50
"""A column with more different values holds no kinds of events."""


def parse_event_weights(text: str | None) -> dict[str, float] | None:
    """The weight of each kind in a text such as ``view=0,cart=1,purchase=3``; None without a text.

    Raises UserError for a weight that is not a number of at least 0, a kind that is named twice, and if no
    kind has a weight above 0.
    """
    if text is None:
        return None
    weights: dict[str, float] = {}
    for pair in text.split(","):
        kind, equals, number = (piece.strip() for piece in pair.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not kind or not 0 <= weight < math.inf:
            raise UserError(
                f"--event-weights {short(pair)} is not KIND=NUMBER with a number of at least 0: give them as "
                "in view=0,cart=1,purchase=3."
            )
        if kind in weights:
            raise UserError(f"--event-weights names the kind {short(kind)} twice: give one weight.")
        weights[kind] = weight
    if not any(weights.values()):
        raise UserError("--event-weights leaves out every kind: give at least one a weight above 0.")
    return weights


def kinds_in(column: pl.Series) -> dict[str, int] | None:
    """The kinds with their counts, the most frequent first, as text without spaces at the ends.

    None if there are more than MOST, so that the column holds something else.
    """
    if column.dtype.is_nested():
        return None
    texts = as_kinds(column).drop_nulls()
    if texts.n_unique() > MOST:
        return None
    return {str(kind): int(count) for kind, count in texts.value_counts(sort=True, name="count").rows()}


def as_kinds(column: pl.Series) -> pl.Series:
    return column.cast(pl.String, strict=False).str.strip_chars()


def about_kinds(name: str, kinds: Mapping[str, int] | None) -> str:
    """A warning about a column of several kinds that all count as likes; "" for one kind, or for none."""
    if kinds is None or len(kinds) < 2:
        return ""
    total = sum(kinds.values())
    shares = ", ".join(f"{kind} {count / total:.0%}" for kind, count in list(kinds.items())[:5])
    more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
    return (
        f"warning: column {short(name)} has {len(kinds)} kinds of events ({shares}{more}), and each row "
        "counts as a like, whatever its kind: see --event-weights"
    )


def left_in(
    frame: pl.DataFrame, gaps: pl.Series, name: str, weights: Mapping[str, float], source: str
) -> tuple[pl.DataFrame, str]:
    """The rows whose kind, in the column ``event``, has no weight of 0, and a note about all kinds.

    Rows in ``gaps`` have no kind, and stay: the caller reports them. ``name``: of the column in the file.
    Raises UserError for kinds that have no weight, with their counts, and if no row is left.
    """
    kinds = as_kinds(frame["event"])
    counts = dict(kinds.filter(~gaps).value_counts(sort=True, name="count").rows())
    unknown = [f"{short(kind)} ({count:,})" for kind, count in counts.items() if kind not in weights]
    if unknown:
        more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
        raise UserError(
            f"{source}: column {name!r} has kinds without a weight: {', '.join(unknown[:10])}{more}: add "
            "them to --event-weights, with the weight 0 to leave them out."
        )
    out = [kind for kind in counts if weights.get(kind) == 0]
    frame = frame.with_columns(event=kinds).filter(gaps | ~kinds.is_in(out))
    if frame.height == 0:
        raise UserError(
            f"{source}: every row is of a kind with weight 0 ({listed(out)}): give one of its kinds a weight "
            "above 0 in --event-weights."
        )
    parts = [f"{counts[kind]:,} {kind} left out" for kind in out]
    parts += [
        f"{counts[kind]:,} {kind} with weight {weights[kind]:g}" for kind in counts if weights.get(kind)
    ]
    return frame, f"kinds of events: {', '.join(parts)}"


def weighted(frame: pl.DataFrame, weights: Mapping[str, float]) -> pl.DataFrame:
    """The frame with the weight of each row's kind as ``weight``, times that of the row where it has one."""
    of_kind = pl.col("event").replace_strict(dict(weights), default=None, return_dtype=pl.Float32)
    return frame.with_columns(weight=of_kind * pl.col("weight") if "weight" in frame.columns else of_kind)

"""Compare two logs: unknown users and items, likes a user, and the change of popularity.

Memory holds only hashes of the users, items and events of both files, 8 bytes a row each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.data.tables.layout import Layout
from recsys_rl.data.tables.values import text
from recsys_rl.errors import short
from recsys_rl.types import UserError

ROLES = ("user", "item", "time", "rating")
MOVED = 3  # items named as risen, and as fallen
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """The facts about one of the files. Rows without a user or an item are not counted."""

    rows: int
    users: int
    items: int
    unknown_users: int  # that the other file lacks
    rows_of_unknown_users: int
    unknown_items: int
    rows_of_unknown_items: int
    likes_a_user: float  # median of the different items that a user likes


@dataclass(frozen=True)
class Moved:
    """An item whose share of the rows has changed."""

    item: str
    before: float  # in [0, 1]
    now: float


@dataclass(frozen=True)
class Comparison:
    """The changes from one log to another."""

    old: Side
    new: Side
    like_threshold: float | None  # lowest rating of a like in both files; None: every row is a like
    repeated_rows: int  # rows of the new file whose user and item (and time) the old one has
    rank_correlation: float | None  # Spearman's, of the rows of each item that both have; None: fewer than 3
    total_variation: float  # half the sum of |share now - share before| over all items, in [0, 1]
    risen: tuple[Moved, ...]
    fallen: tuple[Moved, ...]

    def lines(self) -> Iterator[str]:
        """The comparison for people."""
        old, new = self.old, self.new
        for name, side in (("old", old), ("new", new)):
            yield f"{name}: {side.rows:,} rows, {side.users:,} users, {side.items:,} items"
        yield (
            f"users: {_count(new.unknown_users, new.users)} of the new log are unknown to the old one, with "
            f"{_share(new.rows_of_unknown_users, new.rows)} of its rows; "
            f"{_count(old.unknown_users, old.users)} of the old log do not come again"
        )
        yield (
            f"items: {_count(new.unknown_items, new.items)} of the new log are unknown to the old one, with "
            f"{_share(new.rows_of_unknown_items, new.rows)} of its rows; "
            f"{_count(old.unknown_items, old.items)} of the old log do not come again"
        )
        like = "each row is a like" if self.like_threshold is None else f"ratings >= {self.like_threshold:g}"
        yield (
            f"likes a user (different items, median; {like}): {old.likes_a_user:,.3g} in the old log, "
            f"{new.likes_a_user:,.3g} in the new one"
        )
        yield f"rows of the new log that the old one has already: {_count(self.repeated_rows, new.rows)}"
        yield f"popularity: {self._change()}"
        for name, moved in (("risen", self.risen), ("fallen", self.fallen)):
            if moved:
                each = ", ".join(
                    f"{short(share.item)} {share.before:.2%} to {share.now:.2%}" for share in moved
                )
                yield f"most {name} (share of the rows): {each}"

    def _change(self) -> str:
        moved = f"{self.total_variation:.1%} of the rows have moved to other items (total variation)"
        if self.rank_correlation is None:
            return f"{moved}; fewer than 3 items are in both logs"
        return (
            f"{moved}; rank correlation of the shared items {self.rank_correlation:.2f} (1: the same order)"
        )


def _count(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({_share(count, total)})"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "0.0%"


def compare(
    old: str | Path,
    new: str | Path,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
    like_threshold: float | None = None,
) -> Comparison:
    """Compare the log ``new`` with the earlier log ``old``.

    Args:
        given: names of columns by role (ROLES); a column that is not named is found in each file by itself.
        separator: of text files; None to find it in each.
        like_threshold: lowest rating of a like; None for three quarters of the scale of the old file.

    Raises UserError if a file is not a table, has no row, or has no column of users or of items.
    """
    files = [Layout.open(path, given or {}, separator, ROLES) for path in (old, new)]
    with_time = all("time" in file.roles for file in files)
    logs = [_hashes(file, with_time) for file in files]
    least = None
    if all("rating" in log.columns for log in logs):
        least = _threshold(logs[0]["rating"]) if like_threshold is None else like_threshold
    users, items = (_of_both(logs, role) for role in ("user", "item"))
    before, now = (items[name].to_numpy().astype(np.float64) for name in ("old", "new"))
    shares = [counts / counts.sum() for counts in (before, now)]
    change = shares[1] - shares[0]
    both = (before > 0) & (now > 0)
    order = np.argsort(change, kind="stable")
    moved = items.select("id", before=shares[0], now=shares[1])
    risen, fallen = (
        [index for index in order[::-1][:MOVED] if change[index] > 0],
        [index for index in order[:MOVED] if change[index] < 0],
    )
    return Comparison(
        old=_side(logs[0], users, items, "old", "new", least),
        new=_side(logs[1], users, items, "new", "old", least),
        like_threshold=least,
        repeated_rows=logs[1].join(logs[0], on="event", how="semi").height,
        rank_correlation=_spearman(before[both], now[both]) if both.sum() >= 3 else None,
        total_variation=float(np.abs(change).sum() / 2),
        risen=_named(moved[risen], files[1]),
        fallen=_named(moved[fallen], files[0]),
    )


def _text(file: Layout, role: str) -> pl.Expr:
    """The ids as texts, the same for a number of any type."""
    return text(pl.col(file.roles[role]), file.types[file.roles[role]])


def _hashes(file: Layout, with_time: bool) -> pl.DataFrame:
    """The hashes ``user``, ``item`` and ``event`` of the rows with a user and an item, and the ``rating``."""
    parts = {role: _text(file, role).hash(seed=7) for role in ("user", "item", "time")[: 2 + with_time]}
    columns = {role: parts[role] for role in ("user", "item")}
    columns["event"] = pl.struct(value.alias(role) for role, value in parts.items()).hash(seed=7)
    if "rating" in file.roles:
        columns["rating"] = file.measure(file.roles["rating"])
    gaps = [file.gap(file.roles[role]) for role in ("user", "item")]
    frame = file.collect(file.scan.filter(~pl.any_horizontal(gaps)).select(**columns))
    if frame.is_empty():
        path = file.table.path
        raise UserError(f"{path} holds no row with a user and an item: give a log with at least one.")
    return frame


def _threshold(ratings: pl.Series) -> float:
    """The lowest rating of this file from three quarters of its scale on, as in data/catalogue.py."""
    known = ratings.drop_nulls().to_numpy()
    if not len(known):
        return 0.0
    low, high = float(known.min()), float(known.max())
    return float(known[known >= low + 0.75 * (high - low)].min())


def _of_both(logs: Sequence[pl.DataFrame], role: str) -> pl.DataFrame:
    """The rows of each ``id`` in the ``old`` and in the ``new`` log, by ascending hash."""
    old, new = (
        log.group_by(pl.col(role).alias("id")).agg(pl.len().alias(name))
        for name, log in zip(("old", "new"), logs, strict=True)
    )
    return old.join(new, on="id", how="full", coalesce=True).fill_null(0).sort("id")


def _side(
    log: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, own: str, other: str, least: float | None
) -> Side:
    """The facts of the log ``own``; ``users`` and ``items`` by ``_of_both``, ``least``: rating of a like."""
    new_users, new_items = (frame.filter(pl.col(other) == 0)[own] for frame in (users, items))
    return Side(
        rows=log.height,
        users=users.filter(pl.col(own) > 0).height,
        items=items.filter(pl.col(own) > 0).height,
        unknown_users=new_users.len(),
        rows_of_unknown_users=int(new_users.sum()),
        unknown_items=new_items.len(),
        rows_of_unknown_items=int(new_items.sum()),
        likes_a_user=_likes_a_user(log, least),
    )


def _likes_a_user(log: pl.DataFrame, least: float | None) -> float:
    """The median over users of the number of different items that they like; users without likes count."""
    liked = pl.lit(True) if least is None else (pl.col("rating") >= least).fill_null(False)
    counts = log.lazy().group_by("user").agg(pl.col("item").filter(liked).n_unique()).select("item").collect()
    return float(counts["item"].median())  # type: ignore[arg-type]


def _spearman(one: Floats, two: Floats) -> float:
    """The correlation of the ranks, with the mean rank for ties; 1 if neither file has an order."""
    ranks = [pl.Series(values).rank("average").to_numpy() for values in (one, two)]
    spreads = [rank.std() for rank in ranks]
    if 0 in spreads:
        return 1.0 if spreads[0] == spreads[1] else 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / np.prod(spreads))


def _named(moved: pl.DataFrame, file: Layout) -> tuple[Moved, ...]:
    """The items of these rows, with their ids as the ``file``, which has all of them, writes them."""
    names = file.scan.select(name=_text(file, "item")).with_columns(id=pl.col("name").hash(seed=7))
    wanted = file.collect(names.filter(pl.col("id").is_in(moved["id"].implode())).unique())
    known = dict(wanted.select("id", "name").iter_rows())
    return tuple(Moved(known[id_], before, now) for id_, before, now in moved.iter_rows())

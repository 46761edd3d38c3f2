"""Compare two logs: unknown users and items, likes a user, and the change of popularity.

Both files are read in pieces and not held in memory. Users, items and events are counted by hashes of their
ids as texts, 8 bytes a row each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.errors import short
from recsys_rl.tables.clean import no_value, numbers_of
from recsys_rl.tables.columns import find_columns
from recsys_rl.tables.hashes import Hashes, hashes_of, mixed, sorted_counts
from recsys_rl.tables.read import HEADLESS, open_table, pieces
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
            f"users: {_part(new.unknown_users, new.users)} of the new log are unknown to the old one, with "
            f"{_share(new.rows_of_unknown_users, new.rows)} of its rows; "
            f"{_part(old.unknown_users, old.users)} of the old log do not come again"
        )
        yield (
            f"items: {_part(new.unknown_items, new.items)} of the new log are unknown to the old one, with "
            f"{_share(new.rows_of_unknown_items, new.rows)} of its rows; "
            f"{_part(old.unknown_items, old.items)} of the old log do not come again"
        )
        like = "each row is a like" if self.like_threshold is None else f"ratings >= {self.like_threshold:g}"
        yield (
            f"likes a user (different items, median; {like}): {old.likes_a_user:,.3g} in the old log, "
            f"{new.likes_a_user:,.3g} in the new one"
        )
        yield f"rows of the new log that the old one has already: {_part(self.repeated_rows, new.rows)}"
        yield f"popularity: {self._change()}"
        for name, moved in (("risen", self.risen), ("fallen", self.fallen)):
            if moved:
                each = ", ".join(f"{short(x.item)} {x.before:.2%} to {x.now:.2%}" for x in moved)
                yield f"most {name} (share of the rows): {each}"

    def _change(self) -> str:
        moved = f"{self.total_variation:.1%} of the rows have moved to other items (total variation)"
        if self.rank_correlation is None:
            return f"{moved}; fewer than 3 items are in both logs"
        return (
            f"{moved}; rank correlation of the shared items {self.rank_correlation:.2f} (1: the same order)"
        )


def _part(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({_share(count, total)})"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "0.0%"


@dataclass
class _File:
    """One of the files as hashes (n,) of its n rows with a user and an item."""

    path: Path
    item_column: str
    users: Hashes
    items: Hashes
    events: Hashes  # of user, item and, if both files have times, time
    ratings: NDArray[np.float32] | None  # NaN for a gap


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
    given = dict(given or {})
    with_time = all("time" in _columns(Path(path), separator, given) for path in (old, new))
    first, second = (_read(Path(path), separator, given, with_time) for path in (old, new))
    rated = first.ratings is not None and second.ratings is not None
    least = (like_threshold if like_threshold is not None else _threshold(first)) if rated else None
    repeated = np.isin(second.events, first.events).sum()
    likes = [_likes_a_user(file, least) for file in (first, second)]
    users = [sorted_counts(file.users) for file in (first, second)]
    items = [sorted_counts(file.items) for file in (first, second)]
    sides = [
        _side(len(file.users), users[at], users[1 - at], items[at], items[1 - at], likes[at])
        for at, file in enumerate((first, second))
    ]
    ids = np.union1d(items[0][0], items[1][0])
    before, now = (_spread(ids, *counted) for counted in items)
    shares = (before / before.sum(), now / now.sum())
    change = shares[1] - shares[0]
    both = (before > 0) & (now > 0)
    order = np.argsort(change, kind="stable")
    return Comparison(
        old=sides[0],
        new=sides[1],
        like_threshold=least,
        repeated_rows=int(repeated),
        rank_correlation=_spearman(before[both], now[both]) if both.sum() >= 3 else None,
        total_variation=float(np.abs(change).sum() / 2),
        risen=_named([x for x in order[::-1][:MOVED] if change[x] > 0], ids, shares, second, separator),
        fallen=_named([x for x in order[:MOVED] if change[x] < 0], ids, shares, first, separator),
    )


def _columns(path: Path, separator: str | None, given: Mapping[str, str | None]) -> dict[str, str]:
    names = open_table(path, separator, HEADLESS).names
    return find_columns(path, names, given, ROLES)[0]


def _read(path: Path, separator: str | None, given: Mapping[str, str | None], with_time: bool) -> _File:
    table = open_table(path, separator, HEADLESS)
    columns, _ = find_columns(path, table.names, given, ROLES)
    parts: dict[str, list[Hashes]] = {"user": [], "item": [], "event": []}
    ratings: list[NDArray[np.float32]] = []
    for _, piece in pieces(table, list(dict.fromkeys(columns.values()))):
        sound = ~(no_value(piece[columns["user"]]) | no_value(piece[columns["item"]]))
        kept = piece.filter(sound)
        own = {role: hashes_of(_texts(kept[columns[role]])) for role in ("user", "item")}
        for role, hashes in own.items():
            parts[role].append(hashes)
        more = [hashes_of(_texts(kept[columns["time"]]))] if with_time else []
        parts["event"].append(mixed([own["user"], own["item"], *more]))
        if "rating" in columns:
            numbers = numbers_of(kept[columns["rating"]], "rating")[0]
            ratings.append(numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy())
    if not sum(map(len, parts["user"])):
        raise UserError(f"{path} holds no row with a user and an item: give a log with at least one.")
    users, items, events = (np.concatenate(parts[role]) for role in ("user", "item", "event"))
    rated = np.concatenate(ratings) if ratings else None
    return _File(path, columns["item"], users, items, events, rated)


def _texts(column: pl.Series) -> pl.Series:
    """The values as texts, the same for a number in either file: 7, 7.0 (no text) and "7"."""
    texts = column.cast(pl.String, strict=False)
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        texts = whole.set(whole != column, None).cast(pl.String).fill_null(texts)
    return texts.str.strip_chars()


def _threshold(file: _File) -> float:
    """The lowest rating of this file from three quarters of its scale on, as in data/catalogue.py."""
    assert file.ratings is not None
    known = file.ratings[np.isfinite(file.ratings)]
    if not len(known):
        return 0.0
    low, high = float(known.min()), float(known.max())
    return float(known[known >= low + 0.75 * (high - low)].min())


def _likes_a_user(file: _File, least: float | None) -> float:
    """The median over users of the number of different items that they like; users without likes count."""
    liked = np.ones(len(file.users), dtype=np.bool_) if least is None else file.ratings >= least  # type: ignore[operator]
    pairs = mixed([file.users[liked], file.items[liked]])
    _, first = np.unique(pairs, return_index=True)
    everyone = np.unique(file.users)
    counts = np.zeros(len(everyone), dtype=np.int64)
    known, number = np.unique(file.users[liked][first], return_counts=True)
    counts[np.searchsorted(everyone, known)] = number
    return float(np.median(counts))


Counted = tuple[Hashes, NDArray[np.int64]]  # distinct hashes, ascending, and their counts


def _side(
    rows: int, users: Counted, others: Counted, items: Counted, other_items: Counted, likes: float
) -> Side:
    new_user, new_item = ~np.isin(users[0], others[0]), ~np.isin(items[0], other_items[0])
    return Side(
        rows=rows,
        users=len(users[0]),
        items=len(items[0]),
        unknown_users=int(new_user.sum()),
        rows_of_unknown_users=int(users[1][new_user].sum()),
        unknown_items=int(new_item.sum()),
        rows_of_unknown_items=int(items[1][new_item].sum()),
        likes_a_user=likes,
    )


def _spread(ids: Hashes, known: Hashes, counts: NDArray[np.int64]) -> Floats:
    """(n,): the count of each of the ``ids`` (n,), 0 for an unknown one."""
    found = np.zeros(len(ids))
    found[np.searchsorted(ids, known)] = counts
    return found


def _spearman(one: Floats, two: Floats) -> float:
    """The correlation of the ranks, with the mean rank for ties; 1 if neither file has an order."""
    ranks = [_ranks(x) for x in (one, two)]
    spreads = [x.std() for x in ranks]
    if 0 in spreads:
        return 1.0 if spreads[0] == spreads[1] else 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / np.prod(spreads))


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place])


def _named(
    places: Sequence[int], ids: Hashes, shares: tuple[Floats, Floats], file: _File, separator: str | None
) -> tuple[Moved, ...]:
    """The items in these places, with their ids as ``file``, which has all of them, writes them."""
    names: dict[int, str] = {}
    wanted = ids[places]
    for _, piece in pieces(open_table(file.path, separator, HEADLESS), [file.item_column]):
        if len(names) == len(places):
            break
        texts = _texts(piece[file.item_column])
        hashes = hashes_of(texts)
        for row in np.flatnonzero(np.isin(hashes, wanted)):
            names.setdefault(int(hashes[row]), str(texts[int(row)]))
    return tuple(Moved(names[int(ids[x])], float(shares[0][x]), float(shares[1][x])) for x in places)

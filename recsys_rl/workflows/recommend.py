"""Print the recommendations of a trained policy for one person, or write those for many users."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from recsys_rl.checkpoint import check_algo
from recsys_rl.data.clean import Missing
from recsys_rl.errors import UserError, amount
from recsys_rl.lookup import DEFAULT_ALGO
from recsys_rl.schema import Count, Range, check_fields
from recsys_rl.utils.files import check_parquet, write_bytes
from recsys_rl.workflows.id_files import parse_id, read_ids
from recsys_rl.workflows.latest import print_latest
from recsys_rl.workflows.recommender import HOURS, Recommendation, Recommender, load

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class RecommendConfig:
    """Recommendations for one user, for a new user, or for many users."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy, the catalogue and the users."""
    algo: str | None = None
    """Reject a checkpoint of another algorithm."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    user: str | None = None
    """Id of one user of the data. What this user has liked is not in the checkpoint: give --block to leave
    it out."""
    like: tuple[str, ...] = ()
    """Title of an item that a new user likes, or a beginning that only one title has. It is not recommended
    again, except on a platform that repeats items."""
    users: str | None = None
    """File of user ids, one in each line; or all."""
    out: str | None = None
    """Parquet file for the recommendations of many users."""
    k: Count | None = None
    """Items for each user. Default: 10, or the number of places of a slate."""
    hour: Annotated[float, Range(0, below=HOURS)] | None = None
    """Hour of the week, from Monday at midnight, if the policy sees it. Default: now."""
    allow: str | None = None
    """File of item ids, one in each line: recommend only these, all of them if they are fewer than --k."""
    block: str | None = None
    """File of item ids, one in each line: recommend none of them."""
    missing: Missing = "refuse"
    """Ids in these files that the checkpoint does not have, such as users with too few likes: refuse the
    file, or drop these ids."""

    def __post_init__(self) -> None:
        check_fields(self)


def recommend(options: RecommendConfig) -> None:
    """Print the recommendations, or write those of many users to a Parquet file. Raises UserError."""
    given = [options.user is not None, bool(options.like), options.users is not None]
    if sum(given) != 1:
        raise UserError("Give one of --user ID, --like TITLE and --users FILE.")
    if (options.users is None) != (options.out is None):
        raise UserError("--users and --out belong together: give both, or neither.")
    if options.missing == "drop" and not {options.users, options.allow, options.block} - {None, "all"}:
        raise UserError("--missing is for the ids in files (--users, --allow, --block): leave it out.")
    if options.out is not None:
        check_parquet(Path(options.out), "--out")
    recommender = load(options.checkpoint, options.env)
    print_latest(options.checkpoint, recommender.checkpoint)
    if options.algo is not None:
        check_algo(Path(options.checkpoint), recommender.checkpoint, options.algo)
    if recommender.checkpoint.world.is_empty:
        raise UserError(f"{options.checkpoint} has no catalogue of items to recommend from.")
    allow = None if options.allow is None else _items(recommender, options, "allow")
    block = [] if options.block is None else _items(recommender, options, "block")
    hour = recommender.hour(options.hour)
    k = _number_of_items(recommender, options, allow, block)
    if options.users is None or options.out is None:
        names = bool(recommender.population.user_names)
        user = None if options.user is None else parse_id(options.user, "--user", names)
        found = recommender.recommend(user, likes=options.like, k=k, allow=allow, block=block, hour=hour)
        _print_hour(hour, options.hour is None)
        for place, (item, title, probability) in enumerate(found, 1):
            print(f"{place:>3}  {_percent(probability):>7}  {title}  (id {item})")
        return
    users = recommender.users if options.users == "all" else _users(recommender, options)
    lists = list(recommender.for_users(users, k, allow, block, hour))
    _print_hour(hour, options.hour is None)
    write_bytes(Path(options.out), _parquet(users, lists))
    print(f"{amount(len(users), 'user')}: {options.out}", file=sys.stderr)


def _number_of_items(
    recommender: Recommender,
    options: RecommendConfig,
    allow: Sequence[int | str] | None,
    block: Sequence[int | str],
) -> int | None:
    """``options.k``, or the number of items of --allow that may be shown, with a line, if it is smaller."""
    if allow is None:
        return options.k
    wanted = recommender.default_k if options.k is None else options.k
    left = int(recommender.allowed(allow, [*block, *recommender.seen(options.like)]).sum())
    if not 0 < left < wanted:
        return wanted
    about = f"{left} of its items may be shown, so lists have {left} in place of {wanted}"
    print(f"--allow {options.allow}: {about}", file=sys.stderr)
    return left


def _items(recommender: Recommender, options: RecommendConfig, name: str) -> list[int | str]:
    """The item ids in the file of the option ``name``."""
    names, known = bool(recommender.catalogue.item_names), recommender.row_of_item
    file, place = getattr(options, name), "in the catalogue"
    return read_ids(file, f"--{name}", known, place, names, options.missing, empty=name == "block")


def _users(recommender: Recommender, options: RecommendConfig) -> list[int | str]:
    """The user ids in the file of --users."""
    names, known = bool(recommender.population.user_names), recommender.row_of_user
    place = "among the users whom training kept (those with enough likes)"
    return read_ids(options.users or "", "--users", known, place, names, options.missing)


def _print_hour(hour: float | None, by_clock: bool) -> None:
    if hour is None:
        return
    minutes = round(60 * hour) % (7 * 1440)
    day, time = DAYS[minutes // 1440], f"{minutes // 60 % 24:02}:{minutes % 60:02}"
    how = "this machine's clock; --hour for another" if by_clock else "--hour"
    print(f"for {day}, {time}: hour {hour:.1f} of the week ({how})", file=sys.stderr)


def _parquet(users: Sequence[int | str], lists: Sequence[Sequence[Recommendation]]) -> bytes:
    """A Parquet file with a row for each user and place: user, place (from 1), item, title, probability."""
    import polars as pl

    items = [row[0].item for row in lists if row]
    rows = [
        (user, place, *row)
        for user, its in zip(users, lists, strict=True)
        for place, row in enumerate(its, 1)
    ]
    of_users, of_items = (
        pl.String if row and isinstance(row[0], str) else pl.Int64 for row in (users, items)
    )
    types = (of_users, pl.Int32, of_items, pl.String, pl.Float32)
    names = ("user", "place", *Recommendation._fields)
    file = io.BytesIO()
    pl.DataFrame(rows, dict(zip(names, types, strict=True)), orient="row").write_parquet(file)
    return file.getvalue()


def _percent(probability: float) -> str:
    return "<0.01%" if 0 < probability < 0.00005 else f"{probability:.2%}"

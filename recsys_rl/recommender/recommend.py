"""Print the recommendations of a trained policy for one person, or write those for many users."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from recsys_rl.checkpoint import check_algo
from recsys_rl.data.tables.clean import Missing
from recsys_rl.data.tables.columns import FileOptions
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.recommender import HOURS, Recommendation, Recommender, load
from recsys_rl.recommender.contexts import parse_context
from recsys_rl.recommender.id_files import parse_id, read_ids, read_seen
from recsys_rl.recommender.recommend_contexts import check_one_way, check_people, write_contexts
from recsys_rl.settings.fields import Count, Range, check_fields, check_used
from recsys_rl.settings.names import DEFAULT_ALGO, algorithm_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.latest import print_latest
from recsys_rl.utils.files import check_parquet, write_bytes
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.terminal import say

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

NEAREST = 5  # titles of the line about the taste alone


@dataclass(frozen=True)
class RecommendConfig(FileOptions):
    """Recommendations for one user, for a new user, or for many users."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy, the catalogue and the users."""
    algo: str | None = None
    """Reject a checkpoint of another algorithm. Required if its name holds a module to import."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    user: str | None = None
    """Id of one user of the data."""
    like: tuple[str, ...] = ()
    """Title of an item that a new user likes, or a beginning that only one title has."""
    users: str | None = None
    """File of user ids, one in each line; or all."""
    context: tuple[str, ...] = ()
    """A piece of the context as NAME=VALUE, for the policy of a team's own log; numbers of a list stand
    between commas."""
    contexts: str | None = None
    """File of contexts, one in each row, with the columns context.NAME of that log."""
    out: str | None = None
    """Parquet file for the recommendations of many users or contexts; those of contexts may be CSV."""
    k: Count | None = None
    """Items for each user. Default: 10, or the number of places of a slate; for a row of --contexts 1, or
    that number."""
    again: bool = False
    """Recommend also what the person has already: liked titles, and a user's likes in the data."""
    seen: str | None = None
    """File of events (user, item) of users of the data: leave out all items of their events too. The options
    of columns are about this file, --item-column also about that of --items."""
    items: str | None = None
    """File about items: id, title, genres, year and others. Those that the catalogue lacks join it for this
    command, with vectors from their attributes."""
    draw: bool = False
    """Draw each place with the policy's probabilities, in place of the most probable item."""
    seed: Seed = 0
    """Seed of the draws."""
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
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)


def recommend(options: RecommendConfig) -> None:
    """Print the recommendations, or write those of many users to a Parquet file. Raises UserError."""
    _check(options)
    recommender = load(options.checkpoint, options.env)
    print_latest(options.checkpoint, recommender.checkpoint)
    if options.algo is not None:
        check_algo(Path(options.checkpoint), recommender.checkpoint, options.algo)
    if recommender.checkpoint.world.is_empty:
        raise UserError(f"{options.checkpoint} has no catalogue of items to recommend from.")
    if options.items is not None:
        recommender = _with_new_items(recommender, options)
    check_people(recommender, options)
    allow = None if options.allow is None else _items(recommender, options, "allow")
    block = [] if options.block is None else _items(recommender, options, "block")
    hour = recommender.hour(options.hour)
    generator = generators(options.seed, "recommend")["recommend"] if options.draw else None
    if not options.again and not options.like and not recommender.knows_likes:
        print(
            f"{options.checkpoint} is of an earlier version and does not hold what its users like, so lists "
            "may hold items that they have: give their events with --seen.",
            file=sys.stderr,
        )
    if options.contexts is not None and options.out is not None:
        write_contexts(recommender, options, options.contexts, Path(options.out), allow, block, generator)
        return
    if options.users is not None and options.out is not None:
        _write_lists(recommender, options, options.out, allow, block, hour, generator)
        return
    names = bool(recommender.population.user_names)
    user = None if options.user is None else parse_id(options.user, "--user", names)
    if user is not None and options.seen is not None:
        recommender.check_users([user])
        block = [*block, *_seen(recommender, options, options.seen, [user]).get(user, ())]
    remaining = int(recommender.mask_of(user, options.like, (), allow, block, options.again).sum())
    k = _number_of_items(recommender, options, remaining)
    ranked = recommender.recommend(
        user,
        likes=options.like,
        k=k,
        allow=allow,
        block=block,
        hour=hour,
        again=options.again,
        context=None if recommender.pieces is None else parse_context(recommender.pieces, options.context),
        generator=generator,
    )
    _print_hour(hour, options.hour is None)
    rewards = aligned([place.expected for place in ranked])
    for rank, (place, reward) in enumerate(zip(ranked, rewards, strict=True), 1):
        say(f"{rank:>3}  {_percent(place.probability):>7}{reward}  {place.title}  (id {place.item})")
    if options.like:
        near = recommender.nearest(options.like, min(k, remaining, NEAREST), allow, block, options.again)
        print(one_line(f"nearest to your likes: {'; '.join(near)}"), file=sys.stderr)


def _write_lists(
    recommender: Recommender,
    options: RecommendConfig,
    out: str,
    allow: Sequence[int | str] | None,
    block: Sequence[int | str],
    hour: float | None,
    generator: torch.Generator | None,
) -> None:
    """Write the lists of many users to the Parquet file ``out``."""
    users = recommender.users if options.users == "all" else _users(recommender, options)
    seen = None if options.seen is None else _seen(recommender, options, options.seen, users)
    k = _number_of_items(recommender, options, int(recommender.allowed(allow, block).sum()))
    lists = list(
        recommender.for_users(
            users, k, allow, block, hour, again=options.again, seen=seen, generator=generator
        )
    )
    _print_hour(hour, options.hour is None)
    write_bytes(Path(out), _parquet(users, lists))
    short = sum(len(row) < k for row in lists)
    note = f" ({short:,} of them have fewer than {k} items left)" if short else ""
    print(f"{amount(len(users), 'user')}: {out}{note}", file=sys.stderr)


def _check(options: RecommendConfig) -> None:
    """Raise UserError for options that do not go together, or that have no effect."""
    check_one_way(options)
    files = {options.users, options.allow, options.block} - {None, "all"}
    events, table = options.seen is not None, options.contexts is not None
    check_used(
        ("missing", options.missing == "drop" and not files, "only with --users, --allow or --block"),
        ("seed", options.seed != RecommendConfig.seed and not options.draw, "only with --draw"),
        ("user_column", options.user_column is not None and not events, "only with --seen"),
        ("separator", options.separator is not None and not (events or table), "only with --seen"),
        (
            "item_column",
            options.item_column is not None and not events and options.items is None,
            "only with --seen or --items",
        ),
        ("seen", events and bool(options.like), "only for users of the data; --block takes ids"),
        ("seen", events and options.again, "it leaves items out, and --again does not"),
    )
    if options.out is not None and options.users is not None:
        check_parquet(Path(options.out), "--out")


def _with_new_items(recommender: Recommender, options: RecommendConfig) -> Recommender:
    """The policy over its catalogue and the new items of --items, with a line about these."""
    longer, note = recommender.with_new_items(options.items or "", options.item_column or "item")
    print(one_line(f"--items {options.items}: {note}"), file=sys.stderr)
    return longer


def _number_of_items(recommender: Recommender, options: RecommendConfig, remaining: int) -> int:
    """``options.k``, or the default.

    If --allow leaves fewer items, or the person has most of them and no ``k`` was given, it is their number
    ``remaining``, with a line.
    """
    wanted = recommender.default_k if options.k is None else options.k
    if not 0 < remaining < wanted or (options.allow is None and options.k is not None):
        return wanted
    about = f"{remaining} items may be shown"
    if options.allow is not None:
        about = f"--allow {options.allow}: {remaining} of its items may be shown"
    print(f"{about}, so lists have {remaining} in place of {wanted}", file=sys.stderr)
    return remaining


def _seen(
    recommender: Recommender, options: RecommendConfig, path: str, users: Sequence[int | str]
) -> dict[int | str, list[int | str]]:
    """The items in the events of --seen, by user."""
    return read_seen(path, users, recommender.row_of_item, options.columns, options.separator)


def _items(recommender: Recommender, options: RecommendConfig, name: str) -> list[int | str]:
    """The item ids in the file of the option ``name``."""
    names, known = bool(recommender.catalogue.item_names), recommender.row_of_item
    file, where = getattr(options, name), "in the catalogue"
    return read_ids(file, f"--{name}", known, where, names, options.missing, empty=name == "block")


def _users(recommender: Recommender, options: RecommendConfig) -> list[int | str]:
    """The user ids in the file of --users."""
    names, known = bool(recommender.population.user_names), recommender.row_of_user
    where = "among the users whom training kept (those with enough likes)"
    return read_ids(options.users or "", "--users", known, where, names, options.missing)


def _print_hour(hour: float | None, by_clock: bool) -> None:
    if hour is None:
        return
    minutes = round(60 * hour) % (7 * 1440)
    day, time = DAYS[minutes // 1440], f"{minutes // 60 % 24:02}:{minutes % 60:02}"
    how = "this machine's clock; --hour for another" if by_clock else "--hour"
    print(f"for {day}, {time}: hour {hour:.1f} of the week ({how})", file=sys.stderr)


def _parquet(users: Sequence[int | str], lists: Sequence[Sequence[Recommendation]]) -> bytes:
    """A Parquet file with a row for each user and place.

    Its columns are user, place (from 1), item, title, probability and expected.
    """
    import polars as pl

    items = [row[0].item for row in lists if row]
    rows = [
        (user, rank, *row) for user, its in zip(users, lists, strict=True) for rank, row in enumerate(its, 1)
    ]
    of_users, of_items = (
        pl.String if row and isinstance(row[0], str) else pl.Int64 for row in (users, items)
    )
    types = (of_users, pl.Int32, of_items, pl.String, pl.Float32, pl.Float32)
    names = ("user", "place", *Recommendation._fields)
    file = io.BytesIO()
    pl.DataFrame(rows, dict(zip(names, types, strict=True)), orient="row").write_parquet(file)
    return file.getvalue()


def aligned(rewards: Sequence[float | None]) -> list[str]:
    """Each expected reward in words, all with as many digits: three of the largest one."""
    largest = max((abs(reward) for reward in rewards if reward is not None), default=0.0)
    digits = min(9, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
    texts = ["" if reward is None else f"{reward:.{digits}f}" for reward in rewards]
    width = max(map(len, texts), default=0)
    return [text and f"  expected {text:>{width}}" for text in texts]


def _percent(probability: float) -> str:
    return "<0.01%" if 0 < probability < 0.00005 else f"{probability:.2%}"

"""Make a world from a log: one Catalogue and one Population, split once and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data import bias, embeddings
from recsys_rl.data.embeddings import Bools, learn_embeddings, unit_rows
from recsys_rl.data.world_check import check_world
from recsys_rl.settings.fields import Count, Finite, Range
from recsys_rl.settings.shared import DataConfig, EnvConfig
from recsys_rl.types import Catalogue, InteractionLog, Population, UserError, World, genres_and_year
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.tensor_cache import digest, read_tensors, write_tensors
from recsys_rl.utils.user_hashes import user_hashes

QUALITY_PRIOR = 5.0  # an item's mean rating is shrunk as if it had this many more ratings at the overall mean
RARE = 0.05  # a smaller share of likes, or of events that are none, says little about tastes
_FORMAT = 5  # of the cache file; raise it when the meaning of a computed tensor changes


@dataclass(frozen=True)
class LikesConfig(DataConfig):
    """The users and the items of a log of likes."""

    like_threshold: Finite | None = None
    """A rating of at least this much is a like. Default: the lowest rating in the data from three quarters of
    their scale on (4 of 1..5); if less than 5 % of the ratings reach it, the median."""
    min_item_likes: Count = 5
    """Items with fewer likes than this are removed."""
    profile_fraction: Annotated[float, Range(above=0, below=1)] = 0.8
    """Share of each user's likes, the earliest ones, that makes the profile; a policy sees no more. Without
    times a hash of user and item draws these likes."""
    popularity_share: Annotated[float, Range(0, below=1)] = 0.0
    """Share of an item's popularity in the users' affinity to it, for a log in which popularity ranks better
    than the embeddings (`train` says so). One number of each embedding then holds it."""


@dataclass(frozen=True)
class DatasetConfig(LikesConfig):
    """The users and the items of a public dataset."""

    data_dir: str | None = None
    """Folder of the dataset's own files. It is tried before every other source."""


@dataclass(frozen=True)
class MadeUpConfig(DataConfig):
    """Made-up users."""

    num_users: Annotated[int, Range(2, 10**9)] = 2000
    """Number of users in the population."""


def world_of_log(log: InteractionLog, config: LikesConfig, sizes: EnvConfig, seed: int) -> World:
    """Call ``build_world`` with these settings."""
    return World(
        *build_world(
            log,
            num_items=sizes.num_items,
            embedding_dim=sizes.embedding_dim,
            like_threshold=config.like_threshold,
            min_item_likes=config.min_item_likes,
            heldout_fraction=config.heldout_fraction,
            profile_fraction=config.profile_fraction,
            popularity_share=config.popularity_share,
            seed=seed,
            cache_dir=config.cache_dir,
        )
    )


def build_world(
    log: InteractionLog,
    *,
    num_items: int,
    embedding_dim: int,
    like_threshold: float | None,
    min_item_likes: int,
    heldout_fraction: float,
    profile_fraction: float,
    seed: int,
    cache_dir: str | Path | None,
    popularity_share: float = 0.0,
) -> tuple[Catalogue, Population]:
    """The ``num_items`` items most liked by training users, and the users, with unit-norm embeddings.

    A rating of at least ``like_threshold`` is a like; None: of at least ``fitting_threshold``. Each event of
    a log without ratings is a like. The split of the users depends only on their ids and the seed. An item is
    kept if training users gave it at least ``min_item_likes`` likes. If fewer than ``num_items`` items are
    kept, the catalogue's ``source`` gives their number. Users with fewer than 5 likes among all kept items
    are removed, and users whose vector the regularisation shrank to zero. The population's ``source`` gives
    the number of users that remain, and of all events and likes; the catalogue's does not, because these
    depend on held-out users. ``popularity`` and ``quality`` use training users only. ``quality`` is the mean
    rating, mapped to 0..1 by the source's range and shrunk towards the overall mean by ``QUALITY_PRIOR``
    ratings. Items keep the order of the log. data/embeddings.py has the equations, and data/bias.py those of
    ``popularity_share``. The population's ``ranking`` is the check of data/world_check.py.

    The result is kept in ``cache_dir`` (default: the user's cache folder) under a hash of all its inputs.
    A damaged file is made again. If the folder can't be written, a line on stderr reports it.

    Raises UserError if too few items or users remain, or if no rating can reach ``like_threshold``.
    """
    if popularity_share and embedding_dim < 2:
        raise UserError(
            "--popularity-share takes one number of the embedding: give --embedding-dim 2 or more."
        )
    settings: dict[str, Any] = {
        "num_items": num_items,
        "embedding_dim": embedding_dim,
        "like_threshold": threshold_of(
            like_threshold, log, split_users(log.ids_of_users, heldout_fraction, seed)
        ),
        "min_item_likes": min_item_likes,
        "heldout_fraction": heldout_fraction,
        "profile_fraction": profile_fraction,
        "popularity_share": popularity_share,
        "seed": seed,
    }
    path = cache_folder(cache_dir) / f"world-{_world_key(log, settings)[:32]}.safetensors"
    tensors = read_tensors(path)
    if tensors is None:
        tensors = _learn_world(log, **settings)
        write_tensors(path, tensors)
    least = settings["like_threshold"]
    return _assemble(log, tensors, num_items, min_item_likes, least, popularity_share)


def unrated_items(
    embedding: Tensor,
    titles: tuple[str, ...],
    source: str,
    popularity_seed: list[int],
    quality_seed: list[int],
) -> Catalogue:
    """Items without genres and known years. Popularity and quality are drawn as in ``synthetic_world``."""
    num_items = len(embedding)
    return Catalogue(
        embedding=embedding,
        item_ids=torch.arange(num_items),
        titles=titles,
        popularity=torch.from_numpy(0.01 ** np.random.default_rng(popularity_seed).random(num_items)).float(),
        quality=torch.from_numpy(np.random.default_rng(quality_seed).beta(5, 3, num_items)).float(),
        available=torch.ones(num_items, dtype=torch.bool),
        source=source,
        attributes={"genres": torch.zeros(num_items, 0), "year": torch.full((num_items,), torch.nan)},
        features=genres_and_year(),
    )


def split_by_id(num_users: int, heldout_fraction: float, seed: int, whose: str) -> tuple[Tensor, Tensor]:
    """Rows of the training and of the held-out users, where all users are made up with ids 0, 1, ...

    The round(heldout_fraction * U) users with the lowest hashes are held out, so that small populations have
    both. Raises UserError if one side is empty.
    """
    order = np.argsort(user_hashes(range(num_users), f"split {seed}"), kind="stable")
    heldout = np.zeros(num_users, dtype=np.bool_)
    heldout[order[: round(heldout_fraction * num_users)]] = True
    _check_split(heldout, whose)
    return torch.from_numpy(np.flatnonzero(~heldout)), torch.from_numpy(np.flatnonzero(heldout))


def split_users(user_ids: Iterable[int | str], heldout_fraction: float, seed: int) -> Bools:
    """True for held-out users (U,): those whose hash, in [0, 1), is below ``heldout_fraction``.

    The hash depends on the seed and on the user's own id alone. So a user keeps their side when other users
    are added or removed, and about ``heldout_fraction`` of the users are held out, not exactly that share.
    """
    heldout: Bools = user_hashes(user_ids, f"split {seed}") < heldout_fraction
    return heldout


def fitting_threshold(log: InteractionLog, heldout: Bools) -> float:
    """The like threshold that fits the scale of the ratings of training users.

    It is the lowest rating from three quarters of the scale on (4 of 1..5 and of 0.5..5; 1 of 0 and 1). If
    less than RARE of the ratings reach it, as with counts of plays, it is the median. It is 1.0 for a log
    without ratings.
    """
    low, high = log.rating_range
    ratings = log.ratings.numpy()[~heldout[log.users.numpy()]]
    above = ratings[ratings >= low + 0.75 * (high - low)]
    if len(above) == 0 or len(above) < RARE * len(ratings):
        return float(np.quantile(ratings, 0.5, method="higher")) if len(ratings) else high
    return float(above.min())


def threshold_of(given: float | None, log: InteractionLog, heldout: Bools) -> float:
    """The like threshold for this log: ``given``, or the one that fits its ratings.

    A log without ratings has only 1.0 in 0..1: each event is a like. Raises UserError if no rating can reach
    the threshold.
    """
    highest = log.rating_range[1]
    if given is None:
        return fitting_threshold(log, heldout)
    if given <= highest:
        return given
    if log.rating_range == (0.0, 1.0) and bool((log.ratings == 1.0).all()):
        return 1.0
    raise UserError(
        f"{log.source}: no rating can reach the like threshold of {given:g}, as the highest is "
        f"{highest:g}: lower --like-threshold."
    )


def about_likes(log: InteractionLog, like_threshold: float) -> str:
    """The number of events and likes of all users, with a warning if they hardly differ."""
    events, likes = len(log.ratings), int((log.ratings >= like_threshold).sum())
    low, high = log.rating_range
    if likes == events and bool((log.ratings == log.ratings[0]).all()):  # 1 in a log without ratings
        return f"{events:,} events, each a like"
    share = likes / events
    scale = f"{like_threshold:,.10g} of {low:,.10g}..{high:,.10g}"
    text = f"{events:,} events, {likes:,} likes ({share:.0%}) at rating >= {scale}"
    if share > 1 - RARE or share < RARE:
        which = "nearly all" if share > 0.5 else "hardly any"
        text += f" (warning: {which} events are likes, which hide the tastes: see --like-threshold)"
    return text


def about_profiles(likes: Tensor, timed: bool) -> str:
    """The number of earlier likes behind a profile; ``likes`` (U,) int64 are those of each user."""
    middle, most = int(likes.median()), int(likes.max())
    drawn = "" if timed else ", drawn by a hash of user and item, as the log has no times"
    return f"profiles from {middle:,} likes each (median; {int(likes.min()):,} to {most:,}){drawn}"


def _learn_world(
    log: InteractionLog,
    *,
    num_items: int,
    embedding_dim: int,
    like_threshold: float,
    min_item_likes: int,
    heldout_fraction: float,
    profile_fraction: float,
    popularity_share: float,
    seed: int,
) -> dict[str, Tensor]:
    """Fields of Catalogue and Population, the items' ``rows`` in the log, and ``num_kept`` items in all."""
    heldout = split_users(log.ids_of_users, heldout_fraction, seed)
    learned = learn_embeddings(
        log,
        heldout,
        embedding_dim=embedding_dim - (popularity_share > 0),
        like_threshold=like_threshold,
        min_item_likes=min_item_likes,
        profile_fraction=profile_fraction,
        seed=seed,
    )
    if len(learned.item_rows) < 2:
        raise UserError(
            f"{log.source}: too few items to recommend from, because {len(learned.item_rows)} of "
            f"{len(log.item_ids)} have at least {min_item_likes} ratings of {like_threshold:g} or more by "
            f"training users: lower --min-item-likes or --like-threshold, or give more data{_counts(log)}."
        )
    whose, more = f"{log.source}, users with at least {embeddings.MIN_USER_LIKES} likes", ""
    if bool((log.ratings != log.ratings[0]).any()):
        low, high = log.rating_range
        whose += f" (ratings of at least {like_threshold:,.10g} of {low:,.10g}..{high:,.10g})"
        more = f", or lower --like-threshold{_counts(log)}"
    _check_split(learned.heldout, whose, more)
    chosen = np.sort(np.argsort(-learned.item_likes, kind="stable")[:num_items])  # the most liked
    rows = learned.item_rows[chosen]
    liked = (learned.earlier + learned.later)[:, chosen].sorted_indices()
    embedding, likes = unit_rows(learned.item_factors[chosen]), learned.item_likes[chosen]
    taste, profile = unit_rows(learned.taste), unit_rows(learned.profile)
    earlier, later = (matrix[learned.heldout][:, chosen] for matrix in (learned.earlier, learned.later))
    ours = profile[learned.heldout]
    checked = check_world(embedding, ours, popularity_share, likes, earlier, later, log.timed)
    if popularity_share:
        embedding = bias.of_items(embedding, bias.places(likes.astype(np.float64)))
    return {
        **{f"ranking.{name}": value for name, value in checked.items()},
        "rows": torch.from_numpy(rows),
        "embedding": embedding,
        "popularity": torch.from_numpy(likes / (~heldout).sum()).float(),
        "quality": _quality(log, heldout)[rows],
        "taste": bias.of_users(taste, popularity_share),
        "profile": bias.of_users(profile, popularity_share),
        "user_rows": torch.from_numpy(learned.user_rows),
        "likes": torch.from_numpy(np.diff(learned.earlier.indptr).astype(np.int64)),
        "factor_norm": torch.from_numpy(np.linalg.norm(learned.item_factors[chosen], axis=1)).float(),
        "gram": torch.from_numpy(learned.gram).float(),
        "user_ids": log.user_ids[torch.from_numpy(learned.user_rows)],
        "train": torch.from_numpy(np.flatnonzero(~learned.heldout)),
        "heldout": torch.from_numpy(np.flatnonzero(learned.heldout)),
        "num_kept": torch.tensor(len(learned.item_rows)),
        "liked_starts": torch.from_numpy(liked.indptr.astype(np.int64)),
        "liked_items": torch.from_numpy(liked.indices.astype(np.int32)),
    }


def _counts(log: InteractionLog) -> str:
    """Part of an error: ratings beyond the usual scales may be counts."""
    if log.rating_range[1] <= 10:
        return ""
    return (
        "; if these ratings are counts, such as plays, name their column with --weight-column (rating, in a "
        "file without a header), so that each row is a like"
    )


def _check_split(heldout: Bools, whose: str, more: str = "") -> None:
    for side, count in (("training", int((~heldout).sum())), ("held-out", int(heldout.sum()))):
        if count == 0:
            raise UserError(
                f"{whose}: none of {len(heldout)} is a {side} user: change --heldout-fraction or give "
                f"more users and likes{more}."
            )


def _quality(log: InteractionLog, heldout: Bools) -> Tensor:
    """Mean rating (I,) by training users: mapped to 0..1 by the source's range, shrunk to their mean."""
    low, high = log.rating_range
    by_training = ~torch.from_numpy(heldout)[log.users]
    items, ratings = log.items[by_training], (log.ratings[by_training].double() - low) / (high - low)
    total = torch.bincount(items, weights=ratings, minlength=len(log.item_ids))
    count = torch.bincount(items, minlength=len(log.item_ids))
    return ((total + QUALITY_PRIOR * ratings.mean()) / (count + QUALITY_PRIOR)).float()


def _assemble(
    log: InteractionLog,
    tensors: Mapping[str, Tensor],
    num_items: int,
    min_item_likes: int,
    like_threshold: float,
    popularity_share: float,
) -> tuple[Catalogue, Population]:
    rows, num_kept = tensors["rows"], int(tensors["num_kept"])
    which = (
        f"the {num_items} most liked of {num_kept} items"
        if num_kept >= num_items
        else f"all {num_kept} items ({num_items} were asked for)"
    )
    catalogue = Catalogue(
        embedding=tensors["embedding"],
        item_ids=log.item_ids[rows],
        titles=tuple(log.titles[row] for row in rows.tolist()),
        popularity=tensors["popularity"],
        quality=tensors["quality"],
        available=torch.ones(len(rows), dtype=torch.bool),
        source=f"{log.source}: {which} with at least {min_item_likes} likes by training users",
        attributes={name: values[rows] for name, values in log.attributes.items()},
        features=log.features,
        item_names=tuple(log.item_names[row] for row in rows.tolist()) if log.item_names else (),
        factors={
            "norm": tensors["factor_norm"],
            "gram": tensors["gram"],
            **({"popularity_share": torch.tensor(popularity_share)} if popularity_share else {}),
        },
    )
    population = Population(
        taste=tensors["taste"],
        profile=tensors["profile"],
        user_ids=tensors["user_ids"],
        train=tensors["train"],
        heldout=tensors["heldout"],
        source=f"{about_likes(log, like_threshold)}; {len(tensors['user_ids'])} of {len(log.user_ids)} "
        f"users, those with enough likes among them (at least {embeddings.MIN_USER_LIKES}), with "
        f"{about_profiles(tensors['likes'], log.timed)}",
        user_names=tuple(log.user_names[row] for row in tensors["user_rows"].tolist())
        if log.user_names
        else (),
        likes={"starts": tensors["liked_starts"], "items": tensors["liked_items"]},
        ranking={
            name.removeprefix("ranking."): value
            for name, value in tensors.items()
            if name.startswith("ranking.")
        },
    )
    return catalogue, population


def _world_key(log: InteractionLog, settings: Mapping[str, Any]) -> str:
    tensors = {name: value for name, value in vars(log).items() if isinstance(value, Tensor)}
    recipe = (embeddings.REGULARIZATION, embeddings.ALPHA, embeddings.ITERATIONS, embeddings.MIN_USER_LIKES)
    made_by = (_FORMAT, recipe, QUALITY_PRIOR, version("implicit"))
    return digest(tensors, log.user_names, log.rating_range, sorted(settings.items()), made_by)

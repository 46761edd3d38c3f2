"""Ranking metrics of a trained policy, popularity, matrix factorisation and chance on a held-out log."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data.catalogue import fitting_threshold
from recsys_rl.data.event_file import read_events
from recsys_rl.data.tables.columns import EventFile
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.evaluation.ranking_metrics import PER_USER, coverage, rank
from recsys_rl.recommender import Recommender, load
from recsys_rl.settings.fields import Count, Finite, check_fields
from recsys_rl.settings.names import DEFAULT_ALGO
from recsys_rl.training.latest import print_latest
from recsys_rl.types import InteractionLog
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.progress import announce, counted

BLOCK = 64  # users ranked together
Block = tuple[Tensor, Tensor, Tensor, Tensor]
LEGEND = {
    "ndcg": "gain of the relevant items in the list, less at lower places, over the best possible one",
    "ndcg_95": "half of the 95 % interval of ndcg over users: ndcg plus or minus this",
    "recall": "share of the user's relevant items that are in the list",
    "hit": "share of users with a relevant item in the list",
    "mrr": "mean of 1 / place of the first relevant item of the whole ranking",
    "similarity": "mean cosine of the pairs of items in a list; low is diverse",
    "novelty": "mean of -log2 of the items' popularity, in bits; high is unusual",
    "popularity": "mean popularity of the items in the list, over its mean in the catalogue",
    "coverage": "share of the catalogue that is in the list of at least one user",
}
"""A sentence for each column of the table."""


@dataclass(frozen=True)
class RankingConfig(EventFile):
    """The ranking metrics of one checkpoint on one log."""

    log: str = ""
    """Held-out events, such as the latest fifth of a log: a text file or Parquet."""
    seen: str | None = None
    """Earlier events of the same users: their items are not ranked. Users that the checkpoint lacks are
    folded in from these."""
    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy, the catalogue and the users."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    k: Count = 10
    """Items of a list."""
    like_threshold: Finite | None = None
    """An item with a rating of at least this much is relevant (default: the option of the training; if that
    was not given, the threshold that fits the ratings of --seen, or of the held-out log without it)."""
    json: str | None = None
    """Write the table to this file as JSON."""

    def __post_init__(self) -> None:
        check_fields(self)


def ranking(options: RankingConfig) -> dict[str, Any]:
    """Print the metrics of each ranking, and return them as plain values. Raises UserError."""
    if options.json is not None:
        check_writable(Path(options.json), "--json")
    recommender = load(options.checkpoint, options.env)
    print_latest(options.checkpoint, recommender.checkpoint)
    if recommender.checkpoint.world.is_empty:
        raise UserError(f"{options.checkpoint} has no catalogue of items to rank.")
    announce(f"reading {one_line(options.log)}")
    trained = recommender.checkpoint.config.data_config
    heldout = read_events(options.log, options, trained)
    earlier = None if options.seen is None else read_events(options.seen, options, trained)
    least = _threshold(options, recommender, heldout if earlier is None else earlier)
    relevant = _likes(heldout, least, recommender)
    seen = {} if earlier is None else _likes(earlier, least, recommender)
    found = [user for user in relevant if user in recommender.row_of_user or seen.get(user)]
    if not found:
        raise UserError(
            f"{options.log}: no user with a relevant item of the catalogue is in {options.checkpoint}: give "
            "the log of the same users, or their earlier events with --seen."
        )
    new = {user: items for user in found if (items := sorted({*relevant[user]} - {*seen.get(user, ())}))}
    if not new:
        raise UserError(
            f"{options.log}: --seen {options.seen} has all relevant items of each user: give the log of "
            "later events, or leave --seen out."
        )
    rows = _rows(recommender, new, seen, options.k)
    table = {"k": options.k, "users": len(new), "rows": rows}
    print(f"{options.log}: {amount(len(new), 'user')} with relevant items, lists of {options.k}")
    names = list(rows[0])
    print("  ".join(f"{name:>12}" for name in names))
    for row in rows:
        print(
            "  ".join(
                f"{value:>12}" if isinstance(value, str) else f"{value:>12.4f}" for value in row.values()
            )
        )
    print()
    for name in names[1:]:
        print(f"{name}: {LEGEND[name]}")
    if options.json is not None:
        write_text(Path(options.json), json.dumps(table, indent=1) + "\n")
        print(f"table: {options.json}", file=sys.stderr)
    return table


def _threshold(options: RankingConfig, recommender: Recommender, log: InteractionLog) -> float:
    """The lowest rating of a relevant item, the same in both logs."""
    trained = getattr(recommender.checkpoint.config.data_config, "like_threshold", None)
    for threshold in (options.like_threshold, trained):
        if threshold is not None:
            return float(threshold)
    return fitting_threshold(log, np.zeros(len(log.user_ids), dtype=np.bool_))


def _likes(log: InteractionLog, least: float, recommender: Recommender) -> dict[int | str, list[int]]:
    """Rows of the catalogue that each user of a log likes, by user id."""
    users, items = (
        names or ids.tolist()
        for names, ids in ((log.user_names, log.user_ids), (log.item_names, log.item_ids))
    )
    likes: dict[int | str, list[int]] = {}
    for user, item, rating in zip(log.users.tolist(), log.items.tolist(), log.ratings.tolist(), strict=True):
        row = recommender.row_of_item.get(items[item])
        if rating >= least and row is not None:
            likes.setdefault(users[user], []).append(row)
    return likes


def _rows(
    recommender: Recommender,
    relevant: Mapping[int | str, list[int]],
    seen: Mapping[int | str, list[int]],
    k: int,
) -> list[dict[str, Any]]:
    """A row of metrics for the policy and for each simple ranking."""
    catalogue = recommender.catalogue
    sums: dict[str, dict[str, list[Tensor]]] = {}
    unlisted: dict[str, Tensor] = {}
    for profiles, hits, allowed, places in _shown(_blocks(recommender, relevant, seen, k), len(relevant)):
        rankings = {
            recommender.checkpoint.config.algo: recommender.scores(profiles, allowed, places),
            "mf": profiles @ catalogue.embedding.T,
            "popularity": catalogue.popularity.expand(len(profiles), -1),
            "random": torch.zeros_like(hits, dtype=torch.float32),
        }
        for name, scores in rankings.items():
            ranking = rank(scores, hits, allowed, k, catalogue.embedding, catalogue.popularity)
            for metric in PER_USER:
                sums.setdefault(name, {}).setdefault(metric, []).append(getattr(ranking, metric))
            unlisted[name] = unlisted.get(name, 1) * (1 - ranking.listed).prod(0)
    table = []
    for name, metrics in sums.items():
        row: dict[str, Any] = {"ranking": name}
        for metric, parts in metrics.items():
            values = torch.cat(parts)
            row[metric] = values.mean().item()
            if metric == "ndcg":
                spread = values.std(correction=1).item() if len(values) > 1 else math.nan
                row["ndcg_95"] = 1.96 * spread / math.sqrt(len(values))
        row["coverage"] = coverage(unlisted[name], catalogue.available)
        table.append(row)
    return table


def _shown(blocks: Iterator[Block], num_users: int) -> Iterator[Block]:
    """The blocks, with the number of users that are done on standard error."""
    done = 0
    with counted("ranking users", num_users) as show:
        for block in blocks:
            yield block
            done += len(block[0])
            show(done)


def _blocks(
    recommender: Recommender,
    relevant: Mapping[int | str, list[int]],
    seen: Mapping[int | str, list[int]],
    k: int,
) -> Iterator[Block]:
    """Profiles (N, D), relevant items (N, I), at least one a user, rankable items (N, I), and rows (N,).

    The rows are those of the users in the population, -1 for users whom it lacks.
    """
    catalogue, users = recommender.catalogue, list(relevant)
    for start in range(0, len(users), BLOCK):
        own = users[start : start + BLOCK]
        hits = torch.zeros(len(own), catalogue.num_items, dtype=torch.bool)
        allowed = catalogue.available.repeat(len(own), 1)
        profiles, places = [], [recommender.row_of_user.get(user, -1) for user in own]
        for row, user in enumerate(own):
            hits[row, relevant[user]] = True
            allowed[row, seen.get(user, [])] = False
            known_row = places[row]
            profiles.append(
                recommender.fold_in(seen[user])[0]
                if known_row < 0
                else recommender.population.profile[known_row]
            )
        if int(allowed.sum(1).min()) < k:
            raise UserError(f"A user has fewer than {k} items that are not seen: lower --k.")
        yield torch.stack(profiles), hits, allowed, torch.tensor(places)

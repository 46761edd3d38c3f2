"""Does a limit hold on held-out users, and what does it cost? The table of docs/06, on `social-feed`.

    python -m benchmarks.limits [--seeds 0-2] [--only paid paid-limit] [--keep FOLDER]

Each run is PPO with its preset but fewer items and steps, with and without a limit (``train --limit``), once
with the platform's weights and once where revenue, and so an ad, pays ten times as much (``--weights
revenue=4``). Without a limit the platform's hard rule alone bounds the ads: at most one in five places, since
ads are forbidden at the four places after an ad. The policy that draws plays one session with each held-out
user. Columns: the shares as the limits measure them, the return with the platform's weights and with those of
learning, the multiplier at the end of the training and its mean over the last fifth of the updates, and the
share of ads in each GROUP places of the visit, for users who are still there.

The row `hard-rule` shows an ad wherever none is forbidden, over RULE_STEPS user-steps, and counts the places
that break the rule.

With ``--keep`` the trained runs are kept in that folder, and read from there the next time. Rows are appended
to benchmarks/results/limits.csv.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import newest, runs, tables
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.columns import numbers_of
from recsys_rl.evaluation.players import Table, heldout_users, learned
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env, make_world
from recsys_rl.objective.lagrange import parse_limits
from recsys_rl.objective.limit_streams import AD
from recsys_rl.objective.weighted import parse_weights, stream_weights
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Catalogue
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators, parse_seeds

PAID_REVENUE = 4.0  # the weight of revenue, ten times the platform's
PAID = ("--weights", f"revenue={PAID_REVENUE:g}")
RUNS: dict[str, tuple[str, ...]] = {  # options of `train`
    "plain": (),
    "plain-limit": ("--limit", "ads<=0.1"),
    "paid": PAID,
    "paid-limit": (*PAID, "--limit", "ads<=0.1"),
    "paid-limit-half": (*PAID, "--limit", "ads<=0.05"),
    "tail-limit": ("--limit", "tail_exposure>=0.5"),
}
RULE, RULE_STEPS, RULE_USERS, PLACES = "hard-rule", 1_000_000, 4_096, 5
LABELS = {
    "plain": ("the platform's weights", "one ad in five places"),
    "plain-limit": ("the platform's weights", "and ads<=0.1"),
    "tail-limit": ("the platform's weights", "and tail_exposure>=0.5"),
    "paid": ("revenue=4", "one ad in five places"),
    "paid-limit": ("revenue=4", "and ads<=0.1"),
    "paid-limit-half": ("revenue=4", "and ads<=0.05"),
}
GROUP = 5  # places
LAST = 5  # the mean of a multiplier is over the last fifth of the updates
TINY = (
    *("--data", "synthetic", "--num-users", "40", "--num-items", "60", "--embedding-dim", "4"),
    *("--n-steps", "8", "--num-envs", "8", "--batch-size", "64", "--hidden-dims", "8"),
)


@dataclass(frozen=True)
class Size:
    """Of each run."""

    steps: int
    items: int
    smoke: bool

    @staticmethod
    def of(args: argparse.Namespace) -> Size:
        """From the options of ``add_sizes``."""
        return Size(64 if args.smoke else args.steps, args.items, args.smoke)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=300_000, help="of each training (default: 300,000)")
    parser.add_argument("--items", type=int, default=300, help="of the catalogue (default: 300)")
    parser.add_argument("--keep", type=Path, help="folder for the trained runs")


def train(options: Sequence[str], seed: int, size: Size, folder: Path) -> Path:
    """The folder ``place`` of a run of PPO with these options of `train`, trained if it is not there."""
    words = ["train", "--env", "social-feed", "--seed", str(seed), "--threads", "1"]
    words += ["--total-timesteps", str(size.steps), "--eval-interval", "0", *options]
    runs.trained(folder, "ppo", [*words, *(TINY if size.smoke else ("--num-items", str(size.items)))])
    return folder


def heldout_table(folder: Path, seed: int) -> tuple[Entry, Table]:
    """The run in ``folder``, and the table of all held-out users of its seed."""
    path = runs.checkpoint_in(folder, "ppo")
    entry = Entry(path, load(path), "ppo")
    world, config = entry.checkpoint.world, entry.checkpoint.config
    streams = generators(seed, "evaluation users", "policy", "shuffle", "random")
    users = heldout_users(world, 0, seed)
    return entry, Table(config, world, users, seed, torch.device("cpu"), streams)


def row_of(name: str, seed: int, size: Size, folder: Path) -> Row:
    """The run in ``folder`` with the held-out users of its seed."""
    entry, table = heldout_table(folder, seed)
    world, config, users, env = table.world, table.config, table.users, table.env()
    sessions = play(env, learned([entry], table, env)["ppo"].agent, users)
    shown, over = numbers_of(sessions, world.catalogue), interval(sessions.returns)
    weights = stream_weights(env.streams, parse_weights(config.train_config.weights)).tolist()
    names = [stream.name for stream in env.streams]
    each = [sessions.streams[name].sum(0).mean().item() for name in names]
    row: Row = {"run": name, "seed": seed, "steps": size.steps, "items": world.catalogue.num_items}
    row |= {"users": len(users)}
    row |= {stream: shown["limit_streams"][stream] for stream in ("ads", "tail_exposure", "early_end")}
    row |= {"creator_gini": shown["creator_gini"], "return_mean": over.mean}
    row |= {
        "return_low": over.low,
        "return_high": over.high,
        "learned_return": sum(w * value for w, value in zip(weights, each, strict=True)),
    }
    row |= {"length_mean": sessions.lengths.double().mean().item()}
    by_place = ads_by_place(sessions.items[:, :, 0], ads_of(world.catalogue))
    row |= {"ads_by_place": " ".join(f"{share:.4f}" for share in by_place)}
    return row | multipliers(folder, config)


def ads_of(catalogue: Catalogue) -> Tensor:
    """(I,) bool"""
    return catalogue.attributes["kind"] == catalogue.classes("kind").index(AD)


def ads_by_place(items: Tensor, is_ad: Tensor) -> list[float]:
    """The share of ads in each GROUP places of the visits ``items`` (T, N), -1 after the end."""
    shares = []
    for group in items.split(GROUP):
        shown = group[group >= 0]
        shares.append(is_ad[shown].double().mean().item() if len(shown) else math.nan)
    return shares


def multipliers(folder: Path, config: Config) -> Row:
    """The bound of the run's limit, if it has one, its last multiplier, and the mean towards the end."""
    limits = parse_limits(config.train_config.limit)
    if not limits:
        return {"limit": "", "bound": math.nan, "multiplier": math.nan, "multiplier_mean": math.nan}
    (log,) = (folder / "runs").glob("*/log.csv")
    values = [value for _, _, name, value in read_log(log) if name == limits[0].column]
    mean = statistics.mean(values[-math.ceil(len(values) / LAST) :])
    known = {"limit": limits[0].stream, "bound": limits[0].bound}
    return known | {"multiplier": values[-1], "multiplier_mean": mean}


def hard_rule(seed: int, smoke: bool) -> Row:
    """Show an ad wherever none is forbidden, and count the places that break the rule of ads."""
    sizes = {"num_items": 60} if smoke else {}
    data = {"data": "synthetic", "num_users": 50} if smoke else {}
    settings = {"env": "social-feed", "env_config": sizes, "data_config": data}
    config = from_dict(Config, {**settings, "train_config": {"seed": seed}})
    world, count = make_world(config), 64 if smoke else RULE_USERS
    env = make_env(config, world, count, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    is_ad = ads_of(world.catalogue)  # (I,)
    noise = torch.Generator().manual_seed(seed)
    obs, since = env.reset(), torch.full((count,), PLACES)  # (N,): places since the last ad of the visit
    ads = broken = steps = 0
    while steps < (10_000 if smoke else RULE_STEPS):
        items = chosen(obs.allowed(len(is_ad)), is_ad, noise)  # (N,)
        step = env.step(items.unsqueeze(1))
        shown = is_ad[items]
        ads, broken = ads + int(shown.sum()), broken + int((shown & (since < PLACES - 1)).sum())
        since = torch.where(shown, 0, since + 1)
        since[step.terminated | step.truncated] = PLACES
        obs, steps = step.obs, steps + count
    return {"run": RULE, "seed": seed, "steps": steps, "users": count, "ads": ads / steps, "broken": broken}


def chosen(allowed: Tensor, is_ad: Tensor, noise: torch.Generator) -> Tensor:
    """(N,): a random permitted ad, or another random permitted item where no ad is permitted."""
    scores = torch.rand(allowed.shape, generator=noise) + is_ad.float()  # (N, I)
    return scores.masked_fill(~allowed, -1.0).argmax(1)


def run(names: Sequence[str], seeds: Sequence[int], size: Size, keep: Path) -> list[Row]:
    """The rows of these runs, for each seed, and of the hard rule."""
    rows = []
    for seed in seeds:
        for name in names:
            if name != RULE:
                folder = train(RUNS[name], seed, size, keep / f"{name}-{seed}")
                rows.append(row_of(name, seed, size, folder))
                print(rows[-1], file=sys.stderr, flush=True)
    return [*rows, *([hard_rule(seeds[0], size.smoke)] if RULE in names else [])]


def text(results: Path) -> str:
    """The runs under each limit: shares, multipliers and returns, each seed's beside the other's."""
    rows = newest.read(results, "limits", ("run", "seed"))
    head = [
        "weights",
        "limit",
        "seeds",
        "ads, %",
        "tail, %",
        "multiplier",
        "return",
        "return of learning",
        "Gini",
    ]
    lines = []
    for run, words in LABELS.items():
        at = [row for row in rows if row["run"] == run]
        shares = (each(at, name, 100, 1) for name in ("ads", "tail_exposure"))
        returns = (each(at, name, 1, 2) for name in ("return_mean", "learned_return", "creator_gini"))
        lines.append([*words, str(len(at)), *shares, each(at, "multiplier_mean", 1, 2), *returns])
    trained = [row for row in rows if row["run"] in RUNS]
    said = (
        f"{sizes(trained)}, on its held-out users, by the policy that draws;\nmultiplier: mean over the "
        f"last fifth of the training. {newest.origin(trained).capitalize()};\n`python -m benchmarks.limits`."
    )
    rule = [row for row in rows if row["run"] == RULE]
    if rule:
        broken, steps = int(float(rule[-1]["broken"])), int(rule[-1]["steps"])
        said += f"\nShowing an ad wherever none is forbidden breaks the rule at {broken} of {steps:,} places."
    lines = [line for line in lines if line[-1]]  # a run without results has no row
    return f"{newest.table(head, lines)}\n\n{said}"


def each(rows: Sequence[newest.Row], column: str, scale: float, digits: int) -> str:
    """The value of each seed; with more than three seeds their mean."""
    by_seed = sorted(rows, key=lambda row: int(row["seed"]))
    values = [scale * float(row[column]) for row in by_seed if row.get(column)]
    if len(values) > 3:
        values = [statistics.mean(values)]
    return ", ".join(f"{value:.{digits}f}" for value in values)


def sizes(rows: Sequence[newest.Row]) -> str:
    items, steps = int(float(rows[0]["items"])), int(rows[0]["steps"])
    return f"PPO's preset with {items:,} items and {steps:,} steps; each seed's value"


def main() -> None:
    parser = tables.parser(__doc__)
    names = [*RUNS, RULE]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-4 or 0,3,7 (default: 0-2)")
    add_sizes(parser)
    args = tables.parse(parser, "limits")
    torch.set_num_threads(args.threads or 1)
    seeds = [0] if args.smoke else args.seeds
    with tempfile.TemporaryDirectory() as folder:
        tables.publish(run(args.only, seeds, Size.of(args), args.keep or Path(folder)), args)


if __name__ == "__main__":
    tables.run(main)

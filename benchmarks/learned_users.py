"""Users learned from logs, policies trained inside them, and what these earn with the true users.

    python -m benchmarks.learned_users [--envs satiation ...] [--logs medium ...] [--seeds 0] [--keep FOLDER]
                                       [--smoke] [--json FILE]

The logs are those of benchmarks.offline: sessions of training users with random items, and with a policy that
has had about a tenth of the training (harness/offline_logs.py). A row has

- the losses of the learned users on users that they were not fitted on, over those of the true simulator;
- the return of PPO, trained inside, with the true held-out users and its share of online PPO's return;
- of a dozen policies (stages of the online training, baselines, the policy trained inside) the rank
  correlation of their returns in the learned and in the true world, and the regret of the choice by the
  learned one: the share of the best return that is lost.

All policies act greedily, and play one session with each held-out user. ``--keep`` keeps logs, users and
checkpoints in FOLDER/ENV-seed-N, and takes those that are there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.offline_logs import Logs, Sizes, make_logs
from benchmarks.harness.turns import Row
from benchmarks.ope_selection import spearman
from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import simple_baselines
from recsys_rl.experience.rollout import play
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.make import agent_of, make_env
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, preset_of
from recsys_rl.training.train import train
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

ENVS = ("satiation", "short-video")
LOGS = ("medium", "random")
STAGES = (0, 1, 2, 3, 5, 8, 12, 16, 20)
"""Stages of the online training that are judged, in twentieths of its steps."""


@dataclass(frozen=True)
class Work:
    """How much is simulated and learned on a platform."""

    logs: Sizes
    inside: int  # steps of PPO in learned users
    members: int = 3
    epochs: int = 4
    ppo: Mapping[str, Any] = field(default_factory=dict)  # of PPO inside, over the platform's preset


# Inside, fewer and larger steps than in the preset: the networks answer many users in the time of a few.
WORK = {
    "satiation": Work(Sizes(), 150_000, ppo={"num_envs": 128, "n_steps": 16}),
    "short-video": Work(Sizes(steps=600_000, sessions=2_000), 200_000, members=2, epochs=5),
}
SMALL = {"data": "synthetic", "num_users": 40, "num_items": 40, "embedding_dim": 8, "max_episode_steps": 10}
SMOKE = Work(
    Sizes(
        steps=32 * 21,
        sessions=60,
        world={**SMALL, "hidden_dims": (16,)},
        ppo={"n_steps": 8, "num_envs": 4, "batch_size": 16},
    ),
    inside=64,
    members=2,
    epochs=1,
    ppo={"n_steps": 8, "num_envs": 4, "batch_size": 16},
)


def inside(path: Path, users: Path, env: str, seed: int, work: Work) -> Checkpoint:
    """PPO that was trained inside the learned ``users``; it is trained unless ``path`` is there."""
    made = path / "ppo.pt"
    if not (path / "done").exists():
        learner = {**preset_of("ppo", env).get("agent_config", {}), **work.ppo}
        settings = {"hidden_dims": work.logs.world["hidden_dims"]} if "hidden_dims" in work.logs.world else {}
        train(
            algo="ppo",
            env="learned",
            user_model=str(users),
            total_timesteps=work.inside,
            eval_interval=0,
            seed=seed,
            folder=path,
            quiet=True,
            **learner,
            **settings,
        )
        (path / "done").touch()
    return load(made)


def env_of(config: Config, of: Checkpoint) -> RecEnv:
    """The held-out users of a world, one session each."""
    noise, users = torch.Generator().manual_seed(0), of.population.heldout
    env = make_env(config, of.world, len(users), noise, heldout=True, training=False)
    assert isinstance(env, RecEnv)
    return env


def policies(logs: Logs, own: Checkpoint, env: RecEnv) -> dict[str, Policy]:
    """The policies that are judged: stages of the training, baselines, and the one trained inside."""
    by_name: dict[str, Policy] = {f"stage {stage}": agent_of(load(logs.snapshot(stage))) for stage in STAGES}
    train_users = own.population.train
    noise = torch.Generator().manual_seed(0)
    return by_name | dict(simple_baselines(env, train_users, noise)) | {"inside": agent_of(own)}


def values(config: Config, of: Checkpoint, judged: Mapping[str, Policy]) -> dict[str, Tensor]:
    """The returns (U,) of each policy with the users of ``config``."""
    users = of.population.heldout
    return {
        name: play(env_of(config, of), policy, users, greedy=True).returns for name, policy in judged.items()
    }


def row(logs: Logs, env: str, log: str, seed: int, work: Work) -> Row:
    """One row of the table."""
    started = time.process_time()
    users = logs.folder / f"users-{log}.pt"
    behaviour = logs.snapshot("medium")
    told = users.with_suffix(".json")
    if not told.exists():
        fit_users(
            log=str(logs.log(log)),
            checkpoint=str(behaviour),
            out=str(users),
            members=work.members,
            epochs=work.epochs,
            seed=seed,
            json=str(told),
            quiet=True,
        )
    report = json.loads(told.read_text())
    fitted = time.process_time()
    own = inside(logs.folder / f"inside-{log}", users, env, seed, work)
    trained = time.process_time()
    true = load(behaviour)
    judged = policies(logs, own, env_of(true.config, true))
    in_truth, in_learned = values(true.config, true, judged), values(own.config, own, judged)
    names = list(judged)
    truth, learned = (torch.tensor([returns[n].mean() for n in names]) for returns in (in_truth, in_learned))
    best, chosen = float(truth.max()), float(truth[learned.argmax()])
    online, estimate = float(in_truth[f"stage {STAGES[-1]}"].mean()), interval(in_truth["inside"])
    paired = interval(in_truth["inside"] - in_truth[f"stage {STAGES[-1]}"])
    losses = {
        f"loss_{signal['name']}": signal["loss"]["learned"] / max(signal["loss"]["truth"], 1e-9)
        for signal in report["signals"]
        if signal["loss"].get("truth")
    }
    return {
        "env": env,
        "log": log,
        "seed": seed,
        "users": len(in_truth["inside"]),
        "return_mean": estimate.mean,
        "return_low": estimate.low,
        "return_high": estimate.high,
        "online": online,
        "share": estimate.mean / online,
        **{f"over_online_{end}": getattr(paired, end) for end in ("mean", "low", "high")},
        "inside_return": float(in_learned["inside"].mean()),
        "policies": len(names),
        "spearman": spearman(learned, truth),
        "regret": (best - chosen) / best,
        "chosen": names[int(learned.argmax())],
        **losses,
        "leaving_loss": report["leaving"]["loss"]["learned"],
        "leaving_popularity": report["leaving"]["loss"]["popularity"],
        "lengths_distance": report["lengths"]["distance"],
        "returns_distance": report["returns"]["distance"],
        "classifier_auc": report["classifier_auc"],
        "fit_seconds": fitted - started,
        "train_seconds": trained - fitted,
    }


def text(results: Path) -> str:
    """The table of docs/11, from the newest rows of the file alone: means over seeds."""
    rows = newest.read(results, "learned_users", ("env", "log", "seed"))
    groups: dict[tuple[str, ...], list[newest.Row]] = {}
    for line in rows:
        groups.setdefault((f"`{line['env']}`", line["log"]), []).append(line)
    body = []
    for group, of_seeds in sorted(groups.items()):

        def mean(column: str, of_seeds: Sequence[newest.Row] = of_seeds) -> float:
            return sum(float(line[column]) for line in of_seeds) / len(of_seeds)

        shares = [100 * float(line["share"]) for line in of_seeds]
        span = f" ({min(shares):.0f} to {max(shares):.0f})" if len(shares) > 1 else ""
        ratios = [max(of_seed) for of_seed in map(_ratios, of_seeds) if of_seed]
        cells = [*group, str(len(of_seeds)), f"{mean('return_mean'):.2f}", f"{mean('inside_return'):.2f}"]
        cells += [f"{100 * mean('share'):.0f} %{span}", f"{mean('spearman'):.2f}"]
        cells += [f"{100 * mean('regret'):.1f} %", f"{max(ratios):.2f}" if ratios else ""]
        body.append([*cells, f"{mean('classifier_auc'):.2f}"])
    head = ["platform", "log", "seeds", "true return", "return inside"]
    head += ["of online PPO", "rank correlation", "regret"]
    head += ["largest loss over the truth's", "AUC, real or learned"]
    said = "Means over seeds, in brackets the smallest and the largest; `python -m benchmarks.learned_users`,"
    return f"{newest.table(head, body)}\n\n{said}\n{newest.origin(rows).replace('commit', 'commits')}."


def _ratios(line: newest.Row) -> list[float]:
    return [float(value) for name, value in line.items() if name.startswith("loss_") and value]


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--envs", nargs="+", choices=ENVS, default=list(ENVS))
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--seeds", type=parse_seeds, default="0", help="as in 0-2 or 0,3,7 (default: 0)")
    parser.add_argument("--keep", type=Path, help="keep logs and checkpoints here, and take those there")
    args = tables.parse(parser, "learned_users")
    torch.set_num_threads(args.threads or 1)
    seeds: Sequence[int] = [0] if args.smoke else args.seeds
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for env in args.envs:
            work = SMOKE if args.smoke else WORK[env]
            work = dataclasses.replace(work, logs=dataclasses.replace(work.logs, env=env, replay=False))
            for seed in seeds:
                logs = make_logs((args.keep or Path(temporary)) / f"{env}-seed-{seed}", seed, work.logs)
                for log in args.logs:
                    told = row(logs, env, log, seed, work)
                    rows.append(told)
                    print(
                        f"{env} {log} seed {seed}: {told['return_mean']:.2f}, "
                        f"{100 * told['share']:.0f} % of online PPO, correlation {told['spearman']:.2f}",
                        file=sys.stderr,
                        flush=True,
                    )
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

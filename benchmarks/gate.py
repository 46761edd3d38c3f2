"""Does the gate let good candidates through, and stop bad ones? On logs of 2,000 sessions of held-out users.

For each seed: a champion (PPO, stopped early) is recorded on 2,500 sessions of training users, from which the
good candidates and two of the bad ones learn, and on 2,000 sessions of held-out users, by which the gate
judges all of them. The truth of each is its mean return in the simulator, as it draws.

    python -m benchmarks.gate --seeds 0-2
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables
from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.players import Table
from recsys_rl.evaluation.policies import Behaviours
from recsys_rl.experience.rollout import play
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.make import agent_of
from recsys_rl.protocols import Behaviour
from recsys_rl.serving.loop.gate_compare import bench, compare
from recsys_rl.serving.loop.gate_rule import decide
from recsys_rl.serving.loop.learners import TEMPERATURE
from recsys_rl.settings.config import to_dict
from recsys_rl.training.train import train
from recsys_rl.utils.seeding import generators, parse_seeds

HARM = 0.15
"""A candidate is bad if its true return is lower than the champion's by more than this."""
GOOD = ("ppo", "cql")
"""Candidates of `recsys-rl retrain`."""
BAD = ("cql of reversed rewards", "clone of few sessions", "early PPO", "random", "popularity")


@dataclass(frozen=True)
class Sizes:
    env: str = "satiation"
    champion: int = 81_920  # steps of PPO
    early: int = 20_480  # of PPO that was stopped earlier
    steps: int = 150_000  # of PPO inside learned users
    decisions: int = 320_000  # that learners from the log draw
    recorded: int = 2_500  # sessions of training users
    cloned: int = 250  # sessions of the small clone
    heldout: int = 2_000  # sessions of held-out users
    truth: int = 4_000  # sessions in the simulator
    settings: tuple[tuple[str, Any], ...] = ()  # of the world


SMOKE = Sizes(
    champion=2048,
    early=2048,
    steps=2048,
    decisions=6400,
    recorded=60,
    cloned=20,
    heldout=60,
    truth=20,
    settings=(
        ("data", "synthetic"),
        ("num_users", 30),
        ("num_items", 24),
        ("embedding_dim", 4),
        ("max_episode_steps", 5),
    ),
)


@dataclass(frozen=True)
class Made:
    """The policies of one seed; what the folder has of an earlier start is not learned again."""

    sizes: Sizes
    seed: int
    folder: Path

    def run(self, name: str, **settings: Any) -> Path:
        folder = self.folder / name.replace(" ", "-")
        path = folder / f"{settings['algo']}.pt"
        if path.exists():
            return path
        under_way = folder.with_name(f"{folder.name}.part")  # only a finished run gets the name
        shutil.rmtree(under_way, ignore_errors=True)
        train(folder=under_way, latest=False, quiet=True, seed=self.seed, eval_interval=0, **settings)
        under_way.rename(folder)
        return path

    def ppo(self, name: str, steps: int) -> Path:
        world = dict(self.sizes.settings)
        return self.run(name, algo="ppo", env=self.sizes.env, total_timesteps=steps, **world)

    def log(self, champion: Path, users: str, sessions: int, number: int = 0) -> Path:
        """Log ``number`` of sessions of these users."""
        path = self.folder / (
            f"{users}-{sessions}-{number}.parquet" if number else f"{users}-{sessions}.parquet"
        )
        seed = self.seed + (users == "heldout") + 1000 * number
        if not path.exists():
            played: dict[str, Any] = {"users": users, "sessions": sessions, "seed": seed, "quiet": True}
            record(RecordConfig(str(champion), out=str(path), **played))
        return path

    def from_log(self, name: str, champion: Path, log: Path, **settings: Any) -> Path:
        given = {"total_timesteps": self.sizes.decisions, "log": (str(log),), **settings}
        return self.run(name, checkpoint=str(champion), **given)

    def inside(self, champion: Path, log: Path) -> Path:
        users = self.folder / "users.pt"
        if not users.exists():
            fit_users(log=str(log), checkpoint=str(champion), out=str(users), quiet=True)
        return self.run(
            "inside",
            algo="ppo",
            env="learned",
            user_model=str(users),
            model_config=to_dict(load_at_home(champion).config)["model_config"],
            init_from=str(champion),
            total_timesteps=self.sizes.steps,
        )

    def candidate(self, name: str, champion: Path) -> Path:
        """The checkpoint of a candidate that is learned."""
        if name == "early PPO":
            return self.ppo("early", self.sizes.early)
        sizes, values = self.sizes, {"algo": "cql", "temperature": TEMPERATURE}
        sessions = sizes.cloned if name == "clone of few sessions" else sizes.recorded
        log = self.log(champion, "train", sessions)
        if name == "ppo":
            return self.inside(champion, log)
        if name == "cql":
            return self.from_log("cql", champion, log, **values)
        if name == "cql of reversed rewards":
            return self.from_log("reversed", champion, log, **values, weights=("engagement=-1",))
        return self.from_log("clone", champion, log, algo="bc")


class Truth:
    """Mean returns of policies in the simulator, on held-out users."""

    def __init__(self, checkpoint: Checkpoint, sessions: int, seed: int) -> None:
        streams = generators(seed, "evaluation users", "policy", "random", "mixture")
        users = checkpoint.population.heldout
        table = Table(checkpoint.config, checkpoint.world, users[:1], seed, torch.device("cpu"), streams)
        env = table.env()
        assert isinstance(env, RecEnv)
        self.env, self.users = env, users[torch.arange(sessions) % len(users)]
        self.behaviours = Behaviours(checkpoint, table, env, None)

    def of(self, policy: Behaviour) -> float:
        return float(
            torch.cat([play(self.env, policy, rows).returns for rows in self.users.split(256)]).mean()
        )


def judged(
    sizes: Sizes, seed: int, folder: Path, names: Sequence[str], logs: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row for each candidate and each of these logs of the champion."""
    made = Made(sizes, seed, folder)
    path = made.ppo("champion", sizes.champion)
    champion = load_at_home(path)
    truth, old = Truth(champion, sizes.truth, seed), agent_of(champion)
    earned = truth.of(old)
    candidates: dict[str, Behaviour] = {}
    for name in names:
        if name in BAD[-2:]:
            candidates[name] = truth.behaviours.make(name)
        else:
            candidates[name] = agent_of(load_at_home(made.candidate(name, path)))
    true = {name: truth.of(policy) - earned for name, policy in candidates.items()}
    for number in logs:
        heldout = made.log(path, "heldout", sizes.heldout, number)
        on = bench(heldout, read_decisions(heldout), champion)
        for name, policy in candidates.items():
            verdict = decide(compare(on, policy), name, "champion", (0, 0), 1)
            yield {
                "seed": seed,
                "log": number,
                "candidate": name,
                "good": name in GOOD,
                "champion": earned,
                "truth": true[name],
                "difference": verdict.difference,
                "low": verdict.low,
                "high": verdict.high,
                "answer": verdict.answer,
                "chi2": verdict.chi2,
                "sessions": verdict.sessions,
            }


def summary(rows: Sequence[dict[str, Any]]) -> str:
    bad, good = [row for row in rows if not row["good"]], [row for row in rows if row["good"]]
    better = sum(row["answer"] == "better" for row in bad)
    harmful = sum(row["answer"] == "no harm seen" and row["truth"] < -HARM for row in bad)
    through = sum(row["answer"] in ("better", "no harm seen") for row in good)
    return (
        f"{better} of {len(bad)} bad candidates better, {harmful} no harm seen though worse by more than "
        f"{HARM}; {through} of {len(good)} good ones let through"
    )


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-2 or 0,3,7 (default: 0-2)")
    parser.add_argument("--keep", type=Path, help="keep logs and checkpoints here, and take those there")
    names = (*GOOD, *BAD)
    parser.add_argument("--candidates", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--logs", type=parse_seeds, default="0", help="logs of each champion, as in 0-2")
    args = tables.parse(parser, "gate")
    torch.set_num_threads(args.threads or 1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in [0] if args.smoke else args.seeds:
            folder = (args.keep or Path(temporary)) / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            for row in judged(SMOKE if args.smoke else Sizes(), seed, folder, args.candidates, args.logs):
                print(
                    f"seed {seed} log {row['log']} {row['candidate']}: truth {row['truth']:+.2f}, gate "
                    f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}], {row['answer']}",
                    file=sys.stderr,
                    flush=True,
                )
                rows.append(row)
    print(summary(rows))
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

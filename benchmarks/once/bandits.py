"""Processor time of a step of the linear bandits, with 4,096 users at once.

    python -m benchmarks.once.bandits --threads 1 [--rounds 3] [--json FILE] [--csv FILE] [--smoke]

A step is what a table needs of the policy: the regressions learn the last answer of each user, and the item
with the highest score is chosen. Sessions have 20 steps over 1,000 synthetic items of 32 dimensions; the
first step, which makes the tables, is left out. The answers are uniform random numbers. Thompson sampling
makes no estimate of its probabilities here.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import tables, turns
from benchmarks.harness.turns import Row, System
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.evaluation.rivals.best_slate import SINGLE
from recsys_rl.evaluation.rivals.linear_bandit import BANDITS, BanditSettings, make_bandit
from recsys_rl.types import Obs
from recsys_rl.utils.allocator import keep_freed_memory

STEPS = 20


@dataclass(frozen=True)
class Sizes:
    users: int = 4096
    items: int = 1000
    dim: int = 32


def step(name: str, sizes: Sizes) -> Row:
    """The median milliseconds of processor time of a step of ``name``, over one session of all users."""
    keep_freed_memory()
    g = torch.Generator().manual_seed(0)
    catalogue, population = synthetic_world(5, sizes.items, sizes.dim, 0.2, 0)
    generators = (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    settings, start = BanditSettings(explore=0.5, gain=1.0), population.profile.mean(0)
    bandit = make_bandit(name, catalogue, settings, torch.ones(1), generators, start, SINGLE, estimates=False)
    reader, context = bandit.reader(), torch.randn(sizes.users, sizes.dim, generator=g)
    history = torch.full((sizes.users, STEPS), -1)  # (N, L)
    signals = torch.zeros(sizes.users, STEPS, 1)
    seconds = []
    for _ in range(STEPS):
        obs = Obs(context, mask=None, exclude=history, history=history, signals=signals)
        started = time.process_time()
        items = bandit.act(reader.follow(obs)).items  # (N, 1)
        seconds.append(time.process_time() - started)
        answers = torch.rand(sizes.users, 1, 1, generator=g)
        history = torch.cat([history[:, 1:], items], 1)
        signals = torch.cat([signals[:, 1:], answers], 1)
    return {"ms": 1000 * statistics.median(seconds[1:]), "least_ms": 1000 * min(seconds[1:])}


def main() -> None:
    parser = tables.parser(__doc__)
    args = tables.parse(parser, "bandits", folder=Path(__file__).parent)
    sizes = Sizes(16, 20, 4) if args.smoke else Sizes()
    systems = [System(name, "N=4096", "recsys-rl", "recsys_rl", partial(step, name)) for name in BANDITS]
    with torch.inference_mode():
        rows = turns.interleaved(systems, 1 if args.smoke else args.rounds, sizes)
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

"""Three logs of simulated sessions: of random items, of a half-trained policy, of a whole training.

PPO, on `satiation` unless another platform is named, is saved after each twentieth of its steps. ``random``
shows items at random; ``medium`` is the policy after about a tenth of the steps, sampled; ``replay`` has
sessions of all 21 policies, from the untrained one on. All are sessions of training users, with exact
propensities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint import save
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.writer import write_decisions
from recsys_rl.settings.config import Config
from recsys_rl.training.resume import snapshot
from recsys_rl.training.train import updates

PARTS = 20
LOGS = ("random", "medium", "replay")
MEDIUM = 63 / 600
"""Share of the steps of the training after which the policy is of medium quality."""


@dataclass(frozen=True)
class Sizes:
    """How much is simulated and learned."""

    steps: int = 600_000  # of PPO
    sessions: int = 20_000  # of each log
    gradient_steps: int = 2_500  # of a learner, of 128 decisions each
    world: Mapping[str, Any] = field(default_factory=dict)  # settings of the data and the network
    ppo: Mapping[str, Any] = field(default_factory=dict)  # settings of PPO
    env: str = "satiation"
    replay: bool = True  # make this log, too


@dataclass(frozen=True)
class Logs:
    """The logs of one seed in a folder."""

    folder: Path

    def log(self, name: str) -> Path:
        return self.folder / ("replay" if name == "replay" else f"{name}.parquet")

    def snapshot(self, stage: int | str) -> Path:
        return self.folder / f"snap-{stage}.pt"

    def behaviour(self, name: str) -> Path | None:
        """The checkpoint of the policy that made the log, for ``replay`` the last one; None: random items."""
        return {"random": None, "medium": self.snapshot("medium"), "replay": self.snapshot(PARTS)}[name]


def make_logs(folder: Path, seed: int, sizes: Sizes) -> Logs:
    """The logs of this seed in ``folder``; they are made unless the file ``logs-done`` is there."""
    logs, done = Logs(folder), folder / "logs-done"
    if done.exists():
        return logs
    folder.mkdir(parents=True, exist_ok=True)
    _train(logs, seed, sizes)
    for name, policy in (("random", ("random",)), ("medium", ())):
        _record(logs.snapshot("medium"), sizes.sessions, logs.log(name), policy=policy)
    first = 0
    if sizes.replay:
        logs.log("replay").mkdir(exist_ok=True)
    for stage in range(PARTS + 1) if sizes.replay else ():
        count = (stage + 1) * sizes.sessions // (PARTS + 1) - first
        out = logs.log("replay") / f"part-{stage:08d}.parquet"
        _record(logs.snapshot(stage), count, out, seed=stage)
        log = read_decisions(out)  # the sessions of a folder are counted on from file to file
        times = log.times + first * log.header.interface.session_length
        write_decisions(out, dataclasses.replace(log, sessions=log.sessions + first, times=times))
        first += count
    done.touch()
    return logs


def _record(path: Path, sessions: int, out: Path, policy: tuple[str, ...] = (), seed: int = 0) -> None:
    """Record sessions of training users; ``policy``: () is the checkpoint's own, sampled."""
    options = RecordConfig(
        str(path), policy=policy, sessions=sessions, users="train", seed=seed, out=str(out), quiet=True
    )
    record(options)


def _train(logs: Logs, seed: int, sizes: Sizes) -> None:
    """Save PPO after each part of its steps, and untrained."""
    settings: dict[str, Any] = {"total_timesteps": sizes.steps, "seed": seed, "eval_interval": 0}
    config = Config(algo="ppo", env=sizes.env, **settings, **sizes.world, **sizes.ppo)
    names: list[int | str] = [*range(1, PARTS + 1), "medium"]
    for update in updates(config, folder=logs.folder / "ppo"):
        run = update.run
        if run.updates == 1:
            untrained = logs.folder / "ppo" / "ppo.pt"  # the checkpoint before the first update
            logs.snapshot(0).write_bytes(untrained.read_bytes())
        for name in names:
            share = MEDIUM if isinstance(name, str) else name / PARTS
            if run.updates == max(1, round(run.num_updates * share)):
                save(logs.snapshot(name), snapshot(run))

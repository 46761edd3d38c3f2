"""Is anything lost where runs begin at once in one folder, or are killed? Counts, and exits 1 if so.

    python -m benchmarks.runs_survive --pairs 30 --kills 50

Pairs of the same command begin at the same moment in one folder. Then pairs of which one is killed
(SIGKILL) at a random moment, from its first system call on to beyond its end; each killed run that has a
checkpoint is taken to its end by ``--run``, and must end with the weights of the run that was not killed.
Every run that printed "done" must have its whole checkpoint and its log, each in a folder of its own. The
processes are forks of one that has imported everything, so that they meet more closely than commands do.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

import recsys_rl.training.train  # noqa: F401  (so that no fork has to)
from recsys_rl.checkpoint import load
from recsys_rl.cli import main as command
from recsys_rl.types import UserError
from recsys_rl.utils.logger import read_log

STEPS = 24 * 40
RUN = [
    *("train", "--data", "synthetic", "--num-items", "24", "--num-users", "30", "--embedding-dim", "4"),
    *("--max-episode-steps", "5", "--n-steps", "6", "--num-envs", "4", "--batch-size", "12"),
    *("--hidden-dims", "6", "--save-interval", "3", "--eval-interval", "10", "--device", "cpu"),
    *("--total-timesteps", str(STEPS)),
]


@dataclass
class Tally:
    """Counts of the runs by their end, and the losses."""

    begun: int = 0
    done: int = 0  # runs that printed "done"
    folders: int = 0
    killed_before_checkpoint: int = 0
    killed_while_training: int = 0
    killed_after_end: int = 0
    resumed: int = 0  # killed runs that were taken to their end
    lost: list[str] = field(default_factory=list)  # a sentence for each thing that is missing


def begin(folder: Path, argv: list[str], said: Path) -> int:
    """The command in ``folder``, in a process of its own that writes to ``said``; its process id."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    pid = os.fork()
    if pid:
        os.close(file)
        return pid
    os.chdir(folder)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os._exit(command(argv))


def wait(pid: int) -> int:
    """The exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def survive(folder: Path, pairs: int, kills: int, seed: int = 0) -> Tally:
    """Run ``pairs`` pairs, then ``kills`` pairs of which one is killed, in ``folder``."""
    tally, rng, outputs = Tally(), random.Random(seed), []
    work, notes = folder / "work", folder / "said"
    work.mkdir()
    notes.mkdir()
    started = time.monotonic()
    wait(begin(work, RUN, notes / "first.txt"))
    outputs.append(notes / "first.txt")
    length = time.monotonic() - started
    for number in range(pairs):
        said = [notes / f"pair-{number}-{one}.txt" for one in (1, 2)]
        for pid in [begin(work, RUN, file) for file in said]:
            if wait(pid) != 0:
                tally.lost.append(f"a run of pair {number} failed: {said}")
        outputs += said
    for number in range(kills):
        said = [notes / f"kill-{number}-{one}.txt" for one in (1, 2)]
        victim, other = (begin(work, RUN, file) for file in said)
        time.sleep(rng.uniform(0, 2 * length))
        os.kill(victim, signal.SIGKILL)
        killed = wait(victim) == -signal.SIGKILL
        if wait(other) != 0:
            tally.lost.append(f"the run beside kill {number} failed: {said[1]}")
        outputs += said
        if not killed:
            tally.killed_after_end += 1
    tally.begun = len(outputs)
    look_for(outputs, work, tally)
    resume(work, notes, tally)
    return tally


def look_for(outputs: list[Path], work: Path, tally: Tally) -> None:
    """Every run that printed "done" has its own whole checkpoint and its own log."""
    seen: set[str] = set()
    for output in outputs:
        done = re.search(r"^done: .*; checkpoint: (.*); log: (.*)$", output.read_text(), re.MULTILINE)
        if done is None:
            continue
        tally.done += 1
        checkpoint, log = done.groups()
        try:
            step, rows = load(work / checkpoint).step, read_log(work / log)
        except UserError as error:
            tally.lost.append(str(error))
            continue
        if checkpoint in seen or step != STEPS or not rows or rows[-1][0] != STEPS:
            tally.lost.append(f"{checkpoint} or {log} is another run's")
        seen.add(checkpoint)
    try:
        load(work / "checkpoints/ppo.pt")
    except UserError as error:
        tally.lost.append(str(error))


def resume(work: Path, notes: Path, tally: Tally) -> None:
    """Take each run that was killed to its end, which must be that of a run that was not."""
    uninterrupted = load(work / "runs/drift-synthetic-ppo-0/ppo.pt").agent
    for run in sorted((work / "runs").iterdir()):
        tally.folders += 1
        if not (run / "ppo.pt").exists():
            tally.killed_before_checkpoint += 1
            continue
        try:
            unfinished = load(run / "ppo.pt").step < STEPS
            read_log(run / "log.csv")
            if unfinished:
                tally.killed_while_training += 1
                argv = ["train", "--run", str(run.relative_to(work))]
                code = wait(begin(work, argv, notes / "resume.txt"))
                tally.resumed += code == 0
            agent = load(run / "ppo.pt").agent
        except UserError as error:
            tally.lost.append(str(error))
            continue
        if any(not torch.equal(tensor, agent[name]) for name, tensor in uninterrupted.items()):
            tally.lost.append(f"{run} ends with other weights than a run that was not killed")
        if read_log(run / "log.csv")[-1][0] != STEPS:
            tally.lost.append(f"{run}/log.csv does not reach the end")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = survive(Path(folder), given.pairs, given.kills, given.seed)
    print(
        f"{given.pairs} pairs begun at once and {given.kills} kills beside another run: of {tally.begun} "
        f"runs {tally.done} said done; killed before the folder: {tally.begun - tally.folders}, before the "
        f"first checkpoint: {tally.killed_before_checkpoint}, while training: {tally.killed_while_training} "
        f"({tally.resumed} of them resumed to the same weights), after the end: {tally.killed_after_end}; "
        f"lost: {len(tally.lost)} ({time.monotonic() - started:.0f} s)"
    )
    for line in tally.lost:
        print(line, file=sys.stderr)
    raise SystemExit(bool(tally.lost))


if __name__ == "__main__":
    main()

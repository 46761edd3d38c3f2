"""Does the record of a server keep its promise when the power is cut?

    python -m benchmarks.serving_power --cuts 20

The server writes to a disk that loses all that was not synced (harness/power.py). It is killed under load, at
a random moment or in place of the sync of a checkpoint, and the next one starts with what the disk holds.

The promise: an event that was acknowledged is in the record exactly once, and with --decisions-fsync an
answered decision is in it. Without that option some of the latest decisions are lost. None of them has an
acknowledged event, and no later decision gets the number of a lost one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.harness.power import Disk, compiled
from benchmarks.harness.said import Said, checkpoint_in, clients, losses, send_again, sound
from benchmarks.harness.served import Server
from recsys_rl.errors import UserError

LONGEST = 0.6  # seconds until the cut
RECORD = "record.sqlite"
CHECKPOINTS = (2, 3)  # syncs of the database; the first one is at the start
PATIENCE = 10.0  # seconds for a checkpoint


def power_cuts(
    folder: Path, checkpoint: Path, number: int, fsync: bool, ignored: str = "", seed: int = 0
) -> list[str]:
    """Cut the power ``number`` times. ``fsync``: with --decisions-fsync; ``ignored``: see Disk.

    ``folder``: for the disks; it is made if it is missing.
    """
    folder.mkdir(exist_ok=True)
    library = compiled(folder)
    if library is None:
        print("  skipped: it needs Linux and a C compiler")
        return []
    said, rng, lost = Said(), random.Random(seed), list[int]()
    (folder / "disk").mkdir()
    for turn in range(number):
        disk, after = Disk(library, folder / "disk", folder / "synced"), folder / "after"
        at_checkpoint = turn % 2 == 1
        kill = (rng.choice(CHECKPOINTS), RECORD) if at_checkpoint else None
        server = Server(
            checkpoint,
            disk.folder / "new" / RECORD,
            *(["--decisions-fsync"] if fsync else []),
            log=folder / "server.log",
            environment=disk.environment(ignored, kill),
        )
        wrong, stop = send_again(server.port, said), threading.Event()
        threads = clients(server.port, said, str(turn), stop, events=5 if at_checkpoint else turn % 4)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(PATIENCE if at_checkpoint else rng.uniform(0.05, LONGEST))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        # Half of the disks have written some sectors of what was not synced.
        disk.after_cut(after, rng if turn % 4 in (1, 2) else None)
        shutil.rmtree(disk.folder)
        shutil.rmtree(disk.copy)
        shutil.copytree(after, disk.folder)  # no tool has opened what the next server starts with
        before = len(said.answered)
        wrong += _losses(after / "new" / RECORD, said, fsync)
        lost.append(before - len(said.answered))
        shutil.rmtree(after)
        if wrong:
            return wrong
    of_them = f" (lost: {', '.join(map(str, lost))})" if any(lost) else ""
    answered = len(said.answered) + sum(lost)
    print(f"  {answered:,} decisions answered{of_them}, {len(said.acknowledged):,} events acknowledged")
    return []


def _losses(db: Path, said: Said, fsync: bool) -> list[str]:
    """What breaks the promise in what the disk holds. Decisions that may be lost are noted as such."""
    if not db.is_file():
        return ["the record is lost"] if said.answered or said.acknowledged else []
    try:
        problem = sound(db)
    except UserError as error:
        return [str(error)]
    problems = losses(db, said)
    if not fsync:
        lost = {decision for decision in said.answered if f"decision {decision} is lost" in problems}
        problems = [
            sentence
            for sentence in problems
            if sentence not in {f"decision {number} is lost" for number in lost}
        ]
        said.lost |= lost
        for number in lost:
            del said.answered[number]
    return [*problems, problem] if problem else problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=20)
    number = parser.parse_args().cuts
    folder = Path(tempfile.mkdtemp(prefix="serving-power-"))
    wrong = list[str]()
    try:
        checkpoint = checkpoint_in(folder)
        for fsync in (True, False):
            print(f"{number} power cuts, {'with' if fsync else 'without'} --decisions-fsync", flush=True)
            wrong += power_cuts(folder / f"cuts-{fsync}", checkpoint, number, fsync)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("; ".join(wrong[:3]) or "  kept")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

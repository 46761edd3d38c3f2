"""Does a loop that is killed end as one that is not? Exits 1 if it does not.

    python -m benchmarks.loop_kills --kills 20

A small world is served and visited, and then it is copied twice. On one copy the loop takes its three turns
undisturbed: the one that learns, judges and starts a canary, the one that gives it a larger share, and the
one that promotes it or takes it back.
On the other it is killed (SIGKILL) 20 times at random moments while it works, and started again. Both must
have the same candidates, verdicts and releases, and the server must answer all the time. The visitors come
one at a time, so that both servers draw the same items. The loops and the servers are forks of one process
that has imported everything, and the loops learn little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch._dynamo  # the first optimiser of a process loads it for seconds: no fork has to

from benchmarks.harness.forked import ForkOfThis
from benchmarks.harness.said import GONE
from benchmarks.harness.served import Connection, Server
from examples.loop import quiet
from recsys_rl.cli.train import train_options
from recsys_rl.logs.users import fit
from recsys_rl.serving.loop import gate as gates
from recsys_rl.serving.loop import retrain as retraining
from recsys_rl.serving.loop import take_turns as loops
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.take_turns import LoopConfig, loop
from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors
from recsys_rl.training.train import train

WORLD = [
    *("--env", "satiation", "--data", "synthetic", "--num-items", "50", "--num-users", "200"),
    *("--embedding-dim", "8", "--max-episode-steps", "10", "--heldout-fraction", "0.4"),
    *("--hidden-dims", "16", "--n-steps", "8", "--num-envs", "8", "--batch-size", "32"),
    *("--device", "cpu", "--threads", "1"),
]
VISITS = 200  # before the first turn
CANARY = 20, 60  # before each later one: after more, the guardrail on the most shown item stops it (docs/14)
DECIDED = 30  # sessions of the canary after which it ends
PATIENCE = 60  # seconds until a canary has counted its sessions
FIT = 60  # steps of the fit of users
WINDOW = 2.0  # seconds in which feedback counts: also that of a busy machine


@dataclass
class Place:
    """A folder with policies, a record and the server of both."""

    folder: Path
    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def visit(self, number: int, seed: int) -> None:
        """People visit, one at a time."""
        options = VisitorsConfig(
            url=self.url,
            checkpoint=str(self.folder / "policies" / "first.pt"),
            sessions=number,
            users="all",
            width=1,
            seed=seed,
        )
        with quiet():
            visitors(options)
        time.sleep(WINDOW + 2)  # the sessions mature; an export leaves the last second to the next one
        for _ in range(PATIENCE):  # a canary of a busy machine looks later
            release = Releases(self.url).status()
            if release["challenger"] is None or release["canary"]["sessions"] >= number // 2:
                return
            time.sleep(1)

    @property
    def options(self) -> LoopConfig:
        """A turn with little learning."""
        return LoopConfig(
            db=str(self.folder / "record.sqlite"),
            policies=str(self.folder / "policies"),
            url=self.url,
            share=0.5,
            sessions=VISITS // 2,
            canary=DECIDED,
            steps=2_048,
            decisions=2_048,
            quiet=True,
        )

    def end(self) -> dict[str, Any]:
        """All that must be the same, however often the loop was killed."""
        policies, history = self.folder / "policies", Releases(self.url, None).history()
        return {
            "policies": sorted(path.name for path in policies.glob("*.pt")),
            "candidates": {p.name: json.loads(p.read_text()) for p in sorted(policies.glob("*.json"))},
            "cards": sorted(path.name for path in policies.glob("*.md")),
            "rounds": [p.read_text() for p in sorted(policies.glob("rounds/*/round.json"))],
            "log": sorted(path.name for path in policies.glob("log/*")),
            "releases": [(r["kind"], r["champion"], r["challenger"], r["share"]) for r in history],
        }


def place(folder: Path) -> Place:
    """The folder is served."""
    options = ("--feedback-window", str(WINDOW), "--seed", "0")
    return Place(folder, ForkOfThis(folder / "policies", folder / "record.sqlite", *options))


def visited(folder: Path) -> Path:
    """A folder with a policy that learned next to nothing, and the record of its first visits."""
    path = train(
        train_options([*WORLD, "--total-timesteps", "64"]).config,
        folder=folder / "run",
        quiet=True,
        latest=False,
    )
    (folder / "policies").mkdir(parents=True)
    shutil.copyfile(path, folder / "policies" / "first.pt")
    first = place(folder)
    try:
        first.visit(VISITS, seed=1)
    finally:
        first.server.stop()
    return folder


def begun(of: LoopConfig, before: Callable[[], None] = lambda: None) -> int:
    """A turn in a fork of this process; returns its number. ``before`` is called in it at first."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        before()
        with contextlib.redirect_stdout(None):
            loop(of)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(process: int) -> bool:
    """Wait for a turn. False if it was killed; raises RuntimeError if it failed."""
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a turn failed: its error is above")
    return True


def kill_after(module: ModuleType | type, name: str, calls: int = 1) -> Callable[[], None]:
    """For ``begun``: the process is killed when so many calls of the module's function have returned."""

    def patch() -> None:
        function, left = getattr(module, name), [calls]

        def then_killed(*args: Any, **named: Any) -> Any:
            found = function(*args, **named)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(module, name, then_killed)

    return patch


PHASES: tuple[Mapping[str, Callable[[], None]], ...] = (
    {
        "exported": kill_after(retraining, "begin_round"),
        "half learned": kill_after(retraining, "write_candidate"),
        "learned": kill_after(loops, "retrain"),
        "half judged": kill_after(gates, "write_text", 2),  # verdict and card of the first of two candidates
        "judged": kill_after(gates, "write_text", 2),  # of the second one
        "started": kill_after(Releases, "act"),
    },
    {"raised": kill_after(Releases, "act")},
    {"decided": kill_after(Releases, "act")},
)
"""The phases of the turns, each with the moment of its kill."""


class Undisturbed:
    """Nobody is killed; the seconds of each turn are kept."""

    def __init__(self) -> None:
        self.seconds = list[float]()

    def turn(self, of: Place, number: int) -> None:
        began = time.monotonic()
        assert ended(begun(of.options))
        self.seconds.append(time.monotonic() - began)


@dataclass
class InEachPhase:
    """A turn is killed once in each phase; then it takes what is left."""

    killed: int = 0
    kills: int = 0

    def turn(self, of: Place, number: int) -> None:
        for before in PHASES[number].values():
            self.killed += not ended(begun(of.options, before))
            self.kills += 1
        assert ended(begun(of.options))


@dataclass
class AtRandom:
    """A turn is killed at random moments, until so many found it under way; at last it takes what is left."""

    wanted: int
    longest: list[float]  # seconds of each turn without a kill; it is killed in the first third of them
    rng: random.Random
    killed: int = 0
    kills: int = 0

    def turn(self, of: Place, number: int) -> None:
        most, wanted = self.longest[number] / 3, self.killed + self.wanted // len(PHASES)
        while self.killed < wanted:
            process = begun(of.options)
            time.sleep(self.rng.uniform(0, most))
            os.kill(process, signal.SIGKILL)
            self.kills += 1
            if ended(process):  # before the kill: less is left to do
                most /= 2
            else:
                self.killed += 1
        assert ended(begun(of.options))


def turns(fresh: Path, folder: Path, kills: Undisturbed | InEachPhase | AtRandom) -> list[dict[str, Any]]:
    """All turns on a copy of the folder ``fresh``; returns what there is after each.

    ``folder`` is the same for all copies: a checkpoint names the files from which it was learned.
    """
    shutil.copytree(fresh, folder)
    of, found = place(folder), list[dict[str, Any]]()
    try:
        for number in range(len(PHASES)):
            with asked(of) as complaints:
                kills.turn(of, number)
            found.append({"complaints": [*complaints], **of.end()})
            if number + 1 < len(PHASES):
                of.visit(CANARY[number], seed=2 + number)
    finally:
        of.server.stop()
        shutil.rmtree(folder)
    return found


@contextlib.contextmanager
def asked(of: Place) -> Iterator[list[str]]:
    """Somebody asks for items all the time; the list gets a line for each request without an answer."""
    wrong, stop = list[str](), threading.Event()

    def ask() -> None:
        connection = Connection(of.server.port)
        while not stop.wait(0.05):
            try:
                connection.get("/v1/platform")
                status, _ = connection.get("/readyz")
                wrong.extend([] if status == 200 else [f"/readyz answers {status}"])
            except GONE as error:
                wrong.append(f"no answer: {error}")
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()


def differences(whole: Mapping[str, Any], killed: Mapping[str, Any]) -> list[str]:
    """What is not the same at the end."""
    return [f"{name}: {whole[name]} and {killed[name]}" for name in whole if whole[name] != killed[name]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--phases", action="store_true", help="kill once in each phase, at no random moment")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    torch.set_num_threads(1)
    fit.LEAST_STEPS = FIT
    started, whole = time.monotonic(), Undisturbed()
    with tempfile.TemporaryDirectory(prefix="loop-kills-") as name:
        fresh, folder = Path(name) / "fresh", Path(name) / "loop"
        visited(fresh)
        wanted = turns(fresh, folder, whole)
        rng = random.Random(given.seed)
        kills = InEachPhase() if given.phases else AtRandom(given.kills, whole.seconds, rng)
        found = turns(fresh, folder, kills)
    wrong = [line for one, two in zip(wanted, found, strict=True) for line in differences(one, two)]
    done = [kind for kind, *_ in wanted[-1]["releases"]]
    where = "phases" if given.phases else "random moments"
    print(f"killed in {kills.killed} of {kills.kills} {where}; releases: {', '.join(done)}")
    print(f"differences: {len(wrong)} ({time.monotonic() - started:.0f} s)")
    print("\n".join(wrong[:5]), file=sys.stderr)
    return 1 if wrong or len(done) < len(PHASES) else 0


if __name__ == "__main__":
    sys.exit(main())

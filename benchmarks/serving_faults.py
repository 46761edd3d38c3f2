"""Does the record of a server keep its promise? A line for each fault; exits 1 if one breaks it.

    python -m benchmarks.serving_faults --kills 50 --schemathesis V/bin/st

benchmarks/harness/said.py has the promise. Servers are processes of their own, and SIGKILL comes at a random
moment. The lines about draws, power cuts and wrong requests are of serving_draws.py, serving_power.py and
serving_abuse.py.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import serving_abuse as abuse
from benchmarks.harness.said import (
    GONE,
    THREADS,
    WORLD,
    Said,
    checkpoint_in,
    clients,
    losses,
    send_again,
    sound,
)
from benchmarks.harness.served import Connection, Server, running
from benchmarks.serving_draws import draws
from benchmarks.serving_power import power_cuts
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.training.train import train
from recsys_rl.utils.files import sha256_of


def kills(folder: Path, checkpoint: Path, number: int, events: int, seed: int = 0) -> list[str]:
    """SIGKILL, ``number`` times, while clients ask and send; what was lost is sent again after the start."""
    db, said, rng, wrong = folder / f"kills-{events}.sqlite", Said(), random.Random(seed), list[str]()
    for kill in range(number):
        server = Server(checkpoint, db)
        wrong += send_again(server.port, said)
        stop = threading.Event()
        threads = clients(server.port, said, str(kill), stop, events)
        time.sleep(rng.uniform(0.05, 0.6))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        wrong += losses(db, said)
        if wrong:
            return wrong
    problem = sound(db)
    print(f"  {len(said.answered):,} decisions, {len(said.acknowledged):,} events")
    return [problem] if problem else []


def terminated(folder: Path, checkpoint: Path, number: int) -> list[str]:
    """SIGTERM under load: the server answers what it has taken, and ends with 0."""
    db, said, wrong = folder / "terminated.sqlite", Said(), list[str]()
    for turn in range(number):
        server, stop = Server(checkpoint, db), threading.Event()
        threads = clients(server.port, said, str(turn), stop, 2)
        time.sleep(0.3)
        code = server.stop()
        stop.set()
        for thread in threads:
            thread.join()
        wrong += [f"exit code {code}"] if code else []
    return [*wrong, *losses(db, said), *filter(None, [sound(db)])]


def three_times(folder: Path, checkpoint: Path, number: int) -> list[str]:
    """Every event is sent three times, out of order, from 8 connections at once."""
    db, said = folder / "three.sqlite", Said()
    with running(checkpoint, db) as server:
        connection, events = Connection(server.port), list[dict[str, Any]]()
        for at in range(number):
            answer = connection.recommend(f"user {at % 40}")
            id_ = f"event {at}"
            events.append(
                {"event_id": id_, "decision_id": answer["decision_id"], "signal": "engagement", "value": 0.5}
            )
        said.sent = {event["event_id"] for event in events}
        accepted = Counter[str]()
        lock = threading.Lock()

        def send(thread: int) -> None:
            mine = events * 3 if thread < 0 else [*events]
            random.Random(thread).shuffle(mine)
            own = Connection(server.port)
            for start in range(0, len(mine), 7):
                batch = mine[start : start + 7]
                statuses = own.feedback(batch)
                with lock:
                    for event, status in zip(batch, statuses, strict=True):
                        accepted[event["event_id"]] += status == "accepted"
                        if status not in ("accepted", "duplicate"):
                            said.wrong.append(f"{event['event_id']}: {status}")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        conflict = connection.feedback([{**event, "value": 0.75} for event in events[:100]])
        if {*conflict} != {"conflict"}:
            said.wrong.append(f"other content: {Counter(conflict)}")
    said.acknowledged = said.sent
    said.wrong += [f"{id_} was accepted {n} times" for id_, n in accepted.items() if n != 1]
    return [*losses(db, said), *filter(None, [sound(db)])]


def damaged(folder: Path, checkpoint: Path, flips: int, cuts: int, seed: int = 0) -> list[str]:
    """Bits of the file flip, or it loses its end: the check finds it, or all rows are as they were."""
    db, said, rng = folder / "whole.sqlite", Said(), random.Random(seed)
    with running(checkpoint, db) as server:
        stop = threading.Event()
        threads = clients(server.port, said, "0", stop, 3)
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
    intact, wrong = db.read_bytes(), list[str]()
    before = _rows(db)
    copy = folder / "damaged.sqlite"
    noticed = 0
    for turn in range(flips + cuts):
        content = bytearray(intact)
        if turn < flips:
            at = rng.randrange(len(content))
            content[at] ^= 1 << rng.randrange(8)
        else:
            content = content[: rng.randrange(len(content))]
        for old in folder.glob("damaged.sqlite*"):
            old.unlink()
        copy.write_bytes(content)
        try:
            problem = sound(copy)
        except UserError as error:
            problem = str(error)
        noticed += bool(problem)
        if not problem and _rows(copy) != before:
            wrong.append(f"damage {turn} is not found")
    print(f"  {noticed} of {flips + cuts} found; the others changed no row")
    return wrong


def _rows(db: Path) -> list[Any]:
    raw = sqlite3.connect(db)
    try:
        tables = ("people", "policies", "sessions", "decisions", "events")
        return [raw.execute(f"SELECT * FROM {table} ORDER BY number").fetchall() for table in tables]
    finally:
        raw.close()


def two_servers(folder: Path, checkpoint: Path) -> list[str]:
    """A second server on one record is refused with the owner's process id."""
    with running(checkpoint, folder / "two.sqlite") as server:
        try:
            Server(checkpoint, folder / "two.sqlite").kill()
        except RuntimeError as error:
            return [] if f"process {server.process.pid}" in str(error) else [str(error)]
    return ["two servers run on one record"]


def io_error(folder: Path, checkpoint: Path) -> list[str]:
    """A write fails (EFBIG): the server ends, nothing that it said is lost, and it starts again."""
    db, said, wrong = folder / "error.sqlite", Said(), list[str]()
    server, stop = Server(checkpoint, db), threading.Event()
    log = db.with_name(db.name + "-wal")
    threads = clients(server.port, said, "0", stop, 2)
    time.sleep(0.3)
    size = max(db.stat().st_size, log.stat().st_size)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for thread in threads:
        thread.join()
    code = server.process.wait(60)
    if code != 70 or "Traceback" in server.log.read_text():
        wrong.append(f"exit code {code}: {server.log.read_text()[-300:]}")
    with running(checkpoint, db) as again:
        Connection(again.port).recommend("1")
    return [*wrong, *losses(db, said), *filter(None, [sound(db)])]


def swaps(folder: Path, checkpoint: Path, number: int) -> list[str]:
    """The champion changes ``number`` times under load: every request is answered, and every draw repeats."""
    db, said, wrong = folder / "swaps.sqlite", Said(), list[str]()
    policies, names = _versions(folder, checkpoint, db)
    with running(policies, db) as server:
        stop, connection = threading.Event(), Connection(server.port)
        threads = clients(server.port, said, "0", stop, 2)
        for turn in range(number):
            body = {"sha256": names[(turn + 1) % 2]}
            status, answer = connection.post("/v1/release/alias", body)
            if status != 200:
                wrong.append(f"swap {turn}: {status} {answer[:200]!r}")
        stop.set()
        for thread in threads:
            thread.join()
    versions = Counter(json.loads(answer)["policy"]["sha256"][:8] for answer in said.answered.values())
    print(f"  decisions by version: {dict(versions)}")
    return [*wrong, *losses(db, said), *filter(None, [sound(db)])]


def swap_error(folder: Path, checkpoint: Path) -> list[str]:
    """The write of a swap fails: the server ends, and serves the version before after its start."""
    db, said, wrong = folder / "swap-error.sqlite", Said(), list[str]()
    policies, names = _versions(folder, checkpoint, db)
    server = Server(policies, db)
    connection = Connection(server.port)
    for user in range(20):
        body = connection.post("/v1/recommend", {"user_id": str(user)})[1]
        said.answered[json.loads(body)["decision_id"]] = body
    log = db.with_name(db.name + "-wal")  # all that a swap writes goes there
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
    try:
        refusal = connection.post("/v1/release/alias", {"sha256": names[1]})
        wrong.append(f"the swap was answered: {refusal}")
    except GONE:
        pass
    code = server.process.wait(60)
    if code != 70 or "Traceback" in server.log.read_text():
        wrong.append(f"exit code {code}: {server.log.read_text()[-300:]}")
    with running(policies, db) as again:
        answer = Connection(again.port).recommend("1")
        wrong += [] if answer["policy"]["sha256"] == names[0] else ["the version that was not written serves"]
    return [*wrong, *losses(db, said), *filter(None, [sound(db)])]


def _versions(folder: Path, checkpoint: Path, db: Path) -> tuple[Path, list[str]]:
    """A folder with two versions, and their SHA-256; the first one serves the new record."""
    policies, other = folder / "versions", [*WORLD, "--hidden-dims", "24"]
    if not policies.exists():
        policies.mkdir()
        shutil.copy(checkpoint, policies / "a.pt")
        shutil.copy(
            train(train_options(other).config, folder=folder / "other", quiet=True), policies / "b.pt"
        )
    with running(policies / "a.pt", db):
        pass
    return policies, [sha256_of(path) for path in sorted(policies.iterdir())]


def run(name: str, fault: Callable[[], Sequence[str]]) -> bool:
    """Print the line of a fault. Returns True if nothing broke."""
    start = time.monotonic()
    wrong = fault()
    said = "kept" if not wrong else f"BROKEN: {'; '.join([*wrong][:3])}"
    print(f"{name}: {said} ({time.monotonic() - start:.0f} s)", flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--schemathesis", default="st", help=f"its program ({abuse.SCHEMATHESIS})")
    parser.add_argument("--only", default="", help="the lines with this text alone")
    options = parser.parse_args()
    number = options.kills
    folder = Path(tempfile.mkdtemp(prefix="serving-faults-"))
    try:
        checkpoint = checkpoint_in(folder)
        faults: dict[str, Callable[[], list[str]]] = {
            f"{number} kills -9 while feedback is posted": lambda: kills(folder, checkpoint, number, 10),
            f"{number} kills -9 while decisions are answered": lambda: kills(folder, checkpoint, number, 0),
            "20 power cuts": lambda: power_cuts(folder / "power", checkpoint, 20, fsync=False),
            "20 power cuts with --decisions-fsync": lambda: power_cuts(
                folder / "fsync", checkpoint, 20, fsync=True
            ),
            "SIGTERM under load, 20 times": lambda: terminated(folder, checkpoint, 20),
            "1,000 events from 8 connections, out of order": lambda: three_times(folder, checkpoint, 1000),
            "100 flipped bits and 50 cuts": lambda: damaged(folder, checkpoint, 100, 50),
            "two servers on one record": lambda: two_servers(folder, checkpoint),
            "100 swaps under load": lambda: swaps(folder, checkpoint, 100),
            "200,000 draws against their propensities": lambda: draws(folder, checkpoint, 200_000),
            "five minutes of requests by the schema": lambda: abuse.by_schema(
                folder, checkpoint, options.schemathesis, 300
            ),
            "10,000 mutated bodies": lambda: abuse.mutated(folder, checkpoint, 10_000),
            "a write that fails": lambda: io_error(folder, checkpoint),
            "a swap whose write fails": lambda: swap_error(folder, checkpoint),
        }
        fine = [run(name, fault) for name, fault in faults.items() if options.only in name]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())

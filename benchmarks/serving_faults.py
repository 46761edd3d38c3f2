"""Does the record of a server keep its promise? A line for each fault; exits 1 if one breaks it.

    python -m benchmarks.serving_faults --kills 50

The promise: an event that was acknowledged is in the record exactly once, one that was not at most once, and
an answered decision is in it. Servers are processes of their own, and SIGKILL comes at a random moment.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.served import Connection, Server, running
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.serve.check import check
from recsys_rl.serve.reading import Record
from recsys_rl.serve.versions import sha256_of
from recsys_rl.workflows.train import train

GONE = (OSError, http.client.HTTPException)
THREADS = 8
WORLD = [
    *("--env", "satiation", "--data", "synthetic", "--num-items", "100", "--num-users", "50"),
    *("--embedding-dim", "4", "--max-episode-steps", "20", "--total-timesteps", "2048"),
]


@dataclass
class Said:
    """What clients sent, and what the server said of it."""

    sent: set[str] = field(default_factory=set)  # ids of events
    acknowledged: set[str] = field(default_factory=set)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    answered: dict[str, bytes] = field(default_factory=dict)  # decisions
    wrong: list[str] = field(default_factory=list)


def checkpoint_in(folder: Path) -> Path:
    """A small policy that learned next to nothing."""
    return train(train_options(WORLD).config, folder=folder / "run", quiet=True)


def clients(port: int, said: Said, name: str, stop: threading.Event, events: int) -> list[threading.Thread]:
    """THREADS clients that ask and send ``events`` events for each answer until the server is gone."""

    def use(thread: int) -> None:
        try:
            connection, count = Connection(port), 0
            while not stop.is_set():
                status, body = connection.post("/v1/recommend", {"user_id": f"user {name} {thread}"})
                if status != 200:
                    said.wrong.append(f"recommend: {status} {body[:200]!r}")
                    return
                answer = json.loads(body)
                said.answered[answer["decision_id"]] = body
                batch = []
                for _ in range(events):
                    count += 1
                    id_ = f"{name}/{thread}/{count}"
                    batch.append(
                        {
                            "event_id": id_,
                            "decision_id": answer["decision_id"],
                            "signal": "engagement",
                            "value": count % 1000 / 1000,
                        }
                    )
                    said.events[id_] = batch[-1]
                if not batch:
                    continue
                said.sent.update(x["event_id"] for x in batch)
                statuses = connection.feedback(batch)
                for event, found in zip(batch, statuses, strict=True):
                    if found != "accepted":
                        said.wrong.append(f"event {event['event_id']}: {found}")
                    said.acknowledged.add(event["event_id"])
        except GONE as error:
            if isinstance(error, ConnectionError) and str(error)[:1] in "45":
                said.wrong.append(str(error))

    threads = [threading.Thread(target=use, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


def kept(db: Path, said: Said) -> list[str]:
    """The sentences about what breaks the promise in the record at ``db``."""
    with sqlite3.connect(db) as raw:
        ids = Counter(x.removeprefix("=") for (x,) in raw.execute("SELECT id FROM events"))
        numbers = {str(x) for (x,) in raw.execute("SELECT number FROM decisions")}
    raw.close()
    wrong = [f"event {x} is lost" for x in said.acknowledged if not ids[x]]
    wrong += [f"event {x} is there {n} times" for x, n in ids.items() if n > 1]
    wrong += [f"event {x} was never sent" for x in ids if x not in said.sent]
    wrong += [f"decision {x} is lost" for x in said.answered if x not in numbers]
    return wrong + said.wrong


def sound(db: Path) -> str:
    """What `recsys-rl log check` says; "" if all is whole and every draw gives the same items."""
    record = Record(db)
    try:
        found = check(record)
    except UserError as error:
        return str(error)
    finally:
        record.store.close()
    return found.not_replayed


def kills(folder: Path, checkpoint: Path, number: int, events: int, seed: int = 0) -> list[str]:
    """SIGKILL, ``number`` times, while clients ask and send; what was lost is sent again after the start."""
    db, said, rng, wrong = folder / f"kills-{events}.sqlite", Said(), random.Random(seed), list[str]()
    for kill in range(number):
        server = Server(checkpoint, db)
        # What the server did not acknowledge before the last kill is sent again.
        again = [said.events[x] for x in said.sent - said.acknowledged]
        if again:
            connection = Connection(server.port)
            for start in range(0, len(again), 1000):
                part = again[start : start + 1000]
                for event, status in zip(part, connection.feedback(part), strict=True):
                    if status not in ("accepted", "duplicate"):
                        wrong.append(f"event {event['event_id']} sent again: {status}")
                    said.acknowledged.add(event["event_id"])
        stop = threading.Event()
        threads = clients(server.port, said, str(kill), stop, events)
        time.sleep(rng.uniform(0.05, 0.6))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        wrong += kept(db, said)
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
    return [*wrong, *kept(db, said), *filter(None, [sound(db)])]


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
        said.sent = {x["event_id"] for x in events}
        accepted = Counter[str]()
        lock = threading.Lock()

        def send(thread: int) -> None:
            mine = events * 3 if thread < 0 else [*events]
            random.Random(thread).shuffle(mine)
            own = Connection(server.port)
            for start in range(0, len(mine), 7):
                part = mine[start : start + 7]
                statuses = own.feedback(part)
                with lock:
                    for event, status in zip(part, statuses, strict=True):
                        accepted[event["event_id"]] += status == "accepted"
                        if status not in ("accepted", "duplicate"):
                            said.wrong.append(f"{event['event_id']}: {status}")

        threads = [threading.Thread(target=send, args=(x,)) for x in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        conflict = connection.feedback([{**x, "value": 0.75} for x in events[:100]])
        if {*conflict} != {"conflict"}:
            said.wrong.append(f"other content: {Counter(conflict)}")
    said.acknowledged = said.sent
    said.wrong += [f"{x} was accepted {n} times" for x, n in accepted.items() if n != 1]
    return [*kept(db, said), *filter(None, [sound(db)])]


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
    whole, wrong = db.read_bytes(), list[str]()
    before = _rows(db)
    copy = folder / "damaged.sqlite"
    found = 0
    for turn in range(flips + cuts):
        content = bytearray(whole)
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
        found += bool(problem)
        if not problem and _rows(copy) != before:
            wrong.append(f"damage {turn} is not found")
    print(f"  {found} of {flips + cuts} found; the others changed no row")
    return wrong


def _rows(db: Path) -> list[Any]:
    raw = sqlite3.connect(db)
    try:
        tables = ("people", "policies", "sessions", "decisions", "events")
        return [raw.execute(f"SELECT * FROM {x} ORDER BY number").fetchall() for x in tables]
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
    return [*wrong, *kept(db, said), *filter(None, [sound(db)])]


def swaps(folder: Path, checkpoint: Path, number: int) -> list[str]:
    """The champion changes ``number`` times under load: every request is answered, and every draw repeats."""
    place, db, said, wrong = folder / "versions", folder / "swaps.sqlite", Said(), list[str]()
    place.mkdir()
    shutil.copy(checkpoint, place / "a.pt")
    other = [*WORLD, "--hidden-dims", "24"]
    shutil.copy(train(train_options(other).config, folder=folder / "other", quiet=True), place / "b.pt")
    names = [sha256_of(path) for path in sorted(place.iterdir())]
    with running(place, db) as server:
        stop, connection = threading.Event(), Connection(server.port)
        threads = clients(server.port, said, "0", stop, 2)
        for turn in range(number):
            body = {"name": "champion", "sha256": names[(turn + 1) % 2]}
            status, answer = connection.post("/v1/policies/alias", body)
            if status != 200:
                wrong.append(f"swap {turn}: {status} {answer[:200]!r}")
        stop.set()
        for thread in threads:
            thread.join()
    versions = Counter(json.loads(x)["policy"]["sha256"][:8] for x in said.answered.values())
    print(f"  decisions by version: {dict(versions)}")
    return [*wrong, *kept(db, said), *filter(None, [sound(db)])]


def mutated(folder: Path, checkpoint: Path, number: int, seed: int = 0) -> list[str]:
    """Requests with changed bytes over raw sockets: an answer below 500 or 503, or a closed connection."""
    rng, wrong, statuses = random.Random(seed), list[str](), Counter[str]()
    event = {"decision_id": "3", "signal": "engagement", "value": 0.5, "event_id": "a", "position": 0}
    bodies = [
        ("/v1/recommend", {"user_id": "ann", "n": 2, "exclude": ["1"], "likes": ["2", "3"], "context": {}}),
        ("/v1/feedback", {"events": [event, {**event, "signal": "leave"}]}),
        ("/v1/policies/alias", {"name": "champion", "sha256": "0" * 64}),
    ]
    with running(checkpoint, folder / "mutated.sqlite") as server:
        for _ in range(number):
            path, body = rng.choice(bodies)
            content = bytearray(json.dumps(body).encode())
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(content))
                change = rng.choice(("flip", "cut", "double", "insert"))
                if change == "flip":
                    content[at] = rng.randrange(256)
                elif change == "cut":
                    del content[at : at + rng.randrange(1, 9)]
                elif change == "double":
                    content[at:at] = content[at : at + 30]
                else:
                    content[at:at] = rng.choice(
                        (b"[" * 50, b"1e999", b"NaN", b'"', b"\\ud800", b"\x00", b"-")
                    )
                if not content:
                    break
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            head += f"content-length: {len(content)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
                raw.sendall(head.encode() + content)
                answer = b""
                while part := raw.recv(65536):
                    answer += part
            status = answer[9:12].decode(errors="replace")
            statuses[status] += 1
            if (status >= "500" and status != "503") or b"Traceback" in answer:
                wrong.append(f"{bytes(content)!r}: {answer[:200]!r}")
        if "Traceback" in server.log.read_text():
            wrong.append(server.log.read_text()[-500:])
    print(f"  answers: {dict(statuses)}")
    return wrong


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
    number = parser.parse_args().kills
    folder = Path(tempfile.mkdtemp(prefix="serving-faults-"))
    try:
        checkpoint = checkpoint_in(folder)
        fine = [
            run(f"{number} kills -9 while feedback is posted", lambda: kills(folder, checkpoint, number, 10)),
            run(
                f"{number} kills -9 while decisions are answered",
                lambda: kills(folder, checkpoint, number, 0),
            ),
            run("SIGTERM under load, 20 times", lambda: terminated(folder, checkpoint, 20)),
            run(
                "1,000 events from 8 connections, out of order", lambda: three_times(folder, checkpoint, 1000)
            ),
            run("100 flipped bits and 50 cuts", lambda: damaged(folder, checkpoint, 100, 50)),
            run("two servers on one record", lambda: two_servers(folder, checkpoint)),
            run("20 swaps under load", lambda: swaps(folder, checkpoint, 20)),
            run("10,000 mutated bodies", lambda: mutated(folder, checkpoint, 10_000)),
            run("a write that fails", lambda: io_error(folder, checkpoint)),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())

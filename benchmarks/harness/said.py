"""Clients of a server that note what it said, and the promise that its record must keep.

The promise: an event that was acknowledged is in the record exactly once, one that was not at most once, and
an answered decision is in it.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.served import Connection
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.record.record_schema import Decision, decoded
from recsys_rl.training.train import train

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
    lost: set[str] = field(default_factory=set)  # decisions that a power cut may lose, and did
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
                if answer["decision_id"] in said.answered or answer["decision_id"] in said.lost:
                    said.wrong.append(f"decision {answer['decision_id']} is given twice")
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
                said.sent.update(event["event_id"] for event in batch)
                statuses = connection.feedback(batch)
                for event, verdict in zip(batch, statuses, strict=True):
                    if verdict != "accepted":
                        said.wrong.append(f"event {event['event_id']}: {verdict}")
                    said.acknowledged.add(event["event_id"])
        except GONE as error:
            if isinstance(error, ConnectionError) and str(error)[:1] in "45":
                said.wrong.append(str(error))

    threads = [threading.Thread(target=use, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


def losses(db: Path, said: Said) -> list[str]:
    """The sentences about what breaks the promise in the record at ``db``."""
    with sqlite3.connect(db) as raw:
        ids = Counter(id_.removeprefix("=") for (id_,) in raw.execute("SELECT id FROM events"))
        rows = {str(number): row for number, row in raw.execute("SELECT number, row FROM decisions")}
    raw.close()
    wrong = [f"event {event} is lost" for event in said.acknowledged if not ids[event]]
    wrong += [f"event {event} is there {n} times" for event, n in ids.items() if n > 1]
    wrong += [f"event {event} was never sent" for event in ids if event not in said.sent]
    for number, body in said.answered.items():
        if number not in rows:
            wrong.append(f"decision {number} is lost")
        elif decoded(Decision, rows[number]).answer != body:
            wrong.append(f"decision {number} has another answer")
    return wrong + said.wrong


def send_again(port: int, said: Said) -> list[str]:
    """Send what was not acknowledged before the last end. Returns the sentences about wrong answers."""
    wrong, connection = list[str](), Connection(port)
    again = [said.events[id_] for id_ in said.sent - said.acknowledged]
    for start in range(0, len(again), 1000):
        batch = again[start : start + 1000]
        for event, status in zip(batch, connection.feedback(batch), strict=True):
            if event["decision_id"] in said.lost and status == "unknown-decision":
                said.sent.remove(event["event_id"])
            elif status in ("accepted", "duplicate"):
                said.acknowledged.add(event["event_id"])
            else:
                wrong.append(f"event {event['event_id']} sent again: {status}")
    return wrong


def sound(db: Path) -> str:
    """What `recsys-rl log check` says; "" if all is whole and every draw gives the same items."""
    record = Record(db)
    try:
        report = check(record)
    except UserError as error:
        return str(error)
    finally:
        record.store.close()
    return report.not_replayed

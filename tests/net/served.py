"""A policy behind HTTP: 500 draws with their propensities, and the log that its record becomes."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.net import values
from tests.net.commands import CommandFailed, run, start, stop, until

DRAWS = 500
# A session ends after its tenth step or with `leave`, and its feedback counts for one second more.
OPTIONS = [
    "--port",
    "0",
    "--seed",
    "5",
    "--feedback-window",
    "1",
    "--deadline-ms",
    "60000",
    "--explore",
    "0.1",
]


def serve_entries() -> dict[str, Callable[[Path], Any]]:
    log = ["--log", "served.parquet", "--checkpoint", "runs/cql/cql.pt", "--logger", "runs/ppo/ppo.pt"]

    def judged(folder: Path) -> Any:
        run(folder, "ope", *log, "--no-world", "--json", "served.json")
        return values.table(folder / "served.json")

    return {
        "500 draws over HTTP": _draws,
        "log check of the record": lambda folder: values.lines(
            run(folder, "log", "check", "--db", "record.sqlite")
        ),
        "export of the record": _export,
        "ope, an exported record": judged,
    }


def _draws(folder: Path) -> Any:
    """Each answer's items and propensities, in the order of the requests, which come one after another."""
    process = start(folder, "serve", "--checkpoint", "runs/ppo/ppo.pt", "--db", "record.sqlite", *OPTIONS)
    try:
        until(lambda: _address(folder) is not None, process)
        url = str(_address(folder))
        until(lambda: _answers(f"{url}/readyz"), process)
        answers = [_one(url, number) for number in range(DRAWS)]
    finally:
        stop(process, signal.SIGTERM)
    if process.returncode:
        raise CommandFailed(f"the server ended with exit code {process.returncode}")
    time.sleep(1.2)  # the window in which feedback counts
    return {"first": answers[:5], "all": values.digest(json.dumps(answers)), "number": len(answers)}


def _address(folder: Path) -> str | None:
    said = "".join((folder / f"serve.{end}").read_text() for end in ("out", "err"))
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    return None if found is None else found.group()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _one(url: str, number: int) -> list[Any]:
    """A recommendation for one of 17 users, of whom five are strangers, and feedback about it."""
    user = number % 17
    body: dict[str, Any] = {"user_id": str(user) if user < 12 else f"guest {user}"}
    if user == 12:
        body["likes"] = ["4", "9"]
    if user == 13:
        body["n"] = 2
    if user == 3:
        body["exclude"] = ["1", "2"]
    answer = _post(f"{url}/v1/recommend", body)
    events = [
        {"decision_id": answer["decision_id"], "signal": "engagement", "value": (7 * number % 11) / 10}
        | {"position": place}
        for place in range(len(answer["items"]))
    ]
    if number % 23 == 22:
        events.append({"decision_id": answer["decision_id"], "signal": "leave"})
    statuses = _post(f"{url}/v1/feedback", {"events": events})
    items = [[item["item_id"], item["propensity"]] for item in answer["items"]]
    return [items, answer["propensity"], answer["session"]["step"], answer["degraded"], str(statuses)]


def _post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def _export(folder: Path) -> Any:
    run(folder, "log", "export", "--db", "record.sqlite", "--out", "served.parquet")
    return values.rows(folder / "served.parquet", without=["time"])

"""Small policies behind the application, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch
from starlette.testclient import TestClient

from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import application
from tests.doors import SERVED, train_in

SLOW = 30_000.0  # milliseconds: a busy machine must not refuse requests of tests


def trained(folder: Path, name: str, *options: str) -> Path:
    """A checkpoint of a policy that learned next to nothing."""
    return train_in(folder / name, *SERVED[name], "--total-timesteps", "48", *options)


@contextlib.contextmanager
def serving(checkpoint: Path, db: Path, **options: Any) -> Iterator[TestClient]:
    """A client of a server in this process; it ends with the block."""
    options = {"deadline_ms": SLOW, "seed": 0, **options}
    threads = torch.get_num_threads()
    app = application(ServeConfig(str(checkpoint), db=str(db), **options))
    with TestClient(app, "http://127.0.0.1:8000") as client:
        yield client
    torch.set_num_threads(threads)


def recommend(client: httpx.Client, user: str, **fields: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    found = client.post("/v1/recommend", json={"user_id": user, **fields})
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def send(client: httpx.Client, *events: dict[str, Any]) -> list[str]:
    """The status of each event, with the code of a rejection."""
    found = client.post("/v1/feedback", json={"events": [*events]})
    assert found.status_code == 200, found.text
    return [x["code"] or x["status"] for x in found.json()["results"]]


def event(decision: dict[str, Any], signal: str, value: float = 1.0, **fields: Any) -> dict[str, Any]:
    return {"decision_id": decision["decision_id"], "signal": signal, "value": value, **fields}


def begun(first: Path, db: Path) -> Path:
    """The folder of ``first``, with which the record at ``db`` begins."""
    with serving(first, db):
        return first.parent

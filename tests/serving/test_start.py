"""The first moments of a server: which policy it serves, and a stop that comes before it is ready."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import serve
from recsys_rl.utils.files import sha256_of
from tests.serving.servers import begun, recommend, serving

At = Callable[[str], Path]


@pytest.fixture
def main_thread() -> Iterator[None]:
    """What a server changes in its process is as before after the test."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("moment", ["said", "run"])
def test_a_stop_in_the_first_moments_is_heard(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main_thread: None, moment: str
) -> None:
    """From "serving at" on a script may send it. The line names the file behind a link."""
    link = tmp_path / "latest.pt"
    link.symlink_to(checkpoint("satiation"))
    own, missed = uvicorn.Server.run, list[bool]()

    def said(*text: Any, **options: Any) -> None:
        assert "serving at" in text[0] and f", policy {link.resolve()}, new record " in text[0]
        if moment == "said":
            signal.raise_signal(signal.SIGTERM)

    def run(self: uvicorn.Server, sockets: Any) -> None:
        def end() -> None:
            missed.append(True)
            self.should_exit = True

        watch = threading.Timer(3, end)
        watch.start()
        if moment == "run":
            signal.raise_signal(signal.SIGTERM)
        own(self, sockets)
        watch.cancel()

    monkeypatch.setattr("recsys_rl.serving.server.print", said, raising=False)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    serve(ServeConfig(str(link), db=str(tmp_path / "r.sqlite"), port=0))
    assert not missed


@pytest.fixture
def folder(two: Path, tmp_path: Path) -> Path:
    """A folder with two versions, a.pt and b.pt."""
    return Path(shutil.copytree(two, tmp_path / "policies"))


def serves(client: TestClient) -> str:
    [found] = [x["file"] for x in client.get("/v1/policies").json()["policies"] if x["champion"]]
    return str(found)


def test_a_file_that_is_half_copied_hinders_no_start(folder: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(folder / "b.pt", db):
        pass
    half = (folder / "a.pt").read_bytes()
    (folder / "0.pt").write_bytes(half[: len(half) // 2])
    with serving(folder, db) as client:
        assert serves(client) == "b.pt"
        policies = client.get("/v1/policies").json()["policies"]
        assert [x["file"] for x in policies] == ["0.pt", "a.pt", "b.pt"]
        # The algorithm of the one that serves, and the files of the others.
        assert [x["name"] for x in policies] == ["0", "a", "ppo"]
        assert [x["version"] for x in policies] == [None] * 3
        recommend(client, "3")
        found = client.get("/v1/policies").json()["policies"]
        assert [(x["name"], x["version"] is None) for x in found] == [
            ("0", True),
            ("a", True),
            ("ppo", False),
        ]


def test_no_other_policy_serves_where_the_champion_is_gone(folder: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with serving(begun(folder / "a.pt", db), db) as client:
        body = {"sha256": sha256_of(folder / "b.pt")}
        assert client.post("/v1/release/alias", json=body).status_code == 200
    away = (folder / "b.pt").rename(tmp_path / "b.pt")
    before = db.read_bytes()
    with pytest.raises(UserError), serving(folder, db):
        pass
    assert db.read_bytes() == before
    away.rename(folder / "b.pt")
    with serving(folder, db) as client:
        assert serves(client) == "b.pt"
    with serving(folder / "a.pt", db) as client:  # a file that is named serves, and is the champion
        assert serves(client) == "a.pt"
    with serving(folder, db) as client:
        assert serves(client) == "a.pt"


def test_a_new_record_takes_no_file_by_its_name(folder: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    with pytest.raises(UserError), serving(folder, db):
        pass
    assert not db.exists()
    shutil.copy(folder / "b.pt", folder / "a.pt")  # two names of one policy
    with serving(folder, db) as client:
        assert serves(client) == "b.pt"


@pytest.mark.parametrize("command", [["serve"], ["log", "check"]])
def test_a_server_needs_its_packages(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(
        "recsys_rl.cli.extras.find_spec", lambda name: None if name in ("msgspec", "uvloop") else name
    )
    assert main(command) == 2

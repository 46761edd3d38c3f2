"""Servers in processes of their own, and connections to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

JSON = {"content-type": "application/json"}


class Started(Protocol):
    """A process that was started, as ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...

    def terminate(self) -> None: ...


class Server:
    """`recsys-rl serve` at a free port of loopback."""

    def __init__(
        self,
        checkpoint: Path,
        db: Path,
        *options: str,
        log: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Start it, and wait until it listens. Raises RuntimeError with what it said if it ends."""
        self.log = log or db.with_name(db.name + ".log")
        self.log.touch()
        at = self.log.stat().st_size
        words = ["serve", "--port", "0", "--deadline-ms", "20000"]
        words += ["--checkpoint", str(checkpoint), "--db", str(db), *options]
        self.process = self._begun(words, {**environment, "OMP_NUM_THREADS": "1"})
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
            text = self.log.read_text()[at:]
            match = re.search(r"serving at http://127.0.0.1:(\d+)", text)
            if match:
                self.port = int(match[1])
                return
            if self.process.returncode is not None:
                raise RuntimeError(text)

    def _begun(self, words: Sequence[str], environment: Mapping[str, str]) -> Started:
        """A new Python with this command; what it says goes to the end of the log."""
        with self.log.open("a") as said:
            command = [sys.executable, "-m", "recsys_rl.cli", *words]
            return subprocess.Popen(command, stderr=said, stdout=said, env=environment)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def seconds(self) -> float:
        """CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) / 1000


@contextlib.contextmanager
def running(checkpoint: Path, db: Path, *options: str) -> Iterator[Server]:
    """A server that is stopped at the end of the block."""
    server = Server(checkpoint, db, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


class Connection:
    """One connection. Raises OSError or http.client.HTTPException where the server is gone."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: Any) -> tuple[int, bytes]:
        self.connection.request("POST", path, json.dumps(body), JSON)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def get(self, path: str) -> tuple[int, bytes]:
        self.connection.request("GET", path)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def recommend(self, user: str, **fields: Any) -> dict[str, Any]:
        """The answer. Raises ConnectionError for any other status than 200."""
        status, answer = self.post("/v1/recommend", {"user_id": user, **fields})
        if status != 200:
            raise ConnectionError(f"{status}: {answer[:200]!r}")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def feedback(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """The status of each event, with the code of a rejection. Raises ConnectionError."""
        status, answer = self.post("/v1/feedback", {"events": [*events]})
        if status != 200:
            raise ConnectionError(f"{status}: {answer[:200]!r}")
        return [result["code"] or result["status"] for result in json.loads(answer)["results"]]

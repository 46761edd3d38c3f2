"""Requests that no honest client sends: the server refuses each in one sentence, and goes on.

`python -m benchmarks.serving_faults` prints a line for each kind.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

from benchmarks.harness.served import running

SCHEMATHESIS = "python -m venv V && V/bin/pip install schemathesis, then --schemathesis V/bin/st"
"""How to get it: in an environment of its own, as it would change the versions of the package's."""


def mutated(folder: Path, checkpoint: Path, number: int, seed: int = 0) -> list[str]:
    """Requests with changed bytes over raw sockets: an answer below 500 or 503, or a closed connection."""
    rng, wrong, statuses = random.Random(seed), list[str](), Counter[str]()
    event = {"decision_id": "3", "signal": "engagement", "value": 0.5, "event_id": "a", "position": 0}
    bodies = [
        ("/v1/recommend", {"user_id": "ann", "n": 2, "exclude": ["1"], "likes": ["2", "3"], "context": {}}),
        (
            "/v1/observe",
            {"user_id": "ann", "items": ["4", "5"], "propensity": [0.5, 0.25], "policy": "r"},
        ),
        ("/v1/feedback", {"events": [event, {**event, "signal": "leave"}]}),
        ("/v1/release/alias", {"sha256": "0" * 64}),
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
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            head += f"content-length: {len(content)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
                raw.sendall(head.encode() + content)
                answer = b""
                while received := raw.recv(65536):
                    answer += received
            status = answer[9:12].decode(errors="replace")
            statuses[status] += 1
            if (status >= "500" and status != "503") or b"Traceback" in answer:
                wrong.append(f"{bytes(content)!r}: {answer[:200]!r}")
        if "Traceback" in server.log.read_text():
            wrong.append(server.log.read_text()[-500:])
    print(f"  answers: {dict(statuses)}")
    return wrong


def by_schema(folder: Path, checkpoint: Path, program: str, seconds: int) -> list[str]:
    """schemathesis sends requests made from /openapi.json for so long, and checks each answer against it.

    One of its checks is left out: that each request which fits the schema is accepted. A schema does not say
    which items the catalogue has.
    """
    path = shutil.which(program)
    if path is None:
        print(f"  not run, as {program} is not a program here: {SCHEMATHESIS}")
        return []
    with running(checkpoint, folder / "schema.sqlite") as server:
        url = f"http://127.0.0.1:{server.port}"
        options = [f"--max-time={seconds}", "--exclude-checks=positive_data_acceptance", "--no-color"]
        command = [path, "run", f"{url}/openapi.json", f"--url={url}", "--continue-on-failure", *options]
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if "Traceback" in server.log.read_text():
            return [server.log.read_text()[-500:]]
    cases = re.search(r"\d[\d,]* generated.*", run.stdout)
    print(f"  test cases: {cases[0] if cases else run.stdout[-300:]}")
    if run.returncode == 0:
        return []
    return [line.strip() for line in run.stdout.splitlines() if "❌" in line] or [run.stdout[-500:]]

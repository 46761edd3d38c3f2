"""The versions that the server may serve, and the swap of one for another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recsys_rl.errors import UserError, one_line
from recsys_rl.recommender.visit import NOON
from recsys_rl.serve import wire
from recsys_rl.serve.inference import Ask, draw
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.replay import ask_again
from recsys_rl.serve.rows import Decision, Whole
from recsys_rl.serve.versions import Version, facts_of, files_in, open_version
from recsys_rl.serve.worker import Worker


class Library:
    """Checkpoints in a file or a folder, by their SHA-256."""

    def __init__(self, place: Path, facts: object, env: str | None = None) -> None:
        self.place, self.facts, self.env = place, facts, env
        self.open: dict[str, Version] = {}
        self.lock = threading.Lock()
        self._hashing = threading.Lock()
        self._found: tuple[list[tuple[Path, int, int]], Mapping[str, Path]] = [], {}

    def files(self) -> Mapping[str, Path]:
        """``files_in`` of the place, hashed again only after a file there has changed. Raises UserError."""
        with self._hashing:
            now = _marks(self.place)
            if not now or now != self._found[0]:
                self._found = now, files_in(self.place)
            return self._found[1]

    def version(self, sha256: str, file: str | None = None) -> Version:
        """The policy of this hash, from the folder or from ``file``. Raises UserError, Problem."""
        with self.lock:
            if sha256 not in self.open:
                path = self.files().get(sha256)
                if path is None and file is not None and Path(file).is_file():
                    path = Path(file)
                if path is None:
                    raise Problem(404, "unknown-policy", "There is no checkpoint with this SHA-256.")
                found = open_version(path, 0, self.env)
                if found.row.sha256 != sha256:
                    raise Problem(
                        409, "policy-changed", f"{one_line(path)} is not the file of this SHA-256 any more."
                    )
                if facts_of(found.checkpoint) != self.facts:
                    raise UserError(
                        f"{one_line(path)} is of another platform, catalogue or session than the record: "
                        "train it on the same data and settings."
                    )
                self.open[sha256] = found
            return self.open[sha256]

    def number(self, number: int, worker: Worker) -> Version:
        """The policy with this number in the record."""
        served = next((x for x in [*worker.served.values()] if x.number == number), None)
        if served is None:
            raise Problem(404, "unknown-policy", "The record does not know the policy of this decision.")
        return self.version(served.sha256, served.file)

    def verified(self, sha256: str, stored: Sequence[tuple[Whole, Decision]]) -> Version:
        """A version that answers a new visitor and the ``stored`` requests with finite scores.

        Raises UserError, Problem.
        """
        version = self.version(sha256)
        version.prepare()
        places = version.checkpoint.interface.slate_size
        first = Ask(0, version, -1, (), NOON, None, (), NOON, (0.5,) * places)
        try:
            asks = [replace(ask_again(version, *x), degraded="", candidates=None) for x in stored]
            why = next((x.error or x.degraded for x in draw([first, *asks]) if x.error or x.degraded), "")
        except Exception as error:  # whatever a policy raises, it can't serve
            why = f"{type(error).__name__}: {one_line(error)}"
        if why:
            raise Problem(
                409, "policy-fails", f"The policy failed on a new visitor or a stored request ({why})."
            )
        return version

    def listed(self, worker: Worker) -> wire.Versions:
        """All versions, those of the folder and those that have served."""
        files = {sha256: str(path) for sha256, path in self.files().items()}
        served = dict(worker.served)
        files |= {row.sha256: row.file for row in served.values() if row.sha256 not in files}
        return wire.Versions(
            [
                wire.Version(
                    name=served[sha256].name if sha256 in served else "",
                    sha256=sha256,
                    file=Path(file).name,
                    version=served[sha256].number if sha256 in served else None,
                    champion=worker.champion.row.sha256 == sha256,
                )
                for sha256, file in files.items()
            ]
        )


def _marks(place: Path) -> list[tuple[Path, int, int]]:
    """The checkpoints there, each with its size and the time of its last change in nanoseconds."""
    found = []
    for path in sorted(place.glob("*.pt")) if place.is_dir() else [place]:
        with contextlib.suppress(OSError):  # gone in the meantime
            stat = path.stat()
            found.append((path, stat.st_size, stat.st_mtime_ns))
    return found

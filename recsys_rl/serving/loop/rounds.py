"""The rounds of a folder of policies: what each learned from, and the candidates that came out of it.

    DIR/NAME.pt                          the policies, found by their SHA-256
    DIR/SHA256.json                      a candidate: its parent, the interval it learned from, seed and split
    DIR/log/part-FROM-TO.parquet         the sessions of the record that matured in each interval
    DIR/rounds/NUMBER/round.json         a round; beside it are the learned users and the runs

A round fixes its champion and its interval before anything is learned. So a round that was killed is learned
from the same sessions when it is started again, and gives the same candidates.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.utils.files import write_text
from recsys_rl.utils.locks import locked

LOG, ROUNDS = "log", "rounds"
KNOWN = re.compile(r"[0-9a-f]{64}")
PART = re.compile(r"part-(\d+)-(\d+)\.parquet")
Interval = tuple[int, int]
"""The numbers of the record's rows between which a session matured: above the first, up to the second."""


@dataclass(frozen=True)
class Round:
    """One round of learning."""

    number: int  # from 1 on
    champion: str  # SHA-256 of the policy that it wants to better
    since: int  # the interval of the record that is new; it learns from all intervals so far
    until: int
    candidates: tuple[str, ...] = ()  # their SHA-256; () until all are learned
    unknown: float = 0.0  # share of the items of then with texts that only new encodings would know


@dataclass(frozen=True)
class Candidate:
    """A policy that a round learned."""

    sha256: str
    file: str  # its name in the folder
    algo: str
    parent: str  # SHA-256 of the champion from which it began
    round: int
    interval: Interval  # of all the sessions that it learned from
    log_hash: str
    seed: int
    heldout_fraction: float  # with the seed, the split of the users
    sessions: int  # of training users, from which it learned
    warm: bool = False  # it began with the champion's weights

    def values(self) -> dict[str, Any]:
        """The values of the JSON file."""
        return {
            "file": self.file,
            "algo": self.algo,
            "parent": self.parent,
            "round": self.round,
            "from": self.interval[0],
            "to": self.interval[1],
            "log_hash": self.log_hash,
            "seed": self.seed,
            "split": {"heldout_fraction": self.heldout_fraction, "seed": self.seed},
            "sessions": self.sessions,
            "warm": self.warm,
        }


def folder_of(policies: str | None) -> Path:
    """The folder of --policies. Raises UserError if it is missing."""
    if policies is None:
        raise UserError("The folder of the policies is missing: give --policies DIR.")
    path = Path(policies)
    if not path.is_dir():
        raise UserError(f"{one_line(path)} is not a folder: give the folder of policies that the server has.")
    return path


def parts_in(policies: Path) -> list[Interval]:
    """The intervals in the folder's log, ascending."""
    found = [PART.fullmatch(path.name) for path in (policies / LOG).glob("part-*.parquet")]
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def part_path(policies: Path, since: int, until: int) -> Path:
    """The file of an interval. The numbers have one width, so that names ascend as the intervals do."""
    return policies / LOG / f"part-{since:012d}-{until:012d}.parquet"


def round_folder(policies: Path, number: int) -> Path:
    return policies / ROUNDS / str(number)


def latest_round(policies: Path) -> Round | None:
    """The round with the highest number; None before the first. Raises UserError for a damaged file."""
    numbers = [
        int(path.parent.name)
        for path in (policies / ROUNDS).glob("*/round.json")
        if path.parent.name.isdecimal()
    ]
    if not numbers:
        return None
    path = round_folder(policies, max(numbers)) / "round.json"
    values = _read(path)
    try:
        return Round(**{**values, "candidates": tuple(map(str, values["candidates"]))})
    except (KeyError, TypeError) as error:
        raise damaged(path) from error


def write_round(policies: Path, of: Round) -> None:
    path = round_folder(policies, of.number) / "round.json"
    write_text(path, json.dumps(vars(of), indent=1) + "\n")


def forget_round(policies: Path, of: Round) -> None:
    """Take back that the round has begun, as one from which nothing could be learned."""
    (round_folder(policies, of.number) / "round.json").unlink(missing_ok=True)


def next_number(policies: Path) -> int:
    """The number of a new round: that of no finished one, and of none that left a candidate.

    So no round writes over a policy, not even where the file of its round is lost.
    """
    latest = latest_round(policies)
    known = [candidate_in(policies, name) for name in known_in(policies)]
    numbers = [of.round for of in known if of is not None]
    if latest is not None:
        numbers.append(latest.number - (not latest.candidates))
    return 1 + max(numbers, default=0)


def write_candidate(policies: Path, of: Candidate) -> None:
    write_text(policies / f"{of.sha256}.json", json.dumps(of.values(), indent=1) + "\n")


def known_in(policies: Path) -> list[str]:
    """The SHA-256 of all candidates of which the folder knows from what they learned."""
    return sorted(path.stem for path in policies.glob("*.json") if KNOWN.fullmatch(path.stem))


def candidate_in(policies: Path, sha256: str) -> Candidate | None:
    """What is known of a candidate; None for a policy that no round learned. Raises UserError if damaged."""
    path = policies / f"{sha256}.json"
    if not path.is_file():
        return None
    values = _read(path)
    try:
        return Candidate(
            sha256=sha256,
            file=str(values["file"]),
            algo=str(values["algo"]),
            parent=str(values["parent"]),
            round=int(values["round"]),
            interval=(int(values["from"]), int(values["to"])),
            log_hash=str(values["log_hash"]),
            seed=int(values["seed"]),
            heldout_fraction=float(values["split"]["heldout_fraction"]),
            sessions=int(values["sessions"]),
            warm=bool(values.get("warm", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path) from error


def gate_file(policies: Path, sha256: str) -> Path:
    """The file of the gate's verdict about a policy."""
    return policies / f"{sha256}.gate.json"


def verdict_in(policies: Path, sha256: str) -> Mapping[str, Any] | None:
    """The gate's verdict about a policy; None before there is one. Raises UserError if it is damaged."""
    path = gate_file(policies, sha256)
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path) from error
    if not isinstance(values, dict):
        raise damaged(path)
    return values


def damaged(path: Path) -> UserError:
    """The error about a file of the folder that can't be read."""
    return UserError(f"{one_line(path)} is damaged: delete it, and start the command again.")


@contextlib.contextmanager
def held(policies: Path) -> Iterator[None]:
    """Lock the folder's rounds against other processes. Raises UserError if another one has the lock."""
    folder = policies / ROUNDS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{one_line(folder)} can't be made ({error_text(error)}): give a folder that can be written."
        ) from error
    with locked(folder, f"Another process is learning in {one_line(policies)}: wait for it."):
        yield

"""The options of `recsys-rl serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys_rl.errors import UserError
from recsys_rl.serving.messages import MOST_PLACES
from recsys_rl.settings.fields import Positive, Range, Share, check_fields, check_used
from recsys_rl.settings.names import DEFAULT_ALGO, algorithm_of
from recsys_rl.settings.shared import Seed


@dataclass(frozen=True)
class ServeConfig:
    """One server."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The policy: a checkpoint, or a folder of them, which are versions."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    algo: str | None = None
    """An algorithm of your own, module:ALGORITHM, of which a checkpoint is. Its module is imported."""
    db: str = "record.sqlite"
    """The record: a new SQLite file, or that of an earlier server with the same items."""
    host: str = "127.0.0.1"
    """Address to listen at. Any other than loopback needs --tokens."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """Port to listen at; 0: a free one, which is printed."""
    tokens: str | None = None
    """File of tokens: lines of scopes (decide,feedback,read,items,admin) and the SHA-256 of a token."""
    explore: Share = 0.0
    """Probability of a uniformly drawn item in place of the policy's; the propensities include it."""
    new_items: Share = 0.0
    """At a place of your own: probability of an item that the training of the version never showed, in place
    of the policy's, all such items alike; the propensities include it. Where items are known by their ids
    alone, a new item is shown by it alone."""
    strangers: bool = True
    """Serve users whom the checkpoint does not know; --no-strangers refuses them."""
    session_timeout: Positive = 1800.0
    """Seconds without a request or an event after which a session has ended."""
    feedback_window: Positive = 3600.0
    """Seconds after the end of a session in which feedback counts."""
    deadline_ms: Positive = 100.0
    """Milliseconds in which a recommendation is drawn; later it is refused with 503."""
    observe_only: bool = False
    """Start without a policy: record what your own application shows (POST /v1/observe), with --items and
    --signals. --checkpoint is then a folder for the versions to come; default: policies."""
    items: str | None = None
    """With --observe-only: the file about the items; id, title, genres and any other column."""
    signals: tuple[str, ...] = ()
    """With --observe-only: the names of the signals of feedback, such as clicked."""
    context: str | None = None
    """With --observe-only: a TOML file with a section for each piece of the context: kind = "number" with low
    and high, "list" with size, or "text" with values."""
    slate_size: Annotated[int, Range(1, MOST_PLACES)] = 1
    """With --observe-only: items that your application shows together."""
    most_shown: Share = 0.1
    """A challenger stops whose most shown item has a larger share than the champion's by more than this; 1:
    none does. In a catalogue of some dozens of items good policies have favourites."""
    decisions_fsync: bool = False
    """Let a decision reach the disk before its answer leaves. Feedback always does."""
    seed: Seed | None = None
    """Seed of the draws; default: another one at each start."""

    @property
    def deadline(self) -> float:
        """Seconds in which a recommendation is drawn."""
        return self.deadline_ms / 1000

    def __post_init__(self) -> None:
        check_fields(self)
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)
        if self.observe_only and (self.items is None or not self.signals):
            lacking = "--items FILE" if self.items is None else "--signals NAME"
            raise UserError(f"--observe-only needs the items and the signals of your place: give {lacking}.")
        of_place = {"items": self.items, "signals": self.signals, "context": self.context}
        given = {name: bool(value) for name, value in of_place.items()} | {"slate_size": self.slate_size > 1}
        reason = "only with --observe-only, as a checkpoint has its own"
        check_used(*((name, given[name] and not self.observe_only, reason) for name in given))

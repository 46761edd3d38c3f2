"""`recsys-rl serve`: options -> record, policy, worker and application -> uvicorn."""

from __future__ import annotations

import gc
import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_rl.data.tables.items import knows_items
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.app import App, Tokens, is_loopback
from recsys_rl.serving.facts import CHAMPION, COLUMNS, ITEMS_KNOWN, facts_of
from recsys_rl.serving.jobs import Settings
from recsys_rl.serving.limits import limited
from recsys_rl.serving.messages import MOST_PLACES, Problem
from recsys_rl.serving.place import place_of
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.snapshot import champion_in
from recsys_rl.serving.record.store import Full, Lost, Store
from recsys_rl.serving.release_changes import at_start
from recsys_rl.serving.releases.active_version import PolicyFiles, checkpoint_at_start
from recsys_rl.serving.versions import Version, open_version
from recsys_rl.serving.worker import Worker
from recsys_rl.settings.fields import Positive, Range, Share, check_fields
from recsys_rl.settings.names import DEFAULT_ALGO, algorithm_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.folder import nearby
from recsys_rl.utils.seeding import generators

SWITCH = 5e-4  # seconds until a waiting thread gets its turn; Python's 5 ms would be seen in every answer
CONNECTIONS = 1024  # at once; more are refused
KEEP_ALIVE = 30  # seconds of a connection without a request


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
    """File of tokens: lines of scopes (decide,feedback,read,admin) and the SHA-256 of a token."""
    explore: Share = 0.0
    """Probability of a uniformly drawn item in place of the policy's; the propensities include it."""
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

    def __post_init__(self) -> None:
        check_fields(self)
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)
        if self.observe_only and (self.items is None or not self.signals):
            lacking = "--items FILE" if self.items is None else "--signals NAME"
            raise UserError(f"--observe-only needs the items and the signals of your place: give {lacking}.")
        of_place = {"items": self.items, "signals": self.signals, "context": self.context}
        given = next((name for name, value in of_place.items() if value), None)
        if not self.observe_only and (given or self.slate_size > 1):
            raise UserError(
                f"--{given or 'slate-size'} is for --observe-only, as a checkpoint has its own: leave it out."
            )


def serve(options: ServeConfig) -> None:
    """Serve until a signal stops the process. Raises UserError before that."""
    tokens = None if options.tokens is None else Tokens(Path(options.tokens))
    if tokens is None and not is_loopback(options.host):
        raise UserError(
            f"--host {options.host} can be reached by others: give --tokens FILE, or listen at 127.0.0.1."
        )
    torch.set_num_threads(1)
    listener = _listen(options.host, options.port)
    record = f"{'record' if Path(options.db).exists() else 'new record'} {one_line(options.db)}"
    try:
        app = application(options, tokens)
        url = url_of(*listener.getsockname()[:2])
        version = app.worker.shared.active.version
        # The run behind a link in checkpoints/.
        policy = nearby(Path(version.row.file)) if version.decides else "none: observing only"
        config = uvicorn.Config(
            app,
            http=limited(HttpToolsProtocol),
            log_level="warning",
            access_log=False,
            lifespan="on",
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=10,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
        )
        server = uvicorn.Server(config)

        def stop(number: int, frame: FrameType | None) -> None:
            server.should_exit = True

        # Before uvicorn has its own handler, this one asks it to stop as soon as it has started. When it has
        # stopped it raises the signal again.
        signal.signal(signal.SIGTERM, stop)
        print(f"serving at {url}, policy {one_line(policy)}, {record}", file=sys.stderr, flush=True)
        sys.setswitchinterval(SWITCH)
        gc.collect()
        gc.freeze()  # what was made so far stays: it need not be looked through again and again
        server.run([listener])
    finally:
        listener.close()


def application(options: ServeConfig, tokens: Tokens | None = None) -> App:
    """The application over its record. Raises UserError."""
    version = _first_version(options)
    if not options.strangers and not version.row_of_user:
        raise UserError(
            f"--no-strangers would refuse everyone: {one_line(version.row.file or options.checkpoint)} knows "
            "no users, as people are what their requests say; leave it out."
        )
    facts = facts_of(version.checkpoint)
    store = Store(Path(options.db), facts)
    try:
        policies = PolicyFiles(Path(options.checkpoint), facts, options.env, options.observe_only)
        if version.decides:
            _try(version, policies)
            if store.facts.get(CHAMPION) != version.row.sha256:
                store.set_fact(CHAMPION, version.row.sha256)
            if version.columns and COLUMNS not in store.facts:
                store.set_fact(COLUMNS, dict(version.columns))
        elif ITEMS_KNOWN not in store.facts:
            store.set_fact(ITEMS_KNOWN, knows_items(version.checkpoint.catalogue))
        version.prepare()
        seed = secrets.randbits(32) if options.seed is None else options.seed
        # A server that starts again must not draw the numbers of the last one again.
        stream = f"served after {store.last}"
        settings = Settings(
            session_timeout=options.session_timeout,
            feedback_window=options.feedback_window,
            deadline=options.deadline_ms / 1000,
            explore=options.explore,
            strangers=options.strangers,
            fsync_decisions=options.decisions_fsync,
            most_shown=options.most_shown,
        )
        release = at_start(store, policies, version)
        worker = Worker(store, version, settings, generators(seed, stream)[stream], release)
    except Damaged as damage:
        store.close()
        raise UserError(
            f"{one_line(options.db)} is damaged ({damage}): see recsys-rl log check, and copy it from a "
            "backup."
        ) from damage
    except (Full, Lost) as error:
        store.close()
        raise UserError(
            f"{one_line(options.db)} can't be written ({error}): make room, or choose another place."
        ) from error
    except BaseException:
        store.close()
        raise
    return App(worker, policies, tokens)


def _first_version(options: ServeConfig) -> Version:
    """The version that serves first, or the place without one. Raises UserError."""
    folder, record = Path(options.checkpoint), Path(options.db)
    if options.observe_only:
        if not champion_in(record):
            assert options.items is not None
            return place_of(options.items, options.signals, options.context, options.slate_size)
        print("--observe-only: a version serves already, and goes on", file=sys.stderr)
    return open_version(checkpoint_at_start(folder, record), 0, options.env)


def _try(version: Version, policies: PolicyFiles) -> None:
    """Let the version answer once: the first call of a network takes longer than the others.

    Raises UserError if it fails.
    """
    policies.versions[version.row.sha256] = version
    try:
        policies.tried(version.row.sha256, [])
    except Problem as problem:
        raise UserError(
            f"{one_line(version.row.file)} can't serve: {problem.detail} Give another --checkpoint."
        ) from problem


def url_of(host: str, port: int) -> str:
    """The address for a browser; that of IPv6 stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise UserError(
            f"The server can't listen at {host}:{port} ({error_text(error)}): give another --port."
        ) from error
    listener.set_inheritable(True)
    return listener
